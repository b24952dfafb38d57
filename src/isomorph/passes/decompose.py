"""Operators that a target lacks, written with simpler ones. A target with about eighty operators carries all of ONNX through these rules,
and through the function bodies that ONNX itself defines. A rule that returns NotImplemented leaves its node to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Int, Ints, Mapping

decompose = Mapping()
INFINITY = float("inf")


def shape_of(op: Builder, x: ir.Value, *axes: int) -> ir.Value:
    """The sizes of `x` along `axes` (all by default) as an int64 vector, constant where they are known."""
    rank, sizes = op.of(x)
    chosen = [sizes[axis] for axis in axes] if axes else sizes
    if all(isinstance(size, int) for size in chosen):
        return op.const(chosen)
    whole = op.Shape(x)
    return op.Gather(whole, op.const([axis % rank for axis in axes])) if axes else whole


def target_shape(op: Builder, x: ir.Value, *parts: int | ir.Value | str) -> ir.Value:
    """A shape vector from numbers, axes of `x` (given as "0", "1", ...) and vectors."""
    _rank, sizes = op.of(x)
    resolved = [sizes[int(part)] if isinstance(part, str) else part for part in parts]
    if all(isinstance(part, int) for part in resolved):
        return op.const(resolved)
    vectors = [
        part if isinstance(part, ir.Value) else op.const([part]) if isinstance(part, int) else shape_of(op, x, int(str(given)))
        for part, given in zip(resolved, parts, strict=True)
    ]
    return op.Concat(*vectors, axis=0)


def interval(op: Builder, x: ir.Value, axis: int, start: int, end: int) -> ir.Value:
    return op.Slice(x, [start], [end], [axis])


# ---- elementwise


@decompose("Reciprocal")
def reciprocal(op, x):
    return op.Div(op.const(1.0, like=x.dtype), x)


@decompose("Tan")
def tan(op, x):
    return op.Div(op.Sin(x), op.Cos(x))


@decompose("Sinh")
def sinh(op, x):
    return op.Mul(op.Sub(op.Exp(x), op.Exp(op.Neg(x))), 0.5)


@decompose("Cosh")
def cosh(op, x):
    return op.Mul(op.Add(op.Exp(x), op.Exp(op.Neg(x))), 0.5)


@decompose("Asinh")
def asinh(op, x):
    """sign(x) log(|x| + sqrt(x^2 + 1)): the textbook form cancels for negative x."""
    size = op.Abs(x)
    return op.Mul(op.Sign(x), op.Log(op.Add(size, op.Sqrt(op.Add(op.Mul(x, x), 1.0)))))


@decompose("Acosh")
def acosh(op, x):
    return op.Log(op.Add(x, op.Sqrt(op.Sub(op.Mul(x, x), 1.0))))


@decompose("Atanh")
def atanh(op, x):
    return op.Mul(op.Log(op.Div(op.Add(x, 1.0), op.Sub(op.const(1.0, like=x.dtype), x))), 0.5)


ERF_NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_DENOMINATOR = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02)


@decompose("Erf")
def erf(op, x):
    """x P(x^2) / Q(x^2) on [-4, 4], the rational minimax form that numerical libraries use for float32; a few units in the last place."""
    x = op.Min(op.Max(x, -4.0), 4.0)
    square = op.Mul(x, x)

    def polynomial(coefficients):
        total = op.Add(op.Mul(square, coefficients[0]), coefficients[1])
        for coefficient in coefficients[2:]:
            total = op.Add(op.Mul(total, square), coefficient)
        return total

    return op.Div(op.Mul(x, polynomial(ERF_NUMERATOR)), polynomial(ERF_DENOMINATOR))


@decompose("Gelu")
def gelu(op, x, *, approximate="none"):
    if approximate == "tanh":
        inner = op.Mul(op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), 0.044715)), math.sqrt(2 / math.pi))
        return op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(inner), 1.0))
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Mul(x, math.sqrt(0.5))), 1.0))


@decompose("Softplus")
def softplus(op, x):
    """max(x, 0) + log(1 + exp(-|x|)) does not overflow."""
    return op.Add(op.Relu(x), op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), 1.0)))


@decompose("Softsign")
def softsign(op, x):
    return op.Div(x, op.Add(op.Abs(x), 1.0))


@decompose("Mish")
def mish(op, x):
    return op.Mul(x, op.Tanh(softplus(op, x)))


@decompose("Swish")
def swish(op, x, *, alpha=1.0):
    return op.Mul(x, op.Sigmoid(x if alpha == 1.0 else op.Mul(x, alpha)))


@decompose("HardSwish")
def hard_swish(op, x):
    return op.Mul(x, op.HardSigmoid(x, alpha=1 / 6, beta=0.5))


@decompose("HardSigmoid")
def hard_sigmoid(op, x, *, alpha=0.2, beta=0.5):
    return op.Min(op.Max(op.Add(op.Mul(x, alpha), beta), 0.0), 1.0)


@decompose("Elu")
def elu(op, x, *, alpha=1.0):
    """The exponential sees only negative values, so it cannot overflow."""
    return op.Add(op.Relu(x), op.Mul(op.Sub(op.Exp(op.Min(x, 0.0)), 1.0), alpha))


@decompose("Celu")
def celu(op, x, *, alpha=1.0):
    return op.Add(op.Relu(x), op.Mul(op.Sub(op.Exp(op.Div(op.Min(x, 0.0), alpha)), 1.0), alpha))


@decompose("Selu")
def selu(op, x, *, alpha=1.6732632423543772, gamma=1.0507009873554805):
    return op.Mul(elu(op, x, alpha=alpha), gamma)


@decompose("ThresholdedRelu")
def thresholded_relu(op, x, *, alpha=1.0):
    return op.Where(op.Greater(x, alpha), x, op.const(0.0, like=x.dtype))


@decompose("Shrink")
def shrink(op, x, *, bias=0.0, lambd=0.5):
    zero = op.const(0, like=x.dtype)
    inner = op.Where(op.Greater(x, _as(op, lambd, x)), op.Sub(x, _as(op, bias, x)), zero)
    return op.Where(op.Less(x, _as(op, -lambd, x)), op.Add(x, _as(op, bias, x)), inner)


def _as(op: Builder, number: float, x: ir.Value) -> ir.Value:
    return op.const(np.asarray(number).astype(x.dtype.numpy()))


@decompose("Clip")
def clip(op, x, low=None, high=None):
    x = x if low is None else op.Max(x, low)
    x = x if high is None else op.Min(x, high)
    return x if low is not None or high is not None else op.Identity(x)


@decompose("PRelu")
def prelu(op, x, slope):
    if x.dtype in (ir.DataType.UINT32, ir.DataType.UINT64):
        return op.Identity(x)
    zero = op.const(0, like=x.dtype)
    return op.Where(op.Less(x, zero), op.Mul(x, slope), x)


@decompose("LeakyRelu")
def leaky_relu(op, x, *, alpha=0.01):
    return op.Max(x, op.Mul(x, alpha)) if 0 <= alpha <= 1 else op.Where(op.Less(x, 0.0), op.Mul(x, alpha), x)


@decompose("Sum")
def sum_of(op, *xs):
    return _chain(op.Add, xs)


@decompose("Mean")
def mean_of(op, *xs):
    return op.Mul(_chain(op.Add, xs), 1 / len(xs)) if len(xs) > 1 else xs[0]


@decompose("Max")
def max_of(op, *xs):
    return NotImplemented if len(xs) == 2 else _chain(op.Max, xs)


@decompose("Min")
def min_of(op, *xs):
    return NotImplemented if len(xs) == 2 else _chain(op.Min, xs)


def _chain(function: Callable, xs: tuple) -> Any:
    total = xs[0]
    for x in xs[1:]:
        total = function(total, x)
    return total


@decompose("IsNaN")
def is_nan(op, x):
    return op.Not(op.Equal(x, x))


@decompose("IsInf")
def is_inf(op, x, *, detect_negative=1, detect_positive=1):
    found = [op.Equal(x, sign * INFINITY) for sign, wanted in ((1, detect_positive), (-1, detect_negative)) if wanted]
    if not found:
        return op.Not(op.Or(op.Equal(x, x), op.Not(op.Equal(x, x))))
    return _chain(op.Or, tuple(found))


@decompose("Xor")
def xor(op, a, b):
    return op.Not(op.Equal(a, b))


@decompose("CastLike")
def cast_like(op, x, like, *, saturate=1, round_mode="up"):
    return op.reject("the type to cast to is not known") if like.dtype is None else op.Cast(x, to=int(like.dtype), saturate=saturate)


@decompose("GreaterOrEqual")
def greater_or_equal(op, a, b):
    return op.Or(op.Greater(a, b), op.Equal(a, b))


@decompose("LessOrEqual")
def less_or_equal(op, a, b):
    return op.Or(op.Less(a, b), op.Equal(a, b))


@decompose("Mod")
def mod(op, a, b, *, fmod=0):
    """ONNX's default takes the sign of the divisor (Python), fmod that of the dividend (C)."""
    if not fmod:
        return NotImplemented
    if a.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        return op.Mul(op.Sign(a), op.Mod(op.Abs(a), op.Abs(b)))
    size = op.Mod(op.Cast(op.Abs(a), to=1), op.Cast(op.Abs(b), to=1))
    return op.Cast(op.Mul(op.Sign(op.Cast(a, to=1)), size), to=int(a.dtype))


