"""StableHLO operators inside TensorFlow Lite files -> ONNX (https://openxla.org/stablehlo/spec)."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Ints
from isomorph.dialects.tflite.to_onnx.common import BOOL, END, INT64, bounded, longs, narrow, size, sizes_of, times, to_onnx, wide

REDUCTION = {"ADD": "Add", "MUL": "Mul", "MINIMUM": "Min", "MAXIMUM": "Max", "ALL": "And", "ANY": "Or"}
SCATTERED = {"Add": "add", "Mul": "mul", "Min": "min", "Max": "max"}


@to_onnx("STABLEHLO_SHIFT_LEFT")
def shift_left(op, x, y):
    """On the bits of two's complement, 64 wide; casting back cuts off what is too much."""
    shifted = op.BitShift(*(op.Cast(op.Cast(value, to=INT64), to=ir.DataType.UINT64) for value in (x, y)), direction="LEFT")
    return op.Cast(shifted, to=x.dtype)


@to_onnx("STABLEHLO_AND")
def stablehlo_and(op, x, y):
    return op.And(x, y) if x.dtype == BOOL else op.BitwiseAnd(x, y)


@to_onnx("STABLEHLO_PAD")
def stablehlo_pad(op, x, value, *, edge_padding_low=(), edge_padding_high=(), interior_padding=()):
    """Between the elements, then at the edges; negative pads cut."""
    y = dilated(op, x, [inner + 1 for inner in interior_padding], value)
    pads = op.const([*edge_padding_low, *edge_padding_high])
    a, filler = wide(op, y, value)
    return narrow(op, op.Pad(a, pads, filler), x)


@to_onnx("DILATE")
def dilate(op, x, dilations: Ints, value):
    return dilated(op, x, list(dilations), value)


def dilated(op: Builder, x: ir.Value, dilations: Sequence[int], value: ir.Value) -> ir.Value:
    """Sets `dilation - 1` copies of `value` between neighbours along each axis: pads a new axis, folds it in, cuts what follows the last."""
    rank, _ = op.of(x)
    y, *filler = wide(op, x, value)
    for axis, dilation in enumerate(dilations):
        if dilation > 1:
            sizes = [size(op, x, other) if other >= axis else None for other in range(rank)]
            pads = [0] * (2 * rank + 2)
            pads[rank + 1 + axis + 1] = dilation - 1
            y = op.Pad(op.Unsqueeze(y, [axis + 1]), pads, *filler)
            y = op.Reshape(y, sizes_of(op, *[0] * axis, times(op, sizes[axis], dilation), *sizes[axis + 1:]))
            y = op.Slice(y, [0], [-(dilation - 1)], [axis])
    return narrow(op, y, x)


def combination(op: Builder, body: ir.Graph) -> str | None:
    """The one ONNX operator that a body of two scalars applies to both, None where it returns its second input."""
    nodes = [node for node in body if node.op_type not in ("Cast", "Identity")]
    if not nodes and body.outputs[0] is body.inputs[1]:
        return None
    if len(nodes) != 1 or nodes[0].op_type not in REDUCTION.values() or len(nodes[0].inputs) != 2:
        op.reject("its body is not one of the known combinations")
    return nodes[0].op_type


