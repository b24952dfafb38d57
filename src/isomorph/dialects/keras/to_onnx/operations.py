"""`keras.ops` in functional models: each class of operation with its settings and arguments, most as rows of tables."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.table import ops
from isomorph.dialects.keras.tracing import TYPES

UNARY = {
    "Absolute": "Abs", "Abs": "Abs", "Fabs": "Abs", "Ceil": "Ceil", "Floor": "Floor", "Exp": "Exp", "Log": "Log", "Sqrt": "Sqrt", "Sin": "Sin",
    "Cos": "Cos", "Tan": "Tan", "Sinh": "Sinh", "Cosh": "Cosh", "Arcsin": "Asin", "Arccos": "Acos", "Arctan": "Atan", "Arcsinh": "Asinh", "Arccosh": "Acosh",
    "Arctanh": "Atanh", "Negative": "Neg", "Sign": "Sign", "Erf": "Erf", "Isnan": "IsNaN", "Isinf": "IsInf", "Reciprocal": "Reciprocal",
    "BitwiseInvert": "BitwiseNot",
    "BitwiseNot": "BitwiseNot", "Det": "Det",
}
KEPT = {"Copy", "Real", "Conjugate", "Conj", "StopGradient", "ConvertToTensor", "Array"}
BINARY = {
    "Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Divide": "Div", "TrueDivide": "Div", "Maximum": "Max", "Minimum": "Min", "Fmax": "Max", "Fmin": "Min",
    "Power": "Pow", "Equal": "Equal", "Greater": "Greater", "GreaterEqual": "GreaterOrEqual", "Less": "Less", "LessEqual": "LessOrEqual",
    "BitwiseAnd": "BitwiseAnd", "BitwiseOr": "BitwiseOr", "BitwiseXor": "BitwiseXor",
}
LOGICAL = {"LogicalAnd": "And", "LogicalOr": "Or", "LogicalXor": "Xor"}
REDUCTIONS = {"Sum": "ReduceSum", "Mean": "ReduceMean", "Max": "ReduceMax", "Min": "ReduceMin", "Amax": "ReduceMax", "Amin": "ReduceMin", "Prod": "ReduceProd",
              "Logsumexp": "ReduceLogSumExp", "Average": "ReduceMean"}
WHOLE = {ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.UINT32,
    ir.DataType.UINT64,
         ir.DataType.BOOL}


def value_of(op: Op, x: Any, like: Value | None = None) -> Value:
    """An argument as a value: numbers take the type of the other one where it can hold them."""
    if isinstance(x, Value):
        return x
    array = np.asarray(x)
    if like is not None and like.dtype is not None and like.dtype != ir.DataType.STRING:
        if array.dtype.kind in "iub" or like.dtype not in WHOLE:
            return op.const(array.astype(like.dtype.numpy()))
        return op.const(array.astype(np.float32))
    kinds = {"i": np.int32, "u": np.int32, "f": np.float32, "b": np.bool_}
    return op.const(array.astype(kinds.get(array.dtype.kind, array.dtype)))


def paired(op: Op, a: Any, b: Any) -> tuple[Value, Value]:
    """Two arguments in one type: the wider, or float32 where one is whole and the other is not."""
    left = value_of(op, a, b if isinstance(b, Value) else None)
    right = value_of(op, b, left)
    if left.dtype == right.dtype:
        return left, right
    both = np.result_type(left.dtype.numpy(), right.dtype.numpy()) if {left.dtype, right.dtype} & WHOLE != {left.dtype, right.dtype} else np.promote_types(
        left.dtype.numpy(), right.dtype.numpy())
    if {left.dtype, right.dtype} & WHOLE and not {left.dtype, right.dtype} <= WHOLE:
        both = next(x.dtype.numpy() for x in (left, right) if x.dtype not in WHOLE)
    kind = next(kind for kind in ir.DataType if kind.name in TYPES.values() and kind != ir.DataType.STRING and kind.numpy() == both)
    return op.cast(left, kind), op.cast(right, kind)


def floating(op: Op, x: Value) -> Value:
    """Whole numbers as float32, as most functions of Keras take them."""
    return op.cast(x, ir.DataType.FLOAT) if x.dtype in WHOLE else x


def _unary(target: str) -> Any:
    def rule(op: Op, x: Value) -> Value:
        return op.make(target, [x if target in ("Abs", "Neg", "Sign", "BitwiseNot") else floating(op, x)], {})
    return rule


def _kept(op: Op, x: Any, **settings: Any) -> Any:
    return value_of(op, x)


def _binary(target: str) -> Any:
    def rule(op: Op, x1: Any, x2: Any) -> Value:
        a, b = paired(op, x1, x2)
        a, b = (floating(op, a), floating(op, b)) if target == "Div" else (a, b)
        return op.make(target, [a, b], {})
    return rule


def _logical(target: str) -> Any:
    def rule(op: Op, x1: Any, x2: Any) -> Value:
        return op.make(target, [truth(op, x1), truth(op, x2)], {})
    return rule


def _reduction(target: str) -> Any:
    def rule(op: Op, x: Any, weights: Any = None, *, axis: Any = None, keepdims: bool = False, initial: Any = None, dtype: Any = None) -> Value:
        return op.reject("weights are not mapped") if weights is not None else reduced(op, target, x, axis, keepdims)
    return rule


def truth(op: Op, x: Any) -> Value:
    return op.cast(value_of(op, x), ir.DataType.BOOL)


def axes_of(op: Op, x: Value, axis: Any) -> list[int]:
    rank = op.rank(x)
    if axis is None:
        return list(range(rank))
    return [int(each) % rank for each in (axis if isinstance(axis, list) else [axis])]


def reduced(op: Op, kind: str, x: Any, axis: Any, keepdims: bool = False) -> Value:
    x = value_of(op, x)
    if kind in ("ReduceMean", "ReduceLogSumExp"):
        x = floating(op, x)
    if x.dtype == ir.DataType.BOOL:
        x = op.cast(x, ir.DataType.INT32)
    return op.make(kind, [x, op.const(axes_of(op, x, axis))], {"keepdims": int(keepdims)})


for _names, _rule in ((UNARY, _unary), (BINARY, _binary), (LOGICAL, _logical), (REDUCTIONS, _reduction)):
    for _name, _target in _names.items():
        ops(_name)(_rule(_target))
ops(*KEPT)(_kept)


@ops("NotEqual")
def not_equal(op: Op, x1: Any, x2: Any) -> Value:
    return op.Not(op.Equal(*paired(op, x1, x2)))


@ops("LogicalNot")
def logical_not(op: Op, x: Any) -> Value:
    return op.Not(truth(op, x))


@ops("All", "Any")
def all_any(op: Op, x: Any, *, axis: Any = None, keepdims: bool = False) -> Value:
    whole = op.cast(truth(op, x), ir.DataType.INT32)
    kind = "ReduceMin" if op.layer.class_name == "All" else "ReduceMax"
    return op.cast(reduced(op, kind, whole, axis, keepdims), ir.DataType.BOOL)


@ops("Square")
def square(op: Op, x: Value) -> Value:
    return op.Mul(x, x)


@ops("Round")
def round_(op: Op, x: Value, *, decimals: int = 0) -> Value:
    if not decimals:
        return op.Round(x)
    factor = op.scalar(10.0 ** decimals, x)
    return op.Div(op.Round(op.Mul(x, factor)), factor)


@ops("Rsqrt")
def rsqrt(op: Op, x: Value) -> Value:
    return op.Reciprocal(op.Sqrt(x))


@ops("Isfinite")
def isfinite(op: Op, x: Value) -> Value:
    return op.Not(op.Or(op.IsNaN(x), op.IsInf(x)))


@ops("Isposinf", "Isneginf")
def one_infinity(op: Op, x: Value) -> Value:
    positive = op.layer.class_name == "Isposinf"
    return op.IsInf(x, detect_positive=int(positive), detect_negative=int(not positive))


@ops("Isreal")
def isreal(op: Op, x: Value) -> Value:
    return op.Expand(op.const(np.asarray(True)), op.Shape(x))


@ops("Exp2")
def exp2(op: Op, x: Value) -> Value:
    return op.Pow(op.scalar(2, x), x)


@ops("Expm1")
def expm1(op: Op, x: Value) -> Value:
    """exp(x) - 1 as 2 sinh(x / 2) exp(x / 2), which keeps its digits near zero."""
    half = op.Mul(x, op.scalar(0.5, x))
    return op.Mul(op.Mul(op.Sinh(half), op.Exp(half)), op.scalar(2, x))


@ops("Log1p")
def log1p(op: Op, x: Value) -> Value:
    return op.Log(op.Add(x, op.scalar(1, x)))


@ops("Log2", "Log10")
def other_log(op: Op, x: Value) -> Value:
    x = floating(op, x)
    base = 2 if op.layer.class_name == "Log2" else 10
    return op.Div(op.Log(x), op.scalar(np.log(base), x))


@ops("Trunc")
def trunc(op: Op, x: Value) -> Value:
    return op.Mul(op.Sign(x), op.Floor(op.Abs(x)))


@ops("Cbrt")
def cbrt(op: Op, x: Value) -> Value:
    return op.Mul(op.Sign(x), op.Pow(op.Abs(x), op.scalar(1 / 3, x)))


@ops("Deg2rad", "Rad2deg")
def degrees(op: Op, x: Value) -> Value:
    factor = np.pi / 180 if op.layer.class_name == "Deg2rad" else 180 / np.pi
    return op.Mul(x, op.scalar(factor, x))


@ops("Sinc")
def sinc(op: Op, x: Value) -> Value:
    angle = op.Mul(x, op.scalar(np.pi, x))
    zero = op.Equal(x, op.scalar(0, x))
    return op.Where(zero, op.scalar(1, x), op.Div(op.Sin(angle), op.Where(zero, op.scalar(1, x), angle)))


@ops("Signbit")
def signbit(op: Op, x: Value) -> Value:
    """Of minus zero too: its reciprocal is below zero."""
    return op.Or(op.Less(x, op.scalar(0, x)), op.Less(op.Reciprocal(x), op.scalar(0, x)))


@ops("Erfc")
def erfc(op: Op, x: Value) -> Value:
    return op.Sub(op.scalar(1, x), op.Erf(x))


@ops("NanToNum")
def nan_to_num(op: Op, x: Value, *, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Value:
    limits = np.finfo(x.dtype.numpy())
    x = op.Where(op.IsNaN(x), op.scalar(nan, x), x)
    x = op.Where(op.IsInf(x, detect_negative=0), op.scalar(limits.max if posinf is None else posinf, x), x)
    return op.Where(op.IsInf(x, detect_positive=0), op.scalar(limits.min if neginf is None else neginf, x), x)


@ops("Clip")
def clip(op: Op, x: Value, *, x_min: Any, x_max: Any) -> Value:
    return op.Clip(x, value_of(op, x_min, x), value_of(op, x_max, x))


@ops("OnesLike", "ZerosLike")
def constants_like(op: Op, x: Value, *, dtype: Any = None) -> Value:
    kind = ir.DataType[TYPES[dtype]] if dtype else x.dtype
    return op.Expand(op.const(np.asarray(op.layer.class_name == "OnesLike", kind.numpy())), op.Shape(x))


@ops("FullLike")
def full_like(op: Op, x: Value, fill_value: Any, *, dtype: Any = None) -> Value:
    kind = ir.DataType[TYPES[dtype]] if dtype else x.dtype
    return op.Expand(op.cast(value_of(op, fill_value, x), kind), op.Shape(x))


@ops("Cast", "SaturateCast")
def cast(op: Op, x: Value, *, dtype: Any) -> Value:
    return op.cast(x, ir.DataType[TYPES[dtype]])


# ---- arithmetic of two

@ops("FloorDivide")
def floor_divide(op: Op, x1: Any, x2: Any) -> Value:
    a, b = paired(op, x1, x2)
    if a.dtype in WHOLE:
        return op.cast(op.Floor(op.Div(op.cast(a, ir.DataType.DOUBLE), op.cast(b, ir.DataType.DOUBLE))), a.dtype)
    # As TensorFlow: (a - a mod b) / b, rounded.
    rest = floor_mod(op, a, b)
    quotient = op.Div(op.Sub(a, rest), b)
    lower = op.Floor(quotient)
    return op.Where(op.Greater(op.Sub(quotient, lower), op.scalar(0.5, a)), op.Add(lower, op.scalar(1, a)), lower)


def floor_mod(op: Op, a: Value, b: Value) -> Value:
    """The remainder with the divisor's sign."""
    if a.dtype in WHOLE:
        return op.Mod(a, b)
    rest = op.Mod(a, b, fmod=1)
    other = op.And(op.Not(op.Equal(rest, op.scalar(0, a))), op.Xor(op.Less(rest, op.scalar(0, a)), op.Less(b, op.scalar(0, a))))
    return op.Where(other, op.Add(rest, b), rest)


