"""TensorFlow -> ONNX, operator by operator: shapes, places, segments and losses."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from isomorph.dialects._lower import Array, Int, Ints, constant
from isomorph.dialects.tf.to_onnx.operators import BOOL, FLOAT, FLOATING, INT64, STRING, Value, computable, number, scalar_of, to_onnx
from isomorph.dialects.tflite.to_onnx import common as lite_common
from isomorph.dialects.tflite.to_onnx import matrices as lite_matrices
from isomorph.dialects.tflite.to_onnx import operators as lite_operators
from isomorph.dialects.tflite.to_onnx import places as lite_places
from isomorph.dialects.tflite.to_onnx.common import END, INT32, longs, narrow, size, wide

# ---- shapes


@to_onnx("Shape")
def shape(op, x, *, out_type="int32"):
    return op.Shape(x)


@to_onnx("ShapeN")
def shape_n(op, *xs, out_type="int32", N=0):
    return [op.Shape(x) for x in xs]


@to_onnx("Size")
def size_(op, x, *, out_type="int32"):
    return op.Size(x)


@to_onnx("Rank")
def rank_(op, x):
    return op.const(np.int32(x.shape.rank())) if x.shape is not None else op.Squeeze(op.Shape(op.Shape(x)), [0])


@to_onnx("Reshape")
def reshape(op, x, shape):
    array = constant(shape)
    return op.Reshape(x, longs(op, shape), allowzero=1 if array is None or 0 in array else None)


@to_onnx("Squeeze")
def squeeze(op, x, *, squeeze_dims=()):
    """Without axes every axis of the size one; ONNX Runtime decides that when it runs."""
    return op.Squeeze(x, list(squeeze_dims) if squeeze_dims else None)


@to_onnx("Transpose", "ConjugateTranspose")
def transpose(op, x, perm: Ints):
    return op.Transpose(x, perm=[axis % len(perm) for axis in perm]) if perm else op.Identity(x)


@to_onnx("InvertPermutation")
def invert_permutation(op, x):
    return op.ScatterND(op.ConstantOfShape(op.Shape(x), value=np.zeros(1, np.int64)), op.Unsqueeze(longs(op, x), [1]),
                        op.Range(op.const(np.int64(0)), op.Size(x), op.const(np.int64(1))))


@to_onnx("Pack")
def pack(op, *xs, axis=0, N=0):
    return op.Concat(*(op.Unsqueeze(x, [axis]) for x in xs), axis=axis)


@to_onnx("Unpack")
def unpack(op, x, *, num=0, axis=0):
    parts = op.Split(x, axis=axis, num_outputs=num, _outputs=num) if num > 1 else [x]
    return [op.Squeeze(part, [axis]) for part in parts]


@to_onnx("ConcatV2")
def concat_v2(op, *xs, N=0):
    return concat(op, xs[-1], *xs[:-1])


@to_onnx("Concat")
def concat(op, axis, *xs, N=0):
    """Empty vectors in between, which TensorFlow passes over, are left out."""
    place = constant(axis)
    if place is None:
        op.reject("its axis must be a constant")
    parts = [x for x in xs if x.shape is None or x.shape.rank() != 1 or list(x.shape) != [0]] or list(xs[:1])
    return op.Concat(*parts, axis=int(place)) if len(parts) > 1 else op.Identity(parts[0])


@to_onnx("ParallelConcat")
def parallel_concat(op, *xs, shape=None, N=0):
    return op.Concat(*xs, axis=0)


@to_onnx("Split")
def split(op, axis: Int, x, *, num_split=1):
    return op.Split(x, axis=axis, num_outputs=num_split, _outputs=num_split) if num_split > 1 else op.Identity(x)


@to_onnx("SplitV")
def split_v(op, x, sizes, axis: Int, *, num_split=1):
    """One size may be -1: the rest."""
    lengths = constant(sizes)
    if lengths is not None and (lengths < 0).any():
        total = size(op, x, axis)
        if not isinstance(total, int):
            op.reject("the rest of an axis whose size is not known")
        lengths = np.where(lengths < 0, total - lengths[lengths >= 0].sum(), lengths)
        sizes = op.const(lengths.astype(np.int64))
    return op.Split(x, longs(op, sizes), axis=axis, _outputs=num_split) if num_split > 1 else op.Identity(x)


@to_onnx("Tile")
def tile(op, x, repeats):
    return op.Tile(x, longs(op, repeats))


@to_onnx("Fill")
def fill(op, shape, value, *, index_type=""):
    content, dims = constant(value), constant(shape)
    if content is not None and content.dtype.kind in "fiub" and (dims is None or dims.size):
        return op.ConstantOfShape(longs(op, shape), value=content.reshape(1))
    return op.Expand(value, longs(op, shape))


@to_onnx("LinSpace")
def lin_space(op, start, stop, count: Int):
    """The last element is exactly `stop`."""
    steps = np.arange(count, dtype=np.float64) / max(count - 1, 1)
    spread = op.Mul(op.const(steps.astype(start.dtype.numpy())), op.Sub(stop, start))
    return op.Add(start, spread)


@to_onnx("MirrorPad")
def mirror_pad(op, x, paddings: Array, *, mode):
    (a,) = wide(op, x)
    return narrow(op, lite_places.mirror_pad(op, a, paddings, mode=mode), x)


@to_onnx("Reverse")
def reverse(op, x, chosen: Array):
    """A flag an axis."""
    return lite_places.reverse_v2(op, x, tuple(int(axis) for axis in np.flatnonzero(chosen)))


@to_onnx("ReverseSequence")
def reverse_sequence(op, x, lengths, *, seq_dim, batch_dim=0):
    return lite_places.reverse_sequence(op, x, lengths, seq_dim=seq_dim, batch_dim=batch_dim)


@to_onnx("Roll")
def roll(op, x, shift: Ints, axis: Ints):
    for by, place in zip(shift, axis, strict=True):
        length: int = op.static(x)[place]
        by = by % length if length else 0
        if by:
            x = op.Concat(op.Slice(x, [length - by], [END], [place]), op.Slice(x, [0], [length - by], [place]), axis=place)
    return op.Identity(x)


# ---- places


@to_onnx("Gather", "GatherV2", "ResourceGather")
def gather(op, x, places, axis: Int = 0, *, batch_dims=0, validate_indices=1, dtype=""):
    x = read(op, x)
    return lite_places.gather(op, x, places, axis=axis, batch_dims=batch_dims) if axis or batch_dims else chosen_rows(op, x, places)


def chosen_rows(op: Any, x: Value, places: Value) -> Value:
    """x[places]. Where x are the rows of distinct numbers and `places` says which of them stood where, as lookups of embeddings are written, the rows of the
    numbers themselves: nothing needs to be distinct."""
    gather, index = x.producer(), _cast_away(places)
    numbers = _cast_away(gather.inputs[1]) if gather is not None and gather.op_type == "Gather" and not gather.attributes.get_int("axis", 0) else None
    made = numbers.producer() if numbers is not None else None
    if made is not None and made.op_type == "Unique" and numbers is made.outputs[0] and index is made.outputs[2]:
        return op.Gather(gather.inputs[0], made.inputs[0], axis=0)      # type: ignore[union-attr]
    return lite_places.gather(op, x, places, axis=0, batch_dims=0)


def _cast_away(value: Value) -> Value:
    """What a chain of Cast and Identity begins with."""
    node = value.producer()
    return _cast_away(node.inputs[0]) if node is not None and node.op_type in ("Cast", "Identity") and node.inputs[0] is not None else value


def read(op: Any, x: Value) -> Value:
    """What a variable holds; any other value itself."""
    thing = x.meta.get("thing")
    return x if thing is None else op.context.state[thing.name]


@to_onnx("ResourceGatherNd")
def resource_gather_nd(op, x, places, *, dtype=""):
    return lite_places.gather_nd(op, read(op, x), places)


@to_onnx("OneHot")
def one_hot(op, places, depth, on, off, *, axis=-1):
    """ONNX Runtime has it for float32 and int64 values."""
    kind = FLOAT if on.dtype in FLOATING else INT64
    yes, no = (value if value.dtype == kind else op.Cast(value, to=kind) for value in (on, off))
    return narrow(op, lite_places.one_hot(op, places, scalar_of(op, depth), yes, no, axis=axis), on)


@to_onnx("Where")
def where(op, condition):
    (a,) = computable(op, condition) if condition.dtype != BOOL else (condition,)
    return op.Transpose(op.NonZero(a), perm=[1, 0])


@to_onnx("GatherNd")
def gather_nd(op, x, places, *, bad_indices_policy=""):
    return lite_places.gather_nd(op, x, places)


@to_onnx("ScatterNd")
def scatter_nd(op, places, updates, shape, *, bad_indices_policy=""):
    return lite_places.scatter_nd(op, places, updates, shape)


def _scattered(reduction: str | None) -> Callable[..., Any]:
    def rule(op, x, places, updates, *, bad_indices_policy=""):
        a, b = (x, updates) if x.dtype in (BOOL, STRING) else computable(op, x, updates)
        return narrow(op, op.ScatterND(a, longs(op, places), b, reduction=reduction), x)
    return rule


for _name, _reduce in {"TensorScatterUpdate": None, "TensorScatterAdd": "add", "TensorScatterMax": "max", "TensorScatterMin": "min"}.items():
    to_onnx(_name)(_scattered(_reduce))


@to_onnx("TensorScatterSub", "ScatterNdNonAliasingAdd")
def tensor_scatter_sub(op, x, places, updates, *, bad_indices_policy=""):
    a, b = computable(op, x, updates)
    b = op.Neg(b) if op.node.op_type == "TensorScatterSub" else b
    return narrow(op, op.ScatterND(a, longs(op, places), b, reduction="add"), x)


@to_onnx("SegmentMean", "SegmentMax", "SegmentMin", "SegmentProd")
def segments(op, x, ids):
    """Sorted segments; an empty one is zero, the product of an empty one is one."""
    kind = op.node.op_type.removeprefix("Segment").upper()
    count = op.Add(op.ReduceMax(longs(op, ids), [0], keepdims=1), [1])
    if kind == "MEAN":
        ones = op.ConstantOfShape(op.Shape(ids), value=np.ones(1, x.dtype.numpy()))
        divisor = lite_matrices.segment_sum(op, ones, ids)
        divisor = op.Max(divisor, number(x, 1))
        return op.Div(lite_matrices.segment_sum(op, x, ids), op.Unsqueeze(divisor, list(range(1, op.of(x)[0]))) if op.of(x)[0] > 1 else divisor)
    y = lite_common.to_onnx.rules["tflite", f"UNSORTED_SEGMENT_{kind}"].function(op, x, ids, count)
    if kind == "PROD":
        return y
    hits = lite_matrices.segment_sum(op, op.ConstantOfShape(op.Shape(ids), value=np.ones(1, np.int64)), ids)
    hit = op.Greater(hits, 0)
    return op.Where(op.Unsqueeze(hit, list(range(1, op.of(x)[0]))) if op.of(x)[0] > 1 else hit, y, op.const(number(x, 0)))


@to_onnx("Bucketize")
def bucketize(op, x, *, boundaries=()):
    return lite_operators.bucketize(op, x, boundaries=tuple(boundaries))


@to_onnx("LowerBound", "UpperBound")
def bound(op, rows, values, *, out_type="int32"):
    """How many elements of a sorted row are below (or not above) each value."""
    compare = op.Less if op.node.op_type == "LowerBound" else op.LessOrEqual
    hits = compare(op.Unsqueeze(rows, [1]), op.Unsqueeze(values, [2]))
    return op.ReduceSum(op.Cast(hits, to=INT64), [2], keepdims=0)


@to_onnx("ListDiff")
def list_diff(op, x, y, *, out_idx=""):
    """What of x is not in y, and where it stands."""
    a, b = computable(op, x, y)
    found = op.ReduceMax(op.Cast(op.Equal(op.Unsqueeze(a, [1]), op.Unsqueeze(b, [0])), to=INT32), [1], keepdims=0)
    places = op.Squeeze(op.NonZero(op.Equal(found, 0)), [0])
    return op.Gather(x, places, axis=0), places


@to_onnx("DynamicStitch", "ParallelDynamicStitch")
def dynamic_stitch(op, *xs, N=0):
    """Rows at their places; later ones win."""
    places, parts = xs[:len(xs) // 2], xs[len(xs) // 2:]
    index = op.Concat(*(op.Reshape(longs(op, place), [-1]) for place in places), axis=0)
    flat = []
    for place, part in zip(places, parts, strict=True):
        inner = op.of(part)[0] - op.of(place)[0]
        flat.append(op.Reshape(part, op.Concat(op.const([-1]), op.Shape(part, start=op.of(part)[0] - inner), axis=0) if inner else op.const([-1])))
    rows = op.Concat(*flat, axis=0)
    length = op.Add(op.ReduceMax(index, [0], keepdims=1), [1])
    shape = op.Concat(length, op.Shape(rows, start=1), axis=0)
    return op.ScatterND(op.ConstantOfShape(shape, value=np.zeros(1, rows.dtype.numpy())), op.Unsqueeze(index, [-1]), rows)


@to_onnx("DynamicPartition")
def dynamic_partition(op, x, ids, *, num_partitions):
    rank = op.of(ids)[0]
    flat = op.Reshape(longs(op, ids), [-1])
    inner = op.Shape(x, start=rank)
    rows = op.Reshape(x, op.Concat(op.const([-1]), inner, axis=0)) if rank != 1 else x
    return [op.Compress(rows, op.Equal(flat, number), axis=0) for number in range(lite_common.bounded(op, num_partitions, 4096))]


# ---- losses


@to_onnx("SoftmaxCrossEntropyWithLogits")
def softmax_cross_entropy(op, logits, labels):
    log = op.LogSoftmax(logits, axis=-1)
    return op.Neg(op.ReduceSum(op.Mul(labels, log), [-1], keepdims=0)), op.Sub(op.Softmax(logits, axis=-1), labels)


@to_onnx("SparseSoftmaxCrossEntropyWithLogits")
def sparse_softmax_cross_entropy(op, logits, labels):
    log = op.LogSoftmax(logits, axis=-1)
    index = op.Unsqueeze(longs(op, labels), [-1])
    own = op.Squeeze(op.GatherElements(log, index, axis=-1), [-1])
    classes = size(op, logits, -1)
    depth = op.const(np.int64(classes)) if isinstance(classes, int) else op.Squeeze(classes, [0])
    hot = op.OneHot(longs(op, labels), depth, op.const(np.asarray([0, 1], logits.dtype.numpy())), axis=-1)
    return op.Neg(own), op.Sub(op.Softmax(logits, axis=-1), hot)


@to_onnx("L2Loss")
def l2_loss(op, x):
    return op.Mul(op.ReduceSum(op.Mul(x, x), keepdims=0), number(x, 0.5))
