"""Composed calls: diagonals and windows, which are gathers at positions that the shape decides, and writing by position."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import BOOL, INT64, axes_of, axis_of, cast, is_float, rank
from isomorph.dialects.torch.to_onnx.composed import Aten, composed, like, numeric, sizes

# ---- diagonals and windows: gathers at positions that the shape decides

def at_positions(a: Aten, x: ir.Value, positions: np.ndarray) -> ir.Value:
    """Elements of the flat tensor, in the shape of `positions`."""
    return a.index(a.reshape(x, [-1]), [a.op.const(positions.astype(np.int64))])


def numbered(a: Aten, x: ir.Value) -> np.ndarray:
    """The places of the elements in the flat tensor, in its shape."""
    shape = sizes(a, x)
    return np.arange(math.prod(shape)).reshape(shape)


@composed("diagonal")
def diagonal(a, x, offset=0, dim1=0, dim2=1):
    return at_positions(a, x, np.diagonal(numbered(a, x), offset, dim1, dim2))


@composed("diag")
def diag(a, x, diagonal=0):
    return a.diag_embed(x, diagonal) if rank(a.op, x) == 1 else a.diagonal(x, diagonal)


@composed("diagflat")
def diagflat(a, x, offset=0):
    return a.diag_embed(a.reshape(x, [-1]), offset)


@composed("diag_embed")
def diag_embed(a, x, offset=0, dim1=-2, dim2=-1):
    """Zero is put behind the data, and everything outside of the diagonal reads it."""
    shape = sizes(a, x)
    size, count = shape[-1] + abs(offset), len(shape) + 1
    places = np.full((*shape[:-1], size, size), math.prod(shape))
    here = np.arange(shape[-1])
    places[..., here + max(-offset, 0), here + max(offset, 0)] = numbered(a, x)
    places = np.moveaxis(places, (-2, -1), (dim1 % count, dim2 % count))
    flat = a.cat([a.reshape(x, [-1]), a.zeros([1], dtype=like(x))], 0)
    return a.index(flat, [a.op.const(places.astype(np.int64))])


@composed("unfold")
def unfold(a, x, dimension, size, step):
    if not rank(a.op, x):
        return a.expand(a.reshape(x, [1]), [size])
    axis = axis_of(a.op, x, dimension)
    count = (sizes(a, x)[axis] - size) // step + 1
    places = numbered(a, x)
    windows = np.stack([np.take(places, range(start * step, start * step + size), axis) for start in range(count)], axis)
    return at_positions(a, x, np.moveaxis(windows, axis + 1, -1))


@composed("as_strided")
def as_strided(a, x, size, stride, storage_offset=None):
    places = np.full(list(size), storage_offset or 0)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        places = places + (np.arange(length) * step).reshape([-1 if place == axis else 1 for place in range(len(size))])
    return at_positions(a, x, places)


@composed("take")
def take(a, x, index):
    return a.index(a.reshape(x, [-1]), [index])


@composed("take_along_dim")
def take_along_dim(a, x, indices, dim=None):
    if dim is None:
        return a.gather(a.reshape(x, [-1]), 0, a.reshape(indices, [-1]))
    axis = axis_of(a.op, x, dim)
    common = [max(p, q) for p, q in zip(sizes(a, x), sizes(a, indices), strict=True)]
    wide = [*common[:axis], sizes(a, x)[axis], *common[axis + 1:]], [*common[:axis], sizes(a, indices)[axis], *common[axis + 1:]]
    return a.gather(a.expand(x, wide[0]), axis, a.expand(indices, wide[1]))


@composed("fft_fftshift", "fft_ifftshift")
def fft_shift(a, x, dim=None):
    axes = axes_of(a.op, x, dim)
    back = a.op.node.op_type == "fft_ifftshift"
    return a.roll(x, [-(sizes(a, x)[axis] // 2) if back else sizes(a, x)[axis] // 2 for axis in axes], axes)


# ---- writing by position

@composed("select_scatter")
def select_scatter(a, x, src, dim, index):
    axis = axis_of(a.op, x, dim)
    return a.slice_scatter(x, a.unsqueeze(src, axis), axis, index, index + 1 if index != -1 else None)


@composed("slice_scatter")
def slice_scatter(a, x, src, dim=0, start=None, end=None, step=1):
    return written_at(a, x, _sliced(numbered(a, x), dim, start, end, step), src)


def _sliced(places: np.ndarray, dim: int, start: Any, end: Any, step: int) -> np.ndarray:
    return places[tuple(slice(start, end, step) if axis == dim % places.ndim else slice(None) for axis in range(places.ndim))]


@composed("diagonal_scatter")
def diagonal_scatter(a, x, src, offset=0, dim1=0, dim2=1):
    return written_at(a, x, np.diagonal(numbered(a, x), offset, dim1, dim2), src)


@composed("as_strided_scatter")
def as_strided_scatter(a, x, src, size, stride, storage_offset=None):
    places = np.full(list(size), storage_offset or 0)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        places = places + (np.arange(length) * step).reshape([-1 if place == axis else 1 for place in range(len(size))])
    return written_at(a, x, places, src)


def written_at(a: Aten, x: ir.Value, places: np.ndarray, src: ir.Value) -> ir.Value:
    """The tensor with the elements at these places of the flat one replaced."""
    op = a.op
    src = a.expand(cast(op, src, x.dtype), list(places.shape)) if list(op.of(src)[1]) != list(places.shape) else cast(op, src, x.dtype)
    flat = op.ScatterND(a.reshape(x, [-1]), op.const(places.reshape(-1, 1).astype(np.int64)), a.reshape(src, [-1]))
    return a.reshape(flat, sizes(a, x))


REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min", "add": "add", "multiply": "mul", "mean": "add"}


@composed("scatter", "scatter_add")
def scatter(a, x, dim, index, src=None, value=None, reduce=None):
    src = value if src is None else src
    reduce = "add" if a.op.node.op_type == "scatter_add" else reduce
    return _scattered(a, x, dim, index, src, reduce)


def _scattered(a: Aten, x: ir.Value, dim: int, index: ir.Value, src: Any, reduce: str | None) -> ir.Value:
    op = a.op
    if not rank(op, x):
        return a.reshape(_scattered(a, a.reshape(x, [1]), 0, a.reshape(index, [1]), a.reshape(src, [1]) if isinstance(src, ir.Value) else src, reduce), [])
    if not isinstance(src, ir.Value):
        src = a.full_like(index, src, dtype=like(x))
    elif list(op.of(src)[1]) != list(op.of(index)[1]):
        src = a.reshape(src, [-1]) if not rank(op, src) else at_corner(a, src, sizes(a, index))
    data, updates = (numeric(a, x), numeric(a, src)) if reduce else (x, src)
    how = REDUCTIONS[reduce] if reduce else None
    y = op.ScatterElements(data, cast(op, index, INT64), cast(op, updates, data.dtype), axis=axis_of(op, x, dim), reduction=how)
    return cast(op, y, x.dtype)


def at_corner(a: Aten, x: ir.Value, shape: list[int]) -> ir.Value:
    """The part of a tensor from its first element that has this shape."""
    for axis, size in enumerate(shape):
        x = a.slice(x, axis, 0, size) if sizes(a, x)[axis] != size else x
    return x


@composed("scatter_reduce")
def scatter_reduce(a, x, dim, index, src, reduce, include_self=True):
    op = a.op
    flat = not rank(op, x)
    if flat:
        x, index, src = a.reshape(x, [1]), a.reshape(index, [1]), a.reshape(src, [1])
    start = x
    if not include_self:
        low, high = (-math.inf, math.inf) if is_float(x) else (0, 1) if x.dtype == BOOL else (np.iinfo(x.dtype.numpy()).min, np.iinfo(x.dtype.numpy()).max)
        neutral = {"sum": 0, "mean": 0, "prod": 1, "amax": low, "amin": high}[reduce]
        start = _scattered(a, x, dim, index, a.full_like(index, neutral, dtype=like(x)), None)
    y = _scattered(a, start, dim, index, src, reduce)
    if reduce == "mean":
        own = a.ones_like(x, dtype=4)
        ones = a.ones_like(index, dtype=4)
        counted = _scattered(a, own if include_self else _scattered(a, own, dim, index, a.zeros_like(index, dtype=4), None), dim, index, ones, "sum")
        y = cast(op, a.div(y, counted, rounding_mode=None if is_float(y) else "floor"), x.dtype)
    return a.reshape(y, []) if flat else y


def along(a: Aten, x: ir.Value, dim: int, index: ir.Value) -> ir.Value:
    """Positions along one axis in the shape of what is written there."""
    axis, shape = axis_of(a.op, x, dim), sizes(a, x)
    count = sizes(a, index)[0] if rank(a.op, index) else 1
    return a.expand(a.reshape(index, [-1 if place == axis else 1 for place in range(len(shape))]), [*shape[:axis], count, *shape[axis + 1:]])


def flat_first(function: Callable) -> Callable:
    """Tensors without axes count as those of one element."""
    def rule(a, x, dim, index, *rest, **more):
        if rank(a.op, x):
            return function(a, x, dim, index, *rest, **more)
        rest = tuple(a.reshape(item, [1]) if isinstance(item, ir.Value) else item for item in rest)
        return a.reshape(function(a, a.reshape(x, [1]), 0, index, *rest, **more), [])
    return rule


@composed("index_add")
@flat_first
def index_add(a, x, dim, index, source, alpha=1):
    source = source if rank(a.op, source) else a.reshape(source, [1])
    source = source if alpha == 1 else a.mul(source, alpha)
    return _scattered(a, x, dim, along(a, x, dim, index), cast(a.op, source, x.dtype), "sum")


@composed("index_copy")
@flat_first
def index_copy(a, x, dim, index, source):
    source = source if rank(a.op, source) else a.reshape(source, [1])
    return _scattered(a, x, dim, along(a, x, dim, index), source, None)


@composed("index_fill")
@flat_first
def index_fill(a, x, dim, index, value):
    places = along(a, x, dim, index)
    if isinstance(value, ir.Value):
        value = a.expand(cast(a.op, value, x.dtype), sizes(a, places))
    return _scattered(a, x, dim, places, value, None)


@composed("index_reduce")
@flat_first
def index_reduce(a, x, dim, index, source, reduce, include_self=True):
    return a.scatter_reduce(x, dim, along(a, x, dim, index), source, {"mean": "mean", "prod": "prod", "amax": "amax", "amin": "amin"}[reduce], include_self)


@composed("masked_scatter")
def masked_scatter(a, x, mask, source):
    """Element number n that the mask chooses becomes element n of the source."""
    shape = [max(p, q) for p, q in zip(*([1] * (max(rank(a.op, x), rank(a.op, mask)) - rank(a.op, v)) + sizes(a, v) for v in (x, mask)), strict=True)]
    mask = a.expand(mask, shape)
    place = a.clamp(a.sub(a.cumsum(a.to(a.reshape(mask, [-1]), 4), 0), 1), 0)
    return a.where(mask, a.reshape(a.index(a.reshape(source, [-1]), [place]), shape), x)


@composed("masked_select")
def masked_select(a, x, mask):
    shape = [max(p, q) for p, q in zip(*([1] * (max(rank(a.op, x), rank(a.op, mask)) - rank(a.op, v)) + sizes(a, v) for v in (x, mask)), strict=True)]
    return a.op.Compress(a.reshape(a.expand(x, shape), [-1]), a.reshape(a.expand(mask, shape), [-1]))


@composed("put")
def put(a, x, index, source, accumulate=False):
    flat = _scattered(a, a.reshape(x, [-1]), 0, a.reshape(index, [-1]), a.reshape(source, [-1]), "sum" if accumulate else None)
    return a.reshape(flat, sizes(a, x))


@composed("index_put", "_unsafe_index_put", "_index_put_impl")
def index_put(a, x, indices, values, accumulate=False, unsafe=False):
    """One mask chooses between values, positions become rows of a ScatterND."""
    op = a.op
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1 and given[0][1].dtype == BOOL and rank(op, values) == 0:
        mask = given[0][1]
        mask = a.reshape(mask, [*[1] * given[0][0], *sizes(a, mask), *[1] * (rank(op, x) - given[0][0] - rank(op, mask))])
        return a.where(mask, a.add(x, values) if accumulate else cast(op, values, x.dtype), x)
    if len(given) == 1 and given[0][1].dtype == BOOL and not given[0][0] and rank(op, given[0][1]) == rank(op, x) and not accumulate:
        return a.masked_scatter(x, given[0][1], cast(op, values, x.dtype))
    if any(index.dtype == BOOL for _, index in given):
        places: list[Any] = []
        for index in indices:
            masked = index is not None and index.dtype == BOOL
            places += a.unbind(op.NonZero(index), 0) if masked else [index]
        return a.index_put(x, places, values, accumulate)
    axes = [axis for axis, _ in given]
    if axes != list(range(len(axes))):
        rest = [axis for axis in range(rank(op, x)) if axis not in axes]
        if axes != list(range(axes[0], axes[0] + len(axes))) or rank(op, values) > 1:
            op.reject("positions with an axis before them")
        order = [*axes, *rest]
        moved = a.index_put(a.permute(x, order), [index for _, index in given], values, accumulate)
        return a.permute(moved, [order.index(axis) for axis in range(len(order))])
    total = given[0][1]
    for _, index in given[1:]:
        total = a.add(total, a.mul(index, 0))
    shape = op.Shape(total)                        # open where a mask says how many
    rows = a.stack([op.Expand(cast(op, index, INT64), shape) for _, index in given], -1)
    updates = op.Expand(cast(op, values, x.dtype), op.Concat(shape, op.Shape(x, start=len(given)), axis=0))
    data = numeric(a, x) if accumulate else x
    return cast(op, op.ScatterND(data, rows, cast(op, updates, data.dtype), reduction="add" if accumulate else None), x.dtype)


@composed("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(a, weight, indices, offsets, scale_grad=False, mode=0, sparse=False, weights=None, include_last_offset=False, padding_idx=None):
    """Bags of rows, each from its offset to the next: their sum, mean or maximum. What else the call gives is for training."""
    op = a.op
    count, bags = (value if isinstance(value, int) else op.reject("how many rows or bags there are, only the run knows")
                   for value in (op.of(indices)[1][0], op.of(offsets)[1][0]))
    starts = a.slice(offsets, 0, 0, bags - 1) if include_last_offset else offsets
    bags -= bool(include_last_offset)
    begun = a.le(a.unsqueeze(starts, 1), op.const(np.arange(count)[None]))
    ended = a.cat([a.slice(begun, 0, 1, None), op.const(np.zeros((1, count), np.bool_))], 0)
    inside = a.logical_and(begun, a.logical_not(ended))
    if padding_idx is not None and padding_idx >= 0:
        inside = a.logical_and(inside, a.ne(indices, padding_idx))
    rows = a.index(weight, [indices])
    share = cast(op, inside, rows.dtype)
    if mode == 2:
        low = a.where(a.unsqueeze(inside, -1), rows, -np.inf)
        y = a.where(a.unsqueeze(a.any(inside, 1), -1), a.amax(low, [1]), 0.0)
    else:
        y = a.matmul(share if weights is None else a.mul(share, weights), rows)
        y = a.div(y, a.clamp_min(a.sum(share, [1], True), 1)) if mode == 1 else y
    return [y, indices, a.to(a.sum(share, [1]), 4), indices]


@composed("mode")
def most_frequent(a, x, dim=-1, keepdim=False):
    """The least of the most frequent elements of an axis, and the last place where it stands."""
    if not rank(a.op, x):
        return [x, a.zeros_like(x, dtype=4)]
    moved = numeric(a, a.movedim(x, dim, -1))
    often = a.sum(a.to(a.eq(a.unsqueeze(moved, -1), a.unsqueeze(moved, -2)), 4), [-1])
    ordered, order = a.sort(moved, -1, False)
    first = a.argmax(a.gather(often, -1, order), -1, True)
    value = a.gather(ordered, -1, first)
    last = a.amax(a.where(a.eq(moved, value), a.op.const(np.arange(a.op.static(moved)[-1])), -1), [-1], True)
    back = [a.movedim(cast(a.op, value, x.dtype), -1, dim), a.movedim(last, -1, dim)]
    return back if keepdim else [a.squeeze(part, dim) for part in back]
