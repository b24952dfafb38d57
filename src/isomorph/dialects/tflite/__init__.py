"""TensorFlow Lite: `to_hub` and `from_hub` between its operators and ONNX."""

from __future__ import annotations

from isomorph.model import Model


def to_hub(model: Model, *, integers: bool = False) -> Model:
    """The same computation in ONNX operators; takes over the graph of `model`. With `integers` quantised operators become arithmetic of integers, with the
    bits of LiteRT's reference kernels."""
    from isomorph.dialects.tflite.to_onnx import pipeline

    return pipeline.to_hub(model, integers=integers)


def from_hub(model: Model, *, dtype: str | None = None) -> Model:
    """The same computation in TensorFlow Lite operators. With `dtype` "fp16" float weights are stored in half the bytes and widened when the file is
    loaded. Raises `Unsupported` with every operator that has no form there, and `Usage` for another type."""
    from isomorph.dialects.tflite.from_onnx import pipeline

    return pipeline.from_hub(model, dtype=dtype)
