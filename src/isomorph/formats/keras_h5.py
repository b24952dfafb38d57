"""Keras .h5: a whole model of Keras 1 to 3, or weights only."""
from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged
from isomorph.formats import Format, Match
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity
from isomorph.wire import files, hdf5

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Checkpoint, Model

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


# Reading

def read(artifact: Artifact, *, progress: Progress = SILENT) -> Model | Checkpoint:
    """The layers of a model and their variables, or the variables alone where the file has no configuration. Nothing in it is imported or run.

    Raises `Damaged` where its parts contradict each other, `Unsafe` where a link leads outside or a limit is exceeded.
    """
    from isomorph.formats import _keras_files as shared
    from isomorph.wire import hdf5_data
    content = hdf5_data.read(artifact.view, artifact.where, artifact.limits)
    attributes = content.attributes[""]
    config = attributes.get("model_config")
    if config is None:
        return shared.weights_of(content, {name: shared.text(value) for name, value in attributes.items() if isinstance(value, (str, bytes))})
    from isomorph.dialects.keras.config import parse
    root = parse(shared.document(shared.text(config), f"{artifact.where}: model_config", artifact.limits), artifact.where)
    start = "model_weights" if "model_weights" in content.attributes else ""
    if not root.layers:
        raise Damaged("its configuration names no layers", where=artifact.where)
    tensors, findings = shared.legacy_tensors(root, content, start, artifact.where)
    version = attributes.get("keras_version") or content.attributes.get(start, {}).get("keras_version") or "1"
    metadata = {"keras_version": shared.text(version), "backend": shared.text(attributes.get("backend", "")),
                "training_config": shared.text(attributes["training_config"]) if "training_config" in attributes else None}
    return shared.model_of(root, tensors, {key: value for key, value in metadata.items() if value}, findings, artifact.where)


# Writing

def write(model: Model, path: str | os.PathLike, *, force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes a functional model that Keras 2 and Keras 3 load, or Keras 3 only where it has operations that are no layers; a finding says so.

    Raises `Usage` where the file exists and `force` is not set, `Missing` without h5py.
    """
    from isomorph.formats import _keras_training
    from isomorph.formats import _keras_writer as writer
    from isomorph.wire import hdf5_data
    h5py = hdf5_data.library()
    written = writer.Written(model)
    name = re.sub(r"\W+", "_", model.graph.name or "") or "model"
    findings: list[Finding] = []
    for step in written.steps.values():
        if "hard_sigmoid" in step.layer.config.values():
            findings.append(Finding("keras.generation", Severity.MEDIUM, step.name, "its hard_sigmoid is the one of Keras 3; Keras 2 has another slope"))
    kinds = written.modern_only
    if not kinds:
        config, version = writer.config_2(written, name), writer.LEGACY
    else:
        config, version = writer.config_3(written, name), writer.WRITTEN_AS
        said = f"Keras 2 cannot load the file, because these are in the form of Keras 3 alone: {', '.join(kinds)}"
        findings.append(Finding("keras.operations", Severity.MEDIUM, "", said))
    rows = list(writer.rows_2(written))
    with files.replacing(Path(path), force=force) as out, h5py.File(out, "w") as store:
        store.attrs["keras_version"], store.attrs["backend"], store.attrs["model_config"] = version, "tensorflow", json.dumps(config)
        training = _keras_training.kept(model)
        if training is not None:
            store.attrs["training_config"] = json.dumps(training)
        weights = store.create_group("model_weights")
        weights.attrs["keras_version"], weights.attrs["backend"] = version, "tensorflow"
        _names(weights, "layer_names", [layer for layer, _ in rows])
        for layer, row in rows:
            group = weights.create_group(layer)
            _names(group, "weight_names", [f"{variable}:0" for variable, _ in row])
            for variable, tensor in row:
                group[f"{variable}:0"] = tensor.numpy()
    return Report(str(path), findings, {"format": "keras_h5", "path": str(path)})


LONGEST_ATTRIBUTE = 60_000


def _names(group: Any, key: str, names: list[str]) -> None:
    """A list of names as an attribute, in pieces where it is too long for one."""
    import numpy as np
    encoded = np.array([name.encode() for name in names]) if names else np.zeros(0, "S1")
    pieces = max(1, -(-encoded.nbytes // LONGEST_ATTRIBUTE))
    if pieces == 1:
        group.attrs[key] = encoded
        return
    for place, piece in enumerate(np.array_split(encoded, pieces)):
        group.attrs[f"{key}{place}"] = piece


FORMAT = Format(
    name="keras_h5", title="Keras HDF5", extensions=(".h5", ".hdf5"), holds="graph",
    spec="https://github.com/keras-team/keras/blob/master/keras/src/legacy/saving/legacy_h5_format.py", identify=identify, read=read, write=write,
    dialect="keras",
)
