"""Losses, statistics, and searches of aten, by simpler operators of it."""
from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import BOOL, INT64, INTEGERS, axis_of, cast, is_float, rank
from isomorph.dialects.torch.to_onnx.composed import Aten, composed, like, sizes
from isomorph.dialects.torch.to_onnx.positions import numeric


@composed("_safe_softmax")
def safe_softmax(a, x, dim, dtype=None):
    """Rows in which everything is left out become zeros."""
    y = a.softmax(x, dim, dtype)
    return a.where(a.isnan(y), 0.0, y)


# ---- statistics

@composed("linalg_norm")
def linalg_norm(a, x, order=None, dim=None, keepdim=False, dtype=None):
    if order is None or (dim is not None and (isinstance(dim, int) or len(dim) == 1)) or rank(a.op, x) == 1:
        flat = dim is None and not keepdim
        return a.norm(a.reshape(x, [-1]) if flat else x, 2 if order is None else order, dim, keepdim)
    return a.linalg_matrix_norm(x, order, dim or [-2, -1], keepdim)


@composed("linalg_matrix_norm")
def linalg_matrix_norm(a, x, order="fro", dim=(-2, -1), keepdim=False, dtype=None):
    """Sums of absolute values along one axis, the largest or smallest of them along the other."""
    rows, columns = (axis_of(a.op, x, axis) for axis in dim)
    if order == "fro":
        return a.norm(x, 2, [rows, columns], keepdim)
    if order not in (1, -1, math.inf, -math.inf):
        a.op.reject("a norm of singular values")
    summed, left = (rows, columns) if abs(order) == 1 else (columns, rows)
    extreme = (a.amax if order > 0 else a.amin)(a.sum(a.abs(x), [summed], True), [left], True)
    return extreme if keepdim else a.squeeze(extreme, [rows, columns])


def ordered(a: Aten, x: ir.Value, dim: int) -> list[ir.Value]:
    return a.sort(x, dim, False)