# ---- reductions


def _axes(op: Builder, x: ir.Value, axes: Ints | None, noop: int) -> tuple[int, ...] | None:
    """The axes of a reduction as numbers; None where it does nothing."""
    rank, _ = op.of(x)
    if axes is None or len(axes) == 0:
        return None if noop else tuple(range(rank))
    return tuple(axis % rank for axis in axes)


def _reduction(before: Callable | None, kernel: str, after: Callable | None) -> Callable:
    def rule(op: Builder, x: ir.Value, axes: Ints | None = None, *, keepdims=1, noop_with_empty_axes=0):
        axes = _axes(op, x, axes, noop_with_empty_axes)
        y = before(op, x) if before else x
        if axes is not None:
            y = getattr(op, kernel)(y, list(axes), keepdims=keepdims)
        return after(op, y) if after else op.Identity(y) if y is x else y

    return rule


decompose("ReduceL1")(_reduction(lambda op, x: op.Abs(x), "ReduceSum", None))
decompose("ReduceL2")(
    _reduction(lambda op, x: op.Mul(x, x), "ReduceSum", lambda op, y: op.Sqrt(op.Cast(y, to=1)) if y.dtype != ir.DataType.FLOAT else op.Sqrt(y))
)
decompose("ReduceSumSquare")(_reduction(lambda op, x: op.Mul(x, x), "ReduceSum", None))
decompose("ReduceLogSum")(_reduction(None, "ReduceSum", lambda op, y: op.Log(y)))


