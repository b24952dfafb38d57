"""Losses, statistics, and searches of aten, by simpler operators of it."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.composed import LOSSES, Aten, composed, like, numeric, sizes
from isomorph.dialects.torch.to_onnx import BOOL, INT64, INTEGERS, axes_of, axis_of, cast, is_float, rank


@composed("_safe_softmax")
def safe_softmax(a, x, dim, dtype=None):
    """Rows in which everything is left out become zeros."""
    y = a.softmax(x, dim, dtype)
    return a.where(a.isnan(y), 0.0, y)


# ---- losses


composed("margin_ranking_loss")(lambda a, x, y, target, margin=0.0, reduction=1: LOSSES[reduction](
    a, a.clamp_min(a.add(a.mul(a.neg(target), a.sub(x, y)), margin), 0)))
composed("hinge_embedding_loss")(lambda a, x, target, margin=1.0, reduction=1: LOSSES[reduction](
    a, a.where(a.eq(target, 1), x, a.where(a.eq(target, -1), a.clamp_min(a.rsub(x, margin), 0), 0.0))))
composed("mse_loss")(lambda a, x, y, reduction=1: LOSSES[reduction](a, a.square(a.sub(x, y))))
composed("l1_loss")(lambda a, x, y, reduction=1: LOSSES[reduction](a, a.abs(a.sub(x, y))))
composed("soft_margin_loss")(lambda a, x, y, reduction=1: LOSSES[reduction](a, a.log1p(a.exp(a.mul(a.neg(y), x)))))
composed("threshold")(lambda a, x, threshold, value: a.where(a.gt(x, threshold), x, value))
composed("addcdiv")(lambda a, x, p, q, value=1: a.add(x, a.mul(a.div(p, q), value)))
composed("dist")(lambda a, x, y, p=2: a.norm(a.reshape(a.sub(x, y), [-1]), p))
composed("trace")(lambda a, x: a.sum(a.diagonal(x)))
composed("std_mean")(lambda a, x, *args, **more: [a.std(x, *args, **more), _mean(a, x, *args, **more)])
composed("var_mean")(lambda a, x, *args, **more: [a.var(x, *args, **more), _mean(a, x, *args, **more)])


def _mean(a: Aten, x: ir.Value, dim: Any = None, *rest: Any, keepdim: bool = False, **more: Any) -> ir.Value:
    dim = None if isinstance(dim, bool) else dim
    keepdim = rest[-1] if rest and isinstance(rest[-1], bool) else keepdim
    return a.mean(x, dim, keepdim)


@composed("smooth_l1_loss")
def smooth_l1_loss(a, x, y, reduction=1, beta=1.0):
    off = a.abs(a.sub(x, y))
    return LOSSES[reduction](a, off if beta == 0 else a.where(a.lt(off, beta), a.div(a.mul(a.mul(off, off), 0.5), beta), a.sub(off, 0.5 * beta)))


@composed("huber_loss")
def huber_loss(a, x, y, reduction=1, delta=1.0):
    off = a.abs(a.sub(x, y))
    return LOSSES[reduction](a, a.where(a.le(off, delta), a.mul(a.mul(off, off), 0.5), a.mul(a.sub(off, 0.5 * delta), delta)))


@composed("kl_div")
def kl_div(a, x, target, reduction=1, log_target=False):
    return LOSSES[reduction](a, a.mul(a.exp(target), a.sub(target, x)) if log_target else a.sub(a.xlogy(target, target), a.mul(target, x)))


@composed("poisson_nll_loss")
def poisson_nll_loss(a, x, target, log_input=True, full=False, eps=1e-8, reduction=1):
    loss = a.sub(a.exp(x), a.mul(target, x)) if log_input else a.sub(x, a.mul(target, a.log(a.add(x, eps))))
    if full:
        stirling = a.add(a.sub(a.mul(target, a.log(target)), target), a.mul(a.log(a.mul(target, 2 * math.pi)), 0.5))
        loss = a.add(loss, a.where(a.le(target, 1), 0.0, stirling))
    return LOSSES[reduction](a, loss)


@composed("binary_cross_entropy")
def binary_cross_entropy(a, x, target, weight=None, reduction=1):
    loss = a.neg(a.add(a.mul(target, a.clamp_min(a.log(x), -100)), a.mul(a.rsub(target, 1), a.clamp_min(a.log(a.rsub(x, 1)), -100))))
    return LOSSES[reduction](a, loss if weight is None else a.mul(loss, weight))


@composed("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(a, x, target, weight=None, pos_weight=None, reduction=1):
    log = a.log_sigmoid(x)
    positive = a.mul(target, log) if pos_weight is None else a.mul(a.mul(pos_weight, target), log)
    loss = a.neg(a.add(positive, a.mul(a.rsub(target, 1), a.sub(log, x))))
    return LOSSES[reduction](a, loss if weight is None else a.mul(loss, weight))


@composed("triplet_margin_loss")
def triplet_margin_loss(a, anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False, reduction=1):
    near, far = a.pairwise_distance(anchor, positive, p, eps), a.pairwise_distance(anchor, negative, p, eps)
    far = a.minimum(far, a.pairwise_distance(positive, negative, p, eps)) if swap else far
    return LOSSES[reduction](a, a.clamp_min(a.add(a.sub(near, far), margin), 0))


@composed("nll_loss", "nll_loss_nd", "nll_loss2d")
def nll_loss(a, x, target, weight=None, reduction=1, ignore_index=-100):
    how = {0: "none", 1: "mean", 2: "sum"}[reduction]
    single = rank(a.op, x) == 1
    x, target = (a.unsqueeze(x, 0), a.unsqueeze(target, 0)) if single else (x, target)
    loss = a.op.NegativeLogLikelihoodLoss(x, target, weight, ignore_index=ignore_index, reduction=how)
    return a.reshape(loss, []) if single else loss


@composed("cross_entropy_loss")
def cross_entropy_loss(a, x, target, weight=None, reduction=1, ignore_index=-100, label_smoothing=0.0):
    axis = 0 if rank(a.op, x) == 1 else 1
    logs = a.log_softmax(x, axis)
    if is_float(target):
        count = sizes(a, x)[axis]
        target = a.add(a.mul(target, 1 - label_smoothing), label_smoothing / count) if label_smoothing else target
        loss = a.mul(logs, target)
        loss = a.mul(loss, a.reshape(weight, [1] * axis + [-1] + [1] * (rank(a.op, x) - axis - 1))) if weight is not None else loss
        per = a.neg(a.sum(loss, [axis]))
        batch = math.prod(sizes(a, per)) or 1
        return a.div(a.sum(per), batch) if reduction == 1 else LOSSES[reduction](a, per)
    if label_smoothing:
        a.op.reject("a cross entropy with smoothed labels")
    return a.nll_loss(logs, target, weight, reduction, ignore_index)


# ---- statistics


@composed("linalg_norm")
def linalg_norm(a, x, order=None, dim=None, keepdim=False, dtype=None):
    if order is None or (dim is not None and (isinstance(dim, int) or len(dim) == 1)) or rank(a.op, x) == 1:
        return a.norm(x if dim is not None else a.reshape(x, [-1]), 2 if order is None else order, dim, keepdim)
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
    """Sorted; which of them are equal neighbours only is not told by ONNX's operator."""
    op = a.op
    if op.node.op_type == "unique_consecutive":
        op.reject("neighbours that are equal")
    axis = axis_of(op, x, rest[0]) if op.node.op_type == "unique_dim" else None
    y, _, inverse, counts = op.Unique(x, axis=axis, sorted=1, _outputs=4)
    shape = op.of(x)[1]
    inverse = op.Reshape(inverse, op.Shape(x)) if axis is None and len(shape) != 1 else inverse
    return [y, inverse, counts]


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


