"""Makes `estimators.tar.xz`: SavedModels as tf.estimator exports them, with what TensorFlow computes. `make_estimators.py [ARCHIVE]`.

Needs a Python with tensorflow 2.15, tensorflow-estimator 2.15 and numpy 1, the last ones in which estimators exist; that is why the files are kept. Each
network is trained for a few steps on made-up rows. `NAME/` is a SavedModel; `values.npz` has `NAME/SIGNATURE/OUTPUT`, and `NAME/FEATURE` for what was fed:
dense features as they are, features of any length as rows filled up with nothing, with `NAME/FEATURE/count`.
"""
from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"})

import numpy as np
import tensorflow as tf

tf.get_logger().setLevel("ERROR")
v1 = tf.compat.v1
v1.disable_eager_execution()                   # shared embeddings refuse it
columns = tf.feature_column
export = tf.estimator.export
ROWS = 6
WORDS = ["red", "green", "blue", "white"]
COUNTS = np.array([2, 0, 3, 1, 1, 2], np.int64)
rng = np.random.default_rng(7)


def ragged(pool: Any) -> np.ndarray:
    """Rows of [ROWS, 3] of which the first COUNTS are there."""
    filled = rng.choice(np.asarray(pool), (ROWS, 3)).astype(object)
    filled[np.arange(3) >= COUNTS[:, None]] = "" if isinstance(pool[0], str) else 0
    return filled


AGE, SIZE = rng.normal(40, 15, (ROWS, 1)).astype(np.float32), rng.normal(size=(ROWS, 3)).astype(np.float32)
COLOUR, TAGS = rng.choice(np.array([*WORDS, "black"]), (ROWS, 1)), ragged([*WORDS, "black"])
DAY, VISITS = rng.integers(0, 7, (ROWS, 1)), ragged(list(range(10))).astype(np.int64)
WEIGHTS = np.where(np.arange(3) < COUNTS[:, None], rng.uniform(0.5, 2, (ROWS, 3)), 0).astype(np.float32)
FEATURES: dict[str, np.ndarray] = {"age": AGE, "size": SIZE, "colour": COLOUR, "tags": TAGS, "day": DAY, "visits": VISITS, "weights": WEIGHTS}
OF_ANY_LENGTH = ("tags", "visits", "weights")

age, size = columns.numeric_column("age", default_value=30.0), columns.numeric_column("size", (3,), normalizer_fn=lambda x: (x - 0.5) * 2)
ages = columns.bucketized_column(age, [20.0, 35.0, 50.0])
colour, tags = columns.categorical_column_with_vocabulary_list("colour", WORDS), columns.categorical_column_with_vocabulary_list("tags", WORDS)
known_tags = columns.categorical_column_with_vocabulary_list("tags", WORDS, default_value=0)
day, visits = columns.categorical_column_with_identity("day", 7), columns.categorical_column_with_identity("visits", 10)
tenths = columns.categorical_column_with_identity("day", 10)
weighted = columns.weighted_categorical_column(visits, "weights")
hashed = columns.categorical_column_with_hash_bucket("colour", 5)
several = columns.categorical_column_with_vocabulary_list("tags", WORDS, num_oov_buckets=2)
crossed = columns.crossed_column(["colour", day], 11)


def from_file(folder: Path) -> Any:
    words = folder / "words.txt"
    words.write_text("\n".join(WORDS) + "\n")
    return columns.categorical_column_with_vocabulary_file("tags", str(words), default_value=1)


def custom(features: dict[str, Any], labels: Any, mode: str) -> Any:
    """A model function as people wrote it by hand, with the columns, layers and partitioned variables of TensorFlow 1."""
    with v1.variable_scope("net", partitioner=v1.fixed_size_partitioner(2)):
        x = v1.feature_column.input_layer(features, [age, columns.embedding_column(known_tags, 4), columns.indicator_column(colour)])
        hidden = v1.get_variable("hidden", [9, 5], use_resource=False)
        x = tf.nn.relu(tf.matmul(x, tf.convert_to_tensor(hidden)))
        logits = v1.layers.dense(x, 2, name="logits")
    predictions = {"scores": tf.nn.softmax(logits), "best": tf.argmax(logits, 1)}
    exports = {"serving_default": export.PredictOutput(predictions), "ranking": export.RegressionOutput(logits[:, 0]),
               "names": export.ClassificationOutput(predictions["scores"], tf.constant([["no", "yes"]] * 1))}
    loss = None if labels is None else tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    train = None if loss is None else v1.train.GradientDescentOptimizer(0.1).minimize(loss, v1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, predictions, loss, train, export_outputs=exports)


def split() -> Any:
    return v1.fixed_size_partitioner(2)


