"""What the three files of Keras share: a configuration in JSON and variables in HDF5, as a graph of layers."""
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsafe, Unsupported
from isomorph.report import Finding, Severity
from isomorph.tensors import ComputedTensor, SliceTensor, number_of
from isomorph.wire import hdf5_data

if TYPE_CHECKING:
    from isomorph.dialects.keras.config import Layer
    from isomorph.model import Checkpoint, Model
    from isomorph.wire.limits import Limits

MODEL_CLASSES = {"Sequential", "Functional", "Model"}


def document(text: bytes | str | memoryview, where: str, limits: Limits) -> dict[str, Any]:
    """A JSON object. Raises `Damaged` where it is none, `Unsafe` where it is too long or too deep."""
    data = bytes(text) if isinstance(text, memoryview) else text
    if len(data) > limits.json_bytes:
        raise Unsafe(f"{len(data)} bytes of JSON exceed the limit `json_bytes`", where=where)
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise Unsafe("the JSON is nested too deep", where=where) from error
    except ValueError as error:
        raise Damaged(f"the JSON cannot be parsed: {str(error)[:120]}", where=where) from error
    if not isinstance(value, dict):
        raise Damaged("the JSON is no object", where=where)
    return value


def tensor(dataset: hdf5_data.Dataset, name: str) -> Any:
    """A lazy tensor over a dataset: its bytes in the mapping, or decoded when it is asked for."""
    import numpy as np
    dtype = dataset.dtype
    if (dtype.kind == "V" and dtype.itemsize == 2) or dataset.attributes.get("dtype") in ("bfloat16", b"bfloat16"):
        import ml_dtypes
        kind = np.dtype(ml_dtypes.bfloat16)
        if dataset.data is not None:
            return SliceTensor(name, number_of(kind), dataset.shape, dataset.data)
        return ComputedTensor(name, number_of(kind), dataset.shape, lambda: dataset.load().view(kind), ())
    if dtype.kind not in "fiubc":
        raise Damaged(f"a dataset of type {dtype} holds no numbers", where=name)
    if dataset.data is not None and dtype.newbyteorder("=") == dtype:
        return SliceTensor(name, number_of(dtype), dataset.shape, dataset.data)
    return ComputedTensor(name, number_of(dtype.newbyteorder("=")), dataset.shape, lambda: np.asarray(dataset.load()).astype(dtype.newbyteorder("=")), ())


def modern_tensors(root: Layer, content: hdf5_data.Content) -> dict[str, Any]:
    """Variables of a file in the layout of Keras 3, by the paths of the layers."""
    from isomorph.dialects.keras.variables import modern, tree
    found = {}
    shape = tree(root)
    for path, place in modern(shape):
        dataset = next((content.datasets[each] for each in _places(place) if each in content.datasets), None)
        if dataset is not None:
            found[path] = tensor(dataset, path)
    return found


def _places(place: str) -> tuple[str, ...]:
    """Where files of different releases keep a variable: 2.13 had another name for the layers of a model, some attributes became private."""
    return place, place.replace("layers/", "_layer_checkpoint_dependencies/"), place.replace("/_", "/"), _private(place)


def _private(place: str) -> str:
    head, _, tail = place.partition("_dense/")
    return f"{head.rpartition('/')[0]}/_{head.rpartition('/')[2]}_dense/{tail}" if tail else place


def legacy_tensors(root: Layer, content: hdf5_data.Content, start: str, where: str) -> tuple[dict[str, Any], list[Finding]]:
    """Variables of a file in the layout of Keras 1 and 2: for each layer on top a row of names, in the order of its variables."""
    from isomorph.dialects.keras.variables import in_row, tree
    findings: list[Finding] = []
    found: dict[str, Any] = {}
    for layer in root.layers:
        group = f"{start}/{layer.name}" if start else layer.name
        names = texts(content.attributes.get(group, {}), "weight_names")
        if not names:
            continue
        row = in_row(tree(layer))
        if layer.class_name == "Normalization" and len(row) != len(names):
            row = row[:len(names)]
        if len(row) != len(names):
            found |= {f"{layer.name}/{name.rpartition('/')[2].removesuffix(':0')}": tensor(_dataset(content, group, name, where), name) for name in names}
            findings.append(Finding("keras.variables", Severity.MEDIUM, layer.name,
                                    f"the file has {len(names)} variables for this {layer.class_name}, its configuration asks for {len(row)}"))
            continue
        for path, name in zip(row, names, strict=True):
            found[f"{layer.name}/{path}"] = tensor(_dataset(content, group, name, where), f"{layer.name}/{path}")
    return found, findings


def _dataset(content: hdf5_data.Content, group: str, name: str, where: str) -> hdf5_data.Dataset:
    found = content.datasets.get(f"{group}/{name}")
    if found is None:
        raise Damaged(f"the variable {name} is listed but not there", where=f"{where}: {group}")
    return found


def texts(attributes: dict[str, Any], name: str) -> list[str]:
    """An attribute that is a list of names; long ones are in pieces, `name0`, `name1`, ..."""
    pieces = [attributes[name]] if name in attributes else []
    while f"{name}{len(pieces)}" in attributes:
        pieces.append(attributes[f"{name}{len(pieces)}"])
    return [text(item) for piece in pieces for item in (piece.tolist() if hasattr(piece, "tolist") else [piece])]


def text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def weights_of(content: hdf5_data.Content, metadata: dict[str, Any], findings: list[Finding] | None = None) -> Checkpoint:
    """Every dataset under its path in the file; optimizer states have theirs."""
    from isomorph.model import Checkpoint
    return Checkpoint({path: tensor(dataset, path) for path, dataset in content.datasets.items()}, metadata, findings or [])


def is_own(root: Layer) -> bool:
    """Whether a file is of a class of the author's, whose layers are called by code that is not in it."""
    return not root.layers and root.class_name not in MODEL_CLASSES


def own_class(root: Layer, where: str) -> Unsupported:
    """What is missing of such a file."""
    return Unsupported(f"the class {root.class_name} is the author's own, and the file does not say what its layers compute", where=where,
                       hint="rebuild it as a functional model, or export it where its code is; its weights can be converted to a format of weights")


def model_of(root: Layer, tensors: dict[str, Any], metadata: dict[str, Any], findings: list[Finding], where: str) -> Model:
    """A graph of layers. Raises `Damaged` where the configuration does not describe one."""
    import onnx_ir as ir

    from isomorph.dialects.keras.tracing import Grapher
    from isomorph.formats import _keras_training
    from isomorph.model import HUB_IR_VERSION, Model
    if is_own(root):
        raise own_class(root, where)
    graph = Grapher(root, tensors).build()
    graph.opset_imports.update({"keras": 1})
    model = Model(ir.Model(graph, ir_version=HUB_IR_VERSION), "keras", metadata=metadata, findings=findings)
    _keras_training.keep(model, metadata.get("training_config"))
    return model
