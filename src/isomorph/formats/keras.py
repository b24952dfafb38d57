"""Keras 3 .keras: a zip of metadata.json, config.json and the weights."""
from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from isomorph.errors import Damaged, Missing
from isomorph.formats import Format, Match
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity
from isomorph.wire import files, json_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.dialects.keras.config import Layer
    from isomorph.model import Checkpoint, Model

MEMBERS = {"metadata.json", "config.json"}
WEIGHTS = ("model.weights.h5", "model.weights.npz", "model.weights.json")
HEAD = 1 << 18
LOOKUPS = frozenset(("StringLookup", "IntegerLookup", "TextVectorization"))


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


# Reading

def read(artifact: Artifact, *, progress: Progress = SILENT) -> Model | Checkpoint:
    """The layers of a file and their variables, lazily. Nothing in its configuration is imported or run. Of a class of the author's own, whose code is not
    in the file, the variables alone.

    Raises `Damaged` where its parts contradict each other, `Unsafe` where it exceeds a limit, `Missing` where it has no weights of a kind that is read.
    """
    from isomorph.dialects.keras.config import parse
    from isomorph.formats import _keras_files as shared
    from isomorph.wire import hdf5_data
    config = _config(artifact)
    metadata = {**shared.document(_member(artifact, "metadata.json"), f"{artifact.where}: metadata.json", artifact.limits)}
    root = parse(config, artifact.where)
    name = next((name for name in WEIGHTS[:1] if name in _names(artifact)), None)
    if name is None:
        raise Missing("its weights are in no file of the kind that is read (model.weights.h5)", where=artifact.where)
    content = hdf5_data.read(_member(artifact, name), f"{artifact.where}: {name}", artifact.limits)
    if shared.is_own(root):
        said = f"the code of the class {root.class_name} is not in the file: what its layers compute is not known, their weights are"
        return shared.weights_of(content, {**metadata, "class": root.class_name}, [Finding("keras.code", Severity.HIGH, "", said)])
    metadata["training_config"] = config.get("compile_config")
    _fill_vocabularies(root, artifact, "assets")
    return shared.model_of(root, shared.modern_tensors(root, content), {key: value for key, value in metadata.items() if value}, [], artifact.where)


def _config(artifact: Artifact) -> dict[str, Any]:
    from isomorph.formats import _keras_files as shared
    return shared.document(_member(artifact, "config.json"), f"{artifact.where}: config.json", artifact.limits)


def network(artifact: Artifact, *, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model | None:
    """The graph of a file of weights alone, which there is none of. Raises `Unsupported` with the class whose code is missing."""
    from isomorph.dialects.keras.config import parse
    from isomorph.formats import _keras_files as shared
    raise shared.own_class(parse(_config(artifact), artifact.where), artifact.where)


def _fill_vocabularies(layer: Layer, artifact: Artifact, place: str) -> None:
    """Puts what lookups learnt, a line each in a file of their own, where the configuration of others has what they were given."""
    from isomorph.dialects.keras.variables import numbered
    for name, inner in numbered([inner for inner in layer.layers if inner.kind != "ops"]):
        _fill_vocabularies(inner, artifact, f"{place}/layers/{name}")
    file = f"{place}/vocabulary.txt"
    if layer.class_name in LOOKUPS and not layer.config.get("vocabulary") and file in _names(artifact):
        words: list[Any] = bytes(_member(artifact, file)).decode("utf-8", "replace").split("\n")
        try:
            layer.config["vocabulary"] = [int(word) for word in words] if layer.class_name == "IntegerLookup" else words
        except ValueError as error:
            raise Damaged("its vocabulary holds no whole numbers", where=f"{artifact.where}: {file}") from error


def _names(artifact: Artifact) -> tuple[str, ...]:
    return artifact.names if artifact.is_folder else artifact.archive.names if artifact.archive else ()


def _member(artifact: Artifact, name: str) -> memoryview:
    if artifact.is_folder:
        file = artifact.child(name)
        if file is None:
            raise Missing(f"{name} is not there", where=artifact.where)
        return file.view
    if artifact.archive is None or name not in artifact.archive.members:
        raise Damaged(f"it has no member {name}", where=artifact.where)
    return artifact.archive.read(name)


# Writing

def write(model: Model, path: str | os.PathLike, *, force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes a functional model that Keras 3 loads on any backend. Variables pass through one at a time.

    Raises `Usage` where the file exists and `force` is not set.
    """
    from isomorph.formats import _keras_training
    from isomorph.formats import _keras_writer as writer
    written = writer.Written(model)
    name = re.sub(r"\W+", "_", model.graph.name or "") or "model"
    config, training = writer.config_3(written, name), _keras_training.kept(model)
    if training is not None:
        config["compile_config"] = _keras_training.modern(training)
    document = json.dumps({"keras_version": writer.WRITTEN_AS, "date_saved": "1980-01-01@00:00:00"})
    with files.replacing(Path(path), force=force) as out, zipfile.ZipFile(out, "w") as archive:
        for member, text in (("metadata.json", document), ("config.json", json.dumps(config))):
            archive.writestr(zipfile.ZipInfo(member), text)
        with tempfile.TemporaryFile() as weights:
            _write_weights(weights, writer.places_3(written))
            weights.seek(0)
            with archive.open(zipfile.ZipInfo(WEIGHTS[0]), "w", force_zip64=True) as member_file:
                shutil.copyfileobj(weights, member_file, 1 << 20)
    return Report(str(path), [], {"format": "keras", "path": str(path)})


def _write_weights(file: BinaryIO, places: Iterable[tuple[str, Any]]) -> None:
    from isomorph.wire import hdf5_data
    with hdf5_data.library().File(file, "w") as store:
        for place, tensor in places:
            array = tensor.numpy()
            if array.dtype.name == "bfloat16":
                store.create_dataset(place, data=array.view("V2")).attrs["dtype"] = "bfloat16"
            else:
                store.create_dataset(place, data=array)


FORMAT = Format(
    name="keras", title="Keras 3", extensions=(".keras",), holds="graph",
    spec="https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py", identify=identify, read=read, write=write, network=network,
    dialect="keras",
)
