"""Runs inside the environment `tensorflow`: loads files that isomorph wrote, runs them, and trains them.

    python keras_judge.py LIBRARY      with lines of JSON on standard input: {"file", "data", "original": a file or null, "epoch", "compiled"}

Prints a line of JSON for each: the greatest difference to `out0`... of the data, by the range of each, and where an original is given, the losses of both while
they are trained on the same batches: eight times on one, or with "epoch" once on each of sixteen. With "compiled" the training
configuration of the file is loaded as well: the class of its optimizer, and its loss on the data.
"""
from __future__ import annotations

import importlib
import json
import os
import sys

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def judge(keras, line):
    import tensorflow as tf
    model = keras.models.load_model(line["file"], compile=False)
    arrays = np.load(line["data"])
    inputs = [arrays[f"in{index}"] for index in range(sum(name.startswith("in") for name in arrays.files))]
    results = tf.nest.flatten(model([tf.constant(x) for x in inputs] if len(inputs) > 1 else tf.constant(inputs[0]), training=False))
    wanted = [arrays[f"out{index}"] for index in range(len(results))]
    answer = {"differs": max(float(np.abs(np.asarray(a) - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in zip(results, wanted, strict=True)),
              "layers": [type(layer).__name__ for layer in model.layers]}
    if line.get("compiled"):
        compiled = keras.models.load_model(line["file"])
        answer["compiled"] = [type(compiled.optimizer).__name__, float(np.asarray(compiled.train_on_batch(inputs[0], wanted[0])).reshape(-1)[0])]
    if line.get("original"):
        train = epoch if line.get("epoch") else trained
        answer["losses"] = [train(keras, each, inputs[0], wanted[0]) for each in (line["original"], line["file"])]
    return answer


def trained(keras, file, x, y):
    """The loss after each of eight steps of gradient descent towards other results."""
    keras.utils.set_random_seed(3)
    model = keras.models.load_model(file, compile=False)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    rng = np.random.default_rng(3)
    target = y + rng.standard_normal(y.shape).astype(y.dtype)
    return [float(np.asarray(model.train_on_batch(x, target)).reshape(-1)[0]) for _ in range(8)]


def epoch(keras, file, x, y):
    """The loss on all of some made-up data before one epoch of it and afterwards. What is to be learnt depends on the input."""
    keras.utils.set_random_seed(3)
    model = keras.models.load_model(file, compile=False)
    rng = np.random.default_rng(3)
    many = rng.standard_normal((128, *x.shape[1:])).astype(x.dtype)
    target = (0.1 * np.tensordot(many.reshape(128, -1), rng.standard_normal((many[0].size, *y.shape[1:])), 1)).astype(y.dtype)
    model.compile(keras.optimizers.SGD(0.003), "mse")
    before = model.evaluate(many, target, verbose=0)
    model.fit(many, target, batch_size=8, epochs=1, shuffle=False, verbose=0)
    return [float(before), float(model.evaluate(many, target, verbose=0))]


def main():
    keras = importlib.import_module(sys.argv[1])
    for text in sys.stdin:
        line = json.loads(text)
        try:
            answer = judge(keras, line)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
