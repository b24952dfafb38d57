"""Operators that move elements or say where they are: shapes, slices, pads, gathers, diagonals."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Array, Builder, Int, Ints, constant
from isomorph.dialects.tflite.to_onnx.common import BOOL, END, INT32, NARROW, activation, bounded, longs, narrow, size, to_onnx, vector, wide


@to_onnx("RESHAPE")
def reshape(op, x, shape=None, *, new_shape=()):
    """The vector [0] once meant a scalar."""
    array = np.asarray(new_shape, np.int64) if shape is None else constant(shape)
    if array is None:
        return op.Reshape(x, longs(op, shape))
    sizes = [] if array.tolist() == [0] and 0 not in (op.outputs[0].shape or ()) else array.reshape(-1).tolist()
    return op.Reshape(x, op.const(np.asarray(sizes, np.int64)), allowzero=1 if 0 in sizes else None)


@to_onnx("TRANSPOSE")
def transpose(op, x, perm: Ints):
    return op.Transpose(x, perm=[axis % len(perm) for axis in perm])


@to_onnx("SQUEEZE")
def squeeze(op, x, *, squeeze_dims=()):
    return op.Squeeze(x, list(squeeze_dims) or None)


@to_onnx("EXPAND_DIMS")
def expand_dims(op, x, axis):
    return op.Unsqueeze(x, vector(op, axis))


@to_onnx("PACK")
def pack(op, *xs, values_count=0, axis=0):
    return op.Concat(*(op.Unsqueeze(x, [axis]) for x in xs), axis=axis)


@to_onnx("UNPACK")
def unpack(op, x, *, num, axis=0):
    if num != len(op.outputs):
        op.reject(f"{num} parts for {len(op.outputs)} outputs")
    parts = op.Split(x, axis=axis, num_outputs=num, _outputs=num)
    return [op.Squeeze(part, [axis]) for part in (parts if num > 1 else [parts])]


@to_onnx("CONCATENATION")
def concatenation(op, *xs, axis=0, fused_activation_function="NONE"):
    return activation(op, op.Concat(*xs, axis=axis), fused_activation_function)


@to_onnx("SPLIT")
def split(op, axis: Int, x, *, num_splits):
    size, count = op.of(x)[1][axis], len(op.outputs)
    if size == 0:                                   # which ONNX Runtime does not divide by a number
        return op.Split(x, [0] * count, axis=axis, _outputs=count)
    return op.Split(x, axis=axis, num_outputs=count, _outputs=count)


@to_onnx("SPLIT_V")
def split_v(op, x, sizes, axis: Int, *, num_splits):
    return op.Split(x, longs(op, sizes), axis=axis, _outputs=len(op.outputs))


@to_onnx("TILE")
def tile(op, x, repeats):
    return op.Tile(x, longs(op, repeats))


@to_onnx("BROADCAST_TO")
def broadcast_to(op, x, shape):
    return op.Expand(x, longs(op, shape))


@to_onnx("BROADCAST_ARGS")
def broadcast_args(op, x, y):
    """The shape that two shapes broadcast to: ones in front of the shorter, then whichever is not one."""
    (m,), (n,) = op.static(x), op.static(y)
    bounded(op, m + n, 64)
    a, b = (op.Concat(op.const(np.ones(max(m, n) - length, value.dtype.numpy())), value, axis=0) for value, length in ((x, m), (y, n)))
    return op.Where(op.Equal(a, 1), b, a)


@to_onnx("FILL")
def fill(op, shape, value):
    return op.Expand(value, longs(op, shape))


@to_onnx("ZEROS_LIKE")
def zeros_like(op, x):
    return op.ConstantOfShape(op.Shape(x), value=np.zeros(1, x.dtype.numpy()))


@to_onnx("RANGE")
def range_(op, start, limit, delta):
    return op.Range(start, limit, delta)


@to_onnx("SHAPE")
def shape(op, x, *, out_type="FLOAT32"):
    return op.Cast(op.Shape(x), to=op.outputs[0].dtype)


@to_onnx("RANK")
def rank(op, x):
    known = x.shape is not None
    return op.Identity(op.const(np.asarray(x.shape.rank(), np.int32))) if known else op.Cast(op.Size(op.Shape(x)), to=INT32)


@to_onnx("PAD")
def pad(op, x, paddings):
    return padded(op, x, paddings, None)


@to_onnx("PADV2")
def padv2(op, x, paddings, value):
    return padded(op, x, paddings, op.Reshape(value, op.const(np.zeros(0, np.int64))) if value.shape is None or value.shape.rank() else value)


def padded(op: Builder, x: ir.Value, paddings: ir.Value, value: ir.Value | None) -> ir.Value:
    """[[begin, end], ...] -> every begin, then every end."""
    pairs = constant(paddings)
    pads = op.const(pairs.T.reshape(-1).astype(np.int64)) if pairs is not None else op.Reshape(op.Transpose(longs(op, paddings), perm=[1, 0]), [-1])
    a, *filler = wide(op, x, *([] if value is None else [value]))
    return narrow(op, op.Pad(a, pads, *filler), x)


@to_onnx("MIRROR_PAD")
def mirror_pad(op, x, paddings: Array, *, mode="REFLECT"):
    """ONNX reflects without the border; with it (SYMMETRIC), the slices are turned round and set beside x."""
    if mode == "REFLECT":
        return op.Pad(x, paddings.T.reshape(-1).astype(np.int64), mode="reflect")
    for axis, (begin, end) in enumerate(paddings.tolist()):
        parts = [x]
        if begin:
            parts.insert(0, op.Slice(x, [begin - 1], [-END], [axis], [-1]))
        if end:
            parts.append(op.Slice(x, [-1], [-end - 1], [axis], [-1]))
        x = op.Concat(*parts, axis=axis) if len(parts) > 1 else x
    return x


@to_onnx("SLICE")
def slice_(op, x, begin, extent):
    """A size of -1 means up to the end."""
    start, length = longs(op, begin), longs(op, extent)
    axes = list(range(op.of(x)[0]))
    first, lengths = constant(start), constant(length)
    if first is not None and lengths is not None:
        ends = np.where(lengths < 0, END, first + lengths)
        return op.Slice(x, start, op.const(ends), axes)
    return op.Slice(x, start, op.Where(op.Less(length, 0), op.const(np.int64(END)), op.Add(start, length)), axes)


@to_onnx("STRIDED_SLICE")
def strided_slice(op, x, begin, end, strides: Ints, *, begin_mask=0, end_mask=0, ellipsis_mask=0, new_axis_mask=0, shrink_axis_mask=0, offset=0):
    """numpy's basic indexing, written as bit masks: one bit an entry of `begin`, `end` and `strides`."""
    given, axis = len(strides), 0
    entries: list[Any] = []                                 # (axis, place in begin)
    fresh: list[int] = []                                   # axes of the result that are new
    dropped: list[int] = []                                 # axes that fall away
    skipped = op.of(x)[0] - (given - bin(new_axis_mask).count("1") - (1 if ellipsis_mask else 0))
    for place in range(given):
        bit = 1 << place
        if ellipsis_mask & bit:
            axis += skipped
        elif new_axis_mask & bit:
            fresh.append(axis - len(dropped) + len(fresh))
        else:
            entries.append((axis, place))
            if shrink_axis_mask & bit:
                dropped.append(axis)
            axis += 1
    places = [place for _, place in entries]
    masks = [[bool(mask >> place & 1) for place in places] for mask in (begin_mask, end_mask, shrink_axis_mask)]
    starts, ends = _limits(op, begin, end, [strides[place] for place in places], places, masks, bool(offset))
    y = op.Slice(x, starts, ends, [axis for axis, _ in entries], [1 if shrink else strides[place] for place, shrink in zip(places, masks[2], strict=True)])
    y = op.Squeeze(y, dropped) if dropped else y
    return op.Unsqueeze(y, fresh) if fresh else y


