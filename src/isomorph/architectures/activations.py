"""What ggml's processors multiply blocks with: not the numbers themselves, but numbers rounded to 8 bits in blocks of their own.

A block of 32 is divided by a 127th of its largest number, and that scale is kept as a half (Q8_0, Q8_1); a block of 256 by that of its largest with its sign,
and the scale is float32 (Q8_K). Which of them belongs to a type of weights, and what is rounded how: ggml/src/ggml-cpu/ggml-cpu.c, type_traits_cpu, and
ggml-cpu/arch/x86/quants.c.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isomorph.tensors import NUMBER

if TYPE_CHECKING:
    import onnx_ir as ir

HALF, FLOAT = NUMBER["FLOAT16"], NUMBER["FLOAT"]
SMALL, LARGE = 32, 256                  # numbers that share a scale
STEPS = 127
LEAST = 1e-30                           # the least largest number of a block, whose inverse is finite
# The types of weights whose activations are rounded in small blocks, each by itself; all other blocks go with large ones.
SMALL_BLOCKS = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q1_0", "Q2_0", "IQ4_NL", "MXFP4", "NVFP4"})
SUMMED = frozenset({"Q4_1", "Q5_1"})    # those of them whose blocks come with the sum of their numbers, as a half
Constant = Callable[..., "ir.Value"]


@dataclass(frozen=True)
class Rounded:
    """Activations [batch, sequence, columns] as they are multiplied, and the sums of their blocks [batch, sequence, blocks] where these are kept apart."""

    values: ir.Value
    sums: ir.Value | None = None


def rounded(op: Any, constant: Constant, x: ir.Value, columns: int, kind: str) -> Rounded:
    """`x` [batch, sequence, columns] as it is multiplied with weights of the type `kind`, which fill whole blocks. The sequence may be empty."""
    small = kind in SMALL_BLOCKS
    size = SMALL if small else LARGE
    blocks = op.Reshape(x, constant([0, 0, columns // size, size]))
    largest = reduced(op, constant, "ReduceMax", op.Abs(blocks))
    codes, scale, exact = (_small if small else _large)(op, constant, blocks, largest)
    values = op.Reshape(op.Mul(codes, scale), op.Shape(x))
    if not small:
        return Rounded(values)
    sums = op.Squeeze(op.Mul(reduced(op, constant, "ReduceSum", codes), exact), constant([-1]))
    return Rounded(values, _as_half(op, sums))


def reduced(op: Any, constant: Constant, kind: str, blocks: ir.Value) -> ir.Value:
    """The greatest or the sum of each block [batch, sequence, blocks, size], as [batch, sequence, blocks, 1]. ONNX Runtime answers other dimensions where the
    sequence is empty, so they are stated."""
    dims = op.Concat(op.Shape(blocks, end=3), constant([1]), axis=0)
    return op.Reshape(getattr(op, kind)(blocks, constant([-1]), keepdims=1), dims, allowzero=1)


def _as_half(op: Any, x: ir.Value) -> ir.Value:
    return op.Cast(op.Cast(x, to=HALF), to=FLOAT)


Codes = tuple["ir.Value", "ir.Value", "ir.Value"]         # codes, the scale that they are multiplied with, and the one that they were found with


def _small(op: Any, constant: Constant, blocks: ir.Value, largest: ir.Value) -> Codes:
    steps = constant(STEPS, np.float32)
    codes = op.Round(op.Mul(blocks, op.Div(steps, op.Max(largest, constant(LEAST, np.float32)))))
    scale = op.Div(largest, steps)
    return codes, _as_half(op, scale), scale


def _large(op: Any, constant: Constant, blocks: ir.Value, largest: ir.Value) -> Codes:
    """The largest has the code -127 whatever its sign."""
    steps = constant(STEPS, np.float32)
    positive = op.Equal(reduced(op, constant, "ReduceMax", blocks), largest)
    signed = op.Where(positive, op.Neg(largest), largest)
    found = op.Where(op.Equal(largest, constant(0, np.float32)), constant(1, np.float32), signed)
    factor = op.Div(steps, found)
    scale = op.Div(constant(1, np.float32), factor)
    return op.Min(op.Round(op.Mul(blocks, factor)), steps), scale, scale
