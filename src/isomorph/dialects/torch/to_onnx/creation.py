"""aten -> ONNX: types, and tensors made of nothing."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import BOOL, FLOAT, INT64, D, cast, dtype_of, is_tensor, kind, promoted, shaped, to_onnx, vector


@to_onnx("to", "_to_copy")
def to(op, x, *args, **more):
    """Every overload: (dtype), (device, dtype), (other); what is an integer of the table is the dtype, and a tensor gives its type."""
    wanted = more.get("dtype")
    if not isinstance(x, ir.Value):                # a size that traces hold as a tensor
        x = scalar_tensor(op, x)
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


@to_onnx("rand_like", "randn_like")
def random_like(op, x, dtype=None, *rest):
    """From 0 up to 1, or around 0 with a deviation of 1."""
    op.lose("values.random", "random numbers of the same distribution, but other ones")
    return (op.RandomUniformLike if op.node.op_type == "rand_like" else op.RandomNormalLike)(x, dtype=int(dtype_of(dtype, x.dtype)))


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
    if isinstance(start, ir.Value) or isinstance(end, ir.Value):
        if not isinstance(steps, int) or steps > 1 << 24:
            op.reject("a number of steps that only the run knows")
        first, last = (cast(op, x, D.DOUBLE) if isinstance(x, ir.Value) else op.const(np.asarray(x, np.float64)) for x in (start, end))
        parts = op.Mul(op.Sub(last, first), op.const(np.arange(steps) / max(steps - 1, 1)))
        return cast(op, op.Add(first, parts), dtype_of(dtype))
    return op.const(np.linspace(start, end, steps).astype(dtype_of(dtype).numpy()))


@to_onnx("logspace")
def logspace(op, start, end, steps, base=10.0, dtype=None, *rest, **more):
    powers = linspace(op, start, end, steps, 7)
    return cast(op, op.Pow(op.const(np.asarray(base, np.float64)), powers), dtype_of(dtype))


@to_onnx("eye")
def eye(op, n, m=None, *rest, **more):
    return op.const(np.eye(n, m if isinstance(m, int) and not rest else None, dtype=np.float32))
