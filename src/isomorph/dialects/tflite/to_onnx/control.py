"""TensorFlow Lite control flow -> ONNX: bodies with inputs of their own become bodies that see the values around them."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder
from isomorph.dialects.tflite.to_onnx.common import INT64, to_onnx


def own_outputs(op: Builder, graph: ir.Graph) -> None:
    """Every output of a body becomes the result of one of its nodes, each of another, as ONNX demands."""
    seen: set[ir.Value] = set()
    for place, value in list(enumerate(graph.outputs)):
        if value.producer() is None or value in seen:
            copy = ir.node("Identity", [value])
            copy.outputs[0].name, copy.outputs[0].type, copy.outputs[0].shape = op.context.unique(f"{value.name}/out"), value.type, value.shape
            graph.append(copy)
            graph.outputs[place] = copy.outputs[0]
        seen.add(value)


def bound(op: Builder, graph: ir.Graph, values: Sequence[ir.Value | None]) -> ir.Graph:
    """A body that reads `values` from around it instead of its inputs."""
    own_outputs(op, graph)
    for old, new in zip(list(graph.inputs), values, strict=True):
        old.replace_all_uses_with(new)
    graph.inputs.clear()
    return graph


def inlined(op: Builder, graph: ir.Graph, values: Sequence[ir.Value | None], into: ir.Graph | None = None) -> list[ir.Value]:
    """Copies the nodes of `graph` to where the operator stands, or to the end of `into`, and returns what were its outputs."""
    copy = graph.clone(allow_outer_scope_values=True)
    inputs = list(copy.inputs)
    results = [values[inputs.index(value)] if value in inputs else value for value in copy.outputs]
    copy.outputs.clear()
    for old, new in zip(inputs, values, strict=True):
        old.replace_all_uses_with(new)
    for value in list(copy.initializers.values()):
        del copy.initializers[value.name]
        value.name = op.context.unique(value.name)
        (into if into is not None else op.context.graph_of(op.node)).register_initializer(value)
    for node in list(copy):
        copy.remove(node)
        for value in node.outputs:
            value.name = op.context.unique(value.name)
        (op.made if into is None else into).append(node)
    return results


@to_onnx("IF")
def if_(op, condition, *inputs, then_branch, else_branch):
    return op.If(condition, then_branch=bound(op, then_branch, inputs), else_branch=bound(op, else_branch, inputs), _outputs=len(op.outputs))


@to_onnx("WHILE", "STABLEHLO_WHILE")
def while_(op, *inputs, cond, body):
    """The condition stands before the loop, and again at the end of its body."""
    (go,) = inlined(op, cond, inputs)
    own_outputs(op, body)
    (again,) = inlined(op, cond, list(body.outputs), body)
    count = ir.Value(name=op.context.unique("iteration"), type=ir.TensorType(INT64), shape=ir.Shape([]))
    before = ir.Value(name=op.context.unique("condition"), type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    body.inputs[:0] = [count, before]
    body.outputs.insert(0, again)
    return op.Loop(None, go, *inputs, body=body, _outputs=len(op.outputs))


@to_onnx("STABLEHLO_CASE")
def stablehlo_case(op, index, *inputs, branches):
    """Ifs, each in the else of the one before; a number outside takes the last branch."""
    bodies = [bound(op, branch, inputs) for branch in branches]
    rest = bodies[-1]
    for number in range(len(bodies) - 2, 0, -1):
        with op.body() as made:
            results = op.If(op.Equal(index, number), then_branch=bodies[number], else_branch=rest, _outputs=len(op.outputs))
            results = [results] if len(op.outputs) == 1 else results
        for result, output in zip(results, op.outputs, strict=True):
            result.type, result.shape = output.type, output.shape
        rest = ir.Graph([], results, nodes=made, name=f"case_{number}", opset_imports={"": 1})
    if len(bodies) == 1:
        return op.If(op.const(np.bool_(True)), then_branch=rest, else_branch=rest.clone(allow_outer_scope_values=True), _outputs=len(op.outputs))
    return op.If(op.Equal(index, 0), then_branch=bodies[0], else_branch=rest, _outputs=len(op.outputs))


@to_onnx("CALL")
def call(op, *inputs, body):
    return inlined(op, body, inputs)


@to_onnx("STABLEHLO_COMPOSITE")
def stablehlo_composite(op, *inputs, decomposition, **description):
    """What it is composed of, instead of its name."""
    return inlined(op, decomposition, inputs)