@composed("median", "nanmedian")
def median(a, x, dim=None, keepdim=False):
    """The lower of the two in the middle; what is no number wins in `median`, and would have to be passed over in the other."""
    if is_float(x) and a.op.node.op_type == "nanmedian":
        a.op.reject("a median that passes over what is no number")
    if dim is None:
        return a.select(ordered(a, a.reshape(x, [-1]), 0)[0], 0, (math.prod(sizes(a, x)) - 1) // 2)
    return a.kthvalue(x, (sizes(a, x)[axis_of(a.op, x, dim)] + 1) // 2 if rank(a.op, x) else 1, dim, keepdim)


@composed("kthvalue")
def kthvalue(a, x, k, dim=-1, keepdim=False):
    if not rank(a.op, x):
        return [x, a.zeros_like(x, dtype=4)]
    axis = axis_of(a.op, x, dim)
    return [a.unsqueeze(a.select(part, axis, k - 1), axis) if keepdim else a.select(part, axis, k - 1) for part in ordered(a, x, axis)]


@composed("cumprod")
def cumprod(a, x, dim, dtype=None):
    """A product by lengths that double: every element times what stands 1, 2, 4, ... before it."""
    x = cast(a.op, x, INT64) if x.dtype in INTEGERS or x.dtype == BOOL else x
    x = a.to(x, dtype) if dtype is not None else x
    if not rank(a.op, x):
        return x
    axis, size = axis_of(a.op, x, dim), sizes(a, x)[axis_of(a.op, x, dim)]
    step = 1
    while step < size:
        shifted = a.slice(x, axis, 0, size - step)
        head = a.slice(x, axis, 0, step)
        x = a.cat([head, a.mul(a.slice(x, axis, step, size), shifted)], axis)
        step *= 2
    return x


@composed("cummax", "cummin")
def running_extreme(a, x, dim):
    """Values by lengths that double, with the last place that has the extreme."""
    if not rank(a.op, x):
        return [x, a.zeros_like(x, dtype=4)]
    kind = x.dtype
    largest = a.op.node.op_type == "cummax"
    axis, size = axis_of(a.op, x, dim), sizes(a, x)[axis_of(a.op, x, dim)]
    values = numeric(a, x)
    shape = [1] * rank(a.op, x)
    shape[axis] = size
    places = a.expand(a.op.const(np.arange(size).reshape(shape)), sizes(a, x))
    step = 1
    while step < size:
        before = a.slice(values, axis, 0, size - step), a.slice(places, axis, 0, size - step)
        now = a.slice(values, axis, step, size), a.slice(places, axis, step, size)
        keep = (a.ge if largest else a.le)(now[0], before[0])
        values = a.cat([a.slice(values, axis, 0, step), a.where(keep, now[0], before[0])], axis)
        places = a.cat([a.slice(places, axis, 0, step), a.where(keep, now[1], before[1])], axis)
        step *= 2
    return [cast(a.op, values, kind), places]


@composed("logcumsumexp")
def logcumsumexp(a, x, dim):
    if not rank(a.op, x):
        return x
    top = a.amax(x, [dim], True)
    return a.add(a.log(a.cumsum(a.exp(a.sub(x, top)), dim)), top)


@composed("cdist", "_cdist_forward")
def cdist(a, x, y, p=2.0, compute_mode=None):
    return a.norm(a.sub(a.unsqueeze(x, -2), a.unsqueeze(y, -3)), p, [-1])


@composed("pdist")
def pdist(a, x, p=2.0):
    rows, columns = np.triu_indices(sizes(a, x)[0], 1)
    return a.norm(a.sub(a.index(x, [a.op.const(rows)]), a.index(x, [a.op.const(columns)])), p, [-1])


# ---- searches

@composed("isin")
def isin(a, x, among, assume_unique=False, invert=False):
    if not isinstance(among, ir.Value):
        found = a.eq(x, among)
    elif not isinstance(x, ir.Value):
        found = a.amax(a.eq(a.reshape(among, [-1]), x), [0])
    else:
        found = a.amax(a.eq(a.unsqueeze(x, -1), a.reshape(among, [-1])), [-1])
    return a.logical_not(found) if invert else found


@composed("searchsorted")
def searchsorted(a, boundaries, x, out_int32=False, right=False, side=None, sorter=None):
    """How many of the boundaries are below, or not above."""
    if sorter is not None:
        boundaries = a.gather(boundaries, -1, sorter)
    value = x if isinstance(x, ir.Value) else a.full([], x, dtype=like(boundaries))
    values = a.unsqueeze(value, -1)
    other = boundaries if rank(a.op, boundaries) == 1 else a.unsqueeze(boundaries, -2)
    below = a.le(other, values) if right or side == "right" else a.lt(other, values)
    return a.sum(cast(a.op, below, INT64), [-1], dtype=3 if out_int32 else 4)


@composed("bucketize")
def bucketize(a, x, boundaries, out_int32=False, right=False):
    return a.searchsorted(boundaries, x, out_int32, right)


@composed("_unique2", "unique_dim", "unique_consecutive", "_unique")
def unique(a, x, *rest, **more):
    """Sorted; of bool as of whole numbers, which ONNX Runtime sorts."""
    op = a.op
    if x.dtype == BOOL:
        y, *others = unique(a, cast(op, x, ir.DataType.INT64), *rest, **more)
        return [cast(op, y, BOOL), *others]
    if op.node.op_type == "unique_consecutive":
        return _without_repetition(a, x, *rest, **more)
    axis = axis_of(op, x, rest[0]) if op.node.op_type == "unique_dim" else None
    y, _, inverse, counts = op.Unique(x, axis=axis, sorted=1, _outputs=4)
    shape = op.of(x)[1]
    inverse = op.Reshape(inverse, op.Shape(x)) if axis is None and len(shape) != 1 else inverse
    return [y, inverse, counts]


def _without_repetition(a: Aten, x: ir.Value, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None) -> list[ir.Value]:
    """Of neighbours that are equal the first, how many came before each element, and how many are equal."""
    op = a.op
    flat = a.reshape(x, [-1]) if dim is None else a.flatten(a.movedim(x, dim, 0), 1) if rank(op, x) > 1 else x
    count = op.Shape(flat, start=0, end=1)
    changed = a.ne(a.slice(flat, 0, 1), a.slice(flat, 0, 0, -1))
    changed = a.any(changed, 1) if rank(op, flat) > 1 else changed
    first = op.Concat(op.const(np.ones(1, bool)), changed, axis=0)
    inverse = a.sub(a.cumsum(a.to(first, 4), 0), 1)
    places = op.Squeeze(op.NonZero(first), [0])
    counts = a.sub(op.Concat(op.Slice(places, [1], [np.iinfo(np.int64).max], [0]), count, axis=0), places)
    axis = 0 if dim is None else axis_of(op, x, dim)
    return [op.Compress(flat if dim is None else x, first, axis=axis), op.Reshape(inverse, op.Shape(x)) if dim is None else inverse, counts]


@composed("bincount")
def bincount(a, x, weights=None, minlength=0):
    depth = a.op.Max(a.op.Add(a.op.ReduceMax(x, keepdims=0), 1), a.op.const(np.asarray(minlength, np.int64)))
    hits = a.op.OneHot(x, depth, np.asarray([0, 1], np.int64), axis=-1)
    return a.sum(hits, [0]) if weights is None else a.sum(a.mul(hits, a.unsqueeze(weights, 1)), [0])


@composed("repeat_interleave")
def repeat_interleave(a, x, repeats=None, dim=None, output_size=None):
    """Every element as often as it says: position n of the result shows the element whose running total is the first above n."""
    op = a.op
    if repeats is None:
        repeats, x, dim = x, None, 0
    elif dim is None:
        x, dim = a.reshape(x, [-1]), 0
    axis = axis_of(op, x, dim) if x is not None else 0
    if isinstance(repeats, int):
        shape = sizes(a, x)
        wide = a.expand(a.unsqueeze(x, axis + 1), [*shape[:axis + 1], repeats, *shape[axis + 1:]])
        return a.flatten(wide, axis, axis + 1)
    if x is not None and sizes(a, repeats) == [1] and sizes(a, x)[axis] != 1:
        repeats = a.expand(repeats, [sizes(a, x)[axis]])
    ends = a.cumsum(repeats, 0)
    total = a.sum(repeats)
    counted = op.Range(op.const(np.int64(0)), cast(op, total, INT64), op.const(np.int64(1)))
    places = a.searchsorted(ends, counted, False, True)
    return places if x is None else op.Gather(x, places, axis=axis)


# ---- of samples

@composed("quantile", "nanquantile")
def quantile(a, x, q, dim=None, keepdim=False, interpolation="linear"):
    """Between neighbours of the sorted elements. Rejects what passes over elements that are no numbers."""
    if a.op.node.op_type == "nanquantile":
        a.op.reject("a quantile that passes over what is no number")
    count = rank(a.op, x)
    flat, axis = (a.reshape(x, [-1]), 0) if dim is None else (x, axis_of(a.op, x, dim))
    values = a.sort(flat, axis, False)[0]
    place = a.mul(q, float(sizes(a, flat)[axis] - 1)) if isinstance(q, ir.Value) else a.scalar_tensor(q * (sizes(a, flat)[axis] - 1))
    place = a.type_as(place, x)
    low, high = a.floor(place), a.ceil(place)
    if interpolation in ("lower", "higher", "nearest"):
        chosen = {"lower": low, "higher": high, "nearest": a.round(place)}[interpolation]
        result, weight = a.index_select(values, axis, a.reshape(a.to(chosen, 4), [-1])), None
    else:
        one, other = (a.index_select(values, axis, a.reshape(a.to(end, 4), [-1])) for end in (low, high))
        weight = a.reshape(a.full_like(place, 0.5) if interpolation == "midpoint" else a.sub(place, low), [-1, *[1] * (rank(a.op, values) - axis - 1)])
        result = a.add(one, a.mul(a.sub(other, one), weight))
    result = a.movedim(result, axis, 0)                              # [q, the axes that are left]
    if keepdim:
        result = a.unsqueeze(result, axis + 1) if dim is not None else a.reshape(result, [-1, *[1] * count])
    return result if isinstance(q, ir.Value) and rank(a.op, q) else a.squeeze(result, 0)


@composed("cov")
def cov(a, x, correction=1, fweights=None, aweights=None):
    if fweights is not None or aweights is not None:
        a.op.reject("weighted samples")
    rows = a.reshape(x, [1, -1]) if rank(a.op, x) < 2 else x
    rows = cast(a.op, rows, x.dtype if is_float(x) else ir.DataType.FLOAT)
    centred = a.sub(rows, a.mean(rows, [1], True))
    result = a.div(a.matmul(centred, a.transpose(centred, 0, 1)), float(sizes(a, rows)[1] - correction))
    return result if sizes(a, rows)[0] > 1 else a.reshape(result, [])


@composed("corrcoef")
def corrcoef(a, x):
    covariance = a.cov(x)
    if not rank(a.op, covariance):
        return a.div(covariance, covariance)
    deviation = a.sqrt(a.diagonal(covariance))
    return a.clamp(a.div(a.div(covariance, a.unsqueeze(deviation, 0)), a.unsqueeze(deviation, 1)), -1.0, 1.0)


@composed("cosine_similarity")
def cosine_similarity(a, x, y, dim=1, eps=1e-8):
    lengths = [a.clamp(a.norm(value, 2, [dim]), eps) for value in (x, y)]
    return a.div(a.sum(a.mul(x, y), [dim]), a.mul(*lengths))


@composed("renorm")
def renorm(a, x, p, dim, maxnorm):
    """Parts along an axis whose norm is too large are scaled down to it."""
    axes = [axis for axis in range(rank(a.op, x)) if axis != axis_of(a.op, x, dim)]
    size = a.norm(x, p, axes, True)
    return a.mul(x, a.where(a.gt(size, maxnorm), a.div(a.full_like(size, float(maxnorm)), a.add(size, 1e-7)), 1.0))
