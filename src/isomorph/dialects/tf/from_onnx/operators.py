"""ONNX -> TensorFlow, operator by operator.

The passes before have brought the graph into the form these rules take: constants folded, operators without a kernel decomposed, types within what the
kernels know, convolutions and pools channels-last with VALID or SAME padding (domain `last`). Types and counts in attributes follow from the values and
are filled in when the graph is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._forms.slices import BOUND, strided
from isomorph.dialects._lower import Builder, Int, Ints, Mapping, constant
from isomorph.dialects.tf.from_onnx.kernels import ALL, ANALYTIC, REAL
from isomorph.tensors import lazily

from_onnx = Mapping("")
SIZES = np.dtype(np.int32)  # shapes and axes: the one type that every kernel and every runtime takes
T = ir.DataType

from_onnx.same({name: name for name in (
    "Abs", "Neg", "Exp", "Log", "Sqrt", "Rsqrt", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh", "Floor", "Ceil",
    "Round", "Sign", "Tanh", "Sigmoid", "Relu", "Relu6", "Softplus", "Softsign", "Erf", "Reciprocal", "Sub", "Mul", "Pow", "Equal", "Greater", "Less",
    "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Atan2", "Identity", "SquaredDifference", "NotEqual")})
from_onnx.same({
    "Not": "LogicalNot", "And": "LogicalAnd", "Or": "LogicalOr", "Xor": "NotEqual", "IsNaN": "IsNan", "BitwiseNot": "Invert",
    "Max": "Maximum", "Min": "Minimum", "GreaterOrEqual": "GreaterEqual", "LessOrEqual": "LessEqual", "Where": "SelectV2", "Det": "MatrixDeterminant",
})


def sizes_of(op: Builder, vector: ir.Value) -> ir.Value:
    """A shape vector as int32."""
    array = constant(vector)
    if array is not None:
        return op.const(array.astype(SIZES))
    return vector if vector.dtype == T.INT32 else op.Cast(vector, _dtype=T.INT32, _shape=vector.shape)


def numbers(op: Builder, values: Any) -> ir.Value:
    """A constant of sizes or axes."""
    return op.const(np.asarray(values, SIZES))


# ---- elements


@from_onnx("Add")
def add(op, a, b):
    """A vector behind a product with a matrix is its bias, which runtimes compute together with it."""
    for product, vector in ((a, b), (b, a)):
        maker = product.producer()
        if maker is not None and maker.op_type in ("MatMul", "BatchMatMulV2") and vector.is_initializer() and _is_bias(op, product, vector):
            return op.BiasAdd(product, vector)
    return op.AddV2(a, b)


@from_onnx("Div")
def divide(op, a, b):
    """Integers divide towards zero."""
    return op.RealDiv(a, b) if a.dtype in ANALYTIC else op.TruncateDiv(a, b)


@from_onnx("Mod")
def mod(op, a, b, *, fmod=0):
    return op.TruncateMod(a, b) if fmod else op.FloorMod(a, b)


@from_onnx("IsInf")
def is_inf(op, x, *, detect_negative=1, detect_positive=1):
    return op.IsInf(x)


@from_onnx("Cast")
def cast(op, x, *, to, saturate=1, round_mode="up"):
    """Texts have operators of their own. Four bits go by way of eight, and what float8 cannot hold is cut to its range first."""
    to = ir.DataType(to)
    if x.dtype == to:
        return op.Identity(x)
    odd = [kind.name for kind in (x.dtype, to) if kind not in CAST]
    if odd:
        op.reject(f"TensorFlow has no kernel that casts {' and '.join(odd)}")
    if x.dtype == T.STRING:
        return op.StringToNumber(x, _dtype=to, _shape=x.shape)
    if to == T.STRING:
        return op.AsString(x, _dtype=to, _shape=x.shape) if x.dtype not in REAL else op.AsString(x, shortest=1, precision=-1, _dtype=to, _shape=x.shape)
    if x.dtype in NARROW and to != NARROW[x.dtype]:
        x = op.Cast(x, _dtype=NARROW[x.dtype], _shape=x.shape)
    if to in NARROW and x.dtype in REAL:
        x = op.Cast(x, _dtype=T.INT32, _shape=x.shape)
    if to in NARROW and x.dtype != NARROW[to]:
        x = op.Cast(x, _dtype=NARROW[to], _shape=x.shape)
    if to in GREATEST and saturate and x.dtype in REAL:
        low, high = (op.const(sign * GREATEST[to], like=x.dtype) for sign in (-1, 1))
        x = op.Maximum(op.Minimum(x, high, _dtype=x.dtype, _shape=x.shape), low, _dtype=x.dtype, _shape=x.shape)
    return op.Cast(x, _dtype=to, _shape=x.shape)


NARROW = {T.INT4: T.INT8, T.UINT4: T.UINT8}
GREATEST = {T.FLOAT8E4M3FN: 448.0, T.FLOAT8E5M2: 57344.0}
CAST = ALL | set(NARROW) | set(GREATEST)


@from_onnx("BitCast")
def bit_cast(op, x, *, to):
    to = ir.DataType(to)
    if T.BOOL in (x.dtype, to) or T.STRING in (x.dtype, to):
        op.reject(f"TensorFlow's Bitcast does not know {T.BOOL.name}")
    return op.Bitcast(x, _dtype=to, _shape=x.shape)


@from_onnx("LeakyRelu")
def leaky_relu(op, x, *, alpha=0.01):
    return op.LeakyRelu(x, alpha=float(alpha))


@from_onnx("Elu")
def elu(op, x, *, alpha=1.0):
    return op.Elu(x)


@from_onnx("BitShift")
def bit_shift(op, x, y, *, direction):
    return op.RightShift(x, y) if direction == "RIGHT" else op.LeftShift(x, y)


@from_onnx("StringConcat")
def string_concat(op, a, b):
    """Both in the shape of the result; the kernel knows scalars beside it."""
    out = op.of(op.outputs[0])[1]
    wide = [x if op.of(x)[1] == out or op.of(x)[0] == 0 else op.BroadcastTo(x, numbers(op, op.static(op.outputs[0])), _dtype=T.STRING) for x in (a, b)]
    return op.StringJoin(*wide, _dtype=T.STRING, _shape=op.outputs[0].shape)


@from_onnx("RegexFullMatch")
def regex(op, x, *, pattern):
    return op.StaticRegexFullMatch(x, pattern=pattern, _dtype=T.BOOL, _shape=x.shape)


@from_onnx("ChangedCase")
def changed_case(op, x, *, upper):
    return op.StringUpper(x, encoding="utf-8") if upper else op.StringLower(x, encoding="utf-8")


# ---- shapes


@from_onnx("Reshape")
def reshape(op, x, shape, *, allowzero=0):
    """A 0 that copies a size does not exist here: it is the known size, or -1 where that is the only unknown one."""
    _, out = op.of(op.outputs[0])
    sizes = [size if isinstance(size, int) else -1 for size in out]
    if sizes.count(-1) <= 1 and (0 not in sizes or -1 not in sizes):
        return op.Reshape(x, numbers(op, sizes))
    array = constant(shape)
    if array is None or 0 not in array or allowzero:
        return op.Reshape(x, sizes_of(op, shape))
    whole = op.Shape(x, _dtype=T.INT32, _shape=[op.of(x)[0]])
    parts = [_entry(op, whole, axis) if size == 0 else numbers(op, [size]) for axis, size in enumerate(array.tolist())]
    return op.Reshape(x, op.ConcatV2(*parts, numbers(op, 0), _dtype=T.INT32, _shape=[len(parts)]))


def _entry(op: Builder, vector: ir.Value, place: int) -> ir.Value:
    return op.StridedSlice(vector, *(numbers(op, [at]) for at in (place, place + 1, 1)), _dtype=vector.dtype, _shape=[1])


@from_onnx("Squeeze")
def squeeze(op, x, axes: Ints | None = None):
    rank, sizes = op.of(x)
    axes = axes if axes is not None else tuple(i for i, size in enumerate(sizes) if size == 1)
    return op.Squeeze(x, squeeze_dims=[axis % rank for axis in axes]) if axes else op.Identity(x)


@from_onnx("Unsqueeze")
def unsqueeze(op, x, axes: Ints):
    rank, sizes = op.of(x)
    for axis in sorted(axis % (rank + len(axes)) for axis in axes):
        sizes = [*sizes[:axis], 1, *sizes[axis:]]
        x = op.ExpandDims(x, numbers(op, axis), _dtype=x.dtype, _shape=sizes)
    return x


@from_onnx("Transpose")
def transpose(op, x, *, perm=None):
    return op.Transpose(x, numbers(op, perm if perm is not None else range(op.of(x)[0])[::-1]))


@from_onnx("Shape")
def shape(op, x, *, start=0, end=None):
    rank, _ = op.of(x)
    chosen = range(rank)[slice(start, end)]
    whole = op.Shape(x, _dtype=T.INT64, _shape=[rank])
    if len(chosen) == rank:
        return whole
    return op.StridedSlice(whole, *(numbers(op, [at]) for at in (chosen.start, max(chosen.stop, chosen.start), 1)))


@from_onnx("Size")
def size(op, x):
    return op.Size(x, _dtype=T.INT64, _shape=[])


@from_onnx("Expand")
def expand(op, x, shape):
    """ONNX expands both ways: the result's sizes are the broadcast of both shapes."""
    rank, out = op.of(op.outputs[0])
    if all(isinstance(size, int) for size in out):
        return op.BroadcastTo(x, numbers(op, out))
    whole = op.Shape(x, _dtype=T.INT32, _shape=[op.of(x)[0]])
    return op.BroadcastTo(x, op.BroadcastArgs(whole, sizes_of(op, shape), _dtype=T.INT32, _shape=[rank]))


