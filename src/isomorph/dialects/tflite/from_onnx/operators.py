"""ONNX -> TensorFlow Lite, operator by operator.

The passes before have brought the graph into the form these rules take: constants folded, operators decomposed, types within what the
kernels know, convolutions and pools channels-last with VALID or SAME padding (domain `last`), no captured outer values in bodies.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from isomorph.dialects._forms.slices import strided
from isomorph.dialects._lower import Builder, Float, Int, Ints, Mapping, constant
from isomorph.dialects.tflite.from_onnx.quantized import parameters
from isomorph.tensors import lazily

from_onnx = Mapping("")
LAST = "last"  # the domain of nodes whose data is channels-last

from_onnx.same(
    {
        "Abs": "ABS", "Neg": "NEG", "Exp": "EXP", "Log": "LOG", "Sqrt": "SQRT", "Sin": "SIN", "Cos": "COS", "Floor": "FLOOR", "Ceil": "CEIL", "Round": "ROUND",
        "Sign": "SIGN", "Tanh": "TANH", "Sigmoid": "LOGISTIC", "Relu": "RELU", "HardSwish": "HARD_SWISH", "Not": "LOGICAL_NOT", "Atan2": "ATAN2", "Div": "DIV",
        "Pow": "POW", "Max": "MAXIMUM", "Min": "MINIMUM", "And": "LOGICAL_AND", "Or": "LOGICAL_OR", "Equal": "EQUAL", "Greater": "GREATER",
        "GreaterOrEqual": "GREATER_EQUAL", "Less": "LESS", "LessOrEqual": "LESS_EQUAL", "Where": "SELECT_V2", "BitwiseXor": "BITWISE_XOR",
        "BitwiseAnd": "STABLEHLO_AND", "Rsqrt": "RSQRT", "SquaredDifference": "SQUARED_DIFFERENCE", "FloorDiv": "FLOOR_DIV", "NotEqual": "NOT_EQUAL"}
)


@from_onnx("Add", "Sub", "Mul")
def arithmetic(op, a, b, *, activation="NONE"):
    return op.make(op.node.op_type.upper(), [a, b], {"fused_activation_function": activation})


SIZES = np.dtype(np.int32)  # shapes and axes are int32: the one type that every kernel version takes


def sizes_of(op: Builder, vector: ir.Value) -> ir.Value:
    """A shape vector as int32."""
    array = constant(vector)
    if array is not None:
        return op.const(array.astype(SIZES))
    return vector if vector.dtype == ir.DataType.INT32 else op.CAST(vector, in_data_type="INT64", out_data_type="INT32", _dtype=6, _shape=vector.shape)


@from_onnx("Identity")
def identity(op, x):
    """TensorFlow Lite has no identity; a reshape to the same shape is one without cost. A scalar keeps its empty shape."""
    _, sizes = op.of(x)
    if all(isinstance(size, int) for size in sizes):
        return op.RESHAPE(x, op.const(np.asarray(sizes, SIZES)))
    return op.RESHAPE(x, op.SHAPE(x, out_type="INT32", _dtype=6, _shape=[len(sizes)]))


@from_onnx("Cast")
def cast(op, x, *, to, saturate=1, round_mode="up"):
    to = ir.DataType(to)
    if {x.dtype, to} == {ir.DataType.UINT64, ir.DataType.INT64} or x.dtype == to:
        return op.BITCAST(x)  # CAST does not know uint64; below 2^63 the bits are the same
    if ir.DataType.UINT64 in (x.dtype, to):
        return (
            op.BITCAST(cast(op, x, to=ir.DataType.INT64), _dtype=to, _shape=x.shape)
            if to == ir.DataType.UINT64
            else cast(op, op.BITCAST(x, _dtype=ir.DataType.INT64, _shape=x.shape), to=to)
        )
    if x.dtype == ir.DataType.FLOAT16 and to == ir.DataType.FLOAT and x.is_initializer():
        return op.DEQUANTIZE(x, _dtype=to, _shape=x.shape)  # how float16 weights are stored
    narrow = {ir.DataType.INT4, ir.DataType.UINT4}
    if (x.dtype in narrow) != (to in narrow) and ir.DataType.FLOAT not in (x.dtype, to):
        return cast(op, cast(op, x, to=ir.DataType.FLOAT), to=to)  # the kernel knows 4 bits and float32 only
    names = [TYPE_NAME.get(kind) for kind in (x.dtype, to)]
    if None in names:
        op.reject(f"a cast from {x.dtype.name} to {to.name}, which the kernel does not know")
    return op.CAST(x, in_data_type=names[0], out_data_type=names[1], _dtype=to, _shape=x.shape)


@from_onnx("BitCast")
def bit_cast(op, x, *, to):
    return op.BITCAST(x)


TYPE_NAME = {
    ir.DataType.FLOAT: "FLOAT32", ir.DataType.FLOAT16: "FLOAT16", ir.DataType.INT32: "INT32", ir.DataType.UINT8: "UINT8", ir.DataType.INT64: "INT64",
    ir.DataType.STRING: "STRING", ir.DataType.BOOL: "BOOL", ir.DataType.INT16: "INT16", ir.DataType.COMPLEX64: "COMPLEX64", ir.DataType.INT8: "INT8",
    ir.DataType.DOUBLE: "FLOAT64", ir.DataType.UINT64: "UINT64", ir.DataType.UINT32: "UINT32", ir.DataType.UINT16: "UINT16", ir.DataType.INT4: "INT4",
    ir.DataType.BFLOAT16: "BFLOAT16", ir.DataType.UINT4: "UINT4"}


@from_onnx("LeakyRelu")
def leaky_relu(op, x, *, alpha=0.01):
    return op.LEAKY_RELU(x, alpha=alpha)


@from_onnx("PRelu")
def prelu(op, x, slope):
    """The kernel broadcasts the slope over all axes but the first; it must not carry a batch axis."""
    rank, _ = op.of(x)
    array = constant(slope)
    if array is None:
        return op.PRELU(x, slope)
    sizes = [1] * (rank - array.ndim) + list(array.shape)
    return op.PRELU(x, op.const(lazily(lambda a: a.reshape(sizes[1:]), slope.const_value, dims=sizes[1:]) if sizes[0] == 1 else slope.const_value))


@from_onnx("Elu")
def elu(op, x, *, alpha=1.0):
    return op.ELU(x) if alpha == 1.0 else op.reject("ELU has a fixed alpha of 1")


@from_onnx("Gelu")
def gelu(op, x, *, approximate="none"):
    return op.GELU(x, approximate=approximate == "tanh")


@from_onnx("Relu6")
def relu6(op, x):
    return op.RELU6(x)


@from_onnx("Relu0To1")
def relu_0_to_1(op, x):
    return op.RELU_0_TO_1(x)


@from_onnx("Mod")
def mod(op, a, b, *, fmod=0):
    return op.FLOOR_MOD(a, b)


@from_onnx("BitShift")
def bit_shift(op, x, y, *, direction):
    return op.RIGHT_SHIFT(x, y)


# ---- shapes


@from_onnx("Reshape")
def reshape(op, x, shape, *, allowzero=0):
    """A 0 that copies a size does not exist here: it is the known size, or -1 where that is the only unknown one."""
    _, out = op.of(op.outputs[0])
    sizes = [size if isinstance(size, int) else -1 for size in out]
    if sizes.count(-1) <= 1:
        return op.RESHAPE(x, op.const(np.asarray(sizes, SIZES)), new_shape=sizes)
    array = constant(shape)
    if array is None:
        return op.RESHAPE(x, sizes_of(op, shape))
    rank = len(op.of(x)[1])
    whole = op.SHAPE(x, out_type="INT32", _dtype=6, _shape=[rank])
    parts = []
    for axis, size in enumerate(array):
        if size == 0 and not allowzero:
            parts.append(
                op.STRIDED_SLICE(
                    whole, op.const(np.array([axis], SIZES)), op.const(np.array([axis + 1], SIZES)), op.const(np.array([1], SIZES)), _dtype=6, _shape=[1]
                )
            )
        else:
            parts.append(op.const(np.array([size], SIZES)))
    return op.RESHAPE(x, op.CONCATENATION(*parts, axis=0, _dtype=6, _shape=[len(parts)]))


@from_onnx("Squeeze")
def squeeze(op, x, axes: Ints | None = None):
    rank, sizes = op.of(x)
    axes = axes if axes is not None else tuple(i for i, size in enumerate(sizes) if size == 1)
    return _reshaped(op, x) or op.SQUEEZE(x, squeeze_dims=[axis % rank for axis in axes])


@from_onnx("Unsqueeze")
def unsqueeze(op, x, axes: Ints):
    """Known sizes make a reshape, which runtimes remove; others one EXPAND_DIMS an axis."""
    whole = _reshaped(op, x)
    if whole is not None:
        return whole
    rank = len(op.of(x)[1]) + len(axes)
    _, sizes = op.of(x)
    for axis in sorted(axis % rank for axis in axes):
        sizes = [*sizes[:axis], 1, *sizes[axis:]]
        x = op.EXPAND_DIMS(x, op.const(np.asarray(axis, SIZES)), _dtype=x.dtype, _shape=sizes)
    return x


def _reshaped(op: Builder, x: ir.Value) -> ir.Value | None:
    _, out = op.of(op.outputs[0])
    sizes = [size if isinstance(size, int) else -1 for size in out]
    return op.RESHAPE(x, op.const(np.asarray(sizes, SIZES)), new_shape=sizes) if sizes.count(-1) <= 1 and 0 not in sizes else None


@from_onnx("Transpose")
def transpose(op, x, *, perm=None):
    perm = perm if perm is not None else list(range(op.of(x)[0]))[::-1]
    return op.TRANSPOSE(x, op.const(np.asarray(perm, SIZES)))


@from_onnx("Shape")
def shape(op, x, *, start=0, end=None):
    rank, _ = op.of(x)
    chosen = range(rank)[slice(start, end)]
    if len(chosen) == rank:
        return op.SHAPE(x, out_type="INT64")
    whole = op.SHAPE(x, out_type="INT64", _dtype=7, _shape=[rank])
    return op.GATHER(whole, op.const(np.asarray(chosen, SIZES)), axis=0)


@from_onnx("Expand")
def expand(op, x, shape):
    """ONNX expands both ways: the result's sizes are the broadcast of both shapes."""
    _, out = op.of(op.outputs[0])
    if all(isinstance(size, int) for size in out):
        return op.BROADCAST_TO(x, op.const(np.asarray(out, SIZES)))
    rank, _ = op.of(x)
    whole = op.SHAPE(x, out_type="INT32", _dtype=6, _shape=[rank])
    both = op.BROADCAST_ARGS(whole, sizes_of(op, shape), _dtype=6, _shape=[len(out)])
    return op.BROADCAST_TO(x, both)


