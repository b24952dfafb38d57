"""Patterns that exporters leave behind, put together again: each a function from the last node of the pattern to its replacement."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping, Rewrite, constant
from isomorph.passes import shapes
from isomorph.passes.tidy import scalar, single_use
from isomorph.tensors import lazily

SCALED = {"Conv": 0, "ConvTranspose": 1, "TransposedConv": 1, "FullyConnected": 0}  # the axis of the output channels in the weight
MOST_COMPARED = 1 << 16
LARGEST_PRODUCT = 1 << 24  # elements of a weight that may be multiplied when a model is converted
SMALLEST_FACTOR = 1e-3  # an offset divided by less would lose digits
fuse, scales = Mapping(), Mapping()  # patterns of whole ONNX operators; what may move into weights at any time


def apply(graph: ir.Graph, patterns: Mapping) -> int:
    """Applies patterns once; the number of places that changed."""
    return Rewrite(graph, patterns, "", keep=lambda node: True, infer_node=shapes.infer_node).run().changed


def made_by(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node that makes a value, where it is one of `operators` and nobody else reads the value."""
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.domain == "" and producer.op_type in operators and single_use(value) else None


def _with_scalar(value: ir.Value | None, operator: str, number: float) -> ir.Value | None:
    """x where value = operator(x, number)."""
    node = made_by(value, operator)
    if node is None:
        return None
    for x, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        found = scalar(other)
        if found is not None and math.isclose(found, number, rel_tol=1e-4) and (operator in ("Add", "Mul") or other is node.inputs[1]):
            return x
    return None


def _clipped(value: ir.Value | None, low: float, high: float) -> ir.Value | None:
    node = made_by(value, "Clip", "Relu6")
    if node is None:
        return None
    if node.op_type == "Relu6":
        return node.inputs[0] if (low, high) == (0.0, 6.0) else None
    bounds = [scalar(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2)]
    return node.inputs[0] if bounds == [low, high] else None


def _hard_gate(value: ir.Value | None) -> ir.Value | None:
    """x where value = clip(x + 3, 0, 6) / 6, in any of the forms exporters write."""
    node = made_by(value, "HardSigmoid")
    if node is not None:
        alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        return node.inputs[0] if math.isclose(alpha, 1 / 6, rel_tol=1e-3) and math.isclose(beta, 0.5) else None
    inner = _with_scalar(value, "Div", 6.0) or _with_scalar(value, "Mul", 1 / 6)
    return _with_scalar(_clipped(inner, 0.0, 6.0), "Add", 3.0)


@fuse("Mul")
def multiplied(op, a, b):
    """HardSwish: x * clip(x + 3, 0, 6) / 6, with the division at either place. Gelu: x / 2 * (1 + erf(x / sqrt 2)). Then scales into weights."""
    for x, other in ((a, b), (b, a)):
        if _hard_gate(other) is x:
            return op.HardSwish(x)
        half = _with_scalar(x, "Mul", 0.5)
        for inner, factor in ((half, other), (x, _with_scalar(other, "Mul", 0.5))):
            if inner is not None and factor is not None and _is_erf_gate(factor, inner):
                return op.Gelu(inner)
    for whole, number in ((a, b), (b, a)):
        gate = made_by(whole, "Mul")
        if (
            gate is not None
            and scalar(number) is not None
            and math.isclose(scalar(number), 0.5)
            and any(_is_erf_gate(g, x) for x, g in (gate.inputs, gate.inputs[::-1]))
        ):
            return op.Gelu(next(x for x, g in (gate.inputs, gate.inputs[::-1]) if _is_erf_gate(g, x)))
    return NotImplemented


def _is_erf_gate(factor: ir.Value | None, x: ir.Value) -> bool:
    """factor = 1 + erf(x / sqrt 2)"""
    gate = made_by(_with_scalar(factor, "Add", 1.0), "Erf")
    if gate is None:
        return False
    inner = gate.inputs[0].producer()
    if inner is None or inner.op_type not in ("Div", "Mul") or inner.inputs[0] is not x:
        return False
    number = scalar(inner.inputs[1])
    return number is not None and math.isclose(number, math.sqrt(2) if inner.op_type == "Div" else math.sqrt(0.5), rel_tol=1e-4)


