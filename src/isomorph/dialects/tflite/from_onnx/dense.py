"""Layers that are one matrix product although they were written as something else. The sums are the same numbers, added in another order."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.dialects.tflite.from_onnx import _nodes as nodes
from isomorph.tensors import lazily

FEWEST_ROWS_TO_MULTIPLY = 8         # of a batch, below which two products cost more than putting their inputs side by side


def whole_window(node: ir.Node) -> bool:
    """A convolution with one position, whose window sees all of its input, is a fully connected layer; what falls on padding is left out.

    A window of one pixel gains only where a reshape made the input a picture."""
    x, weight = node.inputs[0], node.inputs[1]
    pad = nodes.before(x, "PAD") if node.attributes.get_string("padding") == "VALID" else None
    source = x if pad is None else pad.inputs[0]
    sizes, kernel, out = nodes.sizes(source), nodes.sizes(weight), nodes.sizes(node.outputs[0])
    if sizes is None or kernel is None or out is None or weight.const_value is None or not _is_float(source, *node.inputs, node.outputs[0]):
        return False
    padding = _padding(node, pad, sizes, kernel)
    dilated = any(node.attributes.get_int(name, 1) != 1 for name in ("dilation_h_factor", "dilation_w_factor"))
    if out[1:3] != [1, 1] or dilated or padding is None or kernel[3] != sizes[3]:
        return False
    if kernel[1:3] == [1, 1] and nodes.before(x, "RESHAPE") is None:
        return False
    (top, left), (height, width) = padding, sizes[1:3]
    if top + height > kernel[1] or left + width > kernel[2]:
        return False
    outputs, features = kernel[0], math.prod(sizes[1:])
    matrix = nodes.computed(node.graph, lazily(lambda w: w[:, top:top + height, left:left + width].reshape(outputs, features), weight.const_value,
                                               dims=(outputs, features)), weight.name)
    flat = nodes.reshaped(node, source, [sizes[0], features], f"{node.name}/flat")
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return nodes.take_over(node, nodes.reshaped(node, _layer(node, flat, matrix, bias, outputs), out, f"{node.name}/pixel"))


def _padding(node: ir.Node, pad: ir.Node | None, sizes: list[int], kernel: list[int]) -> tuple[int, int] | None:
    """Rows and columns of zeros before the input, where there are none before its batch and its channels."""
    if pad is not None:
        pairs = constant(pad.inputs[1])
        return None if pairs is None or pairs[[0, 3]].any() else (int(pairs[1, 0]), int(pairs[2, 0]))
    if node.attributes.get_string("padding") == "VALID":
        return 0, 0
    strides = [node.attributes.get_int(name, 1) for name in ("stride_h", "stride_w")]
    top, left = (max((math.ceil(size / stride) - 1) * stride + window - size, 0) // 2
                 for size, stride, window in zip(sizes[1:3], strides, kernel[1:3], strict=True))
    return top, left


def summed(node: ir.Node) -> bool:
    """The sum of two layers is one layer over both inputs, side by side."""
    layers = [_source(value) for value in node.inputs]
    out = nodes.sizes(node.outputs[0])
    if out is None or None in layers or not _is_float(*node.inputs, node.outputs[0]):
        return False
    widths = [nodes.sizes(layer.inputs[1]) for layer in layers]
    inputs = [nodes.sizes(layer.inputs[0]) for layer in layers]
    rows = math.prod(out) // out[-1]
    fits = all(width and width[0] == out[-1] and known and math.prod(known) == rows * width[1] for width, known in zip(widths, inputs, strict=True))
    if not fits or rows >= FEWEST_ROWS_TO_MULTIPLY or nodes.sizes(node.inputs[0]) != nodes.sizes(node.inputs[1]):
        return False
    flat = [nodes.reshaped(node, layer.inputs[0], [rows, width[1]], f"{node.name}/{side}")
            for layer, width, side in zip(layers, widths, ("one", "other"), strict=True)]
    features = sum(width[1] for width in widths)
    both = nodes.made(node, "CONCATENATION", flat, flat[0], [rows, features], f"{node.name}/both", {"axis": 1, "fused_activation_function": "NONE"})
    weights = [layer.inputs[1] for layer in layers]
    matrix = nodes.computed(node.graph, lazily(lambda a, b: np.concatenate([a, b], axis=1), *(w.const_value for w in weights), dims=(out[-1], features)),
                            weights[1].name)
    result = _layer(node, both, matrix, _bias(node.graph, layers), out[-1], nodes.activation(node))
    return nodes.take_over(node, nodes.reshaped(node, result, out, f"{node.name}/rows"))


def _source(value: ir.Value) -> Any:
    """The layer that makes a value and that nobody else reads, perhaps through a reshape."""
    move = nodes.before(value, "RESHAPE")
    layer = nodes.before(value if move is None else move.inputs[0], "FULLY_CONNECTED")
    if layer is None or nodes.activation(layer) != "NONE" or layer.inputs[1].const_value is None or not _is_float(*layer.inputs):
        return None
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    return None if bias is not None and bias.const_value is None else layer


def _bias(graph: ir.Graph, layers: list[ir.Node]) -> ir.Value | None:
    biases = [layer.inputs[2] for layer in layers if len(layer.inputs) > 2 and layer.inputs[2] is not None]
    if len(biases) < 2:
        return biases[0] if biases else None
    one, other = (constant(bias) for bias in biases)
    return nodes.constant_of(graph, one + other, biases[0].name)


def _layer(at: ir.Node, x: ir.Value, matrix: ir.Value, bias: ir.Value | None, outputs: int, activation: str | None = None) -> ir.Value:
    attributes = {"fused_activation_function": nodes.activation(at) if activation is None else activation, "weights_format": "DEFAULT", "keep_num_dims": 0}
    return nodes.made(at, "FULLY_CONNECTED", [x, matrix, bias], x, [nodes.sizes(x)[0], outputs], f"{at.name}/layer", attributes)


def _is_float(*values: ir.Value | None) -> bool:
    return all(value is None or (value.dtype == ir.DataType.FLOAT and "quantization" not in value.meta) for value in values)
