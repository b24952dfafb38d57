"""Reading what Keras wrote: containers, generations, and where the variables stand."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import keras_files as files
import numpy as np
import onnxruntime
import pytest

import isomorph
from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.errors import Damaged, Missing, Unsupported
from isomorph.formats import keras, keras_h5, onnx, safetensors, tfjs_layers
from isomorph.model import Checkpoint, operators
from isomorph.tensors import SliceTensor

KERNEL, BIAS = np.arange(6, dtype=np.float32).reshape(3, 2), np.float32([1, -1])
X = np.float32([[1, 2, 3]])


def run(model, tmp_path: Path, *inputs: np.ndarray) -> list[np.ndarray]:
    onnx.write(to_hub(model), tmp_path / "out.onnx", force=True)
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx")
    return session.run(None, dict(zip([port.name for port in session.get_inputs()], inputs, strict=True)))


def modern(tmp_path: Path) -> Path:
    weights = files.modern_weights({"layers/dense/vars/0": KERNEL, "layers/dense/vars/1": BIAS})
    return files.keras(tmp_path / "m.keras", files.sequential(files.dense("d", 2)), weights)


def test_keras_3(tmp_path):
    model = keras.read(Artifact.open(modern(tmp_path)))
    assert operators(model) == {"Dense": 1}
    assert [value.name for value in model.graph.inputs] == ["x"]
    np.testing.assert_array_equal(run(model, tmp_path, X)[0], X @ KERNEL + BIAS)


def test_weights_are_slices_of_the_mapping(tmp_path):
    model = keras.read(Artifact.open(modern(tmp_path)))
    tensor = model.graph.initializers["d/kernel"].const_value
    assert isinstance(tensor, SliceTensor)
    np.testing.assert_array_equal(tensor.numpy(), KERNEL)


def test_keras_2(tmp_path):
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": [
        {"class_name": "Dense", "config": {"name": "d", "units": 2, "activation": "relu", "use_bias": True, "batch_input_shape": [None, 3],
            "dtype": "float32"}}]}}
    path = files.legacy(tmp_path / "m.h5", config, {"d": {"d/kernel:0": KERNEL, "d/bias:0": BIAS}})
    np.testing.assert_array_equal(run(keras_h5.read(Artifact.open(path)), tmp_path, -X)[0], np.maximum(-X @ KERNEL + BIAS, 0))


def test_keras_1(tmp_path):
    """Its Sequential is a list, its words are others, and its pictures may be channels-first."""
    config = {"class_name": "Sequential", "config": [
        {"class_name": "Dense", "config": {"name": "d", "output_dim": 2, "init": "glorot_uniform", "activation": "linear", "bias": True,
                                           "batch_input_shape": [None, 3], "input_dtype": "float32"}}]}
    path = files.legacy(tmp_path / "m.h5", config, {"d": {"d_W": KERNEL, "d_b": BIAS}}, "1.2.2")
    np.testing.assert_array_equal(run(keras_h5.read(Artifact.open(path)), tmp_path, X)[0], X @ KERNEL + BIAS)


def test_weights_alone_are_a_checkpoint(tmp_path):
    path = files.legacy(tmp_path / "w.h5", None, {"d": {"d/kernel:0": KERNEL, "d/bias:0": BIAS}})
    found = keras_h5.read(Artifact.open(path))
    assert isinstance(found, Checkpoint)
    assert list(found) == ["d/d/bias:0", "d/d/kernel:0"]
    np.testing.assert_array_equal(found["d/d/kernel:0"].numpy(), KERNEL)


def test_weights_of_keras_3_alone_are_a_checkpoint(tmp_path):
    path = tmp_path / "m.weights.h5"
    path.write_bytes(files.modern_weights({"layers/dense/vars/0": KERNEL}))
    assert list(keras_h5.read(Artifact.open(path))) == ["layers/dense/vars/0"]


def test_layers_model(tmp_path):
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": [
        {"class_name": "Dense", "config": {"name": "d", "units": 2, "activation": "linear", "use_bias": True, "batch_input_shape": [None, 3],
            "dtype": "float32"}}]}}
    weights = [{"name": "d/kernel", "shape": [3, 2], "dtype": "float32", "quantization": {"dtype": "uint8", "min": -1.0, "scale": 0.5}},
               {"name": "d/bias", "shape": [2], "dtype": "float32"}]
    (tmp_path / "group1-shard1of1.bin").write_bytes(bytes(range(6)) + BIAS.tobytes())
    document = {"format": "layers-model", "modelTopology": {"keras_version": "2.15.0", "backend": "tensorflow", "model_config": config},
                "weightsManifest": [{"paths": ["group1-shard1of1.bin"], "weights": weights}]}
    (tmp_path / "model.json").write_text(json.dumps(document))
    kernel = np.arange(6, dtype=np.float32).reshape(3, 2) * 0.5 - 1
    for source in (tmp_path, tmp_path / "model.json"):
        np.testing.assert_array_equal(run(tfjs_layers.read(Artifact.open(source)), tmp_path, X)[0], X @ kernel + BIAS)


def test_layers_of_a_frozen_model_inside(tmp_path):
    """Keras 2 lists what is trained first, of all layers inside, and then the rest."""
    inner = {"class_name": "Sequential", "config": {"name": "s", "layers": [
        {"class_name": "Dense", "config": {"name": "a", "units": 2, "trainable": False, "batch_input_shape": [None, 3]}},
        {"class_name": "Dense", "config": {"name": "b", "units": 2}}]}}
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": [inner]}}
    second = np.float32([[1, 2], [3, 4]])
    row = {"b/kernel:0": second, "b/bias:0": -BIAS, "a/kernel:0": KERNEL, "a/bias:0": BIAS}
    path = files.legacy(tmp_path / "m.h5", config, {"s": row})
    np.testing.assert_array_equal(run(keras_h5.read(Artifact.open(path)), tmp_path, X)[0], (X @ KERNEL + BIAS) @ second - BIAS)


@pytest.mark.parametrize(("version", "slope"), [("3.0.0", 1 / 6), ("2.4.3", 0.2)])
def test_hard_sigmoid_differs_between_generations(tmp_path, version, slope):
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": [
        {"class_name": "Activation", "config": {"name": "a", "activation": "hard_sigmoid", "batch_input_shape": [None, 3]}}]}}
    path = files.legacy(tmp_path / "m.h5", config, {}, version)
    np.testing.assert_allclose(run(keras_h5.read(Artifact.open(path)), tmp_path, X)[0], np.clip(X * slope + 0.5, 0, 1), rtol=1e-6)


def test_everything_that_cannot_be_mapped_is_named_at_once(tmp_path):
    odd = [{"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}},
            "registered_name": None},
           {"module": "mine", "class_name": "Own", "config": {"name": "o"}, "registered_name": "mine>Own"}]
    path = files.keras(tmp_path / "m.keras", files.sequential(*odd), files.modern_weights({}))
    model = keras.read(Artifact.open(path))
    with pytest.raises(Unsupported) as caught:
        to_hub(model)
    assert [(kind, where) for kind, where, _ in caught.value.blockers] == [("keras::Lambda", "l"), ("keras.custom::Own", "o")]


def test_a_subclassed_model_says_what_is_missing(tmp_path):
    """Its weights are there, the code that calls its layers is not."""
    config = {"module": "mine", "class_name": "Net", "config": {"units": 2}, "registered_name": "mine>Net"}
    path = files.keras(tmp_path / "m.keras", config, files.modern_weights({"dense/vars/0": KERNEL}))
    isomorph.convert(path, tmp_path / "m.safetensors")
    content = safetensors.read(Artifact.open(tmp_path / "m.safetensors"))
    assert [(name, tensor.numpy().tolist()) for name, tensor in content.items()] == [("dense/vars/0", KERNEL.tolist())]
    made = isomorph.plan(path, to="onnx")
    assert [finding.code for finding in keras.read(Artifact.open(path)).findings] == ["keras.code"]
    assert "the class Net is the author's own" in made.blockers[0][2]


def test_a_file_without_weights(tmp_path):
    import zipfile
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
        file.writestr("metadata.json", '{"keras_version": "3.0.0"}')
        file.writestr("config.json", json.dumps(files.sequential(files.dense("d", 2))))
    with pytest.raises(Missing):
        keras.read(Artifact.open(tmp_path / "m.keras"))


def test_a_variable_that_is_missing_is_named(tmp_path):
    path = files.keras(tmp_path / "m.keras", files.sequential(files.dense("d", 2)), files.modern_weights({"layers/dense/vars/1": BIAS}))
    with pytest.raises(Unsupported, match="kernel"):
        to_hub(keras.read(Artifact.open(path)))


def test_a_list_that_names_what_is_not_there(tmp_path):
    path = files.legacy(tmp_path / "m.h5", files.sequential(files.dense("d", 2)), {"d": {"d/kernel:0": KERNEL, "d/bias:0": BIAS}})
    import h5py
    with h5py.File(path, "a") as file:
        del file["model_weights/d/d/kernel:0"]
    with pytest.raises(Damaged, match="kernel"):
        keras_h5.read(Artifact.open(path))


# ---- writing

def network(tmp_path: Path):
    """A picture network with weights, as ONNX."""
    import onnx as reference
    from onnx import TensorProto, helper, numpy_helper
    rng = np.random.default_rng(5)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)), "b": rng.standard_normal(4), "m": rng.standard_normal((4, 2)), "c": rng.standard_normal(2)}
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["conv"], name="stem/conv", pads=[1, 1, 1, 1], strides=[2, 2]), helper.make_node("Relu", ["conv"],
        ["relu"]),
             helper.make_node("GlobalAveragePool", ["relu"], ["pool"]), helper.make_node("Flatten", ["pool"], ["flat"]),
             helper.make_node("Gemm", ["flat", "m", "c"], ["y"], name="head")]
    shape = ["batch", 3, 8, 8]
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
                              [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    reference.save(proto, tmp_path / "net.onnx")
    return onnx.read(Artifact.open(tmp_path / "net.onnx"))


@pytest.mark.parametrize(("kind", "name"), [("keras", "net.keras"), ("keras_h5", "net.h5"), ("tfjs_layers", "web/model.json")])
def test_written_layers_compute_the_same(tmp_path, kind, name):
    from isomorph.dialects import from_hub
    from isomorph.formats import _table
    source = network(tmp_path)
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    layers = from_hub(source, "keras")
    assert {"Conv2D", "Dense", "ReLU", "GlobalAveragePooling2D"} <= operators(layers).keys()
    _table.get(kind).write(layers, tmp_path / name)
    again = _table.get(kind).read(Artifact.open(tmp_path / name))
    np.testing.assert_allclose(run(again, tmp_path, x)[0], session.run(None, {"x": x})[0], atol=1e-5)


def test_names_of_layers_have_no_slashes(tmp_path):
    from isomorph.dialects import from_hub
    keras.write(from_hub(network(tmp_path), "keras"), tmp_path / "net.keras")
    model = keras.read(Artifact.open(tmp_path / "net.keras"))
    names = [node.name for node in model.graph]
    assert any(name.startswith("stem_conv") for name in names)
    assert not any("/" in name for name in names)
    assert model.graph.outputs[0].name == "y"


def test_a_model_takes_any_batch_whatever_it_was_first_called_with(tmp_path):
    config = files.sequential(files.dense("d", 2))
    del config["config"]["layers"][0]
    config["build_config"] = {"input_shape": [1, 3]}
    path = files.keras(tmp_path / "m.keras", config, files.modern_weights({"layers/dense/vars/0": KERNEL, "layers/dense/vars/1": BIAS}))
    x = np.repeat(X, 3, axis=0)
    np.testing.assert_allclose(run(keras.read(Artifact.open(path)), tmp_path, x)[0], x @ KERNEL + BIAS, rtol=1e-6)


def test_layers_come_back_as_they_were(tmp_path):
    """Through ONNX and into a file again: the same layers under the same names, and nothing turned between them."""
    layers = [{"module": "keras.layers", "class_name": "Conv2D", "config": {"name": "features", "filters": 4, "kernel_size": [3, 3]}, "registered_name": None},
              {"module": "keras.layers", "class_name": "Flatten", "config": {"name": "flat"}, "registered_name": None}, files.dense("classes", 2)]
    rng = np.random.default_rng(3)
    arrays = {place: rng.standard_normal(shape).astype(np.float32) for place, shape in (("conv2d/vars/0", (3, 3, 3, 4)), ("conv2d/vars/1", (4,)),
                                                                                         ("dense/vars/0", (24, 2)), ("dense/vars/1", (2,)))}
    path = files.keras(tmp_path / "m.keras", files.sequential(*layers, shape=(None, 5, 4, 3)),
                       files.modern_weights({f"layers/{place}": array for place, array in arrays.items()}))
    x = rng.standard_normal((2, 5, 4, 3)).astype(np.float32)
    wanted = run(keras.read(Artifact.open(path)), tmp_path, x)[0]
    keras.write(from_hub(to_hub(keras.read(Artifact.open(path))), "keras"), tmp_path / "again.keras")
    again = keras.read(Artifact.open(tmp_path / "again.keras"))
    assert [(node.op_type, node.name) for node in again.graph if node.op_type != "Flatten"] == [("Conv2D", "features"), ("Dense", "classes")]
    assert operators(again)["Flatten"] == 1
    np.testing.assert_allclose(run(again, tmp_path, x)[0], wanted, atol=1e-5)


def test_operations_are_said_to_be_for_keras_3_only(tmp_path):
    from isomorph.dialects import from_hub
    path = files.keras(tmp_path / "m.keras", files.sequential(files.dense("d", 2), {
        "module": "keras.layers", "class_name": "UnitNormalization", "config": {"name": "u", "axis": [-1]}, "registered_name": None}), files.modern_weights(
            {"layers/dense/vars/0": KERNEL, "layers/dense/vars/1": BIAS}))
    layers = from_hub(to_hub(keras.read(Artifact.open(path))), "keras")
    assert [finding.code for finding in keras_h5.write(layers, tmp_path / "m.h5").findings] == ["keras.operations"]
    with pytest.raises(Unsupported, match=r"TensorFlow\.js"):
        tfjs_layers.write(layers, tmp_path / "model.json")


def test_without_h5py_it_is_said_what_is_missing(monkeypatch, tmp_path):
    """h5py comes with the extra `keras` only: reading and writing name it, and nothing is left behind."""
    source = modern(tmp_path)
    model = to_hub(keras.read(Artifact.open(source)))
    written = from_hub(model, "keras")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(Missing, match="h5py"):
        keras.read(Artifact.open(source))
    for form, name in ((keras, "out.keras"), (keras_h5, "out.h5")):
        with pytest.raises(Missing, match="h5py"):
            form.write(written, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize(("kind", "name"), [("keras", "net.keras"), ("keras_h5", "net.h5"), ("tfjs_layers", "web/model.json")])
@pytest.mark.parametrize("slope", [0.2, 1 / 6])
@pytest.mark.parametrize("layer", ["LSTM", "GRU"])
def test_gates_of_either_generation_are_written_for_both(tmp_path, kind, name, slope, layer):
    """A recurrent layer of Keras 2 computes the same as one of Keras 3 does with larger weights."""
    from isomorph.dialects import from_hub
    from isomorph.formats import _table
    rng = np.random.default_rng(2)
    gates = 4 if layer == "LSTM" else 3
    config = files.sequential({"module": "keras.layers", "class_name": layer, "config": {"name": "r", "units": 4, "activation": "tanh",
        "recurrent_activation": "hard_sigmoid", "return_sequences": True, "reset_after": False}, "registered_name": None}, shape=(None, 5, 3))
    if layer == "LSTM":
        del config["config"]["layers"][1]["config"]["reset_after"]
    arrays = {"kernel": rng.standard_normal((3, 4 * gates)), "recurrent_kernel": rng.standard_normal((4, 4 * gates)), "bias": rng.standard_normal(4 * gates)}
    row = {f"r/{key}:0": array.astype(np.float32) for key, array in arrays.items()}
    source = keras_h5.read(Artifact.open(files.legacy(tmp_path / "m.h5", config, {"r": row}, "2.15.0" if slope == 0.2 else "3.0.0")))
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    hub = to_hub(source)
    want = run(hub, tmp_path, x)[0]
    report = _table.get(kind).write(from_hub(hub, "keras"), tmp_path / name)
    assert [finding.code for finding in report.findings] == (["keras.generation"] if kind == "keras_h5" else [])
    if kind == "keras_h5":                        # our reader takes the version that the file states for the one that loads it
        import h5py
        with h5py.File(tmp_path / name, "a") as file:
            file.attrs["keras_version"] = "3.0.0"
    again = _table.get(kind).read(Artifact.open(tmp_path / name))
    assert layer in operators(again)
    np.testing.assert_allclose(run(again, tmp_path, x)[0], want, atol=1e-5)


@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("seen", [False, True])
def test_attention_of_other_authors_is_one_layer(tmp_path, scale, seen):
    """Projections, scores and what the heads gather, with any factor; not where somebody reads the scores."""
    import onnx as reference
    from onnx import TensorProto, helper, numpy_helper

    from isomorph.dialects import from_hub
    rng = np.random.default_rng(4)
    weights = {name: rng.standard_normal((6, 6)).astype(np.float32) for name in ("wq", "wk", "wv", "wo")}
    weights |= {"bv": rng.standard_normal(6).astype(np.float32), "split": np.int64([0, 0, 2, 3]), "join": np.int64([0, 0, 6]), "scale": np.float32(scale or 1)}
    nodes = [helper.make_node("MatMul", ["x", f"w{name}"], [f"{name}0"]) for name in "qkv"] + [helper.make_node("Add", ["v0", "bv"], ["v1"])]
    for name, source, perm in (("q", "q0", [0, 2, 1, 3]), ("k", "k0", [0, 2, 3, 1]), ("v", "v1", [0, 2, 1, 3])):
        nodes += [helper.make_node("Reshape", [source, "split"], [f"{name}2"]), helper.make_node("Transpose", [f"{name}2"], [f"{name}3"], perm=perm)]
    nodes += [helper.make_node("MatMul", ["q3", "k3"], ["s0"]), helper.make_node("Mul" if scale else "Identity", ["s0", "scale"][:2 if scale else 1], ["s1"]),
              helper.make_node("Softmax", ["s1"], ["s2"], axis=-1), helper.make_node("MatMul", ["s2", "v3"], ["y0"]),
              helper.make_node("Transpose", ["y0"], ["y1"], perm=[0, 2, 1, 3]), helper.make_node("Reshape", ["y1", "join"], ["y2"]),
              helper.make_node("MatMul", ["y2", "wo"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 6])]
    outputs += [helper.make_tensor_value_info("s2", TensorProto.FLOAT, ["batch", 2, 4, 4])] if seen else []
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 6])], outputs,
                              [numpy_helper.from_array(array, name) for name, array in weights.items()])
    reference.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "net.onnx")
    layers = from_hub(onnx.read(Artifact.open(tmp_path / "net.onnx")), "keras")
    assert ("MultiHeadAttention" in operators(layers)) is not seen
    keras.write(layers, tmp_path / "net.keras")
    x = rng.standard_normal((2, 4, 6)).astype(np.float32)
    want = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"x": x})
    for got, expected in zip(run(keras.read(Artifact.open(tmp_path / "net.keras")), tmp_path, x), want, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


OP_LAYERS = {
    "AddV2": ({}, {"1": 2.0}, lambda x: x + 2), "Sub": ({}, {"0": 1.0}, lambda x: 1 - x), "Relu": ({}, {}, lambda x: np.maximum(x, 0)),
    "Mean": ({"keep_dims": {"b": True}}, {"1": [1]}, lambda x: x.mean(1, keepdims=True)), "Reshape": ({}, {"1": [-1, 3, 2]}, lambda x: x.reshape(-1, 3, 2)),
    "Cast": ({"DstT": {"type": "DT_INT32"}}, {}, lambda x: x.astype(np.int32)), "ConcatV2": ({}, {"0": [[[1.0, 2, 3]]] * 2, "2": 1},
        lambda x: np.concatenate([np.float32([[[1, 2, 3]]] * 2), x], 1)),
    "StridedSlice": ({"begin_mask": {"i": "1"}, "end_mask": {"i": "1"}, "shrink_axis_mask": {"i": "2"}}, {"1": [0, 1, 0], "2": [0, 2, 2], "3": [1, 1, 1]},
                     lambda x: x[:, 1, 0:2]),
    "MatMul": ({"transpose_b": {"b": False}}, {"1": [[1.0], [2.0], [3.0]]}, lambda x: x @ np.float32([[1], [2], [3]])),
}


@pytest.mark.parametrize("operator", OP_LAYERS)
def test_raw_operators_of_tensorflow_2_0(tmp_path, operator):
    """TensorFlowOpLayer: a node of a graph as JSON."""
    attributes, constants, expected = OP_LAYERS[operator]
    node = {"name": "op", "op": operator, "input": ["x", "op/y"], "attr": attributes | {"T": {"type": "DT_FLOAT"}}}
    layers = [{"class_name": "InputLayer", "config": {"batch_input_shape": [2, 2, 3], "dtype": "float32", "name": "x"}, "name": "x", "inbound_nodes": []},
              {"class_name": "TensorFlowOpLayer", "name": "op", "config": {"name": "op", "trainable": True, "dtype": "float32", "node_def": json.dumps(node),
                                                                           "constants": constants}, "inbound_nodes": [[["x", 0, 0, {}]]]}]
    config = {"class_name": "Functional", "config": {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["op", 0, 0]]}}
    path = files.legacy(tmp_path / "m.h5", config, {}, "2.3.0-tf")
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3) - 5
    np.testing.assert_allclose(run(keras_h5.read(Artifact.open(path)), tmp_path, x)[0], expected(x), rtol=1e-6)


def test_a_raw_operator_without_a_mapping_is_named(tmp_path):
    node = {"name": "op", "op": "PyFunc", "input": ["x"], "attr": {}}
    layers = [{"class_name": "InputLayer", "config": {"batch_input_shape": [2, 3], "dtype": "float32", "name": "x"}, "name": "x", "inbound_nodes": []},
              {"class_name": "TensorFlowOpLayer", "name": "op", "config": {"name": "op", "node_def": json.dumps(node), "constants": {}},
               "inbound_nodes": [[["x", 0, 0, {}]]]}]
    config = {"class_name": "Functional", "config": {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["op", 0, 0]]}}
    with pytest.raises(Unsupported) as caught:
        to_hub(keras_h5.read(Artifact.open(files.legacy(tmp_path / "m.h5", config, {}))))
    assert caught.value.blockers[0][:2] == ("keras.tf::PyFunc", "op")


def test_a_vocabulary_of_its_own_file(tmp_path):
    """What a lookup has learnt lies in the file's assets, one word a line."""
    layer = {"module": "keras.layers", "class_name": "StringLookup", "config": {"name": "words", "num_oov_indices": 1, "mask_token": None, "oov_token": "[UNK]",
        "vocabulary": None, "output_mode": "int"}, "registered_name": None}
    config = files.sequential(layer, shape=(None, 3))
    config["config"]["layers"][0]["config"]["dtype"] = "string"
    path = files.keras(tmp_path / "m.keras", config, files.modern_weights({}), **{"assets/layers/string_lookup/vocabulary.txt": b"[UNK]\ndog\n\xc3\xa4"})
    words = np.asarray([["dog", "ä", "cat"]], object)
    assert run(keras.read(Artifact.open(path)), tmp_path, words)[0].tolist() == [[1, 2, 0]]
    empty = files.keras(tmp_path / "n.keras", config, files.modern_weights({}))
    with pytest.raises(Unsupported, match="vocabulary"):
        to_hub(keras.read(Artifact.open(empty)))


def sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def lstm_1(x, w):
    h = c = np.zeros((len(x), 4))
    for step in range(x.shape[1]):
        i, f, o, new = (x[:, step] @ w[f"W_{gate}"] + h @ w[f"U_{gate}"] + w[f"b_{gate}"] for gate in "ifoc")
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
        h = sigmoid(o) * np.tanh(c)
    return h


def gru_1(x, w):
    h = np.zeros((len(x), 4))
    for step in range(x.shape[1]):
        z, r = (sigmoid(x[:, step] @ w[f"W_{gate}"] + h @ w[f"U_{gate}"] + w[f"b_{gate}"]) for gate in "zr")
        new = np.tanh(x[:, step] @ w["W_h"] + (r * h) @ w["U_h"] + w["b_h"])
        h = z * h + (1 - z) * new
    return h


def simple_1(x, w):
    h = np.zeros((len(x), 4))
    for step in range(x.shape[1]):
        h = np.tanh(x[:, step] @ w["W"] + h @ w["U"] + w["b"])
    return h


@pytest.mark.parametrize(("kind", "gates", "expected"), [("LSTM", ("_i", "_c", "_f", "_o"), lstm_1), ("GRU", ("_z", "_r", "_h"), gru_1),
                                                         ("SimpleRNN", ("",), simple_1)])