def windows(op: Builder, x: ir.Value, init: ir.Value, target: str, extents: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> ir.Value:
    """Combines windows axis by axis: as many strided slices as the window is long. `init` takes part once."""
    (y,) = wide(op, x)
    bounded(op, sum(extents), 1 << 12)
    for axis, (extent, stride, dilation) in enumerate(zip(extents, strides, dilations, strict=True)):
        if extent == stride == 1:
            continue
        reach = (extent - 1) * dilation
        y, *parts = (op.Slice(y, [place * dilation], [place * dilation - reach or END], [axis], [stride]) for place in range(extent))
        for part in parts:
            y = op.make(target, (y, part), {})
    return narrow(op, op.make(target, (y, *wide(op, init)), {}), x)


@to_onnx("STABLEHLO_REDUCE_WINDOW")
def stablehlo_reduce_window(op, x, init, *, window_dimensions, body, window_strides=(), base_dilations=(), window_dilations=(), padding=()):
    rank = len(window_dimensions)
    ones = [1] * rank
    pads = np.asarray(padding or [0] * 2 * rank, np.int64).reshape(rank, 2)
    y = dilated(op, x, base_dilations or ones, init)
    if pads.any():
        y = narrow(op, op.Pad(*wide(op, y), pads.T.reshape(-1), *wide(op, init)), x)
    return windows(op, y, init, combination(op, body), window_dimensions, window_strides or ones, window_dilations or ones)


@to_onnx("REDUCE_WINDOW")
def reduce_window(op, x, init, extents: Ints, strides: Ints, dilations: Ints, *, reduce_function):
    return windows(op, x, init, REDUCTION[reduce_function], extents, strides, dilations)


def coordinates(op: Builder, indices: ir.Value, dims: Sequence[int], vector_dim: int, sizes: Sequence[int], limit: ir.Value | None) -> tuple[ir.Value, int]:
    """Where every element of every slice stands: [batch ..., slice ..., rank], and how many batch axes there are. `limit`: the last start that fits."""
    rank, _ = op.of(indices)
    start = longs(op, indices)
    if vector_dim == rank:
        start, rank = op.Unsqueeze(start, [-1]), rank + 1
    elif vector_dim != rank - 1:
        start = op.Transpose(start, perm=[*[axis for axis in range(rank) if axis != vector_dim], vector_dim])
    zero = op.Mul(op.Slice(start, [0], [1], [-1]), 0)
    columns = [list(dims).index(axis) if axis in dims else len(dims) for axis in range(len(sizes))]
    start = op.Gather(op.Concat(start, zero, axis=-1), op.const(columns), axis=-1)
    if limit is not None:
        start = op.Min(op.Max(start, 0), limit)
    bounded(op, math.prod(sizes))
    grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).astype(np.int64)
    return op.Add(op.Unsqueeze(start, list(range(rank - 1, rank - 1 + len(sizes)))), op.const(grid)), rank - 1


@to_onnx("STABLEHLO_GATHER")
def stablehlo_gather(op, x, indices, *, slice_sizes, start_index_map=(), offset_dims=(), collapsed_slice_dims=(), index_vector_dim=0, indices_are_sorted=0):
    """Slices of one size from many starts, moved so that they fit; slice axes go to `offset_dims` of the result."""
    limit = op.Sub(op.Shape(x), op.const(list(slice_sizes)))
    places, batch = coordinates(op, indices, start_index_map, index_vector_dim, slice_sizes, limit)
    y = op.GatherND(x, places)
    if collapsed_slice_dims:
        y = op.Squeeze(y, [batch + axis for axis in collapsed_slice_dims])
    rest = iter(range(batch))
    perm = [batch + list(offset_dims).index(axis) if axis in offset_dims else next(rest) for axis in range(batch + len(offset_dims))]
    return op.Transpose(y, perm=perm)


@to_onnx("STABLEHLO_SCATTER")
def stablehlo_scatter(op, x, indices, updates, *, update_computation, update_window_dims=(), inserted_window_dims=(), scatter_dims_to_operand_dims=(),
                      index_vector_dim=0, indices_are_sorted=0, unique_indices=0):
    """Combines slices into x, each at its start. What would lie outside is an error of ONNX Runtime, where the kernel skips it."""
    rank, sizes = op.of(updates)[0], op.static(updates)
    window = iter(sizes[axis] for axis in update_window_dims)
    extents = [1 if axis in inserted_window_dims else next(window) for axis in range(op.of(x)[0])]
    places, _ = coordinates(op, indices, scatter_dims_to_operand_dims, index_vector_dim, extents, None)
    ordered = op.Transpose(updates, perm=[*[axis for axis in range(rank) if axis not in update_window_dims], *update_window_dims])
    ordered = op.Reshape(ordered, [*[sizes[axis] for axis in range(rank) if axis not in update_window_dims], *extents])
    target = combination(op, update_computation)
    a, b = wide(op, x, ordered)
    return narrow(op, op.ScatterND(a, places, b, reduction=SCATTERED[target] if target else None), x)
