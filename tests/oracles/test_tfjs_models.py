"""Published models of TensorFlow.js to other formats, and other models to TensorFlow.js: each side in its own runtime, and the result in a browser as well."""
from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import browser
import environments
import numpy as np
import onnx
import pytest
from golden_files import unpacked
from zoo import catalogue, zoo

import isomorph
from isomorph.formats import _table
from isomorph.runtime.session import Session

BOUND = 1e-4
DIGITS = Path(str(resources.files("isomorph") / "data" / "digits.onnx"))
SOME = [("human_emotion", "tflite"), ("human_blazeface", "onnx"), ("basic_pitch_tfjs", "onnx"), ("human_antispoof", "tfjs_graph"),
        ("human_handtrack", "tflite"), ("human_centernet", "onnx")]
ALL = [(name, to) for name, row in catalogue()["model"].items() if row.get("format") == "tfjs_graph" for to in ("onnx", "tflite", "saved_model", "tfjs_graph")]


def farthest(report: Any) -> float:
    """The greatest difference of any output in its range."""
    assert report.facts["verified"] == "native"
    assert report.facts["outputs"]
    return max(output["max_abs"] / (output["range"] or 1.0) for output in report.facts["outputs"])


@pytest.mark.parametrize(("name", "to"), [pytest.param(*pair, marks=[] if pair in SOME else [pytest.mark.slow]) for pair in ALL])
def test_published_models(name: str, to: str, tmp_path: Path) -> None:
    environments.use("tfjs")
    if to == "saved_model":
        environments.use("tensorflow")
    assert farthest(isomorph.convert(zoo(name), tmp_path / _table.output_name(to, "out"), to=to)) < BOUND


@pytest.mark.parametrize("to", ["tfjs_graph", pytest.param("saved_model", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["basic_pitch_onnx", "silero_vad_op15"])
def test_networks_of_onnx(name: str, to: str, tmp_path: Path) -> None:
    environments.use("tfjs" if to == "tfjs_graph" else "tensorflow")
    assert farthest(isomorph.convert(zoo(name), tmp_path / _table.output_name(to, "out"), to=to)) < BOUND


@pytest.mark.parametrize(("dtype", "bound", "share"), [("fp16", 1e-3, 0.55), ("uint16", 1e-3, 0.55), ("uint8", 0.1, 0.35)])
def test_narrow_weights(dtype: str, bound: float, share: float, tmp_path: Path) -> None:
    """TensorFlow.js widens them by itself; our reader gives what it computes with."""
    environments.use("tfjs")
    plain = isomorph.convert(DIGITS, tmp_path / "plain" / "model.json", to="tfjs_graph", verify=False)
    report = isomorph.convert(DIGITS, tmp_path / "narrow" / "model.json", to="tfjs_graph", dtype=dtype)
    assert report.facts["verified"] == "native"
    sizes = [sum(shard.stat().st_size for shard in (tmp_path / folder).glob("*.bin")) for folder in ("plain", "narrow")]
    assert sizes[1] < share * sizes[0]
    assert "weights.narrowed" in {finding.code for finding in report.findings}
    assert plain.facts["destination"]["bytes"] > report.facts["destination"]["bytes"]
    images = np.random.default_rng(0).uniform(size=(2, 1, 8, 8)).astype(np.float32)
    results = [Session(tmp_path / folder / "model.json", "tfjs_graph") for folder in ("plain", "narrow")]
    with results[0] as exact, results[1] as narrow:
        assert np.abs(exact.run({"image": images})["probabilities"] - narrow.run({"image": images})["probabilities"]).max() < bound
    assert farthest(isomorph.convert(tmp_path / "narrow" / "model.json", tmp_path / "back.onnx", to="onnx")) < 1e-5


def test_a_large_table_is_a_table(tmp_path: Path) -> None:
    """It is filled by the second graph of the file, and looked into in any shape; the words of the table are what is asked for."""
    words = [f"word {number}" for number in range(1000)]
    nodes = [onnx.helper.make_node("LabelEncoder", ["x"], ["number"], domain="ai.onnx.ml", keys_strings=words, values_int64s=list(range(1000))),
             onnx.helper.make_node("LabelEncoder", ["k"], ["word"], domain="ai.onnx.ml", keys_int64s=list(range(300)), values_strings=words[:300])]
    kinds = onnx.TensorProto
    sides = [[onnx.helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in side]
             for side in ([("x", kinds.STRING, ["batch", 3]), ("k", kinds.INT64, [4])], [("number", kinds.INT64, ["batch", 3]), ("word", kinds.STRING, [4])])]
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("ai.onnx.ml", 4)]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *sides), opset_imports=opsets, ir_version=10), tmp_path / "words.onnx")
    report = isomorph.convert(tmp_path / "words.onnx", tmp_path / "js", to="tfjs_graph")
    assert farthest(report) == 0
    assert [finding.code for finding in report.findings].count("tfjs.table") == 2
    document = json.loads((tmp_path / "js" / "model.json").read_text())
    assert [node["op"] for node in document["modelInitializer"]["node"]].count("LookupTableImportV2") == 2
    assert farthest(isomorph.convert(tmp_path / "js", tmp_path / "back.onnx")) == 0


def test_tables_of_the_converter(tmp_path: Path) -> None:
    """As TensorFlow.js fills them and looks into them, by numbers that both graphs of the file give them."""
    unpacked("tfjs_tables", tmp_path)
    report = isomorph.convert(tmp_path / "two" / "model.json", tmp_path / "two.onnx")
    assert farthest(report) == 0
    assert len(report.facts["outputs"]) == 4


def test_in_a_browser(tmp_path: Path) -> None:
    """The written model, loaded over HTTP by TensorFlow.js in headless Chromium."""
    isomorph.convert(DIGITS, tmp_path / "model" / "model.json", to="tfjs_graph", verify=False)
    feeds = {"image": np.random.default_rng(0).uniform(size=(3, 1, 8, 8)).astype(np.float32)}
    (got,) = browser.results(tmp_path, {"model": feeds})
    with Session(DIGITS, "onnx") as session:
        wanted = session.run(feeds)["probabilities"]
    assert np.abs(got.reshape(wanted.shape) - wanted).max() < BOUND
