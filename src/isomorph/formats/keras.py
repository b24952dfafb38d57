"""Keras 3 .keras: a zip of metadata.json, config.json and the weights."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.wire import json_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

MEMBERS = {"metadata.json", "config.json"}
WEIGHTS = ("model.weights.h5", "model.weights.npz", "model.weights.json")
HEAD = 1 << 18


def identify(artifact: Artifact) -> Match | None:
    """Recognises the two JSON members, in a zip or in a folder of its unpacked members: Keras version, class of the model, how weights are kept."""
    names: tuple[str, ...] = artifact.names if artifact.is_folder else ()
    if not artifact.is_folder:
        if not artifact.head.startswith(b"PK\3\4") or artifact.archive is None:
            return None
        names = artifact.archive.names
    if not set(names) >= MEMBERS:
        return None
    metadata, config = (_document(artifact, name) for name in ("metadata.json", "config.json"))
    if "keras_version" not in metadata or "class_name" not in config:
        return None
    inner = config.get("config")
    weights = next((name for name in names if name in WEIGHTS), "")
    detail: dict[str, Any] = {"class": config["class_name"], "registered_name": config.get("registered_name"), "weights": weights,
                              "name": inner.get("name") if isinstance(inner, dict) else None, "saved": metadata.get("date_saved")}
    return Match("keras", str(metadata["keras_version"])[:40], "unpacked" if artifact.is_folder else "", "graph", detail)


def _document(artifact: Artifact, name: str) -> dict[str, Any]:
    if artifact.is_folder:
        file = artifact.child(name)
        data: bytes | memoryview = file.head if file else b""
    else:
        data = artifact.archive.head(name, HEAD) if artifact.archive else b""
    value = json_head.read(data).value
    return value if isinstance(value, dict) else {}


FORMAT = Format(
    name="keras", title="Keras 3", extensions=(".keras",), holds="graph",
    spec="https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py", identify=identify, dialect="keras",
)