@ops("Mod")
def mod(op: Op, x1: Any, x2: Any) -> Value:
    return floor_mod(op, *paired(op, x1, x2))


@ops("Fmod")
def fmod(op: Op, x1: Any, x2: Any) -> Value:
    return op.Mod(*paired(op, x1, x2), fmod=1)


@ops("DivideNoNan")
def divide_no_nan(op: Op, x1: Any, x2: Any) -> Value:
    a, b = paired(op, x1, x2)
    zero = op.Equal(b, op.scalar(0, b))
    return op.Where(zero, op.scalar(0, a), op.Div(a, op.Where(zero, op.scalar(1, b), b)))


@ops("Hypot")
def hypot(op: Op, x1: Any, x2: Any) -> Value:
    a, b = paired(op, x1, x2)
    return op.Sqrt(op.Add(op.Mul(a, a), op.Mul(b, b)))


@ops("Logaddexp", "Logaddexp2")
def logaddexp(op: Op, x1: Any, x2: Any) -> Value:
    a, b = paired(op, x1, x2)
    if op.layer.class_name == "Logaddexp":
        return op.Add(op.Max(a, b), op.Softplus(op.Neg(op.Abs(op.Sub(a, b)))))
    scale = op.scalar(np.log(2), a)
    return op.Add(op.Max(a, b), op.Div(op.Softplus(op.Neg(op.Mul(op.Abs(op.Sub(a, b)), scale))), scale))


