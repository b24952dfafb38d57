"""TensorFlow Lite: `to_hub` and `from_hub` between its operators and ONNX."""

from __future__ import annotations

from typing import Any

from isomorph.model import Model


def to_hub(model: Model) -> Model:
    """The same computation in ONNX operators; takes over the graph of `model`."""
    from isomorph.dialects.tflite.to_onnx import pipeline

    return pipeline.to_hub(model)


def from_hub(model: Model, **options: Any) -> Model:
    """The same computation in TensorFlow Lite operators. Raises `Unsupported` with every operator that has no form there."""
    from isomorph.dialects.tflite.from_onnx import pipeline

    return pipeline.from_hub(model, **options)
