"""ONNX -> the forms of ONNX that TensorFlow Lite's kernels have: two-dimensional windows with VALID or SAME padding, reductions of the last axis,
scatters that add, loops that are While. A rule returns NotImplemented for a node that is in its form already.

Operators that ONNX has no name for: FullyConnected, TopKLast, AddScattered, NonMaxSuppressionOne, ReverseAxis, While, Unique1D, Rsqrt.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Float, Int, constant
from isomorph.dialects.tflite.from_onnx.operators import is_weight
from isomorph.dialects.tflite.from_onnx.quantized import WIDE, parameters
from isomorph.dialects.tflite.from_onnx.rules import FLOATS, is_float, legalize
from isomorph.passes.decompose import interval, shape_of
from isomorph.passes.fuse import made_by
from isomorph.passes.tidy import scalar
from isomorph.tensors import lazily

# ---- reductions and orders along the last axis


@legalize("ArgMax", "ArgMin")
def arg_extreme(op, x, *, axis=0, keepdims=1, select_last_index=0):
    rank, _sizes = op.of(x)
    axis %= rank
    kind = getattr(op, op.node.op_type)
    if select_last_index:
        size = op.Squeeze(shape_of(op, x, axis), [0])
        y = op.Sub(op.Sub(size, np.int64(1)), kind(op.ReverseAxis(x, axis=axis, _dtype=x.dtype, _shape=x.shape), axis=axis, keepdims=0))
        return op.Unsqueeze(y, [axis]) if keepdims else y
    return op.Unsqueeze(kind(x, axis=axis, keepdims=0), [axis]) if keepdims else NotImplemented


@legalize("TopK")
def top_k(op, x, k, *, axis=-1, largest=1, sorted=1):
    rank, sizes = op.of(x)
    axis %= rank
    order = [i for i in range(rank) if i != axis] + [axis]
    y = x if axis == rank - 1 else op.Transpose(x, perm=order)
    y = y if largest else op.Neg(y)
    count = constant(k)
    k32 = op.const(np.asarray(count.reshape(()), np.int32)) if count is not None else op.Cast(op.Squeeze(k, [0]), to=6)
    shape = [*(sizes[i] for i in order[:-1]), None if count is None else int(count.reshape(-1)[0])]
    values, indices = op.TopKLast(y, k32, _outputs=2, _dtype=x.dtype, _shape=shape)
    indices.dtype = ir.DataType.INT32
    values, indices = values if largest else op.Neg(values), op.Cast(indices, to=7)
    back = [order.index(i) for i in range(rank)]
    return (values, indices) if axis == rank - 1 else (op.Transpose(values, perm=back), op.Transpose(indices, perm=back))


@legalize("CumProd")
def cumprod(op, x, axis: Int, *, exclusive=0, reverse=0):
    """One product a position, for short axes."""
    size = op.static(x)[axis]
    rank = len(op.static(x))
    axis %= rank
    parts = [interval(op, x, axis, i, i + 1) for i in range(size)]
    parts = parts[::-1] if reverse else parts
    total, results = None, []
    for part in parts:
        if exclusive:
            results.append(total if total is not None else op.const(np.ones([1 if i == axis else s for i, s in enumerate(op.static(x))], x.dtype.numpy())))
        total = part if total is None else op.Mul(total, part)
        if not exclusive:
            results.append(total)
    return op.Concat(*(results[::-1] if reverse else results), axis=axis)


# ---- matrices


@legalize("Gemm")
def gemm(op, a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    """A constant weight with a bias vector is a fully connected layer."""
    weight, bias = is_weight(b), c is None or (is_weight(c) and len(op.static(c)) == 1)
    outputs = op.static(b)[0 if transB else 1]
    if weight and bias and alpha == beta == 1 and (b.producer() is not None or (c is not None and c.producer() is not None)):
        a = op.Transpose(a, perm=[1, 0]) if transA else a  # stored in fewer bits: taken as they are
        return op.FullyConnected(a, b, c, transB=transB, _dtype=a.dtype, _shape=[op.of(a)[1][0], outputs])
    weight, bias = constant(b) is not None, c is None or constant(c) is not None
    if not weight or not bias or a.dtype != ir.DataType.FLOAT or (c is not None and constant(c).size not in (1, outputs)):
        return _plain_gemm(op, a, b, c, alpha, beta, transA, transB)
    a = op.Transpose(a, perm=[1, 0]) if transA else a
    w = b if alpha == 1.0 else op.const(lazily(lambda array: (array * np.float32(alpha)).astype(array.dtype), b.const_value), name=b.name)
    bias_value = None if c is None else op.const(np.broadcast_to(constant(c).reshape(-1) * np.float32(beta), (outputs,)).copy(), name=c.name)
    return op.FullyConnected(a, w, bias_value, transB=transB, _dtype=a.dtype, _shape=[op.of(a)[1][0], outputs])


def _plain_gemm(op: Builder, a: ir.Value, b: ir.Value, c: ir.Value | None, alpha: float, beta: float, transA: int, transB: int) -> ir.Value:
    from isomorph.passes.decompose import gemm as plain

    return plain(op, a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@legalize("Add")
def add(op, a, b):
    """A vector behind a product with a constant matrix is the bias of a fully connected layer."""
    for x, other in ((a, b), (b, a)):
        product = made_by(x, "MatMul")
        if product is None or not is_float(x) or constant(other) is None or not product.inputs[1].is_initializer():
            continue
        weight, rank = product.inputs[1], op.of(product.inputs[0])[0]
        if weight.shape is not None and len(weight.shape) == 2 and rank >= 2 and op.static(other) == [op.static(weight)[1]]:
            return op.FullyConnected(product.inputs[0], weight, other, transB=0, _dtype=x.dtype, _shape=x.shape)
    return NotImplemented


@legalize("MatMul")
def matmul(op, a, b):
    """Vectors become matrices with one row or column."""
    (rank_a, _), (rank_b, _) = op.of(a), op.of(b)
    if rank_a > 1 and rank_b > 1:
        if rank_b > rank_a and rank_a == 2 and rank_b > 2:
            return op.MatMul(op.Unsqueeze(a, list(range(rank_b - rank_a))), b)
        return NotImplemented
    y = op.MatMul(op.Unsqueeze(a, [0]) if rank_a == 1 else a, op.Unsqueeze(b, [1]) if rank_b == 1 else b)
    rank = op.of(y)[0]
    return op.Squeeze(y, [rank - 2 + i for i, one in enumerate((rank_a == 1, rank_b == 1)) if one])


# ---- the rest


# What exporters write as powers, without a logarithm.
POWERS: dict[float | None, Any] = {
    2.0: lambda op, x: op.Mul(x, x),
    0.5: lambda op, x: op.Sqrt(x),
    3.0: lambda op, x: op.Mul(op.Mul(x, x), x),
    1.0: lambda op, x: op.Identity(x),
    -1.0: lambda op, x: op.Div(op.const(np.float32(1)), x),
}


@legalize("Pow")
def power(op, a, b):
    """Both operands have one type in the kernel; ONNX keeps the type of the base."""
    if ir.DataType.INT64 in (a.dtype, b.dtype) and a.dtype not in FLOATS:
        op.lose("values.narrowed", "Pow computes in INT32 instead of INT64")
        return op.Cast(op.Pow(*(op.Cast(x, to=6) for x in (a, b))), to=int(a.dtype))
    exponent = scalar(b)
    if is_float(a) and exponent in POWERS:
        return POWERS[exponent](op, a)
    if a.dtype == b.dtype:
        return NotImplemented
    if is_float(a) or b.dtype not in FLOATS:
        return op.Pow(a, op.Cast(b, to=int(a.dtype)))
    return op.Cast(op.Pow(op.Cast(a, to=1), b if is_float(b) else op.Cast(b, to=1)), to=int(a.dtype))


@legalize("ReduceMax", "ReduceMin")
def reduce_truth(op, x, axes=None, *, keepdims=1, noop_with_empty_axes=0):
    """Any and all; an empty reduction gives false and true."""
    if x.dtype != ir.DataType.BOOL:
        return NotImplemented
    y = getattr(op, op.node.op_type)(op.Cast(x, to=6), axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)
    return op.Greater(y, op.const(np.int32(0)))


def _random(op: Builder, sizes: ir.Value, kind: ir.DataType, name: str, scale: float, offset: float, seed: float | None) -> ir.Value:
    """A generator of its own: other numbers than any other runtime draws, from the same distribution."""
    op.lose("values.random", "random numbers differ from those of other runtimes")
    y = op.make(name, [sizes], {"seed": int(seed or 0)}, dtype=1, shape=op.outputs[0].shape)
    y = op.Add(op.Mul(y, float(scale)), float(offset))
    return y if kind == ir.DataType.FLOAT else op.Cast(y, to=int(kind))


@legalize("RandomUniform", "RandomUniformLike")
def random_uniform(op, x=None, *, dtype=None, high=1.0, low=0.0, seed=None, shape=None):
    sizes = op.const(list(shape)) if x is None else shape_of(op, x)
    return _random(op, sizes, ir.DataType(dtype) if dtype else x.dtype if x is not None else ir.DataType.FLOAT, "DrawUniform", high - low, low, seed)


@legalize("RandomNormal", "RandomNormalLike")
def random_normal(op, x=None, *, dtype=None, mean=0.0, scale=1.0, seed=None, shape=None):
    sizes = op.const(list(shape)) if x is None else shape_of(op, x)
    return _random(op, sizes, ir.DataType(dtype) if dtype else x.dtype if x is not None else ir.DataType.FLOAT, "DrawNormal", scale, mean, seed)


@legalize("OptionalHasElement")
def optional_has_element(op, x=None):
    """A tensor is always there."""
    return op.const(np.bool_(x is not None))


@legalize("OptionalGetElement")
def optional_get_element(op, x):
    return op.Identity(x)


@legalize("ai.onnx.ml::Binarizer")
def binarizer(op, x, *, threshold=0.0):
    return op.Cast(op.Greater(x, op.const(threshold, like=x.dtype)), to=int(x.dtype))


@legalize("ai.onnx.ml::ArrayFeatureExtractor")
def array_feature_extractor(op, x, positions):
    rank, _sizes = op.of(x)
    y = op.Gather(x, op.Reshape(positions, [-1]), axis=rank - 1)
    return y if rank > 1 else op.Reshape(y, [1, -1])


@legalize("Sign")
def sign(op, x):
    if x.dtype == ir.DataType.INT64:
        zero, one = op.const(np.int64(0)), op.const(np.int64(1))
        return op.Where(op.Greater(x, zero), one, op.Where(op.Less(x, zero), op.const(np.int64(-1)), zero))
    return NotImplemented


@legalize("Asin")
def asin(op, x):
    return op.Atan2(x, op.Sqrt(op.Sub(op.const(1.0, like=x.dtype), op.Mul(x, x))), _dtype=x.dtype, _shape=x.shape)


@legalize("Acos")
def acos(op, x):
    return op.Atan2(op.Sqrt(op.Sub(op.const(1.0, like=x.dtype), op.Mul(x, x))), x, _dtype=x.dtype, _shape=x.shape)


@legalize("Atan")
def atan(op, x):
    """The kernel does not broadcast: the ones have the shape of x."""
    return op.Atan2(x, op.Add(op.Mul(x, 0.0), 1.0), _dtype=x.dtype, _shape=x.shape)


@legalize("BitwiseNot")
def bitwise_not(op, x):
    """-1 - x in two's complement, greatest - x without a sign; neither leaves the type's range."""
    info = np.iinfo(x.dtype.numpy())
    return op.Sub(op.const(np.asarray(-1 if info.min else info.max, x.dtype.numpy())), x)


@legalize("BitwiseAnd")
def bitwise_and(op, a, b):
    """The kernel does not broadcast."""
    out = op.outputs[0].shape
    if out is None or a.shape == b.shape:
        return NotImplemented
    wide = [x if x.shape == out else op.Expand(x, op.const(op.static(op.outputs[0]))) for x in (a, b)]
    return op.BitwiseAnd(*wide)


@legalize("Range")
def range_of(op, *bounds):
    """Scalars; function bodies hand in vectors of one element."""
    if all(op.of(bound)[0] == 0 for bound in bounds):
        return NotImplemented
    return op.Range(*(op.Reshape(bound, op.const(np.zeros(0, np.int64))) if op.of(bound)[0] else bound for bound in bounds))


@legalize("BitwiseOr")
def bitwise_or(op, a, b):
    """a + b counts the common bits twice."""
    return op.Sub(op.Add(a, b), op.BitwiseAnd(a, b))


@legalize("BitwiseXor")
def bitwise_xor(op, a, b):
    """The kernel has no 64-bit form: a + b less twice the common bits."""
    if a.dtype not in (ir.DataType.INT64, ir.DataType.UINT64):
        return NotImplemented
    both = op.BitwiseAnd(a, b)
    return op.Sub(op.Sub(op.Add(a, b), both), both)


@legalize("BitShift")
def bit_shift(op, x, y, *, direction):
    """Beyond the width of the type nothing is left but the sign. Left: a product with a power of two, which wraps in 64 bits."""
    width = x.dtype.itemsize * 8 if hasattr(x.dtype, "itemsize") else 64
    if direction == "RIGHT":
        return NotImplemented
    power = op.Cast(op.Pow(op.const(np.float32(2)), op.Cast(op.Min(y, op.const(width - 1, like=y.dtype)), to=1)), to=7)
    shifted = op.Cast(op.Mul(op.Cast(x, to=7), power), to=int(x.dtype))
    return op.Where(op.Less(y, op.const(width, like=y.dtype)), shifted, op.const(0, like=x.dtype))


@legalize("Dropout")
def dropout(op, x, ratio=None, training_mode=None, **seed):
    """Nothing at inference; the mask is all true."""
    if training_mode is not None and constant(training_mode) is not None and bool(constant(training_mode)):
        if ratio is not None and constant(ratio) is not None and float(constant(ratio)) == 0.0:
            return op.Identity(x), op.Expand(op.const(np.bool_(True)), shape_of(op, x))
        op.reject("dropout in training is random")
    if training_mode is not None and constant(training_mode) is None:
        op.reject("dropout whose training mode is decided at run time")
    return (op.Identity(x), op.Expand(op.const(np.bool_(True)), shape_of(op, x))) if len(op.outputs) > 1 else op.Identity(x)


@legalize("TensorScatter")
def tensor_scatter(op, past, update, write_indices=None, *, axis=-2, mode="linear"):
    """Writes `update` into each batch row of `past` from its own position on."""
    sizes, new = op.static(past), op.static(update)
    axis %= len(sizes)
    batch, steps = new[0], new[axis]
    start = op.Reshape(write_indices, [batch, 1]) if write_indices is not None else op.const(np.zeros((batch, 1), np.int64))
    where = op.Add(start, op.const(np.arange(steps)[None]))
    where = op.Mod(where, op.const(np.int64(sizes[axis]))) if mode == "circular" else where
    order = [0, axis, *(i for i in range(1, len(sizes)) if i != axis)]
    rows = op.const(np.broadcast_to(np.arange(batch)[:, None, None], (batch, steps, 1)).astype(np.int64).copy())
    y = op.ScatterND(op.Transpose(past, perm=order), op.Concat(rows, op.Unsqueeze(where, [2]), axis=2), op.Transpose(update, perm=order))
    return op.Transpose(y, perm=[order.index(i) for i in range(len(sizes))])


@legalize("NonMaxSuppression")
def non_max_suppression(op, boxes, scores, count: Int | None = None, iou: Float | None = None, threshold: Float | None = None, *, center_point_box=0):
    """One single-class suppression for each batch and class; rows (batch, class, box) in that order. ONNX keeps a box whose overlap equals
    the threshold, the kernel does not: the threshold is the next larger number."""
    batches, classes, total = op.static(scores)
    limit = min(count or 0, total)
    if center_point_box:
        x, y, w, h = (interval(op, boxes, 2, i, i + 1) for i in range(4))
        boxes = op.Concat(op.Sub(y, op.Div(h, 2.0)), op.Sub(x, op.Div(w, 2.0)), op.Add(y, op.Div(h, 2.0)), op.Add(x, op.Div(w, 2.0)), axis=2)
    rows = []
    for b in range(batches if limit else 0):
        these = op.Squeeze(interval(op, boxes, 0, b, b + 1), [0])
        for c in range(classes):
            line = op.Squeeze(interval(op, interval(op, scores, 0, b, b + 1), 1, c, c + 1), [0, 1])
            positions, valid = op.NonMaxSuppressionOne(
                these,
                line,
                op.const(np.int32(limit)),
                op.const(np.nextafter(np.float32(iou or 0.0), np.float32(2))),
                op.const(np.float32(-3e38 if threshold is None else threshold)),
                _outputs=2,
                _dtype=6,
                _shape=[limit],
            )
            valid.shape = ir.Shape([])
            chosen = op.Slice(op.Cast(positions, to=7), op.const([0]), op.Unsqueeze(op.Cast(valid, to=7), [0]), op.const([0]))
            column = op.Unsqueeze(chosen, [1])
            rows.append(op.Concat(op.Add(op.Mul(column, np.int64(0)), np.int64(b)), op.Add(op.Mul(column, np.int64(0)), np.int64(c)), column, axis=1))
    if not rows:
        return op.const(np.zeros((0, 3), np.int64))
    return op.Concat(*rows, axis=0) if len(rows) > 1 else rows[0]


# ---- operators whose kernels cover part of what ONNX allows


def _by_decomposition(name: str, kernel_has: Any) -> None:
    from isomorph.passes.decompose import decompose

    rule = decompose.rules["", name].function

    def choose(op, *inputs, **attributes):
        return NotImplemented if kernel_has(op, *inputs, **attributes) else rule(op, *inputs, **attributes)

    legalize(name)(choose)


def _channel_slope(op: Builder, x: ir.Value, slope: ir.Value) -> bool:
    """PRELU's slope has the rank of x less one: what broadcasts over the batch."""
    array, rank = constant(slope), op.of(x)[0]
    return is_float(x) and array is not None and 1 < rank <= 4 and (array.ndim < rank or array.shape[0] == 1)