@fuse("Div")
def divided(op, a, b):
    """x * clip(x + 3, 0, 6) / 6 with the division last."""
    product = made_by(a, "Mul")
    if scalar(b) is not None and product is not None and math.isclose(scalar(b), 6.0):
        for x, gate in (product.inputs, product.inputs[::-1]):
            if _with_scalar(_clipped(gate, 0.0, 6.0), "Add", 3.0) is x:
                return op.HardSwish(x)
    number = scalar(b)
    if number and b.dtype == ir.DataType.FLOAT and np.float32(1 / number) * np.float32(number) == 1:
        return op.Mul(a, op.const(np.asarray(1 / np.asarray(constant(b), np.float64), np.float32)))
    return NotImplemented


@scales("Sub")
def into_layer(op, a, b):
    return scaled(op, a, b, op.node)


def scaled(op: Builder, a: ir.Value, b: ir.Value, node: ir.Node) -> Any:
    """A factor or an offset a channel, behind a convolution or fully connected layer, moves into its weights, also through depth to space."""
    for x, other in ((a, b), (b, a)):
        if _is_neutral(node, x, other):
            return x
        blocks = made_by(x, "DepthToSpace")
        layer = made_by(x, *SCALED) if blocks is None else made_by(blocks.inputs[0], "Conv")
        if layer is None or constant(other) is None or (node.op_type == "Sub" and other is a):
            continue
        vector = per_channel(constant(other), x, layer)
        if vector is None or x.dtype != ir.DataType.FLOAT or layer.inputs[1].const_value is None:
            continue
        bias = layer.inputs[2] if len(layer.inputs) > 2 else None
        if bias is not None and constant(bias) is None:
            continue
        if blocks is not None:
            if blocks.attributes.get_string("mode", "DCR") != "DCR":
                continue
            vector = np.tile(vector, blocks.attributes["blocksize"].value ** 2)
        old = np.zeros(len(vector), np.float32) if bias is None else constant(bias).reshape(-1)
        weight = layer.inputs[1]
        if node.op_type == "Mul":
            group = layer.attributes.get_int("group", 1)
            weight = op.const(lazily(_times(vector, layer, group), weight.const_value), name=weight.name)
            new = old * vector
        else:
            new = old + vector if node.op_type == "Add" else old - vector
        inputs = [layer.inputs[0], weight, op.const(new.astype(np.float32), name=bias.name if bias is not None else None), *layer.inputs[3:]]
        attributes = {name: attribute.value for name, attribute in layer.attributes.items()}
        y = op.make(layer.op_type, inputs, attributes, dtype=x.dtype, shape=layer.outputs[0].shape)
        return y if blocks is None else op.DepthToSpace(y, blocksize=blocks.attributes["blocksize"].value, mode="DCR")
    return NotImplemented


@scales("Add")
def gated_residual(op, a, b):
    """x + x * g is x * (g + 1), which adds to the smaller of the two."""
    for x, other in ((a, b), (b, a)):
        product = made_by(other, "Mul")
        if product is None or x not in product.inputs or x.dtype != ir.DataType.FLOAT:
            continue
        gate = product.inputs[1] if product.inputs[0] is x else product.inputs[0]
        if is_smaller(gate, x):
            return op.Mul(x, op.Add(gate, 1.0))
    return scaled(op, a, b, op.node)


def _is_neutral(node: ir.Node, x: ir.Value, other: ir.Value) -> bool:
    """Whether a product with ones or a sum with zeros leaves x as it is, its shape too."""
    array, out = constant(other), node.outputs[0]
    reversed_order = node.op_type == "Sub" and other is node.inputs[0]
    if array is None or array.size > MOST_COMPARED or out.shape is None or x.shape != out.shape or x.dtype != out.dtype or reversed_order:
        return False
    certain = array.ndim <= len(x.shape) and all(b == 1 or a == b for a, b in zip(reversed(list(x.shape)), reversed(array.shape), strict=False))
    return certain and bool((array == (1 if node.op_type == "Mul" else 0)).all())


