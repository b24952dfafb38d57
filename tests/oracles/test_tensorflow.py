"""What TensorFlow and Keras write, read by us and run by ONNX Runtime, against what TensorFlow itself computes.

The operators are those that two of three converters handle and what holds them together; each with several types and attributes. By default one case of every
operator is run, with `-m slow` all of them. `pytest tests/oracles/test_tensorflow.py -m "slow or not slow" -s` prints the counts.
"""
from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import isomorph
from isomorph import dialects
from isomorph.artifact import Artifact
from isomorph.errors import Usage
from isomorph.formats import _table, saved_model
from isomorph.model import Model
from tests import environments
from tests.oracles import running

HERE = Path(__file__).parent
BAR = 0.98
TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "float16": 2e-3}             # of the range; half precision rounds once an operator
# What falls short, each with its reason.
SHORT = {
    "StaticRegexReplace": "ONNX has no operator that replaces parts of texts", "StringToHashBucketFast": "ONNX has no hash of texts",
}
PLAIN = ("LSTM", "LSTM-sequences", "LSTM-stacked", "LSTM-bidirectional", "GRU", "GRU-stacked", "GRU-reset-before", "SimpleRNN", "SimpleRNN-backwards")
OTHERS = ("LSTM-stateful", "LSTM-masked", "GRU-masked-last", "ConvLSTM2D", "cells", "LSTM-any-length", "GRU-hard-sigmoid")
NODE = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}


