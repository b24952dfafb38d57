"""Makes `tfjs_tables.tar.xz`: GraphModels with tables, as TensorFlow.js' own converter writes them. `make_tfjs_tables.py [ARCHIVE]`.

Needs a Python with tensorflow 2.15, numpy 1 and, without what they ask for, tensorflowjs 4.22 and tensorflow-hub. `one` comes from a graph of TensorFlow 1,
whose table has a name in both graphs; `two` from TensorFlow 2, where the second graph hands its tables over by number.
"""
from __future__ import annotations

import importlib.machinery
import os
import sys
import tarfile
import tempfile
import types
from pathlib import Path
from typing import Any

os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})

import keras
import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
KeyValue, Table = tf.lookup.KeyValueTensorInitializer, tf.lookup.StaticHashTable


def stand_in(name: str) -> None:
    """A package that the converter imports and does not need here."""
    module = types.ModuleType(name)
    module.__path__, module.__spec__ = [], importlib.machinery.ModuleSpec(name, None)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)


def numbers() -> Any:
    return Table(KeyValue(["red", "green", "blue"], tf.constant([3, 1, 2], tf.int64)), -1)


class Two(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.numbers = numbers()
        self.letters = Table(KeyValue(tf.constant([0, 1, 2, 3], tf.int64), ["none", "g", "b", "r"]), "?")
        self.weights = tf.Variable([1.0, 2.0, 3.0, 4.0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, words: Any) -> dict[str, Any]:
        found = self.numbers.lookup(words)
        at_least = tf.maximum(found, 0)
        return {"number": tf.cast(found, tf.int32), "weight": tf.gather(self.weights, at_least), "letter": self.letters.lookup(at_least),
                "size": tf.cast(self.numbers.size(), tf.int32)}


def two(folder: str) -> None:
    model = Two()
    tf.saved_model.save(model, folder, signatures={"serving_default": model.__call__})


def one(folder: str) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None], name="words")
        number = tf.cast(numbers().lookup(words), tf.int32, name="number")
        weights = v1.get_variable("weights", initializer=[1.0, 2.0, 3.0, 4.0], use_resource=True)
        outputs = {"number": number, "weight": tf.gather(weights, tf.maximum(number, 0), name="weight")}
        session.run([v1.tables_initializer(), v1.global_variables_initializer()])
        builder = v1.saved_model.Builder(folder)
        signature = v1.saved_model.predict_signature_def({"words": words}, outputs)
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=v1.tables_initializer())
        builder.save()


def main() -> None:
    for name in ("tensorflow_decision_forests", "jax", "jax.experimental", "jax.experimental.jax2tf", "flax"):
        stand_in(name)
    sys.modules["tf_keras"] = keras
    np.object, np.bool = object, bool           # what tensorflowjs still calls them
    from tensorflowjs.converters import tf_saved_model_conversion_v2 as converter
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "tfjs_tables.tar.xz")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(target, "w:xz") as archive:
        for name, save in (("one", one), ("two", two)):
            save(f"{folder}/{name}")
            converter.convert_tf_saved_model(f"{folder}/{name}", f"{folder}/{name}_js", signature_def="serving_default", saved_model_tags="serve",
                                             control_flow_v2=True)
            archive.add(f"{folder}/{name}_js", name)


main()
