"""Runs inside the environment `tensorflow`: builds networks of keras.applications with random weights, saves them as .keras and .h5, and computes one picture.

    python keras_applications.py FOLDER [NAME ...]

Prints a line of JSON for each: name, files. Inputs and outputs lie in FOLDER/NAME.npz.
"""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71, "NASNetMobile": 224, "NASNetLarge": 331}
SIZE = 64


def names(applications) -> list[str]:
    """The functions that build a network, of those that the package exports."""
    return [name for name in dir(applications) if name[0].isupper() and callable(getattr(applications, name))]


def make(name: str, folder: Path) -> dict:
    import keras
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    size = SMALLEST.get(name, SIZE)
    options = {"classifier_activation": None} if "NASNet" not in name else {}
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10, **options)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "moving_variance" in weight.path:
            weight.assign(rng.random(weight.shape) * 0.2 + 0.9)
    picture = rng.random((1, size, size, 3)).astype(np.float32) * (255 if "Efficient" in name or "ConvNeXt" in name or "V3" in name else 1)
    result = np.asarray(model(picture, training=False))
    model.save(folder / f"{name}.keras")
    model.save(folder / f"{name}.h5")
    np.savez(folder / f"{name}.npz", picture=picture, result=result)
    return {"name": name, "files": [f"{name}.keras", f"{name}.h5"]}


def main() -> None:
    import keras
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for name in sys.argv[2:] or names(keras.applications):
        print(json.dumps(make(name, folder)), flush=True)


if __name__ == "__main__":
    main()
