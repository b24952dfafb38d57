"""Attention layers, as products of matrices with the masks that Keras builds."""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value, mask_of
from isomorph.dialects.keras.to_onnx.table import layer


def causal(op: Op, queries: Value, keys: Value) -> Value:
    """[1, T, S]: true where a key is not later than the query."""
    return compared(op, queries, keys, np.greater_equal, lambda rows, columns: op.GreaterOrEqual(rows, columns))


def near(op: Op, queries: Value, keys: Value, width: int) -> Value:
    """[1, T, S]: true where a key is less than so many places away, on either side."""
    return compared(op, queries, keys, lambda rows, columns: abs(rows - columns) < width,
                    lambda rows, columns: op.Less(op.Abs(op.Sub(rows, columns)), op.const([width])))


def compared(op: Op, queries: Value, keys: Value, known: Callable[..., Any], computed: Callable[..., Value]) -> Value:
    """Places of queries beside those of keys, as a constant where both lengths are known."""
    t, s = op.sizes(queries)[1], op.sizes(keys)[1]
    if isinstance(t, int) and isinstance(s, int):
        return op.const(known(np.arange(t)[:, None], np.arange(s))[None])
    ends = [op.Squeeze(op.size_of(value, 1), op.const([0])) for value in (queries, keys)]
    rows, columns = (op.Range(op.const(np.asarray(0)), end, op.const(np.asarray(1))) for end in ends)
    return op.Unsqueeze(computed(op.Unsqueeze(rows, op.const([1])), op.Unsqueeze(columns, op.const([0]))), op.const([0]))


def both(op: Op, masks: list[Any]) -> Value | None:
    """True where all of those given are: values, or arrays that stand in the file."""
    values = [mask if isinstance(mask, Value) else op.const(np.asarray(mask, bool)) for mask in masks if mask is not None]
    found = [op.cast(mask, ir.DataType.BOOL) for mask in values]
    return reduce(lambda a, b: op.And(a, b), found) if found else None


def looked_at(op: Op, tensors: tuple[Value, Value, Value], given: tuple[Any, Any, Any], attention_mask: Any, backwards: bool, window: Any) -> tuple[Any, Any]:
    """(mask of the query, which keys each place may look at) of query, value and key: what is given, what comes with the tensors, and what the options ask for.
    The mask of a key that is the value counts once."""
    query, value, key = tensors
    of_query, of_value, of_key = (mask if mask is not None else mask_of(x) for mask, x in zip(given, tensors, strict=True))
    parts = [_unsqueezed(op, of_query, -1), _unsqueezed(op, of_value, -2), None if key is value else _unsqueezed(op, of_key, -2), attention_mask]
    parts += [causal(op, query, value)] if backwards else []
    parts += [near(op, query, value, window)] if window else []
    return of_query, both(op, parts)


def softened(op: Op, scores: Value, mask: Value | None) -> Value:
    """Softmax over the keys; masked ones get a score so low that nothing is left."""
    if mask is not None:
        floor = -3e4 if scores.dtype == ir.DataType.FLOAT16 else -1e9
        scores = op.Where(mask, scores, op.scalar(floor, scores))
    return op.Softmax(scores, axis=-1)


@layer("MultiHeadAttention")
def multi_head(op: Op, query: Value, value: Value, key: Value | None = None, query_mask: Any = None, value_mask: Any = None, key_mask: Any = None,
               attention_mask: Any = None, *, num_heads: int, key_dim: int, value_dim: int | None = None, use_bias: bool = True, output_shape: Any = None,
               attention_axes: Any = None, return_attention_scores: bool = False, use_causal_mask: bool = False, use_gate: bool = False,
               sliding_window: int | None = None, flash_attention: Any = None, softmax_robust_masking: bool = False) -> Any:
    """Projections to heads, scores between all places along the attention axes, and the projection of what the heads gather."""
    key = value if key is None else key
    axes = [axis % op.rank(query) for axis in attention_axes] if attention_axes else list(range(1, op.rank(query) - 1))
    q, k, v = (Heads(op, x, name, axes) for x, name in ((query, "query"), (key, "key"), (value, "value")))
    scores = op.MatMul(op.Mul(q.split, op.scalar(1 / math.sqrt(key_dim), q.split)), k.transposed())
    op.result_mask, mask = looked_at(op, (query, value, key), (query_mask, value_mask, key_mask), attention_mask, use_causal_mask, sliding_window)
    if mask is not None:
        if q.free or len(axes) > 1:
            return op.reject("masks with more than one attention axis are not mapped")
        mask = op.Unsqueeze(mask, op.const([1])) if op.rank(mask) == 3 else mask
    weights = softened(op, scores, mask)
    joined = q.join(op.MatMul(weights, v.split))
    if use_gate:
        gate = op.Sigmoid(_projected(op, query, "gate"))
        joined = op.Mul(joined, gate)
    y = _restored(op, joined, query)
    if not return_attention_scores:
        return y
    return [y, weights if len(axes) == 1 else q.unfolded(weights, k)]


