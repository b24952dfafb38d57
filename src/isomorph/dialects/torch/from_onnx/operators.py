"""ONNX -> aten, one operator one call wherever there is one. `forms` has brought the graph into what these rules take.

aten's schemas: aten/src/ATen/native/native_functions.yaml. Types follow ONNX: where PyTorch would promote, a dtype is given.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Int, Ints, Mapping
from isomorph.passes.shapes import known

from_onnx = Mapping("")
D = ir.DataType
INT64, BOOL = D.INT64, D.BOOL

SAME = {
    "Abs": "abs", "Neg": "neg", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Reciprocal": "reciprocal", "Floor": "floor", "Ceil": "ceil", "Round": "round",
    "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh",
    "Acosh": "acosh", "Atanh": "atanh", "Erf": "erf", "Sign": "sign", "Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Mish": "mish",
    "HardSwish": "hardswish", "IsNaN": "isnan", "Not": "logical_not", "BitwiseNot": "bitwise_not", "Identity": "clone", "Det": "linalg_det",
    "Add": "add", "Sub": "sub", "Mul": "mul", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor", "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor", "Equal": "eq", "Less": "lt", "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge",
    "Where": "where", "MatMul": "matmul", "Atan2": "atan2", "Softplus": "softplus",
}
for _name, _target in SAME.items():
    def _direct(op, *inputs, _target=_target):
        return getattr(op, _target)(*inputs)
    from_onnx(_name)(_direct)
    from_onnx.rules["", _name].inputs, from_onnx.rules["", _name].attributes = [], {}


def constants(*values: Any) -> list[Any]:
    """Bounds and such as numbers where all of them are constants."""
    from isomorph.dialects._lower import constant
    arrays = [None if value is None else constant(value) for value in values]
    if any(value is not None and array is None for value, array in zip(values, arrays, strict=True)):
        return list(values)
    return [None if array is None else array.reshape(-1)[0].item() for array in arrays]


# ---- elementwise


@from_onnx("Gelu")
def gelu(op, x, *, approximate="none"):
    return op.gelu(x, approximate=approximate)


@from_onnx("Elu")
def elu(op, x, *, alpha=1.0):
    return op.elu(x, alpha)


@from_onnx("Celu")
def celu(op, x, *, alpha=1.0):
    return op.celu(x, alpha)


@from_onnx("LeakyRelu")
def leaky_relu(op, x, *, alpha=0.01):
    return op.leaky_relu(x, alpha)


@from_onnx("HardSigmoid")
def hard_sigmoid(op, x, *, alpha=0.2, beta=0.5):
    """`forms` leaves only those with PyTorch's slope."""
    return op.hardsigmoid(x)


@from_onnx("Swish")
def swish(op, x, *, alpha=1.0):
    return op.silu(x)


@from_onnx("PRelu")
def prelu(op, x, slope):
    """`forms` leaves only those with one slope, or one a channel."""
    return op.prelu(x, slope)


@from_onnx("Clip")
def clip(op, x, low=None, high=None):
    return op.clamp(x, *constants(low, high))


@from_onnx("Softmax")
def softmax(op, x, *, axis=-1):
    return op.softmax(x, axis)


@from_onnx("LogSoftmax")
def log_softmax(op, x, *, axis=-1):
    return op.log_softmax(x, axis)


@from_onnx("Max", "Min")
def extreme(op, first, *rest):
    name = "maximum" if op.node.op_type == "Max" else "minimum"
    for x in rest:
        first = getattr(op, name)(first, x, _shape=op.outputs[0].shape)
    return first


@from_onnx("Sum")
def sum_of_all(op, first, *rest):
    for x in rest:
        first = op.add(first, x, _shape=op.outputs[0].shape)
    return first


@from_onnx("Div")
def div(op, a, b):
    return op.div(a, b) if a.dtype.is_floating_point() else op.div(a, b, rounding_mode="trunc")


@from_onnx("Mod")
def mod(op, a, b, *, fmod=0):
    return op.fmod(a, b) if fmod else op.remainder(a, b)


@from_onnx("Pow")
def power(op, x, y):
    """`forms` has given both operands one type."""
    (exponent,) = constants(y)
    return op.pow(x, exponent if isinstance(exponent, (int, float)) and not op.of(y)[0] else y)


@from_onnx("BitShift")
def bit_shift(op, x, y, *, direction):
    return op.bitwise_left_shift(x, y) if direction == "LEFT" else op.bitwise_right_shift(x, y)


