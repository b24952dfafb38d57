"""What kernels of the TensorFlow family share in their forms: reductions along the last axis, matrices, suppression of boxes, quantisation as arithmetic.

Operators that ONNX has no name for: TopKLast, ReverseAxis, NonMaxSuppressionOne, DrawUniform, DrawNormal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Float, Int, Mapping, constant
from isomorph.passes.decompose import interval, shape_of
from isomorph.passes.dropping import dropped_at_random

common = Mapping()
FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


# ---- reductions and orders along the last axis


@common("ArgMax", "ArgMin")
def arg_extreme(op, x, *, axis=0, keepdims=1, select_last_index=0):
    rank, _sizes = op.of(x)
    axis %= rank
    kind = getattr(op, op.node.op_type)
    if select_last_index:
        size = op.Squeeze(shape_of(op, x, axis), [0])
        y = op.Sub(op.Sub(size, np.int64(1)), kind(op.ReverseAxis(x, axis=axis, _dtype=x.dtype, _shape=x.shape), axis=axis, keepdims=0))
        return op.Unsqueeze(y, [axis]) if keepdims else y
    return op.Unsqueeze(kind(x, axis=axis, keepdims=0), [axis]) if keepdims else NotImplemented


@common("TopK")
def top_k(op, x, k, *, axis=-1, largest=1, sorted=1):
    rank, sizes = op.of(x)
    axis %= rank
    order = [i for i in range(rank) if i != axis] + [axis]
    y = x if axis == rank - 1 else op.Transpose(x, perm=order)
    y = y if largest else op.Neg(y)
    count = constant(k)
    k32 = op.const(np.asarray(count.reshape(()), np.int32)) if count is not None else op.Cast(op.Squeeze(k, [0]), to=6)
    shape = [*(sizes[i] for i in order[:-1]), None if count is None else int(count.reshape(-1)[0])]
    values, indices = op.TopKLast(y, k32, _outputs=2, _dtype=x.dtype, _shape=shape)
    indices.dtype = ir.DataType.INT32
    values, indices = values if largest else op.Neg(values), op.Cast(indices, to=7)
    back = [order.index(i) for i in range(rank)]
    return (values, indices) if axis == rank - 1 else (op.Transpose(values, perm=back), op.Transpose(indices, perm=back))

@common("MatMul")
def matmul(op, a, b):
    """Vectors become matrices with one row or column."""
    (rank_a, _), (rank_b, _) = op.of(a), op.of(b)
    if rank_a > 1 and rank_b > 1:
        if rank_b > rank_a and rank_a == 2 and rank_b > 2:
            return op.MatMul(op.Unsqueeze(a, list(range(rank_b - rank_a))), b)
        return NotImplemented
    y = op.MatMul(op.Unsqueeze(a, [0]) if rank_a == 1 else a, op.Unsqueeze(b, [1]) if rank_b == 1 else b)
    rank = op.of(y)[0]
    return op.Squeeze(y, [rank - 2 + i for i, one in enumerate((rank_a == 1, rank_b == 1)) if one])


def _random(op: Builder, sizes: ir.Value, kind: ir.DataType, name: str, scale: float, offset: float, seed: float | None) -> ir.Value:
    """A generator of its own: other numbers than any other runtime draws, from the same distribution."""
    op.lose("values.random", "random numbers differ from those of other runtimes")
    y = op.make(name, [sizes], {"seed": int(seed or 0)}, dtype=1, shape=op.outputs[0].shape)
    y = op.Add(op.Mul(y, float(scale)), float(offset))
    return y if kind == ir.DataType.FLOAT else op.Cast(y, to=int(kind))


@common("RandomUniform", "RandomUniformLike")
def random_uniform(op, x=None, *, dtype=None, high=1.0, low=0.0, seed=None, shape=None):
    sizes = op.const(list(shape)) if x is None else shape_of(op, x)
    return _random(op, sizes, ir.DataType(dtype) if dtype else x.dtype if x is not None else ir.DataType.FLOAT, "DrawUniform", high - low, low, seed)


@common("RandomNormal", "RandomNormalLike")
def random_normal(op, x=None, *, dtype=None, mean=0.0, scale=1.0, seed=None, shape=None):
    sizes = op.const(list(shape)) if x is None else shape_of(op, x)
    return _random(op, sizes, ir.DataType(dtype) if dtype else x.dtype if x is not None else ir.DataType.FLOAT, "DrawNormal", scale, mean, seed)


@common("OptionalHasElement")
def optional_has_element(op, x=None):
    """A tensor is always there."""
    return op.const(np.bool_(x is not None))


@common("OptionalGetElement")
def optional_get_element(op, x):
    return op.Identity(x)


@common("ai.onnx.ml::Binarizer")
def binarizer(op, x, *, threshold=0.0):
    return op.Cast(op.Greater(x, op.const(threshold, like=x.dtype)), to=int(x.dtype))


@common("ai.onnx.ml::LabelEncoder")
def label_encoder(op, x, *, keys_tensor=None, values_tensor=None, default_tensor=None, **columns):
    """Every element is compared with every key, and the value beside the first that is equal is taken."""
    keys, values, missing = table_of(op, keys_tensor, values_tensor, default_tensor, columns)
    rank, _ = op.of(x)
    hits = op.Cast(op.Equal(op.Unsqueeze(x, [rank]), keys), to=int(ir.DataType.INT32))
    found = op.Cast(op.ReduceMax(hits, [rank], keepdims=0), to=int(ir.DataType.BOOL))
    return op.Where(found, op.Gather(values, op.ArgMax(hits, axis=rank, keepdims=0)), missing)


def table_of(op: Builder, keys: Any, values: Any, default: Any, columns: dict[str, Any]) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Keys, values and what unknown keys give, as constants."""
    keys, values = _column(op, "keys", keys, columns), _column(op, "values", values, columns)
    if default is not None:
        return keys, values, op.const(default.numpy().reshape(()))
    usual = {ir.DataType.STRING: "_Unused", ir.DataType.FLOAT: -0.0}.get(values.dtype, -1)
    kind = values.dtype.name.lower()
    return keys, values, op.const(np.asarray(columns.get(f"default_{kind}", usual), object if kind == "string" else values.dtype.numpy()))


