"""SavedModels that we write, loaded by TensorFlow in every way that it has: with objects, in sessions, by the TFLite converter, as a layer of Keras."""
from __future__ import annotations

import json
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import environments
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import isomorph
from isomorph.artifact import Artifact
from isomorph.dialects import from_hub
from isomorph.formats import _table
from isomorph.model import Signature

CHILD = Path(__file__).with_name("saved_model_child.py")
DIGITS = str(resources.files("isomorph") / "data" / "digits.onnx")


def loaded(folder: Path) -> dict[str, Any]:
    """What TensorFlow says of a folder."""
    done = subprocess.run([str(environments.python("tensorflow")), str(CHILD), str(folder)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_network_loads_everywhere_and_can_be_trained(tmp_path: Path) -> None:
    report = isomorph.convert(DIGITS, tmp_path / "digits", to="saved_model", verify=False)
    found = loaded(tmp_path / "digits")
    assert found["signatures"] == ["serving_default"]
    assert found["variables"] == found["trainable"] == found["gradients"] == 7
    assert found["fingerprint"]
    assert set(found["apart"]) == {f"serving_default {loader}" for loader in ("session", "again", "lite", "layer")}
    assert max(found["apart"].values()) < 1e-6
    assert report.facts["destination"]["bytes"] == Artifact.open(tmp_path / "digits").size - (tmp_path / "digits" / "fingerprint.pb").stat().st_size


def two_sided() -> Any:
    """Two inputs, three outputs, a weight that both halves use, odd names, a free dimension, and an input that is an output."""
    weight = numpy_helper.from_array(np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32), "weights/kernel:0")
    nodes = [helper.make_node("MatMul", ["in/1:0", weight.name], ["left"]), helper.make_node("Relu", ["left"], ["Out.1"]),
             helper.make_node("MatMul", ["2nd", weight.name], ["right"]), helper.make_node("Split", ["right"], ["b", "a"], axis=1, num_outputs=2)]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("in/1:0", "2nd", "Out.1")]
    halves = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("b", "a")]
    graph = helper.make_graph(nodes, "two", ports[:2], [ports[2], *halves], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)], ir_version=13)


def test_signatures_share_variables(tmp_path: Path) -> None:
    form = _table.get("saved_model")
    model = _table.get("onnx").read(Artifact.open(two_sided().SerializeToString()))
    model.signatures = [Signature("serving_default", {"x": "in/1:0"}, {"y": "Out.1"}), Signature("other", {"2nd": "2nd"}, {"b": "b", "a": "a"})]
    report = form.write(from_hub(model, "tf"), tmp_path / "two")
    assert [finding.code for finding in report.findings] == ["names.changed"]
    found = loaded(tmp_path / "two")
    assert found["signatures"] == ["other", "serving_default"]
    assert found["variables"] == 1
    assert max(found["apart"].values()) == 0
    assert found["results"]["a"][0] == [2, 2]


@pytest.mark.parametrize("kind", ["saved_model", "graphdef"])
def test_odd_names_and_several_outputs(tmp_path: Path, kind: str) -> None:
    """What TensorFlow gives is what ONNX Runtime gives, output by output."""
    environments.use("tensorflow")
    source, target = tmp_path / "two.onnx", tmp_path / _table.output_name(kind, "two")
    source.write_bytes(two_sided().SerializeToString())
    report = isomorph.convert(source, target)
    assert report.facts["verified"] == "native"
    assert len(report.facts["outputs"]) == 3


def test_frozen_graphs_keep_the_order_of_their_outputs(tmp_path):
    """Nothing but the order of its nodes says which output of a frozen graph is which."""
    nodes = [helper.make_node("Neg", ["x"], ["third"]), helper.make_node("Abs", ["x"], ["first"]), helper.make_node("Exp", ["x"], ["second"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("first", "second", "third")]
    graph = helper.make_graph(nodes, "order", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])], values)
    path = tmp_path / "order.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    report = isomorph.convert(path, tmp_path / "order.pb", to="graphdef")
    assert [output["name"] for output in report.facts["outputs"]] == ["first", "second", "third"]
    assert all(output["passed"] for output in report.facts["outputs"])


def test_equal_weights_become_one_variable(tmp_path):
    weight = numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "w")
    again = numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "v")
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Conv", ["a", "v"], ["y"])]
    graph = helper.make_graph(nodes, "equal", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4])], [weight, again])
    path = tmp_path / "equal.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    isomorph.convert(path, tmp_path / "equal", to="saved_model")
    data = sum(file.stat().st_size for file in (tmp_path / "equal").rglob("variables.data*"))
    assert 576 <= data < 1152