def _unsqueezed(op: Op, mask: Any, axis: int) -> Value | None:
    return op.Unsqueeze(mask, op.const([axis])) if isinstance(mask, Value) else None


def _projected(op: Op, x: Value, name: str, start: str = "") -> Value:
    """[..., D] -> [..., heads, size] by one product."""
    kernel, bias = op.need(f"{name}/kernel"), op.variable(f"{name}/bias")
    inputs, heads, size = op.static(kernel)
    y = op.MatMul(x, op.stored(lambda array: array.reshape(inputs, heads * size), kernel, dims=(inputs, heads * size))
                  if kernel.is_initializer() else op.Reshape(kernel, op.const([inputs, heads * size])))
    if bias is not None:
        y = op.Add(y, op.Reshape(bias, op.const([heads * size])))
    sizes = [size if isinstance(size, int) else op.size_of(x, axis) for axis, size in enumerate(op.sizes(x)[:-1])]
    if sum(not isinstance(size, int) for size in sizes) == 1:
        sizes = [size if isinstance(size, int) else -1 for size in sizes]
    return op.reshaped(y, [*sizes, heads, size])


class Heads:
    """A projection with the heads before the places: [batch, free..., heads, places, size]. `free` are axes that are neither batch nor attention."""

    def __init__(self, op: Op, x: Value, name: str, axes: list[int]):
        self.op, self.axes = op, axes
        self.wide = _projected(op, x, name)                                     # [batch, ..., heads, size]
        rank = op.rank(self.wide)
        self.free = [axis for axis in range(1, rank - 2) if axis not in axes]
        self.order = (0, *self.free, rank - 2, *axes, rank - 1)
        self.moved = op.Transpose(self.wide, perm=self.order)
        self.places = [op.sizes(x)[axis] for axis in axes]
        self.split = self.moved
        if len(axes) > 1:
            lead = [size if isinstance(size, int) else op.size_of(self.moved, axis) for axis, size in enumerate(op.sizes(self.moved)[:2 + len(self.free)])]
            together = math.prod(self.places) if all(isinstance(size, int) for size in self.places) else -1
            self.split = op.reshaped(self.moved, [*lead, together, op.sizes(self.moved)[-1]])

    def transposed(self) -> Value:
        rank = self.op.rank(self.split)
        return self.op.Transpose(self.split, perm=[*range(rank - 2), rank - 1, rank - 2])

    def join(self, gathered: Value) -> Value:
        """Back to [batch, ..., heads, size]."""
        op = self.op
        if len(self.axes) > 1:
            sizes = [size if isinstance(size, int) else op.size_of(self.moved, axis) for axis, size in enumerate(op.sizes(self.moved)[:-1])]
            gathered = op.reshaped(gathered, [*sizes, op.sizes(gathered)[-1]])
        return op.Transpose(gathered, perm=[self.order.index(place) for place in range(len(self.order))])

    def unfolded(self, weights: Value, keys: Heads) -> Value:
        """Scores with the attention axes apart."""
        op = self.op
        lead = [size if isinstance(size, int) else op.size_of(weights, axis) for axis, size in enumerate(op.sizes(weights)[:-2])]
        return op.reshaped(weights, [*lead, *self.places, *keys.places])