@ops("Heaviside")
def heaviside(op: Op, x1: Any, x2: Any) -> Value:
    a, b = paired(op, x1, x2)
    at_zero = op.Where(op.Equal(a, op.scalar(0, a)), b, op.scalar(1, a))
    return op.Where(op.Less(a, op.scalar(0, a)), op.scalar(0, a), at_zero)


@ops("Arctan2")
def arctan2(op: Op, x1: Any, x2: Any) -> Value:
    """From the arc tangent of the quotient, by quadrant."""
    y, x = paired(op, x1, x2)
    zero = op.scalar(0, x)
    flat = op.Atan(op.Div(y, op.Where(op.Equal(x, zero), op.scalar(1, x), x)))
    turn = op.Where(op.Less(y, zero), op.scalar(-np.pi, x), op.scalar(np.pi, x))
    upright = op.Mul(op.Sign(y), op.scalar(np.pi / 2, x))
    return op.Where(op.Equal(x, zero), upright, op.Where(op.Less(x, zero), op.Add(flat, turn), flat))


@ops("Isclose")
def isclose(op: Op, x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, *, equal_nan: bool = False) -> Value:
    a, b = paired(op, x1, x2)
    return op.LessOrEqual(op.Abs(op.Sub(a, b)), op.Add(op.scalar(atol, a), op.Mul(op.scalar(rtol, a), op.Abs(b))))