@from_onnx("Tile")
def tile(op, x, repeats):
    return op.TILE(x, sizes_of(op, repeats))


@from_onnx("ConstantOfShape")
def constant_of_shape(op, shape, *, value=None):
    fill = np.zeros(1, np.float32) if value is None else value.numpy()
    return op.FILL(sizes_of(op, shape), op.const(fill.reshape(())))


@from_onnx("Range")
def range_of(op, start, limit, delta):
    return op.RANGE(start, limit, delta)


@from_onnx("Concat")
def concat(op, *xs, axis):
    return op.CONCATENATION(*xs, axis=axis % op.of(op.outputs[0])[0])


@from_onnx("Split")
def split(op, x, split: Ints | None = None, *, axis=0, num_outputs=None):
    rank, sizes = op.of(x)
    axis %= rank
    count = len(op.outputs)
    parts = list(split) if split is not None else None
    if parts is None:
        if not isinstance(sizes[axis], int):
            op.reject("the size of the split axis is not known")
        each = -(-sizes[axis] // count)
        parts = [each] * (count - 1) + [sizes[axis] - each * (count - 1)]
    if len(set(parts)) == 1:
        return op.SPLIT(op.const(np.asarray(axis, SIZES)), x, num_splits=count, _outputs=count)
    return op.SPLIT_V(x, op.const(np.asarray(parts, SIZES)), op.const(np.asarray(axis, SIZES)), num_splits=count, _outputs=count)


@from_onnx("Slice")
def slice_of(op, x, starts, ends, axes: Ints | None = None, steps: Ints | None = None):
    """STRIDED_SLICE clamps like ONNX; an end before the beginning of a reversed axis needs the mask."""
    rank, _ = op.of(x)
    first, last = constant(starts), constant(ends)
    axes = tuple(range(len(op.of(starts)[1]) if first is None else len(first))) if axes is None else tuple(axis % rank for axis in axes)
    steps = steps or (1,) * len(axes)
    if first is None or last is None:
        return _dynamic_slice(op, x, starts, ends, axes, steps)
    bounds, begin_mask, end_mask = strided(op.of(x)[1], first.tolist(), last.tolist(), axes, steps)
    return op.STRIDED_SLICE(x, *(op.const(np.asarray(v, SIZES)) for v in bounds), begin_mask=begin_mask, end_mask=end_mask)


def _dynamic_slice(op: Builder, x: ir.Value, starts: ir.Value, ends: ir.Value, axes: tuple[int, ...], steps: tuple[int, ...]) -> ir.Value:
    """Bounds that are computed at run time, each put to its axis."""
    rank, _ = op.of(x)
    bound = op.const(np.asarray((1 << 31) - 1, np.int64))
    low = op.const(np.asarray(-(1 << 31) + 1, np.int64))

    def spread(vector: ir.Value, filler: int) -> ir.Value:
        if vector.dtype == ir.DataType.INT64 and constant(vector) is None:
            vector = op.MAXIMUM(op.MINIMUM(vector, bound, _dtype=7, _shape=vector.shape), low, _dtype=7, _shape=vector.shape)
        elif constant(vector) is not None:
            vector = op.const(np.clip(constant(vector), -(1 << 31) + 1, (1 << 31) - 1))
        vector = sizes_of(op, vector)
        if axes == tuple(range(rank)):
            return vector
        source = op.CONCATENATION(vector, op.const(np.array([filler], SIZES)), axis=0, _dtype=6, _shape=[len(axes) + 1])
        return op.GATHER(
            source, op.const(np.asarray([axes.index(axis) if axis in axes else len(axes) for axis in range(rank)], SIZES)), axis=0, _dtype=6, _shape=[rank]
        )

    begin, end = spread(starts, 0), spread(ends, (1 << 31) - 1)
    stride = op.const(np.asarray([steps[axes.index(axis)] if axis in axes else 1 for axis in range(rank)], SIZES))
    return op.STRIDED_SLICE(x, begin, end, stride)


@from_onnx("Pad")
def pad(op, x, pads, value=None, axes: Ints | None = None, *, mode="constant"):
    rank, _ = op.of(x)
    array = constant(pads)
    if array is None:
        pairs = op.TRANSPOSE(
            op.RESHAPE(sizes_of(op, pads), op.const(np.array([2, rank], SIZES)), new_shape=[2, rank], _dtype=6, _shape=[2, rank]),
            op.const(np.array([1, 0], SIZES)),
            _dtype=6,
            _shape=[rank, 2],
        )
    else:
        pairs = op.const(array.reshape(2, rank).T.astype(SIZES))
    if mode == "reflect":
        return op.MIRROR_PAD(x, pairs, mode="REFLECT")
    filler = constant(value)
    if "quantization" in x.meta and filler is not None and int(filler) == int(x.meta["quantization"].zero_point[0]):
        return op.PAD(x, pairs)  # pads integers with the zero point
    if value is None or (filler is not None and not np.any(filler != 0) and "quantization" not in x.meta):
        return op.PAD(x, pairs)
    return op.PADV2(x, pairs, value)


# ---- gather and scatter

MOST_SLICED = 5  # axes that STRIDED_SLICE knows


@from_onnx("Gather")
def gather(op, x, indices, *, axis=0):
    """One fixed element of an axis is a slice, which XNNPACK takes."""
    rank, sizes = op.of(x)
    axis %= rank
    place, out = constant(indices), op.of(op.outputs[0])[1]
    whole = all(isinstance(size, int) for size in (*sizes, *out))
    if place is not None and place.size == 1 and whole and 0 < rank <= MOST_SLICED and "quantization" not in x.meta and x.dtype != ir.DataType.STRING:
        start = int(place.reshape(-1)[0]) % sizes[axis]
        cut = [1 if i == axis else size for i, size in enumerate(sizes)]
        bounds = [[start if i == axis else 0 for i in range(rank)], [start + 1 if i == axis else size for i, size in enumerate(sizes)], [1] * rank]
        y = op.STRIDED_SLICE(x, *(op.const(np.asarray(bound, SIZES)) for bound in bounds), _dtype=x.dtype, _shape=cut)
        return y if out == cut else op.RESHAPE(y, op.const(np.asarray(out, SIZES)), new_shape=out)
    return op.GATHER(x, _indices(op, indices), axis=axis % op.of(x)[0])


def _indices(op: Builder, indices: ir.Value) -> ir.Value:
    array = constant(indices)
    return op.const(array.astype(SIZES)) if array is not None and array.dtype == np.int64 and np.abs(array).max(initial=0) < 1 << 31 else indices


@from_onnx("GatherND")
def gather_nd(op, x, indices, *, batch_dims=0):
    return op.GATHER_ND(x, _indices(op, indices))


@from_onnx("AddScattered")
def add_scattered(op, indices, updates, shape):
    """Positions and shape must have one type: int32."""
    where = _indices(op, indices)
    return op.SCATTER_ND(
        where if where.dtype == ir.DataType.INT32 else op.CAST(where, in_data_type="INT64", out_data_type="INT32", _dtype=6, _shape=where.shape),
        updates,
        sizes_of(op, shape),
    )


@from_onnx("NonZero")
def non_zero(op, x):
    """WHERE lists positions by row, ONNX by column."""
    rank, _ = op.of(x)
    return op.TRANSPOSE(op.WHERE(x, _dtype=7, _shape=[None, rank]), op.const(np.array([1, 0], SIZES)))


@from_onnx("OneHotLast")
def one_hot(op, indices, depth, on, off, *, axis=-1):
    return op.ONE_HOT(indices, depth, on, off, axis=axis)


# ---- reductions


def _reduction(target: str) -> None:
    def rule(op: Builder, x: ir.Value, axes: Ints | None = None, *, keepdims=1, noop_with_empty_axes=0):
        rank, sizes = op.of(x)
        axes = tuple(axis % rank for axis in axes) if axes else () if noop_with_empty_axes else tuple(range(rank))
        if all(sizes[axis] == 1 for axis in axes) and "quantization" not in x.meta:
            return _reshaped(op, x) or op.make(target, [x, op.const(np.asarray(axes, SIZES))], {"keep_dims": bool(keepdims)})
        return op.make(target, [x, op.const(np.asarray(axes, SIZES))], {"keep_dims": bool(keepdims)})

    from_onnx({"SUM": "ReduceSum", "MEAN": "ReduceMean", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin", "REDUCE_PROD": "ReduceProd"}[target])(rule)


for _target in ("SUM", "MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"):
    _reduction(_target)


@from_onnx("ArgMax")
def arg_max(op, x, *, axis=0, keepdims=0, select_last_index=0):
    return op.ARG_MAX(x, op.const(np.asarray(axis % op.of(x)[0], SIZES)), output_type="INT64")


@from_onnx("ArgMin")
def arg_min(op, x, *, axis=0, keepdims=0, select_last_index=0):
    return op.ARG_MIN(x, op.const(np.asarray(axis % op.of(x)[0], SIZES)), output_type="INT64")


@from_onnx("CumSum")
def cumsum(op, x, axis: Int, *, exclusive=0, reverse=0):
    return op.CUMSUM(x, op.const(np.asarray(axis % op.of(x)[0], SIZES)), exclusive=bool(exclusive), reverse=bool(reverse))


@from_onnx("TopKLast")
def top_k(op, x, k):
    """Values and int32 positions of the k greatest elements of the last axis, sorted."""
    return op.TOPK_V2(x, k, _outputs=2)


@from_onnx("Softmax")
def softmax(op, x, *, axis=-1):
    return op.SOFTMAX(x, beta=1.0)


@from_onnx("LogSoftmax")
def log_softmax(op, x, *, axis=-1):
    return op.LOG_SOFTMAX(x)


# ---- linear algebra


@from_onnx("MatMul")
def matmul(op, a, b):
    """A constant matrix on the right is a fully connected layer, whose weights are [outputs, inputs]."""
    rank, _ = op.of(a)
    if is_weight(b) and b.shape is not None and len(b.shape) == 2 and rank >= 2:
        return _fully_connected(op, a, b, None, transpose=True)
    source = b.producer()
    if source is not None and source.op_type == "TRANSPOSE" and constant(source.inputs[1]) is not None:
        perm = constant(source.inputs[1]).tolist()
        if perm == [*range(len(perm) - 2), len(perm) - 1, len(perm) - 2]:
            return op.BATCH_MATMUL(a, source.inputs[0], adj_y=True)
    return op.BATCH_MATMUL(a, b)


def is_weight(value: ir.Value) -> bool:
    """A constant, or one that is stored in fewer bits."""
    source = value.producer()
    return value.is_initializer() or (
        source is not None and source.op_type in ("DEQUANTIZE", "DequantizeLinear", "CAST", "Cast") and source.inputs[0].is_initializer()
    )


@from_onnx("FullyConnected")
def fully_connected(op, x, weight, bias=None, *, activation="NONE", transB=1):
    """x [.., inputs], weight [outputs, inputs] where transB is set."""
    return _fully_connected(op, x, weight, bias, transpose=not transB, activation=activation)


def _fully_connected(op: Builder, x: ir.Value, weight: ir.Value, bias: ir.Value | None, *, transpose: bool, activation: str = "NONE") -> ir.Value:
    w = _adopted(op, weight, (1, 0)) if transpose else weight
    return op.FULLY_CONNECTED(x, w, bias, keep_num_dims=op.of(x)[0] != 2, fused_activation_function=activation)


def _adopted(op: Builder, value: ir.Value, perm: tuple[int, ...]) -> ir.Value:
    """A constant with its axes in another order, lazily, with its quantisation; a computed weight is transposed when it is computed."""
    source = value.producer()
    if source is not None and source.op_type in ("DEQUANTIZE", "CAST") and source.inputs[0].const_value is not None:
        stored = _adopted(op, source.inputs[0], perm)
        return op.DEQUANTIZE(stored, _dtype=value.dtype, _shape=[value.shape[axis] for axis in perm])
    if value.const_value is None:
        return op.TRANSPOSE(value, op.const(np.asarray(perm, SIZES)), _dtype=value.dtype, _shape=[value.shape[axis] for axis in perm])
    kept = op.context.shared.get((value, perm))
    if kept is not None:
        return kept
    fresh = op.context.shared[value, perm] = op.const(lazily(perm, value.const_value), name=value.name)
    if "quantization" in value.meta:
        quantization = value.meta["quantization"]
        fresh.meta["quantization"] = type(quantization)(
            quantization.scale, quantization.zero_point, perm.index(quantization.axis) if quantization.per_axis else 0
        )
    return fresh


# ---- convolution and pooling, channels-last: [N, H, W, C]


def _window(strides, dilations=None) -> dict[str, int]:
    names = ("d", "h", "w")[-len(strides) :]
    window = {f"stride_{n}": s for n, s in zip(names, strides, strict=True)}
    for n, d in zip(names, dilations or (), strict=False):
        window[f"dilation_{n}_factor"] = d
    return window


PADDING = {"VALID": "VALID", "SAME_UPPER": "SAME"}


@from_onnx("last::Conv")
def conv(op, x, w, b=None, *, auto_pad="VALID", strides=(1, 1), dilations=(1, 1), group=1, kernel_shape=None, activation="NONE"):
    """OIHW -> OHWI, or 1HWC for one group a channel; 3-D: OIDHW -> DHWIO."""
    common = {**_window(strides, dilations), "padding": PADDING[auto_pad], "fused_activation_function": activation}
    if len(strides) == 3:
        return op.CONV_3D(x, _adopted(op, w, (2, 3, 4, 1, 0)), b, **common)
    if b is None:  # without a delegate the kernel insists on one
        b = op.const(np.zeros(int(w.shape[0]), np.float32))
    if group > 1 and w.shape[1] == 1 and group == op.of(x)[1][3]:
        return op.DEPTHWISE_CONV_2D(x, _adopted(op, w, (1, 2, 3, 0)), b, depth_multiplier=w.shape[0] // group, **common)
    return op.CONV_2D(x, _adopted(op, w, (0, 2, 3, 1)), b, **common)


@from_onnx("last::TransposedConv")
def conv_transpose(op, x, w, b=None, shape=None, *, auto_pad="VALID", strides=(1, 1), kernel_shape=None, activation="NONE"):
    """IOHW -> OHWI; 3-D: IODHW -> DHWOI. `shape` is the channels-last size of the result."""
    window = {**_window(strides), "padding": PADDING[auto_pad]}
    if len(strides) == 3:
        return op.CONV_3D_TRANSPOSE(
            sizes_of(op, shape), _adopted(op, w, (2, 3, 4, 1, 0)), x, b, dilation_d_factor=1, dilation_h_factor=1, dilation_w_factor=1, **window
        )
    return op.TRANSPOSE_CONV(sizes_of(op, shape), _adopted(op, w, (1, 2, 3, 0)), x, b, fused_activation_function=activation, **window)


@from_onnx("last::MaxPool")
def max_pool(op, x, *, kernel_shape, auto_pad="VALID", strides=(1, 1), activation="NONE"):
    return op.MAX_POOL_2D(
        x, filter_height=kernel_shape[0], filter_width=kernel_shape[1], padding=PADDING[auto_pad], fused_activation_function=activation, **_window(strides)
    )


@from_onnx("last::AveragePool")
def average_pool(op, x, *, kernel_shape, auto_pad="VALID", strides=(1, 1), count_include_pad=0, activation="NONE"):
    """The kernel counts only what lies inside, as ONNX does without count_include_pad."""
    return op.AVERAGE_POOL_2D(
        x, filter_height=kernel_shape[0], filter_width=kernel_shape[1], padding=PADDING[auto_pad], fused_activation_function=activation, **_window(strides)
    )


@from_onnx("last::ResizeSpatial")
def resize(op, x, sizes, *, mode, align_corners=0, half_pixel_centers=0):
    target = op.RESIZE_BILINEAR if mode == "linear" else op.RESIZE_NEAREST_NEIGHBOR
    return target(x, sizes_of(op, sizes), align_corners=bool(align_corners), half_pixel_centers=bool(half_pixel_centers))


@from_onnx("last::DepthToSpace")
def depth_to_space(op, x, *, blocksize, mode="DCR"):
    return op.DEPTH_TO_SPACE(x, block_size=blocksize)


@from_onnx("last::SpaceToDepth")
def space_to_depth(op, x, *, blocksize, mode="DCR"):
    return op.SPACE_TO_DEPTH(x, block_size=blocksize)


# ---- quantisation


@from_onnx("QuantizeLinear")
def quantize(op, x, scale, zero=None, **attributes):
    """The parameters are the tensor's own. An integer input is requantised."""
    if op.outputs[0].dtype not in (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16) or parameters(op.node) is None:
        op.reject(f"quantisation to {op.outputs[0].dtype.name} or with computed parameters")
    op.outputs[0].meta["quantization"] = parameters(op.node)
    source = x.producer()
    return op.QUANTIZE(source.inputs[0] if source is not None and source.op_type == "DEQUANTIZE" and source.inputs[0].dtype in (2, 3, 5) else x)


@from_onnx("DequantizeLinear")
def dequantize(op, x, scale, zero=None, **attributes):
    x.meta.setdefault("quantization", parameters(op.node))
    return op.DEQUANTIZE(x)


# ---- control flow; the pass before has made every captured value an explicit input of both bodies


@from_onnx("If")
def if_of(op, condition, *inputs, then_branch, else_branch):
    return op.IF(condition, *inputs, then_branch=op.subgraph(then_branch), else_branch=op.subgraph(else_branch), _outputs=len(op.outputs))


@from_onnx("While")
def while_of(op, *state, cond, body):
    return op.WHILE(*state, cond=op.subgraph(cond), body=op.subgraph(body), _outputs=len(op.outputs))


# ---- detection


@from_onnx("NonMaxSuppressionOne")
def non_max_suppression(op, boxes, scores, count, iou: Float, score):
    """Boxes [n, 4], scores [n] -> positions [count], padded with 0, and how many are valid."""
    return op.NON_MAX_SUPPRESSION_V4(boxes, scores, count, op.const(np.float32(iou)), score, _outputs=2)


@from_onnx("Unique1D")
def unique(op, x):
    """Distinct elements of a vector in order of appearance, and where each element went."""
    return op.UNIQUE(x, idx_out_type="INT64", _outputs=2)


@from_onnx("DrawUniform")
def draw_uniform(op, sizes, *, seed=0):
    return op.RANDOM_UNIFORM(sizes_of(op, sizes), seed=seed)


@from_onnx("DrawNormal")
def draw_normal(op, sizes, *, seed=0):
    return op.RANDOM_STANDARD_NORMAL(sizes_of(op, sizes), seed=seed)


@from_onnx("ReverseAxis")
def reverse(op, x, *, axis):
    return op.REVERSE_V2(x, op.const(np.array([axis], SIZES)))