def is_smaller(gate: ir.Value, x: ir.Value) -> bool:
    """Whether a value broadcasts to the shape of x and has certainly fewer elements."""
    if gate.shape is None or x.shape is None or len(gate.shape) != len(x.shape):
        return False
    pairs = list(zip(gate.shape, x.shape, strict=True))
    return all(a in (1, b) for a, b in pairs) and any(a == 1 and b != 1 for a, b in pairs)


@scales("Conv")
def from_before(op, x, w, b=None, **attributes):
    """A factor a channel in front of a convolution moves into its weights; an offset too, where nothing is padded (zeros would get it)."""
    if w.const_value is None or (b is not None and constant(b) is None) or x.dtype != ir.DataType.FLOAT:
        return NotImplemented
    pad = _zero_pad(x)
    own = any(attributes.get("pads") or ()) or attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    found = _scaled_before(op, x if pad is None else pad.inputs[0], w, b, attributes.get("group", 1), padded=own or pad is not None)
    if found is None:
        return NotImplemented
    y, w, b = found
    if pad is not None:
        y = op.Pad(y, *pad.inputs[1:], mode="constant")
    return op.Conv(y, w, b, **attributes)


Layer = tuple[ir.Value, ir.Value, ir.Value | None]  # input, weights, bias


def _zero_pad(x: ir.Value) -> ir.Node | None:
    """The node that pads x with zeros, not in its channels."""
    pad = made_by(x, "Pad")
    if pad is None or pad.attributes.get_string("mode", "constant") != "constant" or len(pad.inputs) > 3:
        return None
    amounts, filler = constant(pad.inputs[1]), scalar(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] is not None else 0.0
    return pad if amounts is not None and filler == 0.0 and not amounts.reshape(2, -1)[:, :2].any() else None


def _scaled_before(op: Builder, x: ir.Value, w: ir.Value, b: ir.Value | None, group: int, *, padded: bool) -> Layer | None:
    """The layer without the product or sum that makes its input."""
    before = made_by(x, "Mul", "Add")
    if before is None:
        return None
    if before.op_type == "Mul" and all(constant(value) is None for value in before.inputs):
        return _factor_of_gate(op, before, w, b)
    source, vector = _by_vector(before, x)
    if vector is None:
        return None
    if before.op_type == "Mul":
        return source, _by_channel(op, w, vector, group), b
    if padded:
        return _factor_behind_offset(op, x, source, vector, w, b, group)
    total = (w.const_value.numpy().astype(np.float64) * _spread(w, vector, group)).sum(axis=tuple(range(1, len(w.shape))))
    bias = total if b is None else total + constant(b)
    return source, w, op.const(bias.astype(np.float32), name=b.name if b is not None else None)


def _by_vector(node: ir.Node, like: ir.Value) -> tuple[ir.Value, np.ndarray | None]:
    """The operand that is computed and the constant one, where that is one number a channel."""
    source, other = node.inputs if constant(node.inputs[1]) is not None else node.inputs[::-1]
    if constant(other) is None or source.shape is None or len(source.shape) != len(like.shape):
        return source, None
    return source, channel_vector(constant(other), like)


def _factor_behind_offset(op: Builder, x: ir.Value, source: ir.Value, offset: np.ndarray, w: ir.Value, b: ir.Value | None, group: int) -> Layer | None:
    """conv(s * x + t) where zeros are padded: s moves into the weights and leaves x + t / s."""
    product = made_by(source, "Mul")
    inner, factor = (None, None) if product is None else _by_vector(product, x)
    if factor is None or np.abs(factor).min() < SMALLEST_FACTOR:
        return None
    shift = op.const(_short((offset / factor).astype(np.float32)).reshape([1, -1] + [1] * (len(x.shape) - 2)))
    return op.Add(inner, shift), _by_channel(op, w, factor, group), b