@from_onnx("IsInf")
def is_inf(op, x, *, detect_negative=1, detect_positive=1):
    name = {(1, 1): "isinf", (1, 0): "isneginf", (0, 1): "isposinf"}.get((detect_negative, detect_positive))
    return getattr(op, name)(x) if name else op.zeros_like(x, dtype=BOOL)


@from_onnx("Cast")
def cast(op, x, *, to, saturate=1, round_mode="up"):
    if D(to) == D.STRING or x.dtype == D.STRING:
        op.reject("PyTorch has no text")
    return op.to(x, D(to))


@from_onnx("BitCast")
def bit_cast(op, x, *, to):
    return op.view(x, dtype=D(to))


# ---- shapes


@from_onnx("Shape")
def shape(op, x, *, start=0, end=None):
    whole = op._shape_as_tensor(x, _dtype=INT64, _shape=[op.of(x)[0]])
    return whole if start == 0 and end is None else op.slice(whole, 0, start, end)


@from_onnx("Reshape")
def reshape(op, x, shape, *, allowzero=0):
    if op.of(shape)[1] == [0]:
        return op.reshape(x, [])
    sizes = op.sizes(shape)
    if not allowzero:
        sizes = [op.size(x, axis) if isinstance(size, int) and size == 0 else size for axis, size in enumerate(sizes)]
    return op.reshape(x, sizes)


@from_onnx("Flatten")
def flatten(op, x, *, axis=1):
    """`forms` leaves only those of an axis inside."""
    return op.flatten(x, 1, -1)


@from_onnx("Transpose")
def transpose(op, x, *, perm=None):
    return op.permute(x, list(perm) if perm is not None else list(reversed(range(op.of(x)[0]))))


@from_onnx("Squeeze")
def squeeze(op, x, axes: Ints | None = None):
    sizes = op.of(x)[1]
    chosen = list(axes) if axes is not None else [axis for axis, size in enumerate(sizes) if size == 1]
    return op.squeeze(x, chosen) if chosen else op.clone(x)


@from_onnx("Unsqueeze")
def unsqueeze(op, x, axes: Ints):
    rank, sizes = op.of(x)
    sizes = list(sizes)
    for axis in sorted(axis % (rank + len(axes)) for axis in axes):
        sizes.insert(axis, 1)
        x = op.unsqueeze(x, axis, _shape=sizes)
    return x if axes else op.clone(x)


@from_onnx("Expand")
def expand(op, x, shape):
    """Where the target may have a one in place of a larger size, a choice between equal tensors broadcasts both ways."""
    target, (_, sizes) = known(shape), op.of(x)
    result = op.outputs[0].shape
    wanted = op.sizes(shape)
    if target is None or len(wanted) < len(sizes) or any(not isinstance(size, int) or size == 1 for size in wanted):
        if result is not None and all(isinstance(dim, int) for dim in result):
            return op.expand(x, list(result))
        broad = op.full(wanted, True, dtype=BOOL, _dtype=BOOL, _shape=[None] * len(wanted))
        return op.where(broad, x, x)
    aligned = [None] * (len(wanted) - len(sizes)) + list(sizes)
    return op.expand(x, [have if isinstance(have, int) and want == 1 else want for want, have in zip(wanted, aligned, strict=True)])


@from_onnx("Tile")
def tile(op, x, repeats):
    return op.repeat(x, op.sizes(repeats)) if op.of(repeats)[1] != [0] else op.clone(x)


@from_onnx("Concat")
def concat(op, *xs, axis):
    return op.cat(list(xs), axis)


@from_onnx("Split")
def split(op, x, parts=None, *, axis=0, num_outputs=None):
    lengths = op.sizes(parts) if parts is not None else [op.of(value)[1][axis] for value in op.outputs]
    if not all(isinstance(length, int) for length in lengths) and parts is None:
        op.reject("the size of the axis is not known")
    start: Any = 0
    results = []
    for place, length in enumerate(lengths):
        results.append(op.narrow(x, axis, start, length))
        if place + 1 < len(lengths):
            start = start + length if isinstance(start, int) and isinstance(length, int) else op.sym_add(start, length, _number="int")
    return results


