"""MXNet: a symbol in JSON and its weights in a .params file."""
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.wire import json_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

PARAMS = (0x112).to_bytes(8, "little") + bytes(8)          # kMXAPINDArrayListMagic and a reserved word, src/ndarray/ndarray.cc
VERSION = re.compile(rb'"mxnet_version" *: *\[ *"int" *, *(\d{3,7})')
SYMBOL = re.compile(r"(.*)-symbol\.json$")
PARAMETERS = re.compile(r"(.*)-\d{4}\.params$")


def identify(artifact: Artifact) -> Match | None:
    """Recognises a symbol by its nodes and argument nodes, weights by their magic number; a symbol with its weights beside it is a pair."""
    if artifact.is_folder:
        return _identify_folder(artifact)
    if artifact.head.startswith(PARAMS):
        return Match("mxnet", "", "params", "weights", {"arrays": int.from_bytes(artifact.head[16:24], "little")})
    if not json_head.begins_json(artifact.head):
        return None
    document = json_head.read(artifact.view).value
    nodes = document.get("nodes") if isinstance(document, dict) else None
    if not isinstance(nodes, list) or not nodes or not all(_is_node(node) for node in nodes):
        return None
    if next(iter(document)) != "nodes" and not {"arg_nodes", "heads"} & document.keys():
        return None
    if any(node["op"].startswith("tvm_") for node in nodes):
        return None
    weights = _companions(artifact)
    detail: dict[str, Any] = {"first_operators": sorted({node["op"] for node in nodes} - {"null"})}
    if weights:
        detail["companions"] = weights
    return Match("mxnet", _version(artifact), "symbol and params" if weights else "symbol", "both" if weights else "graph", detail)


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and all(isinstance(node.get(key), str) for key in ("op", "name")) and isinstance(node.get("inputs", []), list)


def _version(artifact: Artifact) -> str:
    """The version stands at the end of the file: 10901 is 1.9.1."""
    found = VERSION.search(bytes(artifact.view[-4096:]))
    number = int(found[1]) if found else 0
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}" if number else ""


def _companions(artifact: Artifact) -> list[str]:
    prefix = SYMBOL.match(artifact.name)
    if prefix is None or artifact.path is None:
        return []
    beside = sorted(path.name for path in artifact.path.parent.glob("*.params"))
    return [name for name in beside if (stem := PARAMETERS.match(name)) and stem[1] == prefix[1]]


def _identify_folder(artifact: Artifact) -> Match | None:
    """A folder with exactly one symbol and its weights."""
    symbols = [name for name in artifact.names if SYMBOL.match(name)]
    symbol = artifact.child(symbols[0]) if len(symbols) == 1 else None
    match = identify(symbol) if symbol and not symbol.is_folder else None
    return match if match and match.detail.get("companions") else None


FORMAT = Format(
    name="mxnet", title="MXNet", extensions=("-symbol.json", ".params"), holds="both",
    spec="https://github.com/apache/mxnet/blob/master/src/ndarray/ndarray.cc", identify=identify, dialect="mxnet",
)