@decompose("ReduceLogSumExp")
def reduce_log_sum_exp(op, x, axes: Ints | None = None, *, keepdims=1, noop_with_empty_axes=0):
    """The greatest value is taken out first so that the exponentials stay finite; an empty or all -inf slice keeps -inf."""
    axes = _axes(op, x, axes, noop_with_empty_axes)
    if axes is None:
        return op.Identity(x)
    top = op.Min(op.Max(op.ReduceMax(x, list(axes), keepdims=1), -3e38), 3e38)
    total = op.Add(op.Log(op.ReduceSum(op.Exp(op.Sub(x, top)), list(axes), keepdims=1)), top)
    return total if keepdims else op.Squeeze(total, list(axes))


@decompose("Hardmax")
def hardmax(op, x, *, axis=-1):
    """One at the first greatest element."""
    rank, _sizes = op.of(x)
    axis %= rank
    last = op.ArgMax(x, axis=axis, keepdims=0)
    return op.OneHot(last, shape_of(op, x, axis), op.const(np.array([0, 1], x.dtype.numpy())), axis=axis)


@decompose("LogSoftmax")
def log_softmax(op, x, *, axis=-1):
    shifted = op.Sub(x, op.ReduceMax(x, [axis], keepdims=1))
    return op.Sub(shifted, op.Log(op.ReduceSum(op.Exp(shifted), [axis], keepdims=1)))


@decompose("LpNormalization")
def lp_normalization(op, x, *, axis=-1, p=2):
    """A zero vector stays zero."""
    size = op.ReduceSum(op.Abs(x), [axis], keepdims=1) if p == 1 else op.Sqrt(op.ReduceSum(op.Mul(x, x), [axis], keepdims=1))
    zero = op.Equal(size, 0.0)
    return op.Where(zero, op.const(0.0, like=x.dtype), op.Div(x, op.Where(zero, op.const(1.0, like=x.dtype), size)))


# ---- normalisation


def _normalized(op: Builder, x: ir.Value, axes: list[int], epsilon: float) -> tuple[ir.Value, ir.Value, ir.Value]:
    mean = op.ReduceMean(x, axes, keepdims=1)
    centred = op.Sub(x, mean)
    variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    inverse = op.Div(op.const(1.0, like=x.dtype), op.Sqrt(op.Add(variance, epsilon)))
    return op.Mul(centred, inverse), mean, inverse


@decompose("LayerNormalization")
def layer_normalization(op, x, scale, bias=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    rank, _ = op.of(x)
    y, mean, inverse = _normalized(op, x if x.dtype == ir.DataType(stash_type) else op.Cast(x, to=stash_type), list(range(axis % rank, rank)), epsilon)
    y = op.Mul(y if x.dtype == y.dtype else op.Cast(y, to=int(x.dtype)), scale)
    return (y if bias is None else op.Add(y, bias)), mean, inverse


@decompose("RMSNormalization")
def rms_normalization(op, x, scale, *, axis=-1, epsilon=1e-5, stash_type=1):
    rank, _ = op.of(x)
    y = x if x.dtype == ir.DataType(stash_type) else op.Cast(x, to=stash_type)
    mean = op.ReduceMean(op.Mul(y, y), list(range(axis % rank, rank)), keepdims=1)
    y = op.Div(y, op.Sqrt(op.Add(mean, epsilon)))
    return op.Mul(y if x.dtype == y.dtype else op.Cast(y, to=int(x.dtype)), scale)


@decompose("InstanceNormalization")
def instance_normalization(op, x, scale, bias, *, epsilon=1e-5):
    rank, _ = op.of(x)
    y, _, _ = _normalized(op, x, list(range(2, rank)), epsilon)
    return op.Add(op.Mul(y, _per_channel(op, scale, rank)), _per_channel(op, bias, rank))


@decompose("GroupNormalization")
def group_normalization(op, x, scale, bias, *, num_groups, epsilon=1e-5, stash_type=1):
    rank, _ = op.of(x)
    grouped = op.Reshape(x, [0, num_groups, -1])
    y, _, _ = _normalized(op, grouped, [2], epsilon)
    y = op.Reshape(y, shape_of(op, x))
    return op.Add(op.Mul(y, _per_channel(op, scale, rank)), _per_channel(op, bias, rank))


@decompose("BatchNormalization")
def batch_normalization(op, x, scale, bias, mean, variance, *, epsilon=1e-5, momentum=0.9, training_mode=0):
    """In training the statistics of the batch are used, and the running ones are updated (ONNX uses the biased variance)."""
    rank, _ = op.of(x)
    if not training_mode:
        factor = op.Div(scale, op.Sqrt(op.Add(variance, epsilon)))
        return op.Add(op.Mul(x, _per_channel(op, factor, rank)), _per_channel(op, op.Sub(bias, op.Mul(mean, factor)), rank)), None, None
    axes = [0, *range(2, rank)]
    batch_mean = op.ReduceMean(x, axes, keepdims=0)
    centred = op.Sub(x, _per_channel(op, batch_mean, rank))
    batch_variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=0)
    y = op.Div(op.Mul(centred, _per_channel(op, scale, rank)), _per_channel(op, op.Sqrt(op.Add(batch_variance, epsilon)), rank))
    running = [op.Add(op.Mul(old, momentum), op.Mul(new, 1 - momentum)) for old, new in ((mean, batch_mean), (variance, batch_variance))]
    return op.Add(y, _per_channel(op, bias, rank)), *running


