"""Adapters to older forms that the node tests do not reach: attributes that only newer versions have."""
from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import defs, helper, numpy_helper

from isomorph.artifact import Artifact
from isomorph.errors import Unsupported
from isomorph.formats import onnx as onnx_format

node, info = helper.make_node, helper.make_tensor_value_info
X = np.random.default_rng(0).standard_normal((2, 4, 3, 3)).astype(np.float32)
CONSTANTS = {"scale": np.float32(0.5), "half": np.float16(0.5), "zero": np.int8(3), "four": np.float32([1, 2, 3, 4]), "like": np.float16([0]),
             "q": np.float32(np.ones((1, 2, 3, 4))), "lengths": np.array([3]), "one": np.float32(1)}


def model(made, output: int, opset: int = 26, x=X):
    used = [numpy_helper.from_array(np.asarray(array), name) for name, array in CONSTANTS.items() if name in made.input]
    graph = helper.make_graph([made], "g", [info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)], [info("y", output, None)], initializer=used)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=13)


def written(proto, opset: int, tmp_path) -> onnx.ModelProto:
    onnx_format.write(onnx_format.read(Artifact.open(proto.SerializeToString())), tmp_path / "x.onnx", opset=opset, force=True)
    return onnx.load(str(tmp_path / "x.onnx"))


def results(proto, x=X) -> np.ndarray:
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def assert_known_to(proto, opset: int) -> None:
    for made in proto.graph.node:
        assert {attribute.name for attribute in made.attribute} <= set(defs.get_schema(made.op_type, opset).attributes), made.op_type


WHOLE = np.arange(72, dtype=np.int8).reshape(2, 4, 3, 3)


@pytest.mark.parametrize(("made", "output", "opsets", "x"), [
    (node("Cast", ["x"], ["y"], to=10, saturate=1, round_mode="up"), 10, (23, 18), X),
    (node("CastLike", ["x", "like"], ["y"], saturate=1, round_mode="up"), 10, (23, 18, 13), X),
    (node("QuantizeLinear", ["x", "scale", "zero"], ["y"], saturate=1), 3, (22, 18, 13), X),
    (node("QuantizeLinear", ["x", "scale"], ["y"], output_dtype=3, block_size=0), 3, (20, 13), X),
    (node("DequantizeLinear", ["x", "scale", "zero"], ["y"], output_dtype=1, block_size=0), 1, (22, 18, 13), WHOLE),
    (node("GroupNormalization", ["x", "four", "four"], ["y"], num_groups=2), 1, (20, 18, 17, 13), X),
    (node("Shape", ["x"], ["y"], start=-3, end=-1), 7, (14, 13), X),
], ids=lambda value: getattr(value, "op_type", ""))
def test_newer_attributes_go_and_results_stay(made, output, opsets, x, tmp_path):
    onnxruntime.set_default_logger_severity(3)
    proto = model(made, output, x=x)
    try:
        expected = results(proto, x)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        expected = results(written(proto, 21, tmp_path), x)
    for opset in opsets:
        older = written(proto, opset, tmp_path)
        assert_known_to(older, opset)
        np.testing.assert_allclose(results(older, x).astype(np.float32), expected.astype(np.float32), rtol=1e-4, atol=1e-4)


def test_the_type_of_what_is_dequantised(tmp_path):
    """`output_dtype` came with opset 23; before it, the type is that of the scale."""
    older = written(model(node("DequantizeLinear", ["x", "scale", "zero"], ["y"], output_dtype=10), 10, x=WHOLE), 21, tmp_path)
    assert [each.op_type for each in older.graph.node] == ["DequantizeLinear", "Cast"]
    assert_known_to(older, 21)
    np.testing.assert_array_equal(results(older, WHOLE), ((WHOLE.astype(np.float32) - 3) * 0.5).astype(np.float16))


def attention(**attributes):
    return node("Attention", ["x", "x", "x"], ["y"], **attributes)


def test_windows_of_attention(tmp_path):
    """A window came with opset 25 and the lengths of the cache with 24: what says nothing is dropped, what says something is refused."""
    older = written(model(attention(left_window_size=-1, right_window_size=-1), 1), 24, tmp_path)
    assert_known_to(older, 24)
    with pytest.raises(Unsupported, match="Attention"):
        written(model(attention(left_window_size=1), 1), 24, tmp_path)
    with_lengths = model(attention(), 1)
    with_lengths.graph.node[0].input.extend(["", "", "", "lengths"])
    with_lengths.graph.initializer.append(numpy_helper.from_array(np.array([3, 3]), "lengths"))
    with pytest.raises(Unsupported) as caught:
        written(with_lengths, 23, tmp_path)
    assert "nonpad_kv_seqlen" in caught.value.blockers[0][2]


def test_range_of_opset_27_is_read(tmp_path):
    proto = model(node("Range", ["one", "x", "one"], ["y"], stash_type=1), 1, 27, np.float32(4))
    assert [set(made.attributes) for made in onnx_format.read(Artifact.open(proto.SerializeToString())).graph] == [set()]
