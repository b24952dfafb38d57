"""TensorFlow -> ONNX: tf.Example messages, which graphs for serving take as texts and parse. Nothing in ONNX parses them, so the graph begins behind it: every
feature becomes an input of its own name.

A feature of any length (sparse and ragged ones) becomes two inputs: `name` [batch, longest], filled up with anything, and `name/count` [batch], how many of a
row are there.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.dialects.tf.to_onnx.lowering import Feature
from isomorph.dialects.tf.to_onnx.operators import INT64, Value, to_onnx
from isomorph.formats._tf_tensors import ELEMENT


@to_onnx("ParseExampleV2")
def parse_example_v2(op, serialized, names, sparse_keys, dense_keys, ragged_keys, *defaults, sparse_types=(), ragged_value_types=(), dense_shapes=(), **rest):
    sparse, dense, ragged = ([_text(key) for key in _constant(op, keys)] for keys in (sparse_keys, dense_keys, ragged_keys))
    parts = [_of_any_length(op, serialized, key, kind) for key, kind in zip(sparse, sparse_types, strict=True)]
    rows = [_of_any_length(op, serialized, key, kind) for key, kind in zip(ragged, ragged_value_types, strict=True)]
    whole = [_dense(op, serialized, key, default, shape) for key, default, shape in zip(dense, defaults, dense_shapes, strict=True)]
    splits = [op.Cast(op.Pad(op.CumSum(counts, op.const(np.int64(0))), [1, 0]), to=op.outputs[-1].dtype) for *_, counts in rows]
    return *_columns(parts), *whole, *(values for _, values, *_ in rows), *splits


@to_onnx("ParseExample", "ParseSingleExample")
def parse_example(op, serialized, *inputs, sparse_keys=(), dense_keys=(), sparse_types=(), dense_shapes=(), Nsparse=0, Ndense=0, **rest):
    """The first version has the keys as inputs, the one for a single message as attributes."""
    if op.node.op_type == "ParseExample":
        keys = [_text(key) for value in inputs[1:1 + Nsparse + Ndense] for key in _constant(op, value)]
        sparse_keys, dense_keys, inputs = keys[:Nsparse], keys[Nsparse:], inputs[1 + Nsparse + Ndense:]
    parts = [_of_any_length(op, serialized, _text(key), kind) for key, kind in zip(sparse_keys, sparse_types, strict=True)]
    whole = [_dense(op, serialized, _text(key), default, shape) for key, default, shape in zip(dense_keys, inputs, dense_shapes, strict=True)]
    return *_columns(parts), *whole


@to_onnx("ParseSequenceExample", "ParseSequenceExampleV2", "ParseSingleSequenceExample")
def parse_sequence_example(op, *inputs, **rest):
    op.reject("lists of features in tf.SequenceExample: export the network with its features as inputs")


@to_onnx("DecodeProtoV2", "DecodeCSV", "ParseTensor", "DecodeJSONExample")
def parse_other(op, *inputs, **rest):
    op.reject("ONNX has no operator that parses messages")


def _columns(parts: Sequence[tuple[Value, ...]]) -> list[Value]:
    """All places, then all values, then all shapes."""
    return [part[index] for index in range(3) for part in parts]


def _constant(op: Any, value: Value) -> list[Any]:
    array = constant(value)
    return op.reject("the names of the features must be constant") if array is None else list(array.reshape(-1))


def _text(key: Any) -> str:
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


def _message(op: Any, serialized: Value) -> tuple[Value, list[Any]]:
    """The input of the graph that messages come from, and its sizes: of one message none."""
    value = serialized
    while not value.is_graph_input():
        producer = value.producer()
        if producer is None or producer.op_type != "Identity" or producer.inputs[0] is None:
            op.reject("the messages that are parsed must be an input of the graph")
        value = producer.inputs[0]
    return value, ["batch" if not isinstance(dim, int) else dim for dim in (value.shape if value.shape is not None else ir.Shape([None]))]


def _feature(op: Any, serialized: Value, key: str, dtype: Any, inner: Sequence[Any], *, counted: bool = False) -> Feature:
    """A feature as an input of the graph, or two. The same feature of the same messages is made once, however often it is parsed."""
    message, sizes = _message(op, serialized)
    known = op.context.features.setdefault(message.name, {})
    dtype, shape = ir.DataType(dtype), ir.Shape([*sizes, *inner])
    if key in known:
        found = known[key]
        same = (found.value.dtype, found.value.shape, found.count is not None) == (dtype, shape, counted)
        return found if same else op.reject(f"the feature {key!r} is parsed in two ways")
    value = ir.Value(name=op.context.unique(key), type=ir.TensorType(dtype), shape=shape)
    count = ir.Value(name=op.context.unique(f"{key}/count"), type=ir.TensorType(INT64), shape=ir.Shape(sizes)) if counted else None
    op.context.graph.inputs.extend([value] if count is None else [value, count])
    known[key] = Feature(value, count)
    return known[key]


def _dense(op: Any, serialized: Value, key: str, default: Value, shape: Sequence[int] | None) -> Value:
    inner = [size if size >= 0 else f"{key}_{axis + 1}" for axis, size in enumerate(shape or ())]
    stated = constant(default)
    if stated is not None and stated.size:
        op.lose("tf.example-default", f"the feature {key!r} has to be given: a message without it stands for {stated.reshape(-1)[:4].tolist()}")
    return _feature(op, serialized, key, default.dtype, inner).value


def _of_any_length(op: Any, serialized: Value, key: str, kind: str) -> tuple[Value, Value, Value, Value]:
    """Places [n, 2], values [n] and shape [2] of a sparse tensor, and how many elements each row has."""
    feature = _feature(op, serialized, key, ELEMENT[kind], [f"{key}_length"], counted=True)
    given, counts = feature.value, feature.count
    single = given.shape is not None and len(given.shape) == 1
    rows, lengths = (op.Unsqueeze(given, [0]), op.Reshape(counts, [1])) if single else (given, counts)
    longest = op.Shape(rows, start=1, end=2)
    lengths = op.Max(op.Min(lengths, longest), op.const(np.int64(0)))
    columns = op.Range(op.const(np.int64(0)), op.Squeeze(longest, [0]), op.const(np.int64(1)))
    places = op.Transpose(op.NonZero(op.Less(op.Unsqueeze(columns, [0]), op.Unsqueeze(lengths, [1]))), perm=[1, 0])
    values, widest = op.GatherND(rows, places), op.ReduceMax(op.Concat(lengths, op.const([0]), axis=0), keepdims=1)
    if single:
        return op.Slice(places, [1], [2], [1]), values, widest, lengths
    return places, values, op.Concat(op.Shape(rows, start=0, end=1), widest, axis=0), lengths
