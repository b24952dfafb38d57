"""Small ONNX files for tests, written by the onnx package rather than by us."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIGITS = Path(__file__).resolve().parents[2] / "src" / "isomorph" / "data" / "digits.onnx"


def save(path: Path, nodes: list, inputs: list, outputs: list, weights: dict[str, np.ndarray] | None = None, opset: int = 18) -> Path:
    """`inputs` and `outputs` are (name, element type, dims)."""
    described = ([helper.make_tensor_value_info(*value) for value in values] for values in (inputs, outputs))
    graph = helper.make_graph(nodes, "test", *described, [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def changed_digits(path: Path, change: str) -> Path:
    """The digits network with one weight changed, one operator changed, an output renamed, or an input of another rank."""
    model = onnx.load(DIGITS)
    if change == "weight":
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == "conv2.weight")
        array = numpy_helper.to_array(weight).copy()
        array[3, 3] *= 1.5
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    elif change == "operator":
        next(node for node in model.graph.node if node.name == "relu2").op_type = "Abs"
    elif change == "names":
        model.graph.output[0].name = model.graph.node[-1].output[0] = "answer"
        model.graph.input[0].name = model.graph.node[0].input[0] = "picture"
    elif change == "outputs":
        model.graph.output.append(helper.make_tensor_value_info("dense2", TensorProto.FLOAT, ["batch", 10]))
    onnx.save(model, path)
    return path
