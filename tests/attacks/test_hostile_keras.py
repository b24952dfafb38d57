"""Hostile files of Keras: nothing in them is imported or run, nothing outside is opened, and no size is believed."""
from __future__ import annotations

import base64
import contextlib
import io
import marshal
import sys
import zipfile

import h5py
import keras_files as files
import numpy as np
import pytest

from isomorph.artifact import Artifact
from isomorph.dialects import to_hub
from isomorph.errors import Damaged, IsomorphError, Unsafe, Unsupported
from isomorph.formats import keras, keras_h5
from isomorph.model import Model
from isomorph.verification.subject import Subject

ONES = np.ones((3, 2), np.float32)


def hdf5(build) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        build(file)
    return memory.getvalue()


def opened(tmp_path, weights: bytes):
    return keras.read(Artifact.open(files.keras(tmp_path / "m.keras", files.sequential(files.dense("d", 2)), weights)))


def test_bytecode_is_data(tmp_path):
    marker = tmp_path / "ran"
    code = base64.b64encode(marshal.dumps(compile(f"open({str(marker)!r}, 'w')", "x", "exec"))).decode()
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": {"class_name": "__lambda__", "config": {"code": code}}}}
    path = files.keras(tmp_path / "m.keras", files.sequential(layer), files.modern_weights({}))
    with pytest.raises(Unsupported):
        to_hub(keras.read(Artifact.open(path)))
    assert not marker.exists()


@pytest.mark.parametrize("where", ["module", "registered_name", "activation", "initializer"])
def test_modules_are_not_imported(tmp_path, where):
    (tmp_path / "evil_of_keras.py").write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path))
    try:
        layer = files.dense("d", 2)
        function = {"module": "evil_of_keras", "class_name": "function", "config": "run", "registered_name": "evil_of_keras>run"}
        if where == "activation":
            layer["config"]["activation"] = function
        elif where == "initializer":
            layer["config"]["kernel_initializer"] = function
        else:
            layer[where] = "evil_of_keras"
        path = files.keras(tmp_path / "m.keras", files.sequential(layer), files.modern_weights({"layers/dense/vars/0": ONES, "layers/dense/vars/1": ONES[0]}))
        with contextlib.suppress(IsomorphError):
            to_hub(keras.read(Artifact.open(path)))
        assert "evil_of_keras" not in sys.modules
    finally:
        sys.path.remove(str(tmp_path))


def test_soft_links_are_refused(tmp_path):
    def build(file):
        file["elsewhere"] = ONES
        file.create_group("layers/dense/vars")["0"] = h5py.SoftLink("/elsewhere")
    with pytest.raises(Unsafe, match="SoftLink"):
        opened(tmp_path, hdf5(build))


def test_external_links_are_refused(tmp_path):
    (tmp_path / "secret.h5").write_bytes(hdf5(lambda file: file.create_dataset("x", data=ONES)))

    def build(file):
        file.create_group("layers/dense/vars")["0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")
    with pytest.raises(Unsafe, match="ExternalLink"):
        opened(tmp_path, hdf5(build))


def test_external_storage_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(24))

    def build(file):
        file.create_dataset("layers/dense/vars/0", (3, 2), "f4", external=[(str(tmp_path / "secret"), 0, 24)])
    with pytest.raises(Unsafe, match="other files"):
        opened(tmp_path, hdf5(build))


def test_virtual_datasets_are_refused(tmp_path):
    def build(file):
        layout = h5py.VirtualLayout((3, 2), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (3, 2))
        file.create_virtual_dataset("layers/dense/vars/0", layout)
    with pytest.raises(Unsafe, match="other files"):
        opened(tmp_path, hdf5(build))


def test_a_dataset_that_swells_is_refused(tmp_path):
    def build(file):
        file.create_dataset("layers/dense/vars/0", (1 << 16, 1 << 12), "f4", chunks=(1 << 8, 1 << 8), compression="gzip")
    with pytest.raises(Unsafe, match="times as many"):
        opened(tmp_path, hdf5(build))


def test_groups_in_a_circle_are_refused(tmp_path):
    def build(file):
        inner = file.create_group("layers/dense/vars")
        inner["again"] = file["layers"]
    with pytest.raises(Unsafe, match="twice"):
        opened(tmp_path, hdf5(build))


def test_a_zip_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("metadata.json", '{"keras_version": "3.0.0"}')
        file.writestr("config.json", b'{"class_name": "Sequential", "config": {}, "x": "' + bytes(64 << 20) + b'"}')
        file.writestr("model.weights.h5", files.modern_weights({}))
    with pytest.raises(Unsafe):
        keras.read(Artifact.open(tmp_path / "m.keras"))


