"""Attention with several heads, put together again: projections, scores, what the heads gather and its projection become one MultiHeadAttention.

Only what nobody else looks at is taken: every value inside is read once. Factors of the scores go into the weights of the query.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Mapping, constant
from isomorph.dialects.keras.from_onnx.writing import LayerBuilder as Op
from isomorph.dialects.keras.from_onnx.writing import constant_place, from_onnx

heads = Mapping()
HEADS_FIRST, KEYS_TURNED, LAST_TURNED = (0, 2, 1, 3), (0, 2, 3, 1), (0, 1, 3, 2)


class Projection(NamedTuple):
    """x times a stored matrix, a stored bias, and how it is split: [batch, places, heads, size]."""

    x: ir.Value
    kernel: ir.Value
    bias: ir.Value | None
    heads: int
    size: int


def _made(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    """The node of one of these kinds that a value comes from, where only one other node reads it."""
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or node.op_type not in kinds or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return node


def _turned(value: ir.Value | None, perm: tuple[int, ...]) -> ir.Value | None:
    node = _made(value, "Transpose")
    return node.inputs[0] if node is not None and tuple(node.attributes["perm"].value) == perm else None


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """A value without the constants that it is multiplied or divided by, and the factor that they make."""
    node = _made(value, "Mul", "Div")
    if node is None:
        return value, 1.0
    for place, other in ((0, 1), (1, 0)):
        number = constant(node.inputs[other])
        if number is not None and number.size == 1 and (node.op_type == "Mul" or other == 1):
            inner, factor = _scaled(node.inputs[place])
            return inner, factor * (float(number.reshape(-1)[0]) if node.op_type == "Mul" else 1 / float(number.reshape(-1)[0]))
    return value, 1.0


def _projection(value: ir.Value | None) -> Projection | None:
    """What a split value [batch, places, heads, size] is a projection of."""
    split = _made(value, "Reshape")
    if split is None or value is None or value.shape is None or value.shape.rank() != 4:
        return None
    count, size = list(value.shape)[2:]
    if not isinstance(count, int) or not isinstance(size, int):
        return None
    flat, bias = split.inputs[0], None
    added = _made(flat, "Add")
    if added is not None:
        place = next((index for index in (0, 1) if constant_place(added.inputs[index])), None)
        if place is None or added.inputs[place].shape.rank() != 1:
            return None
        flat, bias = added.inputs[1 - place], added.inputs[place]
    product = _made(flat, "MatMul")
    if product is None or not constant_place(product.inputs[1]) or product.inputs[0].shape is None or product.inputs[0].shape.rank() != 3:
        return None
    fits = list(product.inputs[1].shape)[1:] == [count * size] and product.inputs[0].dtype == ir.DataType.FLOAT
    return Projection(product.inputs[0], product.inputs[1], bias, count, size) if fits else None


def _keys(value: ir.Value | None) -> tuple[Projection | None, float]:
    """The keys behind [batch, heads, size, places]: turned at once or twice, scaled or not."""
    value, factor = _scaled(value)
    wide = _turned(value, KEYS_TURNED)
    if wide is None:
        inner, more = _scaled(_turned(value, LAST_TURNED))
        wide, factor = _turned(inner, HEADS_FIRST), factor * more
    return _projection(wide), factor


def _scores(value: ir.Value | None) -> tuple[Projection | None, Projection | None, float]:
    """(query, key, factor) of the scores that a softmax takes."""
    value, factor = _scaled(value)
    product = _made(value, "MatMul")
    if product is None:
        return None, None, 1.0
    query, more = _scaled(product.inputs[0])
    key, most = _keys(product.inputs[1])
    return _projection(_turned(query, HEADS_FIRST)), key, factor * more * most


@heads("MatMul")
def attention(op, a, b):
    """The last projection, [batch, places, heads * size] times a stored matrix, and all that is in front of it."""
    joined = _made(a, "Reshape") if constant_place(b) and b.shape.rank() == 2 and a.dtype == ir.DataType.FLOAT else None
    gathered = _made(_turned(joined.inputs[0], HEADS_FIRST), "MatMul") if joined is not None else None
    softmax = _made(gathered.inputs[0], "Softmax") if gathered is not None else None
    if softmax is None or gathered is None or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return NotImplemented
    query, key, factor = _scores(softmax.inputs[0])
    value = _projection(_turned(gathered.inputs[1], HEADS_FIRST))
    if query is None or key is None or value is None or not (query.heads == key.heads == value.heads and query.size == key.size):
        return NotImplemented
    if op.of(a)[0] != 3 or op.of(a)[1][-1] != value.heads * value.size or list(key.x.shape)[:2] != list(value.x.shape)[:2]:
        return NotImplemented
    inputs = [query.x, value.x, key.x, *(each for part in (query, key, value) for each in (part.kernel, part.bias)), b]
    attributes = {"heads": query.heads, "size": query.size, "value_size": value.size, "factor": factor * query.size ** 0.5}
    return op.make("Heads", inputs, attributes, dtype=a.dtype, shape=[*op.of(a)[1][:2], op.of(b)[1][1]])


@heads("Add")
def with_bias(op, a, b):
    """The bias of the last projection."""
    for x, bias in ((a, b), (b, a)):
        node = _made(x, "Heads")
        if node is not None and len(node.inputs) == 10 and constant_place(bias) and op.of(bias)[1] == [op.of(x)[1][-1]]:
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            return op.make("Heads", [*node.inputs, bias], attributes, dtype=x.dtype, shape=op.of(x)[1])
    return NotImplemented


@from_onnx("Heads")
def multi_head(op: Op, query, value, key, wq, bq=None, wk=None, bk=None, wv=None, bv=None, wo=None, bo=None, *, heads, size, value_size, factor):
    """The query takes the factor that Keras does not apply by itself."""
    width = op.of(query)[1][-1]
    biased = any(each is not None for each in (bq, bk, bv, bo))
    variables = {}
    for name, kernel, bias, each, times in (("query", wq, bq, size, factor), ("key", wk, bk, size, 1.0), ("value", wv, bv, value_size, 1.0)):
        variables[f"{name}/kernel"] = op.computed(_split(heads, each, times), kernel, (op.static(kernel)[0], heads, each))
        if biased:
            variables[f"{name}/bias"] = op.const(np.zeros((heads, each), np.float32)) if bias is None else op.computed(_split(heads, each, times), bias,
                                                                                                                      (heads, each))
    out = op.static(wo)[1]
    variables["attention_output/kernel"] = op.computed(lambda array: array.reshape(heads, value_size, out), wo, (heads, value_size, out))
    if biased:
        variables["attention_output/bias"] = op.const(np.zeros(out, np.float32)) if bo is None else bo
    given = [query, value] if key is value else [query, value, key]
    return op.layer("MultiHeadAttention", *given, _variables=variables, num_heads=heads, key_dim=size, value_dim=value_size, use_bias=biased,
                    output_shape=None if out == width else out)


def _split(count: int, size: int, factor: float):
    """[..., heads * size] -> [..., heads, size], times a factor."""
    def split(array: np.ndarray) -> np.ndarray:
        parts = array.reshape(*array.shape[:-1], count, size)
        return parts if factor == 1.0 else (parts * factor).astype(array.dtype)
    return split