_by_decomposition("Elu", lambda op, x, alpha=1.0: alpha == 1.0)
_by_decomposition("Mod", lambda op, a, b, fmod=0: not fmod)
_by_decomposition("Max", lambda op, *xs: len(xs) == 2)
_by_decomposition("Min", lambda op, *xs: len(xs) == 2)
_by_decomposition("PRelu", _channel_slope)
_by_decomposition("DepthToSpace", lambda op, x, blocksize, mode="DCR": mode == "DCR" and op.of(x)[0] == 4)


@legalize("Clip")
def clip(op, x, low=None, high=None):
    """The ranges that kernels have as activations."""
    bounds = tuple(None if bound is None else (float(array.reshape(-1)[0]) if (array := constant(bound)) is not None else math.nan) for bound in (low, high))
    if is_float(x) and bounds == (0.0, None):
        return op.Relu(x)
    if is_float(x) and bounds == (0.0, 6.0):
        return op.Relu6(x, _dtype=x.dtype, _shape=x.shape)
    if is_float(x) and bounds == (0.0, 1.0):
        return op.Min(op.Relu(x), 1.0)  # XNNPACK does not take RELU_0_TO_1 (LiteRT 2.3.0)
    from isomorph.passes.decompose import clip as plain

    return plain(op, x, low, high)


