"""TorchScript and exported programs as written: names of weights, code, and that our own readers make the same network of them. PyTorch's word on the files
is in tests/conformance/test_nodes.py and tests/oracles/test_torch_programs_written.py."""
from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.errors import Unsupported
from isomorph.formats import _table, _torch_names

FORMATS = {"torchscript": "net.jit", "torch_export": "net.pt2"}


def model(nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "net", inputs, outputs, [numpy_helper.from_array(array, name) for name, array in dict(weights).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def count_of(name):
    return helper.make_tensor_value_info(name, TensorProto.INT64, [])


def network() -> onnx.ModelProto:
    """A layer, an open batch, a size that is computed, and a branch on data."""
    random = np.random.default_rng(0)
    then = helper.make_graph([helper.make_node("Relu", ["flat"], ["a"])], "then", [], [floats("a", None, 32)])
    other = helper.make_graph([helper.make_node("Neg", ["flat"], ["b"])], "else", [], [floats("b", None, 32)])
    nodes = [helper.make_node("Conv", ["x", "block.0.conv.weight", "onnx::Conv_7"], ["y"], name="/block/conv/Conv", pads=[1, 1, 1, 1]),
             helper.make_node("Shape", ["y"], ["shape"], end=1), helper.make_node("Concat", ["shape", "rest"], ["target"], axis=0),
             helper.make_node("Reshape", ["y", "target"], ["flat"]), helper.make_node("ReduceSum", ["flat"], ["sum"], keepdims=0),
             helper.make_node("Greater", ["sum", "zero"], ["positive"]),
             helper.make_node("If", ["positive"], ["result"], then_branch=then, else_branch=other)]
    weights = {"block.0.conv.weight": random.normal(size=(2, 3, 3, 3)).astype(np.float32), "onnx::Conv_7": random.normal(size=2).astype(np.float32),
               "rest": np.array([-1]), "zero": np.array(0, np.float32)}
    return model(nodes, [floats("x", "batch", 3, 4, 4)], [floats("result", "batch", 32)], weights)


def converted(proto: onnx.ModelProto, name: str, folder: Path) -> Path:
    path = folder / FORMATS[name]
    _table.get(name).write(from_hub(_table.get("onnx").read(Artifact.open(proto.SerializeToString())), "torch"), path)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_our_reader_makes_the_same_network_of_it(name, tmp_path):
    proto = network()
    path = converted(proto, name, tmp_path)
    back = to_hub(_table.get(name).read(Artifact.open(path)))
    _table.get("onnx").write(back, tmp_path / "back.onnx")
    sessions = [onnxruntime.InferenceSession(source) for source in (proto.SerializeToString(), tmp_path / "back.onnx")]
    for seed in range(4):
        feeds = {"x": np.random.default_rng(seed).normal(size=(1 + seed, 3, 4, 4)).astype(np.float32)}
        want, have = (session.run(["result"], feeds)[0] for session in sessions)
        np.testing.assert_allclose(have, want, atol=1e-5)
    assert sessions[1].get_inputs()[0].shape == ["batch", 3, 4, 4]


@pytest.mark.parametrize("name", FORMATS)
def test_a_loop_comes_back(name, tmp_path):
    """As many rounds as an input says, or until the value is large; one value is carried, one collected."""
    body = helper.make_graph([helper.make_node("Add", ["a", "a"], ["b"]), helper.make_node("Less", ["b", "top"], ["on"]),
                              helper.make_node("Identity", ["a"], ["seen"])], "body",
                             [count_of("i"), helper.make_tensor_value_info("go", TensorProto.BOOL, []), floats("a")],
                             [helper.make_tensor_value_info("on", TensorProto.BOOL, []), floats("b"), floats("seen")])
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["last", "all"], body=body)]
    proto = model(nodes, [count_of("n"), floats("x")], [floats("last"), floats("all", None)], {"top": np.array(40, np.float32)})
    _table.get("onnx").write(to_hub(_table.get(name).read(Artifact.open(converted(proto, name, tmp_path)))), tmp_path / "back.onnx")
    for n, x in ((3, 1), (9, 3)):
        feeds = {"n": np.array(n), "x": np.array(x, np.float32)}
        want, have = (onnxruntime.InferenceSession(source).run(["last", "all"], feeds) for source in (proto.SerializeToString(), tmp_path / "back.onnx"))
        for one, other in zip(want, have, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", FORMATS)
def test_equal_models_make_equal_files(name, tmp_path):
    (tmp_path / "again").mkdir()
    assert converted(network(), name, tmp_path).read_bytes() == converted(network(), name, tmp_path / "again").read_bytes()


def test_weights_are_attributes_of_modules(tmp_path):
    """What the exporter left nameless goes by its node and its place in the layer."""
    path = converted(network(), "torch_export", tmp_path)
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("net/data/weights/model_weights_config.json"))["config"]
    assert {name: entry["is_param"] for name, entry in config.items()} == {"block.0.conv.weight": True, "block.conv.Conv.bias": True, "zero": False}


def test_code_reads_as_a_forward(tmp_path):
    path = converted(network(), "torchscript", tmp_path)
    with zipfile.ZipFile(path) as archive:
        code = archive.read("net/code/__torch__.py").decode()
    for line in ("class Model_block_0_conv(Module):", '  __parameters__ = ["weight", ]', "  def forward(self: __torch__.Model,", "    if bool(positive):",
                 '    block_0_conv_weight = getattr(self.block, "0").conv.weight', "    return result"):
        assert line in code.splitlines()


def test_a_weight_and_a_module_of_one_name_are_told_apart(tmp_path):
    weights = {name: np.ones(2, np.float32) for name in ("a", "a.b", "a.b.c")}
    nodes = [helper.make_node("Sum", ["x", *weights], ["y"])]
    path = converted(model(nodes, [floats("x", 2)], [floats("y", 2)], weights), "torch_export", tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert list(json.loads(archive.read("net/data/weights/model_weights_config.json"))["config"]) == ["a", "a_.b", "a_.b_.c"]


@pytest.mark.parametrize(("given", "made"), [("weight", "weight"), ("a:0", "a_0"), ("class", "class_"), ("forward", "forward_"), ("µ", "_")])
def test_names_become_words(given, made):
    assert _torch_names.identifier(given) == made


@pytest.mark.parametrize("extra", [b"{", b"[]", *(b'{"inputs": [{%s}], "outputs": []}' % port for port in (
    b'"name": "x"', b'"name": 3, "dtype": "FLOAT", "shape": []', b'"name": "x", "dtype": "FLOAT", "shape": [-4]'))])
def test_a_false_interface_is_not_believed(extra, tmp_path):
    """Without it the reader guesses, as it does for other people's files."""
    path = converted(network(), "torchscript", tmp_path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "false.jit", "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, extra if name.endswith("isomorph.json") else archive.read(name))
    back = to_hub(_table.get("torchscript").read(Artifact.open(tmp_path / "false.jit")))
    assert [value.name for value in back.graph.inputs] == ["x"]


def test_what_pytorch_lacks_is_named():
    text = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    proto = model([helper.make_node("Identity", ["x"], ["y"])], [text], [helper.make_tensor_value_info("y", TensorProto.STRING, [1])])
    with pytest.raises(Unsupported) as refused:
        from_hub(_table.get("onnx").read(Artifact.open(proto.SerializeToString())), "torch")
    assert all("STRING" in reason for _, _, reason in refused.value.blockers)
