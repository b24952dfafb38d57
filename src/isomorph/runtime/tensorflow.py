"""TensorFlow, for SavedModels and frozen graphs. Runs inside the child only, which may be the Python of another environment.

A graph is only handed to it after our own reader has found nothing in it that touches files, processes or Python (`verification/subject.py`).
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

DEFAULT = "serving_default"
INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")


def prepare() -> None:
    """Imports the runtime and silences it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow
    tensorflow.get_logger().setLevel("ERROR")


def version() -> str:
    """Of the installed package."""
    import tensorflow
    return tensorflow.__version__


def load(path: str, *, threads: int, signature: str = "", examples: dict[str, list[list[Any]]] | None = None) -> Loaded:
    """A SavedModel folder (or the saved_model.pb in it), of which the signature named, `serving_default` or the first is run; or a file with a GraphDef.

    `examples` says which inputs take tf.Example messages, and the features that these are made of: (feature, input, input of its count or "", type, sizes).
    """
    import tensorflow
    with contextlib.suppress(RuntimeError):         # a process may say this once, before it computes anything
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    if os.path.basename(path) in ("saved_model.pb", "saved_model.pbtxt"):
        path = os.path.dirname(path)
    loaded = SavedModel(path, signature) if os.path.isdir(path) else FrozenGraph(path)
    return OfFeatures(loaded, examples) if examples else loaded


class Loaded:
    """A function of TensorFlow, its ports as plain dictionaries."""

    def __init__(self, function: Callable[..., Any], inputs: dict[str, Any], outputs: dict[str, Any]):
        self.function = function
        self.inputs = [_port(name, tensor) for name, tensor in inputs.items()]
        self.outputs = [_port(name, tensor) for name, tensor in outputs.items()]

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        return {name: _array(value) for name, value in self.prepared(feeds)().items()}

    def prepared(self, feeds: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        """A function that runs once on these inputs."""
        import tensorflow
        tensors = {name: tensorflow.constant(array.tolist() if array.dtype.kind in "OSU" and array.size else array, shape=array.shape,
                                             dtype=tensorflow.string if array.dtype.kind in "OSU" else None) for name, array in feeds.items()}
        return lambda: self.function(tensors)


class SavedModel(Loaded):
    """The exported function of one signature."""

    def __init__(self, path: str, signature: str):
        import tensorflow
        self.model = tensorflow.saved_model.load(path, tags=_tags(path))
        names = [name for name in self.model.signatures if name not in INTERNAL]
        name = signature or (DEFAULT if DEFAULT in names else sorted(names)[0] if names else "")
        if not name:
            raise ValueError("it has no signature to run")
        function = self.model.signatures[name]
        super().__init__(lambda tensors: function(**tensors), dict(sorted(function.structured_input_signature[1].items())),
                         dict(sorted(function.structured_outputs.items())))


def _tags(path: str) -> list[str] | None:
    """Of several graphs of a file the one for serving, else the first, as our reader chooses."""
    from tensorflow.python.tools import saved_model_utils
    sets = [list(tags) for tags in saved_model_utils.get_saved_model_tag_sets(path)]
    return next((tags for tags in sets if "serve" in tags), sets[0]) if len(sets) > 1 else None


class FrozenGraph(Loaded):
    """A graph whose placeholders are fed and whose loose ends are fetched."""

    def __init__(self, path: str):
        import tensorflow
        graph_def = tensorflow.compat.v1.GraphDef()
        with open(path, "rb") as file:
            data = file.read()
        if path.endswith(".pbtxt"):
            from google.protobuf import text_format
            text_format.Parse(data, graph_def)
        else:
            graph_def.ParseFromString(data)
        inputs = [node.name for node in graph_def.node if node.op in ("Placeholder", "PlaceholderV2")]
        read = {name.lstrip("^").partition(":")[0] for node in graph_def.node for name in node.input}
        silent = {"NoOp", "Const", "Placeholder", "SaveV2", "Assert", "Print", "RestoreV2", "Assign", "AssignVariableOp", "NextIteration",
                  "VarIsInitializedOp", "IsVariableInitialized"}
        outputs = [node.name for node in graph_def.node if node.name not in read and node.op not in silent]

        def imported() -> Any:
            tensorflow.compat.v1.import_graph_def(graph_def, name="")
        wrapped = tensorflow.compat.v1.wrap_function(imported, [])
        tensors = {name: wrapped.graph.get_tensor_by_name(f"{name}:0") for name in [*inputs, *outputs]}
        pruned = wrapped.prune([tensors[name] for name in inputs], [tensors[name] for name in outputs])
        super().__init__(lambda feeds: dict(zip(outputs, pruned(*(feeds[name] for name in inputs)), strict=True)),
                         {name: tensors[name] for name in inputs}, {name: tensors[name] for name in outputs})


class OfFeatures(Loaded):
    """A function that parses tf.Example messages, taking their features instead; messages are made of them here. Features of any length are rows that are
    filled up, and how many of a row are there."""

    def __init__(self, loaded: Loaded, examples: dict[str, list[list[Any]]]):
        self.loaded, self.examples = loaded, examples
        self.single = {port["name"] for port in loaded.inputs if port["shape"] == []}
        self.inputs = [port for port in loaded.inputs if port["name"] not in examples]
        for _, name, count, dtype, shape in (feature for listed in examples.values() for feature in listed):
            self.inputs.append({"name": name, "dtype": dtype, "shape": shape, "scale": None})
            self.inputs += [{"name": count, "dtype": "int64", "shape": shape[:-1], "scale": None}] if count else []
        self.outputs = loaded.outputs

    def prepared(self, feeds: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        """A function that runs once on messages with these features."""
        plain = {port["name"] for port in self.loaded.inputs}
        made = {name: self._messages(listed, feeds, name in self.single) for name, listed in self.examples.items()}
        return self.loaded.prepared({name: array for name, array in feeds.items() if name in plain} | made)

    @staticmethod
    def _messages(listed: list[list[Any]], feeds: dict[str, Any], single: bool) -> np.ndarray:
        """One message a row; what is not fed, because nothing depends on it, is nothing."""
        import tensorflow
        rows = 1 if single else next((len(feeds[name]) for _, name, *_ in listed if name in feeds), 1)
        made = [tensorflow.train.Example() for _ in range(rows)]
        for key, name, count, dtype, shape in listed:
            array = feeds.get(name, np.zeros([size or 0 for size in shape] if single else [rows, *(size or 0 for size in shape[1:])], dtype))
            lengths = np.reshape(feeds[count], -1) if count in feeds else [None] * rows
            for message, items, length in zip(made, array[None] if single else array, lengths, strict=True):
                flat = items[:None if length is None else max(0, int(length))].reshape(-1) if np.ndim(items) else np.reshape(items, -1)
                _fill(message.features.feature[key], flat)
        texts = np.array([message.SerializeToString() for message in made], object)
        return texts.reshape(()) if single else texts


def _fill(feature: Any, items: np.ndarray) -> None:
    if items.dtype.kind in "OSU":
        feature.bytes_list.value.extend(item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape") for item in items)
    else:
        (feature.float_list if items.dtype.kind == "f" else feature.int64_list).value.extend(items.tolist())


def _port(name: str, tensor: Any) -> dict[str, Any]:
    dtype = tensor.dtype.name
    rank = tensor.shape.rank
    return {"name": name, "dtype": "object" if dtype == "string" else dtype, "shape": None if rank is None else list(tensor.shape), "scale": None}


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.numpy())