def _limits(op: Builder, begin: ir.Value, end: ir.Value, strides: list[int], places: list[int], masks: list[list[bool]],
            offset: bool) -> tuple[ir.Value, ir.Value]:
    """Where each slice starts and ends. An entry that falls away takes one element, whatever `end` says; -1 + 1 would be 0, so it becomes the end."""
    open_start, open_end, shrink = masks
    near = np.asarray([0 if stride > 0 else END for stride in strides], np.int64)
    far = np.asarray([END if stride > 0 else -END for stride in strides], np.int64)
    free = np.asarray(open_start) & ~np.asarray(shrink)
    a, b = longs(op, begin), longs(op, end)
    first, last = constant(a), constant(b)
    following: Any
    starts: Any
    ends: Any
    if first is not None and last is not None:
        starts = np.where(free, near, first[places])
        following = np.where(starts == -1, END, starts + 1)
        ends = np.where(open_end, far, last[places] + (first[places] if offset else 0))
        return op.const(starts), op.const(np.where(shrink, following, ends))
    if places != list(range(_length(begin) or -1)):
        a, b = op.Gather(a, op.const(places)), op.Gather(b, op.const(places))
    following = op.Add(a, [1])
    following = op.Where(op.Equal(following, [0]), op.const([END]), following)
    starts = op.Where(op.const(free), op.const(near), a) if free.any() else a
    ends = op.Add(a, b) if offset else b
    ends = op.Where(op.const(np.asarray(open_end)), op.const(far), ends) if any(open_end) else ends
    return starts, op.Where(op.const(np.asarray(shrink)), following, ends) if any(shrink) else ends