# name -> (estimator in a folder, feature columns, labels)
E = tf.estimator
MODELS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], list[Any]], str]] = {
    "dnn": (lambda f, c: E.DNNClassifier([6, 4], c, str(f), 3, label_vocabulary=["a", "b", "c"]),
            lambda f: [age, size, columns.embedding_column(tags, 3), columns.indicator_column(colour)], "texts"),
    "dnn-partitioned": (lambda f, c: v1.estimator.DNNClassifier([6, 4], c, str(f), 3, input_layer_partitioner=v1.fixed_size_partitioner(3)),
                        lambda f: [ages, size, columns.embedding_column(visits, 4, combiner="sqrtn"), columns.embedding_column(colour, 2)], "three"),
    "dnn-regressor": (lambda f, c: E.DNNRegressor([5], c, str(f), label_dimension=2, batch_norm=True),
                      lambda f: [age, columns.indicator_column(from_file(f)), columns.indicator_column(day)], "pair"),
    "linear": (lambda f, c: E.LinearClassifier(c, str(f)), lambda f: [age, ages, colour, weighted, from_file(f)], "two"),
    "linear-regressor": (lambda f, c: v1.estimator.LinearRegressor(c, str(f), partitioner=v1.fixed_size_partitioner(2)),
                         lambda f: [size, day, visits, known_tags], "one"),
    "wide-and-deep": (lambda f, c: E.DNNLinearCombinedClassifier(str(f), linear_feature_columns=[colour, visits], dnn_feature_columns=c[:2],
                                                                 dnn_hidden_units=[4], n_classes=3),
                      lambda f: [age, columns.embedding_column(weighted, 3), colour, visits], "three"),
    "shared": (lambda f, c: E.DNNEstimator(E.MultiLabelHead(3), [4], c, str(f)),
               lambda f: [*columns.shared_embeddings([tenths, visits], 3), size], "labels"),
    "baseline": (lambda f, c: E.BaselineClassifier(str(f), n_classes=3), lambda f: [age], "three"),
    "custom": (lambda f, c: E.Estimator(custom, str(f)), lambda f: [age, embedding(known_tags), columns.indicator_column(colour)], "plain"),
    "raw": (lambda f, c: E.DNNRegressor([4], c, str(f)), lambda f: [age, size], "one"),
    "hashed": (lambda f, c: E.LinearRegressor(c, str(f)), lambda f: [age, hashed, several], "one"),
    "crossed": (lambda f, c: E.LinearRegressor(c, str(f)), lambda f: [age, crossed], "one"),
}
LABELS = {"one": rng.normal(size=(ROWS, 1)).astype(np.float32), "pair": rng.normal(size=(ROWS, 2)).astype(np.float32), "two": np.array([[0], [1]] * 3),
          "three": np.array([[0], [1], [2]] * 2), "texts": np.array([["a"], ["b"], ["c"]] * 2), "plain": np.array([0, 1] * 3),
          "labels": rng.integers(0, 2, (ROWS, 3))}


def embedding(column: Any) -> Any:
    return columns.embedding_column(column, 4)


def sparse(name: str) -> Any:
    there = np.arange(3) < COUNTS[:, None]
    return tf.sparse.SparseTensor(np.argwhere(there), FEATURES[name][there].tolist(), [ROWS, 3])


def fed(names: Any) -> dict[str, Any]:
    return {name: sparse(name) if name in OF_ANY_LENGTH else tf.constant(FEATURES[name]) for name in names}


def example(row: int, names: Any) -> bytes:
    """One row as a tf.train.Example."""
    features = {}
    for name in names:
        items = FEATURES[name][row][:COUNTS[row] if name in OF_ANY_LENGTH else None]
        if items.dtype.kind in "OU":
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[str(item).encode() for item in items]))
        elif items.dtype.kind == "f":
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=items))
        else:
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=items))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def made(name: str, folder: Path, values: dict[str, np.ndarray]) -> None:
    build, chosen, labels = MODELS[name]
    work = folder / "work" / name
    work.mkdir(parents=True)
    used = chosen(work)
    spec = columns.make_parse_example_spec(used)
    estimator = build(work, used)
    estimator.train(lambda: tf.data.Dataset.from_tensors((fed(spec), LABELS[labels])).repeat(), steps=5)
    receiver = export.build_parsing_serving_input_receiver_fn(spec)
    if name == "raw":
        receiver = export.build_raw_serving_input_receiver_fn({key: v1.placeholder(tf.float32, [None, *item.shape], name=key) for key, item in spec.items()})
    exported = estimator.export_saved_model(str(work / "export"), receiver)
    Path(os.fsdecode(exported)).rename(folder / name)
    examples = [example(row, spec) for row in range(ROWS)]
    with tf.Graph().as_default(), v1.Session() as session:
        meta = v1.saved_model.load(session, ["serve"], str(folder / name))
        for signature, definition in meta.signature_def.items():
            feeds = {info.name: FEATURES[key] if name == "raw" else examples for key, info in definition.inputs.items()}
            for key, result in session.run({key: info.name for key, info in definition.outputs.items()}, feeds).items():
                values[f"{name}/{signature}/{key}"] = result.astype(str) if result.dtype.kind == "O" else result
    for feature, kind in spec.items():
        array = FEATURES[feature]
        values[f"{name}/{feature}"] = array.astype(str) if array.dtype.kind == "O" else array
        if isinstance(kind, tf.io.VarLenFeature):
            values[f"{name}/{feature}/count"] = COUNTS if feature in OF_ANY_LENGTH else np.ones(ROWS, np.int64)


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "estimators.tar.xz")
    values: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in MODELS:
            made(model, folder, values)
        np.savez_compressed(folder / "values.npz", **values)
        with tarfile.open(target, "w:xz") as archive:
            for item in [*MODELS, "values.npz"]:
                archive.add(folder / item, item)
    print(f"{len(MODELS)} models, {target.stat().st_size} bytes")


main()