@from_onnx("Tile")
def tile(op, x, repeats):
    return op.Tile(x, sizes_of(op, repeats))


@from_onnx("ConstantOfShape")
def constant_of_shape(op, shape, *, value=None):
    fill = np.zeros(1, np.float32) if value is None else value.numpy()
    fill = op.const(fill.reshape(()))
    return op.Fill(sizes_of(op, shape), fill, _dtype=fill.dtype, _shape=op.outputs[0].shape)


@from_onnx("Range")
def range_of(op, start, limit, delta):
    return op.Range(start, limit, delta)


@from_onnx("Concat")
def concat(op, *xs, axis):
    return op.ConcatV2(*xs, numbers(op, axis % op.of(op.outputs[0])[0])) if len(xs) > 1 else op.Identity(xs[0])


@from_onnx("Split")
def split(op, x, split: Ints | None = None, *, axis=0, num_outputs=None):
    rank, sizes = op.of(x)
    axis, count, whole = axis % rank, len(op.outputs), sizes[axis % rank]
    parts = list(split) if split is not None else None
    if parts is None and isinstance(whole, int):
        each = -(-whole // count)
        parts = [each] * (count - 1) + [whole - each * (count - 1)]
    if parts is None:
        op.reject("the size of the split axis is not known")
    if len(set(parts)) == 1:
        return op.make("Split", [numbers(op, axis), x], {}, outputs=count, dtype=x.dtype)
    return op.make("SplitV", [x, numbers(op, parts), numbers(op, axis)], {}, outputs=count)


@from_onnx("Slice")
def slice_of(op, x, starts, ends, axes: Ints | None = None, steps: Ints | None = None):
    rank, sizes = op.of(x)
    first, last = constant(starts), constant(ends)
    axes = tuple(range(len(op.of(starts)[1]) if first is None else len(first))) if axes is None else tuple(axis % rank for axis in axes)
    steps = steps or (1,) * len(axes)
    if first is not None and last is not None:
        fixed, begin_mask, end_mask = strided(sizes, first.tolist(), last.tolist(), axes, steps)
        return op.StridedSlice(x, *(numbers(op, bound) for bound in fixed), begin_mask=begin_mask, end_mask=end_mask)
    begin, end = _spread(op, starts, axes, rank, 0), _spread(op, ends, axes, rank, BOUND)
    return op.StridedSlice(x, begin, end, numbers(op, [steps[axes.index(axis)] if axis in axes else 1 for axis in range(rank)]))


def _spread(op: Builder, vector: ir.Value, axes: tuple[int, ...], rank: int, filler: int) -> ir.Value:
    """Bounds that are computed at run time, each put to its axis, and within 32 bits."""
    array = constant(vector)
    if array is not None:
        vector = op.const(np.clip(array, -BOUND, BOUND).astype(SIZES))
    elif vector.dtype != T.INT32:
        low, high = (op.const(np.asarray(bound, vector.dtype.numpy())) for bound in (-BOUND, BOUND))
        clipped = op.Maximum(op.Minimum(vector, high, _dtype=vector.dtype, _shape=vector.shape), low, _dtype=vector.dtype, _shape=vector.shape)
        vector = op.Cast(clipped, _dtype=T.INT32, _shape=vector.shape)
    if axes == tuple(range(rank)):
        return vector
    source = op.ConcatV2(vector, numbers(op, [filler]), numbers(op, 0), _dtype=T.INT32, _shape=[len(axes) + 1])
    places = [axes.index(axis) if axis in axes else len(axes) for axis in range(rank)]
    return op.GatherV2(source, numbers(op, places), numbers(op, 0), _dtype=T.INT32, _shape=[rank])


@from_onnx("Pad")
def pad(op, x, pads, value=None, axes: Ints | None = None, *, mode="constant"):
    rank, _ = op.of(x)
    array = constant(pads)
    if array is None:
        rows = op.Reshape(sizes_of(op, pads), numbers(op, [2, rank]), _dtype=T.INT32, _shape=[2, rank])
        pairs = op.Transpose(rows, numbers(op, [1, 0]), _dtype=T.INT32, _shape=[rank, 2])
    else:
        pairs = numbers(op, array.reshape(2, rank).T)
    if mode == "reflect":
        return op.MirrorPad(x, pairs, mode="REFLECT")
    filler = constant(value)
    if x.dtype == T.STRING or (value is not None and (filler is None or np.any(filler != 0))):
        filler = value if value is not None else op.const(np.asarray("", object))
        return op.PadV2(x, pairs, filler if op.of(filler)[0] == 0 else op.Reshape(filler, numbers(op, []), _dtype=x.dtype, _shape=[]))
    return op.Pad(x, pairs)


# ---- gather and scatter


@from_onnx("Gather")
def gather(op, x, indices, *, axis=0):
    return op.GatherV2(x, indices, numbers(op, axis % op.of(x)[0]))


@from_onnx("GatherND")
def gather_nd(op, x, indices, *, batch_dims=0):
    return op.GatherNd(x, indices)


@from_onnx("ScatterND")
def scatter_nd(op, x, indices, updates, *, reduction="none"):
    return getattr(op, {"none": "TensorScatterUpdate", "add": "TensorScatterAdd", "max": "TensorScatterMax", "min": "TensorScatterMin"}[reduction])(
        x, indices, updates)


@from_onnx("AddScattered")
def add_scattered(op, indices, updates, shape):
    """Positions and shape must have one type."""
    where = indices if indices.dtype == T.INT32 else op.Cast(indices, _dtype=T.INT32, _shape=indices.shape)
    return op.ScatterNd(where, updates, sizes_of(op, shape), _dtype=updates.dtype, _shape=op.outputs[0].shape)


@from_onnx("NonZero")
def non_zero(op, x):
    """Where lists positions by row, ONNX by column."""
    return op.Transpose(op.Where(x, _dtype=T.INT64, _shape=[None, op.of(x)[0]]), numbers(op, [1, 0]))


@from_onnx("ReverseAxis")
def reverse(op, x, *, axis):
    return op.ReverseV2(x, numbers(op, [axis]))


@from_onnx("ReverseSequence")
def reverse_sequence(op, x, lengths, *, batch_axis=1, time_axis=0):
    return op.ReverseSequence(x, lengths, seq_dim=time_axis, batch_dim=batch_axis)


@from_onnx("DistinctRows")
def distinct(op, x, *, axis=0):
    """Distinct slices of an axis in order of appearance, where each went, and how many went there."""
    return op.make("UniqueWithCountsV2", [x, numbers(op, [axis])], {"out_idx": "int64"}, outputs=3)


@from_onnx("SegmentFirst")
def segment_first(op, values, segments, count):
    return op.UnsortedSegmentMin(values, segments, sizes_of(op, count))


# ---- reductions


def _reduction(target: str) -> Any:
    def rule(op: Builder, x: ir.Value, axes: ir.Value | None = None, *, keepdims=1, noop_with_empty_axes=0):
        known = constant(axes)
        if axes is not None and known is None:
            return op.make(target, [x, axes], {"keep_dims": keepdims})
        rank = op.of(x)[0]
        chosen = [axis % rank for axis in known.tolist()] if known is not None and known.size else [] if noop_with_empty_axes else list(range(rank))
        name = BOOLEAN.get(target, target) if x.dtype == T.BOOL else target
        return op.make(name, [x, numbers(op, chosen)], {"keep_dims": keepdims})

    return rule


BOOLEAN = {"Max": "Any", "Min": "All"}
for _name, _target in {"ReduceSum": "Sum", "ReduceMean": "Mean", "ReduceMax": "Max", "ReduceMin": "Min", "ReduceProd": "Prod"}.items():
    from_onnx(_name)(_reduction(_target))


@from_onnx("ArgMax", "ArgMin")
def arg_extreme(op, x, *, axis=0, keepdims=0, select_last_index=0):
    return op.make(op.node.op_type, [x, numbers(op, axis % op.of(x)[0])], {}, dtype=T.INT64, shape=op.outputs[0].shape)


@from_onnx("CumSum")
def cumsum(op, x, axis: Int, *, exclusive=0, reverse=0):
    return op.Cumsum(x, numbers(op, axis % op.of(x)[0]), exclusive=exclusive, reverse=reverse)


@from_onnx("CumProd")
def cumprod(op, x, axis: Int, *, exclusive=0, reverse=0):
    return op.Cumprod(x, numbers(op, axis % op.of(x)[0]), exclusive=exclusive, reverse=reverse)


@from_onnx("TopKLast")
def top_k(op, x, k):
    """Values and int32 positions of the k greatest elements of the last axis, sorted."""
    values, places = op.TopKV2(x, k, sorted=1, _outputs=2)
    places.dtype = T.INT32
    return values, places


@from_onnx("Softmax", "LogSoftmax")
def softmax(op, x, *, axis=-1):
    return op.make(op.node.op_type, [x], {})


# ---- linear algebra


@from_onnx("MatMul")
def matmul(op, a, b):
    return op.BatchMatMulV2(a, b) if op.of(a)[0] > 2 or op.of(b)[0] > 2 else op.MatMul(a, b)


@from_onnx("Gemm")
def gemm(op, a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    y = op.MatMul(a, b, transpose_a=transA, transpose_b=transB, _dtype=a.dtype, _shape=op.outputs[0].shape)
    y = y if alpha == 1.0 else op.Mul(y, op.const(alpha, like=a.dtype), _dtype=a.dtype, _shape=y.shape)
    if c is None or beta == 0:
        return y
    c = c if beta == 1.0 else op.Mul(c, op.const(beta, like=a.dtype), _dtype=a.dtype, _shape=c.shape)
    return op.BiasAdd(y, c) if _is_bias(op, y, c) else op.AddV2(y, c)


@from_onnx("FullyConnected")
def fully_connected(op, x, weight, bias=None, *, transB=1):
    """x [.., inputs] times weight [outputs, inputs] where transB is set, else [inputs, outputs]."""
    name, flag = ("MatMul", "transpose_b") if op.of(x)[0] == 2 else ("BatchMatMulV2", "adj_y")
    return _biased(op, op.make(name, [x, weight], {flag: transB}, dtype=x.dtype, shape=op.outputs[0].shape), bias)


def _is_bias(op: Builder, y: ir.Value, c: ir.Value) -> bool:
    (rank, sizes), (depth, length) = op.of(y), op.of(c)
    return rank >= 2 and depth == 1 and length[0] == sizes[-1]


# ---- convolution and pooling, channels-last: [N, H, W, C]

PADDING = {"VALID": "VALID", "SAME_UPPER": "SAME"}


def _turned(op: Builder, value: ir.Value, perm: tuple[int, ...], name: str = "") -> ir.Value:
    """A weight with its axes in another order: lazily where it is a constant."""
    if value.const_value is None or not value.is_initializer() or value.is_graph_input():
        return op.Transpose(value, numbers(op, perm), _dtype=value.dtype, _shape=[value.shape[axis] for axis in perm])
    kept = op.context.shared.get((value, perm))
    if kept is None:
        kept = op.context.shared[value, perm] = op.const(lazily(perm, value.const_value), name=value.name)
    return kept


def _across(numbers_of: Any) -> list[int]:
    return [1, *numbers_of, 1]


@from_onnx("last::Conv")
def conv(op, x, w, b=None, *, auto_pad="VALID", strides=(1, 1), dilations=(1, 1), group=1, kernel_shape=None):
    """OIHW -> HWIO; one group a channel: [channels * multiplier, 1, H, W] -> [H, W, channels, multiplier]."""
    window = {"strides": _across(strides), "padding": PADDING[auto_pad]}
    if len(strides) == 3:
        y = op.Conv3D(x, _turned(op, w, (2, 3, 4, 1, 0)), **window)
    elif group > 1:
        y = op.DepthwiseConv2dNative(x, _by_channel(op, w, group), **window)
    else:
        y = op.Conv2D(x, _turned(op, w, (2, 3, 1, 0)), dilations=_across(dilations), **window)
    return _biased(op, y, b)


def _biased(op: Builder, y: ir.Value, b: ir.Value | None) -> ir.Value:
    if b is None:
        return y
    y.dtype = y.dtype or b.dtype
    return op.BiasAdd(y, b)


def _by_channel(op: Builder, w: ir.Value, group: int) -> ir.Value:
    outputs, _, height, width = op.static(w)
    dims = [height, width, group, outputs // group]
    if w.const_value is not None and w.is_initializer() and not w.is_graph_input():
        return op.const(lazily(lambda a: a.reshape(group, -1, height, width).transpose(2, 3, 0, 1), w.const_value, dims=dims), name=w.name)
    flat = op.Reshape(w, numbers(op, [group, outputs // group, height, width]), _dtype=w.dtype, _shape=[group, outputs // group, height, width])
    return op.Transpose(flat, numbers(op, [2, 3, 0, 1]), _dtype=w.dtype, _shape=dims)


@from_onnx("last::TransposedConv")
def conv_transpose(op, x, w, b=None, shape=None, *, auto_pad="VALID", strides=(1, 1), kernel_shape=None):
    """IOHW -> HWOI. `shape` is the channels-last size of the result."""
    window = {"strides": _across(strides), "padding": PADDING[auto_pad]}
    name, perm = ("Conv3DBackpropInputV2", (2, 3, 4, 1, 0)) if len(strides) == 3 else ("Conv2DBackpropInput", (2, 3, 1, 0))
    y = op.make(name, [sizes_of(op, shape), _turned(op, w, perm), x], window, dtype=x.dtype, shape=op.outputs[0].shape)
    return _biased(op, y, b)


@from_onnx("last::MaxPool")
def max_pool(op, x, *, kernel_shape, auto_pad="VALID", strides=(1, 1)):
    return op.MaxPool(x, ksize=_across(kernel_shape), strides=_across(strides), padding=PADDING[auto_pad])


@from_onnx("last::AveragePool")
def average_pool(op, x, *, kernel_shape, auto_pad="VALID", strides=(1, 1), count_include_pad=0):
    """The kernel counts only what lies inside, as ONNX does without count_include_pad."""
    return op.AvgPool(x, ksize=_across(kernel_shape), strides=_across(strides), padding=PADDING[auto_pad])


@from_onnx("last::ResizeSpatial")
def resize(op, x, sizes, *, mode, align_corners=0, half_pixel_centers=0):
    flags = {"align_corners": align_corners, "half_pixel_centers": half_pixel_centers}
    return op.make("ResizeBilinear" if mode == "linear" else "ResizeNearestNeighbor", [x, sizes_of(op, sizes)], flags)


@from_onnx("last::DepthToSpace", "last::SpaceToDepth")
def blocks(op, x, *, blocksize, mode="DCR"):
    return op.make(op.node.op_type, [x], {"block_size": blocksize})


# ---- control flow; the pass before has made every captured value an explicit input of both bodies


@from_onnx("If")
def if_of(op, condition, *inputs, then_branch, else_branch):
    bodies = {"then_branch": op.subgraph(then_branch), "else_branch": op.subgraph(else_branch)}
    return _typed(op, op.make("StatelessIf", [condition, *inputs], bodies, outputs=len(op.outputs), dtype=1))


@from_onnx("While")
def while_of(op, *state, cond, body):
    made = _typed(op, op.make("StatelessWhile", state, {"cond": op.subgraph(cond), "body": op.subgraph(body)}, outputs=len(op.outputs), dtype=1))
    # TensorFlow takes the shapes of the first round for those of the results, unless it is told; what grows from round to round has others.
    values = made if isinstance(made, tuple) else (made,)
    shapes = [_lasting(start, value) for start, value in zip(state, values, strict=True)]
    values[0].producer().attributes["output_shapes"] = ir.Attr("output_shapes", ir.AttributeType.TYPE_PROTOS, shapes)
    return made


def _lasting(start: ir.Value, result: ir.Value) -> tuple[int, ...] | None:
    """The sizes that a value has before and after a loop, -1 for those that change or are not known; None where the rank is one of these."""
    if start.shape is None or result.shape is None or len(start.shape) != len(result.shape):
        return None
    return tuple(int(before) if isinstance(before, int) and before == after else -1 for before, after in zip(start.shape, result.shape, strict=True))


def _typed(op: Builder, made: Any) -> Any:
    """The results with the types of what they stand for."""
    for value, old in zip(made if isinstance(made, tuple) else (made,), op.outputs, strict=True):
        value.type, value.shape = old.type, old.shape
    return made


# ---- detection and random numbers


@from_onnx("NonMaxSuppressionOne")
def non_max_suppression(op, boxes, scores, count, iou, score):
    """Boxes [n, 4], scores [n] -> positions [count], padded with 0, and how many are valid."""
    places, valid = op.NonMaxSuppressionV4(boxes, scores, count, iou, score, pad_to_max_output_size=1, _outputs=2)
    places.dtype = valid.dtype = T.INT32
    return places, valid


@from_onnx("DrawUniform")
def draw_uniform(op, sizes, *, seed=0):
    return op.RandomUniform(sizes_of(op, sizes), seed=seed, seed2=seed, _dtype=1, _shape=op.outputs[0].shape)


@from_onnx("DrawNormal")
def draw_normal(op, sizes, *, seed=0):
    return op.RandomStandardNormal(sizes_of(op, sizes), seed=seed, seed2=seed, _dtype=1, _shape=op.outputs[0].shape)
