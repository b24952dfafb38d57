"""ONNX -> Keras, operator by operator. The passes before have folded constants, decomposed what Keras lacks, and put convolutions and pools channels-last."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Int, Ints, constant
from isomorph.dialects.keras.from_onnx.writing import LayerBuilder as Op
from isomorph.dialects.keras.from_onnx.writing import Value, from_onnx, number, type_name

T = ir.DataType
REAL = {T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16}
SIGNED = REAL | {T.INT8, T.INT16, T.INT32, T.INT64}
COMPLEX = {T.COMPLEX64, T.COMPLEX128}

# ONNX operator -> class of keras.ops, where arguments and results are the same
SAME = {
    "Abs": "Absolute", "Ceil": "Ceil", "Floor": "Floor", "Round": "Round", "Exp": "Exp", "Log": "Log", "Sqrt": "Sqrt", "Sin": "Sin", "Cos": "Cos", "Tan": "Tan",
    "Sinh": "Sinh", "Cosh": "Cosh", "Asin": "Arcsin", "Acos": "Arccos", "Atan": "Arctan", "Asinh": "Arcsinh", "Acosh": "Arccosh", "Atanh": "Arctanh",
    "Neg": "Negative", "Sign": "Sign", "Erf": "Erf", "IsNaN": "Isnan", "Reciprocal": "Reciprocal", "Sigmoid": "Sigmoid", "Tanh": "Tanh", "Relu": "Relu",
    "Softplus": "Softplus", "Softsign": "Softsign", "Not": "LogicalNot", "Sub": "Subtract", "Mul": "Multiply", "Max": "Maximum", "Min": "Minimum",
    "Equal": "Equal", "Greater": "Greater", "Less": "Less", "GreaterOrEqual": "GreaterEqual", "LessOrEqual": "LessEqual", "And": "LogicalAnd",
    "Or": "LogicalOr", "Xor": "LogicalXor", "Where": "Where", "MatMul": "Matmul", "BitwiseAnd": "BitwiseAnd", "BitwiseOr": "BitwiseOr",
    "BitwiseXor": "BitwiseXor", "BitwiseNot": "BitwiseInvert", "Identity": "Copy", "Det": "Det", "Rsqrt": "Rsqrt", "Relu6": "Relu6", "NotEqual": "NotEqual",
    "Atan2": "Arctan2", "Mish": "Mish",
}
TRUTH = {"Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "NotEqual"}


def _same(kind: str) -> Any:
    def rule(op: Op, *xs: Value) -> Value:
        return op.ops(kind, *xs)
    return rule


for _name, _kind in SAME.items():
    from_onnx(_name)(_same(_kind))


@from_onnx("Add")
def add(op, a, b):
    """Keras 3 takes a second operand with one long axis for a bias of the last axis, whichever axis it is; the first it leaves alone."""
    long = [op.of(x)[0] > 1 and sum(size != 1 for size in op.of(x)[1]) == 1 for x in (a, b)]
    if all(long) and a.dtype in SIGNED:
        known = constant(b)
        return op.ops("Subtract", a, op.ops("Negative", b) if known is None else op.const(-known))
    return op.ops("Add", b, a) if long[1] else op.ops("Add", a, b)


@from_onnx("Div")
def divide(op, a, b):
    """Integers divide towards zero."""
    if a.dtype in REAL or a.dtype in COMPLEX:
        return op.ops("Divide", a, b)
    if a.dtype.name.startswith("UINT"):
        return op.ops("FloorDivide", a, b)
    quotient = op.ops("Divide", op.cast(a, T.DOUBLE), op.cast(b, T.DOUBLE), _dtype=T.DOUBLE)
    return op.cast(op.ops("Trunc", quotient), a.dtype)


@from_onnx("Pow")
def power(op, a, b):
    """ONNX keeps the type of the base."""
    if a.dtype == b.dtype:
        return op.ops("Power", a, b)
    if a.dtype in REAL:
        return op.ops("Power", a, op.cast(b, a.dtype))
    wide = op.ops("Power", op.cast(a, T.DOUBLE), op.cast(b, T.DOUBLE), _dtype=T.DOUBLE)
    return op.cast(wide, a.dtype)


@from_onnx("Mod")
def mod(op, a, b, *, fmod=0):
    if not fmod:
        return op.ops("Mod", a, b)
    wide = a if a.dtype in REAL else op.cast(a, T.DOUBLE)
    other = b if b.dtype in REAL else op.cast(b, T.DOUBLE)
    whole = op.ops("Trunc", op.ops("Divide", wide, other))
    return op.cast(op.ops("Subtract", wide, op.ops("Multiply", whole, other)), a.dtype)


@from_onnx("IsInf")
def is_inf(op, x, *, detect_negative=1, detect_positive=1):
    kind = "Isinf" if detect_negative and detect_positive else "Isposinf" if detect_positive else "Isneginf"
    return op.ops(kind, x)


@from_onnx("Cast")
def cast(op, x, *, to, saturate=1, round_mode="up"):
    to = ir.DataType(to)
    if T.STRING in (to, x.dtype) or to.name.startswith(("FLOAT8", "INT4", "UINT4", "FLOAT4", "INT2", "UINT2", "FLOAT6")) or x.dtype.name.startswith(
            ("FLOAT8", "INT4", "UINT4", "FLOAT4", "INT2", "UINT2", "FLOAT6")):
        op.reject(f"Keras does not cast {x.dtype.name} to {to.name}")
    return op.ops("Cast", x, dtype=type_name(to))


@from_onnx("LeakyRelu")
def leaky_relu(op, x, *, alpha=0.01):
    return op.ops("LeakyRelu", x, negative_slope=float(alpha))


@from_onnx("Elu")
def elu(op, x, *, alpha=1.0):
    return op.ops("Elu", x, alpha=float(alpha))


@from_onnx("Celu")
def celu(op, x, *, alpha=1.0):
    return op.ops("Celu", x, alpha=float(alpha))


@from_onnx("Gelu")
def gelu(op, x, *, approximate="none"):
    return op.ops("Gelu", x, approximate=approximate == "tanh")


@from_onnx("Softmax", "LogSoftmax")
def softmax(op, x, *, axis=-1):
    return op.ops(op.node.op_type, x, axis=axis)


@from_onnx("Clip")
def clip(op, x, low=None, high=None):
    if low is not None and high is not None and number(low) is not None and number(high) is not None and x.dtype == T.FLOAT:
        return op.ops("Clip", x, x_min=number(low), x_max=number(high))
    x = x if low is None else op.ops("Maximum", x, low)
    x = x if high is None else op.ops("Minimum", x, high)
    return x if low is not None or high is not None else op.ops("Copy", x)


@from_onnx("BitShift")
def bit_shift(op, x, y, *, direction):
    kind = "BitwiseRightShift" if direction == "RIGHT" else "BitwiseLeftShift"
    return op.ops(kind, x, y)


# ---- shapes

@from_onnx("Reshape")
def reshape(op, x, shape, *, allowzero=0):
    """One size may be left open."""
    _, out = op.of(op.outputs[0])
    sizes = [size if isinstance(size, int) else -1 for size in out]
    if sizes.count(-1) > 1:
        op.reject("more than one size is not known")
    return op.ops("Reshape", x, newshape=sizes)


@from_onnx("Flatten")
def flatten(op, x, *, axis=1):
    rank, sizes = op.of(x)
    if axis == 1 and rank > 1 and all(isinstance(size, int) for size in sizes[1:]):
        return op.layer("Flatten", x)
    return reshape(op, x, None)


@from_onnx("Squeeze")
def squeeze(op, x, axes: Ints | None = None):
    rank, sizes = op.of(x)
    chosen = [axis % rank for axis in axes] if axes is not None else [i for i, size in enumerate(sizes) if size == 1]
    if not chosen:
        return op.ops("Copy", x)
    for axis in sorted(chosen, reverse=True):
        sizes = sizes[:axis] + sizes[axis + 1:]
        x = op.ops("Squeeze", x, axis=axis, _dtype=x.dtype, _shape=sizes)
    return x


@from_onnx("Unsqueeze")
def unsqueeze(op, x, axes: Ints):
    rank, sizes = op.of(x)
    for axis in sorted(axis % (rank + len(axes)) for axis in axes):
        sizes = [*sizes[:axis], 1, *sizes[axis:]]
        x = op.ops("ExpandDims", x, axis=axis, _dtype=x.dtype, _shape=sizes)
    return x


@from_onnx("Transpose")
def transpose(op, x, *, perm=None):
    return op.ops("Transpose", x, axes=list(perm) if perm is not None else list(range(op.of(x)[0]))[::-1])


@from_onnx("Shape")
def shape(op, x, *, start=0, end=None):
    """Sizes that are not known: how many elements one line along the axis has."""
    rank, sizes = op.of(x)
    parts: list[Any] = []
    for axis in range(rank)[slice(start, end)]:
        size = sizes[axis]
        parts.append(op.const(np.asarray([size])) if isinstance(size, int) else op.ops("ExpandDims", count(op, x, axis), axis=0, _dtype=T.INT64, _shape=[1]))
    if len(parts) == 1:
        return parts[0]
    return op.ops("Concatenate", parts, axis=0, _dtype=T.INT64)


def count(op: Op, x: Value, axis: int) -> Value:
    rank = op.of(x)[0]
    line = op.ops("GetItem", x, [0 if place != axis else {"slice": [None, None, None]} for place in range(rank)], _dtype=x.dtype,
        _shape=[None]) if rank > 1 else x
    ones = op.ops("OnesLike", line, dtype="int64", _dtype=T.INT64, _shape=[None])
    return op.ops("Sum", ones, axis=None, keepdims=False, _dtype=T.INT64, _shape=[])


@from_onnx("Size")
def size_of(op, x):
    return op.ops("Sum", op.ops("OnesLike", x, dtype="int64", _dtype=T.INT64), axis=None, keepdims=False, _dtype=T.INT64, _shape=[])


@from_onnx("Expand")
def expand(op, x, shape):
    out = op.of(op.outputs[0])[1]
    if all(isinstance(size, int) for size in out):
        return op.ops("BroadcastTo", x, shape=list(out))
    known = constant(shape)
    if known is None:
        op.reject("the result's sizes are not known")
    if x.dtype in (T.STRING, T.BOOL):
        op.reject("texts and truth values cannot be expanded to a size that is not known")
    return op.ops("Multiply", x, op.const(np.ones(known.tolist(), x.dtype.numpy())))


@from_onnx("Tile")
def tile(op, x, repeats: Ints):
    return op.ops("Tile", x, repeats=list(repeats))


@from_onnx("Concat")
def concat(op, *xs, axis):
    rank = op.of(op.outputs[0])[0]
    return op.ops("Concatenate", list(xs), axis=axis % rank) if len(xs) > 1 else op.ops("Copy", xs[0])


@from_onnx("Split")
def split(op, x, split: Ints | None = None, *, axis=0, num_outputs=None):
    rank, sizes = op.of(x)
    axis, outputs, whole = axis % rank, len(op.outputs), sizes[axis % rank]
    if split is None and not isinstance(whole, int):
        op.reject("the size of the split axis is not known")
    each = -(-whole // outputs) if split is None else 0
    parts = list(split) if split is not None else [each] * (outputs - 1) + [whole - each * (outputs - 1)]
    if outputs == 1:
        return op.ops("Copy", x)
    return op.ops("Split", x, indices_or_sections=[int(edge) for edge in np.cumsum(parts)[:-1]], axis=axis, _outputs=outputs)


@from_onnx("Slice")
def slice_of(op, x, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None):
    """As Python slices; ONNX clips bounds that lie outside, as Python does."""
    rank, sizes = op.of(x)
    chosen = tuple(range(len(starts))) if axes is None else tuple(axis % rank for axis in axes)
    steps = steps or (1,) * len(chosen)
    keys: list[Any] = [{"slice": [None, None, None]}] * rank
    for axis, start, end, step in zip(chosen, starts, ends, steps, strict=True):
        keys[axis] = {"slice": bounds(start, end, step, sizes[axis])}
    return op.ops("GetItem", x, keys)


def bounds(start: int, end: int, step: int, size: Any) -> list[Any]:
    """Python's bounds: what lies beyond the ends is left open."""
    if isinstance(size, int):
        first, last, step = slice(start, end, step).indices(size)
        return [first, None if last < 0 else last, step]
    far = 1 << 31
    if step > 0:
        return [None if start in (0, -far) or start <= -far else start, None if end >= far - 1 else end, step]
    return [None if start >= far - 1 or start == -1 else start, None if end <= -far else end, step]


