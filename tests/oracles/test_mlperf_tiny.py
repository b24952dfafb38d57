"""The trained networks of MLPerf Tiny from .h5 to TensorFlow Lite, beside the .tflite files that were published with them.

They lie in `shared/data`, no package carries them. Labelled inputs are not among them: what is compared is the result itself, and which class is greatest.
"""
from __future__ import annotations

from pathlib import Path

import environments
import numpy as np
import pytest
import running

import isomorph
from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.formats import keras_h5, tflite
from isomorph.runtime import Session
from isomorph.tensors import array_tensor

SHARED = next((folder / "shared/data" for folder in Path(__file__).parents if (folder / "shared/data").is_dir()), None)
BOUND = 1e-5
SPECTRA = (np.random.default_rng(0).standard_normal((50, 640)) * 3).astype(np.float32)
pytestmark = [running.needs_litert, pytest.mark.skipif(SHARED is None, reason="shared/data is not beside the checkout")]


def results(path: Path, inputs: np.ndarray) -> np.ndarray:
    """What LiteRT gives for each input."""
    session = running.opened(path, "tflite")
    name = session.inputs()[0].name
    return np.concatenate([next(iter(session.run({name: x[None]}).values())) for x in inputs])


def different(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def test_resnet_is_the_published_one(tmp_path: Path) -> None:
    assert SHARED is not None
    pictures = np.random.default_rng(0).uniform(0, 255, (200, 32, 32, 3)).astype(np.float32)
    isomorph.convert(SHARED / "mlperf-tiny/pretrainedResnet.h5", tmp_path / "resnet.tflite", verify=False)
    got, want = (results(path, pictures) for path in (tmp_path / "resnet.tflite", SHARED / "mlperf-tiny/pretrainedResnet.tflite"))
    assert different(got, want) <= BOUND
    assert (got.argmax(-1) == want.argmax(-1)).all()


def test_the_autoencoder_is_what_keras_computes(tmp_path: Path) -> None:
    assert SHARED is not None
    environments.use("tensorflow")
    source = SHARED / "mlperf-tiny/ad01.h5"
    isomorph.convert(source, tmp_path / "ad01.tflite", verify=False)
    with Session(source, "keras_h5") as keras:
        (want,) = keras.run({keras.inputs()[0].name: SPECTRA}).values()
    assert different(results(tmp_path / "ad01.tflite", SPECTRA), want) <= BOUND


def test_the_published_autoencoder_lost_its_biases(tmp_path: Path) -> None:
    """Its .tflite differs from Keras by more than a hundredth, because the biases of layers with a normalisation behind them are missing. Without them ours is
    the same."""
    assert SHARED is not None
    published = results(SHARED / "mlperf-tiny/ad01_fp32.tflite", SPECTRA)
    isomorph.convert(SHARED / "mlperf-tiny/ad01.h5", tmp_path / "whole.tflite", verify=False)
    assert different(results(tmp_path / "whole.tflite", SPECTRA), published) > 1e-2
    model = keras_h5.read(Artifact.open(SHARED / "mlperf-tiny/ad01.h5"))
    for name, value in model.graph.initializers.items():
        if name.endswith("/bias") and name != "dense_9/bias":
            value.const_value = array_tensor(np.zeros_like(value.const_value.numpy()), name)
    tflite.write(from_hub(to_hub(model), "tflite"), tmp_path / "without.tflite")
    assert different(results(tmp_path / "without.tflite", SPECTRA), published) <= BOUND
