"""Bodies of control flow see the values around them in ONNX; most other formats hand everything in. This makes every captured value an input."""

from __future__ import annotations

import onnx_ir as ir


def captured(body: ir.Graph) -> list[ir.Value]:
    """The values of outer graphs that a body (or a body inside it) reads, in order of use."""
    own = set(body.inputs) | set(body.initializers.values())
    found: dict[ir.Value, None] = {}
    for node in body.all_nodes():
        own.update(node.outputs)
        for inner in (attribute.value for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH):
            own.update(inner.inputs)
            own.update(inner.initializers.values())
    for node in body.all_nodes():
        for value in node.inputs:
            if value is not None and value not in own:
                found.setdefault(value)
        for inner in (attribute.value for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH):
            for value in inner.outputs:
                if value not in own:
                    found.setdefault(value)
    for value in body.outputs:
        if value not in own:
            found.setdefault(value)
    return list(found)


def lift(body: ir.Graph, values: list[ir.Value]) -> None:
    """Appends one input for each of `values` to the body and reads that instead; constants are repeated inside the body."""
    for value in values:
        if value.const_value is not None and value.is_initializer():
            inner = ir.Value(name=f"{value.name}/{id(body) & 0xFFFF}", type=value.type, shape=value.shape, const_value=value.const_value)
            inner.meta.update(value.meta)
            body.register_initializer(inner)
        else:
            inner = ir.Value(name=f"{value.name}/{id(body) & 0xFFFF}", type=value.type, shape=value.shape)
            inner.meta.update(value.meta)
            body.inputs.append(inner)
        for node in body.all_nodes():
            for index, used in enumerate(node.inputs):
                if used is value:
                    node.replace_input_with(index, inner)
            for graph in (attribute.value for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH):
                _redirect(graph, value, inner)
        _redirect(body, value, inner)


def _redirect(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    for index, value in enumerate(list(graph.outputs)):
        if value is old:
            graph.outputs[index] = new


def is_dynamic(value: ir.Value) -> bool:
    return not (value.is_initializer() and value.const_value is not None)
