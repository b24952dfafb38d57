"""PyTorch itself on what we write: files load, give the same numbers, and can be trained."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import environments
import pytest

import isomorph
from isomorph.errors import Missing

DIGITS = Path(isomorph.__file__).parent / "data" / "digits.onnx"
TRAIN = """
import sys, torch
path = sys.argv[1]
module = torch.export.load(path).module() if path.endswith("pt2") else torch.jit.load(path)
names = [name for name, _ in module.named_parameters()]
assert names == WEIGHTS, names
before = [parameter.detach().clone() for parameter in module.parameters()]
optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
result = module(torch.randn(4, 1, 8, 8))
(result if isinstance(result, torch.Tensor) else result[0]).square().mean().backward()
optimizer.step()
assert any((a != b).any() for a, b in zip(before, module.parameters()))
"""


@pytest.fixture(scope="module")
def python():
    return environments.use("torch")


@pytest.mark.parametrize("name", ["digits.jit", "digits.pt2"])
def test_a_conversion_is_proven_in_pytorch(name, python, tmp_path):
    report = isomorph.convert(DIGITS, tmp_path / name)
    assert report.facts["verified"] == "native"
    assert report.facts["runtime"].startswith("PyTorch")


@pytest.mark.parametrize("name", ["digits.jit", "digits.pt2"])
def test_what_is_written_can_be_trained(name, python, tmp_path):
    isomorph.convert(DIGITS, tmp_path / name, verify=False)
    names = [f"{layer}.{part}" for layer in ("conv1", "conv2", "dense1", "dense2") for part in ("weight", "bias")]
    done = subprocess.run([str(python), "-c", TRAIN.replace("WEIGHTS", str(names)), str(tmp_path / name)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_modules_of_the_caller_go_there_and_back(python):
    source = str(Path(isomorph.__file__).parents[1])
    child = Path(__file__).with_name("live_child.py")
    done = subprocess.run([str(python), str(child)], capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": source})
    if "No module named" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.stdout == "done", done.stderr[-2000:]


def test_without_pytorch_the_caller_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Missing):
        isomorph.from_torch({})