def _restored(op: Op, joined: Value, query: Value) -> Value:
    """[..., heads, size] -> [..., D] by one product."""
    kernel, bias = op.need("attention_output/kernel"), op.variable("attention_output/bias")
    heads, size, *rest = op.static(kernel)
    width = int(np.prod(rest))
    sizes = [size if isinstance(size, int) else op.size_of(query, axis) for axis, size in enumerate(op.sizes(query)[:-1])]
    if sum(not isinstance(size, int) for size in sizes) == 1:
        sizes = [size if isinstance(size, int) else -1 for size in sizes]
    matrix = op.stored(lambda array: array.reshape(heads * size, width), kernel, dims=(heads * size, width)) if kernel.is_initializer() else op.Reshape(
        kernel, op.const([heads * size, width]))
    y = op.MatMul(op.reshaped(joined, [*sizes, heads * size]), matrix)
    if len(rest) > 1:
        y = op.reshaped(y, [*sizes, *rest])
    return y if bias is None else op.Add(y, bias)


@layer("GroupedQueryAttention")
def grouped_query(op: Op, query: Value, value: Value, key: Value | None = None, query_mask: Any = None, value_mask: Any = None, key_mask: Any = None,
                  attention_mask: Any = None, *, head_dim: int, num_query_heads: int, num_key_value_heads: int, use_bias: bool = True,
                  return_attention_scores: bool = False, use_causal_mask: bool = False, use_gate: bool = False, sliding_window: int | None = None,
                  flash_attention: Any = None) -> Any:
    """Several heads of the query share one of keys and values."""
    key = value if key is None else key
    repeats = num_query_heads // num_key_value_heads
    q, k, v = (Heads(op, x, name, [1]) for x, name in ((query, "query"), (key, "key"), (value, "value")))
    keys, values = (repeated(op, heads.split, repeats) for heads in (k, v))
    scores = op.MatMul(op.Mul(q.split, op.scalar(1 / math.sqrt(head_dim), q.split)), op.Transpose(keys, perm=[0, 1, 3, 2]))
    op.result_mask, mask = looked_at(op, (query, value, key), (query_mask, value_mask, key_mask), attention_mask, use_causal_mask, sliding_window)
    if mask is not None and op.rank(mask) == 3:
        mask = op.Unsqueeze(mask, op.const([1]))
    weights = softened(op, scores, mask)
    joined = q.join(op.MatMul(weights, values))
    if use_gate:
        joined = op.Mul(joined, op.Sigmoid(_projected(op, query, "gate")))
    y = _restored(op, joined, query)
    return [y, weights] if return_attention_scores else y


def repeated(op: Op, heads: Value, times: int) -> Value:
    """[batch, heads, places, size] with every head several times in a row."""
    if times == 1:
        return heads
    count = op.sizes(heads)[1]
    return op.Gather(heads, op.const(np.repeat(np.arange(count), times)), axis=1)


@layer("Attention", "AdditiveAttention")
def attention(op: Op, xs: Any, *, use_scale: Any = None, score_mode: str = "dot", return_attention_scores: bool = False, use_causal_mask: bool = False) -> Any:
    """Luong's and Bahdanau's attention over [query, value, key]."""
    query, value, *rest = xs
    key = rest[0] if rest else value
    masks = op.mask if isinstance(op.mask, list) else []
    query_mask, value_mask = ([*masks, None, None])[:2]
    scale = op.variable("scale")
    if op.layer.class_name == "AdditiveAttention" or score_mode == "concat":
        total = op.Add(op.Unsqueeze(query, op.const([-2])), op.Unsqueeze(key, op.const([-3])))
        scores = _additive(op, total, scale)
    else:
        scores = op.MatMul(query, op.Transpose(key, perm=[0, 2, 1]))
        scores = scores if scale is None else op.Mul(scores, scale)
    parts = [_unsqueezed(op, value_mask, -2)]
    if use_causal_mask:
        parts.append(causal(op, query, value))
    weights = softened(op, scores, both(op, parts))
    y = op.MatMul(weights, value)
    if isinstance(query_mask, Value):
        y = op.Mul(y, op.cast(op.Unsqueeze(query_mask, op.const([-1])), y.dtype))
    op.result_mask = query_mask
    return [y, weights] if return_attention_scores else y


def _additive(op: Op, total: Value, scale: Value | None) -> Value:
    if op.layer.class_name == "AdditiveAttention":
        bent = op.Tanh(total)
        return op.ReduceSum(bent if scale is None else op.Mul(bent, scale), op.const([-1]), keepdims=0)
    bent = op.Tanh(total if scale is None else op.Mul(total, scale))
    return op.Mul(op.ReduceSum(bent, op.const([-1]), keepdims=0), op.need("concat_score_weight"))
