"""Attention with several heads, put together again: projections, scores with their masks, what the heads gather and its projection become one layer,
MultiHeadAttention or, where several heads of the query share one of the keys and values, GroupedQueryAttention.

Only what nobody else looks at is taken: every value inside is read once. Factors of the scores go into the weights of the query.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Mapping, constant
from isomorph.dialects.keras.from_onnx.masks import joined, unmasked
from isomorph.dialects.keras.from_onnx.writing import LayerBuilder as Op
from isomorph.dialects.keras.from_onnx.writing import constant_place, from_onnx
from isomorph.passes.fuse import made_by

heads = Mapping()
HEADS_FIRST, KEYS_TURNED, LAST_TURNED = (0, 2, 1, 3), (0, 2, 3, 1), (0, 1, 3, 2)
INPUTS = 10                        # of a Heads without the last bias and without a mask


class Projection(NamedTuple):
    """x times a stored matrix, a stored bias, and how it is split: [batch, places, heads, size]."""

    x: ir.Value
    kernel: ir.Value
    bias: ir.Value | None
    heads: int
    size: int


def _turned(value: ir.Value | None, perm: tuple[int, ...]) -> ir.Value | None:
    node = made_by(value, "Transpose")
    return node.inputs[0] if node is not None and tuple(node.attributes["perm"].value) == perm else None


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """A value without the constants that it is multiplied or divided by, and the factor that they make."""
    node = made_by(value, "Mul", "Div")
    if node is None:
        return value, 1.0
    for place, other in ((0, 1), (1, 0)):
        number = constant(node.inputs[other])
        if number is not None and number.size == 1 and (node.op_type == "Mul" or other == 1):
            inner, factor = _scaled(node.inputs[place])
            return inner, factor * (float(number.reshape(-1)[0]) if node.op_type == "Mul" else 1 / float(number.reshape(-1)[0]))
    return value, 1.0


def _projection(value: ir.Value | None) -> Projection | None:
    """What a value [batch, heads, places, size] is a projection of: its heads moved in front, or the axis of a single one put in."""
    wide = _turned(value, HEADS_FIRST)
    if wide is not None:
        return _product(wide, 2)
    return _product(value, 1) if value is not None and value.shape is not None and value.shape.rank() == 4 and value.shape[1] == 1 else None


def _product(value: ir.Value, axis: int) -> Projection | None:
    """What a split value is a projection of; `axis` is that of its heads."""
    split = made_by(value, "Reshape")
    if split is None or value.shape is None or value.shape.rank() != 4:
        return None
    count, size = value.shape[axis], value.shape[3]
    if not isinstance(count, int) or not isinstance(size, int):
        return None
    flat, bias = split.inputs[0], None
    added = made_by(flat, "Add")
    if added is not None:
        place = next((index for index in (0, 1) if constant_place(added.inputs[index])), None)
        if place is None or added.inputs[place].shape.rank() != 1:
            return None
        flat, bias = added.inputs[1 - place], added.inputs[place]
    product = made_by(flat, "MatMul")
    if product is None or not constant_place(product.inputs[1]) or product.inputs[0].shape is None or product.inputs[0].shape.rank() != 3:
        return None
    fits = list(product.inputs[1].shape)[1:] == [count * size] and product.inputs[0].dtype == ir.DataType.FLOAT
    return Projection(product.inputs[0], product.inputs[1], bias, count, size) if fits else None


def _repeated(value: ir.Value | None) -> tuple[ir.Value | None, int]:
    """A value [batch, heads, ...] in front of a repetition of each head, and how often: by places, or by a new axis that is widened and taken in again."""
    node = made_by(value, "Gather", "Reshape")
    if node is None or node.inputs[0].shape is None or not isinstance(node.inputs[0].shape[1], int):
        return value, 1
    if node.op_type == "Gather":
        places, count = constant(node.inputs[1]), int(node.inputs[0].shape[1])
        times = 0 if places is None or places.size % count else places.size // count
        return (node.inputs[0], times) if times and node.attributes.get_int("axis", 0) == 1 and _each(places, times) else (value, 1)
    wide = made_by(node.inputs[0], "Expand")
    single = made_by(wide.inputs[0], "Unsqueeze") if wide is not None else None
    axes = constant(single.inputs[1]) if single is not None else None
    if axes is None or axes.tolist() != [2] or wide.outputs[0].shape.rank() != 5 or value.shape.rank() != 4:
        return value, 1
    before, after, result = (list(each.shape) for each in (single.inputs[0], wide.outputs[0], value))
    widened = after[2]
    if not isinstance(widened, int) or before[1] != after[1] or result[1] != before[1] * widened or result[3] != before[3]:
        return value, 1
    return single.inputs[0], widened


def _each(places: np.ndarray, times: int) -> bool:
    return places.ndim == 1 and places.tolist() == np.repeat(np.arange(places.size // times), times).tolist()


def _turned_flat(value: ir.Value | None) -> ir.Value | None:
    """The keys behind [batch, heads, size, places] that were turned with batch and heads taken for one axis, as PyTorch's exporter does."""
    wide = made_by(value, "Reshape")
    flat = made_by(_turned(wide.inputs[0], (0, 2, 1)), "Reshape") if wide is not None else None
    inner = flat.inputs[0] if flat is not None else None
    if inner is None or value is None or inner.shape is None or value.shape is None or inner.shape.rank() != 4 or value.shape.rank() != 4:
        return None
    (_, count, places, size), (_, again, last, behind) = list(inner.shape), list(value.shape)
    same = (count, places, size) == (again, behind, last) and all(isinstance(each, int) for each in (count, places, size))
    return inner if same and list(flat.outputs[0].shape)[1:] == [places, size] else None