@from_onnx("Pad")
def pad(op, x, pads: Ints, value=None, axes: Ints | None = None, *, mode="constant"):
    rank = op.of(x)[0]
    chosen = range(rank) if axes is None else [axis % rank for axis in axes]
    widths = [[0, 0] for _ in range(rank)]
    for place, axis in enumerate(chosen):
        widths[axis] = [pads[place], pads[place + len(pads) // 2]]
    if any(width < 0 for pair in widths for width in pair):
        op.reject("negative padding")
    if x.dtype in (T.STRING,) or mode not in ("constant", "reflect"):
        op.reject(f"padding of this kind ({mode}, {x.dtype.name})")
    if mode != "constant":
        return op.ops("Pad", x, pad_width=widths, mode=mode)
    filler = number(value) if value is not None else 0
    if filler is None:
        op.reject("the padded value is computed")
    return op.ops("Pad", x, filler, pad_width=widths, mode="constant") if filler else op.ops("Pad", x, pad_width=widths, mode="constant")


# ---- gather and scatter

@from_onnx("Gather")
def gather(op, x, indices, *, axis=0):
    rank = op.of(x)[0]
    if op.is_stored(x) and rank == 2 and axis % rank == 0 and x.dtype in REAL and not op.is_stored(indices):
        rows, width = op.static(x)
        return op.layer("Embedding", before_cast(indices), _variables={"embeddings": x}, input_dim=rows, output_dim=width, mask_zero=False, _dtype=x.dtype)
    return op.ops("Take", x, inside(op, indices, op.of(x)[1][axis]), axis=axis % rank, _dtype=x.dtype)


def before_cast(indices: Value) -> Value:
    """Floats that were made whole: the layer does that itself. Rows are not counted from behind in an embedding."""
    node = indices.producer()
    return node.inputs[0] if node is not None and node.op_type == "Cast" and node.inputs[0].dtype == T.FLOAT else indices


def inside(op: Op, indices: Value, size: Any) -> Value:
    """Positions counted from the front."""
    known = constant(indices)
    if not isinstance(size, int):
        if known is not None and not (known < 0).any():
            return indices
        op.reject("positions from the end of an axis whose size is not known") if known is not None else None
        return indices
    if known is not None:
        return op.const(np.where(known < 0, known + size, known))
    zero, whole = (op.const(np.asarray(each, indices.dtype.numpy())) for each in (0, size))
    return op.ops("Where", op.ops("Less", indices, zero, _dtype=T.BOOL), op.ops("Add", indices, whole), indices, _dtype=indices.dtype, _shape=indices.shape)


@from_onnx("GatherElements")
def gather_elements(op, x, indices, *, axis=0):
    rank, sizes = op.of(x)
    axis %= rank
    other = op.of(indices)[1]
    if any(a != b for place, (a, b) in enumerate(zip(sizes, other, strict=True)) if place != axis):
        return NotImplemented if False else op.reject("indices cover a part of the other axes")
    return op.ops("TakeAlongAxis", x, inside(op, indices, sizes[axis]), axis=axis)


@from_onnx("GatherND")
def gather_nd(op, x, indices, *, batch_dims=0):
    """Coordinates as positions in the flattened leading axes."""
    if batch_dims:
        op.reject("batched coordinates")
    sizes, depth = op.static(x), op.static(indices)[-1]
    rest = sizes[depth:]
    flat = op.ops("Reshape", x, newshape=[math.prod(sizes[:depth]), *rest], _dtype=x.dtype)
    steps = np.asarray([math.prod(sizes[place + 1:depth]) for place in range(depth)], np.int64)
    whole = np.asarray(sizes[:depth], np.int64)
    known = constant(indices)
    if known is not None:
        places = op.const((np.where(known < 0, known + whole, known) * steps).sum(-1))
    else:
        wide = op.cast(indices, T.INT64)
        positive = op.ops("Where", op.ops("Less", wide, op.const(np.asarray(0)), _dtype=T.BOOL), op.ops("Add", wide, op.const(whole)), wide, _dtype=T.INT64)
        places = op.ops("Sum", op.ops("Multiply", positive, op.const(steps)), axis=-1, keepdims=False, _dtype=T.INT64)
    return op.ops("Take", flat, places, axis=0, _dtype=x.dtype)


@from_onnx("ScatterND")
def scatter_nd(op, x, indices, updates, *, reduction="none"):
    sizes, depth = op.of(x)[1], op.static(indices)[-1]
    known = constant(indices)
    if known is not None:
        if (known < 0).any():
            if not all(isinstance(size, int) for size in sizes[:depth]):
                op.reject("positions from the end of an axis whose size is not known")
            indices = op.const(np.where(known < 0, known + np.asarray(sizes[:depth]), known))
    elif all(isinstance(size, int) for size in sizes[:depth]):
        zero = op.ops("Less", indices, op.const(np.asarray(0)), _dtype=T.BOOL)
        indices = op.ops("Where", zero, op.ops("Add", indices, op.const(np.asarray(sizes[:depth]))), indices, _dtype=T.INT64, _shape=indices.shape)
    settings = {} if reduction == "none" else {"reduction": reduction}
    return op.ops("ScatterUpdate", x, indices, updates, **settings)


@from_onnx("NonZero")
def non_zero(op, x):
    parts = op.ops("Nonzero", x, _outputs=op.of(x)[0], _dtype=T.INT64)
    parts = parts if isinstance(parts, tuple) else (parts,)
    return op.cast(op.ops("Stack", list(parts), axis=0, _dtype=T.INT32), T.INT64)


@from_onnx("ReverseAxis")
def reverse(op, x, *, axis):
    return op.ops("Flip", x, axis=axis)


# ---- reductions

REDUCTIONS = {"ReduceSum": "Sum", "ReduceMean": "Mean", "ReduceMax": "Max", "ReduceMin": "Min", "ReduceProd": "Prod", "ReduceLogSumExp": "Logsumexp"}


@from_onnx(*REDUCTIONS)
def reduction(op, x, axes: Ints | None = None, *, keepdims=1, noop_with_empty_axes=0):
    rank = op.of(x)[0]
    if not axes and noop_with_empty_axes:
        return op.ops("Copy", x)
    chosen = [axis % rank for axis in axes] if axes else list(range(rank))
    kind = REDUCTIONS[op.node.op_type]
    if x.dtype == T.BOOL:
        kind = {"Max": "Any", "Min": "All"}.get(kind, kind)
    if not chosen:
        return op.ops("Copy", x)
    y = op.ops(kind, x, axis=chosen, keepdims=bool(keepdims))
    return op.cast(y, x.dtype) if kind in ("Sum", "Prod", "Mean") and x.dtype not in REAL else y


def typed(op: Op, y: Value, dtype: ir.DataType, given: ir.DataType) -> Value:
    """Keras gives one type where ONNX wants another."""
    y.dtype = given
    return op.ops("Cast", y, dtype=type_name(dtype), _dtype=dtype)


@from_onnx("ArgMax", "ArgMin")
def arg_extreme(op, x, *, axis=0, keepdims=1, select_last_index=0):
    if select_last_index:
        op.reject("the last of equal elements")
    kind = "Argmax" if op.node.op_type == "ArgMax" else "Argmin"
    return typed(op, op.ops(kind, x, axis=axis, keepdims=bool(keepdims)), T.INT64, T.INT32)


@from_onnx("CumSum")
def cumsum(op, x, axis: Int, *, exclusive=0, reverse=0):
    axis %= op.of(x)[0]
    y = op.ops("Flip", x, axis=axis) if reverse else x
    y = op.ops("Cumsum", y, axis=axis)
    y = op.ops("Flip", y, axis=axis) if reverse else y
    return op.ops("Subtract", y, x) if exclusive else y


@from_onnx("CumProd")
def cumprod(op, x, axis: Int, *, exclusive=0, reverse=0):
    if exclusive:
        op.reject("an exclusive product")
    axis %= op.of(x)[0]
    y = op.ops("Flip", x, axis=axis) if reverse else x
    y = op.ops("Cumprod", y, axis=axis)
    return op.ops("Flip", y, axis=axis) if reverse else y


@from_onnx("TopK")
def top_k(op, x, k: Int, *, axis=-1, largest=1, sorted=1):
    """Along the last axis, the largest first."""
    rank = op.of(x)[0]
    axis %= rank
    order = [place for place in range(rank) if place != axis] + [axis]
    back = [order.index(place) for place in range(rank)]
    y = x if axis == rank - 1 else op.ops("Transpose", x, axes=order)
    y = y if largest else op.ops("Negative", y)
    values, places = op.ops("TopK", y, k=k, sorted=True, _outputs=2)
    places.dtype = T.INT32
    values = values if largest else op.ops("Negative", values)
    if axis != rank - 1:
        values, places = op.ops("Transpose", values, axes=back), op.ops("Transpose", places, axes=back)
    return [values, typed(op, places, T.INT64, T.INT32)]


@from_onnx("OneHot")
def one_hot(op, indices, depth: Int, values, *, axis=-1):
    pair = constant(values)
    rank = op.of(indices)[0] + 1
    axis = -1 if axis % rank == rank - 1 else axis % rank
    if pair is None:
        op.reject("the two values must be constants")
    dtype = values.dtype
    wide = op.cast(indices, T.INT64)
    wrapped = op.ops("Where", op.ops("Less", wide, op.const(np.asarray(0)), _dtype=T.BOOL), op.ops("Add", wide, op.const(np.asarray(depth))), wide,
        _dtype=T.INT64)
    name = type_name(dtype) if dtype != T.BOOL else "float32"
    y = op.ops("OneHot", wrapped, num_classes=depth, axis=axis, dtype=name, _dtype=dtype)
    if pair.tolist() == [0, 1]:
        return y
    off, on = (np.asarray(each, pair.dtype) for each in pair)
    return op.ops("Add", op.ops("Multiply", y, op.const(on - off)), op.const(off))


@from_onnx("Einsum")
def einsum(op, *xs, equation):
    return op.ops("Einsum", *xs, subscripts=equation.replace(" ", ""))


@from_onnx("Trilu")
def trilu(op, x, k: Int | None = None, *, upper=1):
    rows, columns = op.of(x)[1][-2:]
    if isinstance(rows, int) and isinstance(columns, int):
        k = min(max(k or 0, 1 - rows), columns) if upper else min(max(k or 0, -rows), columns - 1)
    return op.ops("Triu" if upper else "Tril", x, k=k or 0)


@from_onnx("Range")
def range_of(op, start, limit, delta):
    return op.reject("a range whose ends are computed")


@from_onnx("ConstantOfShape")
def constant_of_shape(op, shape, *, value=None):
    return op.reject("a tensor whose sizes are computed")


@from_onnx("SquaredDifference")
def squared_difference(op, a, b):
    return op.ops("Square", op.ops("Subtract", a, b))
