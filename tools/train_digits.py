"""Trains the small network of `isomorph demo` on scikit-learn's digits, in NumPy alone, and writes it with the held-out digits beside it.

    python tools/train_digits.py src/isomorph/data

The result depends only on the seed, up to the rounding of the machine's matrix products.
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from sklearn.datasets import load_digits

HELD_OUT = 360
EPOCHS, BATCH, RATE = 60, 64, 2e-3
LICENCE = """digits.npz holds 360 images of handwritten digits, 8x8 pixels of 0 to 16, with their labels.

They are part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository,
https://doi.org/10.24432/C50P49,
licensed under the Creative Commons Attribution 4.0 International licence (https://creativecommons.org/licenses/by/4.0/),
and taken unchanged from scikit-learn's load_digits.

digits.onnx was trained on the other 1,437 images of that set by tools/train_digits.py and is licensed like isomorph itself, Apache-2.0.
"""


def patches(x: np.ndarray) -> np.ndarray:
    """[n, c, h, w] -> [n, h, w, c * 9]: what a 3x3 kernel with padding 1 sees at every place."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(x.shape[0], x.shape[2], x.shape[3], -1)


def conv(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The convolution, and the patches that its gradient needs. `w` is [out, in, 3, 3]."""
    seen = patches(x)
    return (seen @ w.reshape(len(w), -1).T + b).transpose(0, 3, 1, 2), seen


def conv_gradients(seen: np.ndarray, w: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of input, kernel and bias."""
    flat = up.transpose(0, 2, 3, 1).reshape(-1, len(w))
    kernel = (flat.T @ seen.reshape(len(flat), -1)).reshape(w.shape)
    turned = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return conv(up, turned, np.zeros(len(turned), np.float32))[0], kernel, flat.sum(0)


def pool(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2x2 maxima, and where they were."""
    n, c, h, w = x.shape
    cells = x.reshape(n, c, h // 2, 2, w // 2, 2)
    maxima = cells.max(axis=(3, 5), keepdims=True)
    return maxima[:, :, :, 0, :, 0], (cells == maxima)


def unpool(up: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The gradient, sent to the places of the maxima."""
    spread = where * up[:, :, :, None, :, None]
    n, c, h, _, w, _ = spread.shape
    return spread.reshape(n, c, 2 * h, 2 * w)


def forward(p: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Class scores, and what the gradients need."""
    a1, seen1 = conv(x, p["conv1.weight"], p["conv1.bias"])
    h1, where1 = pool(np.maximum(a1, 0))
    a2, seen2 = conv(h1, p["conv2.weight"], p["conv2.bias"])
    h2, where2 = pool(np.maximum(a2, 0))
    flat = h2.reshape(len(x), -1)
    a3 = flat @ p["dense1.weight"].T + p["dense1.bias"]
    h3 = np.maximum(a3, 0)
    return h3 @ p["dense2.weight"].T + p["dense2.bias"], (a1, seen1, where1, a2, seen2, where2, h2.shape, flat, a3, h3)


def gradients(p: dict[str, np.ndarray], x: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Of the mean cross-entropy."""
    scores, (a1, seen1, where1, a2, seen2, where2, shape2, flat, a3, h3) = forward(p, x)
    up = softmax(scores)
    up[np.arange(len(x)), labels] -= 1
    up /= len(x)
    g = {"dense2.weight": up.T @ h3, "dense2.bias": up.sum(0)}
    up = (up @ p["dense2.weight"]) * (a3 > 0)
    g |= {"dense1.weight": up.T @ flat, "dense1.bias": up.sum(0)}
    up = unpool((up @ p["dense1.weight"]).reshape(shape2), where2) * (a2 > 0)
    up, g["conv2.weight"], g["conv2.bias"] = conv_gradients(seen2, p["conv2.weight"], up)
    up = unpool(up, where1) * (a1 > 0)
    _, g["conv1.weight"], g["conv1.bias"] = conv_gradients(seen1, p["conv1.weight"], up)
    return g


def softmax(scores: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    e = np.exp(scores - scores.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def shifted(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A batch moves by up to one pixel, so that the network learns shapes rather than places."""
    moved = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    top, left = random.integers(0, 3, 2)
    return moved[:, :, top:top + 8, left:left + 8]


def train(x: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Adam (https://arxiv.org/abs/1412.6980) with a rate that falls as a half cosine."""
    shapes = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "dense1": (64, 128), "dense2": (10, 64)}
    p = {}
    for name, shape in shapes.items():
        p[f"{name}.weight"] = (random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        p[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    mean, square = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
    steps = EPOCHS * (len(x) // BATCH)
    for step in range(1, steps + 1):
        chosen = random.choice(len(x), BATCH, replace=False)
        g = gradients(p, shifted(x[chosen], random), labels[chosen])
        rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
        for name in p:
            mean[name] += 0.1 * (g[name] - mean[name])
            square[name] += 0.001 * (g[name] ** 2 - square[name])
            p[name] -= (rate * mean[name] / (1 - 0.9 ** step) / (np.sqrt(square[name] / (1 - 0.999 ** step)) + 1e-8)).astype(np.float32)
    return p


def to_onnx(p: dict[str, np.ndarray], accuracy: float) -> onnx.ModelProto:
    """image: float32[batch, 1, 8, 8] in 0..1 -> probabilities: float32[batch, 10]."""
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["conv1"], "conv1", **same),
        helper.make_node("Relu", ["conv1"], ["relu1"], "relu1"),
        helper.make_node("MaxPool", ["relu1"], ["pool1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pool1", "conv2.weight", "conv2.bias"], ["conv2"], "conv2", **same),
        helper.make_node("Relu", ["conv2"], ["relu2"], "relu2"),
        helper.make_node("MaxPool", ["relu2"], ["pool2"], "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool2"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "dense1.weight", "dense1.bias"], ["dense1"], "dense1", transB=1),
        helper.make_node("Relu", ["dense1"], ["relu3"], "relu3"),
        helper.make_node("Gemm", ["relu3", "dense2.weight", "dense2.bias"], ["dense2"], "dense2", transB=1),
        helper.make_node("Softmax", ["dense2"], ["probabilities"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes, "digits",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value, name) for name, value in p.items()])
    model = helper.make_model(graph, producer_name="isomorph tools/train_digits.py", ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"accuracy on the held-out digits": f"{accuracy:.4f}", "licence": "Apache-2.0"})
    onnx.checker.check_model(model, full_check=True)
    return model


def main(folder: Path) -> None:
    """Trains, measures, writes."""
    random = np.random.default_rng(2)
    images, labels = load_digits(return_X_y=True)
    order = random.permutation(len(images))
    kept, held = order[HELD_OUT:], order[:HELD_OUT]
    x = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    p = train(x[kept], labels[kept], random)
    accuracy = float((forward(p, x[held])[0].argmax(1) == labels[held]).mean())
    print(f"{sum(value.size for value in p.values()):,} parameters, {accuracy:.2%} of {HELD_OUT} held-out digits right")
    (folder / "digits.onnx").write_bytes(to_onnx(p, accuracy).SerializeToString())
    np.savez_compressed(folder / "digits.npz", images=images[held].astype(np.uint8).reshape(-1, 1, 8, 8), labels=labels[held].astype(np.uint8))
    (folder / "LICENCE.txt").write_text(LICENCE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
