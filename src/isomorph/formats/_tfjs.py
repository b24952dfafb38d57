"""What the two formats of TensorFlow.js share: model.json and the weight shards that its manifest lists."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.formats import Match
from isomorph.wire import json_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact


def identify(artifact: Artifact, name: str, kind: str) -> Match | None:
    """The match of a model.json of one kind, "layers-model" or "graph-model", or of the folder it stands in."""
    if artifact.is_folder:
        return _identify_folder(artifact, name, kind)
    if not json_head.begins_json(artifact.head):
        return None
    document = json_head.read(artifact.view).value
    topology = document.get("modelTopology") if isinstance(document, dict) else None
    if not isinstance(topology, dict) or _kind(document, topology) != kind:
        return None
    manifest = document.get("weightsManifest")
    groups = [group for group in manifest if isinstance(group, dict)] if isinstance(manifest, list) else []
    shards = [path for group in groups for path in group.get("paths", []) if isinstance(path, str)]
    weights = [weight for group in groups for weight in group.get("weights", []) if isinstance(weight, dict)]
    quantised = sorted({str(weight["quantization"].get("dtype")) for weight in weights if isinstance(weight.get("quantization"), dict)})
    detail: dict[str, Any] = {"generated_by": document.get("generatedBy"), "converted_by": document.get("convertedBy"), "shards": len(shards)}
    detail |= {"companions": shards, "quantization": quantised} if shards else {}
    return Match(name, "", ", ".join(quantised), "graph", detail)


def _kind(document: dict[str, Any], topology: dict[str, Any]) -> str:
    """What the file says it is; the oldest converters did not say, but only a graph has nodes."""
    stated = document.get("format")
    if stated in ("layers-model", "graph-model"):
        return stated
    if "node" in topology:
        return "graph-model"
    return "layers-model" if {"model_config", "class_name"} & topology.keys() else ""


def _identify_folder(artifact: Artifact, name: str, kind: str) -> Match | None:
    """A folder whose model.json finds all its shards in it."""
    file = artifact.child("model.json") if "model.json" in artifact.names else None
    match = identify(file, name, kind) if file and not file.is_folder else None
    inside = match and all("/" in shard or shard in artifact.names for shard in match.detail.get("companions", []))
    return match if inside else None
