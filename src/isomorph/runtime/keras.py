"""Keras 3, for .keras and .h5 files. Runs inside the child only, which may be the Python of another environment.

A file is only handed to it after our own reader has found a rule for every layer in it (`verification/subject.py`): Keras runs the code of Lambda layers.
"""
from __future__ import annotations

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


def version() -> str:
    """Of the installed package."""
    import keras
    return keras.__version__


def load(path: str, *, threads: int) -> Loaded:
    """A model without its training configuration; code that a file brings along is refused by Keras too."""
    import keras
    keras.backend.clear_session()
    return Loaded(keras.saving.load_model(path, compile=False, safe_mode=True))


class Loaded:
    """Inputs and outputs go by the names of the layers that they come from."""

    def __init__(self, model: Any):
        import keras
        self.model = model
        self.tensors = keras.tree.flatten(model.inputs)
        self.results = keras.tree.flatten(model.outputs)
        names = [tensor.name for tensor in self.tensors]
        self.inputs = [_port(name, tensor) for name, tensor in zip(names, self.tensors, strict=True)]
        made = [tensor._keras_history.operation.name for tensor in self.results]
        self.names = [name if made.count(name) == 1 else f"{name}_{place}" for place, name in enumerate(made)]
        self.outputs = [_port(name, tensor) for name, tensor in zip(self.names, self.results, strict=True)]

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        import keras
        results = keras.tree.flatten(self.prepared(feeds)())
        return {name: _array(value) for name, value in zip(self.names, results, strict=True)}

    def prepared(self, feeds: dict[str, Any]) -> Callable[[], Any]:
        """A function that runs once on these inputs."""
        import keras
        values = [_fed(feeds[port["name"]]) for port in self.inputs]
        structure = keras.tree.pack_sequence_as(self.model._inputs_struct, values)
        return lambda: self.model(structure, training=False)


def _port(name: str, tensor: Any) -> dict[str, Any]:
    return {"name": name, "dtype": "object" if tensor.dtype == "string" else str(tensor.dtype), "shape": list(tensor.shape), "scale": None}


def _fed(array: np.ndarray) -> Any:
    import keras
    if array.dtype.kind in "OSU":
        return keras.ops.convert_to_tensor(array.tolist())
    return keras.ops.convert_to_tensor(array)


def _array(value: Any) -> np.ndarray:
    import keras
    return np.asarray(value.numpy()) if hasattr(value, "numpy") else keras.ops.convert_to_numpy(value)
