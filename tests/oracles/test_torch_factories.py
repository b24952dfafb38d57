"""`--module package.module:factory`: weights and code of the user's own become a graph, and everything that can be wrong with them is told."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from torching import needs_torch

import isomorph
from isomorph.errors import Missing, Usage

SOURCE = '''
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, stride=2), nn.Linear(width, 2)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)).mean((2, 3)))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids, scale):
        return self.head(self.table(ids)) * scale

class Stubborn(Net):
    def forward(self, x):
        return x if float(x.sum()) > 0 else super().forward(x)

def wide():
    return Net(5)

def words():
    return Words(), (torch.zeros(2, 3, dtype=torch.int64), torch.ones(1))

def broken():
    raise RuntimeError("no such luck")

ready = Net()
'''
MAKE = '''
import sys, torch, own_network.nets as nets
torch.manual_seed(0)
net, words = nets.Net(), nets.Words()
torch.save(net.state_dict(), "net.pt")
torch.save({"state_dict": {"model." + key: value for key, value in net.state_dict().items()} | {"loss.weight": torch.ones(2)}, "epoch": 1}, "training.ckpt")
torch.save(net, "whole.pt")
torch.save({key: value for key, value in words.state_dict().items() if key != "head.weight"}, "words.pt")
x = torch.randn(3, 3, 8, 9)
import numpy
numpy.savez("net.npz", x=x.numpy(), y=net(x).detach().numpy())
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory, torch_environment):
    path = tmp_path_factory.mktemp("factories")
    (path / "own_network").mkdir()
    (path / "own_network" / "__init__.py").touch()
    (path / "own_network" / "nets.py").write_text(SOURCE)
    (path / "own_network" / "tangled.py").write_text("import a_package_that_is_nowhere\n")
    subprocess.run([str(torch_environment), "-c", MAKE], cwd=path, check=True)
    return path


@pytest.fixture
def there(folder, monkeypatch, torch_environment):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ISOMORPH_PYTHON_TORCH", str(torch_environment))
    return folder


def outputs(path, kept):
    return onnxruntime.InferenceSession(path).run(None, {onnxruntime.InferenceSession(path).get_inputs()[0].name: kept["x"]})[0]


@needs_torch
@pytest.mark.parametrize(("source", "factory"), [("training.ckpt", "own_network.nets:Net"), ("whole.pt", "own_network.nets:ready")])
def test_weights_and_code_give_what_pytorch_gives(there, tmp_path, source, factory):
    report = isomorph.convert(source, tmp_path / "net.onnx", module=factory, input_shapes={"x": (-1, 3, 8, 9)})
    assert report.facts["verified"] == "native"
    with np.load("net.npz") as kept:
        np.testing.assert_allclose(outputs(tmp_path / "net.onnx", kept), kept["y"], atol=1e-6)
    assert "own_network" not in sys.modules
    assert ("torch.module-part" in {finding.code for finding in report.findings}) is (source == "training.ckpt")


@needs_torch
def test_without_shapes_the_first_layer_or_the_factory_says_what_goes_in(there, tmp_path):
    plan = isomorph.plan("net.pt", to="onnx", module="own_network.nets:Net")
    assert "torch.guessed-rank" in {finding.code for finding in plan.findings}
    assert list(plan.result.graph.inputs[0].shape)[1:] == [3, 64, 64]
    isomorph.convert("words.pt", tmp_path / "words.tflite", module="own_network.nets:words", verify=False)
    assert len(isomorph.open(tmp_path / "words.tflite").graph.inputs) == 2


@needs_torch
def test_the_command_line_takes_shapes_in_order_and_finds_their_types(there, tmp_path):
    command = [sys.executable, "-m", "isomorph", "convert", "words.pt", str(tmp_path / "words.onnx"), "--module", "own_network.nets:Words", "--input", "?x3",
               "--input", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(isomorph.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    ids, scale = onnxruntime.InferenceSession(tmp_path / "words.onnx").get_inputs()
    assert (ids.type, scale.type, ids.shape[1], isinstance(ids.shape[0], int)) == ("tensor(int64)", "tensor(float)", 3, False)


REFUSALS = {
    "own_network.nets:wide": ("unsupported", "first.weight is [4, 3, 3, 3] in the file and [5, 3, 3, 3] in the module"),
    "own_network.nets:Words": ("unsupported", "2 are missing in the file: table.weight, head.weight; 4 are in the file and not in the module: first.weight"),
    "own_network.nets:broken": ("unsupported", "no such luck"), "own_network.nets:Nut": ("missing", "own_network.nets has no Nut"),
    "own_network.nuts:Net": ("missing", "no module own_network.nuts"), "own_network.tangled:Net": ("missing", "no module a_package_that_is_nowhere"),
    "own_network.nets:torch.float32": ("unsupported", "calling own_network.nets:torch.float32 without arguments fails"),
    "own_network.nets:torch.Tensor": ("unsupported", "gives a Tensor and no torch.nn.Module"), "own_network": ("usage", "names no factory"),
    "own_network.nets:Stubborn": ("unsupported", "torch.export does not take the module"),
    "own_network.nets:Net 1x4x8x8": ("unsupported", "forward fails on 1x4x8x8"), "own_network.nets:Net y=1x3x8x8": ("usage", "no parameter 'y'"),
}
REFUSED = """
import json, sys
sys.path[:0] = [sys.argv[1], "."]
import types; package = sys.modules["isomorph"] = types.ModuleType("isomorph"); package.__path__ = [sys.argv[1]]
from pathlib import Path
from isomorph.runtime import torch_factory
told = {}
for case in sys.argv[2:]:
    factory, _, shape = case.partition(" ")
    name, _, sizes = shape.rpartition("=")
    try:
        torch_factory.export(Path("net.pt"), factory, {name or "0": [int(size) for size in sizes.split("x")]} if shape else {}, "never.pt2")
    except torch_factory.Refused as refusal:
        told[case] = refusal.facts
