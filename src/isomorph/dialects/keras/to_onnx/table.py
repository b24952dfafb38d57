"""The one table in which all rules of Keras stand."""
from __future__ import annotations

from isomorph.dialects.keras.lowering import KerasMapping

to_onnx = KerasMapping("keras")
layer, ops, tf, act = to_onnx.layer, to_onnx.ops, to_onnx.tf, to_onnx.act
