"""PFA: a scoring function as JSON, or as the same structure in YAML."""
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.wire import json_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

REQUIRED = {"input", "output", "action"}
# The top-level fields of PFA 0.8.1, section 3.1
FIELDS = REQUIRED | {"name", "version", "doc", "metadata", "options", "method", "begin", "end", "fcns", "zero", "merge", "cells", "pools", "randseed"}
METHODS = ("map", "emit", "fold")
YAML_KEY = re.compile(rb"^([A-Za-z]\w*)[ \t]*:(?:[ \t]+([^\n]*))?\r?$", re.MULTILINE)


def identify(artifact: Artifact) -> Match | None:
    """Recognises the three fields that every PFA document has, in JSON or at the left margin of YAML."""
    if artifact.is_folder:
        return None
    if not json_head.begins_json(artifact.head):
        return _identify_yaml(artifact.head)
    head = json_head.read(artifact.view)
    document = head.value
    if not isinstance(document, dict) or not set(document) <= FIELDS:
        return None
    whole = document.keys() >= REQUIRED
    if not whole and (head.complete or "action" not in document or len(document) < 2):
        return None
    return _match(document, "JSON", whole)


def _identify_yaml(head: bytes) -> Match | None:
    document = {key.decode(): (value or b"").decode("utf-8", "replace").strip("\"' ") for key, value in YAML_KEY.findall(head)}
    return _match(document, "YAML", True) if REQUIRED <= document.keys() <= FIELDS else None


def _match(document: dict[str, Any], flavour: str, whole: bool) -> Match:
    method = document.get("method") or "map"
    detail: dict[str, Any] = {"name": document.get("name"), "method": method if method in METHODS else "map"}
    detail["parts"] = sorted(key for key in ("cells", "pools", "fcns", "begin", "end") if key in document)
    if not whole:
        detail["partly_read"] = True
    version = document.get("version")
    return Match("pfa", "" if version is None else str(version)[:40], flavour, "graph", detail)


FORMAT = Format(
    name="pfa", title="PFA", extensions=(".pfa",), holds="graph", spec="https://dmg.org/pfa/docs/document_structure/", identify=identify, dialect="pfa",
)
