"""How a model was trained, from file to file: every generation's form, and nothing of the author's own."""
from __future__ import annotations

import json
import zipfile

import h5py
import keras_files as files
import numpy as np
import pytest

import isomorph

KERNEL, BIAS = np.ones((3, 2), np.float32), np.zeros(2, np.float32)
OLD = {"optimizer_config": {"class_name": "Custom>Adam", "config": {"lr": 0.01, "beta_1": 0.8, "decay": 0.0, "is_legacy_optimizer": True}},
       "loss": {"class_name": "BinaryCrossentropy", "config": {"reduction": "auto", "name": "b", "from_logits": True, "fn": "binary_crossentropy"}},
       "metrics": [[{"class_name": "MeanMetricWrapper", "config": {"name": "accuracy", "dtype": "float32", "fn": "binary_accuracy"}}]],
       "weighted_metrics": None, "loss_weights": None}
NEUTRAL = {"optimizer_config": {"class_name": "Adam", "config": {"beta_1": 0.8, "learning_rate": 0.01}},
           "loss": {"class_name": "BinaryCrossentropy", "config": {"name": "b", "from_logits": True}}, "metrics": ["binary_accuracy"], "weighted_metrics": None,
           "loss_weights": None}


def legacy(tmp_path, training):
    path = files.legacy(tmp_path / "m.h5", files.sequential(files.dense("d", 2)), {"d": {"d/kernel:0": KERNEL, "d/bias:0": BIAS}})
    with h5py.File(path, "a") as file:
        file.attrs["training_config"] = json.dumps(training)
    return path


def compiled(path):
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("config.json")).get("compile_config")


def test_from_keras_2_by_way_of_onnx_to_keras_3(tmp_path):
    isomorph.convert(legacy(tmp_path, OLD), tmp_path / "m.onnx", verify=False)
    isomorph.convert(tmp_path / "m.onnx", tmp_path / "m.keras", verify=False)
    found = compiled(tmp_path / "m.keras")
    assert found["optimizer"] == {"module": "keras.optimizers", "class_name": "Adam", "config": {"beta_1": 0.8, "learning_rate": 0.01}, "registered_name": None}
    assert found["loss"] == {"module": "keras.losses", **NEUTRAL["loss"], "registered_name": None}
    assert found["metrics"] == ["binary_accuracy"]


def test_from_keras_3_to_keras_2_and_tensorflow_js(tmp_path):
    config = files.sequential(files.dense("d", 2))
    config["compile_config"] = {"optimizer": {"module": "keras.optimizers", "class_name": "SGD", "config": {"learning_rate": 0.5, "momentum": 0.9},
        "registered_name": None}, "loss": {"module": "builtins", "class_name": "function", "config": "mean_squared_error", "registered_name": "function"},
        "metrics": ["mae"], "weighted_metrics": None, "loss_weights": None, "run_eagerly": False, "jit_compile": True}
    path = files.keras(tmp_path / "m.keras", config, files.modern_weights({"layers/dense/vars/0": KERNEL, "layers/dense/vars/1": BIAS}))
    isomorph.convert(path, tmp_path / "m.h5", verify=False)
    with h5py.File(tmp_path / "m.h5") as file:
        found = json.loads(file.attrs["training_config"])
    assert found["optimizer_config"] == {"class_name": "SGD", "config": {"learning_rate": 0.5, "momentum": 0.9}}
    assert (found["loss"], found["metrics"]) == ("mean_squared_error", ["mae"])
    isomorph.convert(path, tmp_path / "web" / "model.json", to="tfjs_layers", verify=False)
    document = json.loads((tmp_path / "web" / "model.json").read_text())
    assert document["modelTopology"]["training_config"] == found
    assert document["trainingConfig"]["optimizer_config"] == found["optimizer_config"]
    isomorph.convert(tmp_path / "web", tmp_path / "back.keras", verify=False)
    assert compiled(tmp_path / "back.keras")["optimizer"]["config"] == {"learning_rate": 0.5, "momentum": 0.9}


@pytest.mark.parametrize("change", [{"loss": {"module": "evil", "class_name": "function", "config": "run", "registered_name": "evil>run"}},
                                    {"loss": {"class_name": "evil.Loss", "config": {}}},
                                    {"optimizer_config": {"module": "os", "class_name": "Adam", "config": {}}},
                                    {"metrics": [{"class_name": "function", "config": "os.system"}]}, {"optimizer_config": 3}])
def test_code_of_others_is_not_carried(tmp_path, change):
    report = isomorph.convert(legacy(tmp_path, OLD | change), tmp_path / "m.keras", verify=False)
    assert "keras.training" in {finding.code for finding in report.findings}
    assert compiled(tmp_path / "m.keras") is None


def test_a_file_of_onnx_that_says_so_is_not_believed(tmp_path):
    import onnx
    isomorph.convert(legacy(tmp_path, OLD), tmp_path / "m.onnx", verify=False)
    proto = onnx.load(tmp_path / "m.onnx")
    (entry,) = (entry for entry in proto.metadata_props if entry.key == "keras.training_config")
    assert json.loads(entry.value) == NEUTRAL
    entry.value = json.dumps(NEUTRAL | {"loss": {"module": "evil", "class_name": "Loss", "config": {}}})
    onnx.save(proto, tmp_path / "evil.onnx")
    isomorph.convert(tmp_path / "evil.onnx", tmp_path / "m.keras", verify=False)
    assert compiled(tmp_path / "m.keras") is None