@legalize("HardSigmoid")
def hard_sigmoid(op, x, *, alpha=0.2, beta=0.5):
    """As six times itself in the range of RELU6, which a layer in front does on its own, where the last factor moves into what follows."""
    if is_float(x):
        return op.Mul(op.Relu6(op.Add(op.Mul(x, 6 * alpha), 6 * beta), _dtype=x.dtype, _shape=x.shape), 1 / 6)
    return op.Clip(op.Add(op.Mul(x, alpha), beta), 0.0, 1.0)


@legalize("Div")
def divide(op, a, b):
    """By a square root: one kernel that runtimes have for it."""
    root = made_by(b, "Sqrt")
    if root is not None and is_float(a):
        return op.Mul(a, op.Rsqrt(root.inputs[0], _dtype=a.dtype, _shape=b.shape))
    return NotImplemented


@legalize("Softmax", "LogSoftmax")
def softmax(op, x, *, axis=-1):
    """The kernel knows the last axis. A middle axis of a picture is left to the layout pass, which may make it the last."""
    rank, _ = op.of(x)
    if rank == 0:
        return op.Reshape(getattr(op, op.node.op_type)(op.Reshape(x, [1]), axis=-1), op.const(np.zeros(0, np.int64)))
    if axis % rank == rank - 1 or (rank in (3, 4, 5) and axis % rank == 1):
        return NotImplemented
    return last_axis_softmax(op, x, axis=axis)


