"""TensorFlow.js LayersModel: a Keras topology in model.json, weights in shards."""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsupported
from isomorph.formats import Format, Match, _tfjs
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.dialects.keras.config import Layer
    from isomorph.model import Model


def identify(artifact: Artifact) -> Match | None:
    """Recognises a model.json whose topology is made of layers."""
    return _tfjs.identify(artifact, "tfjs_layers", "layers-model")


# Reading

def read(artifact: Artifact, *, progress: Progress = SILENT) -> Model:
    """The layers of a topology and their weights from the shards beside it, lazily.

    Raises `Damaged` where weights and layers contradict each other, `Missing` where a shard is absent, `Unsafe` where one lies outside the folder.
    """
    from isomorph.dialects.keras.config import parse
    from isomorph.formats import _keras_files as files
    from isomorph.wire import tfjs_weights
    file = artifact.child("model.json") if artifact.is_folder else artifact
    if file is None:
        raise Damaged("there is no model.json", where=artifact.where)
    document = files.document(file.view, file.where, artifact.limits)
    topology = document.get("modelTopology")
    if not isinstance(topology, dict):
        raise Damaged("its topology is no object", where=file.where)
    root = parse(topology.get("model_config") or topology, file.where)
    folder = artifact.path if artifact.is_folder else file.path.parent if file.path else None
    weights = tfjs_weights.read(document.get("weightsManifest") or [], folder, file.where, artifact.limits)
    found, findings = _matched(root, weights)
    tensors = {path: _tfjs.tensor(weight) for path, weight in found.items()}
    narrowed = {path: weight.stored.upper() for path, weight in found.items() if weight.stored != weight.dtype}
    metadata = {"keras_version": str(topology.get("keras_version") or ""), "generated_by": document.get("generatedBy"),
                "training_config": topology.get("training_config") or document.get("trainingConfig"), "user_metadata": document.get("userDefinedMetadata")}
    model = files.model_of(root, tensors, {key: value for key, value in metadata.items() if value}, findings, file.where)
    for name, value in model.graph.initializers.items():
        if name in narrowed:
            value.meta["stored"] = narrowed[name]
    return model


def _matched(root: Layer, weights: dict[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """Weights by the paths of the layers. Their names hold the name of the layer that has them, and last what they are; the rest differs by who wrote them."""
    from isomorph.dialects.keras.variables import in_row, tree
    found: dict[str, Any] = {}
    left = dict(weights)
    for path, layer in _leaves(root, ""):
        names = {layer.name, *_inner_names(layer)}
        own = [name for name in left if names & set(name.split("/")[:-1])]
        for variable in in_row(tree(layer)):
            last = variable.rpartition("/")[2]
            name = next((name for name in own if name.rpartition("/")[2].removesuffix(":0") == last and _side(variable, name)), None)
            if name is not None:
                own.remove(name)
                found[f"{path}/{variable}"] = left.pop(name)
    findings = [Finding("keras.variables", Severity.MEDIUM, name, "no layer of the topology has this weight") for name in left]
    return found, findings


def _side(variable: str, name: str) -> bool:
    """Whether a weight of a layer in two directions is of the right one."""
    return not (("forward" in name and variable.startswith("backward_layer")) or ("backward" in name and variable.startswith("forward_layer")))


def _leaves(layer: Layer, scope: str) -> Iterator[tuple[str, Layer]]:
    """The layers that are no models, with their paths."""
    for inner in layer.layers:
        path = f"{scope}/{inner.name}" if scope else inner.name
        if inner.layers:
            yield from _leaves(inner, path)
        else:
            yield path, inner


def _inner_names(layer: Layer) -> Iterator[str]:
    """The names of the layers inside a wrapper, with the prefixes of both directions."""
    from isomorph.dialects.keras.variables import wrapped
    for _, inner in wrapped(layer):
        yield from (inner.name, f"forward_{inner.name}", f"backward_{inner.name}")
        yield from _inner_names(inner)


# Writing

# Classes that tfjs-layers 4.22 has, of those that are written.
KNOWN = frozenset((
    "InputLayer", "Dense", "Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose", "DepthwiseConv2D", "MaxPooling1D", "MaxPooling2D",
    "MaxPooling3D",
    "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
    "BatchNormalization", "LayerNormalization", "Embedding", "LSTM", "GRU", "SimpleRNN", "Bidirectional", "ReLU", "LeakyReLU", "ELU", "PReLU",
    "Softmax", "Activation", "Add",
    "Multiply", "Maximum", "Minimum", "Concatenate", "Permute", "Reshape", "Flatten", "ZeroPadding2D", "UpSampling2D", "Resizing",
))


def _resets_after(layer: Layer) -> bool:
    """Whether it is a GRU, alone or inside, whose gates are applied after the product."""
    config = layer.config["layer"]["config"] if layer.class_name == "Bidirectional" else layer.config
    return bool(config.get("reset_after"))


def write(model: Model, path: str | Path, *, dtype: str | None = None, force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes model.json and the shards beside it, with a configuration as Keras 2 has it, which TensorFlow.js asks for. `dtype`: fp16, uint8 or uint16.

    Raises `Unsupported` with everything that TensorFlow.js has no layer for, `Usage` where the file exists and `force` is not set.
    """
    from isomorph.formats import _keras_training
    from isomorph.formats import _keras_writer as writer
    from isomorph.wire import files, tfjs_weights
    written = writer.Written(model, generation=2)
    blockers = [(f"{step.node.domain}::{step.layer.class_name}", step.name, "TensorFlow.js has no such layer") for step in written.steps.values()
                if step.layer.kind != "keras" or step.layer.class_name not in KNOWN]
    blockers += [(f"keras::{step.layer.class_name}", step.name, "its gates are applied after the product, which TensorFlow.js does not do")
                 for step in written.steps.values() if _resets_after(step.layer)]
    if blockers:
        raise Unsupported(f"{len(blockers)} parts of the model are no layers of TensorFlow.js", blockers=blockers, hint="write a GraphModel: --to tfjs_graph")
    weights, findings = _tfjs.stored([(name, tensor) for _, row in writer.rows_2(written) for name, tensor in row], dtype)
    manifest, names, size = tfjs_weights.manifest_of(weights)
    config = writer.config_2(written, re.sub(r"\W+", "_", model.graph.name or "") or "model")
    document: dict[str, Any] = {"format": "layers-model", "generatedBy": "isomorph", "convertedBy": None,
                "modelTopology": {"keras_version": writer.LEGACY, "backend": "tensorflow", "model_config": config}, "weightsManifest": manifest}
    if training := _keras_training.kept(model):
        document["modelTopology"]["training_config"] = training
        if own := _keras_training.for_tfjs(training):
            document["trainingConfig"] = own
    if user := model.metadata.get("user_metadata"):
        document["userDefinedMetadata"] = user
    file = Path(path) if Path(path).suffix == ".json" else Path(path) / "model.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing_all([*(file.parent / name for name in names), file], force=force) as outputs:
        tfjs_weights.write(weights, outputs[:-1], size)
        outputs[-1].write(json.dumps(document).encode())
    whole = sum(path.stat().st_size for path in (file, *(file.parent / name for name in names)))
    return Report(str(file), findings, {"format": "tfjs_layers", "path": str(file), "bytes": whole})


FORMAT = Format(
    name="tfjs_layers", title="TensorFlow.js LayersModel", extensions=("model.json",), holds="graph",
    spec="https://github.com/tensorflow/tfjs/blob/master/tfjs-core/src/io/types.ts", identify=identify, read=read, write=write, dialect="keras",
)
