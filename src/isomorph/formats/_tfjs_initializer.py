"""The second graph of a GraphModel, which fills its tables before the first run: as a part of the first one in memory, apart from it in the file.

Both graphs share their weights by name, and tables by the names of the nodes that make them. Exports of TensorFlow 2 hand tables over: outputs of the second
graph have the `resourceId` of inputs of the first.
"""
from __future__ import annotations

from typing import Any

from isomorph.errors import Damaged
from isomorph.formats._graphdef import split_reference
from isomorph.formats._tf_tensors import schema
from isomorph.model import unused
from isomorph.wire import protobuf_json
from isomorph.wire.limits import Limits
from isomorph.wire.protobuf import Record
from isomorph.wire.tf_operators import TYPES

SHARED = ("Const", "HashTable", "HashTableV2")
FILLS = ("LookupTableImport", "LookupTableImportV2", "InitializeTable", "InitializeTableV2", "StatefulPartitionedCall", "PartitionedCall")


def joined(graph_def: Record, document: dict[str, Any], where: str, limits: Limits, enums: Any) -> list[str]:
    """Adds the second graph to the first and returns the nodes that fill tables. Raises `Damaged` where a table is handed over that nothing makes."""
    if not document.get("modelInitializer"):
        return []
    filling = protobuf_json.read(document["modelInitializer"], schema()["GraphDef"], f"{where}, modelInitializer", limits, enums)
    known = {node.name: node for node in graph_def.node}
    names = set(known) | {node.name for node in filling.node}
    called: dict[str, str] = {}
    for node in filling.node:
        same = known.get(node.name)
        called[node.name] = node.name if same is None or _is_shared(same, node) else unused(f"initializer/{node.name}", names)
        names.add(called[node.name])
    added = [node for node in filling.node if called[node.name] not in known]
    for node in added:
        node.name, node.input = called[node.name], [_renamed(reference, called) for reference in node.input]
    handed = _handed_over(document, called)
    for name, made in handed.items():
        if name not in known or split_reference(made)[0] not in names:
            raise Damaged(f"the table {name!r} is handed over, and nothing makes it", where=where)
        _replace(known[name], made)
    graph_def.node = [*graph_def.node, *added]
    if filling.library is not None and filling.library.function:
        library = graph_def.library or schema()["FunctionDefLibrary"]()
        there = {function.signature.name for function in library.function if function.signature is not None}
        library.function = [*library.function, *(each for each in filling.library.function if each.signature is not None and each.signature.name not in there)]
        graph_def.library = library
    return [node.name for node in added if node.op in FILLS]


def split(record: Record, document: dict[str, Any], enums: Any) -> None:
    """Takes what fills tables out of the graph and into `modelInitializer`: the inputs that a table has in memory, see `dialects/tfjs/from_onnx.py`."""
    kinds = schema()
    added: list[Record] = []
    tables = [node for node in record.node if node.op == "HashTableV2" and node.input]
    filling = {name for table in tables for name in table.input}
    for table in tables:
        given, table.input = table.input, []
        types = {"Tin": table.attr["key_dtype"], "Tout": table.attr["value_dtype"]}
        added += [table, kinds["NodeDef"](name=f"{table.name}/fill", op="LookupTableImportV2", input=[table.name, *given], attr=types)]
    others = {_node_of(reference) for node in record.node for reference in node.input}
    constants = [node for node in record.node if node.name in filling]
    record.node = [node for node in record.node if node.name not in filling - others]
    if added:
        document["modelInitializer"] = protobuf_json.write(kinds["GraphDef"](node=[*constants, *added], versions=record.versions), enums)


def _node_of(reference: str) -> str:
    return split_reference(reference.removeprefix("^"))[0]


def _is_shared(one: Record, other: Record) -> bool:
    return one.op == other.op and one.op in SHARED


def _renamed(reference: str, called: dict[str, str]) -> str:
    control = "^" if reference.startswith("^") else ""
    name, place = split_reference(reference.removeprefix("^"))
    return f"{control}{called.get(name, name)}" + (f":{place}" if place else "")


def _replace(placeholder: Record, made: str) -> None:
    """The node that stood for a table from outside becomes that table."""
    attr = schema()["AttrValue"](type=TYPES["resource"])
    placeholder.op, placeholder.input, placeholder.attr = "Identity", [made], {"T": attr}


def _handed_over(document: dict[str, Any], called: dict[str, str]) -> dict[str, str]:
    """Node of the first graph -> what of the second one it stands for, by the numbers that both signatures give it."""
    def numbered(name: str, side: str) -> dict[str, str]:
        entries = (document.get(name) or {}).get(side) if isinstance(document.get(name), dict) else None
        good = [info for info in entries.values() if isinstance(info, dict) and "resourceId" in info] if isinstance(entries, dict) else []
        return {str(info["resourceId"]): str(info.get("name", "")).removesuffix(":0") for info in good}
    made = numbered("initializerSignature", "outputs")
    return {name: _renamed(made[number], called) for number, name in numbered("signature", "inputs").items() if number in made}
