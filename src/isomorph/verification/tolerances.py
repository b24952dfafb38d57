"""How far two results may lie apart, from their types and from the operators that made them."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from isomorph.verification.compare import Tolerance
from isomorph.verification.subject import Traits, narrowest

# Operators that move data without computing: the result is exact.
MOVING = frozenset({
    "Cast", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape",
    "ReverseSequence", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
    "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Not", "Xor", "Relu", "Clip", "Max", "Min", "MaxPool", "Neg", "Abs", "Sign",
})
# One rounding each, so that a result is exact up to the last bits.
ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "LeakyRelu", "PRelu", "HardSigmoid", "HardSwish", "Floor", "Ceil", "Round", "Mod"})

# Share of the output's range, by the work that makes it.
EXACT, ROUNDED, SUMMED = 0.0, 1e-6, 1e-4
HALF, HYBRID, QUANTISED = 1e-2, 5e-2, 1e-1
DISCRETE = 1e-3
BOUNDED = 1e-6                      # absolute


def tolerance(first: Traits, second: Traits, hub_operators: Callable[[], frozenset[str]]) -> Tolerance:
    """For the float outputs of two models that should be the same; `hub_operators` answers the ONNX operators of the first, where types do not decide."""
    if first.quantised_values or second.quantised_values:
        return Tolerance(share=QUANTISED, discrete=DISCRETE, quantised=True, reason="computed in quantised arithmetic")
    if first.quantised_weights != second.quantised_weights or (first.quantised_weights and second.quantised_weights):
        return Tolerance(share=HYBRID, discrete=DISCRETE, reason="quantised weights; some runtimes quantise activations with them on the fly")
    widths = narrowest(first.weight_types | first.value_types), narrowest(second.weight_types | second.value_types)
    if min(widths) == 16 and (widths[0] != widths[1] or "FLOAT16" in first.value_types or "BFLOAT16" in first.value_types):
        return Tolerance(share=HALF, discrete=DISCRETE, reason="16-bit floats")
    operators = hub_operators()
    if operators <= MOVING:
        return Tolerance(share=EXACT, reason="data is only moved or compared")
    if operators <= MOVING | ELEMENTWISE:
        return Tolerance(share=ROUNDED, discrete=DISCRETE, reason="one rounding an operator")
    return Tolerance(share=SUMMED, discrete=DISCRETE, reason="float32 sums in another order")


def for_output(base: Tolerance, want: object, quantum: float | None, bounded: bool) -> Tolerance:
    """The tolerance of one output: in quanta where it is quantised (bytes have a quantum of 1); some roundings of 1 where a function with bounds makes it,
    because runtimes compute sigmoid and its kin to the precision of their bounds, not of a result near 0.
    """
    if not base.quantised:
        return dataclasses.replace(base, absolute=BOUNDED) if bounded and base.share else base
    step = 1.0 if isinstance(want, np.ndarray) and want.dtype.kind in "iu" and want.dtype.itemsize <= 2 else quantum
    return dataclasses.replace(base, quantum=step)
