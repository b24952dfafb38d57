"""Nodes that contradict their operator are refused when a file is read, so that no pass and no mapping meets them."""
from __future__ import annotations

import onnx
import pytest
from onnx import helper

from isomorph.artifact import Artifact
from isomorph.errors import Damaged
from isomorph.formats import onnx as onnx_format

node, info = helper.make_node, helper.make_tensor_value_info


def body(inputs: int, outputs: int):
    made = [node("Identity", ["x"], [f"o{place}"]) for place in range(outputs)]
    return helper.make_graph(made, "body", [info(f"i{place}", 1, None) for place in range(inputs)], [info(f"o{place}", 1, None) for place in range(outputs)])


def read(*nodes, functions=()):
    graph = helper.make_graph(list(nodes), "g", [info("x", 1, [2]), info("c", 9, []), info("n", 7, [])], [])
    opsets = [helper.make_opsetid("", 26), helper.make_opsetid("local", 1)]
    return onnx_format.read(Artifact.open(helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=13).SerializeToString()))


@pytest.mark.parametrize(("bad", "reason"), [
    (node("Add", ["x"], ["y"]), "has 1 inputs"),
    (node("Relu", ["x", "x"], ["y"]), "has 2 inputs"),
    (node("Add", ["x", ""], ["y"]), "input 1 is missing"),
    (node("Relu", ["x"], ["y", "z"]), "has 2 outputs"),
    (node("Cast", ["x"], ["y"]), "`to` is missing"),
    (node("Cast", ["x"], ["y"], to="FLOAT"), "of type string, the operator takes int"),
    (node("Constant", [], ["y"]), "has 0 attributes"),
    (node("Constant", [], ["y"], value_int=1, value_float=1.0), "has 2 attributes"),
    (node("If", ["c"], ["y"], then_branch=body(0, 1), else_branch=body(0, 2)), "else_branch has 0 inputs and 2 outputs"),
    (node("If", ["c"], ["y"], then_branch=body(1, 1), else_branch=body(0, 1)), "then_branch has 1 inputs"),
    (node("Loop", ["n", "c", "x"], ["y"], body=body(2, 2)), "body has 2 inputs and 2 outputs where it needs 3 and 2"),
    (node("Scan", ["x", "x"], ["y"], body=body(2, 2), num_scan_inputs=1), "body has 2 inputs and 2 outputs where it needs 2 and 1"),
    (node("Scan", ["x"], ["y"], body=body(1, 1), num_scan_inputs=2), "scans 2 of 1"),
    (node("Twice", ["x", "x"], ["y"], domain="local"), "the function 1 and 2"),
])
def test_contradictions_are_named(bad, reason):
    twice = helper.make_function("local", "Twice", ["a"], ["b", "c"], [node("Neg", ["a"], ["b"]), node("Abs", ["a"], ["c"])], [helper.make_opsetid("", 26)])
    with pytest.raises(Damaged, match="contradict") as caught:
        read(bad, functions=[twice])
    assert reason in caught.value.what


def test_sound_nodes_pass(tmp_path):
    twice = helper.make_function("local", "Twice", ["a"], ["b", "c"], [node("Neg", ["a"], ["b"]), node("Abs", ["a"], ["c"])], [helper.make_opsetid("", 26)])
    model = read(node("If", ["c"], ["y"], then_branch=body(0, 1), else_branch=body(0, 1)), node("Twice", ["x"], ["z"], domain="local"),
                 node("Clip", ["x", "", "x"], ["w"]), node("Unknown", ["x"], ["v"], domain="com.example"), functions=[twice])
    calls = [each for each in model.graph if each.op_type == "Twice"]
    assert [value.name for value in calls[0].outputs] == ["z", ""]
    onnx_format.write(model, tmp_path / "x.onnx")
    assert [list(each.output) for each in onnx.load(str(tmp_path / "x.onnx")).graph.node if each.op_type == "Twice"] == [["z"]]