def _per_channel(op: Builder, vector: ir.Value, rank: int) -> ir.Value:
    return op.Reshape(vector, [-1] + [1] * (rank - 2)) if rank > 2 else vector


@decompose("MeanVarianceNormalization")
def mean_variance_normalization(op, x, *, axes=(0, 2, 3)):
    y, _, _ = _normalized(op, x, list(axes), 1e-9)
    return y


@decompose("LRN")
def lrn(op, x, *, size, alpha=1e-4, beta=0.75, bias=1.0):
    """The squares over `size` neighbouring channels as a pooled window: a channel axis of its own size, padded, then averaged."""
    _, (_, channels, *_) = op.of(x)
    before = (size - 1) // 2
    square = op.Pad(op.Mul(x, x), [0, before, 0, 0, 0, size - 1 - before, 0, 0], op.const(0.0, like=x.dtype))
    total = _chain(op.Add, tuple(interval(op, square, 1, i, i + channels) for i in range(size)))
    return op.Div(x, op.Pow(op.Add(op.Mul(total, alpha / size), bias), beta))


# ---- shapes


@decompose("Flatten")
def flatten(op, x, *, axis=1):
    rank, sizes = op.of(x)
    axis = axis if axis >= 0 else axis + rank
    rest = [size for size in sizes[axis:] if isinstance(size, int)]
    if axis == 1 and len(rest) == rank - 1:
        return op.Reshape(x, [-1, math.prod(rest)]) if math.prod(rest) else op.Reshape(x, [0, math.prod(rest)])
    if all(isinstance(size, int) for size in sizes):
        return op.Reshape(x, [math.prod(sizes[:axis]), math.prod(sizes[axis:])], allowzero=1)
    first = op.ReduceProd(shape_of(op, x, *range(axis)), [0], keepdims=1) if axis else op.const([1])
    return op.Reshape(x, op.Concat(first, op.const([-1]), axis=0))


@decompose("Size")
def size_of(op, x):
    return op.ReduceProd(op.Shape(x), [0], keepdims=0)


@decompose("EyeLike")
def eye_like(op, x, *, dtype=None, k=0):
    rows, columns = op.static(x)
    return op.const(np.eye(rows, columns, k, ir.DataType(dtype).numpy() if dtype else x.dtype.numpy()))


@decompose("Trilu")
def trilu(op, x, k: Int = 0, *, upper=1):
    """A constant mask chooses the triangle; where sizes are dynamic it is computed from ranges."""
    rank, sizes = op.of(x)
    rows, columns = sizes[-2:]
    zero = op.const(np.zeros((), x.dtype.numpy()))
    if isinstance(rows, int) and isinstance(columns, int):
        mask = op.const(np.tri(rows, columns, k - 1 if upper else k, bool) != bool(upper))
    else:
        row, column = (op.Range(op.const(np.int64(0)), op.Squeeze(shape_of(op, x, axis), [0]), op.const(np.int64(1))) for axis in (rank - 2, rank - 1))
        distance = op.Sub(op.Unsqueeze(column, [0]), op.Unsqueeze(row, [1]))
        mask = op.Not(op.Less(distance, np.int64(k))) if upper else op.Not(op.Greater(distance, np.int64(k)))
    return op.Where(mask, x, zero)


@decompose("CenterCropPad")
def center_crop_pad(op, x, shape: Ints, *, axes=None):
    """Crops and pads keep the centre; an odd rest goes to the end when cropping starts, as ONNX's function does."""
    sizes = op.static(x)
    axes = [axis % len(sizes) for axis in (axes if axes is not None else range(len(sizes)))]
    pads = [0] * 2 * len(sizes)
    for axis, want in zip(axes, shape, strict=True):
        have = sizes[axis]
        if have > want:
            start = (have - want) // 2
            x = interval(op, x, axis, start, start + want)
        else:
            pads[axis], pads[axis + len(sizes)] = (want - have) // 2, want - have - (want - have) // 2
    return op.Pad(x, pads, op.const(np.zeros((), x.dtype.numpy()))) if any(pads) else op.Identity(x)