@ops("BitwiseLeftShift", "LeftShift", "BitwiseRightShift", "RightShift")
def shift(op: Op, x: Any, y: Any) -> Value:
    """ONNX shifts unsigned numbers only: a product or a floored quotient by powers of two."""
    a, b = paired(op, x, y)
    wide = op.cast(b, ir.DataType.DOUBLE)
    power = op.Pow(op.scalar(2, wide), wide)
    left = "Left" in op.layer.class_name
    moved = op.Mul(op.cast(a, ir.DataType.DOUBLE), power) if left else op.Floor(op.Div(op.cast(a, ir.DataType.DOUBLE), power))
    return op.cast(moved, a.dtype)


@ops("Where")
def where(op: Op, condition: Any, x1: Any = None, x2: Any = None) -> Value:
    if x1 is None:
        return op.reject("its result has as many elements as are true")
    return op.Where(truth(op, condition), *paired(op, x1, x2))


# ---- products

@ops("Matmul")
def matmul(op: Op, x1: Any, x2: Any) -> Value:
    return op.MatMul(*paired(op, x1, x2))


@ops("Dot")
def dot(op: Op, x1: Any, x2: Any) -> Value:
    """NumPy's: over the last axis of the first and the last but one of the second."""
    a, b = paired(op, x1, x2)
    if op.rank(a) == 0 or op.rank(b) == 0:
        return op.Mul(a, b)
    return op.MatMul(a, b) if op.rank(b) <= 2 else contracted(op, a, b, [op.rank(a) - 1], [op.rank(b) - 2])


