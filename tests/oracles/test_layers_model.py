"""LayersModels that isomorph writes, loaded and run by TensorFlow.js in Node."""
from __future__ import annotations

import environments
import keras_files as files
import numpy as np
import onnxruntime
import pytest

from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.formats import keras, onnx, tfjs_layers
from isomorph.runtime import Session

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
