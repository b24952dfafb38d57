"""Loop as WHILE, whose state is handed from round to round."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping

loops = Mapping()


@loops("Loop")
def loop(op, count=None, condition=None, *carried, body):
    """WHILE over [round, go on, carried values, collected outputs, captured values]; collected outputs grow by concatenation."""
    from isomorph.passes.captures import captured, is_dynamic, lift
    from isomorph.passes.recurrent import loop as written_out

    whole = written_out(op, count, condition, *carried, body=body)
    if whole is not NotImplemented:
        return whole
    outer = captured(body)
    lift(body, outer)
    given = [value for value in outer if is_dynamic(value)]
    scans = list(body.outputs)[1 + len(carried) :]
    limit = count if count is not None else op.const(np.int64(1 << 62))
    limit = op.Reshape(limit, op.const(np.zeros(0, np.int64)))
    start = op.Reshape(condition, op.const(np.zeros(0, np.int64))) if condition is not None else op.const(np.bool_(True))
    empty = [_empty(op, value) for value in scans]
    state = [op.const(np.int64(0)), op.Identity(start), op.Identity(limit), *carried, *empty, *given]
    cond_graph, body_graph = _while_graphs(op, body, len(carried), len(scans), state)
    results = op.make("While", state, {"cond": cond_graph, "body": body_graph}, outputs=len(state), dtype=1, shape=[])
    for result, value, inner in zip(results, state, body_graph.outputs, strict=True):
        result.type, result.shape = value.type, inner.shape if inner.shape is not None else value.shape
    for result, old in zip(results[3:], op.outputs, strict=False):
        if old.shape is not None:
            result.shape = old.shape
    return list(results[3 : 3 + len(carried) + len(scans)])


def _empty(op: Builder, value: ir.Value) -> ir.Value:
    sizes = op.of(value)[1]
    if not all(isinstance(size, int) for size in sizes):
        op.reject(f"collects {value.name}, whose shape {sizes} is not known before the loop runs")
    return op.const(np.zeros((0, *sizes), value.dtype.numpy()))


def _while_graphs(op: Builder, body: ir.Graph, carried: int, scans: int, state: list[ir.Value]) -> tuple[ir.Graph, ir.Graph]:
    imports = {"": 26}

    def inputs(tag: str) -> list[ir.Value]:
        made = [ir.Value(name=op.context.unique(f"{tag}_{i}"), type=value.type, shape=value.shape) for i, value in enumerate(state)]
        for value in made[3 + carried : 3 + carried + scans]:
            value.shape = ir.Shape([None, *list(value.shape)[1:]])
        return made

    asked = inputs("cond")
    with op.body() as nodes:
        verdict = op.And(op.Less(asked[0], asked[2]), asked[1])
    cond_graph = ir.Graph(asked, [verdict], nodes=nodes, name="cond", opset_imports=imports)
    given = inputs("body")
    with op.body() as head:
        following = op.Add(given[0], np.int64(1))
    # The body keeps its nodes; its inputs are replaced by the state's.
    for old, new in zip(body.inputs, [given[0], given[1], *given[3 : 3 + carried], *given[3 + carried + scans :]], strict=True):
        new.shape = old.shape if old.shape is not None else new.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    results = list(body.outputs)
    with op.body() as tail:
        go = op.Identity(op.Reshape(results[0], op.const(np.zeros(0, np.int64))))
        carried_out = [value if value.producer() is not None and value not in given else op.Identity(value) for value in results[1 : 1 + carried]]
        grown = [
            op.Concat(old, op.Unsqueeze(value, [0]), axis=0)
            for old, value in zip(given[3 + carried : 3 + carried + scans], results[1 + carried :], strict=True)
        ]
        limit = op.Identity(given[2])
        kept = [op.Identity(value) for value in given[3 + carried + scans :]]
    for value in grown:
        value.shape = ir.Shape([None, *list(value.shape)[1:]])
    inner, constants = list(body), list(body.initializers.values())
    while body.outputs:
        body.outputs.pop()
    body.remove(inner)
    body.initializers.clear()
    graph = ir.Graph(
        given, [following, go, limit, *carried_out, *grown, *kept], nodes=[*head, *inner, *tail], initializers=constants, name="body", opset_imports=imports
    )
    return cond_graph, graph
