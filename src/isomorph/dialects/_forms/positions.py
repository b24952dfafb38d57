"""Gather, scatter and padding: kernels know no negative positions, and scatter only by adding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Ints, Mapping, constant
from isomorph.passes.decompose import interval, shape_of

positions = Mapping()


def wrapped(op: Builder, indices: ir.Value, sizes: list | int | str | None, vector: Any) -> ir.Value:
    """Indices counted from the end made positive; constants and booleans are settled at once."""
    array = constant(indices)
    if array is not None:
        if not (array < 0).any():
            return indices
        if isinstance(sizes, int) or (isinstance(sizes, list) and all(isinstance(size, int) for size in sizes)):
            return op.const(np.where(array < 0, array + np.asarray(sizes), array).astype(array.dtype))
    return op.Mod(
        indices,
        op.const(np.asarray(sizes, indices.dtype.numpy()))
        if isinstance(sizes, int) or (isinstance(sizes, list) and all(isinstance(s, int) for s in sizes))
        else op.Cast(vector(), to=int(indices.dtype)),
    )


FROM_THE_FRONT = frozenset({"Mod", "ArgMax", "ArgMin", "NonZero"})
MOVED = frozenset({"Squeeze", "Unsqueeze", "Cast", "Reshape", "Transpose", "Identity", "Concat"})


def is_wrapped(value: ir.Value) -> bool:
    """Whether indices are known to count from the front."""
    array, producer = constant(value), value.producer()
    if array is not None:
        return not (array < 0).any()
    if producer is None:
        return False
    if producer.op_type == "Range":
        start, _, step = map(constant, producer.inputs)
        return bool(producer.meta.get("bounded") or (start is not None and step is not None and start >= 0 and step > 0))
    given = [part for part in producer.inputs[: None if producer.op_type == "Concat" else 1] if part is not None]
    return producer.op_type in FROM_THE_FRONT or (producer.op_type in MOVED and all(is_wrapped(part) for part in given))


def depth_of(op: Builder, indices: ir.Value) -> int:
    """How many axes a row of indices names; there may be any number of rows."""
    depth = op.of(indices)[1][-1]
    return depth if isinstance(depth, int) else op.reject(f"how many axes the positions {indices.name} name is not known")


@positions("Gather")
def gather(op, x, indices, *, axis=0):
    if is_wrapped(indices):
        return NotImplemented
    _, sizes = op.of(x)
    return op.Gather(x, wrapped(op, indices, sizes[axis], lambda: op.Squeeze(shape_of(op, x, axis), [0])), axis=axis)


@positions("Slice")
def slice_by_a_step_of_the_run(op, x, starts, ends, axes: Ints | None = None, steps=None):
    """Kernels know their steps beforehand: another one is a gather at start, start + step, ... as long as they are before the end."""
    if steps is None or constant(steps) is not None:
        return NotImplemented
    if len(axes or op.static(steps)) != 1:
        op.reject("steps along several axes that only the run knows")
    axis = (axes or (0,))[0] % op.of(x)[0]
    start, end, step = (op.Cast(op.Squeeze(value, [0]), to=int(ir.DataType.INT64)) for value in (starts, ends, steps))
    count = op.Squeeze(shape_of(op, x, axis), [0])
    forward = op.Greater(step, 0)
    low, high = op.Where(forward, op.const(np.asarray(0)), op.const(np.asarray(-1))), op.Where(forward, count, op.Sub(count, 1))

    def bound(value: ir.Value) -> ir.Value:
        front = op.Where(op.Less(value, 0), op.Add(value, count), value)
        return op.Max(op.Min(front, high), low)

    far = constant(ends)
    first, last = bound(start), high if far is not None and far.reshape(-1)[0] >= FAR else bound(end)
    last = op.Where(forward, op.Max(first, last), op.Min(first, last))          # a kernel of Range takes none that would run away from its end
    chosen = op.Range(first, last, step)
    chosen.producer().meta["bounded"] = True
    return op.Gather(x, chosen, axis=axis)


FAR = np.iinfo(np.int32).max               # an end that is beyond every axis


@positions("GatherND")
def gather_nd(op, x, indices, *, batch_dims=0):
    """Batch axes become leading coordinates."""
    _, sizes = op.of(x)
    depth = depth_of(op, indices)
    if batch_dims:
        lead = op.static(indices)[:-1]
        grids = [
            np.broadcast_to(np.arange(lead[i]).reshape([-1 if j == i else 1 for j in range(len(lead))]), lead)[..., None].astype(np.int64)
            for i in range(batch_dims)
        ]
        return op.GatherND(x, op.Concat(*(op.const(grid) for grid in grids), indices, axis=-1))
    if is_wrapped(indices):
        return NotImplemented
    return op.GatherND(x, wrapped(op, indices, sizes[:depth], lambda: shape_of(op, x, *range(depth))))


@positions("ScatterND")
def scatter_nd(op, x, indices, updates, *, reduction="none"):
    """The kernel adds updates to zeros. Overwriting: a scattered count of ones chooses between old and new."""
    _rank, sizes = op.of(x)
    depth = depth_of(op, indices)
    if not is_wrapped(indices):
        indices = wrapped(op, indices, sizes[:depth], lambda: shape_of(op, x, *range(depth)))
    shape = shape_of(op, x)
    work = x.dtype if x.dtype in (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.INT8, ir.DataType.UINT8) else ir.DataType.FLOAT
    data, new = (value if value.dtype == work else op.Cast(value, to=int(work)) for value in (x, updates))

    def scatter(values: ir.Value) -> ir.Value:
        return op.AddScattered(indices, values, shape, _dtype=values.dtype, _shape=x.shape)

    if reduction == "add":
        y = op.Add(data, scatter(new))
    elif reduction == "none":
        hit = scatter(op.Expand(op.const(np.float32(1)), shape_of(op, updates)))
        y = op.Where(op.Greater(hit, op.const(np.float32(0))), scatter(new), data)
    else:
        y = _scatter_in_rounds(op, data, indices, new, reduction, scatter, shape)
    return y if y.dtype == x.dtype else op.Cast(y, to=int(x.dtype))


def _scatter_in_rounds(op: Builder, data: ir.Value, indices: ir.Value, updates: ir.Value, reduction: str, scatter: Any, shape: ir.Value) -> ir.Value:
    """Products and extremes: constant positions are split into rounds without repetition, each combined with what stands there."""
    positions = constant(indices)
    if positions is None:
        return _scatter_one_by_one(op, data, indices, updates, reduction, shape)
    flat = positions.reshape(-1, positions.shape[-1])
    rounds: list[list[int]] = []
    for row, position in enumerate(map(tuple, flat.tolist())):
        level = sum(tuple(flat[other]) == position for other in range(row))
        while len(rounds) <= level:
            rounds.append([])
        rounds[level].append(row)
    tail = op.static(updates)[positions.ndim - 1 :]
    rows = op.Reshape(updates, [len(flat), *tail])
    for members in rounds:
        data = _combined(op, data, op.const(flat[members]), op.Gather(rows, op.const(np.asarray(members, np.int64))), reduction, shape, [len(members), *tail])
    return data


def _combined(op: Builder, data: ir.Value, where: ir.Value, new: ir.Value, reduction: str, shape: ir.Value, sizes: list[int]) -> ir.Value:
    changed = {"mul": op.Mul, "max": op.Max, "min": op.Min}[reduction](op.GatherND(data, where), new)
    hit = op.AddScattered(where, op.const(np.ones(sizes, np.float32)), shape, _dtype=1, _shape=data.shape)
    moved = op.AddScattered(where, changed, shape, _dtype=data.dtype, _shape=data.shape)
    return op.Where(op.Greater(hit, op.const(np.float32(0))), moved, data)


def _scatter_one_by_one(op: Builder, data: ir.Value, indices: ir.Value, updates: ir.Value, reduction: str, shape: ir.Value) -> ir.Value:
    """Positions that only the run knows may repeat: one row after another, for few rows."""
    *lead, depth = op.static(indices)
    count, tail = math.prod(lead), op.static(updates)[len(lead) :]
    if count > ROWS:
        op.reject(f"a scatter of {count} rows with reduction {reduction!r} at positions that are not constant")
    where, rows = op.Reshape(indices, [count, depth]), op.Reshape(updates, [count, *tail])
    for row in range(count):
        data = _combined(op, data, interval(op, where, 0, row, row + 1), interval(op, rows, 0, row, row + 1), reduction, shape, [1, *tail])
    return data


ROWS = 64


@positions("Pad")
def pad(op, x, pads, value=None, axes: Ints | None = None, *, mode="constant"):
    """All axes, no cuts; edge and wrap read constant positions."""
    rank, _sizes = op.of(x)
    amounts = constant(pads)
    if axes is not None:
        if amounts is None:
            op.reject("pads of chosen axes that are not constant")
        spread = np.zeros(2 * rank, np.int64)
        for i, axis in enumerate(axes):
            spread[axis % rank], spread[axis % rank + rank] = amounts[i], amounts[i + len(axes)]
        return op.Pad(x, op.const(spread), value, mode=mode)
    if amounts is None:
        return NotImplemented if mode == "constant" else op.reject(f"{mode} padding that is not constant")
    if mode in ("edge", "wrap") or (mode == "reflect" and (amounts < 0).any()):
        for axis in range(rank):
            before, after = int(amounts[axis]), int(amounts[axis + rank])
            if before or after:
                index = np.arange(-before, op.static(x)[axis] + after)
                size = op.static(x)[axis]
                index = (
                    np.clip(index, 0, size - 1)
                    if mode == "edge"
                    else index % size
                    if mode == "wrap"
                    else np.abs((index + size - 1) % max(2 * size - 2, 1) - (size - 1))
                )
                x = op.Gather(x, op.const(index.astype(np.int64)), axis=axis)
        return x if x is not op.node.inputs[0] else op.Identity(x)
    if (amounts < 0).any():
        for axis in range(rank):
            before, after = min(int(amounts[axis]), 0), min(int(amounts[axis + rank]), 0)
            if before or after:
                x = interval(op, x, axis, -before, op.static(x)[axis] + after)
        return op.Pad(x, op.const(np.maximum(amounts, 0)), value, mode=mode)
    return NotImplemented