print(json.dumps(told))
"""


@needs_torch
def test_what_is_wrong_is_told(there, torch_environment):
    """All in one process; what the parent makes of a refusal is the test below."""
    command = [str(torch_environment), "-c", REFUSED, str(Path(isomorph.__file__).parent), *REFUSALS]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert {case: facts["code"] for case, facts in told.items()} == {case: code for case, (code, _) in REFUSALS.items()}
    for case, (_, said) in REFUSALS.items():
        assert said in told[case]["what"], case
    assert "--input" in told["own_network.nets:Net 1x4x8x8"]["hint"]


@needs_torch
def test_a_refusal_is_an_error_of_its_kind(there, tmp_path):
    with pytest.raises(Missing, match=r"own_network\.nets has no Nut"):
        isomorph.convert("net.pt", tmp_path / "net.onnx", module="own_network.nets:Nut")
    plan = isomorph.plan("net.pt", to="onnx", module="own_network.nets:wide")
    assert "the weights do not fit Net" in plan.blockers[0][0]
    assert not (tmp_path / "net.onnx").exists()


@needs_torch
def test_weights_and_graphs_need_no_module(there, tmp_path):
    with pytest.raises(Usage, match="holds weights"):
        isomorph.convert("net.pt", tmp_path / "net.safetensors", module="own_network.nets:Net")
    graph = Path(isomorph.__file__).parent / "data" / "digits.onnx"
    with pytest.raises(Usage, match="holds a graph"):
        isomorph.plan(graph, to="tflite", module="own_network.nets:Net")


def test_without_pytorch_it_says_what_to_install(tmp_path, monkeypatch):
    """The interpreter of the tests may have PyTorch, so here something else stands in its place."""
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch')")
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setenv("ISOMORPH_PYTHON_TORCH", str(bare))
    np.savez(tmp_path / "weights.npz", w=np.zeros(3, np.float32))
    with pytest.raises(Missing, match="PyTorch cannot be imported") as caught:
        isomorph.plan(tmp_path / "weights.npz", to="onnx", module="own_network.nets:Net")
    assert "isomorph[torch]" in caught.value.hint