@from_onnx("Slice")
def slice_(op, x, starts, ends, axes: Ints | None = None, steps=None):
    """`forms` has turned around what is read backwards."""
    if op.of(starts)[1] == [0]:
        return op.clone(x)
    begins, stops = op.sizes(starts), op.sizes(ends)
    strides = op.sizes(steps) if steps is not None else [1] * len(begins)
    for axis, begin, stop, stride in zip(axes if axes is not None else range(len(begins)), begins, stops, strides, strict=True):
        if not isinstance(stride, int):
            op.reject("its step is known only at run time, and a negative one would have another form")
        x = op.slice(x, axis, begin, stop, stride, _shape=[None] * op.of(x)[0])
    return x


@from_onnx("Pad")
def pad(op, x, pads, value=None, axes: Ints | None = None, *, mode="constant"):
    """aten counts from the last axis, each with what stands before and behind it."""
    rank, _ = op.of(x)
    given = op.sizes(pads)
    count = len(given) // 2
    where = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    by_axis = {axis: (given[place], given[place + count]) for place, axis in enumerate(where)}
    lowest = min((axis for axis, pair in by_axis.items() if any(not isinstance(item, int) or item for item in pair)), default=rank - 1)
    amounts = [amount for axis in reversed(range(lowest, rank)) for amount in by_axis.get(axis, (0, 0))]
    if mode == "constant":
        return op.constant_pad_nd(x, amounts, 0 if value is None else op.number(value))
    return op.pad(x, amounts, {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


@from_onnx("ConstantOfShape")
def constant_of_shape(op, shape, *, value=None):
    array = np.zeros(1, np.float32) if value is None else value.numpy()
    sizes = [] if op.of(shape)[1] == [0] else op.sizes(shape)
    return op.full(sizes, array.reshape(-1)[0].item(), dtype=D(int(value.dtype)) if value is not None else D.FLOAT)


@from_onnx("Range")
def range_(op, start, limit, delta):
    return op.arange(op.number(start), op.number(limit), op.number(delta), dtype=op.outputs[0].dtype)


@from_onnx("Trilu")
def trilu(op, x, k=None, *, upper=1):
    diagonal = 0 if k is None else op.number(k)
    if isinstance(diagonal, ir.Value):
        op.reject("its diagonal is known only at run time")
    return op.triu(x, diagonal) if upper else op.tril(x, diagonal)


# ---- reductions


def axes_of(op: Any, x: ir.Value, axes: Any, noop: int) -> list[int] | None:
    """The reduced axes; None where nothing is reduced."""
    if axes is None or not len(axes):
        return None if noop else list(range(op.of(x)[0]))
    return list(axes)


for _name, _target in (("ReduceMax", "amax"), ("ReduceMin", "amin"), ("ReduceLogSumExp", "logsumexp"), ("ReduceMean", "mean"), ("ReduceSum", "sum")):
    def _reduce(op, x, axes: Ints | None = None, *, keepdims=1, noop_with_empty_axes=0, _target=_target):
        dims = axes_of(op, x, axes, noop_with_empty_axes)
        if dims is None:
            return op.clone(x)
        return getattr(op, _target)(x, dims, bool(keepdims), **({"dtype": x.dtype} if _target == "sum" else {}))
    from_onnx(_name)(_reduce)


@from_onnx("ReduceProd")
def reduce_prod(op, x, axes: Ints | None = None, *, keepdims=1, noop_with_empty_axes=0):
    dims = axes_of(op, x, axes, noop_with_empty_axes)
    rank = op.of(x)[0]
    sizes = list(op.of(x)[1])
    for axis in sorted((axis % rank for axis in dims or ()), reverse=True):
        sizes[axis:axis + 1] = [1] if keepdims else []
        x = op.prod(x, axis, bool(keepdims), dtype=x.dtype, _shape=sizes)
    return x if dims else op.clone(x)


@from_onnx("ArgMax", "ArgMin")
def arg_extreme(op, x, *, axis=0, keepdims=1, select_last_index=0):
    return getattr(op, op.node.op_type.lower())(x, axis, bool(keepdims), _dtype=INT64)


@from_onnx("CumSum", "CumProd")
def cumulative(op, x, axis: Int):
    return getattr(op, op.node.op_type.lower())(x, axis, dtype=x.dtype)


@from_onnx("TopK")
def top_k(op, x, k, *, axis=-1, largest=1, sorted=1):
    """A stable sort, because ONNX wants the lower index of equal elements and aten::topk promises nothing."""
    values, places = op.sort(x, stable=True, dim=axis, descending=bool(largest), _outputs=2)
    places.dtype = INT64
    count = op.number(k)
    return op.slice(values, axis, 0, count, 1), op.slice(places, axis, 0, count, 1)


# ---- reading and writing by position


@from_onnx("Gather")
def gather(op, x, indices, *, axis=0):
    axis %= op.of(x)[0]
    array = op.value(indices)
    if array is not None and array.ndim == 0:
        return op.select(x, axis, int(array))
    return op.index(x, [None] * axis + [indices])


@from_onnx("GatherElements")
def gather_elements(op, x, indices, *, axis=0):
    return op.gather(x, axis, indices)


@from_onnx("ScatterElements")
def scatter_elements(op, x, indices, updates, *, axis=0, reduction="none"):
    if reduction == "none":
        return op.scatter(x, axis, indices, updates)
    return op.scatter_reduce(x, axis, indices, updates, {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[reduction])


def columns(op: Any, indices: ir.Value) -> list[ir.Value]:
    """The last axis of positions taken apart: one tensor for each axis that they point along."""
    _, sizes = op.of(indices)
    if not isinstance(sizes[-1], int):
        op.reject("how many axes its positions have is not known")
    return [op.select(indices, -1, place, _shape=sizes[:-1]) for place in range(sizes[-1])]


@from_onnx("GatherND")
def gather_nd(op, x, indices, *, batch_dims=0):
    """Batches are positions too, each its own number along its axis."""
    batches = []
    rank = op.of(indices)[0] - 1
    for axis in range(batch_dims):
        size = op.size(x, axis)
        counted = op.arange(0, size, 1, dtype=INT64, _dtype=INT64, _shape=[None])
        batches.append(op.reshape(counted, [1] * axis + [-1] + [1] * (rank - axis - 1), _shape=[None] * rank))
    return op.index(x, [*batches, *columns(op, indices)])


@from_onnx("ScatterND")
def scatter_nd(op, x, indices, updates, *, reduction="none"):
    """`forms` leaves those that replace or add."""
    return op.index_put(x, columns(op, indices), updates, reduction == "add")


@from_onnx("NonZero")
def non_zero(op, x):
    found = op.nonzero(x, _dtype=INT64, _shape=[None, op.of(x)[0]])
    return op.permute(found, [1, 0])


@from_onnx("SortedDistinct")
def sorted_distinct(op, x, *, axis):
    """A name of `selection`."""
    if op.of(x)[0] == 1:
        return op._unique2(x, True, True, True, _outputs=3)
    return op.unique_dim(x, axis, True, True, True, _outputs=3)


@from_onnx("Einsum")
def einsum(op, *xs, equation):
    return op.einsum(equation, list(xs))


@from_onnx("Bernoulli")
def bernoulli(op, x, *, dtype=None, seed=None):
    drawn = op.bernoulli(x)
    return drawn if dtype is None or D(dtype) == x.dtype else op.to(drawn, D(dtype))


@from_onnx("RandomNormal", "RandomUniform")
def random(op, *, shape, dtype=1, seed=None, **spread):
    return _spread(op, getattr(op, _RANDOM[op.node.op_type])(list(shape), dtype=D(dtype), _dtype=D(dtype), _shape=list(shape)), spread)


@from_onnx("RandomNormalLike", "RandomUniformLike")
def random_like(op, x, *, dtype=None, seed=None, **spread):
    kind = D(dtype) if dtype else x.dtype
    return _spread(op, getattr(op, _RANDOM[op.node.op_type])(x, dtype=kind, _dtype=kind), spread)


_RANDOM = {"RandomNormal": "randn", "RandomUniform": "rand", "RandomNormalLike": "randn_like", "RandomUniformLike": "rand_like"}


def _spread(op: Any, drawn: ir.Value, spread: dict[str, float]) -> ir.Value:
    if "Normal" in op.node.op_type:
        factor, offset = spread.get("scale", 1.0), spread.get("mean", 0.0)
    else:
        offset = spread.get("low", 0.0)
        factor = spread.get("high", 1.0) - offset
    return op.add(op.mul(drawn, factor), offset)


@from_onnx("Flip")
def flip(op, x, axes: Ints):
    """A name of `forms` for what aten has and ONNX lacks."""
    return op.flip(x, list(axes))


@from_onnx("ChannelPRelu")
def channel_prelu(op, x, slope):
    return op.prelu(x, slope)