@ops("Inner")
def inner(op: Op, x1: Any, x2: Any) -> Value:
    a, b = paired(op, x1, x2)
    return contracted(op, a, b, [op.rank(a) - 1], [op.rank(b) - 1])


@ops("Vdot")
def vdot(op: Op, x1: Any, x2: Any) -> Value:
    a, b = (op.Reshape(value, op.const([-1])) for value in paired(op, x1, x2))
    return op.ReduceSum(op.Mul(a, b), op.const([0]), keepdims=0)


@ops("Outer")
def outer(op: Op, x1: Any, x2: Any) -> Value:
    a, b = paired(op, x1, x2)
    return op.Mul(op.Reshape(a, op.const([-1, 1])), op.Reshape(b, op.const([1, -1])))


@ops("Tensordot")
def tensordot(op: Op, x1: Any, x2: Any, *, axes: Any = 2) -> Value:
    a, b = paired(op, x1, x2)
    if isinstance(axes, int):
        return contracted(op, a, b, list(range(op.rank(a) - axes, op.rank(a))), list(range(axes)))
    left, right = ([each] if isinstance(each, int) else each for each in axes)
    return contracted(op, a, b, left, right)


def contracted(op: Op, a: Value, b: Value, left: list[int], right: list[int]) -> Value:
    """A sum over pairs of axes."""
    ranks = op.rank(a), op.rank(b)
    names = [chr(ord("a") + index) for index in range(sum(ranks))]
    first, second = names[:ranks[0]], names[ranks[0]:]
    for i, j in zip(left, right, strict=True):
        second[j % ranks[1]] = first[i % ranks[0]]
    shared = {first[i % ranks[0]] for i in left}
    kept = [name for name in (*first, *second) if name not in shared]
    return op.Einsum(a, b, equation=f"{''.join(first)},{''.join(second)}->{''.join(kept)}")


@ops("Einsum")
def einsum(op: Op, *operands: Any, subscripts: str) -> Value:
    return op.Einsum(*operands, equation=subscripts.replace(" ", ""))


@ops("Cross")
def cross(op: Op, x1: Any, x2: Any, *, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None) -> Value:
    a, b = paired(op, x1, x2)
    if axis not in (None, -1) or (axisa, axisb, axisc) != (-1, -1, -1) or op.sizes(a)[-1] != 3 or op.sizes(b)[-1] != 3:
        return op.reject("only vectors of three along the last axis are mapped")
    first, second = op.const([1, 2, 0]), op.const([2, 0, 1])
    one = op.Mul(op.Gather(a, first, axis=-1), op.Gather(b, second, axis=-1))
    return op.Sub(one, op.Mul(op.Gather(a, second, axis=-1), op.Gather(b, first, axis=-1)))


