"""TensorFlow -> ONNX, operator by operator: arithmetic, comparisons, reductions, matrices, shapes and places.

Where TensorFlow Lite has the same operator with the same options, the rule is that of `dialects/tflite`. Results need not have TensorFlow's integer types:
`Lowering.agreed` casts them. Definitions: https://github.com/tensorflow/tensorflow, `tensorflow/core/api_def/base_api` and `tensorflow/core/kernels`.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Int, Ints, Mapping, constant
from isomorph.dialects.tflite.to_onnx import common as lite_common
from isomorph.dialects.tflite.to_onnx import matrices as lite_matrices
from isomorph.dialects.tflite.to_onnx import operators as lite_operators
from isomorph.dialects.tflite.to_onnx import places as lite_places
from isomorph.dialects.tflite.to_onnx import windows as lite_windows  # noqa: F401    its rules are named below
from isomorph.dialects.tflite.to_onnx.common import BOOL, END, FLOAT, INT32, INT64, NARROW, longs, narrow, permuted, size, vector, wide

to_onnx = Mapping("tf")
DOUBLE, HALF, BFLOAT, STRING = ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.STRING
FLOATING = (FLOAT, DOUBLE, HALF, BFLOAT)
UNSIGNED = (ir.DataType.UINT32, ir.DataType.UINT64)
Value = ir.Value

to_onnx.same({
    "Ceil": "Ceil", "Cos": "Cos", "Exp": "Exp", "Floor": "Floor", "IsInf": "IsInf", "IsNan": "IsNaN", "Log": "Log", "Rint": "Round", "Sigmoid": "Sigmoid",
    "Sin": "Sin", "Sqrt": "Sqrt", "Tanh": "Tanh", "LogicalAnd": "And", "LogicalOr": "Or", "LogicalNot": "Not",
})
# Operators that ONNX Runtime computes in float32 only
IN_SINGLE = ("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Elu", "Erf", "Sinh", "Softplus", "Softsign", "Tan")

# Rules of TensorFlow Lite that hold here as they are.
for _name, _same in {
    "SquaredDifference": "SQUARED_DIFFERENCE", "BroadcastArgs": "BROADCAST_ARGS", "ReverseV2": "REVERSE_V2", "StridedSlice": "STRIDED_SLICE",
    "Slice": "SLICE", "MatrixSetDiag": "MATRIX_SET_DIAG", "BroadcastTo": "BROADCAST_TO", "ExpandDims": "EXPAND_DIMS", "BatchToSpaceND": "BATCH_TO_SPACE_ND",
    "SpaceToBatchND": "SPACE_TO_BATCH_ND", "SparseToDense": "SPARSE_TO_DENSE", "SegmentSum": "SEGMENT_SUM", "Pad": "PAD", "PadV2": "PADV2",
    "ZerosLike": "ZEROS_LIKE", "Range": "RANGE",
}.items():
    to_onnx.rules["tf", _name] = lite_common.to_onnx.rules["tflite", _same]
for _name, _segment in (("Sum", "SUM"), ("Prod", "PROD"), ("Max", "MAX"), ("Min", "MIN")):
    to_onnx.rules["tf", f"UnsortedSegment{_name}"] = lite_common.to_onnx.rules["tflite", f"UNSORTED_SEGMENT_{_segment}"]


# ---- what the rules share


def number(x: Value, content: float) -> np.ndarray:
    """A constant of the type of x."""
    return np.asarray(content, (x.dtype or FLOAT).numpy())


def computable(op: Builder, *xs: Value) -> tuple[Value, ...]:
    """Integers that runtimes do not compute with, as wider ones."""
    return tuple(op.Cast(x, to=INT32) if x.dtype in NARROW else op.Cast(x, to=INT64) if x.dtype in UNSIGNED else x for x in xs)


def single(op: Builder, x: Value) -> Value:
    """Doubles as floats, for operators that are only defined or implemented on floats."""
    if x.dtype == DOUBLE:
        op.lose("values.narrowed", "computed in float32 where TensorFlow takes float64")
        return op.Cast(x, to=FLOAT)
    return x if x.dtype == FLOAT else op.Cast(x, to=FLOAT)


def _in_single(target: str) -> Callable[..., Any]:
    def rule(op, x):
        return op.make(target, (single(op, x) if x.dtype == DOUBLE else x,), {})
    return rule


for _name in IN_SINGLE:
    to_onnx(_name)(_in_single(_name))


def scalar_of(op: Builder, value: Value) -> Value:
    """A value of one element without its axes."""
    return value if value.shape is not None and value.shape.rank() == 0 else op.Reshape(value, op.const(np.zeros(0, np.int64)))


# ---- one value


@to_onnx("Identity", "StopGradient", "PreventGradient", "Snapshot", "PlaceholderWithDefault", "CheckNumerics", "CheckNumericsV2", "DebugGradientIdentity",
         "OptimizationBarrier", "Copy", "CopyHost", "RefIdentity", "StatefulIdentity", "EnsureShape")
def identity(op, x, shape=None, **rest):
    return x


@to_onnx("IdentityN")
def identity_n(op, *xs):
    return xs


@to_onnx("Print", "PrintV2", "Assert", "NoOp", "ConfigureDistributedTPU", "DisableCopyOnRead")
def nothing(op, *xs, **rest):
    """What only speaks or checks; Print passes its first input on."""
    return xs[:1] if op.outputs else []


@to_onnx("Abs")
def abs_(op, x):
    return narrow(op, op.Abs(*computable(op, x)), x)


@to_onnx("Neg")
def neg(op, x):
    return narrow(op, op.Neg(*computable(op, x)), x)


@to_onnx("Sign")
def sign(op, x):
    return narrow(op, op.Sign(*computable(op, x)), x)


@to_onnx("Round")
def round_(op, x):
    return op.Round(x) if x.dtype in FLOATING else x


@to_onnx("Relu")
def relu(op, x):
    return op.Relu(x) if x.dtype in FLOATING else narrow(op, op.Max(*computable(op, x), 0), x)


@to_onnx("Relu6")
def relu6(op, x):
    (a,) = computable(op, x)
    return narrow(op, op.Clip(a, number(a, 0), number(a, 6)), x)


@to_onnx("LeakyRelu")
def leaky_relu(op, x, *, alpha=0.2):
    return op.LeakyRelu(x, alpha=alpha)


@to_onnx("Selu")
def selu(op, x):
    return op.Selu(single(op, x), alpha=1.6732632423543772, gamma=1.0507009873554805)


@to_onnx("Prelu")
def prelu(op, x, slope):
    return op.PRelu(x, slope)


@to_onnx("Reciprocal", "Inv")
def reciprocal(op, x):
    return op.Reciprocal(x) if x.dtype in FLOATING else op.Div(number(x, 1), x)


@to_onnx("Rsqrt")
def rsqrt(op, x):
    return op.Reciprocal(op.Sqrt(x))


@to_onnx("Square")
def square(op, x):
    (a,) = computable(op, x)
    return narrow(op, op.Mul(a, a), x)


@to_onnx("Log1p")
def log1p(op, x):
    """Exact near zero: log(1 + x) * x / ((1 + x) - 1)."""
    shifted = op.Add(x, number(x, 1))
    rounded = op.Sub(shifted, number(x, 1))
    small = op.Equal(rounded, number(x, 0))
    infinite = op.Equal(shifted, rounded)
    quotient = op.Div(x, op.Where(small, op.const(number(x, 1)), rounded))
    return op.Where(small, x, op.Where(infinite, op.Log(shifted), op.Mul(op.Log(shifted), quotient)))


@to_onnx("Expm1")
def expm1(op, x):
    """Exact near zero: 2 tanh(x / 2) / (1 - tanh(x / 2))."""
    t = op.Tanh(op.Mul(x, number(x, 0.5)))
    near = op.Div(op.Mul(t, number(x, 2)), op.Sub(number(x, 1), t))
    return op.Where(op.Less(op.Abs(x), number(x, 0.5)), near, op.Sub(op.Exp(x), number(x, 1)))


@to_onnx("Erfc")
def erfc(op, x):
    a = single(op, x)
    return op.Sub(number(a, 1), op.Erf(a))


@to_onnx("IsFinite")
def is_finite(op, x):
    return op.Not(op.Or(op.IsNaN(x), op.IsInf(x)))


@to_onnx("Cast")
def cast(op, x, *, SrcT="", DstT="", Truncate=0):
    """Floats become integers by cutting off, as in ONNX; NaN and what does not fit is undefined in both."""
    kind = op.outputs[0].dtype
    return op.Cast(x, to=kind, saturate=0) if kind is not None and kind.name.startswith("FLOAT8") else op.Cast(x, to=kind)


@to_onnx("Bitcast")
def bitcast(op, x, *, type=""):
    return lite_operators.bitcast(op, x)


@to_onnx("Softmax")
def softmax(op, x):
    return op.Softmax(x, axis=-1)


@to_onnx("LogSoftmax")
def log_softmax(op, x):
    return op.LogSoftmax(x, axis=-1)


@to_onnx("ClipByValue")
def clip_by_value(op, x, low, high):
    a, b, c = computable(op, x, low, high)
    return narrow(op, op.Min(op.Max(a, b), c), x)


@to_onnx("OnesLike")
def ones_like(op, x):
    return op.ConstantOfShape(op.Shape(x), value=np.ones(1, x.dtype.numpy()))


@to_onnx("Invert")
def invert(op, x):
    return op.BitwiseNot(x)


# ---- two values


def _binary(target: str) -> Callable[..., Any]:
    def rule(op, x, y):
        a, b = computable(op, x, y)
        return narrow(op, op.make(target, (a, b), {}), x)
    return rule


def _comparison(target: str, negated: bool = False) -> Callable[..., Any]:
    def rule(op, x, y, *, incompatible_shape_error=1):
        a, b = computable(op, x, y) if x.dtype != BOOL else (x, y)
        result = op.make(target, (a, b), {})
        return op.Not(result) if negated else result
    return rule


for _names, _target in {("Sub",): "Sub", ("Mul",): "Mul", ("Maximum",): "Max", ("Minimum",): "Min", ("Pow",): "Pow", ("RealDiv",): "Div"}.items():
    to_onnx(*_names)(_binary(_target))
for _name, _target in {"Equal": "Equal", "Greater": "Greater", "GreaterEqual": "GreaterOrEqual", "Less": "Less", "LessEqual": "LessOrEqual"}.items():
    to_onnx(_name)(_comparison(_target))
to_onnx("NotEqual")(_comparison("Equal", negated=True))
for _name, _target in {"BitwiseAnd": "BitwiseAnd", "BitwiseOr": "BitwiseOr", "BitwiseXor": "BitwiseXor", "LogicalXor": "Xor"}.items():
    to_onnx.same({_name: _target})


@to_onnx("Add", "AddV2")
def add(op, x, y):
    if x.dtype == STRING:
        return op.StringConcat(x, y)
    return _binary("Add")(op, x, y)


@to_onnx("AddN", "AccumulateNV2")
def add_n(op, *xs, shape=None):
    total, *rest = computable(op, *xs)
    for x in rest:
        total = op.Add(total, x)
    return narrow(op, total, xs[0])


@to_onnx("Div", "TruncateDiv")
def div(op, x, y):
    """Integers towards zero, as in ONNX."""
    return _binary("Div")(op, x, y)


@to_onnx("FloorDiv")
def floor_div(op, x, y):
    """Rounds towards minus infinity; ONNX divides integers towards zero."""
    if x.dtype in FLOATING:
        return op.Floor(op.Div(x, y))
    a, b = computable(op, x, y)
    return narrow(op, op.Div(op.Sub(a, op.Mod(a, b)), b), x)


@to_onnx("FloorMod")
def floor_mod(op, x, y):
    """The sign of the divisor."""
    if x.dtype not in FLOATING:
        a, b = computable(op, x, y)
        return narrow(op, op.Mod(a, b), x)
    remainder = op.Mod(x, y, fmod=1)
    wrong = op.And(op.Not(op.Equal(remainder, number(x, 0))), op.Not(op.Equal(op.Less(remainder, number(x, 0)), op.Less(y, number(x, 0)))))
    return op.Where(wrong, op.Add(remainder, y), remainder)


@to_onnx("Mod", "TruncateMod")
def mod(op, x, y):
    """The sign of the dividend."""
    a, b = computable(op, x, y)
    return narrow(op, op.Mod(a, b, fmod=1), x)


def _where_zero(op: Builder, y: Value, result: Value) -> Value:
    return op.Where(op.Equal(y, number(y, 0)), op.const(number(y, 0)), result)


@to_onnx("DivNoNan", "Xdivy")
def div_no_nan(op, x, y):
    """DivNoNan looks at y, Xdivy at x."""
    if op.node.op_type == "Xdivy":
        return _where_zero(op, x, op.Div(x, y))
    return _where_zero(op, y, op.Div(x, op.Where(op.Equal(y, number(y, 0)), op.const(number(y, 1)), y)))


@to_onnx("MulNoNan")
def mul_no_nan(op, x, y):
    return _where_zero(op, y, op.Mul(x, y))


@to_onnx("Xlogy")
def xlogy(op, x, y):
    return _where_zero(op, x, op.Mul(x, op.Log(y)))


@to_onnx("Atan2")
def atan2(op, y, x):
    """atan(y / x), moved by pi where x is negative, towards the sign of y; nothing where both are zero."""
    x, y = single(op, x), single(op, y)
    angle = op.Atan(op.Div(y, x))
    turn = op.Where(op.Less(y, number(y, 0)), op.const(number(y, -math.pi)), op.const(number(y, math.pi)))
    turned = op.Where(op.Less(x, number(x, 0)), op.Add(angle, turn), angle)
    return op.Where(op.And(op.Equal(x, number(x, 0)), op.Equal(y, number(y, 0))), op.Mul(y, number(y, 0)), turned)


@to_onnx("LeftShift")
def left_shift(op, x, y):
    unsigned = {1: ir.DataType.UINT8, 2: ir.DataType.UINT16, 4: ir.DataType.UINT32, 8: ir.DataType.UINT64}[x.dtype.itemsize]
    a, b = (value if value.dtype == unsigned else op.Cast(value, to=unsigned) for value in (x, y))
    return op.BitShift(a, b, direction="LEFT")


@to_onnx("RightShift")
def right_shift(op, x, y):
    return lite_operators.right_shift(op, x, y)


@to_onnx("Select", "SelectV2")
def select(op, condition, x, y):
    """A vector condition of the first version chooses whole rows."""
    rank, _ = op.of(x)
    if op.node.op_type == "Select" and condition.shape is not None and condition.shape.rank() == 1 and rank > 1:
        condition = op.Unsqueeze(condition, list(range(1, rank)))
    a, b = (x, y) if x.dtype in (BOOL, STRING) else computable(op, x, y)
    return narrow(op, op.Where(condition, a, b), x)


# ---- reductions


for _name, _target in {"Sum": "ReduceSum", "Prod": "ReduceProd", "Max": "ReduceMax", "Min": "ReduceMin"}.items():
    to_onnx(_name)(lite_matrices.reduction(_target, computable))


@to_onnx("Mean")
def mean(op, x, axes, *, keep_dims=0):
    if x.dtype in FLOATING:
        return op.ReduceMean(x, vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1)
    return lite_matrices.mean(op, x, axes, keep_dims=keep_dims)


@to_onnx("EuclideanNorm")
def euclidean_norm(op, x, axes, *, keep_dims=0):
    """With no axes it is still the absolute value."""
    (a,) = computable(op, x)
    a = a if a.dtype in FLOATING else op.Cast(a, to=DOUBLE)
    total = op.ReduceSum(op.Mul(a, a), vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1)
    return op.Sqrt(total)


@to_onnx("Any")
def any_(op, x, axes, *, keep_dims=0):
    return lite_matrices.reduce_any(op, x, axes, keep_dims=keep_dims)


@to_onnx("All")
def all_(op, x, axes, *, keep_dims=0):
    return lite_matrices.reduce_all(op, x, axes, keep_dims=keep_dims)


def _position(target: str) -> Callable[..., Any]:
    def rule(op, x, axis: Int = 0, *, output_type="int64"):
        (a,) = computable(op, x)
        a = op.Cast(a, to=INT32) if a.dtype in (INT64, BOOL) else a
        return op.make(target, (a,), {"axis": axis, "keepdims": 0})
    return rule


to_onnx("ArgMax")(_position("ArgMax"))
to_onnx("ArgMin")(_position("ArgMin"))


@to_onnx("Cumsum")
def cumsum(op, x, axis, *, exclusive=0, reverse=0):
    (a,) = computable(op, x)
    return narrow(op, op.CumSum(a, scalar_of(op, longs(op, axis)), exclusive=exclusive, reverse=reverse), x)


@to_onnx("Cumprod")
def cumprod(op, x, axis: Int, *, exclusive=0, reverse=0):
    """Doubling steps: after step k every element is the product of 2^k before it."""
    rank, sizes = op.of(x)
    axis %= rank
    length = sizes[axis]
    if not isinstance(length, int):
        op.reject("the length of the axis is not known")
    (y,) = computable(op, x)
    one = op.const(np.ones((), y.dtype.numpy()))

    def moved(value: Value, by: int) -> Value:
        pads = np.zeros(2 * rank, np.int64)
        pads[axis + (rank if reverse else 0)] = by
        cut = op.Slice(value, [by], [END], [axis]) if reverse else op.Slice(value, [0], [length - by], [axis])
        return op.Pad(cut, pads, one)
    if exclusive and length:
        y = moved(y, min(1, length))
    by = 1
    while by < length:
        y = op.Mul(y, moved(y, by))
        by *= 2
    return narrow(op, y, x)


@to_onnx("TopKV2", "TopK")
def topk(op, x, k=None, *, sorted=1, **rest):
    (a,) = computable(op, x)
    count = vector(op, k) if k is not None else op.const([rest["k"]])
    values, places = op.TopK(a, count, sorted=sorted, _outputs=2)
    return narrow(op, values, x), places


@to_onnx("Unique", "UniqueV2")
def unique(op, x, axis=None, *, out_idx=""):
    """In the order of first occurrence."""
    chosen = constant(axis)
    if axis is not None and (chosen is None or (chosen.size and int(chosen.reshape(-1)[0]) != 0)):
        op.reject("an axis other than the first")
    a = x if x.dtype in (FLOAT, DOUBLE, INT64, STRING, ir.DataType.INT8) else op.Cast(x, to=INT64 if x.dtype not in FLOATING else FLOAT)
    values, _, inverse, _ = op.Unique(a, sorted=0, axis=0, _outputs=4)
    return narrow(op, values, x), inverse


@to_onnx("UniqueWithCounts", "UniqueWithCountsV2")
def unique_with_counts(op, x, axis=None, *, out_idx=""):
    a = x if x.dtype in (FLOAT, DOUBLE, INT64, STRING) else op.Cast(x, to=INT64 if x.dtype not in FLOATING else FLOAT)
    values, _, inverse, counts = op.Unique(a, sorted=0, axis=0, _outputs=4)
    return narrow(op, values, x), inverse, counts


@to_onnx("Bincount", "DenseBincount")
def bincount(op, x, bins, weights=None, *, binary_output=0):
    """How often, or with which weight, each number below `bins` occurs; a matrix is counted row by row."""
    rank, _ = op.of(x)
    target = op.outputs[0].dtype or FLOAT
    index = longs(op, x)
    each = op.Range(op.const(np.int64(0)), op.Reshape(longs(op, bins), op.const(np.zeros(0, np.int64))), op.const(np.int64(1)))
    hits = op.Cast(op.Equal(op.Unsqueeze(index, [-1]), each), to=FLOAT if target in FLOATING else INT64)
    weighed = weights is not None and not (weights.shape is not None and 0 in list(weights.shape))
    if weighed and not binary_output:
        hits = op.Mul(op.Cast(hits, to=weights.dtype), op.Unsqueeze(weights, [-1]))
    if rank == 1 or op.node.op_type == "Bincount":
        axes = list(range(rank))
        return op.ReduceMax(hits, axes, keepdims=0) if binary_output else op.ReduceSum(hits, axes, keepdims=0)
    return op.ReduceMax(hits, [1], keepdims=0) if binary_output else op.ReduceSum(hits, [1], keepdims=0)


@to_onnx("InTopKV2", "InTopK")
def in_top_k(op, predictions, targets, k=None, **rest):
    """Whether fewer than k predictions are greater than that of the target."""
    count = longs(op, k) if k is not None else rest["k"]
    own = op.GatherElements(predictions, op.Unsqueeze(longs(op, targets), [1]), axis=1)
    greater = op.ReduceSum(op.Cast(op.Greater(predictions, own), to=INT64), [1], keepdims=0)
    return op.Less(greater, count)


# ---- matrices


def _turned(op: Builder, value: Value) -> Value:
    rank, _ = op.of(value)
    return permuted(op, value, [*range(rank - 2), rank - 1, rank - 2])


@to_onnx("MatMul")
def matmul(op, a, b, *, transpose_a=0, transpose_b=0, grad_a=0, grad_b=0):
    x, y = computable(op, a, b)
    if (transpose_a or transpose_b) and x.dtype in FLOATING:
        return op.Gemm(x, y, transA=transpose_a, transB=transpose_b)
    return narrow(op, op.MatMul(_turned(op, x) if transpose_a else x, _turned(op, y) if transpose_b else y), a)


@to_onnx("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def batch_matmul(op, a, b, *, adj_x=0, adj_y=0, grad_x=0, grad_y=0, Tout=""):
    x, y = computable(op, a, b)
    return op.MatMul(_turned(op, x) if adj_x else x, _turned(op, y) if adj_y else y)


@to_onnx("BiasAdd", "BiasAddV1")
def bias_add(op, x, b, *, data_format="NHWC"):
    rank, _ = op.of(x)
    first = data_format.startswith("NC") and rank > 2
    a, c = computable(op, x, b)
    return narrow(op, op.Add(a, op.Unsqueeze(c, list(range(1, rank - 1))) if first else c), x)


@to_onnx("Einsum")
def einsum(op, *xs, equation):
    return op.Einsum(*xs, equation=equation)


@to_onnx("MatrixDiag")
def matrix_diag(op, x):
    return lite_places.matrix_diag(op, x)


@to_onnx("MatrixDiagV2", "MatrixDiagV3")
def matrix_diag_v3(op, x, k: Ints, rows: Int, columns: Int, padding, *, align="RIGHT_LEFT"):
    """One diagonal; `k` may be given twice."""
    if len(set(k)) > 1:
        op.reject("several diagonals")
    shift, (rank, _) = k[0], op.of(x)
    length = size(op, x, -1)
    if not isinstance(length, int):
        op.reject("the length of the diagonal is not known")
    least = [length + max(-shift, 0), length + max(shift, 0)]
    if rows < 0 and columns < 0:
        least = [max(least)] * 2                # a square
    rows, columns = (given if given >= 0 else wanted for given, wanted in zip((rows, columns), least, strict=True))
    mask = np.eye(rows, columns, shift, dtype=bool)
    # Row i of the diagonal holds element i - max(-shift, 0).
    before = max(-shift, 0)
    (a, b) = wide(op, x, padding)
    column = op.Pad(op.Unsqueeze(a, [-1]), [0] * (rank - 1) + [before, 0] + [0] * (rank - 1) + [rows - before - length, 0])
    return narrow(op, op.Where(op.const(mask), column, scalar_of(op, b)), x)


def _matrix(op: Builder, x: Value) -> tuple[int, int]:
    """The sizes of the last two axes."""
    rows, columns = op.of(x)[1][-2:]
    return (rows, columns) if isinstance(rows, int) and isinstance(columns, int) else op.reject("the shape of the matrices is not known")


def _diagonal(op: Builder, x: Value, shift: int) -> Value:
    """The elements [..., i, i + shift]."""
    rank, _ = op.of(x)
    rows, columns = _matrix(op, x)
    start = np.arange(max(min(rows + min(shift, 0), columns - max(shift, 0)), 0))
    places = np.stack([start - min(shift, 0), start + max(shift, 0)], -1).astype(np.int64)
    perm = [rank - 2, rank - 1, *range(rank - 2)]
    y = op.GatherND(op.Transpose(x, perm=perm) if rank > 2 else x, op.const(places))
    return op.Transpose(y, perm=[*range(1, rank - 1), 0]) if rank > 2 else y


@to_onnx("MatrixDiagPart")
def matrix_diag_part(op, x):
    return _diagonal(op, x, 0)


@to_onnx("MatrixDiagPartV2", "MatrixDiagPartV3")
def matrix_diag_part_v3(op, x, k: Ints, padding=None, *, align="RIGHT_LEFT"):
    return _diagonal(op, x, k[0]) if len(set(k)) == 1 else op.reject("several diagonals")


@to_onnx("MatrixSetDiagV2", "MatrixSetDiagV3")
def matrix_set_diag_v3(op, x, values, k: Ints, *, align="RIGHT_LEFT"):
    return lite_places.matrix_set_diag(op, x, values) if set(k) == {0} else op.reject("a diagonal beside the main one")


@to_onnx("Diag")
def diag(op, x):
    return lite_places.matrix_diag(op, x) if op.of(x)[0] == 1 else op.reject("the diagonal of a tensor of more than one axis")


@to_onnx("DiagPart")
def diag_part(op, x):
    return _diagonal(op, x, 0) if op.of(x)[0] == 2 else op.reject("the diagonal of a tensor of more than two axes")


@to_onnx("MatrixBandPart")
def matrix_band_part(op, x, lower, upper):
    """Zero outside of the band from `lower` below to `upper` above the diagonal; a negative number keeps that whole side."""
    if x.dtype in NARROW:
        return narrow(op, matrix_band_part(op, op.Cast(x, to=INT32), lower, upper), x)
    rows, columns = (op.Range(op.const(np.int64(0)), scalar_of(op, op.Shape(x, start=start, end=end)), op.const(np.int64(1)))
                     for start, end in ((-2, -1), (-1, END)))
    distance = op.Sub(op.Unsqueeze(rows, [1]), op.Unsqueeze(columns, [0]))

    def inside(limit: Value, far: Value) -> Value:
        return op.Or(op.Less(longs(op, limit), 0), op.LessOrEqual(far, longs(op, limit)))
    keep = op.And(inside(lower, distance), inside(upper, op.Neg(distance)))
    return op.Where(keep, x, op.const(np.zeros((), x.dtype.numpy())))


@to_onnx("MatrixInverse", "MatrixDeterminant")
def determinant(op, x, *, adjoint=0):
    return op.Det(x) if op.node.op_type == "MatrixDeterminant" else op.reject("ONNX has no inverse of matrices")


@to_onnx("Cross")
def cross(op, a, b):
    """Of vectors of three along the last axis."""
    def turned(x: Value, by: int) -> Value:
        return op.Gather(x, op.const(np.roll(np.arange(3), by)), axis=-1)
    x, y = computable(op, a, b)
    return narrow(op, op.Sub(op.Mul(turned(x, -1), turned(y, -2)), op.Mul(turned(x, -2), turned(y, -1))), a)
