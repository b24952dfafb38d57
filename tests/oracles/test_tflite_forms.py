"""The operators that known shapes of networks become in TensorFlow Lite, chosen for speed; LiteRT says that they still compute the same."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from running import run

import isomorph
from isomorph.artifact import Artifact
from isomorph.formats import tflite
from isomorph.model import operators

pytest.importorskip("ai_edge_litert", reason="the extra [litert] is not installed")
IMAGE, SEQUENCE = [1, 4, 6, 6], [2, 5, 8]
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Form:
    """Nodes of a network as (operator, inputs, attributes); outputs are the letters from "a" on, the input is "x"; `weights` are constants."""

    name: str
    shape: list[int]
    nodes: list[tuple[str, list[str], dict]]
    weights: dict[str, np.ndarray]
    becomes: dict[str, int]


def array(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


SQUEEZE = [("GlobalAveragePool", ["x"], {}), ("Conv", ["a", "w"], {}), ("HardSigmoid", ["b"], {"alpha": 0.2, "beta": 0.5}), ("Mul", ["x", "c"], {})]
FORMS = [
    Form("hard sigmoid in the layer before it, its last factor in the layer behind", IMAGE, [*SQUEEZE, ("Conv", ["d", "v"], {})],
         {"w": array(4, 4, 1, 1), "v": array(3, 4, 1, 1)}, {"TRANSPOSE": 2, "MEAN": 1, "CONV_2D": 2, "MUL": 1}),
    Form("a gated residual adds to the gate", IMAGE, [*SQUEEZE, ("Add", ["x", "d"], {})], {"w": array(4, 4, 1, 1)},
         {"RESHAPE": 2, "MEAN": 1, "FULLY_CONNECTED": 1, "MUL": 2, "ADD": 1}),
    Form("no operator that XNNPACK does not take", IMAGE, [("Clip", ["x", "low", "high"], {})], {"low": number(0), "high": number(1)},
         {"RELU": 1, "MINIMUM": 1}),
    Form("a transposed convolution without overlap, its normalisation and its activation", IMAGE,
         [("ConvTranspose", ["x", "w", "v"], {"strides": [2, 2]}), ("Mul", ["a", "s"], {}), ("Add", ["b", "t"], {}), ("Relu", ["c"], {})],
         {"w": array(4, 3, 2, 2), "v": array(3), "s": array(3, 1, 1), "t": array(3, 1, 1)}, {"TRANSPOSE": 2, "CONV_2D": 1, "DEPTH_TO_SPACE": 1}),
    Form("a factor behind an activation moves through an offset and a padding", IMAGE,
         [("HardSwish", ["x"], {}), ("Mul", ["a", "s"], {}), ("Add", ["b", "t"], {}), ("Conv", ["c", "w"], {"pads": [1, 1, 1, 1], "strides": [2, 2]})],
         {"s": number(0.7), "t": number(-0.3), "w": array(5, 4, 3, 3)}, {"TRANSPOSE": 2, "HARD_SWISH": 1, "ADD": 1, "PAD": 1, "CONV_2D": 1}),
    Form("scale and offset of a normalisation in the matrix behind them", SEQUENCE,
         [("LayerNormalization", ["x", "s", "t"], {}), ("MatMul", ["a", "w"], {}), ("Add", ["b", "v"], {})],
         {"s": array(8), "t": array(8), "w": array(8, 3), "v": array(3)},
         {"MEAN": 2, "SUB": 1, "MUL": 2, "ADD": 1, "RSQRT": 1, "FULLY_CONNECTED": 1}),
    Form("a factor of one and an offset of zero", SEQUENCE, [("Mul", ["x", "one"], {}), ("Add", ["a", "zero"], {}), ("Abs", ["b"], {})],
         {"one": number(1), "zero": number(0)}, {"ABS": 1}),
    Form("an activation between reshapes", [1, 8, 6], [("Conv", ["x", "w"], {}), ("Relu", ["a"], {}), ("Conv", ["b", "v"], {})],
         {"w": array(8, 8, 3), "v": array(4, 8, 3)}, {"TRANSPOSE": 2, "RESHAPE": 2, "CONV_2D": 2}),
    Form("softmax over the last axis of what was flattened", SEQUENCE,
         [("Reshape", ["x", "flat"], {}), ("Softmax", ["a"], {"axis": -1}), ("Reshape", ["b", "whole"], {})],
         {"flat": ints(10, 8), "whole": ints(2, 5, 8)}, {"SOFTMAX": 1}),
    Form("a flattened picture", IMAGE, [("MaxPool", ["x"], {"kernel_shape": [6, 6]}), ("Flatten", ["a"], {}), ("Gemm", ["b", "w"], {})], {"w": array(4, 3)},
         {"TRANSPOSE": 1, "MAX_POOL_2D": 1, "FULLY_CONNECTED": 1}),
    Form("a window that sees all of its input", IMAGE, [("Conv", ["x", "w", "v"], {"pads": [1, 2, 1, 2], "strides": [7, 7]}), ("Relu", ["a"], {})],
         {"w": array(5, 4, 8, 9), "v": array(5)}, {"TRANSPOSE": 1, "FULLY_CONNECTED": 1, "RESHAPE": 1}),
    Form("a window that sees a part of its input", IMAGE, [("Conv", ["x", "w", "v"], {"strides": [7, 7]})],
         {"w": array(5, 4, 4, 4), "v": array(5)}, {"TRANSPOSE": 1, "CONV_2D": 1, "RESHAPE": 1}),
    Form("the sum of two layers", [1, 8], [("Tanh", ["x"], {}), ("Gemm", ["x", "w", "v"], {}), ("MatMul", ["a", "u"], {}), ("Add", ["b", "c"], {})],
         {"w": array(8, 6), "v": array(6), "u": array(8, 6)}, {"TANH": 1, "CONCATENATION": 1, "FULLY_CONNECTED": 1}),
    Form("slices of slices", SEQUENCE,
         [("Slice", ["x", "one", "five", "two"], {}), ("Slice", ["a", "two", "five", "axis"], {}), ("Slice", ["b", "zero", "all"], {})],
         {"zero": ints(0), "one": ints(1), "two": ints(2), "five": ints(5), "all": ints(9), "axis": ints(1)}, {"STRIDED_SLICE": 1}),
    Form("one element of an axis", SEQUENCE, [("Gather", ["x", "place"], {"axis": 1})], {"place": np.asarray(-2)}, {"STRIDED_SLICE": 1, "RESHAPE": 1}),
    Form("a sum over one element", [2, 1, 8], [("ReduceSum", ["x", "axis"], {"keepdims": 0})], {"axis": ints(1)}, {"RESHAPE": 1}),
    Form("a reflection at both ends", SEQUENCE, [("Pad", ["x", "pads"], {"mode": "reflect"})], {"pads": ints(0, 3, 0, 0, 4, 0)},
         {"STRIDED_SLICE": 2, "CONCATENATION": 1}),
    Form("a reflection of a picture", IMAGE, [("Pad", ["x", "pads"], {"mode": "reflect"})], {"pads": ints(0, 0, 3, 1, 0, 0, 2, 2)}, {"MIRROR_PAD": 1}),
    Form("frames of sound", [2, 1, 70], [("Conv", ["x", "w", "v"], {"strides": [8]})], {"w": array(6, 1, 24), "v": array(6)},
         {"RESHAPE": 3, "STRIDED_SLICE": 1, "CONV_2D": 1, "TRANSPOSE": 1}),
    Form("a scaled picture and its gate", IMAGE,
         [("Mul", ["x", "s"], {}), ("Add", ["a", "t"], {}), ("GlobalAveragePool", ["b"], {}), ("Conv", ["c", "w"], {}), ("Sigmoid", ["d"], {}),
          ("Mul", ["b", "e"], {}), ("Conv", ["f", "v"], {})],
         {"s": number(1.4), "t": number(-0.4), "w": array(4, 4, 1, 1), "v": array(3, 4, 1, 1)},
         {"TRANSPOSE": 2, "ADD": 1, "MEAN": 1, "CONV_2D": 2, "LOGISTIC": 1, "MUL": 1}),
    Form("rows are padded whole", [1, 40, 40, 1], [("Pad", ["x", "pads", "zero"], {})], {"pads": ints(0, 1, 2, 0, 0, 3, 4, 0), "zero": number(0)},
         {"RESHAPE": 2, "PAD": 1}),
    Form("thin pictures side by side", [1, 40, 40, 1],
         [("Abs", ["x"], {}), ("Neg", ["x"], {}), ("Exp", ["x"], {}), ("Concat", ["a", "b", "c"], {"axis": 3})], {},
         {"ABS": 1, "NEG": 1, "EXP": 1, "RESHAPE": 4, "CONCATENATION": 1, "TRANSPOSE": 1}),
]


def saved(form: Form, path: Path) -> Path:
    """The network as an ONNX file."""
    nodes = [helper.make_node(operator, inputs, [letter], **attributes)
             for letter, (operator, inputs, attributes) in zip("abcdefg", form.nodes, strict=False)]
    weights = [numpy_helper.from_array(value, name) for name, value in form.weights.items()]
    graph = helper.make_graph(nodes, "form", [helper.make_tensor_value_info("x", TensorProto.FLOAT, form.shape)],
                              [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_form(form, tmp_path):
    source = saved(form, tmp_path / "form.onnx")
    report = isomorph.convert(source, tmp_path / "form.tflite")
    assert report.facts["verified"] == "native"
    assert operators(tflite.read(Artifact.open(tmp_path / "form.tflite"))) == Counter(form.becomes)
    isomorph.convert(tmp_path / "form.tflite", tmp_path / "back.onnx")


def test_a_slice_by_a_step_of_the_run(tmp_path):
    """Forwards and backwards, with bounds that are counted from the end or lie beyond it."""
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("start", "end", "step")]
    graph = helper.make_graph([helper.make_node("Slice", ["x", "start", "end", "axis", "step"], ["y"])], "sliced",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 9]), *values],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, None])], [numpy_helper.from_array(ints(1), "axis")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "sliced.onnx")
    isomorph.convert(tmp_path / "sliced.onnx", tmp_path / "sliced.tflite", verify=False)
    x = np.arange(18, dtype=np.float32).reshape(2, 9)
    for start, end, step in ((0, 9, 2), (-4, 99, 1), (2, -2, 3), (-1, -99, -1), (7, 1, -2), (-99, 99, 4), (3, 3, 1), (0, 99, -1)):
        _, outputs = run(tmp_path / "sliced.tflite", {"x": x, "start": ints(start), "end": ints(end), "step": ints(step)})
        np.testing.assert_array_equal(outputs["y"], x[:, slice(start, end, step) if end != -99 else slice(start, None, step)], err_msg=f"{start}:{end}:{step}")