@ops("DotProductAttention")
def dot_product_attention(op: Op, query: Value, key: Value, value: Value, bias: Any = None, mask: Any = None, scale: Any = None, *, is_causal: bool = False,
                          flash_attention: Any = None, attn_logits_soft_cap: Any = None) -> Value:
    """[batch, places, heads, size] each."""
    from isomorph.dialects.keras.to_onnx.attention import both, causal, repeated, softened
    if attn_logits_soft_cap:
        return op.reject("a soft cap on the logits is not mapped")
    q, k, v = (op.Transpose(x, perm=[0, 2, 1, 3]) for x in (query, key, value))
    times = op.sizes(q)[1] // op.sizes(k)[1]
    k, v = repeated(op, k, times), repeated(op, v, times)
    factor = op.scalar(1 / np.sqrt(op.sizes(query)[-1]) if scale is None else scale, q)
    scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), factor)
    scores = scores if bias is None else op.Add(scores, bias)
    place = causal(op, query, key) if is_causal else None
    return op.Transpose(op.MatMul(softened(op, scores, both(op, [mask, place])), v), perm=[0, 2, 1, 3])


@ops("RFFT")
def rfft(op: Op, x: Value, *, fft_length: Any = None) -> list[Value]:
    """Real and imaginary parts of the spectrum of the last axis."""
    wide = op.Unsqueeze(x, op.const([-1]))
    both = op.DFT(wide, None if fft_length is None else op.const(np.asarray(fft_length)), op.const(np.asarray(-2)), onesided=1)
    return [op.Gather(both, op.const(np.asarray(part)), axis=-1) for part in (0, 1)]


# ---- reductions that ONNX has not

@ops("Var", "Std", "Nanvar", "Nanstd")
def variance(op: Op, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    x = floating(op, x)
    axes = op.const(axes_of(op, x, axis))
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    result = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=int(keepdims))
    return op.Sqrt(result) if "td" in op.layer.class_name else result


@ops("Moments")
def moments(op: Op, x: Value, *, axes: Any, keepdims: bool = False, synchronized: bool = False) -> Any:
    chosen = op.const(axes_of(op, x, axes))
    centred = op.Sub(x, op.ReduceMean(x, chosen, keepdims=1))
    return [op.ReduceMean(x, chosen, keepdims=int(keepdims)), op.ReduceMean(op.Mul(centred, centred), chosen, keepdims=int(keepdims))]