@decompose("Upsample")
def upsample(op, x, scales, *, mode="nearest"):
    return op.Resize(x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


@decompose("DepthToSpace")
def depth_to_space(op, x, *, blocksize, mode="DCR"):
    _, (_, c, _, _) = op.of(x)
    b = blocksize
    inner = [b, b, c // b // b] if mode == "DCR" else [c // b // b, b, b]
    y = op.Reshape(x, target_shape(op, x, "0", *inner, "2", "3"))
    y = op.Transpose(y, perm=[0, 3, 4, 1, 5, 2] if mode == "DCR" else [0, 1, 4, 2, 5, 3])
    return op.Reshape(y, _scaled(op, x, [c // b // b], b))


@decompose("SpaceToDepth")
def space_to_depth(op, x, *, blocksize):
    n, c, h, w = op.static(x)
    b = blocksize
    y = op.Reshape(x, [n, c, h // b, b, w // b, b])
    return op.Reshape(op.Transpose(y, perm=[0, 3, 5, 1, 2, 4]), [n, c * b * b, h // b, w // b])


def _scaled(op: Builder, x: ir.Value, channels: list[int], block: int) -> ir.Value:
    _, (_n, _, h, w) = op.of(x)
    if isinstance(h, int) and isinstance(w, int):
        return target_shape(op, x, "0", *channels, h * block, w * block)
    return op.Concat(shape_of(op, x, 0), op.const(channels), op.Mul(shape_of(op, x, 2, 3), np.int64(block)), axis=0)


@decompose("ReverseSequence")
def reverse_sequence(op, x, lengths, *, batch_axis=1, time_axis=0):
    """Index arithmetic: position t < length reads length - 1 - t."""
    rank, _sizes = op.of(x)
    y = op.Transpose(x, perm=[batch_axis, time_axis, *range(2, rank)]) if batch_axis == 1 else x
    steps = op.Range(op.const(np.int64(0)), op.Squeeze(shape_of(op, x, time_axis), [0]), op.const(np.int64(1)))
    column = op.Unsqueeze(lengths, [1])
    index = op.Where(op.Less(op.Unsqueeze(steps, [0]), column), op.Sub(op.Sub(column, np.int64(1)), op.Unsqueeze(steps, [0])), op.Unsqueeze(steps, [0]))
    y = op.GatherND(y, op.Unsqueeze(index, [2]), batch_dims=1)
    return op.Transpose(y, perm=[1, 0, *range(2, rank)]) if batch_axis == 1 else y


# ---- gather and scatter by position


def _positions(op: Builder, indices: ir.Value, axis: int, size: ir.Value | int) -> ir.Value:
    """Full coordinates of every element of `indices`, its own value standing for `axis`: [..., rank]."""
    sizes = op.static(indices)
    rank = len(sizes)
    if size is not None:
        indices = op.Where(op.Less(indices, op.const(0, like=indices.dtype)), op.Add(indices, op.const(size, like=indices.dtype)), indices)
    grids = [
        op.Unsqueeze(op.Cast(indices, to=7), [rank])
        if i == axis
        else op.const(np.broadcast_to(np.arange(sizes[i]).reshape([-1] + [1] * (rank - 1 - i)), sizes)[..., None].astype(np.int64))
        for i in range(rank)
    ]
    return op.Concat(*grids, axis=rank)


@decompose("GatherElements")
def gather_elements(op, x, indices, *, axis=0):
    sizes = op.static(x)
    return op.GatherND(x, _positions(op, indices, axis % len(sizes), sizes[axis]))


@decompose("ScatterElements", "Scatter")
def scatter_elements(op, x, indices, updates, *, axis=0, reduction="none"):
    sizes = op.static(x)
    return op.ScatterND(x, _positions(op, indices, axis % len(sizes), sizes[axis]), updates, reduction=reduction)


@decompose("Compress")
def compress(op, x, condition, *, axis=None):
    if axis is None:
        x, axis = op.Reshape(x, [-1]), 0
    _, _sizes = op.of(x)
    chosen = op.Squeeze(op.NonZero(condition), [0])
    return op.Gather(x, chosen, axis=axis)


@decompose("OneHot")
def one_hot(op, indices, depth: Int, values, *, axis=-1):
    """Negative indices count from the end, others outside the range give all `off`."""
    rank, _ = op.of(indices)
    axis = axis % (rank + 1)
    positions = op.Cast(op.Cast(op.Unsqueeze(indices, [axis]), to=1), to=7) if indices.dtype != ir.DataType.INT64 else op.Unsqueeze(indices, [axis])
    classes = np.arange(depth, dtype=np.int64).reshape([-1] + [1] * (rank - axis))
    hit = op.Or(op.Equal(positions, op.const(classes)), op.Equal(op.Add(positions, np.int64(depth)), op.const(classes)))
    off, on = (op.Squeeze(interval(op, values, 0, i, i + 1), [0]) for i in (0, 1))
    return op.Where(hit, on, off)


@decompose("MaxUnpool")
def max_unpool(op, x, indices, output_shape: Ints | None = None, *, kernel_shape, pads=None, strides=None):
    """Every value goes to the flat position that pooling noted; the positions are those of the unpadded default output."""
    n, c, *spatial = op.static(x)
    strides, pads = strides or [1] * len(spatial), pads or [0] * 2 * len(spatial)
    natural = [n, c] + [
        (s - 1) * stride + k - begin - end
        for s, stride, k, begin, end in zip(spatial, strides, kernel_shape, pads[: len(spatial)], pads[len(spatial) :], strict=True)
    ]
    flat = op.ScatterND(op.const(np.zeros(math.prod(natural), np.float32)), op.Reshape(indices, [-1, 1]), op.Reshape(x, [-1]))
    y = op.Reshape(flat, natural)
    if output_shape is None or list(output_shape) == natural:
        return y
    if any(want < have for want, have in zip(output_shape, natural, strict=True)):
        return op.Reshape(y, list(output_shape)) if math.prod(output_shape) == math.prod(natural) else op.reject("an output smaller than the pooled input")
    return op.Pad(y, [0] * len(natural) + [want - have for want, have in zip(output_shape, natural, strict=True)])


# ---- linear algebra


@decompose("Gemm")
def gemm(op, a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    a, b = (op.Transpose(m, perm=[1, 0]) if flag else m for m, flag in ((a, transA), (b, transB)))
    y = op.MatMul(a, b)
    y = y if alpha == 1.0 else op.Mul(y, alpha)
    return y if c is None or beta == 0 else op.Add(y, c if beta == 1.0 else op.Mul(c, beta))


@decompose("Einsum")
def einsum(op, *xs, equation):
    """Pairs of operands, left to right: sum what only one has, bring both to [batch, own, shared], multiply, put in order."""
    equation = equation.replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    letters = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    widest = max(op.of(x)[0] - len(term.replace("...", "")) for x, term in zip(xs, terms, strict=True)) if "..." in equation else 0
    terms = [
        term.replace("...", "".join(letters[widest - (op.of(x)[0] - len(term) + 3) : widest])) if "..." in term else term
        for x, term in zip(xs, terms, strict=True)
    ]
    joined = "".join(terms)
    right = (
        right.replace("...", "".join(letters[:widest]))
        if "->" in equation
        else "".join(letters[:widest]) + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in letters[:widest]))
    )
    values = [_diagonal(op, x, term) for x, term in zip(xs, terms, strict=True)]
    value, term = values[0]
    for index, (other, its) in enumerate(values[1:], 1):
        kept = right + "".join(t for _, t in values[index + 1 :])
        value, term = _contract(op, value, term, other, its, kept)
    summed = [i for i, c in enumerate(term) if c not in right]
    if summed:
        value, term = op.ReduceSum(value, summed, keepdims=0), "".join(c for c in term if c in right)
    return op.Transpose(value, perm=[term.index(c) for c in right]) if term != right else op.Identity(value)


def _diagonal(op: Builder, x: ir.Value, term: str) -> tuple[ir.Value, str]:
    """Repeated letters of one operand keep only equal positions."""
    for letter in sorted(set(term)):
        while term.count(letter) > 1:
            first, second = term.index(letter), term.rindex(letter)
            size = op.static(x)[first]
            mask = np.eye(size).reshape([size if i in (first, second) else 1 for i in range(len(term))])
            x = op.ReduceSum(op.Mul(x, op.const(mask.astype(x.dtype.numpy()))), [second], keepdims=0)
            term = term[:second] + term[second + 1 :]
    return x, term


def _contract(op: Builder, a: ir.Value, a_term: str, b: ir.Value, b_term: str, kept: str) -> tuple[ir.Value, str]:
    for side in (0, 1):
        x, term, other = ((a, a_term, b_term), (b, b_term, a_term))[side]
        alone = [i for i, c in enumerate(term) if c not in other and c not in kept]
        if alone:
            x, term = op.ReduceSum(x, alone, keepdims=0), "".join(c for i, c in enumerate(term) if i not in alone)
        if side:
            b, b_term = x, term
        else:
            a, a_term = x, term
    shared = [c for c in a_term if c in b_term]
    batch, summed = "".join(c for c in shared if c in kept), "".join(c for c in shared if c not in kept)
    rows, columns = "".join(c for c in a_term if c not in shared), "".join(c for c in b_term if c not in shared)
    if not summed:
        term = batch + rows + columns
        return op.Mul(_aligned(op, a, a_term, term), _aligned(op, b, b_term, term)), term
    sizes = dict(zip(a_term, op.static(a), strict=True)) | dict(zip(b_term, op.static(b), strict=True))
    size = lambda part: math.prod(sizes[c] for c in part)  # noqa: E731
    left = op.Reshape(_ordered(op, a, a_term, batch + rows + summed), [size(batch), size(rows), size(summed)])
    right = op.Reshape(_ordered(op, b, b_term, batch + summed + columns), [size(batch), size(summed), size(columns)])
    return op.Reshape(op.MatMul(left, right), [sizes[c] for c in batch + rows + columns]), batch + rows + columns


def _ordered(op: Builder, x: ir.Value, term: str, order: str) -> ir.Value:
    return x if term == order else op.Transpose(x, perm=[term.index(c) for c in order])


def _aligned(op: Builder, x: ir.Value, term: str, order: str) -> ir.Value:
    x = _ordered(op, x, term, "".join(c for c in order if c in term))
    missing = [i for i, c in enumerate(order) if c not in term]
    return op.Unsqueeze(x, missing) if missing else x


@decompose("Det")
def det(op, x):
    """Expansion along the first row, for matrices up to 4 x 4."""
    *_, size, _ = op.static(x)
    rank, _ = op.of(x)
    if size > 4:
        op.reject("determinants above 4 x 4 have no expansion of reasonable length")

    def cell(i, j):
        return op.Squeeze(interval(op, interval(op, x, rank - 2, i, i + 1), rank - 1, j, j + 1), [rank - 2, rank - 1])

    def expand(row, columns):
        if len(columns) == 1:
            return cell(row, columns[0])
        parts = [op.Mul(cell(row, column), expand(row + 1, [c for c in columns if c != column])) for column in columns]
        total = parts[0]
        for i, part in enumerate(parts[1:], 1):
            total = op.Sub(total, part) if i % 2 else op.Add(total, part)
        return total

    return expand(0, list(range(size)))


# ---- integer arithmetic of quantised operators, as floats between Quantize and Dequantize


@decompose("QLinearMatMul")
def qlinear_matmul(op, a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero):
    y = op.MatMul(_dequantized(op, a, a_scale, a_zero, -2), _dequantized(op, b, b_scale, b_zero, -1))
    return op.QuantizeLinear(y, y_scale, y_zero, axis=-2)


def _dequantized(op: Builder, x: ir.Value, scale: ir.Value, zero: ir.Value | None, axis: int) -> ir.Value:
    return op.DequantizeLinear(x, scale, zero, axis=axis)


@decompose("QLinearConv")
def qlinear_conv(op, x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, b=None, **attributes):
    bias = None if b is None else op.DequantizeLinear(b, op.Mul(x_scale, w_scale), axis=0)
    y = op.Conv(_dequantized(op, x, x_scale, x_zero, 1), _dequantized(op, w, w_scale, w_zero, 0), bias, **attributes)
    return op.QuantizeLinear(y, y_scale, y_zero, axis=1)


def _shifted(op: Builder, x: ir.Value, zero: ir.Value | None, axis: int) -> ir.Value:
    """x - zero as float32, exact up to 2^24."""
    y = op.Cast(x, to=1)
    if zero is None:
        return y
    rank, _ = op.of(x)
    if op.of(zero)[0] == 1 and op.of(zero)[1] != [1]:
        zero = op.Reshape(zero, [-1 if i == axis % rank else 1 for i in range(rank)])
    return op.Sub(y, op.Cast(zero, to=1))


@decompose("MatMulInteger")
def matmul_integer(op, a, b, a_zero=None, b_zero=None):
    return op.Cast(op.MatMul(_shifted(op, a, a_zero, -2), _shifted(op, b, b_zero, -1)), to=6)


@decompose("ConvInteger")
def conv_integer(op, x, w, x_zero=None, w_zero=None, **attributes):
    return op.Cast(op.Conv(_shifted(op, x, x_zero, 1), _shifted(op, w, w_zero, 0), **attributes), to=6)


@decompose("DynamicQuantizeLinear")
def dynamic_quantize_linear(op, x):
    """Range of the data including zero, 8 bits, zero point rounded half to even."""
    low, high = op.Min(op.ReduceMin(x, keepdims=0), 0.0), op.Max(op.ReduceMax(x, keepdims=0), 0.0)
    scale = op.Div(op.Sub(high, low), 255.0)
    zero = op.Round(op.Min(op.Max(op.Div(op.Neg(low), scale), 0.0), 255.0))
    y = op.Min(op.Max(op.Add(op.Round(op.Div(x, scale)), zero), 0.0), 255.0)
    return op.Cast(y, to=2), scale, op.Cast(zero, to=2)


# ---- signal


def _dft_matrix(count: int, length: int, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin parts, [length, count], of exp(-+ 2 pi i k n / length), in float64 before rounding; angles reduced exactly."""
    period = max(length, count)
    angle = 2 * np.pi * (np.outer(np.arange(length), np.arange(count)) % period) / period
    return np.cos(angle), np.sin(angle) if inverse else -np.sin(angle)


@decompose("DFT")
def dft(op, x, dft_length: Int | None = None, axis: Int = -2, *, inverse=0, onesided=0):
    """Two real matrix products with constant matrices. The last axis holds real and imaginary parts."""
    rank, sizes = op.of(x)
    axis = axis % rank
    length = dft_length or sizes[axis]
    if not isinstance(length, int) or not isinstance(sizes[axis], int):
        op.reject("the length of the transform is not known")
    if onesided and inverse:
        return _real_signal(op, x, axis, dft_length or 2 * (sizes[axis] - 1))
    have = sizes[axis]
    if length < have:
        x = interval(op, x, axis, 0, length)
    elif length > have:
        x = op.Pad(x, [0] * rank + [length - have if i == axis else 0 for i in range(rank)], op.const(0.0, like=x.dtype))
    count = length // 2 + 1 if onesided else length
    order = [i for i in range(rank - 1) if i != axis] + [rank - 1, axis]
    y = op.Transpose(x, perm=order)
    cosine, sine = ((m / length if inverse else m).astype(x.dtype.numpy()) for m in _dft_matrix(count, length, bool(inverse)))
    real = interval(op, y, rank - 2, 0, 1)
    if sizes[-1] == 1:
        out = op.Concat(op.MatMul(real, op.const(cosine)), op.MatMul(real, op.const(sine)), axis=rank - 2)
    else:
        imaginary = interval(op, y, rank - 2, 1, 2)
        out = op.Concat(
            op.Sub(op.MatMul(real, op.const(cosine)), op.MatMul(imaginary, op.const(sine))),
            op.Add(op.MatMul(real, op.const(sine)), op.MatMul(imaginary, op.const(cosine))),
            axis=rank - 2,
        )
    return op.Transpose(out, perm=[order.index(i) for i in range(rank)])


def _real_signal(op: Builder, x: ir.Value, axis: int, length: int) -> ir.Value:
    """The inverse of a one-sided spectrum: every bin but the first and the middle one stands for two."""
    rank, _sizes = op.of(x)
    count = length // 2 + 1
    cosine, sine = _dft_matrix(length, count, True)
    twice = np.where((np.arange(count) == 0) | (2 * np.arange(count) == length), 1, 2)[:, None] / length
    order = [i for i in range(rank - 1) if i != axis] + [rank - 1, axis]
    y = op.Transpose(interval(op, x, axis, 0, count), perm=order)
    real, imaginary = interval(op, y, rank - 2, 0, 1), interval(op, y, rank - 2, 1, 2)
    kind = x.dtype.numpy()
    out = op.Sub(op.MatMul(real, op.const((cosine[:, :] * twice).astype(kind))), op.MatMul(imaginary, op.const((sine * twice).astype(kind))))
    return op.Transpose(out, perm=[order.index(i) for i in range(rank)])


@decompose("STFT")
def stft(op, signal, step: Int, window=None, frame_length: Int | None = None, *, onesided=1):
    """Frames as a constant gather, then one DFT."""
    _batch, samples, *parts = op.static(signal)
    length = frame_length or op.static(window)[0]
    frames = (samples - length) // step + 1
    index = np.arange(frames)[:, None] * step + np.arange(length)[None]
    x = op.Gather(signal if parts else op.Unsqueeze(signal, [2]), op.const(index.astype(np.int64)), axis=1)
    if window is not None:
        x = op.Mul(x, op.Reshape(window, [1, 1, length, 1]))
    return op.DFT(x, None, op.const(np.int64(2)), onesided=onesided)


@decompose("Col2Im")
def col2im(op, x, image_shape: Ints, block_shape: Ints, *, dilations=None, pads=None, strides=None):
    """Every column entry is added to its pixel: one ScatterND with constant positions."""
    n, rows, columns = op.static(x)
    rank = len(image_shape)
    dilations, strides, pads = dilations or [1] * rank, strides or [1] * rank, pads or [0] * 2 * rank
    padded = [size + begin + end for size, begin, end in zip(image_shape, pads[:rank], pads[rank:], strict=True)]
    counts = [(size - dilation * (block - 1) - 1) // stride + 1 for size, dilation, block, stride in zip(padded, dilations, block_shape, strides, strict=True)]
    inside = np.stack(np.meshgrid(*(np.arange(block) * dilation for block, dilation in zip(block_shape, dilations, strict=True)), indexing="ij"), -1).reshape(
        -1, rank
    )
    starts = np.stack(np.meshgrid(*(np.arange(count) * stride for count, stride in zip(counts, strides, strict=True)), indexing="ij"), -1).reshape(-1, rank)
    positions = inside[:, None] + starts[None]  # [block, columns, rank]
    channels = rows // len(inside)
    y = op.Transpose(op.Reshape(x, [n, channels, len(inside), columns]), perm=[2, 3, 0, 1])
    start = op.const(np.zeros((*padded, n, channels), np.float32))
    image = op.ScatterND(start, op.const(positions.astype(np.int64)), y, reduction="add")
    for axis in range(rank):
        image = interval(op, image, axis, pads[axis], pads[axis] + image_shape[axis])
    return op.Transpose(image, perm=[rank, rank + 1, *range(rank)])


# ---- training steps, which are plain arithmetic


def _groups(xs: tuple, per: int) -> list[tuple]:
    count = len(xs) // per
    return [tuple(xs[part * count + i] for part in range(per)) for i in range(count)]


def _in_groups(results: list[tuple]) -> list[Any]:
    return [value for part in zip(*results, strict=True) for value in part]


@decompose("ai.onnx.preview.training::Adagrad")
def adagrad(op, rate, step, *xs, decay_factor=0.0, epsilon=0.0, norm_coefficient=0.0):
    r = op.Div(rate, op.Add(op.Mul(op.Cast(step, to=1), decay_factor), 1.0))
    results = []
    for x, gradient, squares in _groups(xs, 3):
        gradient = op.Add(op.Mul(x, norm_coefficient), gradient)
        squares = op.Add(squares, op.Mul(gradient, gradient))
        results.append((op.Sub(x, op.Div(op.Mul(r, gradient), op.Add(op.Sqrt(squares), epsilon))), squares))
    return _in_groups(results)


@decompose("ai.onnx.preview.training::Adam")
def adam(op, rate, step, *xs, alpha=0.9, beta=0.999, epsilon=0.0, norm_coefficient=0.0, norm_coefficient_post=0.0):
    t = op.Cast(step, to=1)
    corrected = op.Div(
        op.Mul(rate, op.Sqrt(op.Sub(op.const(np.float32(1)), op.Pow(op.const(np.float32(beta)), t)))),
        op.Sub(op.const(np.float32(1)), op.Pow(op.const(np.float32(alpha)), t)),
    )
    rate = op.Where(op.Greater(step, np.int64(0)), corrected, rate)
    results = []
    for x, gradient, first, second in _groups(xs, 4):
        gradient = op.Add(op.Mul(x, norm_coefficient), gradient)
        first = op.Add(op.Mul(first, alpha), op.Mul(gradient, 1 - alpha))
        second = op.Add(op.Mul(second, beta), op.Mul(op.Mul(gradient, gradient), 1 - beta))
        new = op.Sub(x, op.Div(op.Mul(rate, first), op.Add(op.Sqrt(second), epsilon)))
        results.append((op.Mul(new, 1 - norm_coefficient_post), first, second))
    return _in_groups(results)


@decompose("ai.onnx.preview.training::Momentum")
def momentum(op, rate, step, *xs, alpha, beta, mode, norm_coefficient):
    factor = op.Where(op.Greater(step, np.int64(0)), op.const(np.float32(beta)), op.const(np.float32(1)))
    results = []
    for x, gradient, velocity in _groups(xs, 3):
        gradient = op.Add(op.Mul(x, norm_coefficient), gradient)
        velocity = op.Add(op.Mul(velocity, alpha), op.Mul(gradient, factor))
        step_by = velocity if mode == "standard" else op.Add(gradient, op.Mul(velocity, alpha))
        results.append((op.Sub(x, op.Mul(rate, step_by)), velocity))
    return _in_groups(results)
