"""What the rules of aten -> ONNX share: the table, types and their promotion, axes, shapes of numbers and values."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Mapping, Rejected
from isomorph.passes.shapes import known

to_onnx = Mapping("aten")
D = ir.DataType
FLOAT, INT64, BOOL = D.FLOAT, D.INT64, D.BOOL
SCALAR_TYPES = (D.UINT8, D.INT8, D.INT16, D.INT32, D.INT64, D.FLOAT16, D.FLOAT, D.DOUBLE, None, D.COMPLEX64, D.COMPLEX128, D.BOOL, None, None, None, D.BFLOAT16,
                None, None, None, None, None, None, None, D.FLOAT8E5M2, D.FLOAT8E4M3FN, D.FLOAT8E5M2FNUZ, D.FLOAT8E4M3FNUZ, D.UINT16, D.UINT32, D.UINT64)
INTEGERS = (D.UINT8, D.INT8, D.INT16, D.INT32, D.INT64, D.UINT16, D.UINT32, D.UINT64)
WIDTH = [BOOL, D.UINT8, D.INT8, D.INT16, D.INT32, D.INT64, D.FLOAT16, D.BFLOAT16, D.FLOAT, D.DOUBLE, D.COMPLEX64, D.COMPLEX128]
MOST_IMPLIED = 1 << 24                     # elements of a constant that only a number in the program asks for
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
    sizes = [item if (isinstance(item, int) and item >= 0) or isinstance(item, str) else symbol_of(item) or was for item, was in zip(items, old, strict=True)]
    value.shape = ir.Shape(sizes)
    return value


def symbol_of(item: Any) -> str | None:
    """The name of the dimension that a number of the run equals."""
    elements = known(item) if isinstance(item, ir.Value) else None
    return elements[0] if elements and len(elements) == 1 and isinstance(elements[0], str) else None


def filled_with(op: Any, value: float, sizes: Sequence[int], dtype: Any = FLOAT) -> Any:
    """A constant that stands for weights that a call does without. Rejects the call where they are more than a file would hold."""
    if math.prod(sizes) > MOST_IMPLIED:
        op.reject(f"{math.prod(sizes):,} elements that stand for absent weights")
    return op.const(np.full(sizes, value, dtype.numpy()))


def number(op: Any, item: Any) -> Any:
    """One integer as a vector of one."""
    return vector(op, [item])


def listed(value: Any, count: int) -> list[Any]:
    """An argument that is a number for all axes, or a list of one or all of them."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return items * count if len(items) == 1 else items


def shape_of(op: Any, x: Any) -> Any:
    return op.Shape(x)
