"""Whole pickled modules that PyTorch made, as graphs: every standard layer and its options, networks of them, and what the tree does not say."""
from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from torching import call, needs_torch

import isomorph
from isomorph.errors import Unsupported

pytestmark = needs_torch
FEWEST = 243                               # cases that the other script makes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("modules")
    call("torch_modules_child.py", path)
    return path


def verdict(file, kept, scratch) -> str:
    """Empty where the graph gives what PyTorch gives."""
    x = kept[f"{file.stem}/in"]
    wanted = [kept[name] for name in kept.files if name.startswith(f"{file.stem}/out")]
    try:
        isomorph.convert(file, scratch, verify=False, force=True, input_shapes={"input": x.shape})
    except Unsupported as error:
        return "; ".join(reason for _, _, reason in error.blockers)
    try:
        got = onnxruntime.InferenceSession(scratch, providers=["CPUExecutionProvider"]).run(None, {"input": x})
    except Exception as error:                      # whatever the runtime says of it
        return str(error)[:300]
    if [array.shape for array in got] != [array.shape for array in wanted]:
        return f"shapes {[array.shape for array in got]} instead of {[array.shape for array in wanted]}"
    worst = max(float(np.abs(a - b).max(initial=0)) for a, b in zip(got, wanted, strict=True))
    return "" if worst <= 1e-5 * max(1.0, *(float(np.abs(b).max(initial=0)) for b in wanted)) else f"differs by {worst}"


def test_every_layer_gives_what_pytorch_gives(folder, tmp_path):
    files = sorted(folder.glob("*.pt"))
    with np.load(folder / "results.npz") as kept:
        verdicts = {file.stem: verdict(file, kept, tmp_path / "model.onnx") for file in files}
    assert {name: why for name, why in verdicts.items() if why} == {}
    assert len(verdicts) >= FEWEST


def test_without_a_shape_the_first_layers_say_it(folder, tmp_path):
    """The batch stays open, and so do the sides of a picture."""
    for name, shape in {"nested": ["batch", 3, "height", "width"], "dense": ["batch", 24], "words": ["batch", "length"], "lstm-behind": ["batch", 4]}.items():
        report = isomorph.convert(folder / f"{name}.pt", tmp_path / f"{name}.onnx", verify=name != "lstm-behind", force=True)
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
        assert session.get_inputs()[0].shape[-len(shape) + 1:] == shape[1:] or name == "lstm-behind"
        assert not isinstance(session.get_inputs()[0].shape[0], int)
        assert "torch.guessed-rank" in {finding.code for finding in report.findings}
    with np.load(folder / "results.npz") as kept:
        got = onnxruntime.InferenceSession(tmp_path / "nested.onnx").run(None, {"input": kept["nested/in"][:1]})
        np.testing.assert_allclose(got[0], kept["nested/out0"][:1], atol=1e-6)


def test_a_module_reaches_the_other_formats(folder, tmp_path):
    report = isomorph.convert(folder / "nested.pt", tmp_path / "nested.tflite", input_shapes={"input": (1, 3, 17, 19)})
    assert report.facts["verified"] != "no"
    assert report.facts["outputs"][0]["passed"]
    isomorph.convert(folder / "nested.pt", tmp_path / "nested.pt2", verify=False)


def test_the_tree_is_shown(folder):
    metadata = isomorph.inspect(folder / "nested.pt").facts["metadata"]
    assert metadata["class"] == "torch.nn.modules.container.Sequential"
    assert "in_channels=3, out_channels=8, kernel_size=[3, 3], stride=[2, 2]" in metadata["modules"]["0"]
    assert metadata["modules"]["2.1.0"].startswith("torch.nn.modules.conv.Conv2d(")


@pytest.mark.parametrize(("file", "kind", "reason"), [("own.pth", "__main__.Own", "what its `forward` computes is not in the file"),
                                                      ("hooked.pth", "torch.nn.modules.linear.Linear", "it has the hook __main__.twice")])
def test_what_the_tree_does_not_say_is_named_with_the_ways_out(folder, tmp_path, file, kind, reason):
    with pytest.raises(Unsupported) as caught:
        isomorph.convert(folder / file, tmp_path / "model.onnx")
    blockers = {subject: text for subject, _, text in caught.value.blockers}
    assert reason in blockers[kind]
    assert all(word in str(blockers["torch"]) for word in ("--module package.module:factory", "torch.export.save", "torch.jit.trace"))


def test_a_module_inside_a_checkpoint_that_was_being_trained(folder, tmp_path):
    report = isomorph.convert(folder / "trained.pth", tmp_path / "model.onnx")
    assert "torch.eval" in {finding.code for finding in report.findings}
    assert onnxruntime.InferenceSession(tmp_path / "model.onnx").get_inputs()[0].shape[1] == 2
