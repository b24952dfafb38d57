"""Keras: layers, operations and raw functions as nodes; rules to ONNX and back."""
from __future__ import annotations

from typing import Any

from isomorph.errors import Unsupported
from isomorph.model import Model


def to_hub(model: Model) -> Model:
    """The same computation in ONNX operators. Raises `Unsupported` with every layer that has none."""
    from isomorph.dialects.keras.to_onnx.pipeline import to_hub
    return to_hub(model)


def from_hub(model: Model, **options: Any) -> Model:
    """Raises `Unsupported`: layers are not written yet."""
    raise Unsupported("graphs are not written in Keras' layers", hint="write ONNX or TensorFlow Lite")
