"""Keras: layers, operations and raw functions as nodes; rules to ONNX and back."""
from __future__ import annotations

from isomorph.model import Model


def to_hub(model: Model) -> Model:
    """The same computation in ONNX operators. Raises `Unsupported` with every layer that has none."""
    from isomorph.dialects.keras.to_onnx.pipeline import to_hub
    return to_hub(model)


def from_hub(model: Model) -> Model:
    """The same computation in layers and operations of Keras. Raises `Unsupported` with every operator that has none."""
    from isomorph.dialects.keras.from_onnx.pipeline import from_hub
    return from_hub(model)
