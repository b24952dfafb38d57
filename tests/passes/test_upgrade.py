"""Every adapter of old forms: what it makes of one node, and that nothing is left that the hub's schema does not know."""
from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import defs, helper, numpy_helper

from isomorph.artifact import Artifact
from isomorph.formats import onnx as onnx_format
from isomorph.model import HUB_OPSET
from isomorph.passes import downgrade, upgrade

node, info = helper.make_node, helper.make_tensor_value_info
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4, 3, 3)).astype(np.float32)
VECTORS = {"v": np.float32([1, 2, 3, 4]), "g": np.float32([2, 3]), "two": np.array(2.0, np.float32), "axis": np.array(1.0, np.float32),
           "row": X[0, 0, 0], "flag": np.array([True, False, True])}


def read(made, opset: int, kind: int = 1):
    """The hub's model of one old node. Its inputs are x, of `kind`, and the initializers of VECTORS."""
    used = [numpy_helper.from_array(array, name) for name, array in VECTORS.items() if name in made.input]
    outputs = [info(name, 9 if made.op_type in LOGICAL else kind, None) for name in made.output if name]
    inputs = [info("x", kind, X.shape)] + [info(each.name, each.data_type, each.dims) for each in used]
    graph = helper.make_graph([made], "g", inputs, outputs, initializer=used)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
    return onnx_format.read(Artifact.open(model.SerializeToString()))


def run(model, tmp_path, x=X):
    """At opset 21, because ONNX Runtime lacks kernels for what later ones only widened."""
    onnxruntime.set_default_logger_severity(3)
    onnx_format.write(model, tmp_path / "x.onnx", force=True, opset=21)
    return onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"]).run(None, {"x": x})


LOGICAL = {"And", "Or", "Xor", "Equal", "Greater", "Less"}
SINGLE = ["Abs", "Ceil", "Clip", "Elu", "Exp", "Floor", "HardSigmoid", "LeakyRelu", "Log", "Max", "Mean", "Min", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid",
          "Sqrt", "Sum", "Tanh", "Dropout"]
HINTED = [(5, node(name, ["x"], ["y"], consumed_inputs=[0])) for name in SINGLE] + [
    (4, node("Reshape", ["x"], ["y"], shape=[2, -1], consumed_inputs=[0])),
    (5, node("PRelu", ["x", "v"], ["y"], consumed_inputs=[0])), (5, node("InstanceNormalization", ["x", "v", "v"], ["y"], consumed_inputs=[0])),
    (5, node("BatchNormalization", ["x", "v", "v", "v", "v"], ["y"], is_test=1, consumed_inputs=[0, 0, 0, 1, 1])),
    (6, node("Gemm", ["x", "v", "v"], ["y"], broadcast=1)), (6, node("Dropout", ["x"], ["y"], is_test=1, ratio=0.25)),
    (6, node("RNN", ["x", "v", "v"], ["y"], hidden_size=4, output_sequence=1)), (6, node("GRU", ["x", "v", "v"], ["y"], hidden_size=4, output_sequence=1)),
    (6, node("LSTM", ["x", "v", "v"], ["y"], hidden_size=4, output_sequence=1)),
    *((6, node(name, ["x", "v"], ["y"], broadcast=1, axis=1)) for name in ("Add", "Sub", "Mul", "Div", "Pow", "Greater", "Less", "Equal")),
    *((6, node(name, ["x", "flag"], ["y"], broadcast=1)) for name in ("And", "Or", "Xor")),
]


@pytest.mark.parametrize(("opset", "made"), HINTED, ids=lambda value: value.op_type if hasattr(value, "op_type") else "")
def test_attributes_that_went_away_are_gone(opset, made):
    for found in read(made, opset, 9 if made.op_type in ("And", "Or", "Xor") else 1).graph:
        assert set(found.attributes) <= set(defs.get_schema(found.op_type, HUB_OPSET).attributes), found.op_type


@pytest.mark.parametrize("name", ["Sub", "Pow", "Greater", "Less"])
def test_broadcasting_from_an_axis(name, tmp_path):
    positive, operand = np.abs(X), VECTORS["v"].reshape(4, 1, 1)
    expected = {"Sub": np.subtract, "Pow": np.power, "Greater": np.greater, "Less": np.less}[name](positive, operand)
    np.testing.assert_allclose(run(read(node(name, ["x", "v"], ["y"], broadcast=1, axis=1), 6), tmp_path, positive)[0], expected, rtol=1e-5)


REDUCED = {"ReduceL1": lambda x: np.abs(x).sum(1), "ReduceL2": lambda x: np.sqrt((x * x).sum(1)), "ReduceLogSumExp": lambda x: np.log(np.exp(x).sum(1)),
           "ReduceMin": lambda x: x.min(1), "ReduceMax": lambda x: x.max(1), "ReduceProd": lambda x: x.prod(1), "ReduceMean": lambda x: x.mean(1),
           "ReduceSumSquare": lambda x: (x * x).sum(1), "ReduceSum": lambda x: x.sum(1), "ReduceLogSum": lambda x: np.log(x.sum(1))}


