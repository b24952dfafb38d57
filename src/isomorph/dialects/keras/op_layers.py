"""TensorFlowOpLayer, which Keras of TensorFlow 2.0 to 2.3 made of every raw TensorFlow function: a node of a graph as JSON, and its constant inputs.

It becomes the function call that later releases write (`TFOpLambda`), so that the same rules map both.
"""
from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Attributes = dict[str, Any]
# operator -> function that takes the same inputs in the same order
FUNCTIONS = {
    "Add": "math.add", "AddV2": "math.add", "Sub": "math.subtract", "Mul": "math.multiply", "RealDiv": "math.divide", "Div": "math.divide",
    "FloorDiv": "math.floordiv", "FloorMod": "math.floormod", "Pow": "math.pow", "Maximum": "math.maximum", "Minimum": "math.minimum",
    "SquaredDifference": "math.squared_difference", "Equal": "math.equal", "NotEqual": "math.not_equal", "Greater": "math.greater",
    "GreaterEqual": "math.greater_equal", "Less": "math.less", "LessEqual": "math.less_equal", "LogicalAnd": "math.logical_and",
    "LogicalOr": "math.logical_or", "LogicalNot": "math.logical_not", "Neg": "math.negative", "Abs": "math.abs", "Exp": "math.exp", "Log": "math.log",
    "Log1p": "math.log1p", "Sqrt": "math.sqrt", "Rsqrt": "math.rsqrt", "Square": "math.square", "Sin": "math.sin", "Cos": "math.cos", "Tanh": "tanh",
    "Sigmoid": "sigmoid", "Relu": "nn.relu", "Relu6": "nn.relu6", "Elu": "nn.elu", "Selu": "nn.selu", "Softplus": "nn.softplus", "Softmax": "nn.softmax",
    "LogSoftmax": "nn.log_softmax", "Floor": "math.floor", "Ceil": "math.ceil", "Round": "math.round", "Sign": "math.sign", "Erf": "math.erf",
    "Identity": "identity", "StopGradient": "stop_gradient", "ZerosLike": "zeros_like", "OnesLike": "ones_like", "BiasAdd": "nn.bias_add",
    "Reshape": "reshape", "Transpose": "transpose", "ExpandDims": "expand_dims", "Tile": "tile", "Pad": "pad", "SelectV2": "where", "Select": "where",
    "ClipByValue": "clip_by_value", "ArgMax": "argmax", "ArgMin": "argmin", "BroadcastTo": "broadcast_to",
}
REDUCTIONS = {"Sum": "reduce_sum", "Mean": "reduce_mean", "Max": "reduce_max", "Min": "reduce_min", "Prod": "reduce_prod", "All": "reduce_all",
              "Any": "reduce_any"}
Call = tuple[str, list[Any], dict[str, Any]]


def _whole(attributes: Attributes, name: str) -> int:
    return int(attributes.get(name, {}).get("i", 0))


def _slices(inputs: list[Any], attributes: Attributes) -> Call:
    """Begins, ends and steps with a bit for each axis that says what is left out."""
    masks = {name: _whole(attributes, f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    x, begins, ends, steps = inputs
    keys: list[Any] = []
    for place, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        is_set = {name: bool(mask >> place & 1) for name, mask in masks.items()}
        bounds = [None if is_set["begin"] else begin, None if is_set["end"] else end, step]
        keys.append({"ellipsis": True} if is_set["ellipsis"] else None if is_set["new_axis"] else begin if is_set["shrink_axis"] else {"slice": bounds})
    return "__operators__.getitem", [x, keys], {}


def _reduced(function: str) -> Callable[[list[Any], Attributes], Call]:
    return lambda inputs, attributes: (function, inputs, {"keepdims": bool(attributes.get("keep_dims", {}).get("b"))})


def _product(first: str, second: str) -> Callable[[list[Any], Attributes], Call]:
    return lambda inputs, attributes: ("linalg.matmul", inputs, {"transpose_a": bool(attributes.get(first, {}).get("b")),
                                                                 "transpose_b": bool(attributes.get(second, {}).get("b"))})


def _squeezed(inputs: list[Any], attributes: Attributes) -> Call:
    axes = [int(axis) for axis in attributes.get("squeeze_dims", {}).get("list", {}).get("i", [])]
    return "squeeze", inputs, {"axis": axes or None}


# operator -> (function, arguments, keyword arguments) of its inputs and attributes
OTHERS: dict[str, Callable[[list[Any], Attributes], Call]] = {
    **{name: _reduced(f"math.{function}") for name, function in REDUCTIONS.items()},
    "MatMul": _product("transpose_a", "transpose_b"), "BatchMatMul": _product("adj_x", "adj_y"), "BatchMatMulV2": _product("adj_x", "adj_y"),
    "ConcatV2": lambda inputs, attributes: ("concat", [inputs[:-1]], {"axis": inputs[-1]}),
    "Pack": lambda inputs, attributes: ("stack", [inputs], {"axis": _whole(attributes, "axis")}),
    "GatherV2": lambda inputs, attributes: ("gather", inputs[:2], {"axis": inputs[2]}),
    "Cast": lambda inputs, attributes: ("cast", inputs, {"dtype": attributes["DstT"]["type"].removeprefix("DT_").lower()}),
    "LeakyRelu": lambda inputs, attributes: ("nn.leaky_relu", inputs, {"alpha": float(attributes.get("alpha", {}).get("f", 0.2))}),
    "Squeeze": _squeezed, "StridedSlice": _slices,
}


def function_of(config: dict[str, Any], tensors: list[Any]) -> Call | None:
    """The call that a layer makes with these tensors; None for an operator without a function here."""
    node = config["node_def"]
    node = json.loads(node) if isinstance(node, str) else node
    constants = {int(place): value for place, value in (config.get("constants") or {}).items()}
    left = iter(tensors)
    inputs = [constants[place] if place in constants else next(left) for place in range(len(tensors) + len(constants))]
    operator, attributes = str(node["op"]), node.get("attr") or {}
    if operator in OTHERS:
        return OTHERS[operator](inputs, attributes)
    return (FUNCTIONS[operator], inputs, {}) if operator in FUNCTIONS else None


def operator_of(config: dict[str, Any]) -> str:
    """The name of the operator, for who is told that it has no mapping."""
    node = config.get("node_def")
    node = json.loads(node) if isinstance(node, str) else node
    return str(node.get("op")) if isinstance(node, dict) else "TensorFlowOpLayer"
