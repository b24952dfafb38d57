"""Layers that only Keras 1 and 2 had, from files as those wrote them, against NumPy."""
from __future__ import annotations

import keras_files as files
import numpy as np
import pytest
from test_keras import run

from isomorph.artifact import Artifact
from isomorph.formats import keras_h5

RNG = np.random.default_rng(8)


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def read(tmp_path, kind: str, settings: dict, variables: dict[str, np.ndarray], shape: tuple, version: str = "1.2.2", name: str = "m.h5"):
    """A Sequential of one layer, as the first releases wrote it."""
    config = {"class_name": "Sequential", "config": [{"class_name": kind, "config": {"name": "old", "trainable": True, "batch_input_shape": [None, *shape],
                                                                                     **settings}}]}
    return keras_h5.read(Artifact.open(files.legacy(tmp_path / name, config, {"old": {f"old_{key}": array for key, array in variables.items()}}, version)))


def test_maxout(tmp_path):
    w = weights(W=(3, 5, 4), b=(3, 4))
    x = RNG.standard_normal((2, 5)).astype(np.float32)
    model = read(tmp_path, "MaxoutDense", {"output_dim": 4, "nb_feature": 3, "input_dim": 5, "bias": True}, w, (5,))
    np.testing.assert_allclose(run(model, tmp_path, x)[0], (np.einsum("bi,fio->bfo", x, w["W"]) + w["b"]).max(1), rtol=1e-5, atol=1e-6)


def test_highway(tmp_path):
    w = weights(W=(5, 5), W_carry=(5, 5), b=(5,), b_carry=(5,))
    x = RNG.standard_normal((2, 5)).astype(np.float32)
    gate = 1 / (1 + np.exp(-(x @ w["W_carry"] + w["b_carry"])))
    model = read(tmp_path, "Highway", {"activation": "tanh", "transform_bias": -2, "input_dim": 5, "bias": True}, w, (5,))
    np.testing.assert_allclose(run(model, tmp_path, x)[0], np.tanh(x @ w["W"] + w["b"]) * gate + (1 - gate) * x, rtol=1e-5, atol=1e-6)


MODES = {"sum": lambda a, b: a + b, "mul": lambda a, b: a * b, "ave": lambda a, b: (a + b) / 2, "max": np.maximum,
         "concat": lambda a, b: np.concatenate([a, b], -1), "dot": lambda a, b: (a * b).sum(-1, keepdims=True),
         "cos": lambda a, b: (a * b).sum(-1, keepdims=True) / np.sqrt((a * a).sum(-1, keepdims=True) * (b * b).sum(-1, keepdims=True))}


@pytest.mark.parametrize("mode", MODES)
def test_merge(tmp_path, mode):
    inputs = [{"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "input_dtype": "float32", "name": name, "sparse": False}, "name": name,
               "inbound_nodes": []} for name in "ab"]
    settings = {"name": "old", "mode": mode, "mode_type": "raw", "concat_axis": -1, "dot_axes": -1, "output_shape": None, "output_shape_type": "raw"}
    merge = {"class_name": "Merge", "name": "old", "config": settings, "inbound_nodes": [[["a", 0, 0], ["b", 0, 0]]]}
    config = {"class_name": "Model", "config": {"name": "m", "layers": [*inputs, merge], "input_layers": [["a", 0, 0], ["b", 0, 0]],
                                                "output_layers": [["old", 0, 0]]}}
    model = keras_h5.read(Artifact.open(files.legacy(tmp_path / "m.h5", config, {}, "1.2.2")))
    a, b = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(run(model, tmp_path, a, b)[0], MODES[mode](a, b), rtol=1e-5, atol=1e-6)


def lstm(x, kernel, recurrent, bias):
    h = c = np.zeros((len(x), 4))
    for step in range(x.shape[1]):
        i, f, new, o = np.split(x[:, step] @ kernel + h @ recurrent + bias.reshape(-1, 16).sum(0), 4, -1)
        c = smooth(f) * c + smooth(i) * np.tanh(new)
        h = smooth(o) * np.tanh(c)
    return h


def gru(x, kernel, recurrent, bias):
    """With the reset gate behind the product."""
    h = np.zeros((len(x), 4))
    for step in range(x.shape[1]):
        (z, r, new), (hz, hr, hn) = (np.split(part, 3, -1) for part in (x[:, step] @ kernel + bias[:12], h @ recurrent + bias[12:]))
        z, r = smooth(z + hz), smooth(r + hr)
        h = z * h + (1 - z) * np.tanh(new + r * hn)
    return h


def smooth(x):
    return 1 / (1 + np.exp(-x))


def in_order_of_cudnn(kernel: np.ndarray) -> np.ndarray:
    """[[0, 1, 2], [3, 4, 5]] is [[0, 2, 4], [1, 3, 5]]... as Keras documents the conversion, the other way round."""
    return kernel.T.reshape(kernel.shape)


@pytest.mark.parametrize(("kind", "gates", "expected"), [("CuDNNLSTM", 4, lstm), ("CuDNNGRU", 3, gru)])
def test_kernels_of_cudnn(tmp_path, kind, gates, expected):
    """Each gate lies as cuDNN wants it: Keras itself turns the variables when it loads them into LSTM or GRU."""
    w = weights(kernel=(3, 4 * gates), recurrent_kernel=(4, 4 * gates), bias=(8 * gates,))
    stored = {"kernel": np.hstack([in_order_of_cudnn(part) for part in np.hsplit(w["kernel"], gates)]),
              "recurrent_kernel": np.hstack([part.T for part in np.hsplit(w["recurrent_kernel"], gates)]), "bias": w["bias"]}
    x = RNG.standard_normal((2, 5, 3)).astype(np.float32)
    model = read(tmp_path, kind, {"units": 4, "return_sequences": False, "return_state": False, "go_backwards": False, "stateful": False}, stored, (5, 3),
                 "2.2.4")
    np.testing.assert_allclose(run(model, tmp_path, x)[0], expected(x, *w.values()), atol=1e-5)