def _values(value: ir.Value | None) -> tuple[Projection | None, int]:
    """What is gathered, [batch, heads, places, size], and how many heads of the query look at each."""
    inner, times = _repeated(value)
    return _projection(inner), times


def _keys(value: ir.Value | None) -> tuple[Projection | None, int, float]:
    """The keys behind [batch, heads, size, places]: turned at once or twice, scaled or not, and how many heads of the query look at each."""
    value, factor = _scaled(value)
    wide = _turned(value, KEYS_TURNED)
    if wide is not None:
        return _product(wide, 2), 1, factor
    inner, more = _scaled(_turned(value, LAST_TURNED) or _turned_flat(value))
    inner, times = _repeated(inner)
    return _projection(inner), times, factor * more


@heads("MatMul")
def attention(op, a, b):
    """The last projection, [batch, places, heads * size] times a stored matrix, and all that is in front of it."""
    flat = made_by(a, "Reshape") if constant_place(b) and b.shape.rank() == 2 and a.dtype == ir.DataType.FLOAT else None
    gathered = made_by(_turned(flat.inputs[0], HEADS_FIRST) or flat.inputs[0], "MatMul") if flat is not None else None
    softmax = made_by(gathered.inputs[0], "Softmax") if gathered is not None else None
    if softmax is None or gathered is None or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return NotImplemented
    scores, masks = unmasked(op, softmax.inputs[0])
    scores, factor = _scaled(scores)
    product = made_by(scores, "MatMul")
    if product is None:
        return NotImplemented
    wide, more = _scaled(product.inputs[0])
    query, (key, times, most), (value, again) = _projection(wide), _keys(product.inputs[1]), _values(gathered.inputs[1])
    if query is None or key is None or value is None or times != again or not _fit(query, key, value, times, op.of(a)[1], op.static(b)[1]):
        return NotImplemented
    mask, causal = joined(op, masks, query.x, value.x)
    weights = [each for part in (query, key, value) for each in (part.kernel, part.bias)]
    inputs = [query.x, value.x, key.x, *weights, b, *([None, mask] if mask is not None else [])]
    attributes = {"heads": query.heads, "key_heads": key.heads, "size": query.size, "value_size": value.size,
                  "factor": factor * more * most * query.size ** 0.5, "causal": int(causal)}
    return op.make("Heads", inputs, attributes, dtype=a.dtype, shape=[*op.of(a)[1][:2], op.of(b)[1][1]])


def _fit(query: Projection, key: Projection, value: Projection, times: int, flat: list, width: int) -> bool:
    """Whether the parts belong together; where heads are shared, Keras has one size for all of them and the width of the query for the result."""
    same = query.heads == key.heads * times and key.heads == value.heads and query.size == key.size
    places = list(key.x.shape)[:2] == list(value.x.shape)[:2] and len(flat) == 3 and flat[-1] == query.heads * value.size
    return same and places and (times == 1 or (value.size == key.size and width == list(query.x.shape)[-1]))


@heads("Add")
def with_bias(op, a, b):
    """The bias of the last projection."""
    for x, bias in ((a, b), (b, a)):
        node = made_by(x, "Heads")
        if node is not None and (len(node.inputs) == INPUTS or node.inputs[INPUTS] is None) and constant_place(bias) and op.of(bias)[1] == [op.of(x)[1][-1]]:
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            return op.make("Heads", [*node.inputs[:INPUTS], bias, *node.inputs[INPUTS + 1:]], attributes, dtype=x.dtype, shape=op.of(x)[1])
    return NotImplemented


@from_onnx("Heads")
def layer_of_heads(op: Op, query, value, key, wq, bq=None, wk=None, bk=None, wv=None, bv=None, wo=None, bo=None, mask=None, *, heads, key_heads, size,
                   value_size, factor, causal):
    """The query takes the factor that Keras does not apply by itself."""
    biased, out = any(each is not None for each in (bq, bk, bv, bo)), op.static(wo)[1]
    variables = {"attention_output/kernel": op.computed(lambda array: array.reshape(heads, value_size, out), wo, (heads, value_size, out))}
    for name, kernel, bias, count, each, times in (("query", wq, bq, heads, size, factor), ("key", wk, bk, key_heads, size, 1.0),
                                                   ("value", wv, bv, key_heads, value_size, 1.0)):
        split = _split(count, each, times)
        variables[f"{name}/kernel"] = op.computed(split, kernel, (op.static(kernel)[0], count, each))
        if biased:
            variables[f"{name}/bias"] = op.const(np.zeros((count, each), np.float32)) if bias is None else op.computed(split, bias, (count, each))
    if biased:
        variables["attention_output/bias"] = op.const(np.zeros(out, np.float32)) if bo is None else bo
    given = [query, value] if key is value else [query, value, key]
    call = ({"attention_mask": mask} if mask is not None else {}) | ({"use_causal_mask": True} if causal else {})
    settings = {"num_query_heads": heads, "num_key_value_heads": key_heads, "head_dim": size} if key_heads != heads else {
        "num_heads": heads, "key_dim": size, "value_dim": value_size, "output_shape": None if out == op.of(query)[1][-1] else out}
    kind = "GroupedQueryAttention" if key_heads != heads else "MultiHeadAttention"
    return op.layer(kind, *given, _variables=variables, _call=call, use_bias=biased, **settings)


def _split(count: int, size: int, factor: float):
    """[..., heads * size] -> [..., heads, size], times a factor."""
    def split(array: np.ndarray) -> np.ndarray:
        parts = array.reshape(*array.shape[:-1], count, size)
        return parts if factor == 1.0 else (parts * factor).astype(array.dtype)
    return split
