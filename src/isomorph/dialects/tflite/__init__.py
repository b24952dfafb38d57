"""TensorFlow Lite: `to_hub` and `from_hub` between its operators and ONNX."""
from __future__ import annotations

from typing import Any

import onnx_ir as ir

from isomorph.model import Model


def to_hub(model: Model) -> Model:
    from isomorph.dialects.tflite import hub
    return hub.to_hub(model)


def from_hub(model: Model, **options: Any) -> Model:
    from isomorph.dialects.tflite import write
    return write.from_hub(model, **options)


__all__ = ["from_hub", "ir", "to_hub"]
