"""Verification of whole files: equal ones pass, each kind of difference is told, and bisection points at its cause."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import isomorph
from isomorph.errors import Crashed, Mismatch, Unsupported, Usage
from isomorph.verification import Given, require

sys.path.insert(0, str(Path(__file__).parents[1] / "planning"))
from networks import DIGITS, changed_digits, save


def test_a_file_equals_itself():
    report = isomorph.verify(DIGITS, DIGITS)
    assert report.facts["passed"]
    assert report.facts["outputs"][0]["max_abs"] == 0
    assert require(report) is report
    assert report.facts["first"]["proof"] == report.facts["second"]["proof"] == "native"
    assert report.facts["inputs"] == [{"name": "image", "dtype": "float32", "shape": [1, 1, 8, 8], "origin": "random"}]


def test_bisection_names_the_first_operator_that_differs(tmp_path):
    other = changed_digits(tmp_path / "other.onnx", "operator")
    report = isomorph.verify(DIGITS, other, bisect=True)
    assert not report.facts["passed"]
    assert report.findings[0].code == "verify.mismatch"
    found = report.facts["bisection"]
    assert (found["first"]["name"], found["first"]["operator"]) == ("relu2", "Relu")
    assert found["compared"] == 5
    with pytest.raises(Mismatch, match="1 of 1 results differ"):
        require(report)


def test_bisection_looks_into_litert(tmp_path):
    other = changed_digits(tmp_path / "other.onnx", "weight")
    isomorph.convert(other, tmp_path / "other.tflite", verify=False)
    found = isomorph.verify(DIGITS, tmp_path / "other.tflite", bisect=True).facts["bisection"]
    assert found["how"] == "in LiteRT"
    assert found["first"]["operator"] in ("Conv", "Relu")
    assert "2" in found["first"]["name"]


def test_other_names_are_compared_in_order(tmp_path):
    report = isomorph.verify(DIGITS, changed_digits(tmp_path / "renamed.onnx", "names"))
    assert report.facts["passed"]
    assert {finding.code for finding in report.findings} == {"verify.order"}


def test_other_counts_are_a_mismatch(tmp_path):
    with pytest.raises(Mismatch, match="one model has 1 outputs, the other 2"):
        isomorph.verify(DIGITS, changed_digits(tmp_path / "more.onnx", "outputs"))


def test_tolerances_can_be_given(tmp_path):
    other = changed_digits(tmp_path / "other.onnx", "weight")
    assert not isomorph.verify(DIGITS, other).facts["passed"]
    assert isomorph.verify(DIGITS, other, atol=1.0).facts["passed"]
    assert "given" in isomorph.verify(DIGITS, other, atol=1e-9).facts["outputs"][0]["tolerance"]


@pytest.mark.parametrize(("operator", "tolerance"), [("Transpose", "exact"), ("Mul", "1e-06 of the range"), ("MatMul", "0.0001 of the range")])
def test_the_tolerance_follows_from_the_operators(tmp_path, operator, tolerance):
    inputs = ["x"] if operator == "Transpose" else ["x", "x"]
    path = save(tmp_path / "one.onnx", [helper.make_node(operator, inputs, ["y"])], [("x", TensorProto.FLOAT, [4, 4])], [("y", TensorProto.FLOAT, [4, 4])])
    assert isomorph.verify(path, path).facts["outputs"][0]["tolerance"].startswith(tolerance)


def test_given_inputs_are_used(tmp_path):
    zeros = isomorph.run(DIGITS, {"image": Given(array=np.zeros((3, 1, 8, 8), np.float32))})
    assert zeros["probabilities"].shape == (3, 10)
    np.testing.assert_array_equal(zeros["probabilities"][0], zeros["probabilities"][2])
    report = isomorph.verify(DIGITS, DIGITS, inputs={"image": Given(shape=(7, 1, 8, 8))})
    assert report.facts["inputs"][0]["shape"] == [7, 1, 8, 8]
    with pytest.raises(Usage, match="no input is named"):
        isomorph.run(DIGITS, {"picture": Given(shape=(1, 1, 8, 8))})


def test_sizes_are_found_by_trying(tmp_path):
    """A reshape that only works where the width is a multiple of 64."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = save(tmp_path / "picky.onnx", nodes, [("x", TensorProto.FLOAT, ["n", "width"])], [("y", TensorProto.FLOAT, None)], {"shape": np.array([-1, 64])})
    report = isomorph.verify(path, path)
    assert report.facts["sizes"] == {"n": 1, "width": 64}
    assert report.facts["outputs"][0]["shape"] == [1, 64]


