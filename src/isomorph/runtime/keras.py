"""Keras 3, for .keras and .h5 files, and Keras 2 (tf_keras) for those that Keras 3 refuses, where it is installed too. Runs inside the child only, which may
be the Python of another environment.

A file is only handed to it after our own reader has found a rule for every layer in it (`verification/subject.py`): Keras runs the code of Lambda layers.
"""
from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np


def prepare() -> None:
    """Imports the runtime and silences it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import keras  # noqa: F401


used = "keras"                                  # the library that took the last file


def version() -> str:
    """Of the library that took the file."""
    if used == "tf_keras":
        import tf_keras
        return f"{tf_keras.__version__} (tf_keras)"
    import keras
    return keras.__version__


def load(path: str, *, threads: int) -> Loaded:
    """A model without its training configuration; code that a file brings along is refused by Keras too."""
    global used
    import keras
    keras.backend.clear_session()
    used = "keras"
    try:
        return Loaded(keras.saving.load_model(path, compile=False, safe_mode=True))
    except Exception:                          # whatever Keras raises: files of Keras 2 have settings and classes that Keras 3 does not know
        if importlib.util.find_spec("tf_keras") is None:
            raise
        try:
            older = _load_older(path)
        except Exception:
            older = None
        if older is None:
            raise                              # what Keras 3 said
        used = "tf_keras"
        return older


def _load_older(path: str) -> Loaded:
    import tf_keras
    return Older(tf_keras.models.load_model(path, compile=False, safe_mode=True))


class Loaded:
    """Inputs and outputs go by the names of the layers that they come from."""

    def __init__(self, model: Any):
        self.model = model
        self.tensors = self.flat(model.inputs)
        self.results = self.flat(model.outputs)
        names = [tensor.name for tensor in self.tensors]
        self.inputs = [_port(name, tensor) for name, tensor in zip(names, self.tensors, strict=True)]
        made = [self.maker(tensor).name for tensor in self.results]
        self.names = [name if made.count(name) == 1 else f"{name}_{place}" for place, name in enumerate(made)]
        self.outputs = [_port(name, tensor) for name, tensor in zip(self.names, self.results, strict=True)]

    def flat(self, structure: Any) -> list[Any]:
        import keras
        return keras.tree.flatten(structure)

    def maker(self, tensor: Any) -> Any:
        return tensor._keras_history.operation

    def structured(self, values: list[Any]) -> Any:
        """Inputs in the form that the model is called with."""
        import keras
        functional = getattr(self.model, "_functional", None) or self.model             # a Sequential without an input layer has one inside
        return keras.tree.pack_sequence_as(functional._inputs_struct, values)

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        results = self.flat(self.prepared(feeds)())
        return {name: _array(value) for name, value in zip(self.names, results, strict=True)}

    def prepared(self, feeds: dict[str, Any]) -> Callable[[], Any]:
        """A function that runs once on these inputs."""
        structure = self.structured([_fed(feeds[port["name"]]) for port in self.inputs])
        return lambda: self.model(structure, training=False)


class Older(Loaded):
    """A model of Keras 2, whose tensors are TensorFlow's."""

    def flat(self, structure: Any) -> list[Any]:
        import tensorflow
        return tensorflow.nest.flatten(structure)

    def maker(self, tensor: Any) -> Any:
        return tensor._keras_history.layer

    def structured(self, values: list[Any]) -> Any:
        import tensorflow
        return tensorflow.nest.pack_sequence_as(getattr(self.model, "_nested_inputs", self.model.inputs), values)


def _port(name: str, tensor: Any) -> dict[str, Any]:
    dtype = getattr(tensor.dtype, "name", tensor.dtype)
    return {"name": name, "dtype": "object" if dtype == "string" else str(dtype), "shape": list(tensor.shape), "scale": None}


def _fed(array: np.ndarray) -> Any:
    import keras
    if array.dtype.kind in "OSU":
        return keras.ops.convert_to_tensor(array.tolist())
    return keras.ops.convert_to_tensor(array)


def _array(value: Any) -> np.ndarray:
    import keras
    return np.asarray(value.numpy()) if hasattr(value, "numpy") else keras.ops.convert_to_numpy(value)
