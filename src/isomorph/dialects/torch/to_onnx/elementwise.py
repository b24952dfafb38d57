"""aten -> ONNX: functions of one element, and of two or three."""
from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import (
    BOOL,
    INT64,
    INTEGERS,
    KEEP_INTEGERS,
    SAME,
    UNARY,
    D,
    as_type,
    cast,
    floating,
    is_float,
    promoted,
    rank,
    to_onnx,
)

for _name, _target in UNARY.items():
    def _unary(op, x, *, _target=_target, _keep=_name in KEEP_INTEGERS):
        if not is_float(x) and (_target in ("Floor", "Ceil") or (x.dtype == BOOL and _target == "Sign")):
            return x
        return op.make(_target, [x if _keep and x.dtype != BOOL else floating(op, x)], {})
    to_onnx(_name)(_unary)


for _name in SAME:
    def _same(op, x, *rest, **more):
        return x
    to_onnx(_name)(_same)


@to_onnx("rsqrt")
def rsqrt(op, x):
    return op.Reciprocal(op.Sqrt(floating(op, x)))


@to_onnx("square")
def square(op, x):
    return mul(op, *[cast(op, x, INT64) if x.dtype == BOOL else x] * 2)


@to_onnx("round")
def round_(op, x, decimals=0):
    if decimals:
        return op.Div(op.Round(op.Mul(x, float(10 ** decimals))), float(10 ** decimals))
    return x if x.dtype in INTEGERS else op.Round(x)


@to_onnx("trunc", "fix")
def trunc(op, x):
    if not is_float(x):
        return x
    return op.Mul(op.Sign(x), op.Floor(op.Abs(x)))


@to_onnx("frac")
def frac(op, x):
    return op.Sub(x, trunc(op, x))


@to_onnx("log1p")
def log1p(op, x):
    return op.Log(op.Add(floating(op, x), 1.0))


@to_onnx("expm1")
def expm1(op, x):
    return op.Sub(op.Exp(floating(op, x)), 1.0)


@to_onnx("exp2")
def exp2(op, x):
    return op.Exp(op.Mul(floating(op, x), math.log(2)))


@to_onnx("log2")
def log2(op, x):
    return op.Div(op.Log(floating(op, x)), math.log(2))


@to_onnx("log10")
def log10(op, x):
    return op.Div(op.Log(floating(op, x)), math.log(10))


@to_onnx("silu")
def silu(op, x):
    return op.Mul(x, op.Sigmoid(x))


@to_onnx("gelu")
def gelu(op, x, approximate="none", **more):
    return op.Gelu(x, approximate=approximate)


@to_onnx("softplus")
def softplus(op, x, beta=1, threshold=20):
    """Above the threshold PyTorch takes the number itself; at the usual one float32 cannot tell them apart."""
    scaled_x = x if beta == 1 else op.Mul(x, float(beta))
    soft = op.Softplus(scaled_x) if beta == 1 else op.Div(op.Softplus(scaled_x), float(beta))
    return soft if threshold >= 20 else op.Where(op.Greater(scaled_x, float(threshold)), x, soft)


@to_onnx("log_sigmoid")
def log_sigmoid(op, x):
    return op.Neg(op.Softplus(op.Neg(x)))


@to_onnx("elu")
def elu(op, x, alpha=1.0, scale=1.0, input_scale=1.0):
    if scale != 1 or input_scale != 1:
        op.reject("elu with scales")
    return op.Elu(x, alpha=float(alpha))


@to_onnx("celu")
def celu(op, x, alpha=1.0):
    return op.Celu(x, alpha=float(alpha))


@to_onnx("leaky_relu")
def leaky_relu(op, x, negative_slope=0.01):
    return op.LeakyRelu(x, alpha=float(negative_slope))


@to_onnx("softshrink", "hardshrink")
def shrink(op, x, lambd=0.5):
    return op.Shrink(x, lambd=float(lambd), bias=float(lambd) if op.node.op_type == "softshrink" else 0.0)


@to_onnx("prelu")
def prelu(op, x, weight):
    if weight.shape is not None and len(weight.shape) == 1 and rank(op, x) > 2:
        weight = op.Reshape(weight, [-1, *[1] * (rank(op, x) - 2)])
    return op.PRelu(x, weight)


@to_onnx("hardsigmoid")
def hardsigmoid(op, x):
    return op.HardSigmoid(x, alpha=1 / 6, beta=0.5)


@to_onnx("clamp", "clip")
def clamp(op, x, min=None, max=None):
    low, high = (None if bound is None else as_type(op, x.dtype, bound)[0] for bound in (min, max))
    if any(bound is not None and bound.shape is not None and len(bound.shape) for bound in (low, high)):
        x = op.Max(x, low) if low is not None else x
        return op.Min(x, high) if high is not None else x
    return op.Clip(x, low, high)


@to_onnx("clamp_min")
def clamp_min(op, x, min):
    return clamp(op, x, min)


@to_onnx("clamp_max")
def clamp_max(op, x, max):
    return clamp(op, x, None, max)


@to_onnx("relu6")
def relu6(op, x):
    return clamp(op, x, 0, 6)


@to_onnx("hardtanh")
def hardtanh(op, x, min_val=-1, max_val=1):
    return clamp(op, x, min_val, max_val)


