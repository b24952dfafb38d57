"""Runs inside the environment `tensorflow`: builds networks of keras.applications with random weights, saves them as .keras and .h5, and computes one picture.

    python keras_applications.py FOLDER      with names of networks on standard input, a line each; first a line with all names is printed

Prints a line of JSON for each: {"name", "files"} or {"name", "error"}. Inputs and outputs lie in FOLDER/NAME.npz.
"""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
SIZE = 64
NOISE = 1e-5
BYTES = ("Efficient", "ConvNeXt", "MobileNetV3")             # take pictures of 0 to 255 and scale them themselves


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
    picture = rng.random((1, size, size, 3)).astype(np.float32) * (255 if name.startswith(BYTES) else 1)
    result = settled(model, picture, rng)
    files = [f"{name}.keras", f"{name}.h5"]
    for file in files:
        model.save(folder / file)
    np.savez(folder / f"{name}.npz", picture=picture, result=result)
    return {"name": name, "files": files}


def settled(model, picture, rng):
    """The result, of a network whose normalisations are made smaller until noise in the picture does not become more than ten times as large in the result.
    As they are initialised the deepest networks grow without bounds, and then the rounding of any one operation decides the result."""
    noisy = picture * (1 + NOISE * rng.standard_normal(picture.shape)).astype(np.float32)
    for _ in range(30):
        result, other = (np.asarray(model(each, training=False)) for each in (picture, noisy))
        if np.abs(result - other).max() <= 10 * NOISE * np.abs(result).max():
            return result
        for weight in model.weights:
            if weight.path.endswith("gamma"):
                weight.assign(weight * 0.85)
    raise ArithmeticError("its result is noise")


def main() -> None:
    import keras
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    print(json.dumps(names(keras.applications)), flush=True)
    for line in sys.stdin:
        try:
            answer = make(line.strip(), folder)
        except Exception as error:
            answer = {"name": line.strip(), "error": f"{type(error).__name__}: {str(error)[:400]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
