"""aten -> ONNX, operator by operator. A rule's signature is the operator's schema, with Python's own numbers and lists where they are known.

Tensors are values with a type and, as a rule, a known rank. An `int` may be a value where it is known only at run time; lists may mix both.
The schemas: aten/src/ATen/native/native_functions.yaml. Numbers of dtypes in printed code: c10/core/ScalarType.h.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Mapping, Rejected, constant
from isomorph.passes.shapes import known

to_onnx = Mapping("aten")
D = ir.DataType
FLOAT, INT64, BOOL = D.FLOAT, D.INT64, D.BOOL
SCALAR_TYPES = (D.UINT8, D.INT8, D.INT16, D.INT32, D.INT64, D.FLOAT16, D.FLOAT, D.DOUBLE, None, D.COMPLEX64, D.COMPLEX128, D.BOOL, None, None, None, D.BFLOAT16,
                None, None, None, None, None, None, None, D.FLOAT8E5M2, D.FLOAT8E4M3FN, D.FLOAT8E5M2FNUZ, D.FLOAT8E4M3FNUZ, D.UINT16, D.UINT32, D.UINT64)
INTEGERS = (D.UINT8, D.INT8, D.INT16, D.INT32, D.INT64, D.UINT16, D.UINT32, D.UINT64)
WIDTH = [BOOL, D.UINT8, D.INT8, D.INT16, D.INT32, D.INT64, D.FLOAT16, D.BFLOAT16, D.FLOAT, D.DOUBLE, D.COMPLEX64, D.COMPLEX128]
END = np.iinfo(np.int64).max

UNARY = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs", "neg": "Neg", "floor": "Floor",
    "ceil": "Ceil", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh",
    "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf", "sign": "Sign", "reciprocal": "Reciprocal", "hardswish": "HardSwish", "mish": "Mish", "isnan": "IsNaN",
    "isinf": "IsInf", "selu": "Selu",
}
KEEP_INTEGERS = {"relu", "abs", "neg", "sign", "floor", "ceil"}
SAME = ("contiguous", "clone", "detach", "alias", "cpu", "dropout", "feature_dropout", "alpha_dropout", "lift_fresh", "lift_fresh_copy", "requires_grad_",
        "positive", "_assert_tensor_metadata", "resolve_conj", "resolve_neg", "data", "cuda", "native_dropout")


# ---- what the rules share

def dtype_of(number: int | None, default: Any = FLOAT) -> Any:
    """The element type of a dtype argument."""
    found = default if number is None else SCALAR_TYPES[number] if 0 <= number < len(SCALAR_TYPES) else None
    if found is None and number is not None:
        raise Rejected(f"its element type has the number {number}, which ONNX has no type for")
    return found


def cast(op: Any, x: Any, dtype: Any) -> Any:
    return x if x.dtype == dtype or dtype is None else op.Cast(x, to=dtype)


def is_float(x: Any) -> bool:
    return x.dtype not in INTEGERS and x.dtype != BOOL


def floating(op: Any, x: Any) -> Any:
    """Integers as float32, as PyTorch computes functions of them."""
    return x if is_float(x) else op.Cast(x, to=FLOAT)


def rank(op: Any, x: Any) -> int:
    return op.of(x)[0]


def axis_of(op: Any, x: Any, dim: int) -> int:
    return dim % max(rank(op, x), 1) if dim < 0 else dim


def axes_of(op: Any, x: Any, dims: Any) -> list[int]:
    if dims is None or dims == []:
        return list(range(rank(op, x)))
    return [axis_of(op, x, dim) for dim in ([dims] if isinstance(dims, int) else dims)]


def kind(x: Any) -> int:
    """0 for bool, 1 for integers, 2 for floats: what decides the type of a result."""
    if isinstance(x, ir.Value):
        return 0 if x.dtype == BOOL else 1 if x.dtype in INTEGERS else 2
    return 0 if isinstance(x, bool) else 1 if isinstance(x, int) else 2


def is_tensor(x: Any) -> bool:
    """A value that takes part in the type of a result with its width; numbers at run time count as numbers."""
    return isinstance(x, ir.Value) and "scalar" not in x.meta


def result_type(*xs: Any) -> Any:
    """PyTorch's type promotion: tensors with axes first, then those without, then numbers; a lower one counts only where its kind is higher."""
    best, most = None, -1
    flat = [is_tensor(x) and x.shape is not None and not len(x.shape) for x in xs]
    tensors = [x for x, is_flat in zip(xs, flat, strict=True) if is_tensor(x) and not is_flat]
    for group in (tensors, [x for x, is_flat in zip(xs, flat, strict=True) if is_flat], [x for x in xs if not is_tensor(x)]):
        if not group or max(map(kind, group)) <= most:
            continue
        most = max(map(kind, group))
        widths = [x.dtype for x in group if isinstance(x, ir.Value) and is_tensor(x)]
        best = max(widths, key=WIDTH.index) if widths else (BOOL, INT64, FLOAT)[most]
    return best


def promoted(op: Any, *xs: Any) -> list[Any]:
    """All operands as values of one type."""
    return as_type(op, result_type(*xs), *xs)


def as_type(op: Any, dtype: Any, *xs: Any) -> list[Any]:
    return [cast(op, x, dtype) if isinstance(x, ir.Value) else op.const(np.asarray(x, dtype.numpy())) for x in xs]


def vector(op: Any, items: Sequence[Any]) -> Any:
    """A shape from numbers and values."""
    if all(isinstance(item, int) for item in items):
        return op.const(np.asarray(items, np.int64))
    return op.Concat(*(op.const(np.asarray([item], np.int64)) if isinstance(item, int) else op.Reshape(cast(op, item, INT64), [1]) for item in items), axis=0)