def _column(op: Builder, side: str, tensor: Any, columns: dict[str, Any]) -> ir.Value:
    """The keys or the values, in whichever attribute they stand."""
    if tensor is not None:
        return op.const(tensor.numpy().reshape(-1))
    for kind, dtype in (("strings", object), ("int64s", np.int64), ("floats", np.float32)):
        if columns.get(f"{side}_{kind}") is not None:
            return op.const(np.asarray(columns[f"{side}_{kind}"], dtype))
    return op.reject(f"it has no {side}")


@common("ai.onnx.ml::ArrayFeatureExtractor")
def array_feature_extractor(op, x, positions):
    rank, _sizes = op.of(x)
    y = op.Gather(x, op.Reshape(positions, [-1]), axis=rank - 1)
    return y if rank > 1 else op.Reshape(y, [1, -1])


@common("Range")
def range_of(op, *bounds):
    """Scalars; function bodies hand in vectors of one element."""
    if all(op.of(bound)[0] == 0 for bound in bounds):
        return NotImplemented
    return op.Range(*(op.Reshape(bound, op.const(np.zeros(0, np.int64))) if op.of(bound)[0] else bound for bound in bounds))


@common("Dropout")
def dropout(op, x, ratio=None, training_mode=None, *, seed=None):
    """Nothing at inference; the mask is all true."""
    training, dropped = (None if value is None else constant(value) for value in (training_mode, ratio))
    if training_mode is not None and training is None:
        op.reject("dropout whose training mode is decided at run time")
    if training is None or not training.any() or (dropped is not None and not dropped.any()):
        return (op.Identity(x), op.Expand(op.const(np.bool_(True)), shape_of(op, x))) if len(op.outputs) > 1 else op.Identity(x)
    return dropped_at_random(op, x, ratio)


@common("TensorScatter")
def tensor_scatter(op, past, update, write_indices=None, *, axis=-2, mode="linear"):
    """Writes `update` into each batch row of `past` from its own position on."""
    sizes, new = op.static(past), op.static(update)
    axis %= len(sizes)
    batch, steps = new[0], new[axis]
    start = op.Reshape(write_indices, [batch, 1]) if write_indices is not None else op.const(np.zeros((batch, 1), np.int64))
    where = op.Add(start, op.const(np.arange(steps)[None]))
    where = op.Mod(where, op.const(np.int64(sizes[axis]))) if mode == "circular" else where
    order = [0, axis, *(i for i in range(1, len(sizes)) if i != axis)]
    rows = op.const(np.broadcast_to(np.arange(batch)[:, None, None], (batch, steps, 1)).astype(np.int64).copy())
    y = op.ScatterND(op.Transpose(past, perm=order), op.Concat(rows, op.Unsqueeze(where, [2]), axis=2), op.Transpose(update, perm=order))
    return op.Transpose(y, perm=[order.index(i) for i in range(len(sizes))])


