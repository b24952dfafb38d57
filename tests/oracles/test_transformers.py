"""Transformers with random weights, traced and exported by PyTorch: each becomes ONNX whose batch and sequence are open, and equals PyTorch at three sizes.
What comes of it goes back to PyTorch in both formats."""
from __future__ import annotations

import subprocess
from pathlib import Path

import environments
import numpy as np
import onnxruntime
import pytest

from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.formats import _table
from isomorph.runtime import Session

NAMES = ["bert", "roberta", "distilbert", "gpt2", "llama", "qwen2", "t5_encoder", "t5_decoder", "vit", "whisper_encoder", "clip"]
FORMATS = {"torchscript": ".jit", "torch_export": ".pt2"}
CLOSE = 1e-4


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    child = Path(__file__).with_name("transformers_child.py")
    done = subprocess.run([str(environments.use("torch")), str(child), str(folder)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def arrays(made: Path, name: str, size: int, kind: str) -> list[np.ndarray]:
    with np.load(made / f"{name}.npz") as kept:
        return [kept[key] for key in kept.files if key.startswith(f"{size}/{kind}/")]


def assert_same(made: Path, name: str, run) -> None:
    for size in range(3):
        for got, wanted in zip(run(arrays(made, name, size, "in")), arrays(made, name, size, "out"), strict=True):
            assert got.shape == wanted.shape
            np.testing.assert_allclose(got, wanted, atol=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_becomes_onnx_with_open_axes(name, format_, made, tmp_path):
    model = to_hub(_table.get(format_).read(Artifact.open(made / f"{name}{FORMATS[format_]}")))
    _table.get("onnx").write(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert all(isinstance(port.shape[0], str) for port in session.get_inputs())
    assert_same(made, name, lambda given: session.run(None, {port.name: array for port, array in zip(session.get_inputs(), given, strict=True)}))


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_goes_back_to_pytorch(name, format_, made, tmp_path):
    hub = to_hub(_table.get("torch_export").read(Artifact.open(made / f"{name}.pt2")))
    inputs, outputs = ([value.name for value in values] for values in (hub.graph.inputs, hub.graph.outputs))
    path = tmp_path / f"model{FORMATS[format_]}"
    _table.get(format_).write(from_hub(hub, "torch"), path)
    with Session(path, format_) as session:
        def run(given):
            answers = session.run(dict(zip(inputs, given, strict=True)))
            return [answers[output] for output in outputs]
        assert_same(made, name, run)