@ops("Ptp")
def ptp(op: Op, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    return op.Sub(reduced(op, "ReduceMax", x, axis, keepdims), reduced(op, "ReduceMin", x, axis, keepdims))


@ops("Argmax", "Argmin")
def arg(op: Op, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    kind = "ArgMax" if op.layer.class_name == "Argmax" else "ArgMin"
    flat = op.Reshape(x, op.const([-1])) if axis is None else x
    y = op.make(kind, [flat], {"axis": 0 if axis is None else axis, "keepdims": int(keepdims and axis is not None)})
    y = op.cast(y, ir.DataType.INT32)
    return op.Reshape(y, op.const([1] * op.rank(x))) if axis is None and keepdims else y


@ops("CountNonzero")
def count_nonzero(op: Op, x: Value, *, axis: Any = None) -> Value:
    other = op.cast(op.Not(op.Equal(x, op.scalar(0, x))), ir.DataType.INT32)
    return op.ReduceSum(other, op.const(axes_of(op, x, axis)), keepdims=0)


NAN = {"Nansum": ("ReduceSum", 0.0), "Nanprod": ("ReduceProd", 1.0), "Nanmax": ("ReduceMax", -np.inf), "Nanmin": ("ReduceMin", np.inf)}


@ops(*NAN)
def without_nan(op: Op, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    kind, filler = NAN[op.layer.class_name]
    return reduced(op, kind, op.Where(op.IsNaN(x), op.scalar(filler, x), x), axis, keepdims)


@ops("Nanmean")
def nanmean(op: Op, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    missing = op.IsNaN(x)
    total = reduced(op, "ReduceSum", op.Where(missing, op.scalar(0, x), x), axis, keepdims)
    return op.Div(total, reduced(op, "ReduceSum", op.cast(op.Not(missing), x.dtype), axis, keepdims))


@ops("Median", "Nanmedian")
def median(op: Op, x: Value, *, axis: Any = None, keepdims: bool = False) -> Value:
    return quantile(op, x, 0.5, axis=axis, keepdims=keepdims)


@ops("Quantile", "Percentile", "Nanquantile", "Nanpercentile")
def quantile(op: Op, x: Value, q: Any, *, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Value:
    """Between the sorted elements on both sides of the place."""
    if method != "linear" or not isinstance(q, (int, float)):
        return op.reject("only one quantile by linear interpolation is mapped")
    q = q / 100 if "ercentile" in op.layer.class_name else q
    rank = op.rank(x)
    flat, place = (op.Reshape(x, op.const([-1])), 0) if axis is None else (x, int(axis) % rank if not isinstance(axis, list) else op.reject("several axes"))
    size = op.sizes(flat)[place]
    ordered, _ = op.TopK(flat, op.size_of(flat, place), axis=place, largest=0, _outputs=2)
    if isinstance(size, int):
        at = q * (size - 1)
        low = int(np.floor(at))
        places: tuple[Value, ...] = (op.const(np.asarray(low)), op.const(np.asarray(min(low + 1, size - 1))))
        share = op.scalar(at - low, x)
    else:
        low_, high_, share = _between(op, flat, place, q)
        places = (low_, high_)
    one, two = (op.Gather(ordered, index, axis=place) for index in places)
    y = op.Add(one, op.Mul(op.Sub(two, one), share))
    if not keepdims:
        return y
    return op.Reshape(y, op.const([1] * rank)) if axis is None else op.Unsqueeze(y, op.const([place]))


def _between(op: Op, x: Value, axis: int, q: float) -> tuple[Value, Value, Value]:
    """The places on both sides of a quantile of as many elements as there are, and how far between them it lies."""
    last = op.Sub(op.Squeeze(op.Shape(x, start=axis, end=axis + 1), op.const([0])), op.const(np.asarray(1)))
    at = op.Mul(op.cast(last, ir.DataType.DOUBLE), op.const(np.asarray(q, np.float64)))
    low = op.Floor(at)
    index = op.cast(low, ir.DataType.INT64)
    return index, op.Min(op.Add(index, op.const(np.asarray(1))), last), op.cast(op.Sub(at, low), x.dtype)


@ops("Cumsum", "Nancumsum")
def cumsum(op: Op, x: Value, *, axis: Any = None, dtype: Any = None) -> Value:
    flat, place = (op.Reshape(x, op.const([-1])), 0) if axis is None else (x, axis)
    return op.CumSum(flat, op.const(np.asarray(place)))


@ops("Cumprod")
def cumprod(op: Op, x: Value, *, axis: Any = None, dtype: Any = None) -> Value:
    """One product for every place: elements behind it count as one."""
    flat, place = (op.Reshape(x, op.const([-1])), 0) if axis is None else (x, int(axis) % op.rank(x))
    size = op.sizes(flat)[place]
    if not isinstance(size, int):
        return op.reject("the size of its axis is not known")
    wide = op.Unsqueeze(flat, op.const([place]))
    shape = [1] * (op.rank(flat) + 1)
    shape[place] = shape[place + 1] = size
    inside = op.const(np.tril(np.ones((size, size), bool)).reshape(shape))
    return op.ReduceProd(op.Where(inside, wide, op.scalar(1, x)), op.const([place + 1]), keepdims=0)


@ops("Norm")
def norm(op: Op, x: Value, *, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Value:
    if ord in (None, 2, "fro", "euclidean"):
        return op.ReduceL2(x, op.const(axes_of(op, x, axis)), keepdims=int(keepdims))
    if ord == 1 and not isinstance(axis, list):
        return op.ReduceL1(x, op.const(axes_of(op, x, axis)), keepdims=int(keepdims))
    return op.reject(f"the norm of order {ord} is not mapped")
