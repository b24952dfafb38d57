"""Exports of tf.estimator, which TensorFlow no longer has, against what it computed when they were made (`tests/golden/make_estimators.py`): they take messages
of tf.Example and parse them, their features are columns with vocabularies, buckets and embeddings, their variables lie in parts."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_files import unpacked

import isomorph
from isomorph import dialects
from isomorph.artifact import Artifact
from isomorph.formats import _table, saved_model
from isomorph.model import Model
from isomorph.verification import Given
from tests import environments
from tests.oracles.test_tensorflow import difference, ran

SIGNATURES = {"baseline": "classification predict serving_default", "custom": "names ranking serving_default", "dnn": "classification predict serving_default",
              "dnn-partitioned": "classification predict serving_default", "dnn-regressor": "predict regression serving_default",
              "linear": "classification predict regression serving_default", "linear-regressor": "predict regression serving_default", "raw": "predict",
              "shared": "classification predict serving_default", "wide-and-deep": "classification predict serving_default"}
HASHES = {"hashed": "StringToHashBucketFast", "crossed": "SparseCross"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("estimators", tmp_path_factory.mktemp("estimators"))


def read(exported: Path, name: str, signature: str) -> Model:
    return dialects.to_hub(saved_model.read(Artifact.open(exported / name), signature=signature))


@pytest.mark.parametrize(("name", "signature"), [(name, signature) for name, listed in SIGNATURES.items() for signature in listed.split()])
def test_an_estimator_takes_its_features(exported: Path, name: str, signature: str, tmp_path: Path) -> None:
    model = read(exported, name, signature)
    with np.load(exported / "values.npz") as values:
        known = {key: values[f"{name}/{key}"] for key in model.signatures[0].inputs}
        results = ran(model, tmp_path, {key: array.astype(object) if array.dtype.kind == "U" else array for key, array in known.items()})
        assert {key: difference(result, values[f"{name}/{signature}/{key}"]) for key, result in results.items()} == dict.fromkeys(results, "")
        assert len(results) == sum(key.startswith(f"{name}/{signature}/") for key in values.files)
    said = [finding.message for finding in model.findings if finding.code == "tf.example"]
    assert bool(said) is (name != "raw")
    assert all(repr(key.removesuffix("/count")) in said[0] for key in known if said)


@pytest.mark.parametrize("name", HASHES)
def test_a_column_of_hashes_says_what_onnx_lacks(exported: Path, name: str) -> None:
    model = read(exported, name, "predict")
    kept = {finding.message.partition(" ")[0] for finding in model.findings if finding.code == "operator.kept"}
    assert kept == {f"tf::{HASHES[name]}"}
    assert {"age", "colour", "colour/count"} <= set(model.signatures[0].inputs)


def test_a_default_of_a_feature_is_said(exported: Path) -> None:
    model = read(exported, "linear", "predict")
    assert [finding.message for finding in model.findings if finding.code == "tf.example-default"] == \
        ["the feature 'age' has to be given: a message without it stands for [30.0]"]


@pytest.mark.parametrize("to", ["tflite", *(pytest.param(to, marks=pytest.mark.slow) for to in ("saved_model", "tfjs_graph", "graphdef"))])
def test_a_network_of_columns_goes_to_other_runtimes(exported: Path, to: str, tmp_path: Path) -> None:
    """Vocabularies, weights and counts of features go along; nothing there has a size that is known beforehand."""
    for name in {"tensorflow", "tfjs" if to == "tfjs_graph" else "tensorflow"}:
        environments.use(name)
    report = isomorph.convert(exported / "linear", tmp_path / _table.output_name(to, "out"), to=to)
    assert report.facts["verified"] == "native"
    assert {item["name"] for item in report.facts["outputs"]} == {"classes", "scores"}


def test_an_entry_point_is_run(exported: Path) -> None:
    """With features, as TensorFlow makes of them the messages that it takes."""
    environments.use("tensorflow")
    with np.load(exported / "values.npz") as values:
        given = {"age": Given(array=values["baseline/age"])}
        answers = isomorph.run(exported / "baseline", given, signature="predict")
        assert np.abs(answers["probabilities"] - values["baseline/predict/probabilities"]).max() < 1e-5


def test_tensorflow_itself_is_given_messages(exported: Path, tmp_path: Path) -> None:
    environments.use("tensorflow")
    report = isomorph.convert(exported / "dnn", tmp_path / "dnn.onnx", signature="predict")
    assert report.facts["verified"] == "native"
    assert {item["name"] for item in report.facts["outputs"]} == {"all_class_ids", "all_classes", "class_ids", "classes", "logits", "probabilities"}
