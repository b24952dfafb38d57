"""TensorFlow: `to_hub` and `from_hub` between its operators and ONNX."""
from __future__ import annotations

from isomorph.model import Model


def to_hub(model: Model) -> Model:
    """The same computation in ONNX operators. Raises `Unsupported` with every operator that has no form there."""
    from isomorph.dialects.tf.to_onnx import pipeline
    return pipeline.to_hub(model)


def from_hub(model: Model) -> Model:
    """The same computation in TensorFlow's operators. Raises `Unsupported` with every operator that has no form there."""
    from isomorph.dialects.tf.from_onnx import pipeline
    return pipeline.from_hub(model)
