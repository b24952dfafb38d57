"""Float16 weights in TensorFlow Lite."""
from __future__ import annotations

from pathlib import Path

import pytest

import isomorph
from isomorph.artifact import Artifact
from isomorph.errors import Usage
from isomorph.formats import tflite

DIGITS = Path(isomorph.__file__).parent / "data" / "digits.onnx"


def test_weights_take_half_the_bytes_and_compute_the_same(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the extra [litert] is not installed")
    whole, half = tmp_path / "whole.tflite", tmp_path / "half.tflite"
    isomorph.convert(DIGITS, whole, verify=False)
    report = isomorph.convert(DIGITS, half, dtype="fp16")
    assert report.facts["verified"] == "native"
    assert "weights.narrowed" in {finding.code for finding in report.findings}
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    stored = {value.dtype.name for value in tflite.read(Artifact.open(half)).graph.initializers.values() if value.const_value.nbytes > 1000}
    assert stored == {"FLOAT16"}


def test_other_types_are_refused(tmp_path):
    with pytest.raises(Usage, match="bf16"):
        isomorph.convert(DIGITS, tmp_path / "model.tflite", dtype="bf16")
