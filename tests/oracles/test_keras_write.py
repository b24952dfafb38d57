"""What isomorph writes for Keras, loaded by Keras 3 and Keras 2 themselves: the same results, and the same loss while it is trained on."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path

import environments
import h5py
import pytest
from test_keras_read import made

import isomorph
from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.formats import _table, keras
from isomorph.model import operators

# Models of several layers, and what they are written with.
LAYERS = {"sequential": {"Conv2D", "MaxPooling2D", "BatchNormalization", "Dense", "ReLU", "Flatten", "Softmax"}, "nested-batch-norm": {"Conv2D",
    "BatchNormalization", "Dense"},
          "residual": {"Conv2D", "ReLU", "Add"}, "shared": {"Dense", "Concatenate"}, "two-outputs": {"Dense"}, "dynamic-size": {"Conv2D",
          "GlobalAveragePooling2D"},
          **{f"Bidirectional-{kind}-concat-{sequences}": {"Bidirectional"} for kind in ("LSTM", "GRU", "SimpleRNN") for sequences in (True, False)}}
OPERATIONS = {**{f"MultiHeadAttention-{case}": {"MultiHeadAttention"}
                 for case in ("False-True", "False-False", "key", "one", "causal", "mask", "mask-causal", "mask-heads", "mask-known", "causal-dynamic")},
              **{f"masked-heads{case}": {"MultiHeadAttention", "Embedding"} for case in ("", "-causal", "-two", "-values")},
              **{f"GroupedQueryAttention-{case}": {"GroupedQueryAttention"} for case in ("True", "False", "causal-alone", "mask", "masked")},
              "encoder-decoder": {"LSTM"},
              "ops-einsum": {"keras.ops::Einsum"}, "reduce-sum-1": {"keras.ops::Sum"}, "ops-slice": {"keras.ops::GetItem"}, "picture-transpose": set()}
TRAINED = ("sequential", "residual")
ALONE, REFUSED = "sequential-without-an-input", "raw-slice"             # what Keras 3 runs in another way, and what it does not load
TRAINING = {"optimizer_config": {"class_name": "Custom>Adam", "config": {"learning_rate": 0.01, "decay": 0.0, "is_legacy_optimizer": False}},
            "loss": {"class_name": "MeanSquaredError", "config": {"reduction": "auto", "name": "m", "fn": "mean_squared_error"}}, "loss_weights": None,
            "metrics": [[{"class_name": "MeanMetricWrapper", "config": {"name": "mae", "dtype": "float32", "fn": "mean_absolute_error"}}]]}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> tuple[Path, dict[str, dict]]:
    folder = tmp_path_factory.mktemp("keras")
    cases = made("keras", folder, ",".join([*LAYERS, *OPERATIONS, ALONE]))
    return folder, {case["name"]: case for case in cases}


@pytest.fixture(scope="module")
def older(tmp_path_factory) -> tuple[Path, dict[str, dict]]:
    """Of Keras 2."""
    folder = tmp_path_factory.mktemp("tf_keras")
    return folder, {case["name"]: case for case in made("tf_keras", folder, ",".join([*TRAINED, REFUSED]))}


def judged(library: str, lines: list[dict]) -> list[dict]:
    python = environments.python("tensorflow")
    command = [str(python), str(Path(__file__).with_name("keras_judge.py")), library]
    done = subprocess.run(command, input="\n".join(map(json.dumps, lines)), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def written(source: Path, target: Path, kind: str):
    model = from_hub(to_hub(keras.read(Artifact.open(source))), "keras")
    _table.get(kind).write(model, target)
    return model


@pytest.mark.parametrize(("library", "kind", "suffix"), [("keras", "keras", ".keras"), ("keras", "keras_h5", ".h5"), ("tf_keras", "keras_h5", ".h5")])
def test_keras_loads_it(sources, tmp_path, library, kind, suffix):
    folder, cases = sources
    wanted = LAYERS if library == "tf_keras" else {name: kinds for name, kinds in (LAYERS | OPERATIONS).items() if name in cases}
    lines = []
    for name, kinds in wanted.items():
        target = tmp_path / f"{name}{suffix}"
        model = written(folder / cases[name]["file"], target, kind)
        assert kinds <= operators(model).keys()
        original = str(folder / cases[name]["file"]) if name in TRAINED and library == "keras" else None
        lines.append({"file": str(target), "data": str(folder / f"{name}.npz"), "original": original})
    answers = dict(zip(wanted, judged(library, lines), strict=True))
    assert not {name: answer for name, answer in answers.items() if answer.get("differs", 1) > 1e-5}
    for name in TRAINED if library == "keras" else ():
        before, after = answers[name]["losses"]
        assert before[-1] < before[0]
        assert after == pytest.approx(before, rel=1e-3)


def test_files_are_proven_by_the_keras_that_made_them(sources, older, tmp_path):
    """Also those that Keras 3 refuses, by Keras 2."""
    environments.use("tensorflow")
    for name, (folder, cases), suffix in ((ALONE, sources, ".onnx"), (REFUSED, older, ".keras")):
        report = isomorph.convert(folder / cases[name]["file"], tmp_path / f"{name}{suffix}")
        assert report.facts["verified"] == "native", report.findings
        assert report.facts["outputs"]


def test_an_epoch_after_the_way_through_onnx(older, tmp_path):
    """An .h5 file of Keras 2, by way of an .onnx file, as .keras: Keras 3 trains it for an epoch, and the loss falls as it does from the .h5 file itself."""
    folder, cases = older
    lines = []
    for name in TRAINED:
        source, middle, target = folder / cases[name]["file"], tmp_path / f"{name}.onnx", tmp_path / f"{name}.keras"
        with h5py.File(source, "a") as file:
            file.attrs["training_config"] = json.dumps(TRAINING)
        isomorph.convert(source, middle, verify=False)
        isomorph.convert(middle, target, verify=False)
        lines.append({"file": str(target), "data": str(folder / f"{name}.npz"), "original": str(source), "epoch": True, "compiled": True})
    for answer in judged("keras", lines):
        assert answer["differs"] <= 1e-5, answer
        assert answer["compiled"] == ["Adam", pytest.approx(0, abs=10)]
        (first, last), (again, then) = answer["losses"]
        assert last < first
        assert again == pytest.approx(first, rel=1e-5)
        assert again - then == pytest.approx(first - last, rel=0.02)
