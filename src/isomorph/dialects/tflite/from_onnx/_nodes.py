"""What rules about neighbouring TensorFlow Lite operators ask of a graph and do to it."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.passes.tidy import single_use
from isomorph.tensors import array_tensor


def sizes(value: ir.Value | None) -> list[int] | None:
    """The dimensions of a value where all are numbers."""
    found = [] if value is None or value.shape is None else [dim for dim in value.shape if isinstance(dim, int)]
    return found if value is not None and value.shape is not None and len(found) == len(value.shape) else None


def is_plain(*values: ir.Value | None) -> bool:
    """Whether none of these is quantised or absent."""
    return all(value is not None and "quantization" not in value.meta for value in values)


def before(value: ir.Value, *operators: str) -> ir.Node | None:
    """The node that makes a value, where it is one of `operators` of the same graph and nobody else reads the value."""
    node = value.producer()
    return node if node is not None and node.op_type in operators and node.domain == "tflite" and single_use(value) else None


def constant_of(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    """An array as a value of the graph, under a name of its own."""
    return computed(graph, array_tensor(array, name), name)


def computed(graph: ir.Graph, tensor: Any, name: str) -> ir.Value:
    """A tensor as a value of the graph, under a name of its own."""
    count = len(graph.initializers)
    while f"{name}/{count}" in graph.initializers:
        count += 1
    value = ir.Value(name=f"{name}/{count}", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape))
    tensor.name = value.name
    graph.register_initializer(value)
    return value


def made(at: ir.Node, op_type: str, inputs: Iterable[ir.Value], like: ir.Value, dims: list[int], name: str, attributes: dict | None = None) -> ir.Value:
    """The output of a new node in front of `at`."""
    node = ir.node(op_type, list(inputs), attributes or {}, domain="tflite")
    node.name, node.outputs[0].name = name, name
    node.outputs[0].type, node.outputs[0].shape = like.type, ir.Shape(dims)
    at.graph.insert_before(at, node)
    return node.outputs[0]


def reshaped(at: ir.Node, value: ir.Value, dims: list[int], name: str) -> ir.Value:
    """The output of a new RESHAPE in front of `at`."""
    target = constant_of(at.graph, np.asarray(dims, np.int32), f"{name}/shape")
    return made(at, "RESHAPE", [value, target], value, dims, name, {"new_shape": dims})


def take_over(node: ir.Node, fresh: ir.Value) -> bool:
    """Lets a new value stand where the node's output stood, under its name."""
    old = node.outputs[0]
    fresh.name, old.name = old.name, None
    fresh.meta.update(old.meta)
    old.replace_all_uses_with(fresh, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    return True


def activation(node: ir.Node) -> str:
    """The activation that a node computes with its operator."""
    return node.attributes.get_string("fused_activation_function", "NONE") or "NONE"
