"""TensorFlow Lite -> ONNX, operator by operator.

The steps before (`to_hub`) have brought the graph into the form these rules take: quantised tensors stand behind DEQUANTIZE and QUANTIZE, so that every
operator sees floats; variables, resources and tables are values. Windows, matrices, places, detection,
recurrent operators and control flow have files of their own; here is what works element by element.

What each operator computes: https://github.com/google-ai-edge/LiteRT, `tflite/kernels/internal/reference`.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Int
from isomorph.dialects.tflite.to_onnx.common import BOOL, FLOAT, INT32, INT64, activation, longs, narrow, to_onnx, wide

to_onnx.same({
    "ABS": "Abs", "FLOOR": "Floor", "CEIL": "Ceil", "ROUND": "Round", "NEG": "Neg", "SIN": "Sin", "COS": "Cos", "EXP": "Exp", "LOG": "Log", "SQRT": "Sqrt",
    "SIGN": "Sign", "POW": "Pow", "RELU": "Relu", "ELU": "Elu", "TANH": "Tanh", "LOGISTIC": "Sigmoid", "HARD_SWISH": "HardSwish", "PRELU": "PRelu",
    "LOGICAL_AND": "And", "LOGICAL_OR": "Or", "LOGICAL_NOT": "Not", "BITWISE_XOR": "BitwiseXor", "ADD_N": "Sum",
})


# ---- elementwise

def _arithmetic(target: str) -> Callable[..., Any]:
    def rule(op, x, y, *, fused_activation_function="NONE", pot_scale_int16=1):
        a, b = wide(op, x, y)
        return activation(op, narrow(op, op.make(target, (a, b), {}), x), fused_activation_function)
    return rule


def _widened(target: str, **attributes: Any) -> Callable[..., Any]:
    """An operator that ONNX Runtime does not compute on small integers."""
    def rule(op, *xs):
        return narrow(op, op.make(target, wide(op, *xs), attributes), xs[0])
    return rule


def _comparison(target: str, negated: bool = False) -> Callable[..., Any]:
    def rule(op, x, y):
        result = op.make(target, wide(op, x, y), {}, dtype=BOOL)
        return op.Not(result) if negated else result
    return rule


for _name, _target in {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}.items():
    to_onnx(_name)(_arithmetic(_target))
for _name, _target in {"MAXIMUM": "Max", "MINIMUM": "Min", "STABLEHLO_ADD": "Add", "STABLEHLO_MULTIPLY": "Mul", "STABLEHLO_MAXIMUM": "Max",
                       "STABLEHLO_MINIMUM": "Min"}.items():
    to_onnx(_name)(_widened(_target))
for _name, _target in {"EQUAL": "Equal", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual", "LESS": "Less", "LESS_EQUAL": "LessOrEqual"}.items():
    to_onnx(_name)(_comparison(_target))
to_onnx("NOT_EQUAL")(_comparison("Equal", negated=True))


@to_onnx("RELU6")
def relu6(op, x):
    return activation(op, x, "RELU6")


@to_onnx("RELU_N1_TO_1")
def relu_n1_to_1(op, x):
    return activation(op, x, "RELU_N1_TO_1")


@to_onnx("RELU_0_TO_1")
def relu_0_to_1(op, x):
    return op.Clip(x, 0.0, 1.0)


@to_onnx("LEAKY_RELU")
def leaky_relu(op, x, *, alpha=0.0):
    return op.LeakyRelu(x, alpha=alpha)


@to_onnx("GELU")
def gelu(op, x, *, approximate=0):
    return op.Gelu(x, approximate="tanh" if approximate else "none")


@to_onnx("RSQRT")
def rsqrt(op, x):
    return op.Reciprocal(op.Sqrt(x))


@to_onnx("SQUARE")
def square(op, x):
    return op.Mul(x, x)


@to_onnx("SQUARED_DIFFERENCE")
def squared_difference(op, x, y):
    difference = op.Sub(x, y)
    return op.Mul(difference, difference)


@to_onnx("FLOOR_DIV")
def floor_div(op, x, y):
    """Rounds towards minus infinity; ONNX divides integers towards zero."""
    a, b = wide(op, x, y)
    if a.dtype == FLOAT:
        return op.Floor(op.Div(a, b))
    return narrow(op, op.Div(op.Sub(a, op.Mod(a, b)), b), x)


@to_onnx("FLOOR_MOD")
def floor_mod(op, x, y):
    """The sign of the divisor, for floats as well, where ONNX offers only that of the dividend."""
    if x.dtype != FLOAT:
        return op.Mod(x, y)
    remainder = op.Mod(x, y, fmod=1)
    wrong = op.And(op.Not(op.Equal(remainder, 0.0)), op.Not(op.Equal(op.Less(remainder, 0.0), op.Less(y, 0.0))))
    return op.Where(wrong, op.Add(remainder, y), remainder)


@to_onnx("ATAN2")
def atan2(op, y, x):
    """atan(y / x), moved by pi where x is negative; the axes and zero stand apart."""
    angle = op.Atan(op.Div(y, x))
    turn = op.Where(op.Less(y, 0.0), op.const(np.asarray(-math.pi, y.dtype.numpy())), op.const(np.asarray(math.pi, y.dtype.numpy())))
    turned = op.Where(op.Less(x, 0.0), op.Add(angle, turn), angle)
    nothing = op.And(op.Equal(x, 0.0), op.Equal(y, 0.0))
    return op.Where(nothing, op.Mul(y, 0.0), turned)


@to_onnx("RIGHT_SHIFT")
def right_shift(op, x, y):
    """An arithmetic shift: division by a power of two, rounded down. ONNX shifts unsigned integers only."""
    if x.dtype.name.startswith("U"):
        a, b = wide(op, x, y, types=(ir.DataType.UINT16,), to=ir.DataType.UINT32)
        return narrow(op, op.BitShift(a, b, direction="RIGHT"), x)
    a, b = (op.Cast(value, to=INT64) for value in (x, y))
    power = op.Cast(op.BitShift(op.const(np.uint64(1)), op.Cast(b, to=ir.DataType.UINT64), direction="LEFT"), to=INT64)
    return op.Cast(op.Div(op.Sub(a, op.Mod(a, power)), power), to=x.dtype)


@to_onnx("SELECT")
def select(op, condition, x, y):
    """A vector condition chooses whole rows."""
    rank, _ = op.of(x)
    if condition.shape is not None and condition.shape.rank() == 1 and rank > 1:
        condition = op.Unsqueeze(condition, list(range(1, rank)))
    return select_v2(op, condition, x, y)


@to_onnx("SELECT_V2")
def select_v2(op, condition, x, y):
    """In the next wider type where ONNX Runtime has no kernel for that of the values."""
    a, b = wide(op, x, y, types=CHOSEN_AS, to=CHOSEN_AS.get(x.dtype, x.dtype))
    return narrow(op, op.Where(condition, a, b), x)


CHOSEN_AS = {ir.DataType.INT16: INT32, ir.DataType.UINT16: INT32, ir.DataType.UINT64: INT64, ir.DataType.BOOL: ir.DataType.UINT8}


@to_onnx("CAST")
def cast(op, x, **types):
    """Its options repeat the types of its tensors."""
    return op.Cast(x, to=op.outputs[0].dtype)


@to_onnx("BITCAST")
def bitcast(op, x):
    """Elements of another size take, or make, a last dimension."""
    target = op.outputs[0].dtype
    if x.dtype.itemsize != target.itemsize:
        return op.reject("a change of the element size has no equivalent")
    return op.Cast(x, to=target) if x.dtype == ir.DataType.BOOL else op.BitCast(x, to=target)   # a bool is a byte of 0 or 1; ONNX Runtime casts those only


@to_onnx("CUMSUM")
def cumsum(op, x, axis, *, exclusive=0, reverse=0):
    return op.CumSum(x, longs(op, axis), exclusive=exclusive, reverse=reverse)


@to_onnx("BUCKETIZE")
def bucketize(op, x, *, boundaries=()):
    """How many boundaries are at or below x."""
    if not boundaries:
        return op.ConstantOfShape(op.Shape(x), value=np.zeros(1, np.int32))
    values = op.Unsqueeze(op.Cast(x, to=FLOAT), [-1])
    reached = op.Cast(op.GreaterOrEqual(values, op.const(np.asarray(boundaries, np.float32))), to=INT32)
    return op.ReduceSum(reached, [-1], keepdims=0)


# ---- quantisation

@to_onnx("DEQUANTIZE")
def dequantize(op, x):
    """float16 only changes its type; integers get their scale from the tensor."""
    if x.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) or not x.meta.keys() & {"quantization", "blockwise"}:
        return op.Cast(x, to=FLOAT)
    if "blockwise" in x.meta:
        scales, zeros, block = x.meta["blockwise"]
        return op.DequantizeLinear(x, op.Cast(scales, to=FLOAT) if scales.dtype != FLOAT else scales, zeros, axis=x.shape.rank() - 1, block_size=block)
    return op.DequantizeLinear(x, *_scale_of(op, x, x.meta["quantization"]), axis=_axis(x.meta["quantization"]))


@to_onnx("QUANTIZE")
def quantize(op, x):
    """The scale stands on the output."""
    target = op.outputs[0]
    if "quantization" not in target.meta:
        return op.reject("its output has no scale")
    return op.QuantizeLinear(x, *_scale_of(op, target, target.meta["quantization"]), axis=_axis(target.meta["quantization"]))


def _axis(quantization: Any) -> int | None:
    return quantization.axis if quantization.per_axis else None


def _scale_of(op: Builder, value: ir.Value, quantization: Any) -> list[ir.Value]:
    """Scale and zero point as inputs of QuantizeLinear and DequantizeLinear; int32 has no zero point there."""
    scale = op.const(np.asarray(quantization.scale, np.float32))
    if value.dtype == INT32:
        return [scale]
    return [scale, op.const(np.asarray(quantization.zero_point).astype(value.dtype.numpy()))]


@to_onnx("DENSIFY")
def densify(op, x):
    """The reader has made it dense."""
    return x


@to_onnx("FAKE_QUANT")
def fake_quant(op, x, *, min, max, num_bits, narrow_range=0):
    """Rounds to the values of an integer type whose range is nudged so that zero is one of them."""
    low, high = float(narrow_range), float(2 ** num_bits - 1)
    scale = (max - min) / (high - low)
    zero = np.clip(np.floor(low - min / scale + 0.5), low, high)
    least, most = np.float32((low - zero) * scale), np.float32((high - zero) * scale)
    steps = op.Floor(op.Add(op.Mul(op.Sub(op.Clip(x, float(least), float(most)), float(least)), float(1 / scale)), 0.5))
    return op.Add(op.Mul(steps, float(scale)), float(least))


# ---- random numbers: the same distribution, never the same numbers

@to_onnx("RANDOM_UNIFORM")
def random_uniform(op, shape, *, seed=0, seed2=0):
    op.lose("values.random", "random numbers of the same distribution, but other ones")
    return op.RandomUniformLike(op.ConstantOfShape(longs(op, shape)), low=0.0, high=1.0, seed=float(seed) or None)


@to_onnx("RANDOM_STANDARD_NORMAL")
def random_standard_normal(op, shape, *, seed=0, seed2=0):
    op.lose("values.random", "random numbers of the same distribution, but other ones")
    return op.RandomNormalLike(op.ConstantOfShape(longs(op, shape)), seed=float(seed) or None)


@to_onnx("MULTINOMIAL")
def multinomial(op, logits, count: Int, *, seed=0, seed2=0):
    op.lose("values.random", "random numbers of the same distribution, but other ones")
    return op.Cast(op.Multinomial(logits, sample_size=count, dtype=INT32, seed=float(seed) or None), to=op.outputs[0].dtype)


@to_onnx("ROUND_INPUT")
def round_input(op, x, *, asymmetric=0):
    """x as the hybrid kernels see it (`tensor_utils::SymmetricQuantizeFloats`, `AsymmetricQuantizeFloats`): 8 bits over the range of each batch."""
    axes = list(range(1, len(x.shape)))
    low, high = op.ReduceMin(x, axes, keepdims=1), op.ReduceMax(x, axes, keepdims=1)
    if asymmetric:
        low, high = op.Min(low, 0.0), op.Max(high, 0.0)
        scale = op.Div(op.Sub(high, low), 255.0)
    else:
        scale = op.Div(op.Max(op.Abs(low), op.Abs(high)), 127.0)
    scale = op.Where(op.Equal(scale, 0.0), op.const(np.float32(1)), scale)
    zero = op.Round(op.Sub(op.const(np.float32(-128)), op.Div(low, scale))) if asymmetric else op.const(np.float32(0))
    stored = op.Min(op.Max(op.Round(op.Add(op.Div(x, scale), zero)), -128.0 if asymmetric else -127.0), 127.0)
    return op.Mul(op.Sub(stored, zero), scale)