def _length(value: ir.Value) -> int | None:
    return value.shape[0] if value.shape is not None and value.shape.rank() == 1 and isinstance(value.shape[0], int) else None


@to_onnx("REVERSE_V2")
def reverse_v2(op, x, axes: Ints):
    return op.Slice(x, [-1] * len(axes), [-END] * len(axes), list(axes), [-1] * len(axes)) if axes else op.Identity(x)


@to_onnx("REVERSE_SEQUENCE")
def reverse_sequence(op, x, lengths, *, seq_dim=0, batch_dim=0):
    """ONNX wants time and batch as the first two axes."""
    rest = [axis for axis in range(op.of(x)[0]) if axis not in (seq_dim, batch_dim)]
    perm = [seq_dim, batch_dim, *rest]
    y = op.ReverseSequence(op.Transpose(x, perm=perm), longs(op, lengths), time_axis=0, batch_axis=1)
    return op.Transpose(y, perm=np.argsort(perm).tolist())


@to_onnx("GATHER")
def gather(op, x, places, *, axis=0, batch_dims=0):
    """With batch dimensions: GatherND over the axis brought to the front of what is not batch, and the result's axes put in order."""
    rank, _ = op.of(x)
    axis, batch_dims = axis % rank, batch_dims % max(op.of(places)[0], 1)
    places = wide(op, places)[0]
    if not batch_dims:
        return op.Gather(x, places, axis=axis)
    front = op.Transpose(x, perm=[*range(batch_dims), axis, *[other for other in range(batch_dims, rank) if other != axis]])
    y = op.GatherND(front, op.Unsqueeze(longs(op, places), [-1]), batch_dims=batch_dims)
    chosen, between = op.of(places)[0] - batch_dims, axis - batch_dims
    if not between:
        return y
    total = rank - 1 + chosen
    moved = [*range(batch_dims), *range(batch_dims + chosen, batch_dims + chosen + between), *range(batch_dims, batch_dims + chosen)]
    return op.Transpose(y, perm=[*moved, *range(batch_dims + chosen + between, total)])