def test_layers_nested_too_deep_are_refused(tmp_path):
    config = files.sequential(files.dense("d", 2))
    for _ in range(80):
        config = files.sequential(config)
    with pytest.raises((Unsafe, Damaged)):
        keras.read(Artifact.open(files.keras(tmp_path / "m.keras", config, files.modern_weights({}))))


def test_layers_that_call_each_other_in_a_circle_end(tmp_path):
    def layer(name, source):
        return {**files.dense(name, 2), "name": name, "inbound_nodes": [{"args": [{"class_name": "__keras_tensor__", "config": {
            "shape": [None, 2], "dtype": "float32", "keras_history": [source, 0, 0]}}], "kwargs": {}}]}
    config = files.sequential()
    config["class_name"] = "Functional"
    config["config"] |= {"layers": [config["config"]["layers"][0] | {"name": "x", "inbound_nodes": []}, layer("a", "b"), layer("b", "a")],
                         "input_layers": [["x", 0, 0]], "output_layers": [["a", 0, 0]]}
    with pytest.raises(Damaged, match="circle"):
        keras.read(Artifact.open(files.keras(tmp_path / "m.keras", config, files.modern_weights({}))))


def test_damaged_bytes_end_in_an_error_of_ours(tmp_path):
    whole = files.legacy(tmp_path / "m.h5", files.sequential(files.dense("d", 2)), {"d": {"d/kernel:0": ONES, "d/bias:0": ONES[0]}}).read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 9)):
            data[rng.integers(len(data))] = rng.integers(256)
        cut = rng.integers(1, len(data) + 1) if rng.random() < 0.2 else len(data)
        with contextlib.suppress(IsomorphError):
            found = keras_h5.read(Artifact.open(bytes(data[:cut])))
            if isinstance(found, Model):
                to_hub(found)


@pytest.mark.parametrize("what", [{"class_name": "Lambda"}, {"module": "evil_of_keras"},
                                  {"activation": {"module": "evil", "class_name": "function", "config": "run"}},
                                  {"kernel_initializer": {"module": "evil", "class_name": "Own", "config": {}}}, {}])
def test_keras_is_not_handed_code(tmp_path, what):
    layer = files.dense("d", 2)
    layer |= {key: value for key, value in what.items() if isinstance(value, str)}
    layer["config"] |= {key: value for key, value in what.items() if isinstance(value, dict)}
    weights = files.modern_weights({"layers/dense/vars/0": ONES, "layers/dense/vars/1": ONES[0]})
    path = files.keras(tmp_path / "m.keras", files.sequential(layer), weights)
    assert Subject(path).harmless is (not what)


@pytest.mark.parametrize(("function", "harmless"), [("io.write_file", False), ("raw_ops.PyFunc", False), ("nn.relu", True)])
def test_keras_2_is_not_handed_functions_that_touch_files(tmp_path, function, harmless):
    """A model of Keras 2 names raw functions of TensorFlow, which would call them."""
    layers = [{"class_name": "InputLayer", "config": {"batch_input_shape": [2, 3], "dtype": "float32", "name": "x"}, "name": "x", "inbound_nodes": []},
              {"class_name": "TFOpLambda", "name": "op", "config": {"name": "op", "trainable": True, "dtype": "float32", "function": function},
               "inbound_nodes": [["x", 0, 0, {}]]}]
    config = {"class_name": "Functional", "config": {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["op", 0, 0]]}}
    assert Subject(files.legacy(tmp_path / "m.h5", config, {})).harmless is harmless


@pytest.mark.parametrize("inner", ["Lambda", "TFOpLambda", "Dense"])
def test_keras_2_is_not_handed_code_inside_a_wrapper(tmp_path, inner):
    """Files of Keras 2 keep bytecode as text, which Keras 2 runs whatever it is asked."""
    settings = {"Lambda": {"function": ["4wEAAAA=", None, None], "function_type": "lambda"}, "TFOpLambda": {"function": "io.write_file"},
                "Dense": {"units": 2, "use_bias": False}}
    wrapper = {"class_name": "TimeDistributed", "config": {"name": "t", "batch_input_shape": [None, 4, 3],
                                                           "layer": {"class_name": inner, "config": {"name": "i", **settings[inner]}}}}
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": [wrapper]}}
    assert Subject(files.legacy(tmp_path / "m.h5", config, {})).harmless is (inner == "Dense")
