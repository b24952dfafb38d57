"""Random small networks compute the same in LiteRT, and again when they come back to ONNX."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings

from isomorph import runtime
from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.formats import onnx as onnx_format
from isomorph.formats import tflite

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "conformance")]
import graphs  # noqa: E402
import node_cases  # noqa: E402

OF_RANGE = 1e-5         # float32 sums in another order, through at most nine operators


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    span = max(float(np.abs(expected).max(initial=0)), 1e-3)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=OF_RANGE * span)


@pytest.fixture(scope="module")
def litert():
    pytest.importorskip("ai_edge_litert", reason="the extra [litert] is not installed")
    return node_cases.Runner(runtime.get("litert"))


@given(case=graphs.models())
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_tflite_and_back(case, litert, tmp_path_factory):
    model, x = case
    folder = tmp_path_factory.getbasetemp()
    expected = run(model, x)
    converted = from_hub(onnx_format.read(Artifact.open(model.SerializeToString())), "tflite")
    tflite.write(converted, folder / "model.tflite", force=True)
    outputs = litert(folder / "model.tflite", {"x": x})
    for value, wanted in zip(model.graph.output, expected, strict=True):
        assert_close(outputs[value.name], wanted)
    onnx_format.write(to_hub(tflite.read(Artifact.open(folder / "model.tflite"))), folder / "back.onnx", force=True)
    for got, wanted in zip(run(onnx.load(folder / "back.onnx"), x), expected, strict=True):
        assert_close(got, wanted)