@common("NonMaxSuppression")
def non_max_suppression(op, boxes, scores, count: Int | None = None, iou: Float | None = None, threshold: Float | None = None, *, center_point_box=0):
    """One single-class suppression for each batch and class; rows (batch, class, box) in that order. ONNX keeps a box whose overlap equals
    the threshold, the kernel does not: the threshold is the next larger number."""
    batches, classes, total = op.static(scores)
    limit = min(count or 0, total)
    if center_point_box:
        x, y, w, h = (interval(op, boxes, 2, i, i + 1) for i in range(4))
        boxes = op.Concat(op.Sub(y, op.Div(h, 2.0)), op.Sub(x, op.Div(w, 2.0)), op.Add(y, op.Div(h, 2.0)), op.Add(x, op.Div(w, 2.0)), axis=2)
    rows = []
    for b in range(batches if limit else 0):
        these = op.Squeeze(interval(op, boxes, 0, b, b + 1), [0])
        for c in range(classes):
            line = op.Squeeze(interval(op, interval(op, scores, 0, b, b + 1), 1, c, c + 1), [0, 1])
            positions, valid = op.NonMaxSuppressionOne(
                these,
                line,
                op.const(np.int32(limit)),
                op.const(np.nextafter(np.float32(iou or 0.0), np.float32(2))),
                op.const(np.float32(-3e38 if threshold is None else threshold)),
                _outputs=2,
                _dtype=6,
                _shape=[limit],
            )
            valid.shape = ir.Shape([])
            chosen = op.Slice(op.Cast(positions, to=7), op.const([0]), op.Unsqueeze(op.Cast(valid, to=7), [0]), op.const([0]))
            column = op.Unsqueeze(chosen, [1])
            rows.append(op.Concat(op.Add(op.Mul(column, np.int64(0)), np.int64(b)), op.Add(op.Mul(column, np.int64(0)), np.int64(c)), column, axis=1))
    if not rows:
        return op.const(np.zeros((0, 3), np.int64))
    return op.Concat(*rows, axis=0) if len(rows) > 1 else rows[0]


@common("Softmax", "LogSoftmax")
def softmax(op, x, *, axis=-1):
    """The kernel knows the last axis. A middle axis of a picture is left to the layout pass, which may make it the last."""
    rank, _ = op.of(x)
    if rank == 0:
        return op.Reshape(getattr(op, op.node.op_type)(op.Reshape(x, [1]), axis=-1), op.const(np.zeros(0, np.int64)))
    if axis % rank == rank - 1 or (rank in (3, 4, 5) and axis % rank == 1):
        return NotImplemented
    return last_axis_softmax(op, x, axis=axis)


def last_axis_softmax(op, x, *, axis=-1):
    rank, _ = op.of(x)
    axis %= rank
    if axis == rank - 1:
        return NotImplemented
    order = [i if i not in (axis, rank - 1) else axis + rank - 1 - i for i in range(rank)]
    return op.Transpose(getattr(op, op.node.op_type)(op.Transpose(x, perm=order), axis=-1), perm=order)


# ---- quantisation as arithmetic


@common("DequantizeLinear")
def plain_dequantize(op, x, scale, zero=None, *, axis=1, block_size=0, output_dtype=0):
    y = op.Cast(x, to=int(scale.dtype))
    scale, zero = (None if v is None else _spread(op, v, x, axis, block_size) for v in (scale, zero))
    y = op.Mul(y if zero is None else op.Sub(y, op.Cast(zero, to=int(scale.dtype))), scale)
    return op.Cast(y, to=int(op.outputs[0].dtype)) if op.outputs[0].dtype not in (None, y.dtype) else y


@common("QuantizeLinear")
def plain_quantize(op, x, scale, zero=None, *, axis=1, block_size=0, saturate=1, output_dtype=0, precision=0):
    """round half to even, shift, saturate."""
    kind = zero.dtype if zero is not None else ir.DataType(output_dtype or 2)
    if kind not in STORED:
        op.reject(f"quantisation to {kind.name}")
    info = np.iinfo(kind.numpy())
    scale, zero = (None if v is None else _spread(op, v, x, axis, block_size) for v in (scale, zero))
    y = op.Round(op.Div(x, op.Cast(scale, to=int(x.dtype)) if scale.dtype != x.dtype else scale))
    y = y if zero is None else op.Add(y, op.Cast(zero, to=int(x.dtype)))
    return op.Cast(op.Min(op.Max(y, float(info.min)), float(info.max)), to=int(kind))


STORED = {ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT32}


def _spread(op: Builder, vector: ir.Value, x: ir.Value, axis: int, block: int) -> ir.Value:
    """Parameters along an axis in the shape that broadcasts; blocks repeat each one."""
    rank, _sizes = op.of(x)
    if block:
        count = op.static(vector)[axis % rank]
        index = np.repeat(np.arange(count), block)[: op.static(x)[axis % rank]]
        return op.Gather(vector, op.const(index.astype(np.int64)), axis=axis % rank)
    if op.of(vector)[0] == 1 and op.of(vector)[1] != [1] and rank > 1:
        return op.Reshape(vector, [-1 if i == axis % rank else 1 for i in range(rank)])
    return op.Reshape(vector, op.const(np.zeros(0, np.int64))) if op.of(vector)[0] == 1 and op.of(vector)[1] == [1] else vector
