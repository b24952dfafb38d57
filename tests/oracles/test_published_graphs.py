"""Published graphs of TensorFlow to every other format: TensorFlow runs the source, the runtime of the target the result."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import environments
import pytest
from zoo import zoo

import isomorph
from isomorph.formats import _table

SHARED = next((folder / "shared/data" for folder in Path(__file__).parents if (folder / "shared/data").is_dir()), None)
BOUND = 1e-4
NEEDS = {"tfjs_graph": "tfjs", "torchscript": "torch", "torch_export": "torch"}
TARGETS = ("onnx", "tflite", "tfjs_graph", "saved_model", "graphdef")
USUAL = [("lstm", "tflite"), ("ae0", "onnx"), ("basic_pitch", "tfjs_graph")]            # what is run by default
CASES = [(name, to) for name in ("lstm", "ae0") for to in (*TARGETS, "torchscript", "torch_export")] + [("basic_pitch", to) for to in TARGETS]


def source(name: str) -> Path:
    """The file of a published network."""
    if name == "basic_pitch":
        return zoo("basic_pitch_saved_model").parent
    if SHARED is None:
        pytest.skip("the folder shared/data with published models does not stand beside the repository")
    return SHARED / "frozen-graphdef" / f"{name}.pb"


def converted(name: str, to: str, folder: Path) -> Any:
    for environment in {"tensorflow", NEEDS.get(to, "tensorflow")}:
        environments.use(environment)
    return isomorph.convert(source(name), folder / _table.output_name(to, "out"), to=to)


@pytest.mark.parametrize(("name", "to"), [pytest.param(*case, marks=[] if case in USUAL else [pytest.mark.slow]) for case in CASES])
def test_results_are_the_same_in_both_runtimes(name: str, to: str, tmp_path: Path) -> None:
    report = converted(name, to, tmp_path)
    assert report.facts["verified"] == "native"
    assert report.facts["outputs"]
    assert all(output["max_abs"] <= BOUND * output["range"] for output in report.facts["outputs"])


def test_the_share_that_dropout_keeps_is_a_scalar(tmp_path: Path) -> None:
    """The placeholder has no shape in the file. What TensorFlow wrote out becomes one Dropout, which drops nothing where 1 is kept."""
    import onnx
    isomorph.convert(source("lstm"), tmp_path / "lstm.onnx", verify=False)
    graph = onnx.load(tmp_path / "lstm.onnx").graph
    assert [len(value.type.tensor_type.shape.dim) for value in graph.input if value.name == "keep_prob"] == [0]
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Dropout") == 1
    assert not {"Floor", "RandomUniformLike"} & set(kinds)


@pytest.mark.slow
def test_a_detector_differs_by_the_sigmoid_of_its_source(tmp_path: Path) -> None:
    """On noise its results are near 0, where the sigmoid of ONNX Runtime is off by 1e-7, a thousandth of their range, and that of TensorFlow is not.
    What goes into it is the same in both."""
    import onnx
    environments.use("tensorflow")
    model = onnx.load(zoo("ppocr_det"))
    (last,) = (node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
    assert last.op_type == "Sigmoid"
    model.graph.output[0].name = last.input[0]
    model.graph.node.remove(last)
    onnx.save(model, tmp_path / "logits.onnx")
    (logits,) = isomorph.convert(tmp_path / "logits.onnx", tmp_path / "logits", to="saved_model").facts["outputs"]
    assert logits["max_abs"] <= BOUND * logits["range"]
    (result,) = isomorph.convert(zoo("ppocr_det"), tmp_path / "detector", to="saved_model").facts["outputs"]
    assert result["passed"]
    assert result["max_abs"] < 2e-7
