"""Files of Keras, built without Keras: what its savers write, as small as the readers take them."""
from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def dense(name: str, units: int, **settings: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": "Dense", "config": {"name": name, "units": units, "activation": "linear", "use_bias": True, **settings},
            "registered_name": None}


def sequential(*layers: dict[str, Any], shape: tuple = (None, 3)) -> dict[str, Any]:
    """The configuration of a model of layers in a row."""
    first = {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": list(shape), "dtype": "float32", "name": "x"},
        "registered_name": None}
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "model", "layers": [first, *layers]}, "registered_name": None}


def modern_weights(arrays: dict[str, np.ndarray]) -> bytes:
    """An HDF5 file with datasets at these paths."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for path, array in arrays.items():
            file[path] = array
    return memory.getvalue()


def keras(path: Path, config: dict[str, Any], weights: bytes, **members: bytes) -> Path:
    """A .keras file."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}))
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", weights)
        for name, data in members.items():
            file.writestr(name, data)
    return path


def legacy(path: Path, config: dict[str, Any] | None, layers: dict[str, dict[str, np.ndarray]], version: str = "2.15.0") -> Path:
    """A .h5 file of Keras 2; without a configuration it holds weights only."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = version, "tensorflow"
        group = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
            group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for name, weights in layers.items():
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [key.encode() for key in weights]
            for key, array in weights.items():
                inner[key] = array
    return path