def made(folder: Path, script: str, *arguments: str) -> Path:
    """What a script of this folder makes in the Python that has TensorFlow."""
    command = [str(environments.python("tensorflow")), "-W", "ignore", str(HERE / script), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def ran(model: Model, folder: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a model by the names of its signature. Inputs by those names, too; what the graph does not use is not fed."""
    path = folder / "model.onnx"
    write = _table.get("onnx").write
    assert write is not None
    write(model, path, force=True)
    known = {str(value.name) for value in model.graph.inputs if not value.is_initializer()}           # a state has what the file says as its default
    signature = model.signatures[0]
    given = {signature.inputs[name]: array for name, array in feeds.items() if signature.inputs.get(name) in known}
    _, outputs = running.run(path, given)
    return {name: outputs[value] for name, value in signature.outputs.items()}


def difference(result: np.ndarray, expected: np.ndarray) -> str:
    """Why a result is not what TensorFlow computes; "" where it is."""
    if expected.dtype.kind == "U":
        return "" if result.astype(str).tolist() == expected.tolist() else f"{result.tolist()[:4]} for {expected.tolist()[:4]}"
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return f"{result.dtype}{list(result.shape)} for {expected.dtype}{list(expected.shape)}"
    if expected.dtype.kind != "f":
        return "" if np.array_equal(result, expected) else "other integers"
    finite = np.isfinite(expected)
    if not np.array_equal(result[~finite], expected[~finite], equal_nan=True) or not np.isfinite(result[finite]).all():
        return "NaN or infinity at other places"
    span = np.abs(expected[finite]).max(initial=0)
    error = np.abs(result[finite].astype(np.float64) - expected[finite].astype(np.float64)).max(initial=0)
    return "" if error <= TOLERANCE[expected.dtype.name] * max(span, 1e-30) else f"{error / max(span, 1e-30):.1e} of the range"


# ---- operators


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("operators"), "tensorflow_child.py")


def outcome(folder: Path, case: dict[str, Any], values: Any, scratch: Path) -> str:
    """Why a case fails; "" where it passes."""
    try:
        model = dialects.to_hub(saved_model.read(Artifact.open(folder / case["folder"]), signature=case["name"]))
        kept = [finding.message for finding in model.findings if finding.code == "operator.kept"]
        if kept:
            return kept[0]
        feeds = {f"x{place}": values[f"{case['name']}/x{place}"] for place in range(case["inputs"])}
        feeds = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in feeds.items()}
        results = ran(model, scratch, feeds)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return next((text for name in case["outputs"] if (text := difference(results[name], values[f"{case['name']}/{name}"]))), "")


def sweep(folder: Path, scratch: Path, *, each: bool) -> dict[str, list[str]]:
    """Operator -> what is wrong with each of its cases. Without `each` only the first case of an operator is run."""
    found: dict[str, list[str]] = defaultdict(list)
    listed = json.loads((folder / "cases.json").read_text())["cases"]
    with np.load(folder / "values.npz") as values:
        for case in listed:
            if each or case["operator"] not in found:
                found[case["operator"]].append(outcome(folder, case, values, scratch))
    return found


def checked(found: dict[str, list[str]]) -> None:
    cases = [reason for reasons in found.values() for reason in reasons]
    whole = sum(not any(reasons) for reasons in found.values())
    print(f"{cases.count('')} of {len(cases)} cases equal TensorFlow, all cases of {whole} of {len(found)} operators")
    unexplained = {name: reasons for name, reasons in found.items() if any(reasons) and name not in SHORT}
    assert not unexplained
    assert cases.count("") >= BAR * len(cases)
    assert len(found) >= 270


def test_operators(swept: Path, tmp_path: Path) -> None:
    checked(sweep(swept, tmp_path, each=False))


@pytest.mark.slow
def test_operators_with_every_type_and_attribute(swept: Path, tmp_path: Path) -> None:
    checked(sweep(swept, tmp_path, each=True))


# ---- recurrent networks


@pytest.fixture(scope="module", params=["3", "2"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    every = "slow" in (request.config.getoption("-m") or "") and "not slow" not in (request.config.getoption("-m") or "")
    return made(tmp_path_factory.mktemp("recurrent"), "recurrent_child.py", request.param, *(() if every else (*PLAIN, *OTHERS))), request.param


def recurrent(exported: tuple[Path, str], name: str, scratch: Path) -> tuple[Model, float]:
    """A network in ONNX, and how far it is from Keras, as a part of the range."""
    folder, generation = exported
    model = dialects.to_hub(saved_model.read(Artifact.open(folder / f"keras{generation}-{name}")))
    with np.load(folder / f"recurrent_{generation}.npz") as values:
        (feed,) = model.signatures[0].inputs
        results = list(ran(model, scratch, {feed: values[f"{name}/x"]}).values())
        expected = values[f"{name}/y0"]
    return model, float(min(np.abs(result - expected).max() for result in results if result.shape == expected.shape) / np.abs(expected).max())


@pytest.mark.parametrize("name", PLAIN)
def test_plain_recurrent_layers_become_nodes(exported: tuple[Path, str], name: str, tmp_path: Path) -> None:
    model, error = recurrent(exported, name, tmp_path)
    kinds = {node.op_type for node in model.graph}
    assert NODE[name.partition("-")[0]] in kinds
    assert not kinds & {"Loop", "Scan"}
    assert error <= 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_other_recurrent_layers_are_the_same(exported: tuple[Path, str], name: str, tmp_path: Path) -> None:
    assert recurrent(exported, name, tmp_path)[1] <= 1e-5


@pytest.mark.slow
def test_every_recurrent_network_is_the_same(exported: tuple[Path, str], tmp_path: Path) -> None:
    folder, generation = exported
    names = list(json.loads((folder / f"recurrent_{generation}.json").read_text()))
    errors = {name: recurrent(exported, name, tmp_path)[1] for name in names}
    print(f"Keras {generation}: {len(names)} recurrent networks, the greatest error is {max(errors.values()):.1e} of the range")
    assert len(names) >= 40
    assert not {name: error for name, error in errors.items() if error > 1e-5}


def test_a_state_is_an_input_and_an_output(exported: tuple[Path, str], tmp_path: Path) -> None:
    folder, generation = exported
    model = dialects.to_hub(saved_model.read(Artifact.open(folder / f"keras{generation}-LSTM-stateful")))
    states = [value for value in model.graph.inputs if value.is_initializer()]
    assert len(states) == 2
    assert {f"{value.name}/next" for value in states} <= {value.name for value in model.graph.outputs}
    assert all(value.dtype == ir.DataType.FLOAT for value in states)
    assert sum(finding.code == "tf.state" for finding in model.findings) == 2


# ---- TensorFlow 1


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("graphs"), "graphs_child.py")


@pytest.mark.parametrize(("name", "kind"), [("branch", "If"), ("constants", "If"), ("branches", "If"), ("loop", "Loop"), ("loops", "Loop"),
                                            ("branch-in-loop", "Loop"), ("map", "Loop"), ("scan", "Loop"), ("lstm", "LSTM"), ("gru", "GRU"),
                                            ("rnn", "RNN"), ("lstm-lengths", "Loop")])
@pytest.mark.parametrize("form", ["{}.pb", "{}_model", "{}_checkpoint/model.meta"])
def test_graphs_of_tensorflow_1(graphs: Path, name: str, kind: str, form: str, tmp_path: Path) -> None:
    path = graphs / form.format(name)
    if form.endswith(".meta") and not path.exists():
        pytest.skip("it has no variables")
    artifact = Artifact.open(path)
    read = _table.get(_table.identify(artifact).format).read
    assert read is not None
    model = dialects.to_hub(read(artifact))
    with np.load(graphs / "graphs.npz") as values:
        result, expected = ran(model, tmp_path, {"x": values[f"{name}/x"]})["y"], values[f"{name}/y"]
    assert kind in {node.op_type for node in model.graph}
    assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_file_for_serving_and_training(graphs: Path, tmp_path: Path) -> None:
    """The graph for serving is read, and TensorFlow is asked for the same one. What only tells whether variables are there is no result of a checkpoint."""
    environments.use("tensorflow")
    report = isomorph.convert(graphs / "tagged_model", tmp_path / "tagged.onnx")
    assert report.facts["verified"] == "native"
    read = _table.get("tf_checkpoint").read
    assert read is not None
    assert list(read(Artifact.open(graphs / "tagged_checkpoint" / "model.meta")).signatures[0].outputs) == ["y"]


def test_a_vocabulary_beside_the_graph_becomes_a_table(graphs: Path, tmp_path: Path) -> None:
    model = dialects.to_hub(saved_model.read(Artifact.open(graphs / "vocabulary_model")))
    assert [node.op_type for node in model.graph] == ["LabelEncoder"]
    assert ran(model, tmp_path, {"x": np.asarray(["b", "q", "c"], object)})["y"].tolist() == [1, -1, 2]


@pytest.mark.parametrize("to", ["saved_model", "tflite", "tfjs_graph"])
def test_a_vocabulary_goes_with_the_network(graphs: Path, to: str, tmp_path: Path) -> None:
    """As constants that are compared, because the loaders fill tables in ways of their own. The proof asks for its words."""
    for name in {"tensorflow", "tfjs" if to == "tfjs_graph" else "tensorflow"}:
        environments.use(name)
    report = isomorph.convert(graphs / "vocabulary_model", tmp_path / _table.output_name(to, "out"), to=to)
    assert report.facts["verified"] == "native"
    ((output,),) = (report.facts["outputs"],)
    assert output["max_abs"] == 0
    assert output["range"] > 0


# ---- signatures


def test_a_signature_can_be_chosen(swept: Path, tmp_path: Path) -> None:
    case = json.loads((swept / "cases.json").read_text())["cases"][1]
    isomorph.convert(swept / case["folder"], tmp_path / "one.onnx", signature=case["name"], verify=False)
    read = _table.get("onnx").read
    assert read is not None
    assert [value.name for value in read(Artifact.open(tmp_path / "one.onnx")).graph.outputs] == ["y0"]
    environments.use("tensorflow")
    report = isomorph.convert(swept / case["folder"], tmp_path / "proven.onnx", signature=case["name"])
    assert report.facts["verified"] == "native"
    with pytest.raises(Usage, match="no signature"):
        isomorph.convert(swept / case["folder"], tmp_path / "none.onnx", signature="none of them", verify=False)
