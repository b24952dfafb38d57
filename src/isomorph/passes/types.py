"""Casts around operators whose kernels in the target do not know an element type."""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx_ir as ir

from isomorph.passes import shapes
from isomorph.report import Finding, Severity
from isomorph.tensors import lazily

T = ir.DataType
# What stands in for a type, best first. The number of bits that survive exactly decides whether it is a loss.
STANDS_IN: dict[ir.DataType, tuple[ir.DataType, ...]] = {
    T.DOUBLE: (T.FLOAT,),
    T.FLOAT16: (T.FLOAT,),
    T.BFLOAT16: (T.FLOAT,),
    T.FLOAT: (),
    T.BOOL: (T.INT32, T.UINT8, T.FLOAT),
    T.UINT8: (T.INT32, T.INT64, T.FLOAT),
    T.INT8: (T.INT32, T.INT64, T.FLOAT),
    T.INT16: (T.INT32, T.INT64, T.FLOAT),
    T.UINT16: (T.INT32, T.INT64, T.FLOAT),
    T.INT32: (T.INT64, T.FLOAT),
    T.UINT32: (T.INT64, T.INT32, T.FLOAT),
    T.INT64: (T.INT32, T.FLOAT),
    T.UINT64: (T.INT64, T.INT32, T.FLOAT),
    T.INT4: (T.INT8, T.INT32, T.FLOAT),
    T.UINT4: (T.UINT8, T.INT32, T.FLOAT),
}
EXACT_BITS = {
    T.DOUBLE: 53, T.FLOAT: 24, T.FLOAT16: 11, T.BFLOAT16: 8, T.BOOL: 1, T.UINT8: 8, T.INT8: 7, T.INT16: 15, T.UINT16: 16, T.INT32: 31, T.UINT32: 32,
    T.INT64: 63, T.UINT64: 64, T.INT4: 4, T.UINT4: 4}


COMPACT = 1 << 10  # bytes; smaller constants are not worth a node


def groups(node: ir.Node) -> list[tuple[list[int], list[int]]]:
    """Inputs and outputs that share one type variable in the operator's schema; by their types where ONNX knows no schema."""
    schema = shapes.schema_of(node)
    if schema is None:
        if not node.inputs or node.inputs[0] is None:
            return []
        kind = node.inputs[0].dtype
        return [([i for i, v in enumerate(node.inputs) if v is not None and v.dtype == kind], [i for i, v in enumerate(node.outputs) if v.dtype == kind])]
    last_in, last_out = len(schema.inputs) - 1, len(schema.outputs) - 1
    found: dict[str, tuple[list[int], list[int]]] = {}
    for side, values, formal, last in ((0, node.inputs, schema.inputs, last_in), (1, node.outputs, schema.outputs, last_out)):
        for index, value in enumerate(values):
            if value is not None:
                found.setdefault(formal[min(index, last)].type_str, ([], []))[side].append(index)
    return list(found.values())


def legalize(graph: ir.Graph, allowed: Callable[[ir.Node], Collection[ir.DataType] | None], findings: list[Finding]) -> None:
    """Puts casts around every node whose data type is not in `allowed(node)` (None: the node takes what it gets). A type that cannot
    carry all values of the one it stands in for is a finding."""
    for body in graph.subgraphs():
        _legalize(body, allowed, findings)
    _legalize(graph, allowed, findings)


def _legalize(graph: ir.Graph, allowed: Callable, findings: list[Finding]) -> None:
    for node in list(graph):
        types = allowed(node)
        if types is None:
            continue
        inputs, outputs = _data_group(node)
        given = next((node.inputs[i].dtype for i in inputs), next((node.outputs[i].dtype for i in outputs), None))
        if given is None or given in types:
            continue
        stand_in = next((kind for kind in STANDS_IN.get(given, ()) if kind in types), None)
        if stand_in is None:
            continue  # the lowering reports it
        if EXACT_BITS[stand_in] < EXACT_BITS[given]:
            findings.append(
                Finding(
                    "values.narrowed",
                    Severity.LOW,
                    node.name or node.outputs[0].name or node.op_type,
                    f"{node.op_type} computes in {stand_in.name} instead of {given.name}",
                )
            )
        for index in inputs:
            node.replace_input_with(index, _cast(graph, node, node.inputs[index], stand_in))
        for index in outputs:
            _cast_back(graph, node, node.outputs[index], stand_in, given)


def _data_group(node: ir.Node) -> tuple[list[int], list[int]]:
    """The group that carries the data: the one of the first output, else of the first input."""
    found = groups(node)
    for inputs, outputs in found:
        if 0 in outputs and inputs:
            return inputs, outputs
    return next(((i, o) for i, o in found if 0 in i), ([], []))


def is_compact(value: ir.Value, kind: ir.DataType) -> bool:
    """A float16 weight stays one and is widened at run time: files must not swell."""
    return value.dtype == T.FLOAT16 and kind == T.FLOAT and value.const_value.nbytes >= COMPACT


def _cast(graph: ir.Graph, node: ir.Node, value: ir.Value, kind: ir.DataType) -> ir.Value:
    if value.is_initializer() and value.const_value is not None and not is_compact(value, kind):
        tensor = lazily(lambda a: a.astype(kind.numpy()), value.const_value, element_type=int(kind))
        name = f"{value.name}/{kind.name.lower()}"
        if name in graph.initializers:
            return graph.initializers[name]
        fresh = ir.Value(name=name, type=ir.TensorType(kind), shape=value.shape, const_value=tensor)
        tensor.name = name
        graph.register_initializer(fresh)
        return fresh
    cast = ir.node("Cast", [value], {"to": int(kind)})
    count = value.meta["casts"] = value.meta.get("casts", 0) + 1
    out = cast.outputs[0]
    out.name, out.type, out.shape = f"{value.name}/{kind.name.lower()}/{count}", ir.TensorType(kind), value.shape
    graph.insert_before(node, cast)
    return out


def _cast_back(graph: ir.Graph, node: ir.Node, value: ir.Value, kind: ir.DataType, given: ir.DataType) -> None:
    cast = ir.node("Cast", [value], {"to": int(given)})
    out = cast.outputs[0]
    value.replace_all_uses_with(out, replace_graph_outputs=True)
    cast.replace_input_with(0, value)
    out.name, value.name = value.name, f"{value.name}/{kind.name.lower()}"
    out.type, out.shape, value.type = ir.TensorType(given), value.shape, ir.TensorType(kind)
    graph.insert_after(node, cast)