@to_onnx("GATHER_ND")
def gather_nd(op, x, places):
    return op.GatherND(x, longs(op, places))


@to_onnx("SCATTER_ND")
def scatter_nd(op, places, updates, shape):
    """Into zeros; what meets at one place is added."""
    (a,) = wide(op, updates)
    zeros = op.ConstantOfShape(longs(op, shape), value=np.zeros(1, a.dtype.numpy()))
    return narrow(op, op.ScatterND(zeros, longs(op, places), a, reduction="add"), updates)


@to_onnx("SPARSE_TO_DENSE")
def sparse_to_dense(op, places, shape, values, default, *, validate_indices=0):
    """Indices are a number, a list of numbers, or rows of coordinates."""
    rank = op.of(places)[0]
    rows = longs(op, places) if rank == 2 else op.Reshape(longs(op, places), [-1, 1])
    (a, b) = wide(op, values, default)
    count = op.Shape(rows, start=0, end=1)
    return narrow(op, op.ScatterND(op.Expand(b, longs(op, shape)), rows, op.Expand(a, count)), values)


@to_onnx("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(op, x, update, start):
    """The start is moved so that the update fits; then every element goes to its place."""
    sizes = op.static(update)
    if not sizes:
        return op.Identity(update)
    bounded(op, math.prod(sizes))
    fits = op.Sub(op.Shape(x), op.const(sizes))
    begin = op.Min(op.Max(longs(op, start), 0), fits)
    grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).astype(np.int64)
    return op.ScatterND(x, op.Add(op.const(grid), begin), update)


@to_onnx("ONE_HOT")
def one_hot(op, places, depth, on, off, *, axis=0):
    """Negative indices are nowhere, where ONNX counts them from the end."""
    index = longs(op, places)
    count = longs(op, depth)
    index = op.Where(op.Less(index, 0), count, index)
    a, b = wide(op, off, on, types=(*NARROW, BOOL))
    values = op.Concat(*(op.Reshape(value, [1]) for value in (a, b)), axis=0)
    return narrow(op, op.OneHot(index, count, values, axis=axis), on)


@to_onnx("WHERE")
def where(op, condition):
    (a,) = wide(op, condition)
    return op.Transpose(op.NonZero(a), perm=[1, 0])


@to_onnx("MATRIX_DIAG")
def matrix_diag(op, x):
    return diagonal(op, op.Unsqueeze(x, [-1]), op.const(np.zeros((), x.dtype.numpy())), size(op, x, -1), size(op, x, -1), x)


@to_onnx("MATRIX_SET_DIAG")
def matrix_set_diag(op, x, values):
    rank, sizes = op.of(x)
    rows, columns = sizes[-2:]
    column = op.Unsqueeze(values, [-1])
    if isinstance(rows, int) and isinstance(columns, int) and rows > columns:
        column = op.Pad(wide(op, column)[0], [0] * (2 * rank - 2) + [rows - columns, 0])
    return diagonal(op, column, x, size(op, x, -2), size(op, x, -1), x)


def diagonal(op: Builder, column: ir.Value, rest: ir.Value, rows: int | ir.Value, columns: int | ir.Value, like: ir.Value) -> ir.Value:
    """`column` where row and column meet, `rest` elsewhere."""
    if isinstance(rows, int) and isinstance(columns, int):
        bounded(op, rows * columns)
        mask = op.const(np.eye(rows, columns, dtype=bool))
    else:
        counts = [op.Range(op.const(np.int64(0)), op.const(np.int64(part)) if isinstance(part, int) else op.Squeeze(part, [0]), op.const(np.int64(1)))
                  for part in (rows, columns)]
        mask = op.Equal(op.Unsqueeze(counts[0], [1]), counts[1])
    a, b = wide(op, column, rest)
    return narrow(op, op.Where(mask, a, b), like)