def shaped(value: ir.Value, items: Sequence[Any]) -> ir.Value:
    """A value with the sizes that the program names, where inference knows less."""
    old = list(value.shape) if value.shape is not None and len(value.shape) == len(items) else [None] * len(items)
    sizes = [item if isinstance(item, int) and item >= 0 else symbol_of(item) or was for item, was in zip(items, old, strict=True)]
    value.shape = ir.Shape(sizes)
    return value


def symbol_of(item: Any) -> str | None:
    """The name of the dimension that a number of the run equals."""
    elements = known(item) if isinstance(item, ir.Value) else None
    return elements[0] if elements and len(elements) == 1 and isinstance(elements[0], str) else None


def number(op: Any, item: Any) -> Any:
    """One integer as a vector of one."""
    return vector(op, [item])


def listed(value: Any, count: int) -> list[Any]:
    """An argument that is a number for all axes, or a list of one or all of them."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return items * count if len(items) == 1 else items


def shape_of(op: Any, x: Any) -> Any:
    return op.Shape(x)


# ---- elementwise

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
    return mul(op, x, x)


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


# ---- types and creation

@to_onnx("to", "_to_copy")
def to(op, x, *args, **more):
    """Every overload: (dtype), (device, dtype), (other); what is an integer of the table is the dtype, and a tensor gives its type."""
    wanted = more.get("dtype")
    for argument in args[:2]:
        if is_tensor(argument):
            return cast(op, x, argument.dtype)
        if isinstance(argument, int) and not isinstance(argument, bool) and wanted is None:
            wanted = argument
    return x if wanted is None else cast(op, x, dtype_of(wanted))


@to_onnx("type_as")
def type_as(op, x, other):
    return cast(op, x, other.dtype)


for _name, _type in (("float", FLOAT), ("double", D.DOUBLE), ("half", D.FLOAT16), ("int", D.INT32), ("long", INT64), ("bool", BOOL), ("bfloat16", D.BFLOAT16)):
    def _typed(op, x, *rest, _type=_type):
        return cast(op, x, _type)
    to_onnx(f"_cast_{_name.capitalize()}", f"tensor_{_name}")(_typed)


def filled(op: Any, size: Sequence[Any], value: Any, dtype: Any) -> Any:
    if all(isinstance(item, int) for item in size) and math.prod(size) <= 1 << 16 and not isinstance(value, ir.Value):
        return op.const(np.full(size, value, dtype.numpy()))
    if isinstance(value, ir.Value):
        return shaped(op.Expand(cast(op, value, dtype), vector(op, size)), size)
    return shaped(op.ConstantOfShape(vector(op, size), value=np.asarray([value], dtype.numpy())), size)


@to_onnx("zeros", "empty")
def zeros(op, size, dtype=None, *rest, **more):
    return filled(op, size, 0, dtype_of(dtype))


@to_onnx("ones")
def ones(op, size, dtype=None, *rest, **more):
    return filled(op, size, 1, dtype_of(dtype))


@to_onnx("full")
def full(op, size, value, dtype=None, *rest, **more):
    return filled(op, size, value, dtype_of(dtype, (BOOL, INT64, FLOAT)[kind(value)]))


@to_onnx("scalar_tensor", "tensor")
def scalar_tensor(op, value, dtype=None, *rest, **more):
    if isinstance(value, ir.Value):
        return cast(op, value, dtype_of(dtype, value.dtype))
    if isinstance(value, (list, tuple)) and any(isinstance(item, ir.Value) for item in value):
        return cast(op, vector(op, value), dtype_of(dtype, INT64))
    array = np.asarray(value)
    return op.const(array.astype(dtype_of(dtype, {"b": BOOL, "i": INT64}.get(array.dtype.kind, FLOAT)).numpy()))


def _like(value: Any) -> Callable[..., Any]:
    def rule(op, x, dtype=None, *rest, **more):
        kept = dtype_of(dtype, x.dtype)
        _, sizes = op.of(x)
        if all(isinstance(size, int) for size in sizes):
            return filled(op, sizes, value, kept)
        return op.ConstantOfShape(op.Shape(x), value=np.asarray([value], kept.numpy()))
    return rule


to_onnx("zeros_like", "empty_like")(_like(0))
to_onnx("ones_like")(_like(1))


@to_onnx("full_like")
def full_like(op, x, value, dtype=None, *rest, **more):
    if isinstance(value, ir.Value):
        return op.Expand(cast(op, value, dtype_of(dtype, x.dtype)), op.Shape(x))
    return _like(value)(op, x, dtype)


@to_onnx("new_zeros", "new_empty")
def new_zeros(op, x, size, dtype=None, *rest, **more):
    return filled(op, size, 0, dtype_of(dtype, x.dtype))


@to_onnx("new_ones")
def new_ones(op, x, size, dtype=None, *rest, **more):
    return filled(op, size, 1, dtype_of(dtype, x.dtype))


@to_onnx("new_full")
def new_full(op, x, size, value, dtype=None, *rest, **more):
    return filled(op, size, value, dtype_of(dtype, x.dtype))


@to_onnx("arange")
def arange(op, *args, dtype=None, **more):
    """(end), (start, end), (start, end, step), each followed by dtype, layout, device and pin_memory in printed code."""
    bounds = list(args)
    if len(bounds) >= 5:
        tail = bounds[-4:]
        bounds, dtype = bounds[:-4], tail[0] if dtype is None else dtype
    start, end, step = (0, bounds[0], 1) if len(bounds) == 1 else (bounds[0], bounds[1], bounds[2] if len(bounds) > 2 else 1)
    wanted = dtype_of(dtype, FLOAT if any(kind(x) == 2 for x in (start, end, step)) else INT64)
    if all(not isinstance(x, ir.Value) for x in (start, end, step)):
        return op.const(np.arange(start, end, step).astype(wanted.numpy()))
    return cast(op, op.Range(*(op.Reshape(x, []) if isinstance(x, ir.Value) else x for x in promoted(op, start, end, step))), wanted)


@to_onnx("linspace")
def linspace(op, start, end, steps, dtype=None, *rest, **more):
    return op.const(np.linspace(start, end, steps).astype(dtype_of(dtype).numpy()))


@to_onnx("eye")
def eye(op, n, m=None, *rest, **more):
    return op.const(np.eye(n, m if isinstance(m, int) and not rest else None, dtype=np.float32))


# ---- shapes

@to_onnx("view", "reshape", "_unsafe_view", "_reshape_alias", "view_copy")
def view(op, x, size, *rest):
    """At most one size is not known: it becomes -1, so that the others stay known."""
    named = list(size)
    open_sizes = [place for place, item in enumerate(size) if not isinstance(item, int)]
    if len(open_sizes) == 1 and -1 not in [item for item in size if isinstance(item, int)]:
        size = [-1 if place == open_sizes[0] else item for place, item in enumerate(size)]
    return shaped(op.Reshape(x, vector(op, size), allowzero=1 if 0 in [item for item in size if isinstance(item, int)] else None), named)


@to_onnx("view_as", "reshape_as")
def view_as(op, x, other):
    return op.Reshape(x, op.Shape(other))


@to_onnx("flatten")
def flatten(op, x, start_dim=0, end_dim=-1):
    count, sizes = op.of(x)
    if not count:
        return op.Reshape(x, [1])
    first, last = axis_of(op, x, start_dim), axis_of(op, x, end_dim)
    joined = sizes[first:last + 1]
    size = math.prod(joined) if all(isinstance(item, int) for item in joined) else -1
    if size == -1 and any(not isinstance(item, int) for item in sizes[:first]):
        sizes = [0] * first + sizes[first:]
    kept = [item if isinstance(item, int) else None for item in (*sizes[:first], size, *sizes[last + 1:])]
    if None in kept or kept.count(-1) > 1:
        parts = ([op.Shape(x, start=0, end=first)] if first else []) + [op.const([-1])] + ([op.Shape(x, start=last + 1)] if last + 1 < count else [])
        return op.Reshape(x, op.Concat(*parts, axis=0) if len(parts) > 1 else parts[0])
    return op.Reshape(x, kept)


@to_onnx("unflatten")
def unflatten(op, x, dim, sizes):
    axis = axis_of(op, x, dim)
    parts = [*([op.Shape(x, start=0, end=axis)] if axis else []), vector(op, sizes), *([op.Shape(x, start=axis + 1)] if axis + 1 < rank(op, x) else [])]
    return op.Reshape(x, op.Concat(*parts, axis=0) if len(parts) > 1 else parts[0])


@to_onnx("squeeze")
def squeeze(op, x, dim=None):
    count, sizes = op.of(x)
    if dim is None:
        wanted = [axis for axis, size in enumerate(op.static(x)) if size == 1]
    else:
        wanted = [axis for axis in axes_of(op, x, dim) if (count and sizes[axis] == 1) or not isinstance(sizes[axis], int)]
        if any(not isinstance(sizes[axis], int) for axis in wanted):
            op.lose("torch.assumed", f"axis {wanted} is squeezed as if it were 1, which the file does not say")
    return op.Squeeze(x, op.const(wanted)) if wanted else x


@to_onnx("unsqueeze")
def unsqueeze(op, x, dim):
    return op.Unsqueeze(x, op.const([dim]))


@to_onnx("transpose", "swapaxes", "swapdims", "transpose_copy")
def transpose(op, x, dim0, dim1):
    perm = list(range(rank(op, x)))
    if not perm:
        return x
    a, b = axis_of(op, x, dim0), axis_of(op, x, dim1)
    perm[a], perm[b] = perm[b], perm[a]
    return op.Transpose(x, perm=perm)


@to_onnx("t", "numpy_T")
def t(op, x):
    return op.Transpose(x, perm=list(range(rank(op, x)))[::-1])


@to_onnx("permute")
def permute(op, x, dims):
    return op.Transpose(x, perm=axes_of(op, x, dims))


@to_onnx("movedim")
def movedim(op, x, source, destination):
    sources, targets = axes_of(op, x, source), axes_of(op, x, destination)
    rest = [axis for axis in range(rank(op, x)) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        rest.insert(target, axis)
    return op.Transpose(x, perm=rest)


@to_onnx("expand", "broadcast_to")
def expand(op, x, size, *rest, **more):
    return op.Expand(x, vector(op, [1 if isinstance(item, int) and item == -1 else item for item in size]))


@to_onnx("expand_as")
def expand_as(op, x, other):
    return op.Expand(x, op.Shape(other))


@to_onnx("repeat")
def repeat(op, x, repeats):
    missing = len(repeats) - rank(op, x)
    if missing:
        x = op.Unsqueeze(x, op.const(list(range(missing))))
    return op.Tile(x, vector(op, repeats))


@to_onnx("repeat_interleave")
def repeat_interleave(op, x, repeats, dim=None, output_size=None):
    if not isinstance(repeats, int) or dim is None:
        op.reject("repeat_interleave by other than one number along an axis")
    axis = axis_of(op, x, dim)
    wide = op.Unsqueeze(x, op.const([axis + 1]))
    tiled = op.Tile(wide, [repeats if place == axis + 1 else 1 for place in range(rank(op, x) + 1)])
    parts = [*([op.Shape(x, start=0, end=axis)] if axis else []), op.const([-1]), *([op.Shape(x, start=axis + 1)] if axis + 1 < rank(op, x) else [])]
    return op.Reshape(tiled, op.Concat(*parts, axis=0) if len(parts) > 1 else parts[0])


@to_onnx("cat", "concat", "concatenate")
def cat(op, tensors, dim=0):
    kept = [x for x in tensors if not (x.shape is not None and list(x.shape) == [0])] or tensors[:1]
    return op.Concat(*promoted(op, *kept), axis=axis_of(op, kept[0], dim)) if len(kept) > 1 else kept[0]


@to_onnx("stack")
def stack(op, tensors, dim=0):
    axis = dim % (rank(op, tensors[0]) + 1)
    return op.Concat(*(op.Unsqueeze(x, op.const([axis])) for x in promoted(op, *tensors)), axis=axis)


def sections(op: Any, x: Any, sizes: list[int], axis: int) -> list[Any]:
    if len(sizes) == 1:
        return [x]
    return list(op.Split(x, op.const(sizes), axis=axis, _outputs=len(sizes)))


def length(op: Any, x: Any, axis: int) -> int:
    size = op.of(x)[1][axis]
    return size if isinstance(size, int) else op.reject(f"the size of axis {axis} must be known")


@to_onnx("split", "split_with_sizes", "unsafe_split")
def split(op, x, size, dim=0):
    axis = axis_of(op, x, dim)
    if isinstance(size, int):
        total = length(op, x, axis)
        size = [min(size, total - start) for start in range(0, total, size)] or [0]
    return sections(op, x, list(size), axis)


@to_onnx("tensor_split")
def tensor_split(op, x, count, dim=0):
    """Into a number of parts, or between places, which may be a constant tensor."""
    axis = axis_of(op, x, dim)
    total = length(op, x, axis)
    if isinstance(count, ir.Value):
        array = constant(count)
        if array is None:
            op.reject("places that are known only at run time")
        count = array.tolist()
    if isinstance(count, list):
        bounds = [0, *(slice(place).indices(total)[1] for place in count), total]
        return [slice_(op, x, axis, low, max(high, low)) for low, high in itertools.pairwise(bounds)]
    return sections(op, x, [total // count + (place < total % count) for place in range(count)], axis)


@to_onnx("chunk", "unsafe_chunk")
def chunk(op, x, chunks, dim=0):
    axis = axis_of(op, x, dim)
    return split(op, x, -(-length(op, x, axis) // chunks), axis)


@to_onnx("unbind")
def unbind(op, x, dim=0):
    axis = axis_of(op, x, dim)
    return [select(op, x, axis, place) for place in range(length(op, x, axis))]


@to_onnx("select")
def select(op, x, dim, index):
    index = op.const(np.asarray(index, np.int64)) if isinstance(index, int) else op.Reshape(index, op.const(np.zeros(0, np.int64)))
    return op.Gather(x, index, axis=axis_of(op, x, dim))


@to_onnx("slice")
def slice_(op, x, dim=0, start=None, end=None, step=1):
    start, end = 0 if start is None else start, END if end is None else end
    if isinstance(start, int) and start == 0 and isinstance(end, int) and end == END and step == 1:
        return x
    return op.Slice(x, number(op, start), number(op, end), op.const([axis_of(op, x, dim)]), number(op, step))


@to_onnx("narrow")
def narrow(op, x, dim, start, length):
    end = start + length if isinstance(start, int) and isinstance(length, int) else op.Add(number(op, start), number(op, length))
    return slice_(op, x, dim, start, end)


@to_onnx("index_select")
def index_select(op, x, dim, index):
    if not rank(op, x):
        return op.Identity(x)
    return op.Gather(x, index, axis=axis_of(op, x, dim))


@to_onnx("gather")
def gather(op, x, dim, index, sparse_grad=False, **more):
    return op.GatherElements(x, index, axis=axis_of(op, x, dim))


@to_onnx("index")
def index_(op, x, indices):
    """x[..., i, j]: one index is a Gather, several that stand together a GatherND over broadcast indices; masks are left to NonZero."""
    places = [axis for axis, index in enumerate(indices) if index is not None]
    if any(indices[axis].dtype == BOOL for axis in places):
        if len(places) == 1 and places[0] == 0:
            return op.GatherND(x, op.Transpose(op.NonZero(indices[0]), perm=[1, 0]))
        op.reject("indexing by a mask beside other indices")
    if len(places) == 1:
        return op.Gather(x, cast(op, indices[places[0]], INT64), axis=places[0])
    if places != list(range(places[0], places[0] + len(places))):
        op.reject("indices with an axis between them")
    count = rank(op, x)
    first = places[0]
    if first:
        x = op.Transpose(x, perm=[*places, *(axis for axis in range(count) if axis not in places)])
    chosen = [cast(op, indices[axis], INT64) for axis in places]
    total = chosen[0]
    for other in chosen[1:]:
        total = op.Add(total, op.Mul(other, 0))
    shape = op.Shape(total)
    joined = op.Concat(*(op.Unsqueeze(op.Expand(index, shape), op.const([-1])) for index in chosen), axis=-1)
    result = op.GatherND(x, joined)
    if not first:
        return result
    width = rank(op, total)
    return op.Transpose(result, perm=[*range(width, width + first), *range(width), *range(width + first, rank(op, result))])


@to_onnx("roll")
def roll(op, x, shifts, dims=()):
    for shift, dim in zip(listed(shifts, 1), listed(dims, 1), strict=True):
        axis = axis_of(op, x, dim)
        x = op.Concat(slice_(op, x, axis, -shift), slice_(op, x, axis, 0, -shift), axis=axis) if shift else x
    return x


@to_onnx("flip")
def flip(op, x, dims):
    axes = axes_of(op, x, dims)
    return op.Slice(x, [-1] * len(axes), [-END] * len(axes), axes, [-1] * len(axes))


@to_onnx("tril", "triu")
def tril(op, x, diagonal=0):
    return op.Trilu(x, np.asarray(diagonal, np.int64), upper=int(op.node.op_type == "triu"))


@to_onnx("pad", "constant_pad_nd")
def pad(op, x, pad, mode="constant", value=0):
    if isinstance(mode, (int, float)) and not isinstance(mode, bool):
        mode, value = "constant", mode
    return padded(op, x, pad, {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode], value)


def padded(op: Any, x: Any, pad: Sequence[Any], mode: str, value: Any = 0) -> Any:
    """PyTorch lists (begin, end) from the last axis on."""
    axes = [rank(op, x) - 1 - place for place in range(len(pad) // 2)]
    amounts = [*pad[0::2], *pad[1::2]]
    constant_value = as_type(op, x.dtype, value or 0)[0] if mode == "constant" else None
    return op.Pad(x, vector(op, amounts), constant_value, op.const(axes), mode=mode)


for _count in (1, 2, 3):
    def _reflect(op, x, pad):
        return padded(op, x, pad, "reflect")

    def _replicate(op, x, pad):
        return padded(op, x, pad, "edge")
    to_onnx(f"reflection_pad{_count}d")(_reflect)
    to_onnx(f"replication_pad{_count}d")(_replicate)


@to_onnx("pixel_shuffle")
def pixel_shuffle(op, x, factor):
    return op.DepthToSpace(x, blocksize=factor, mode="CRD")


@to_onnx("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def upsample_nearest(op, x, size=None, *scales):
    return resized(op, x, size, [s for scale in scales for s in listed(scale, 1) if scale is not None], mode="nearest", nearest_mode="floor",
                   coordinate_transformation_mode="asymmetric")


@to_onnx("upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d", "upsample_bicubic2d")
def upsample_linear(op, x, size, align_corners, *scales):
    more = {"cubic_coeff_a": -0.75} if "bicubic" in op.node.op_type else {}
    return resized(op, x, size, [s for scale in scales for s in listed(scale, 1) if scale is not None], mode="cubic" if more else "linear",
                   coordinate_transformation_mode="align_corners" if align_corners else "pytorch_half_pixel", **more)


def resized(op: Any, x: Any, size: Any, scales: list[float], **attributes: Any) -> Any:
    if size is not None:
        target = op.Concat(op.Shape(x, start=0, end=2), vector(op, size), axis=0)
        return op.Resize(x, None, None, target, **attributes)
    scales = listed(scales, rank(op, x) - 2)
    return op.Resize(x, None, op.const(np.asarray([1, 1, *scales], np.float32)), **attributes)


# ---- reductions

def _reduce(target: str, average: bool = False) -> Callable[..., Any]:
    def rule(op, x, dim=None, keepdim=False, dtype=None, **more):
        if isinstance(dim, bool) or (dim is not None and not isinstance(dim, (int, list, tuple))):
            op.reject("a reduction with other arguments")
        x = cast(op, x, dtype_of(dtype)) if isinstance(dtype, int) else x
        if (x.dtype == BOOL and target not in ("ReduceMax", "ReduceMin")) or (x.dtype in INTEGERS and target in ("ReduceSum", "ReduceProd") and dtype is None):
            x = cast(op, x, INT64)
        axes = None if dim is None or dim == [] or not rank(op, x) else op.const(axes_of(op, x, dim))
        return op.make(target, [floating(op, x) if average else x, axes], {"keepdims": int(keepdim)})
    return rule


to_onnx("mean")(_reduce("ReduceMean", True))
to_onnx("sum")(_reduce("ReduceSum"))
to_onnx("amax")(_reduce("ReduceMax"))
to_onnx("amin")(_reduce("ReduceMin"))
to_onnx("logsumexp")(_reduce("ReduceLogSumExp", True))


@to_onnx("prod")
def prod(op, x, dim=None, keepdim=False, **more):
    return _reduce("ReduceProd")(op, x, dim, keepdim)


def _extreme(target: str, choose: str, pair: Callable) -> Callable[..., Any]:
    def rule(op, x, dim=None, keepdim=False):
        if is_tensor(dim):
            return pair(op, x, dim)
        if dim is None:
            return op.make(target, [x], {"keepdims": 0})
        axis = axis_of(op, x, dim)
        return [op.make(target, [x, op.const([axis])], {"keepdims": int(keepdim)}), op.make(choose, [x], {"axis": axis, "keepdims": int(keepdim)})]
    return rule


to_onnx("max")(_extreme("ReduceMax", "ArgMax", maximum))
to_onnx("min")(_extreme("ReduceMin", "ArgMin", minimum))


@to_onnx("argmax", "argmin")
def argmax(op, x, dim=None, keepdim=False):
    target = "ArgMax" if op.node.op_type == "argmax" else "ArgMin"
    if dim is None:
        return op.make(target, [op.Reshape(x, [-1])], {"axis": 0, "keepdims": 0})
    return op.make(target, [x], {"axis": axis_of(op, x, dim), "keepdims": int(keepdim)})


@to_onnx("any", "all")
def any_(op, x, dim=None, keepdim=False):
    axes = None if dim is None else op.const(axes_of(op, x, dim))
    target = "ReduceMax" if op.node.op_type == "any" else "ReduceMin"
    return cast(op, op.make(target, [cast(op, cast(op, x, BOOL), D.INT32), axes], {"keepdims": int(keepdim)}), BOOL)


def _variance(op: Any, x: Any, dims: Any, correction: float, keepdim: bool) -> Any:
    axes = axes_of(op, x, dims)
    centred = op.Sub(x, op.ReduceMean(x, op.const(axes), keepdims=1))
    total = op.ReduceMean(op.Mul(centred, centred), op.const(axes), keepdims=int(keepdim))
    if not correction:
        return total
    count = math.prod(length(op, x, axis) for axis in axes)
    return op.Mul(total, count / (count - correction))


@to_onnx("var", "std")
def var(op, x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    amount = correction if correction is not None else float(bool(unbiased))
    result = _variance(op, x, dim, amount, keepdim)
    return op.Sqrt(result) if op.node.op_type == "std" else result


@to_onnx("norm", "linalg_vector_norm", "frobenius_norm")
def norm(op, x, p=2, dim=None, keepdim=False, dtype=None):
    target = {1: "ReduceL1", 2: "ReduceL2", None: "ReduceL2", "fro": "ReduceL2"}.get(p)
    if target is None:
        op.reject(f"the norm {p}")
    return op.make(target, [x, None if dim is None else op.const(axes_of(op, x, dim))], {"keepdims": int(keepdim)})


@to_onnx("cumsum")
def cumsum(op, x, dim, dtype=None, **more):
    x = cast(op, x, dtype_of(dtype, x.dtype if is_float(x) else INT64))
    return op.CumSum(x, np.asarray(axis_of(op, x, dim), np.int64))


@to_onnx("topk")
def topk(op, x, k, dim=-1, largest=True, sorted=True):
    return list(op.TopK(x, number(op, k), axis=axis_of(op, x, dim), largest=int(largest), sorted=int(sorted), _outputs=2))


@to_onnx("sort")
def sort(op, x, dim=-1, descending=False, **more):
    axis = axis_of(op, x, dim)
    return list(op.TopK(x, op.Shape(x, start=axis, end=axis + 1), axis=axis, largest=int(descending), _outputs=2))


@to_onnx("argsort")
def argsort(op, x, dim=-1, descending=False, **more):
    return sort(op, x, dim, descending)[1]


@to_onnx("nonzero")
def nonzero(op, x):
    return op.Transpose(op.NonZero(x), perm=[1, 0])


# ---- products

@to_onnx("linear")
def linear(op, x, weight, bias=None):
    """x times the transposed weight; a constant weight is turned lazily."""
    turned = op.turned(weight) if len(weight.shape) == 2 else weight
    product = op.MatMul(x, turned)
    return op.Add(product, bias) if bias is not None else product


@to_onnx("matmul", "mm", "bmm", "mv", "dot")
def matmul(op, x, y):
    return op.MatMul(*promoted(op, x, y))


@to_onnx("addmm")
def addmm(op, bias, x, y, beta=1, alpha=1):
    return op.Gemm(x, y, bias, alpha=float(alpha), beta=float(beta))


@to_onnx("baddbmm")
def baddbmm(op, bias, x, y, beta=1, alpha=1):
    return op.Add(scaled(op, bias, beta), scaled(op, op.MatMul(x, y), alpha))


@to_onnx("einsum")
def einsum(op, equation, tensors, path=None):
    return op.Einsum(*tensors, equation=equation.replace(" ", ""))


@to_onnx("outer")
def outer(op, x, y):
    return op.Mul(op.Unsqueeze(x, op.const([1])), op.Unsqueeze(y, op.const([0])))


@to_onnx("embedding")
def embedding(op, weight, indices, *rest):
    return op.Gather(weight, indices, axis=0)


@to_onnx("one_hot")
def one_hot(op, x, classes=-1):
    if classes == -1:
        op.reject("one_hot of a number of classes that depends on the data")
    return op.OneHot(x, np.asarray(classes, np.int64), np.asarray([0, 1], np.int64), axis=-1)


@to_onnx("scaled_dot_product_attention")
def attention(op, q, k, v, mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False):
    """softmax(q k^T * scale + mask) v, over the last two axes."""
    if enable_gqa:
        op.reject("grouped queries")
    turned = op.Transpose(k, perm=[*range(rank(op, k) - 2), rank(op, k) - 1, rank(op, k) - 2])
    factor = scale if scale is not None else 1 / math.sqrt(length(op, q, rank(op, q) - 1))
    scores = op.Mul(op.MatMul(q, turned), float(factor))
    if is_causal:
        row, column = (op.Range(np.asarray(0, np.int64), op.Reshape(op.Shape(x, start=-2, end=-1), op.const(np.zeros(0, np.int64))), np.asarray(1, np.int64))
                       for x in (q, k))
        mask = op.LessOrEqual(op.Unsqueeze(column, op.const([0])), op.Unsqueeze(row, op.const([1])))
    if mask is not None and mask.dtype == BOOL:
        scores = op.Where(mask, scores, op.const(np.asarray(-np.inf, q.dtype.numpy())))
    elif mask is not None:
        scores = op.Add(scores, mask)
    return op.MatMul(op.Softmax(scores, axis=-1), v)


# ---- convolutions, pools, norms

def convolved(op: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    spatial = len(weight.shape) - 2
    unbatched = rank(op, x) == spatial + 1
    x = op.Unsqueeze(x, op.const([0])) if unbatched else x
    where = {"auto_pad": {"same": "SAME_UPPER", "valid": "VALID"}[padding]} if isinstance(padding, str) else {"pads": listed(padding, spatial) * 2}
    y = op.Conv(x, weight, bias, strides=listed(stride, spatial), dilations=listed(dilation, spatial), group=groups, **where)
    return op.Squeeze(y, op.const([0])) if unbatched else y


@to_onnx("conv1d", "conv2d", "conv3d")
def conv(op, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    return convolved(op, x, weight, bias, stride, padding, dilation, groups)


@to_onnx("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(op, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    spatial = len(weight.shape) - 2
    return op.ConvTranspose(x, weight, bias, strides=listed(stride, spatial), pads=listed(padding, spatial) * 2, output_padding=listed(output_padding, spatial),
                            dilations=listed(dilation, spatial), group=groups)


@to_onnx("_convolution", "convolution")
def convolution(op, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *tuning):
    if transposed:
        return conv_transpose(op, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolved(op, x, weight, bias, stride, padding, dilation, groups)


@to_onnx("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(op, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    spatial = int(op.node.op_type[-2])
    kernel = listed(kernel_size, spatial)
    return op.MaxPool(x, kernel_shape=kernel, strides=listed(stride, spatial) if stride else kernel, pads=listed(padding, spatial) * 2,
                      dilations=listed(dilation, spatial), ceil_mode=int(ceil_mode))


@to_onnx("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(op, x, kernel_size, stride=(), padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    spatial = int(op.node.op_type[-2])
    if divisor_override:
        op.reject("an average with a divisor of its own")
    kernel = listed(kernel_size, spatial)
    return op.AveragePool(x, kernel_shape=kernel, strides=listed(stride, spatial) if stride else kernel, pads=listed(padding, spatial) * 2,
                          ceil_mode=int(ceil_mode), count_include_pad=int(count_include_pad))


@to_onnx("_adaptive_avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool1d")
def adaptive_pool(op, x, output_size):
    """One cell is a global pool; sizes that divide are a pool of their quotient."""
    spatial = int(op.node.op_type[-2])
    average = "avg" in op.node.op_type
    wanted = listed(output_size, spatial)
    if all(size == 1 for size in wanted):
        axes = list(range(rank(op, x) - spatial, rank(op, x)))
        result = op.make("ReduceMean" if average else "ReduceMax", [x, op.const(axes)], {"keepdims": 1})
        return result if average else [result, None]
    sizes = [length(op, x, rank(op, x) - spatial + place) for place in range(spatial)]
    wanted = [size if size is not None else given for size, given in zip(wanted, sizes, strict=True)]
    if any(given % size for size, given in zip(wanted, sizes, strict=True)):
        op.reject(f"an adaptive pool from {sizes} to {wanted}")
    kernel = [given // size for size, given in zip(wanted, sizes, strict=True)]
    result = op.make("AveragePool" if average else "MaxPool", [x], {"kernel_shape": kernel, "strides": kernel})
    return result if average else [result, None]


@to_onnx("batch_norm")
def batch_norm(op, x, weight, bias, mean, variance, training=False, momentum=0.1, eps=1e-5, cudnn_enabled=True):
    if training or mean is None:
        op.reject("a normalisation in training mode")
    size = mean.shape[0]
    weight = op.const(np.ones(size, np.float32)) if weight is None else weight
    bias = op.const(np.zeros(size, np.float32)) if bias is None else bias
    return op.BatchNormalization(x, weight, bias, mean, variance, epsilon=float(eps))


@to_onnx("layer_norm")
def layer_norm(op, x, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True):
    weight = op.const(np.ones(normalized_shape, x.dtype.numpy())) if weight is None else weight
    return op.LayerNormalization(x, weight, bias, axis=-len(normalized_shape), epsilon=float(eps))


@to_onnx("rms_norm")
def rms_norm(op, x, normalized_shape, weight=None, eps=None):
    weight = op.const(np.ones(normalized_shape, x.dtype.numpy())) if weight is None else weight
    return op.RMSNormalization(x, weight, axis=-len(normalized_shape), epsilon=float(eps if eps is not None else np.finfo(x.dtype.numpy()).eps))


@to_onnx("group_norm")
def group_norm(op, x, groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    channels = length(op, x, 1)
    weight = op.const(np.ones(channels, np.float32)) if weight is None else weight
    bias = op.const(np.zeros(channels, np.float32)) if bias is None else bias
    return op.GroupNormalization(x, weight, bias, num_groups=groups, epsilon=float(eps))


@to_onnx("instance_norm")
def instance_norm(op, x, weight, bias, mean, variance, use_input_stats, momentum=0.1, eps=1e-5, cudnn_enabled=True):
    if not use_input_stats:
        return batch_norm(op, x, weight, bias, mean, variance, False, momentum, eps)
    channels = length(op, x, 1)
    weight = op.const(np.ones(channels, np.float32)) if weight is None else weight
    bias = op.const(np.zeros(channels, np.float32)) if bias is None else bias
    return op.InstanceNormalization(x, weight, bias, epsilon=float(eps))


@to_onnx("native_layer_norm")
def native_layer_norm(op, x, normalized_shape, weight, bias, eps):
    """With the mean and the reciprocal of the deviation."""
    scale = op.const(np.ones(normalized_shape, x.dtype.numpy())) if weight is None else weight
    return list(op.LayerNormalization(x, scale, bias, axis=-len(normalized_shape), epsilon=float(eps), _outputs=3))


@to_onnx("_native_batch_norm_legit_no_training")
def native_batch_norm(op, x, weight, bias, mean, variance, momentum, eps):
    return [batch_norm(op, x, weight, bias, mean, variance, False, momentum, eps), None, None]


@to_onnx("native_group_norm")
def native_group_norm(op, x, weight, bias, n, channels, size, groups, eps):
    return [group_norm(op, x, groups, weight, bias, eps), None, None]


@to_onnx("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool_with_indices(op, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    """ONNX counts from the first element of the tensor, PyTorch inside each channel; what is no batch becomes one."""
    spatial = int(op.node.op_type[8])
    kernel, single = listed(kernel_size, spatial), rank(op, x) == spatial + 1
    whole = op.Unsqueeze(x, op.const([0])) if single else x
    y, places = op.MaxPool(whole, kernel_shape=kernel, strides=listed(stride, spatial) if stride else kernel, pads=listed(padding, spatial) * 2,
                           dilations=listed(dilation, spatial), ceil_mode=int(ceil_mode), _outputs=2)
    image = op.ReduceProd(op.Shape(whole, start=2), keepdims=0)
    both = [y, op.Mod(places, image)]
    return [op.Squeeze(value, op.const([0])) for value in both] if single else both


@to_onnx("softmax", "_softmax")
def softmax(op, x, dim, dtype=None, **more):
    x = cast(op, x, dtype_of(dtype)) if isinstance(dtype, int) and not isinstance(dtype, bool) else x
    return op.Softmax(x, axis=axis_of(op, x, dim))


@to_onnx("log_softmax", "_log_softmax")
def log_softmax(op, x, dim, dtype=None, **more):
    x = cast(op, x, dtype_of(dtype)) if isinstance(dtype, int) and not isinstance(dtype, bool) else x
    return op.LogSoftmax(x, axis=axis_of(op, x, dim))


@to_onnx("glu")
def glu(op, x, dim=-1):
    a, b = chunk(op, x, 2, dim)
    return op.Mul(a, op.Sigmoid(b))


# ---- recurrent

@to_onnx("lstm_cell")
def lstm_cell(op, x, hidden, w_ih, w_hh, b_ih=None, b_hh=None):
    """Gates i, f, g, o side by side."""
    gates = op.Add(linear(op, x, w_ih, b_ih), linear(op, hidden[0], w_hh, b_hh))
    i, f, g, o = sections(op, gates, [w_ih.shape[0] // 4] * 4, 1)
    cell = op.Add(op.Mul(op.Sigmoid(f), hidden[1]), op.Mul(op.Sigmoid(i), op.Tanh(g)))
    return [op.Mul(op.Sigmoid(o), op.Tanh(cell)), cell]


@to_onnx("gru_cell")
def gru_cell(op, x, hidden, w_ih, w_hh, b_ih=None, b_hh=None):
    size = w_ih.shape[0] // 3
    r, z, n = sections(op, linear(op, x, w_ih, b_ih), [size] * 3, 1)
    hr, hz, hn = sections(op, linear(op, hidden, w_hh, b_hh), [size] * 3, 1)
    reset, update = op.Sigmoid(op.Add(r, hr)), op.Sigmoid(op.Add(z, hz))
    new = op.Tanh(op.Add(n, op.Mul(reset, hn)))
    return op.Add(new, op.Mul(update, op.Sub(hidden, new)))


def _recurrent(op: Any, target: str, order: list[int], x: Any, states: list[Any], params: list[Any], has_biases: bool, layers: int, bidirectional: bool,
               batch_first: bool) -> tuple[Any, list[Any]]:
    """Layers one after the other; ONNX wants its own order of gates, directions first, and both biases in one."""
    directions = 2 if bidirectional else 1
    per = 4 if has_biases else 2
    if len(params) != layers * directions * per:
        op.reject("recurrent layers with projections")
    y = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    finals: list[list[Any]] = [[] for _ in states]
    for layer in range(layers):
        rows = [params[(layer * directions + d) * per:(layer * directions + d + 1) * per] for d in range(directions)]
        arrays = [[constant(value) for value in row] for row in rows]
        if any(array is None for row in arrays for array in row):
            op.reject("recurrent weights that are computed")
        hidden = arrays[0][1].shape[1]

        def gates(array: np.ndarray, hidden: int = hidden) -> np.ndarray:
            parts = [array[place * hidden:(place + 1) * hidden] for place in range(len(order))]
            return np.concatenate([parts[place] for place in order])
        w, r = (np.stack([gates(row[place]) for row in arrays]) for place in (0, 1))
        b = np.stack([np.concatenate([gates(row[2]), gates(row[3])]) for row in arrays]) if has_biases else None
        initial = [op.Slice(state, [layer * directions], [(layer + 1) * directions], [0]) if layers > 1 else state for state in states]
        more = {"linear_before_reset": 1} if target == "GRU" else {}
        outputs = op.make(target, [y, op.const(w), op.const(r), None if b is None else op.const(b), None, *initial],
                          {"hidden_size": hidden, "direction": "bidirectional" if bidirectional else "forward", **more}, outputs=1 + len(states))
        y = op.Reshape(op.Transpose(outputs[0], perm=[0, 2, 1, 3]), [0, 0, directions * hidden])
        for final, output in zip(finals, outputs[1:], strict=True):
            final.append(output)
    joined = [final[0] if layers == 1 else op.Concat(*final, axis=0) for final in finals]
    return op.Transpose(y, perm=[1, 0, 2]) if batch_first else y, joined


@to_onnx("lstm")
def lstm(op, x, hidden, params, has_biases, num_layers, dropout, train, bidirectional, batch_first):
    y, states = _recurrent(op, "LSTM", [0, 3, 1, 2], x, list(hidden), list(params), has_biases, num_layers, bidirectional, batch_first)
    return [y, *states]


@to_onnx("gru")
def gru(op, x, hidden, params, has_biases, num_layers, dropout, train, bidirectional, batch_first):
    y, states = _recurrent(op, "GRU", [1, 0, 2], x, [hidden], list(params), has_biases, num_layers, bidirectional, batch_first)
    return [y, *states]
