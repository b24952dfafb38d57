"""Chains of reshapes and transposes that are one reshape, one transpose, or nothing."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.passes import shapes
from isomorph.tensors import array_tensor

RESHAPES = {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}


def tidy(graph: ir.Graph) -> None:
    """Merges and removes reshapes and transposes, in the graph and in its bodies."""
    for each in (graph, *graph.subgraphs()):
        for node in list(each):
            if node.graph is not None and node.domain == "":
                _visit(node)
        for node in reversed(list(each)):
            if node.op_type in (*RESHAPES, "Transpose") and not any(value.uses() or value.is_graph_output() for value in node.outputs):
                each.remove(node, safe=True)


def _visit(node: ir.Node) -> None:
    if node.op_type == "Transpose":
        before = node.inputs[0].producer()
        if before is not None and before.op_type == "Transpose" and before.domain == "" and before.graph is node.graph:
            inner, outer = _perm(before), _perm(node)
            node.attributes["perm"] = ir.AttrInt64s("perm", [inner[i] for i in outer])
            node.replace_input_with(0, before.inputs[0])
        if node.inputs[0].shape is not None and _moves_nothing(list(node.inputs[0].shape), _perm(node)):
            node = _as_reshape(node) or node
    if node.op_type in RESHAPES:
        before = node.inputs[0].producer()
        while before is not None and before.op_type in RESHAPES and before.domain == "" and before.graph is node.graph and _target(node.outputs[0]) is not None:
            node = _onto(node, before.inputs[0])
            before = node.inputs[0].producer()
        if shapes.dims(node.inputs[0]) == shapes.dims(node.outputs[0]) and _same_for_sure(node):
            _bypass(node)


def _perm(node: ir.Node) -> list[int]:
    return list(node.attributes["perm"].value) if "perm" in node.attributes else list(range(len(node.inputs[0].shape)))[::-1]


def _moves_nothing(sizes: list, perm: list[int]) -> bool:
    longer = [axis for axis in perm if sizes[axis] != 1]
    return longer == sorted(longer)


def _target(value: ir.Value) -> list[int] | None:
    """The shape as the constant of a reshape, where at most one size is unknown."""
    if value.shape is None:
        return None
    sizes = [dim if isinstance(dim, int) else -1 for dim in value.shape]
    return sizes if sizes.count(-1) <= 1 and 0 not in sizes else None


def _as_reshape(node: ir.Node) -> ir.Node | None:
    return _onto(node, node.inputs[0]) if _target(node.outputs[0]) is not None else None


def _onto(node: ir.Node, source: ir.Value) -> ir.Node:
    """A reshape of `source` to the shape of the node's output, in the node's place."""
    out = node.outputs[0]
    name = f"{out.name}/to_{len(node.graph.initializers)}"
    tensor = array_tensor(np.asarray(_target(out), np.int64), name)
    target = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([len(out.shape)]), const_value=tensor)
    node.graph.register_initializer(target)
    fresh = ir.node("Reshape", [source, target])
    new = fresh.outputs[0]
    new.name, out.name, new.type, new.shape = out.name, None, out.type, out.shape
    new.meta.update(out.meta)
    node.graph.insert_before(node, fresh)
    out.replace_all_uses_with(new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    return fresh


def _same_for_sure(node: ir.Node) -> bool:
    sizes = shapes.dims(node.outputs[0])
    return sizes is not None and all(size is not None for size in sizes)


def _bypass(node: ir.Node) -> None:
    out = node.outputs[0]
    if out.is_graph_output():
        return
    if "quantization" in out.meta:
        node.inputs[0].meta.setdefault("quantization", out.meta["quantization"])
    out.replace_all_uses_with(node.inputs[0])
    node.graph.remove(node, safe=True)


def sweep(graph: ir.Graph) -> None:
    """Removes nodes whose results nobody reads and constants that no node reads, in the graph and, before it, in its bodies. Defaults of inputs stay."""
    for each in (*graph.subgraphs(), graph):
        for node in reversed(list(each)):
            if not any(value.uses() or value.is_graph_output() for value in node.outputs) and node.op_type not in EFFECTS:
                each.remove(node, safe=True)
        for name, value in list(each.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del each.initializers[name]


EFFECTS = {"ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE_IMPORT"}


def single_use(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def scalar(value: ir.Value | None) -> float | None:
    """The one number of a constant, None for anything else."""
    array = constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype.kind in "fiu" else None


def share_equal(graph: ir.Graph, most: int) -> None:
    """Makes one of initializers that hold the same numbers in the same shape, up to `most` elements each; larger ones would take long to compare.

    onnx-ir has such a pass, which fails on arrays that are not contiguous, as transposed weights are."""
    known: dict[tuple[Any, ...], ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.size > most or tensor.dtype == ir.DataType.STRING or value.is_graph_input() or value.is_graph_output():
            continue
        key = (tensor.dtype, tuple(tensor.shape), hashlib.sha256(tensor.tobytes()).digest())
        kept = known.setdefault(key, value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            del graph.initializers[name]
