"""TorchScript read by us, converted to ONNX and run, against what PyTorch gives: scripted, traced and frozen modules, and silero_vad as it streams."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from torching import call, needs_torch
from zoo import zoo

import isomorph
from isomorph.runtime.session import Session

sys.path.insert(0, str(Path(__file__).parents[1]))
pytestmark = needs_torch
MODULES = ("network", "attention", "recurrent", "shapes", "choosing", "packaged", "equations")
CASES = [f"{name}-{kind}" for name in MODULES for kind in ("scripted", "traced", "frozen") if (name, kind) != ("choosing", "traced")]
INPUT_SHAPES = {"attention": {"ids": (-1, -1), "mask": (-1, -1)}, "recurrent": {"x": (-1, -1, 6)}, "shapes": {"x": (2, 4, 6, 6)}, "choosing": {"x": (-1, 5)},
                "packaged": {"x": (-1, 3)}, "equations": {"x": (2, 5, 3), "numbers": (5,)}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("torchscript")
    call("torchscript_child.py", "make", path)
    return path


@pytest.mark.parametrize("case", CASES)
def test_the_graph_gives_what_pytorch_gives(folder, tmp_path, case):
    name, kind = case.split("-")
    shapes = INPUT_SHAPES.get(name) if kind != "traced" else None
    isomorph.convert(folder / f"{case}.pt", tmp_path / "model.onnx", verify=False, input_shapes=shapes)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    arrays = np.load(folder / f"{name}.npz")
    for number in (0, 1):
        feeds = {value.name: arrays[f"in{number}_{place}"] for place, value in enumerate(session.get_inputs())}
        for place, output in enumerate(session.run(None, feeds)):
            expected = arrays[f"out{number}_{place}"]
            assert output.dtype == expected.dtype
            np.testing.assert_allclose(output, expected, rtol=1e-4, atol=2e-5, err_msg=f"output {place} of call {number}")


@pytest.mark.parametrize("case", ["network", "attention", "shapes", "recurrent", "network-core", "attention-core", "shapes-core", "equations"])
def test_an_exported_program_gives_what_pytorch_gives(folder, tmp_path, case):
    isomorph.convert(folder / f"{case}.pt2", tmp_path / "model.onnx", verify=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    arrays = np.load(folder / f"{case.removesuffix('-core')}.npz")
    if case.startswith(("network", "attention")):
        assert not isinstance(session.get_inputs()[0].shape[0], int)
    for number in (1,) if case == "recurrent" else (0, 1):
        feeds = {value.name: arrays[f"in{number}_{place}"] for place, value in enumerate(session.get_inputs())}
        for place, output in enumerate(session.run(None, feeds)):
            np.testing.assert_allclose(output, arrays[f"out{number}_{place}"], rtol=1e-4, atol=2e-5, err_msg=f"output {place} of call {number}")


def test_a_buffer_that_changes_is_an_input_and_an_output(folder, tmp_path):
    isomorph.convert(folder / "counting.pt2", tmp_path / "model.onnx", verify=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    results = dict(zip([value.name for value in session.get_outputs()],
                       session.run(None, {"x": np.ones((2, 3), np.float32), "total": np.ones(3, np.float32)}), strict=True))
    np.testing.assert_array_equal(results.pop("total/next"), np.full(3, 3, np.float32))
    np.testing.assert_array_equal(*results.values(), np.full(3, 6, np.float32))


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    """The model, and a minute of sound at both rates with what PyTorch says of each chunk while the module keeps its states to itself."""
    source = zoo("silero_vad_jit")
    path = tmp_path_factory.mktemp("silero") / "stream.npz"
    call("torchscript_child.py", "stream", source, path)
    with np.load(path) as arrays:
        return source, dict(arrays)


def worst_of(arrays, run):
    """The largest difference over 1,875 chunks of each rate, where the caller carries the states."""
    worst = 0.0
    for rate, context in ((16000, 64), (8000, 32)):
        states = {"_state": np.zeros((2, 1, 128), np.float32), "_context": np.zeros((1, context), np.float32)}
        assert len(arrays[f"y{rate}"]) == 1875
        for chunk, expected in zip(arrays[f"x{rate}"], arrays[f"y{rate}"], strict=True):
            results = run({"x": chunk[None], "sr": np.asarray(rate, np.int64), **states})
            states = {name: results[f"{name}/next"] for name in states}
            worst = max(worst, float(np.abs(results["output"] - expected).max()))
    return worst


def test_silero_vad_streams_a_minute_like_pytorch(minute, tmp_path):
    """Both rates in one graph; the bar is 1e-4."""
    source, arrays = minute
    report = isomorph.convert(source, tmp_path / "silero.onnx", verify=False)
    assert {"torch.state", "torch.assumed"} <= {finding.code for finding in report.findings}
    session = onnxruntime.InferenceSession(tmp_path / "silero.onnx")
    names = [value.name for value in session.get_outputs()]
    assert worst_of(arrays, lambda feeds: dict(zip(names, session.run(None, feeds), strict=True))) <= 1e-4


def test_silero_vad_streams_a_minute_in_litert(minute, tmp_path):
    """And what is a multiple of 16,000 is thinned out: the step of that slice is known only to the run."""
    pytest.importorskip("ai_edge_litert", reason="the extra [litert] is not installed")
    source, arrays = minute
    isomorph.convert(source, tmp_path / "silero.tflite", verify=False)
    with Session(tmp_path / "silero.tflite", "tflite", timeout=120) as session:
        assert worst_of(arrays, session.run) <= 1e-4
        states = {"_state": np.zeros((2, 1, 128), np.float32), "_context": np.zeros((1, 64), np.float32)}
        chunk = arrays["x16000"][100][None]
        plain, thinned = (session.run({"x": x, "sr": np.asarray(rate, np.int64), **states})["output"]
                          for x, rate in ((chunk, 16000), (np.repeat(chunk, 3, axis=1), 48000)))
        np.testing.assert_array_equal(plain, thinned)
