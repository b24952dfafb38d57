"""Operators that only TensorFlow.js has, or that it computes in its own way: our reading of them, run by ONNX Runtime, against TensorFlow.js itself."""
from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import environments
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import isomorph

DTYPES = {"float32": "DT_FLOAT", "int32": "DT_INT32"}
LAYERS = ("_FusedConv2D", "FusedDepthwiseConv2dNative", "_FusedMatMul")
ACTIVATIONS = ("", "Relu", "Relu6", "Elu", "Sigmoid", "Prelu", "LeakyRelu")
WINDOWS = {"strides": {"list": {"i": ["1", "1", "1", "1"]}}, "dilations": {"list": {"i": ["1", "1", "1", "1"]}},
           "padding": {"s": base64.b64encode(b"SAME").decode()}, "data_format": {"s": base64.b64encode(b"NHWC").decode()},
           "explicit_paddings": {"list": {}}}


class Made:
    """A model.json while it is made: nodes, and constants with their bytes."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.weights: list[tuple[str, np.ndarray]] = []

    def node(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append({"name": name, "op": op, "input": list(inputs), "attr": attributes})
        return name

    def constant(self, name: str, array: Any) -> str:
        array = np.asarray(array)
        self.weights.append((name, array))
        kind = DTYPES[array.dtype.name]
        shape = {"dim": [{"size": str(size)} for size in array.shape]}
        return self.node(name, "Const", dtype={"type": kind}, value={"tensor": {"dtype": kind, "tensorShape": shape}})

    def placeholder(self, name: str, *dims: int) -> str:
        return self.node(name, "Placeholder", dtype={"type": "DT_FLOAT"}, shape={"shape": {"dim": [{"size": str(size)} for size in dims]}})

    def write(self, folder: Path, outputs: dict[str, str]) -> Path:
        inputs = {node["name"]: {"name": f"{node['name']}:0", "dtype": "DT_FLOAT", "tensorShape": node["attr"]["shape"]["shape"]}
                  for node in self.nodes if node["op"] == "Placeholder"}
        document = {"format": "graph-model", "modelTopology": {"node": self.nodes, "versions": {"producer": 1}},
                    "signature": {"inputs": inputs,
                                  "outputs": {name: {"name": value, "dtype": "DT_FLOAT"} for name, value in outputs.items()}},
                    "weightsManifest": [{"paths": ["one.bin"], "weights": [{"name": name, "shape": list(array.shape), "dtype": array.dtype.name}
                                                                           for name, array in self.weights]}]}
        (folder / "one.bin").write_bytes(b"".join(array.tobytes() for _, array in self.weights))
        (folder / "model.json").write_text(json.dumps(document))
        return folder / "model.json"


def proven(path: Path, bound: float) -> None:
    environments.use("tfjs")
    report = isomorph.convert(path, path.parent / "out.onnx")
    assert report.facts["verified"] == "native"
    assert not {output["name"]: output["max_abs"] for output in report.facts["outputs"] if output["max_abs"] > bound * max(output["range"], 1e-3)}


@pytest.mark.parametrize("layer", LAYERS)
def test_fused_layers_with_every_activation(layer: str, tmp_path: Path) -> None:
    made, random = Made(), np.random.default_rng(4)
    flat = layer == "_FusedMatMul"
    made.placeholder("x", *((2, 6) if flat else (1, 5, 6, 3)))
    shape = {"_FusedConv2D": (3, 3, 3, 4), "FusedDepthwiseConv2dNative": (3, 3, 3, 2), "_FusedMatMul": (6, 4)}[layer]
    width = shape[-1] * (3 if layer.startswith("FusedDepth") else 1)
    made.constant("w", random.normal(size=shape).astype(np.float32))
    made.constant("b", random.normal(size=width).astype(np.float32))
    made.constant("slope", random.uniform(0.1, 0.9, width).astype(np.float32))
    own = {"transpose_a": {"b": False}, "transpose_b": {"b": False}} if flat else WINDOWS
    # The depthwise kernel of TensorFlow.js forgets the slope of LeakyRelu.
    activations = [name for name in ACTIVATIONS if (layer, name) != ("FusedDepthwiseConv2dNative", "LeakyRelu")]
    for activation in activations:
        more = ["b", *(["slope"] if activation == "Prelu" else [])]
        words = [base64.b64encode(word.encode()).decode() for word in ("BiasAdd", activation) if word]
        made.node(f"y{activation}", layer, "x", "w", *more, T={"type": "DT_FLOAT"}, num_args={"i": str(len(more))}, epsilon={"f": 0},
                  leakyrelu_alpha={"f": 0.3}, fused_ops={"list": {"s": words}}, **own)
    proven(made.write(tmp_path, {f"y{activation}": f"y{activation}:0" for activation in activations}), 1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_leaky_layer_that_we_write(groups: int, tmp_path: Path) -> None:
    """Fused into a convolution, but not into a depthwise one."""
    environments.use("tfjs")
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(6, 3 // groups, 3, 3)).astype(np.float32), "w")
    bias = numpy_helper.from_array(np.arange(6, dtype=np.float32), "b")
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], group=groups), helper.make_node("LeakyRelu", ["c"], ["y"], alpha=0.3)]
    ports = [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8]), helper.make_tensor_value_info("y", 1, [1, 6, 6, 6])]
    graph = helper.make_graph(nodes, "leaky", ports[:1], ports[1:], [weight, bias])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "leaky.onnx")
    report = isomorph.convert(tmp_path / "leaky.onnx", tmp_path / "js" / "model.json")
    assert report.facts["verified"] == "native"
    kinds = [node["op"] for node in json.loads((tmp_path / "js" / "model.json").read_text())["modelTopology"]["node"]]
    assert ("LeakyRelu" in kinds) == (groups > 1)


@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_suppression_is_that_of_the_runtime(sigma: float, tmp_path: Path) -> None:
    """Soft suppression, too, leaves out what overlaps too much, which TensorFlow itself does not do."""
    made, random = Made(), np.random.default_rng(1)
    boxes = np.sort(random.uniform(0, 1, (40, 2, 2)), 1).reshape(40, 4).astype(np.float32)
    made.placeholder("x", 40)
    made.node("scores", "Sigmoid", "x", T={"type": "DT_FLOAT"})
    inputs = [made.constant("boxes", boxes), "scores", made.constant("most", np.int32(12)), made.constant("overlap", np.float32(0.4)),
              made.constant("least", np.float32(0.2)), made.constant("sigma", np.float32(sigma))]
    made.node("kept", "NonMaxSuppressionV5", *inputs, T={"type": "DT_FLOAT"}, pad_to_max_output_size={"b": False})
    made.node("places", "Cast", "kept", SrcT={"type": "DT_INT32"}, DstT={"type": "DT_FLOAT"})
    made.node("left", "Identity", "kept:1", T={"type": "DT_FLOAT"})
    proven(made.write(tmp_path, {"places": "places:0", "left": "left:0"}), 1e-5)
