"""Loads a SavedModel in every way that TensorFlow has and says how far the results are apart; runs in the environment of TensorFlow.

    python saved_model_child.py FOLDER      one line of JSON: variables, gradients, signatures, and the greatest difference by loader
"""
from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf


def fed(specs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random inputs; a free dimension is 2."""
    draw = np.random.default_rng(0)
    return {name: draw.normal(size=[size or 2 for size in spec.shape]).astype(spec.dtype.as_numpy_dtype) for name, spec in specs.items()}


def apart(got: dict[str, Any], wanted: dict[str, Any]) -> float:
    return max(float(np.abs(np.asarray(got[name]) - np.asarray(wanted[name])).max()) for name in wanted)


def session(folder: str, key: str, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    """The loader of TensorFlow 1, which servers use; restores by the nodes of the graph."""
    with tf.compat.v1.Session(graph=tf.Graph()) as running:
        meta = tf.compat.v1.saved_model.load(running, ["serve"], folder)
        stated = meta.signature_def[key]
        results = running.run({name: info.name for name, info in stated.outputs.items()}, {stated.inputs[name].name: array for name, array in feeds.items()})
        saver = tf.compat.v1.train.Saver(saver_def=meta.saver_def)
        saved = saver.save(running, tempfile.mkdtemp() + "/again", write_meta_graph=False)
        assert len(tf.train.list_variables(saved)) == len(tf.train.list_variables(f"{folder}/variables/variables")) - 1
        return results


def lite(folder: str, key: str, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    made = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    return tf.lite.Interpreter(model_content=made).get_signature_runner(key)(**feeds)


def layer(folder: str, key: str, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    import keras
    given = keras.layers.TFSMLayer(folder, call_endpoint=key)
    return {name: np.asarray(value) for name, value in given(**feeds).items()} if len(feeds) > 1 else {
        name: np.asarray(value) for name, value in given(next(iter(feeds.values()))).items()}


def again(folder: str, key: str, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    """Saved by TensorFlow itself after it was loaded."""
    model, copy = tf.saved_model.load(folder), tempfile.mkdtemp()
    tf.saved_model.save(model, copy, signatures=model.signatures)
    return {name: value.numpy() for name, value in tf.saved_model.load(copy).signatures[key](**{k: tf.constant(v) for k, v in feeds.items()}).items()}


def main(folder: str) -> None:
    model = tf.saved_model.load(folder)
    found: dict[str, Any] = {"signatures": sorted(model.signatures), "variables": len(model.variables), "trainable": len(model.trainable_variables),
                             "apart": {}, "fingerprint": len(str(tf.saved_model.experimental.read_fingerprint(folder))) > 0}
    for key, function in model.signatures.items():
        feeds = fed(function.structured_input_signature[1])
        with tf.GradientTape() as tape:
            results = function(**{name: tf.constant(array) for name, array in feeds.items()})
            loss = tf.add_n([tf.reduce_sum(value) for value in results.values()])
        found["gradients"] = sum(gradient is not None for gradient in tape.gradient(loss, list(model.trainable_variables)))
        wanted = {name: value.numpy() for name, value in results.items()}
        found["results"] = {name: [value.shape, float(np.abs(value).max())] for name, value in wanted.items()}
        loaders: dict[str, Any] = {"session": session, "again": again} | ({"lite": lite, "layer": layer} if key == "serving_default" else {})
        for name, loader in loaders.items():
            found["apart"][f"{key} {name}"] = apart(loader(folder, key, feeds), wanted)
    print(json.dumps(found))


main(sys.argv[1])