def _short(vector: np.ndarray) -> np.ndarray:
    """One number where all are the same, which kernels add faster."""
    return vector[:1] if (vector == vector[0]).all() else vector


@scales("ReduceMean")
def mean_of_scaled(op, x, axes=None, *, keepdims=1, noop_with_empty_axes=0):
    """The mean of s * x + t over a picture is s * mean(x) + t, whatever else reads s * x + t."""
    before = x.producer()
    if before is None or before.op_type not in ("Mul", "Add") or before.domain or x.dtype != ir.DataType.FLOAT or not keepdims or x.shape is None:
        return NotImplemented
    source, vector = _by_vector(before, x)
    chosen = None if axes is None else constant(axes)
    if vector is None or source.shape != x.shape or chosen is None or not chosen.size or any(int(axis) % len(x.shape) < 2 for axis in chosen):
        return NotImplemented
    mean = op.ReduceMean(source, axes, keepdims=1)
    return op.make(before.op_type, [mean, _short(vector).reshape([1, -1] + [1] * (len(x.shape) - 2))], {})


@scales("Mul")
def gate_of_scaled(op, a, b):
    """(s * x + t) * gate is (x + t / s) * (s * gate), where the gate is smaller than x."""
    for y, gate in ((a, b), (b, a)):
        total = made_by(y, "Add")
        if total is None or y.dtype != ir.DataType.FLOAT or constant(gate) is not None or not is_smaller(gate, y):
            continue
        source, offset = _by_vector(total, y)
        product = made_by(source, "Mul") if offset is not None else None
        inner, factor = (None, None) if product is None else _by_vector(product, y)
        if factor is None or np.abs(factor).min() < SMALLEST_FACTOR:
            continue
        shape = [1, -1] + [1] * (len(y.shape) - 2)
        shift = op.const(_short((offset / factor).astype(np.float32)).reshape(shape))
        return op.Mul(op.Add(inner, shift), op.Mul(gate, op.const(_short(factor).reshape(shape))))
    return scaled(op, a, b, op.node)


def _factor_of_gate(op: Builder, product: ir.Node, w: ir.Value, b: ir.Value | None) -> Layer | None:
    """conv(x * (g * s)), s one number."""
    for x, gate in (product.inputs, product.inputs[::-1]):
        inner = made_by(gate, "Mul")
        for g, other in () if inner is None else (inner.inputs, inner.inputs[::-1]):
            number = scalar(other)
            if number is not None:
                return op.Mul(x, g), op.const(lazily(_multiplied_by(np.float32(number)), w.const_value), name=w.name), b
    return None


@scales("MatMul", "FullyConnected")
def into_matrix(op, a, w, b=None, *, transB=0, **attributes):
    """What a normalisation leaves in front of a fully connected layer: (x * s + t) W = x (s W) + t W."""
    before = made_by(a, "Mul", "Add")
    fixed = w.const_value is not None and (b is None or constant(b) is not None)
    if before is None or not fixed or transB or attributes or a.dtype != ir.DataType.FLOAT or w.shape is None or len(w.shape) != 2:
        return NotImplemented
    source, other = before.inputs if constant(before.inputs[1]) is not None else before.inputs[::-1]
    vector, inputs = constant(other), w.shape[0]
    if vector is None or source.shape != a.shape or vector.size not in (1, inputs) or vector.shape[-1:] not in ((), (1,), (inputs,)):
        return NotImplemented
    vector = np.broadcast_to(vector.reshape(-1), (inputs,)).astype(np.float32)
    shape = op.outputs[0].shape
    if before.op_type == "Mul":
        scaled_weight = op.const(lazily(_multiplied_by(vector[:, None]), w.const_value), name=w.name)
        return op.make(op.node.op_type, [source, scaled_weight, b], {"transB": 0} if op.node.op_type == "FullyConnected" else {}, dtype=a.dtype, shape=shape)
    if w.const_value.size > LARGEST_PRODUCT or len(source.shape) < 2:
        return NotImplemented
    bias = (vector @ w.const_value.numpy() + (0 if b is None else constant(b))).astype(np.float32)
    return op.FullyConnected(source, w, op.const(bias), transB=0, _dtype=a.dtype, _shape=shape)


