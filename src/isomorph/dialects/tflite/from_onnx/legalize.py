"""ONNX -> the forms of ONNX that TensorFlow Lite's kernels have: what `dialects/_forms` shares with other targets, and here what only its kernels want.
A rule returns NotImplemented for a node that is in its form already.

Operators that ONNX has no name for: FullyConnected, Unique1D, Rsqrt, Relu6, and those of `_forms`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._forms.common import FLOATS, plain_dequantize, plain_quantize
from isomorph.dialects._lower import Builder, Int, Mapping, constant
from isomorph.dialects.tflite.from_onnx.operators import is_weight
from isomorph.dialects.tflite.from_onnx.quantized import WIDE, parameters
from isomorph.model import Quantization
from isomorph.passes.decompose import decompose, interval
from isomorph.passes.fuse import made_by
from isomorph.passes.tidy import scalar
from isomorph.tensors import lazily

legalize = Mapping()


def is_float(value: ir.Value) -> bool:
    """Whether a value has the one real type that all kernels know."""
    return value.dtype == ir.DataType.FLOAT


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


# ---- operators whose kernels cover part of what ONNX allows


def _by_decomposition(name: str, kernel_has: Any) -> None:
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


# ---- quantisation that no kernel has is arithmetic


@legalize("DequantizeLinear")
def dequantize(op, x, scale, zero=None, **attributes):
    found = parameters(op.node)
    whole = found is not None and scale.dtype == ir.DataType.FLOAT
    if whole and (_is_plain(found, x.dtype) or (x.is_initializer() and x.dtype in STORED)):
        return NotImplemented
    return plain_dequantize(op, x, scale, zero, **attributes)


@legalize("QuantizeLinear")
def quantize(op, x, scale, zero=None, **attributes):
    found = parameters(op.node)
    kind = zero.dtype if zero is not None else ir.DataType(attributes.get("output_dtype") or 2)
    if found is not None and _is_plain(found, kind) and x.dtype == ir.DataType.FLOAT:
        return NotImplemented
    return plain_quantize(op, x, scale, zero, **attributes)


def _is_plain(found: Quantization, kind: ir.DataType) -> bool:
    """One scale for the whole tensor; 16 bits know no zero point."""
    return kind in WIDE and not found.per_axis and (kind != ir.DataType.INT16 or not found.zero_point.any())


STORED = WIDE | {ir.DataType.INT32, ir.DataType.INT4}