def test_recurrent_layers_of_keras_1(tmp_path, kind, gates, expected):
    """One matrix for each gate, and words of its own."""
    rng = np.random.default_rng(6)
    shapes = {"W": (3, 4), "U": (4, 4), "b": (4,)}
    weights = {f"{letter}{gate}": rng.standard_normal(shape).astype(np.float32) for gate in gates for letter, shape in shapes.items()}
    config = {"class_name": "Sequential", "config": [{"class_name": kind, "config": {
        "name": "r", "output_dim": 4, "init": "glorot_uniform", "inner_init": "orthogonal", "activation": "tanh", "W_regularizer": None, "U_regularizer": None,
        "b_regularizer": None, "dropout_W": 0.0, "dropout_U": 0.0, "return_sequences": False, "go_backwards": False, "stateful": False, "unroll": False,
        "consume_less": "cpu", "input_dim": 3, "input_length": None, "batch_input_shape": [None, 5, 3], "input_dtype": "float32", "trainable": True,
        **({"inner_activation": "hard_sigmoid"} if kind != "SimpleRNN" else {}), **({"forget_bias_init": "one"} if kind == "LSTM" else {})}}]}
    path = files.legacy(tmp_path / "m.h5", config, {"r": {f"r_{name}": array for name, array in weights.items()}}, "1.2.2")
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(run(keras_h5.read(Artifact.open(path)), tmp_path, x)[0], expected(x, weights), atol=1e-5)
