"""Exports recurrent networks of Keras 3 or of Keras 2 (tf_keras), in a Python that has them: `recurrent_child.py FOLDER 3|2 [NAME ...]`.

Beside the folders, `recurrent_N.json` lists name -> number of outputs, and `recurrent_N.npz` has `NAME/x` and what Keras makes of it, `NAME/y0` and so on.
"""
from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"})
if sys.argv[2] == "2":
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np

keras: Any = importlib.import_module("tf_keras" if sys.argv[2] == "2" else "keras")
layers = keras.layers


def chain(*parts: Any, shape: tuple[Any, ...] = (12, 5), batch: int | None = None) -> Any:
    start = layers.Input(shape, batch_size=batch) if batch else layers.Input(shape)
    value = start
    for part in parts:
        value = part(value)
    return keras.Model(start, value)


def networks() -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {}
    for cell in (layers.LSTM, layers.GRU, layers.SimpleRNN):
        name = cell.__name__
        made |= {
            name: lambda cell=cell: chain(cell(8)), f"{name}-sequences": lambda cell=cell: chain(cell(8, return_sequences=True)),
            f"{name}-stacked": lambda cell=cell: chain(cell(8, return_sequences=True), cell(4)),
            f"{name}-bidirectional": lambda cell=cell: chain(layers.Bidirectional(cell(8, return_sequences=True))),
            f"{name}-bidirectional-last": lambda cell=cell: chain(layers.Bidirectional(cell(8))),
            f"{name}-backwards": lambda cell=cell: chain(cell(8, go_backwards=True, return_sequences=True)),
            f"{name}-stateful": lambda cell=cell: chain(cell(8, stateful=True), batch=2),
            f"{name}-masked": lambda cell=cell: chain(layers.Masking(0.0), cell(8, return_sequences=True)),
            f"{name}-masked-last": lambda cell=cell: chain(layers.Masking(0.0), cell(8)),
            f"{name}-any-length": lambda cell=cell: chain(cell(8, return_sequences=True), shape=(None, 5)),
            f"{name}-unrolled": lambda cell=cell: chain(cell(8, unroll=True)), f"{name}-relu": lambda cell=cell: chain(cell(8, activation="relu")),
            f"{name}-without-bias": lambda cell=cell: chain(cell(8, use_bias=False)),
        }
    return made | {
        "LSTM-hard-sigmoid": lambda: chain(layers.LSTM(8, recurrent_activation="hard_sigmoid")),
        "GRU-reset-before": lambda: chain(layers.GRU(8, reset_after=False)),
        "GRU-hard-sigmoid": lambda: chain(layers.GRU(8, recurrent_activation="hard_sigmoid", reset_after=False)),
        "ConvLSTM2D-sequences": lambda: chain(layers.ConvLSTM2D(3, 3, return_sequences=True), shape=(4, 6, 6, 2)),
        "ConvLSTM2D": lambda: chain(layers.ConvLSTM2D(3, 3, padding="same"), shape=(4, 6, 6, 2)),
        "ConvLSTM1D": lambda: chain(layers.ConvLSTM1D(3, 3), shape=(4, 6, 2)),
        "cells": lambda: chain(layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True)),
        "TimeDistributed": lambda: chain(layers.TimeDistributed(layers.Dense(3)), layers.GRU(4)),
    }


def main(folder: Path, generation: str, wanted: list[str]) -> None:
    import tensorflow as tf
    counts, values = {}, {}
    for name, build in networks().items():
        if wanted and name not in wanted:
            continue
        keras.utils.set_random_seed(1)
        model = build()
        rng = np.random.default_rng(2)
        for weight in model.trainable_weights:
            weight.assign(rng.normal(0, 0.4, weight.shape).astype(np.float32))
        x = rng.normal(size=[2, *(dim or 7 for dim in model.inputs[0].shape[1:])]).astype(np.float32)
        if "masked" in name:
            x[0, 3:5] = x[1, 8:] = 0
        results = model(x)
        for place, result in enumerate(results if isinstance(results, (list, tuple)) else [results]):
            values[f"{name}/y{place}"] = np.asarray(result)
        for layer in model.layers:
            if getattr(layer, "stateful", False):
                (layer.reset_states if hasattr(layer, "reset_states") else layer.reset_state)()
        values[f"{name}/x"] = x
        counts[name] = len(results) if isinstance(results, (list, tuple)) else 1
        target = str(folder / f"keras{generation}-{name}")
        if generation == "3":
            model.export(target, verbose=False)
        else:
            tf.saved_model.save(model, target)
    np.savez(folder / f"recurrent_{generation}.npz", **values)
    (folder / f"recurrent_{generation}.json").write_text(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
