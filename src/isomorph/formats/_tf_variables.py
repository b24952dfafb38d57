"""Which tensor of a checkpoint a variable of a graph holds, read from the graph's own restore function; names alone do not tell.

A Keras 3 export stores the same weight under two keys and reads handles called after neither; what it restores, it assigns: RestoreV2 reads the keys, each
result goes through Identity into an assignment, directly or as an argument of the function that `saver_def.restore_op_name` calls.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isomorph.errors import Damaged
from isomorph.formats._graphdef import split_reference
from isomorph.formats._tf_tensors import ELEMENT
from isomorph.tensors import BITS, NUMBER, ComputedTensor, SliceTensor, numpy_type
from isomorph.wire.protobuf import Record
from isomorph.wire.tensor_bundle import Bundle, Entry
from isomorph.wire.tf_operators import TYPE_NAMES

ASSIGN = ("Assign", "AssignVariableOp")
THROUGH = ("Identity", "Cast", "NoOp", "Reshape")
HANDLES = ("VarHandleOp", "VariableV2", "Variable")
MOST_STEPS = 64


def keys_of_variables(graph_def: Record, restore_op: str) -> dict[str, str]:
    """Node of a variable -> the key of its tensor."""
    nodes = {node.name: node for node in graph_def.node}
    functions = {function.signature.name: function for function in (graph_def.library.function if graph_def.library is not None else ())
                 if function.signature is not None}
    found: dict[str, str] = {}
    _follow(restore_op, nodes, functions, found, set())
    return found


def _follow(name: str, nodes: Mapping[str, Record], functions: Mapping[str, Record], found: dict[str, str], seen: set[str]) -> None:
    """Collects the assignments that a node causes, through its control inputs and the functions that it calls."""
    waiting = [split_reference(name)[0]]
    while waiting:
        node = nodes.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op in ASSIGN and len(node.input) > 1:
            key = _restored(node.input[1], nodes)
            variable = _handle(node.input[0], nodes)
            if key is not None and variable is not None:
                found[variable] = key
        elif node.op in ("StatefulPartitionedCall", "PartitionedCall") and node.attr.get("f") is not None and node.attr["f"].func is not None:
            _called(node, nodes, functions.get(node.attr["f"].func.name), found)
        waiting += [split_reference(reference.removeprefix("^"))[0] for reference in node.input if reference.startswith("^") or node.op in THROUGH]


def _called(node: Record, nodes: Mapping[str, Record], function: Record | None, found: dict[str, str]) -> None:
    if function is None:
        return
    inner = {item.name: item for item in function.node_def}
    arguments = {argument.name: place for place, argument in enumerate(function.signature.input_arg)}
    given = [reference for reference in node.input if not reference.startswith("^")]
    for item in function.node_def:
        if item.op not in ASSIGN or len(item.input) < 2:
            continue
        argument = _start(item.input[0], inner)
        key = _restored(item.input[1], inner)
        if argument in arguments and key is not None and arguments[argument] < len(given):
            variable = _handle(given[arguments[argument]], nodes)
            if variable is not None:
                found[variable] = key


def _start(reference: str, nodes: Mapping[str, Record]) -> str:
    """The name that a chain of Identity begins with."""
    name, _ = split_reference(reference)
    for _ in range(MOST_STEPS):
        node = nodes.get(name)
        if node is None or node.op not in THROUGH or not node.input:
            return name
        name = split_reference(node.input[0])[0]
    return name


def _handle(reference: str, nodes: Mapping[str, Record]) -> str | None:
    name = _start(reference, nodes)
    return name if name in nodes and nodes[name].op in HANDLES else None


def _restored(reference: str, nodes: Mapping[str, Record]) -> str | None:
    """The key of the tensor that a value comes from."""
    name, place = split_reference(reference)
    for _ in range(MOST_STEPS):
        node = nodes.get(name)
        if node is None:
            return None
        if node.op == "RestoreV2" and len(node.input) > 1:
            names = nodes.get(_start(node.input[1], nodes))
            tensor = names.attr["value"].tensor if names is not None and names.op == "Const" and "value" in names.attr else None
            texts = tensor.string_val if tensor is not None else ()
            index = int(place.rpartition(":")[2] or 0) if place.rpartition(":")[2].isdigit() or not place else 0
            return bytes(texts[index]).decode("utf-8", "surrogateescape") if index < len(texts) else None
        if node.op not in THROUGH or not node.input:
            return None
        name, place = split_reference(node.input[0])
    return None


def stored_tensor(bundle: Bundle, entry: Entry, name: str) -> Any:
    """A tensor of the bundle, its bytes a slice of the mapped shard."""
    kind = TYPE_NAMES.get(entry.dtype, "")
    if kind not in ELEMENT:
        raise Damaged(f"a stored tensor of the type {kind or entry.dtype}", where=f"{bundle.where}, {name}")
    element = ELEMENT[kind]
    if element == NUMBER["STRING"]:
        import onnx_ir as ir
        return ir.StringTensor([bytes(text) for text in bundle.strings(entry)[0]], shape=ir.Shape(entry.dims), name=name)
    if entry.slices:
        return ComputedTensor(name, element, entry.dims, lambda: _assembled(bundle, entry, element), ())
    if BITS[element] < 8:
        return ComputedTensor(name, element, entry.dims, lambda: _bytes(bundle, entry, element), ())
    return SliceTensor(name, element, entry.dims, bundle.data(entry))


def _bytes(bundle: Bundle, entry: Entry, element: int) -> Any:
    import numpy as np
    return np.frombuffer(bundle.data(entry), np.int8).astype(numpy_type(element)).reshape(entry.dims)


def _assembled(bundle: Bundle, entry: Entry, element: int) -> Any:
    import numpy as np
    out = np.empty(entry.dims, numpy_type(element))
    for place, part in bundle.pieces(entry):
        out[place] = np.frombuffer(bundle.data(part), numpy_type(element)).reshape(part.dims)
    return out