def test_a_model_that_takes_no_inputs_says_how_to_give_some(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = save(tmp_path / "never.onnx", nodes, [("x", TensorProto.FLOAT, ["n"])], [("y", TensorProto.FLOAT, None)], {"shape": np.array([977, 983])})
    with pytest.raises(Crashed) as error:
        isomorph.run(path)
    assert "--input" in error.value.hint


def test_weights_are_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    with pytest.raises(Unsupported, match="nothing to run"):
        isomorph.run(tmp_path / "a.npz")


def test_bench_states_what_it_measured():
    facts = isomorph.bench(DIGITS, runs=5, warm_up=1).facts
    assert facts["proof"] == "native"
    assert 0 < facts["median_ms"] <= facts["p90_ms"] < 1000
    assert facts["rss_bytes"] > 10 << 20
    assert (facts["runs"], facts["threads"]) == (5, 1)


def test_bounded_results_near_zero_may_round(tmp_path):
    """Runtimes compute a sigmoid to the precision of 1, so that results near 0 differ by much of their own range."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Sigmoid", ["z"], ["p"]), helper.make_node("Transpose", ["p"], ["y"])]
    path = save(tmp_path / "sure.onnx", nodes, [("x", TensorProto.FLOAT, [1, 4])], [("y", TensorProto.FLOAT, [4, 1])], {"w": np.eye(4, dtype=np.float32)})
    assert "1e-06 absolute" in isomorph.verify(path, path).facts["outputs"][0]["tolerance"]


def test_a_model_that_needs_a_larger_input_than_the_source_is_told(tmp_path):
    """The second network takes multiples of 64 only, the first any width."""
    free = ["n", "w"]
    wide = save(tmp_path / "any.onnx", [helper.make_node("Identity", ["x"], ["y"])], [("x", TensorProto.FLOAT, free)], [("y", TensorProto.FLOAT, free)])
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    picky = save(tmp_path / "picky.onnx", nodes, [("x", TensorProto.FLOAT, ["n", "w"])], [("y", TensorProto.FLOAT, None)], {"shape": np.array([-1, 64])})
    report = isomorph.verify(wide, picky)
    assert report.facts["passed"]
    assert [finding.code for finding in report.findings] == ["verify.sizes"]
    never = save(tmp_path / "never.onnx", nodes, [("x", TensorProto.FLOAT, ["n", "w"])], [("y", TensorProto.FLOAT, None)], {"shape": np.array([977, 983])})
    with pytest.raises(Mismatch, match="the second does not"):
        isomorph.verify(wide, never)


def test_variables_that_became_outputs_are_left_out(tmp_path):
    plain = save(tmp_path / "plain.onnx", [helper.make_node("Neg", ["x"], ["y"])], [("x", TensorProto.FLOAT, [2])], [("y", TensorProto.FLOAT, [2])])
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Add", ["memory", "x"], ["memory/next"])]
    inputs = [("x", TensorProto.FLOAT, [2]), ("memory", TensorProto.FLOAT, [2])]
    stateful = save(tmp_path / "stateful.onnx", nodes, inputs, [("y", TensorProto.FLOAT, [2]), ("memory/next", TensorProto.FLOAT, [2])])
    for pair in ((plain, stateful), (stateful, plain)):
        report = isomorph.verify(*pair)
        assert [finding.code for finding in report.findings] == ["verify.state"]
        assert [output["name"] for output in report.facts["outputs"]] == ["y"]


def test_weights_are_compared_one_by_one(tmp_path):
    report = isomorph.convert(DIGITS, tmp_path / "digits.safetensors")
    assert report.facts["verified"] == "re-read"
    assert [finding.code for finding in report.findings] == ["graph.dropped"]
    assert len(report.facts["outputs"]) == 8
    isomorph.convert(tmp_path / "digits.safetensors", tmp_path / "half.npz", dtype="fp16")
    assert isomorph.verify(tmp_path / "digits.safetensors", tmp_path / "half.npz").facts["passed"]
    changed = isomorph.verify(changed_digits(tmp_path / "other.onnx", "weight"), tmp_path / "digits.safetensors")
    assert [output["name"] for output in changed.facts["outputs"] if not output["passed"]] == ["conv2.weight"]
    np.savez(tmp_path / "one.npz", **{"conv1.bias": np.zeros(16, np.float32), "more": np.zeros(1)})
    reasons = {output["name"]: output["reason"] for output in isomorph.verify(DIGITS, tmp_path / "one.npz").facts["outputs"]}
    assert reasons["more"] == "only the second file has it"
    assert reasons["conv2.bias"] == "only the first file has it"


def threshold(path: Path, limit: float, operator: str = "Greater") -> Path:
    """Whether the sum of 32 numbers is above a limit."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0), helper.make_node(operator, ["sum", "limit"], ["y"])]
    return save(path, nodes, [("x", TensorProto.FLOAT, [32])], [("y", TensorProto.BOOL, [])], {"limit": np.float32(limit)})


def test_where_the_last_digits_decide_other_inputs_are_taken(tmp_path):
    total = float(np.random.default_rng(0).standard_normal(32, np.float32).sum())
    below, above = (threshold(tmp_path / f"{name}.onnx", total * factor) for name, factor in (("below", 1 - 1e-6), ("above", 1 + 1e-6)))
    report = isomorph.verify(below, above)
    assert report.facts["passed"]
    assert [finding.code for finding in report.findings] == ["verify.step"]
    assert not isomorph.verify(below, above, inputs={"x": Given(array=np.random.default_rng(0).standard_normal(32, np.float32))}).facts["passed"]


def test_a_difference_everywhere_is_none_of_the_last_digits(tmp_path):
    total = float(np.random.default_rng(0).standard_normal(32, np.float32).sum())
    right, wrong = (threshold(tmp_path / f"{operator}.onnx", total * (1 + 1e-6), operator) for operator in ("Greater", "Less"))
    report = isomorph.verify(right, wrong)
    assert not report.facts["passed"]
    assert "verify.mismatch" in {finding.code for finding in report.findings}