@to_onnx("logical_not", "bitwise_not", "__not__")
def logical_not(op, x):
    return op.BitwiseNot(x) if x.dtype in INTEGERS and op.node.op_type == "bitwise_not" else op.Not(cast(op, x, BOOL))


@to_onnx("pow")
def pow_(op, x, exponent):
    if exponent == 2 and not isinstance(exponent, ir.Value):
        return op.Mul(x, x)
    a, b = promoted(op, x, exponent)
    return op.Pow(a, b)


def scaled(op: Any, y: Any, alpha: Any) -> Any:
    if not isinstance(alpha, ir.Value) and alpha == 1:
        return y
    return op.Mul(*promoted(op, y, alpha)) if isinstance(y, ir.Value) else y * alpha


@to_onnx("add")
def add(op, x, y, alpha=1):
    a, b = promoted(op, x, scaled(op, y, alpha))
    return op.Or(a, b) if a.dtype == BOOL else op.Add(a, b)


@to_onnx("sub", "subtract")
def sub(op, x, y, alpha=1):
    return op.Sub(*promoted(op, x, scaled(op, y, alpha)))


@to_onnx("rsub")
def rsub(op, x, y, alpha=1):
    return op.Sub(*promoted(op, y, scaled(op, x, alpha)))


@to_onnx("mul", "multiply")
def mul(op, x, y):
    a, b = promoted(op, x, y)
    return op.And(a, b) if a.dtype == BOOL else op.Mul(a, b)


@to_onnx("div", "divide", "true_divide")
def div(op, x, y, rounding_mode=None):
    a, b = promoted(op, x, y)
    if rounding_mode is None:
        return op.Div(floating(op, a), floating(op, b))
    if rounding_mode == "trunc":
        return op.Div(a, b) if a.dtype in INTEGERS else trunc(op, op.Div(a, b))
    return floor_divide(op, a, b)


@to_onnx("floor_divide")
def floor_divide(op, x, y):
    a, b = promoted(op, x, y)
    return op.Div(op.Sub(a, op.Mod(a, b)), b) if a.dtype in INTEGERS else op.Floor(op.Div(a, b))


@to_onnx("remainder")
def remainder(op, x, y):
    a, b = promoted(op, x, y)
    return op.Mod(a, b) if a.dtype in INTEGERS else op.Sub(a, op.Mul(op.Floor(op.Div(a, b)), b))


@to_onnx("fmod")
def fmod(op, x, y):
    return op.Mod(*promoted(op, x, y), fmod=1)


@to_onnx("maximum")
def maximum(op, x, y):
    return op.Max(*promoted(op, x, y))


@to_onnx("minimum")
def minimum(op, x, y):
    return op.Min(*promoted(op, x, y))


for _name, _target, _negated in (("eq", "Equal", False), ("ne", "Equal", True), ("lt", "Less", False), ("le", "LessOrEqual", False), ("gt", "Greater", False),
                                 ("ge", "GreaterOrEqual", False)):
    def _compare(op, x, y, *, _target=_target, _negated=_negated):
        a, b = promoted(op, x, y)
        if a.dtype == BOOL and _target != "Equal":
            a, b = as_type(op, D.INT32, a, b)
        made = op.make(_target, [a, b], {})
        return op.Not(made) if _negated else made
    to_onnx(_name)(_compare)


for _name, _logical, _bits in (("and", "And", "BitwiseAnd"), ("or", "Or", "BitwiseOr"), ("xor", "Xor", "BitwiseXor")):
    def _logic(op, x, y, *, _logical=_logical):
        return op.make(_logical, as_type(op, BOOL, x, y), {})
    to_onnx(f"logical_{_name}")(_logic)

    def _bitwise(op, x, y, *, _logical=_logical, _bits=_bits):
        a, b = promoted(op, x, y)
        return op.make(_logical if a.dtype == BOOL else _bits, [a, b], {})
    to_onnx(f"bitwise_{_name}", f"__{_name}__")(_bitwise)


@to_onnx("where")
def where(op, condition, x, y):
    return op.Where(cast(op, condition, BOOL), *promoted(op, x, y))


@to_onnx("masked_fill")
def masked_fill(op, x, mask, value):
    return op.Where(cast(op, mask, BOOL), *as_type(op, x.dtype, value), x)


@to_onnx("atan2")
def atan2(op, y, x):
    """atan(y / x), moved by pi where x is negative; where both are zero it is zero."""
    y, x = promoted(op, floating(op, y), floating(op, x))
    angle = op.Atan(op.Div(y, x))
    turn = op.Where(op.Less(y, 0.0), *as_type(op, y.dtype, -math.pi, math.pi))
    turned = op.Where(op.Less(x, 0.0), op.Add(angle, turn), angle)
    return op.Where(op.And(op.Equal(x, 0.0), op.Equal(y, 0.0)), op.Mul(y, 0.0), turned)


@to_onnx("lerp")
def lerp(op, x, y, weight):
    return op.Add(x, op.Mul(*promoted(op, op.Sub(y, x), weight)))


@to_onnx("addcmul")
def addcmul(op, x, a, b, value=1):
    return op.Add(x, scaled(op, op.Mul(a, b), value))
