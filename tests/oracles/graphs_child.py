"""Graphs as TensorFlow 1 made them, in a Python that has TensorFlow: `graphs_child.py FOLDER`.

Each is frozen (`NAME.pb`), a SavedModel (`NAME_model`) and, where it has variables, a checkpoint with its graph (`NAME_checkpoint/model.meta`). `graphs.npz`
has `NAME/x` and `NAME/y`.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1", "TF_USE_LEGACY_KERAS": "1"})

import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
tf.disable_control_flow_v2()
rng = np.random.default_rng(0)
ROWS, SEQUENCES = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(2, 7, 5)).astype(np.float32)
cells = tf.nn.rnn_cell


def repeated(x: Any, body: Callable[[Any, Any], Any], count: int = 5) -> Any:
    return tf.while_loop(lambda i, a: i < count, lambda i, a: (i + 1, body(i, a)), [0, x])[1]


def recurrent(cell: Callable[[], Any], **lengths: Any) -> Callable[[Any], Any]:
    return lambda x: tf.nn.dynamic_rnn(cell(), x, dtype=tf.float32, **lengths)[0]


GRAPHS: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "branch": (lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1), ROWS),
    "constants": (lambda x: tf.cond(tf.reduce_sum(x) > 100, lambda: tf.constant(1.0), lambda: tf.constant(2.0)) + x, ROWS),
    "branches": (lambda x: tf.cond(tf.reduce_sum(x) > -100, lambda: tf.cond(tf.reduce_max(x) > 0, lambda: x * 3, lambda: x * 5), lambda: x - 1), ROWS),
    "loop": (lambda x: repeated(x, lambda i, a: a * 1.5 + tf.cast(i, tf.float32)), ROWS),
    "loops": (lambda x: repeated(x, lambda i, a: repeated(a, lambda j, b: b + 1.0, 3)), ROWS),
    "branch-in-loop": (lambda x: repeated(x, lambda i, a: tf.cond(i > 2, lambda: a * 2, lambda: a + 1)), ROWS),
    "map": (lambda x: tf.map_fn(lambda row: tf.reduce_sum(row) * row, x), ROWS), "scan": (lambda x: tf.scan(lambda a, row: a * 0.5 + row, x), ROWS),
    "lstm": (recurrent(lambda: cells.BasicLSTMCell(6)), SEQUENCES), "gru": (recurrent(lambda: cells.GRUCell(6)), SEQUENCES),
    "rnn": (recurrent(lambda: cells.BasicRNNCell(6)), SEQUENCES), "lstm-lengths": (recurrent(lambda: cells.LSTMCell(6), sequence_length=[3, 6]), SEQUENCES),
}


def tagged(folder: Path) -> None:
    """One network for training and for serving in one file, with a resource variable and its checkpoint."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 4], name="x")
        y = tf.nn.softmax(tf.matmul(x, tf.get_variable("w", [4, 3], use_resource=True)), name="y")
        session.run(tf.global_variables_initializer())
        signature = tf.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = tf.saved_model.Builder(str(folder / "tagged_model"))
        builder.add_meta_graph_and_variables(session, ["train"], {"train": signature})
        builder.add_meta_graph(["serve", "gpu"], {"serving_default": signature})
        builder.save()
        tf.train.Saver().save(session, str(folder / "tagged_checkpoint" / "model"))


def vocabulary(folder: Path) -> None:
    """A table that is filled from a file of the model."""
    words = folder / "vocabulary.txt"
    words.write_text("a\nb\nc\n")
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.string, [3], name="x")
        filled = tf.lookup.TextFileInitializer(str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
        y = tf.identity(tf.lookup.StaticHashTable(filled, -1).lookup(x), name="y")
        builder = tf.saved_model.Builder(str(folder / "vocabulary_model"))
        signature = tf.saved_model.predict_signature_def({"x": x}, {"y": y})
        session.run(tf.tables_initializer())
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=tf.tables_initializer(),
                                             assets_collection=tf.get_collection(tf.GraphKeys.ASSET_FILEPATHS))
        builder.save()
    words.unlink()


def main(folder: Path) -> None:
    values = {}
    for name, (build, array) in GRAPHS.items():
        with tf.Graph().as_default() as graph, tf.Session() as session:
            x = tf.placeholder(tf.float32, array.shape, name="x")
            y = tf.identity(build(x), name="y")
            session.run(tf.global_variables_initializer())
            values[f"{name}/x"], values[f"{name}/y"] = array, session.run(y, {x: array})
            frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
            (folder / f"{name}.pb").write_bytes(frozen.SerializeToString())
            tf.saved_model.simple_save(session, str(folder / f"{name}_model"), {"x": x}, {"y": y})
            if tf.global_variables():
                tf.train.Saver().save(session, str(folder / f"{name}_checkpoint" / "model"))
    vocabulary(folder)
    tagged(folder)
    np.savez(folder / "graphs.npz", **values)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
