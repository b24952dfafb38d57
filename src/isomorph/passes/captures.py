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
        count = value.meta["captured"] = value.meta.get("captured", 0) + 1      # bodies have names of their own for it, the same in every run
        name = f"{value.name}/captured_{count}"
        if value.const_value is not None and value.is_initializer():
            inner = ir.Value(name=name, type=value.type, shape=value.shape, const_value=value.const_value)
            inner.meta.update(value.meta)
            body.register_initializer(inner)
        else:
            inner = ir.Value(name=name, type=value.type, shape=value.shape)
            inner.meta.update(value.meta)
            body.inputs.append(inner)
        inner.meta.pop("captured", None)
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


def own_constants(graph: ir.Graph) -> None:
    """Every body has the constants that it reads itself: outer bodies first, because inner ones may read what an outer one has been given."""
    for node in graph:
        for body in [attribute.value for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH]:
            lift(body, [value for value in captured(body) if not is_dynamic(value)])
            own_constants(body)


def explicit(graph: ir.Graph) -> None:
    """Both branches of an If take the same inputs: everything that either reads from around it. Inner bodies first."""
    for body in graph.subgraphs():
        for node in list(body):
            _lift_if(node)
    for node in list(graph):
        _lift_if(node)


def _lift_if(node: ir.Node) -> None:
    if node.op_type != "If" or node.domain:
        return
    branches = [node.attributes["then_branch"].value, node.attributes["else_branch"].value]
    wanted: dict[ir.Value, None] = {}
    for branch in branches:
        wanted.update(dict.fromkeys(captured(branch)))
    for branch in branches:
        lift(branch, list(wanted))
        _own_outputs(branch)
    given = [value for value in wanted if is_dynamic(value)]
    node.resize_inputs(1 + len(given))
    for index, value in enumerate(given, 1):
        node.replace_input_with(index, value)


def _own_outputs(graph: ir.Graph) -> None:
    """Every output of a body is made by a node of it, and only once."""
    seen: set[ir.Value] = set()
    for index, value in enumerate(list(graph.outputs)):
        if value.producer() is None or value in seen:
            copy = ir.node("Identity", [value])
            copy.outputs[0].name, copy.outputs[0].type, copy.outputs[0].shape = f"{value.name}/out_{index}", value.type, value.shape
            graph.append(copy)
            graph.outputs[index] = copy.outputs[0]
        seen.add(graph.outputs[index])
