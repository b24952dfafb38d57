"""Keras .h5: a whole model of Keras 1 to 3, or weights only."""
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.wire import hdf5

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

CLASS = re.compile(r'"class_name" *: *"(\w+)"')
KERAS_3_WEIGHTS = {"layers", "_layer_checkpoint_dependencies", "vars"}


def identify(artifact: Artifact) -> Match | None:
    """Recognises an HDF5 file by the attributes and groups that Keras leaves at its root: Keras version, class, model or weights only."""
    if artifact.is_folder or not any(artifact.head[at:at + 8] == hdf5.SIGNATURE for at in hdf5.PLACES):
        return None
    root = hdf5.outline(artifact.view, artifact.where)
    version = root.attributes.get("keras_version") or ""
    detail: dict[str, Any] = {"backend": root.attributes.get("backend") or ""}
    if "model_config" in root.attributes:
        found = CLASS.search(root.attributes["model_config"] or "")
        detail |= {"class": found[1] if found else "", "optimizer": "optimizer_weights" in root.links, "training_config": "training_config" in root.attributes}
        return Match("keras_h5", version, "model", "graph", detail)
    if any(name.rstrip("0123456789") == "layer_names" for name in root.attributes):
        return Match("keras_h5", version, "weights only", "weights", detail | {"layers": len(root.links)})
    if KERAS_3_WEIGHTS & root.links.keys():
        return Match("keras_h5", version or "3", "weights only, Keras 3 layout", "weights", detail)
    return None


FORMAT = Format(
    name="keras_h5", title="Keras HDF5", extensions=(".h5", ".hdf5"), holds="graph",
    spec="https://github.com/keras-team/keras/blob/master/keras/src/legacy/saving/legacy_h5_format.py", identify=identify, dialect="keras",
)
