"""LayersModels that isomorph writes and published ones, loaded and run by TensorFlow.js in Node and in a browser."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path

import browser
import environments
import keras_files as files
import numpy as np
import onnxruntime
import pytest
from zoo import zoo

import isomorph
from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.formats import _table, keras, onnx, tfjs_layers
from isomorph.runtime import Session

BOUND = 1e-5                                     # of the range of an output
SHARED = next((folder / "shared/data" for folder in Path(__file__).parents if (folder / "shared/data").is_dir()), None)
TARGETS = ("onnx", "keras", "tflite", "tfjs_layers")
RNG = np.random.default_rng(4)


def layer(kind: str, **config) -> dict:
    return {"module": "keras.layers", "class_name": kind, "config": {"name": kind.lower(), **config}, "registered_name": None}


def weights(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]


CONV = layer("Conv2D", filters=4, kernel_size=[3, 3], padding="same", activation="relu")
NETWORKS = {
    "pictures": ((None, 8, 8, 3), [CONV, layer("MaxPooling2D", pool_size=[2, 2]), layer("UpSampling2D", size=[2, 2]), layer("Flatten"),
                                layer("Dense", units=2)],
                 {"conv2d": weights((3, 3, 3, 4), (4,)), "dense": weights((256, 2), (2,))}),
    "steps": ((None, 5, 3), [layer("LSTM", units=4), layer("Dense", units=2, activation="softmax")],
              {"lstm/cell": weights((3, 16), (4, 16), (16,)), "dense": weights((4, 2), (2,))}),
    "both ways": ((None, 5, 3), [layer("Bidirectional", merge_mode="concat", layer=layer("LSTM", units=4, return_sequences=True)), layer("Dense", units=2)],
                  {"bidirectional/forward_layer/cell": weights((3, 16), (4, 16), (16,)), "bidirectional/backward_layer/cell": weights((3, 16), (4, 16), (16,)),
                   "dense": weights((8, 2), (2,))}),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [None, "fp16"])
def test_tensorflow_js_runs_it(tmp_path, name, dtype):
    environments.use("tfjs")
    shape, layers, variables = NETWORKS[name]
    places = {f"layers/{path}/vars/{index}": array for path, arrays in variables.items() for index, array in enumerate(arrays)}
    path = files.keras(tmp_path / "m.keras", files.sequential(*layers, shape=shape), files.modern_weights(places))
    hub = to_hub(keras.read(Artifact.open(path)))
    onnx.write(hub, tmp_path / "m.onnx")
    tfjs_layers.write(from_hub(hub, "keras"), tmp_path / "web", dtype=dtype)
    x = RNG.standard_normal((2, *shape[1:])).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    wanted = session.run(None, {session.get_inputs()[0].name: x})[0]
    with Session(tmp_path / "web" / "model.json", "tfjs_layers") as runtime:
        (got,) = runtime.run({runtime.inputs()[0].name: x}).values()
    np.testing.assert_allclose(got, wanted, atol=(1e-5 if dtype is None else 1e-2) * np.abs(wanted).max())


TRAINING = {"optimizer": {"module": "keras.optimizers", "class_name": "SGD", "config": {"learning_rate": 1e-4}, "registered_name": None},
            "loss": "mean_squared_error", "metrics": []}


def test_tensorflow_js_trains_it_further(tmp_path):
    """With the optimizer and the loss that the file carries."""
    shape, layers, variables = NETWORKS["pictures"]
    places = {f"layers/{path}/vars/{index}": array for path, arrays in variables.items() for index, array in enumerate(arrays)}
    config = files.sequential(*layers, shape=shape) | {"compile_config": TRAINING}
    path = files.keras(tmp_path / "m.keras", config, files.modern_weights(places))
    isomorph.convert(path, tmp_path / "web" / "model.json", to="tfjs_layers", verify=False)
    command = ["node", str(Path(__file__).with_name("tfjs_training.js")), str(environments.node("tfjs")), str(tmp_path / "web" / "model.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["optimizer"] == "SGD"
    assert found["losses"][-1] < 0.9 * found["losses"][0]


# ---- published ones

def published(name: str) -> Path:
    """The model.json of one; the one with an Embedding and a GRU lies in no package."""
    if name != "embedding_and_gru":
        return zoo(name)
    if SHARED is None:
        pytest.skip("shared/data is not beside the checkout")
    return SHARED / "tfjs-e2e/layers_model/model.json"


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("name", ["embedding_and_gru", "esrgan_slim_x2",
                                  *(pytest.param(f"esrgan_slim_x{factor}", marks=pytest.mark.slow) for factor in (3, 4, 8))])
def test_published_models(name: str, to: str, tmp_path: Path) -> None:
    """TensorFlow.js in Node runs the source, and each result runs in the runtime that its format is made for."""
    environments.use("tfjs")
    environments.use("tensorflow")
    report = isomorph.convert(published(name), tmp_path / _table.output_name(to, "out"), to=to)
    assert report.facts["verified"] == "native"
    assert all(output["max_abs"] <= BOUND * output["range"] for output in report.facts["outputs"])


@pytest.mark.parametrize("names", [("embedding_and_gru", "esrgan_slim_x2"),
                                   pytest.param(("esrgan_slim_x3", "esrgan_slim_x4", "esrgan_slim_x8"), marks=pytest.mark.slow)])
def test_published_models_in_a_browser(names: tuple[str, ...], tmp_path: Path) -> None:
    """The sources and what becomes of them by way of ONNX, as LayersModel and as GraphModel, beside ONNX Runtime."""
    ways: dict[str, dict[str, np.ndarray]] = {}
    wanted = []
    for name in names:
        x = (RNG.integers(0, 100, (2, 10)) if name == "embedding_and_gru" else RNG.random((1, 12, 9, 3))).astype(np.float32)
        source = published(name)
        isomorph.convert(source, tmp_path / f"{name}.onnx", verify=False)
        with Session(tmp_path / f"{name}.onnx", "onnx") as session:
            feeds = {session.inputs()[0].name: x}
            result = next(iter(session.run(feeds).values()))
        for to in ("tfjs_layers", "tfjs_graph"):
            isomorph.convert(tmp_path / f"{name}.onnx", tmp_path / f"{name}-{to}" / "model.json", to=to, verify=False)
        folder = tmp_path / f"{name}-source"
        folder.mkdir()
        for file in source.parent.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        ways |= {f"{name}-{way}": feeds for way in ("source", "tfjs_layers", "tfjs_graph")}
        wanted += [result] * 3
    for way, got, want in zip(ways, browser.results(tmp_path, ways), wanted, strict=True):
        assert np.abs(got - want).max() <= BOUND * np.abs(want).max(), way