@pytest.mark.parametrize("name", REDUCED)
def test_axes_become_an_input_and_an_attribute_again(name, tmp_path):
    positive = np.abs(X)
    model = read(node(name, ["x"], ["y"], axes=[1], keepdims=0), 11)
    np.testing.assert_allclose(run(model, tmp_path, positive)[0], REDUCED[name](positive), rtol=1e-5)
    onnx_format.write(model, tmp_path / "old.onnx", opset=13)
    session = onnxruntime.InferenceSession(str(tmp_path / "old.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": positive})[0], REDUCED[name](positive), rtol=1e-5)


def pooled(x: np.ndarray) -> np.ndarray:
    return np.sqrt(sum(x[:, :, i:i + 2, j:j + 2] ** 2 for i in range(2) for j in range(2)))


@pytest.mark.parametrize(("opset", "made", "expected"), [
    (1, node("GlobalLpPool", ["x"], ["y"], p=2.0), np.sqrt((X * X).sum((2, 3), keepdims=True))),
    (1, node("LpPool", ["x"], ["y"], p=2.0, kernel_shape=[2, 2]), pooled(X)),
    (1, node("Tile", ["x", "two", "axis"], ["y"]), np.tile(X, (1, 2, 1, 1))),
    (1, node("Scale", ["x"], ["y"], scale=3.0), X * 3),
    (11, node("Dropout", ["x"], ["y"], ratio=0.5), X),
    (18, node("GroupNormalization", ["x", "g", "g"], ["y"], num_groups=2), None),
], ids=lambda value: getattr(value, "op_type", ""))
def test_single_adapters(opset, made, expected, tmp_path):
    if made.op_type == "GroupNormalization":
        groups = X.reshape(2, 2, -1)
        normal = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
        expected = (normal * VECTORS["g"][:, None] + VECTORS["g"][:, None]).reshape(X.shape)
    np.testing.assert_allclose(run(read(made, opset), tmp_path)[0], expected, rtol=1e-4, atol=1e-5)


def test_group_normalization_of_computed_scale(tmp_path):
    """Scale per group that is computed at run time, and channels that are not known before."""
    graph = helper.make_graph([node("Neg", ["g"], ["n"]), node("GroupNormalization", ["x", "n", "n"], ["y"], num_groups=2)], "g",
                              [info("x", 1, [2, "channels", 3, 3])], [info("y", 1, None)], initializer=[numpy_helper.from_array(VECTORS["g"], "g")])
    model = onnx_format.read(Artifact.open(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()))
    groups = X.reshape(2, 2, -1)
    normal = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    np.testing.assert_allclose(run(model, tmp_path)[0], (-normal * VECTORS["g"][:, None] - VECTORS["g"][:, None]).reshape(X.shape), rtol=1e-4, atol=1e-5)


def test_outputs_of_training_become_an_attribute():
    trained = read(node("BatchNormalization", ["x", "v", "v", "v", "v"], ["y", "m", "s"]), 9)
    found = next(iter(trained.graph))
    assert found.attributes["training_mode"].value == 1
    assert len(found.outputs) == 3
    plain = next(iter(read(node("BatchNormalization", ["x", "v", "v", "v", "v"], ["y"]), 9).graph))
    assert "training_mode" not in plain.attributes
    assert len(plain.outputs) == 1


def test_an_old_mask_keeps_its_type():
    model = read(node("Dropout", ["x"], ["y", "mask"]), 7)
    assert [each.op_type for each in model.graph] == ["Dropout", "Cast"]
    assert [value.name for value in model.graph.outputs] == ["y", "mask"]


def test_empty_inputs_of_resize_become_absent():
    empty = numpy_helper.from_array(np.zeros(0, np.float32), "empty")
    sizes = numpy_helper.from_array(np.array([2, 4, 6, 6]), "sizes")
    graph = helper.make_graph([node("Resize", ["x", "empty", "empty", "sizes"], ["y"])], "g", [info("x", 1, X.shape)], [info("y", 1, None)],
                              initializer=[empty, sizes])
    model = onnx_format.read(Artifact.open(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6).SerializeToString()))
    assert [value and value.name for value in next(iter(model.graph)).inputs] == ["x", None, None, "sizes"]


def test_every_adapter_names_a_version_that_changed_the_operator():
    """A row whose version did not change its operator would never have a reason."""
    gone = {"Affine", "ImageScaler", "Scale", "ScaledTanh", "ParametricSoftplus", "Crop"}          # experimental, no longer in any schema
    versions = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            versions.setdefault(schema.name, set()).add(schema.since_version)
    for table in (upgrade.adapters.table, downgrade.adapters.table):
        for operator, rows in table.items():
            assert operator in gone or set(rows) <= versions[operator], operator