def last_axis_softmax(op, x, *, axis=-1):
    rank, _ = op.of(x)
    axis %= rank
    if axis == rank - 1:
        return NotImplemented
    order = [i if i not in (axis, rank - 1) else axis + rank - 1 - i for i in range(rank)]
    return op.Transpose(getattr(op, op.node.op_type)(op.Transpose(x, perm=order), axis=-1), perm=order)


# ---- quantisation that no kernel has is arithmetic


@legalize("DequantizeLinear")
def dequantize(op, x, scale, zero=None, *, axis=1, block_size=0, output_dtype=0):
    found = parameters(op.node)
    if (
        found is not None
        and scale.dtype == ir.DataType.FLOAT
        and (
            (x.dtype in WIDE and not found.per_axis and (x.dtype != ir.DataType.INT16 or not found.zero_point.any()))
            or (x.is_initializer() and x.dtype in STORED)
        )
    ):
        return NotImplemented
    y = op.Cast(x, to=int(scale.dtype))
    scale, zero = (None if v is None else _spread(op, v, x, axis, block_size) for v in (scale, zero))
    y = op.Mul(y if zero is None else op.Sub(y, op.Cast(zero, to=int(scale.dtype))), scale)
    return op.Cast(y, to=int(op.outputs[0].dtype)) if op.outputs[0].dtype not in (None, y.dtype) else y