# ---- pictures


@composed("im2col")
def im2col(a, x, kernel_size, dilation, padding, stride):
    """Columns of windows, as a gather of positions of the padded picture."""
    single = rank(a.op, x) == 3
    x = a.unsqueeze(x, 0) if single else x
    x = a.constant_pad_nd(x, [padding[1], padding[1], padding[0], padding[0]], 0)
    n, channels, height, width = sizes(a, x)
    counts = [(size - step * (k - 1) - 1) // s + 1 for size, step, k, s in zip((height, width), dilation, kernel_size, stride, strict=True)]
    rows, columns = (np.arange(k)[:, None] * step + np.arange(count) * s for k, step, count, s in zip(kernel_size, dilation, counts, stride, strict=True))
    places = rows[:, None, :, None] * width + columns[None, :, None, :]
    flat = a.index(a.reshape(x, [n, channels, height * width]), [None, None, a.op.const(places.reshape(-1).astype(np.int64))])
    y = a.reshape(flat, [n, channels * math.prod(kernel_size), math.prod(counts)])
    return a.squeeze(y, 0) if single else y


@composed("grid_sampler_2d", "grid_sampler_3d", "grid_sampler")
def grid_sampler(a, x, grid, interpolation_mode, padding_mode, align_corners):
    modes, paddings = ("linear", "nearest", "cubic"), ("zeros", "border", "reflection")
    return a.op.GridSample(x, grid, mode=modes[interpolation_mode], padding_mode=paddings[padding_mode], align_corners=int(align_corners))


@composed("affine_grid_generator")
def affine_grid_generator(a, theta, size, align_corners):
    return a.op.AffineGrid(theta, a.op.const(list(size)), align_corners=int(align_corners))


@composed("max_unpool2d", "max_unpool3d")
def max_unpool(a, x, indices, output_size, *rest):
    """Places count inside each channel."""
    spatial = int(a.op.node.op_type[-2])
    lead, size = sizes(a, x)[:-spatial], math.prod(output_size)
    flat = a.zeros([*lead, size], dtype=like(x))
    y = a.scatter(flat, -1, a.reshape(indices, [*lead, -1]), a.reshape(x, [*lead, -1]))
    return a.reshape(y, [*lead, *output_size])


# ---- bits and numbers of shapes


composed("_shape_as_tensor")(lambda a, x: a.op.Shape(x))
composed("bitwise_left_shift", "__lshift__")(lambda a, x, y: a.mul(x, a.pow(a.full_like(x, 2), y)))
composed("bitwise_right_shift", "__rshift__")(lambda a, x, y: a.floor_divide(x, a.pow(a.full_like(x, 2), y)))
composed("tensordot")(lambda a, x, y, p, q: _tensordot(a, x, y, p, q))
composed("bilinear")(lambda a, x, y, weight, bias=None: _biased(a, a.einsum("...i,oij,...j->...o", [x, weight, y]), bias))
composed("linalg_vander")(lambda a, x, N=None: a.pow(a.unsqueeze(x, -1), a.op.const(np.arange(N or sizes(a, x)[-1]))))
composed("_softmax_backward_data")(lambda a, gradient, y, dim, dtype=None: a.sub(a.mul(gradient, y), a.mul(y, a.sum(a.mul(gradient, y), [dim], True))))
composed("native_dropout_backward")(lambda a, gradient, mask, scale: a.mul(a.mul(gradient, mask), scale))
composed("nonzero_static")(lambda a, x, size, fill_value=-1: _nonzero_static(a, x, size, fill_value))


def _biased(a: Aten, x: ir.Value, bias: ir.Value | None) -> ir.Value:
    return x if bias is None else a.add(x, bias)


def _tensordot(a: Aten, x: ir.Value, y: ir.Value, p: list[int], q: list[int]) -> ir.Value:
    """Shared axes last on one side and first on the other."""
    p, q = axes_of(a.op, x, p), axes_of(a.op, y, q)
    left, right = ([axis for axis in range(rank(a.op, v)) if axis not in used] for v, used in ((x, p), (y, q)))
    shapes = sizes(a, x), sizes(a, y)
    shared = math.prod(shapes[0][axis] for axis in p)
    product = a.matmul(a.reshape(a.permute(x, [*left, *p]), [-1, shared]), a.reshape(a.permute(y, [*q, *right]), [shared, -1]))
    return a.reshape(product, [*(shapes[0][axis] for axis in left), *(shapes[1][axis] for axis in right)])


def _nonzero_static(a: Aten, x: ir.Value, size: int, fill_value: int) -> ir.Value:
    found = a.nonzero(x)
    filler = a.full([size, rank(a.op, x)], fill_value, dtype=4)
    return a.slice(a.cat([found, filler], 0), 0, 0, size)
