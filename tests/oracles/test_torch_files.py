"""Files of PyTorch read by us, and ours read by PyTorch: names, types, shapes and bytes are the same."""
from __future__ import annotations

import pytest
from torching import call, loaded, needs_torch
from zoo import catalogue, zoo

import isomorph
from isomorph.artifact import Artifact
from isomorph.formats import _table
from isomorph.tensors import NAME, TYPES

pytestmark = needs_torch
FILES = ("protocol2.pt", "protocol3.pt", "protocol4.pt", "protocol5.pt", "legacy.pt", "training.pt", "lightning.ckpt", "module.pt", "nested.pt")
WRAPPER = {"lightning.ckpt": "state_dict."}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("torch")
    call("torch_child.py", "make", path)
    return path


def read(path):
    artifact = Artifact.open(path)
    assert _table.identify(artifact).format == "torch"
    return _table.get("torch").read(artifact)


def assert_equal(checkpoint, expected, facts, prefix=""):
    assert {prefix + name for name in checkpoint} == set(expected)
    for name, tensor in checkpoint.items():
        dtype, shape, _ = facts[prefix + name]
        assert (TYPES[NAME[tensor.element_type]][2], list(tensor.dims)) == (dtype, shape), name
        assert tensor.tobytes() == expected[prefix + name], name


@pytest.mark.parametrize("file", FILES)
def test_every_tensor_is_what_pytorch_loads(folder, tmp_path, file):
    expected, facts = loaded(folder / file, tmp_path / "out.npz")
    assert_equal(read(folder / file), expected, facts, WRAPPER.get(file, ""))


@pytest.mark.parametrize("source", ["protocol2.pt", "legacy.pt", "training.pt", "pytorch_model.bin.index.json"])
def test_pytorch_loads_what_we_write(folder, tmp_path, source):
    checkpoint = read(folder / source)
    _table.get("torch").write(checkpoint, tmp_path / "ours.pt")
    written, facts = loaded(tmp_path / "ours.pt", tmp_path / "out.npz")
    assert_equal(checkpoint, written, facts)
    if "whole" in checkpoint:
        assert len({facts[name][2] for name in ("whole", "again", "row", "turned", "stepped")} - {facts["row"][2]}) <= 1
        assert facts["whole"][2] == facts["again"][2] != facts["float32"][2]


def test_there_and_back_through_safetensors(folder, tmp_path):
    expected, facts = loaded(folder / "shared.pt", tmp_path / "out.npz")
    report = isomorph.convert(folder / "shared.pt", tmp_path / "there.safetensors")
    assert "weights.tied" in {finding.code for finding in report.findings}
    isomorph.convert(tmp_path / "there.safetensors", tmp_path / "back.pt")
    back, facts = loaded(tmp_path / "back.pt", tmp_path / "back.npz")
    assert back == expected
    assert_equal(read(tmp_path / "back.pt"), back, facts)


@pytest.mark.parametrize("name", [name for name, row in catalogue()["model"].items() if row.get("format") == "torch"])
def test_published_checkpoints_there_and_back(tmp_path, name):
    """Files that people published, to safetensors and back to a file that `torch.load(weights_only=True)` takes: every tensor is what PyTorch loads."""
    source = zoo(name)
    expected, _ = loaded(source, tmp_path / "out.npz")
    isomorph.convert(source, tmp_path / "there.safetensors")
    isomorph.convert(tmp_path / "there.safetensors", tmp_path / "back.pt")
    back, _ = loaded(tmp_path / "back.pt", tmp_path / "back.npz")
    assert back == expected


def test_what_is_no_dense_tensor_is_kept_in_parts(folder):
    """Sparse layouts, a tensor without data, quantised ones, complex halves, overlapping memory, arrays of NumPy, a view that changes a sign."""
    checkpoint = read(folder / "odd.pt")
    held = {name: tensor.numpy().tolist() for name, tensor in checkpoint.items()}
    assert held["coo.indices"] == [[0, 1, 1], [1, 0, 2]]
    assert held["coo.values"] == held["csr.values"] == [1.5, 2.5, 3.5]
    assert (held["csr.pointers"], held["csr.indices"]) == ([0, 1, 3], [1, 0, 2])
    assert (held["csc.pointers"], held["csc.indices"], held["csc.values"]) == ([0, 1, 2, 3], [1, 0, 1], [2.5, 1.5, 3.5])
    assert checkpoint.metadata["coo.size"] == [2, 3]
    assert not any(name.startswith("meta") for name in held)
    assert (held["per_tensor"], held["per_tensor.scale"], held["per_tensor.zero_point"]) == ([[3, 6, 3], [8, 3, 10]], 0.5, 3)
    assert (held["per_channel"], held["per_channel.scale"]) == ([[1, 4, 1], [12, 2, 16]], [0.5, 0.25])
    assert checkpoint.metadata["per_channel.axis"] == 0
    assert (held["jagged.values"], held["jagged.offsets"]) == ([[1, 1, 1], [1, 1, 1], [0, 0, 0]], [0, 2, 3])
    assert not any(finding.code == "pickle.call" for finding in checkpoint.findings)
    assert held["half"] == [[1, 2], [3, -4]]
    assert held["overlapping"] == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert (held["list.1"], held["list.2.deep"]) == ([0, 1, 2], [1, 1])
    assert {"torch.parts", "torch.meta", "torch.quantised", "torch.complex-half"} <= {finding.code for finding in checkpoint.findings}
