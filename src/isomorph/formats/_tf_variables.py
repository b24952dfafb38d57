"""Which tensor of a checkpoint a variable of a graph holds, read from the graph's own restore function; names alone do not tell.

A Keras 3 export stores the same weight under two keys and reads handles called after neither; what it restores, it assigns: RestoreV2 reads the keys, each
result goes through Identity into an assignment, directly or as an argument of the function that `saver_def.restore_op_name` calls.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from isomorph.errors import Damaged
from isomorph.formats._graphdef import split_reference
from isomorph.formats._tf_tensors import ELEMENT
from isomorph.tensors import BITS, NUMBER, ComputedTensor, SliceTensor, numpy_type
from isomorph.wire.protobuf import Record
from isomorph.wire.tensor_bundle import Bundle, Entry
from isomorph.wire.tf_operators import TYPE_NAMES

ASSIGN = ("Assign", "AssignVariableOp")
THROUGH = ("Identity", "Cast", "NoOp", "Reshape")
FILLS = (*ASSIGN, "LookupTableImport", "LookupTableImportV2")
HANDLES = ("VarHandleOp", "VariableV2", "Variable")
TABLES = ("HashTable", "HashTableV2", "MutableHashTable", "MutableHashTableV2", "MutableDenseHashTable", "MutableDenseHashTableV2")
MOST_STEPS = 64


class Place(NamedTuple):
    """Where a checkpoint holds what a variable is restored from: a tensor, or the part of it that `piece` names ("20 10 0,5:-", see `slices_of`)."""

    key: str
    piece: str = ""


Found = dict[str, tuple[Place, ...]]


def keys_of_variables(graph_def: Record, restore_op: str) -> Found:
    """Node of a variable -> the place of its tensor; node of a table -> the places of its keys and of its values."""
    nodes = {node.name: node for node in graph_def.node}
    functions = {function.signature.name: function for function in (graph_def.library.function if graph_def.library is not None else ())
                 if function.signature is not None}
    found: Found = {}
    _follow(restore_op, nodes, functions, found, set())
    return found


def _follow(name: str, nodes: Mapping[str, Record], functions: Mapping[str, Record], found: Found, seen: set[str]) -> None:
    """Collects the assignments that a node causes, through its control inputs and the functions that it calls."""
    waiting = [split_reference(name)[0]]
    while waiting:
        node = nodes.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op in FILLS and len(node.input) > 1:
            _note(_handle(node.input[0], nodes), node, nodes, found)
        elif node.op in ("StatefulPartitionedCall", "PartitionedCall") and node.attr.get("f") is not None and node.attr["f"].func is not None:
            _called(node, nodes, functions.get(node.attr["f"].func.name), found)
        waiting += [split_reference(reference.removeprefix("^"))[0] for reference in node.input if reference.startswith("^") or node.op in THROUGH]


def _called(node: Record, nodes: Mapping[str, Record], function: Record | None, found: Found) -> None:
    if function is None:
        return
    inner = {item.name: item for item in function.node_def}
    arguments = {argument.name: place for place, argument in enumerate(function.signature.input_arg)}
    given = [reference for reference in node.input if not reference.startswith("^")]
    for item in function.node_def:
        argument = _start(item.input[0], inner) if item.op in FILLS and len(item.input) > 1 else ""
        if argument in arguments and arguments[argument] < len(given):
            _note(_handle(given[arguments[argument]], nodes), item, inner, found)


def _note(owner: str | None, fills: Record, nodes: Mapping[str, Record], found: Found) -> None:
    """What a node that fills a variable or a table takes from the checkpoint."""
    places = [_restored(reference, nodes) for reference in fills.input[1:] if not reference.startswith("^")]
    if owner is not None and all(place is not None for place in places):
        found[owner] = tuple(place for place in places if place is not None)


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
    return name if name in nodes and nodes[name].op in (*HANDLES, *TABLES) else None


def _restored(reference: str, nodes: Mapping[str, Record]) -> Place | None:
    """The stored tensor that a value comes from."""
    name, place = split_reference(reference)
    for _ in range(MOST_STEPS):
        node = nodes.get(name)
        if node is None:
            return None
        if node.op == "RestoreV2" and len(node.input) > 1:
            index = int(place.rpartition(":")[2] or 0) if place.rpartition(":")[2].isdigit() or not place else 0
            key, piece = (_element(part, index, nodes) for part in (*node.input, "")[1:3])
            return Place(key, piece or "") if key is not None else None
        if node.op not in THROUGH or not node.input:
            return None
        name, place = split_reference(node.input[0])
    return None


def _element(reference: str, index: int, nodes: Mapping[str, Record]) -> str | None:
    """One of the texts of a constant."""
    node = nodes.get(_start(reference, nodes))
    tensor = node.attr["value"].tensor if node is not None and node.op == "Const" and "value" in node.attr else None
    texts = tensor.string_val if tensor is not None else ()
    return bytes(texts[min(index, len(texts) - 1)]).decode("utf-8", "surrogateescape") if texts else None          # the last one stands for all that follow


def slices_of(piece: str, dims: Sequence[int], where: str) -> tuple[slice, ...]:
    """`20 10 0,5:-` -> the first five rows of a tensor of [20, 10]. The whole tensor's sizes, then for each axis start and length or `-` for all of it.

    Raises `Damaged` where it names no part of a tensor of these sizes.
    """
    *sizes, extents = piece.split(" ")
    found = []
    try:
        if tuple(map(int, sizes)) != tuple(dims):
            raise Damaged(f"a variable is a part of a tensor of [{', '.join(sizes)}], and {list(dims)} is stored", where=where)
        for extent, size in zip(extents.split(":"), dims, strict=True):
            start, length = (0, size) if extent == "-" else map(int, extent.split(","))
            if not 0 <= start <= start + length <= size:
                raise ValueError
            found.append(slice(start, start + length))
    except ValueError:
        raise Damaged(f"{piece!r} names no part of a tensor of {list(dims)}", where=where) from None
    return tuple(found)


def stored_part(bundle: Bundle, place: Place, name: str) -> Any:
    """What a variable is restored from: a tensor of the bundle, or a part of one."""
    entry = bundle[place.key]
    where = f"{bundle.where}, {name}"
    part = slices_of(place.piece, entry.dims, where) if place.piece else None
    if part is None:
        return stored_tensor(bundle, entry, name)
    if entry.slices:
        for stored, piece in bundle.pieces(entry):
            if stored == part:
                return stored_tensor(bundle, piece, name)
    whole = stored_tensor(bundle, entry, name)
    return ComputedTensor(name, int(whole.dtype), [axis.stop - axis.start for axis in part], lambda: whole.numpy()[part], ())


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