def _multiplied_by(factor: np.ndarray | np.floating) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: (array * factor).astype(array.dtype)


def _spread(w: ir.Value, vector: np.ndarray, group: int) -> np.ndarray:
    """A number an input channel in the shape that broadcasts to a convolution's weights."""
    outputs: Any = w.shape[0]
    per = len(vector) // group
    return np.repeat(vector.reshape(group, per), outputs // group, axis=0).reshape([outputs, per] + [1] * (len(w.shape) - 2))


def _by_channel(op: Builder, w: ir.Value, vector: np.ndarray, group: int) -> ir.Value:
    return op.const(lazily(_multiplied_by(_spread(w, vector, group)), w.const_value), name=w.name)


def channel_vector(array: np.ndarray, value: ir.Value) -> np.ndarray | None:
    """A constant as one number a channel of [N, C, ...]."""
    rank, channels = len(value.shape), value.shape[1]
    sizes = [1] * (rank - array.ndim) + list(array.shape)
    if not isinstance(channels, int) or array.ndim > rank or any(size != 1 for i, size in enumerate(sizes) if i != 1) or sizes[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32)


def _times(vector: np.ndarray, layer: ir.Node, group: int) -> Callable[[np.ndarray], np.ndarray]:
    axis = SCALED[layer.op_type]
    if layer.op_type == "FullyConnected" and not layer.attributes.get_int("transB", 1):
        axis = 1

    def times(w: np.ndarray) -> np.ndarray:
        if axis == 1 and group > 1:
            # Transposed convolutions keep [inputs, outputs / group]: each group of inputs has its own outputs.
            parts = np.split(w, group, 0)
            return np.concatenate([part * v.reshape([1, -1] + [1] * (w.ndim - 2)) for part, v in zip(parts, np.split(vector, group), strict=True)], 0).astype(
                w.dtype
            )
        return (w * vector.reshape([-1 if i == axis else 1 for i in range(w.ndim)])).astype(w.dtype)

    return times


def per_channel(array: np.ndarray, value: ir.Value, layer: ir.Node) -> np.ndarray | None:
    """The constant as one number an output channel, None where it differs within a channel or makes the result larger."""
    rank = len(value.shape) if value.shape is not None else 0
    if rank < 2 or array.dtype != np.float32:
        return None
    if layer.op_type != "FullyConnected":
        return channel_vector(array, value)
    outputs: Any = value.shape[rank - 1]
    flat = array.ndim <= rank and isinstance(outputs, int) and array.size in (1, outputs) and (array.ndim == 0 or array.shape[-1] == array.size)
    return np.broadcast_to(array.reshape(-1), (outputs,)).astype(np.float32) if flat else None


@fuse("Conv")
def padded_before(op, x, *rest, **attributes):
    """A zero padding of the spatial axes in front of a convolution is the convolution's own."""
    pad = made_by(x, "Pad")
    if pad is None or pad.attributes.get_string("mode", "constant") != "constant" or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return NotImplemented
    amounts, value = constant(pad.inputs[1]), constant(pad.inputs[2]) if len(pad.inputs) > 2 else None
    if (
        amounts is None
        or (amounts < 0).any()
        or (value is not None and np.any(value != 0))
        or (len(pad.inputs) > 2 and pad.inputs[2] is not None and value is None)
    ):
        return NotImplemented
    rank = len(amounts) // 2
    if amounts[0] or amounts[1] or amounts[rank] or amounts[rank + 1] or attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return NotImplemented
    own = attributes.pop("pads", None) or [0] * 2 * (rank - 2)
    attributes.pop("auto_pad", None)
    pads = [int(a) + int(b) for a, b in zip([*amounts[2:rank], *amounts[rank + 2 :]], own, strict=True)]
    return op.Conv(pad.inputs[0], *rest, pads=pads, **attributes)
