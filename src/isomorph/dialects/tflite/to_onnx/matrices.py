"""Products of matrices, normalisations along an axis and lookups in tables; reductions, and sums over segments."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Int
from isomorph.dialects.tflite.to_onnx.common import BOOL, FLOAT, INT32, INT64, NARROW, activation, longs, narrow, permuted, to_onnx, vector, wide


@to_onnx("FULLY_CONNECTED")
def fully_connected(op, x, w, b=None, *, fused_activation_function="NONE", weights_format="DEFAULT", keep_num_dims=0, asymmetric_quantize_inputs=0,
                    quantized_bias_type="FLOAT32"):
    """x [..., K] * w [N, K], flattened to a matrix unless keep_num_dims."""
    if weights_format != "DEFAULT":
        op.reject(f"weights in the format {weights_format}")
    rank = x.shape.rank() if x.shape is not None else None
    if keep_num_dims and rank != 2:
        y = op.MatMul(x, permuted(op, w, (1, 0)))
        return activation(op, y if b is None else op.Add(y, b), fused_activation_function)
    known = rank == 2 and (not isinstance(x.shape[1], int) or x.shape[1] == w.shape[1])
    return activation(op, op.Gemm(x if known else op.Reshape(x, [-1, w.shape[1]]), w, b, transB=1), fused_activation_function)


@to_onnx("BATCH_MATMUL")
def batch_matmul(op, x, y, *, adj_x=0, adj_y=0, asymmetric_quantize_inputs=0):
    def turned(value: ir.Value) -> ir.Value:
        rank, _ = op.of(value)
        return permuted(op, value, [*range(rank - 2), rank - 1, rank - 2])
    return op.MatMul(turned(x) if adj_x else x, turned(y) if adj_y else y)


@to_onnx("SOFTMAX")
def softmax(op, x, *, beta=0.0):
    return op.Softmax(x if beta == 1 else op.Mul(x, beta), axis=-1)


@to_onnx("LOG_SOFTMAX")
def log_softmax(op, x):
    return op.LogSoftmax(x, axis=-1)


@to_onnx("L2_NORMALIZATION")
def l2_normalization(op, x, *, fused_activation_function="NONE"):
    """Over the last axis, never dividing by less than 1e-6."""
    return activation(op, op.Div(x, op.Max(op.ReduceL2(x, [-1]), 1e-6)), fused_activation_function)


@to_onnx("EMBEDDING_LOOKUP")
def embedding_lookup(op, ids, table):
    return op.Gather(table, ids, axis=0)


@to_onnx("EMBEDDING_LOOKUP_SPARSE")
def embedding_lookup_sparse(op, ids, places, shape, weights, table, *, combiner="SUM"):
    """Weighs rows of the table and adds what has the same place; the last coordinate only tells entries apart."""
    def summed(values: ir.Value, dims: ir.Value) -> ir.Value:
        return op.ScatterND(op.ConstantOfShape(dims), bucket, values, reduction="add")
    rank = op.of(table)[0]
    bucket, buckets = op.Slice(longs(op, places), [0], [-1], [1]), op.Slice(longs(op, shape), [0], [-1], [0])
    columns = op.Unsqueeze(weights, list(range(1, rank)))
    total = summed(op.Mul(op.Gather(table, ids, axis=0), columns), op.Concat(buckets, op.Shape(table, start=1), axis=0))
    if combiner == "SUM":
        return total
    norm = summed(weights, buckets) if combiner == "MEAN" else op.Sqrt(summed(op.Mul(weights, weights), buckets))
    norm = op.Where(op.Equal(norm, 0.0), op.const(np.float32(1)), norm)
    return op.Div(total, op.Unsqueeze(norm, list(range(-rank + 1, 0))))


@to_onnx("HASHTABLE_LOOKUP")
def hashtable_lookup(op, wanted, keys, values):
    """Rows of the keys that are there, zeros for others, and which were."""
    equal = op.Cast(op.Equal(op.Unsqueeze(wanted, [1]), op.Unsqueeze(keys, [0])), to=INT32)
    rows = op.Gather(values, op.ArgMax(equal, axis=1, keepdims=0), axis=0)
    hits = op.Cast(op.ReduceMax(equal, [1], keepdims=0), to=BOOL)
    nothing = op.const(np.asarray("" if values.dtype == ir.DataType.STRING else 0, values.dtype.numpy()))
    found = op.Unsqueeze(hits, list(range(1, op.of(values)[0]))) if op.of(values)[0] > 1 else hits
    return op.Where(found, rows, nothing), op.Cast(hits, to=ir.DataType.UINT8)


# ---- reductions

def reduction(target: str, widened: Callable[..., tuple[ir.Value, ...]] = wide) -> Callable[..., Any]:
    """A rule for a reduction whose small integers become what `widened` makes of them."""
    def rule(op, x, axes, *, keep_dims=0):
        (a,) = widened(op, x)
        return narrow(op, op.make(target, (a, vector(op, axes)), {"keepdims": keep_dims, "noop_with_empty_axes": 1}), x)
    return rule


for _name, _target in {"SUM": "ReduceSum", "REDUCE_PROD": "ReduceProd", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin"}.items():
    to_onnx(_name)(reduction(_target))


@to_onnx("MEAN")
def mean(op, x, axes, *, keep_dims=0):
    """Of integers it is the sum divided towards zero."""
    if x.dtype == FLOAT:
        return op.ReduceMean(x, vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1)
    a = op.Cast(x, to=INT64)
    total = op.ReduceSum(a, vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1)
    count = op.ReduceProd(op.Gather(op.Shape(x), vector(op, axes)), keepdims=0)
    return op.Cast(op.Div(total, count), to=x.dtype)


@to_onnx("REDUCE_ANY")
def reduce_any(op, x, axes, *, keep_dims=0):
    """As a sum, which is right where there is nothing to add; the greatest of nothing is not."""
    return op.Cast(op.ReduceSum(op.Cast(x, to=INT32), vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1), to=BOOL)


@to_onnx("REDUCE_ALL")
def reduce_all(op, x, axes, *, keep_dims=0):
    return op.Cast(op.ReduceProd(op.Cast(x, to=INT32), vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1), to=BOOL)


def _position(target: str) -> Callable[..., Any]:
    def rule(op, x, axis: Int, *, output_type="FLOAT32"):
        (a,) = wide(op, x, types=(*NARROW, INT64, BOOL))
        return op.Cast(op.make(target, (a,), {"axis": axis, "keepdims": 0}, dtype=INT64), to=op.outputs[0].dtype)
    return rule


to_onnx("ARG_MAX")(_position("ArgMax"))
to_onnx("ARG_MIN")(_position("ArgMin"))


@to_onnx("TOPK_V2")
def topk_v2(op, x, k):
    (a,) = wide(op, x)
    values, places = op.TopK(a, vector(op, k), _outputs=2)
    return narrow(op, values, x), op.Cast(places, to=op.outputs[1].dtype)


@to_onnx("UNIQUE")
def unique(op, x, *, idx_out_type="INT32"):
    """In the order of first occurrence."""
    (a,) = wide(op, x, types=(*NARROW, INT32), to=INT64)
    values, _, inverse, _ = op.Unique(a, sorted=0, axis=0, _outputs=4)
    return narrow(op, values, x), op.Cast(inverse, to=op.outputs[1].dtype)


# ---- segments

def _segments(target: str | None, start: Callable[[np.dtype], Any]) -> Callable[..., Any]:
    """Scatters rows into `num` segments; a negative segment is dropped, by way of one segment too many."""
    def rule(op, x, ids, num):
        count = vector(op, num)
        rank, shared = op.of(x)[0], op.of(ids)[0]
        segment = longs(op, ids)
        segment = op.Where(op.Less(segment, 0), count, segment)
        shape = op.Concat(op.Add(count, [1]), op.Shape(x, start=shared, end=rank), axis=0)
        empty = op.ConstantOfShape(shape, value=np.asarray([start(x.dtype.numpy())], x.dtype.numpy()))
        y = op.ScatterND(empty, op.Unsqueeze(segment, [-1]), x, reduction=target)
        return op.Slice(y, [0], count, [0])
    return rule


def _least(dtype: np.dtype) -> Any:
    return np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min


def _most(dtype: np.dtype) -> Any:
    return np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max


for _name, _target, _start in (("SUM", "add", lambda dtype: 0), ("PROD", "mul", lambda dtype: 1), ("MAX", "max", _least), ("MIN", "min", _most)):
    to_onnx("UNSORTED_SEGMENT_" + _name)(_segments(_target, _start))


@to_onnx("SEGMENT_SUM")
def segment_sum(op, x, ids):
    """Sorted segments: the last tells how many there are."""
    segment = longs(op, ids)
    count = op.Add(op.ReduceMax(segment, [0], keepdims=1), [1])
    shape = op.Concat(count, op.Shape(x, start=1), axis=0)
    empty = op.ConstantOfShape(shape, value=np.zeros(1, x.dtype.numpy()))
    return op.ScatterND(empty, op.Unsqueeze(segment, [-1]), x, reduction="add")
