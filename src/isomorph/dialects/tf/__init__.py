"""TensorFlow: `to_hub` from its operators to ONNX."""
from __future__ import annotations

from isomorph.model import Model


def to_hub(model: Model) -> Model:
    """The same computation in ONNX operators. Raises `Unsupported` with every operator that has no form there."""
    from isomorph.dialects.tf.to_onnx import pipeline
    return pipeline.to_hub(model)