@legalize("QuantizeLinear")
def quantize(op, x, scale, zero=None, *, axis=1, block_size=0, saturate=1, output_dtype=0, precision=0):
    """round half to even, shift, saturate."""
    found = parameters(op.node)
    kind = zero.dtype if zero is not None else ir.DataType(output_dtype or 2)
    if found is not None and not found.per_axis and kind in WIDE and x.dtype == ir.DataType.FLOAT and (kind != ir.DataType.INT16 or not found.zero_point.any()):
        return NotImplemented
    if kind not in WIDE | {ir.DataType.UINT16, ir.DataType.INT32}:
        op.reject(f"quantisation to {kind.name}")
    info = np.iinfo(kind.numpy())
    scale, zero = (None if v is None else _spread(op, v, x, axis, block_size) for v in (scale, zero))
    y = op.Round(op.Div(x, op.Cast(scale, to=int(x.dtype)) if scale.dtype != x.dtype else scale))
    y = y if zero is None else op.Add(y, op.Cast(zero, to=int(x.dtype)))
    return op.Cast(op.Min(op.Max(y, float(info.min)), float(info.max)), to=int(kind))


STORED = WIDE | {ir.DataType.INT32, ir.DataType.INT4}


def _spread(op: Builder, vector: ir.Value, x: ir.Value, axis: int, block: int) -> ir.Value:
    """Parameters along an axis in the shape that broadcasts; blocks repeat each one."""
    rank, _sizes = op.of(x)
    if block:
        count = op.static(vector)[axis % rank]
        index = np.repeat(np.arange(count), block)[: op.static(x)[axis % rank]]
        return op.Gather(vector, op.const(index.astype(np.int64)), axis=axis % rank)
    if op.of(vector)[0] == 1 and op.of(vector)[1] != [1] and rank > 1:
        return op.Reshape(vector, [-1 if i == axis % rank else 1 for i in range(rank)])
    return op.Reshape(vector, op.const(np.zeros(0, np.int64))) if op.of(vector)[0] == 1 and op.of(vector)[1] == [1] else vector
