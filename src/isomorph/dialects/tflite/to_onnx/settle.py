"""Where QuantizeLinear and DequantizeLinear stand around operators that only move data.

A convolution of TFLite lies between two Transposes in ONNX, which part it from its DequantizeLinear and QuantizeLinear. Moving integers instead keeps the
pattern (dequantise, compute, quantise) whole, which runtimes look for; and ONNX Runtime 1.31 refuses int8 models of opset 21 and later in which
DequantizeLinear, a moving operator and a computing one follow each other (its propagation adds a QuantizeLinear with a zero point of uint8).
"""
from __future__ import annotations

import onnx_ir as ir

MOVING = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Flatten", "MaxPool"}
BYTES = (ir.DataType.INT8, ir.DataType.UINT8)


def settle(graph: ir.Graph) -> None:
    """Moves DequantizeLinear behind data movement that a computation follows, and QuantizeLinear before a Transpose that follows a computation."""
    for each in (*graph.subgraphs(), graph):
        for node in list(each):
            if node.domain == "" and node.op_type in MOVING:
                _sink(each, node)
            elif node.domain == "" and node.op_type == "QuantizeLinear":
                _lift(each, node)


def _per_tensor(node: ir.Node | None, kind: str) -> bool:
    return node is not None and node.domain == "" and node.op_type == kind and node.inputs[1].shape is not None and node.inputs[1].shape.rank() == 0


def _sink(graph: ir.Graph, node: ir.Node) -> None:
    source, result = node.inputs[0].producer(), node.outputs[0]
    if not _per_tensor(source, "DequantizeLinear") or source.graph is not graph:
        return
    stored = source.inputs[0]
    if stored.const_value is not None and not stored.is_graph_input():
        return
    if all(user.op_type == "QuantizeLinear" for user in result.consumers()) or (node.op_type == "MaxPool" and stored.dtype not in BYTES):
        return
    moved = ir.node(node.op_type, [stored, *node.inputs[1:]], dict(node.attributes), name=node.name)
    back = ir.node("DequantizeLinear", [moved.outputs[0], *source.inputs[1:]], name=f"{node.name}/dequantized")
    moved.outputs[0].name, moved.outputs[0].dtype, moved.outputs[0].shape = f"{result.name}/stored", stored.dtype, result.shape
    back.outputs[0].dtype, back.outputs[0].shape = result.dtype, result.shape
    graph.insert_before(node, [moved, back])
    _replace(graph, node, back.outputs[0])


def _lift(graph: ir.Graph, node: ir.Node) -> None:
    transpose, result = node.inputs[0].producer(), node.outputs[0]
    if transpose is None or transpose.op_type != "Transpose" or transpose.graph is not graph or not _per_tensor(node, "QuantizeLinear"):
        return
    computed = transpose.inputs[0].producer()
    if len(node.inputs[0].uses()) > 1 or node.inputs[0].is_graph_output() or computed is None or computed.op_type == "DequantizeLinear":
        return
    stored = ir.node("QuantizeLinear", [transpose.inputs[0], *node.inputs[1:]], name=node.name)
    moved = ir.node("Transpose", [stored.outputs[0]], dict(transpose.attributes), name=transpose.name)
    stored.outputs[0].name, stored.outputs[0].dtype, stored.outputs[0].shape = f"{result.name}/first", result.dtype, transpose.inputs[0].shape
    moved.outputs[0].dtype, moved.outputs[0].shape = result.dtype, result.shape
    graph.insert_before(node, [stored, moved])
    _replace(graph, node, moved.outputs[0])


def _replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """`value` takes over the name and the users of the result of `node`."""
    old = node.outputs[0]
    value.name, old.name = old.name, None
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
