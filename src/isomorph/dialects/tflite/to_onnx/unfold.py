"""Steps on a TFLite graph before its operators are mapped: states and tables become values, quantised tensors stand behind DEQUANTIZE and QUANTIZE."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.model import NEXT, Quantization
from isomorph.report import Finding, Severity
from isomorph.tensors import array_tensor, lazily

# The inputs that an operator keeps between runs, in the order in which its rule returns their next values
STATES = {"LSTM": (18, 19), "UNIDIRECTIONAL_SEQUENCE_LSTM": (18, 19), "BIDIRECTIONAL_SEQUENCE_LSTM": (35, 36, 37, 38), "RNN": (4,),
          "UNIDIRECTIONAL_SEQUENCE_RNN": (4,), "BIDIRECTIONAL_SEQUENCE_RNN": (4, 8), "SVDF": (4,)}
# Inputs that hold a bias: integers with the product of two scales
BIASES = {"CONV_2D": (2,), "DEPTHWISE_CONV_2D": (2,), "FULLY_CONNECTED": (2,), "CONV_3D": (2,), "TRANSPOSE_CONV": (3,), "CONV_3D_TRANSPOSE": (3,),
          "SVDF": (3,), "LSTM": (12, 13, 14, 15, 17), "UNIDIRECTIONAL_SEQUENCE_LSTM": (12, 13, 14, 15, 17)}
# Input and weight of the operators whose kernels take the scale of a bias from them
PRODUCTS = {"CONV_2D": (0, 1), "DEPTHWISE_CONV_2D": (0, 1), "FULLY_CONNECTED": (0, 1), "TRANSPOSE_CONV": (2, 1)}
# Operators that work on the stored integers
RAW = {"DEQUANTIZE", "SHAPE", "RANK", "CAST", "BITCAST", "DENSIFY", "IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE", "STABLEHLO_CASE"}
# Operators that LiteRT computes in integers when only the weights are integers
HYBRID = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", *STATES}
STORED = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT2}
MOST_STATE = 1 << 26                    # elements
FLOAT = ir.TensorType(ir.DataType.FLOAT)


# ---- states


def lift_states(graph: ir.Graph, findings: list[Finding]) -> None:
    """Tensors that keep their values between runs become inputs, with zeros as their default, and outputs of the main graph."""
    current: dict[ir.Value, ir.Value] = {}
    for node in graph:
        places = [place for place in STATES.get(node.op_type, ()) if place < len(node.inputs) and node.inputs[place] is not None]
        if node.domain != "tflite" or not any(node.inputs[place].meta.get("variable") for place in places):
            continue
        first = len(node.outputs)
        node.resize_outputs(first + len(places))
        for place, following in zip(places, node.outputs[first:], strict=True):
            state = node.inputs[place]
            following.name, following.type, following.shape = f"{state.name}{NEXT}", state.type, state.shape
            following.meta.update({key: value for key, value in state.meta.items() if key != "variable"})
            node.replace_input_with(place, current.get(state, state))
            current[state] = following
    for state, following in current.items():
        _state(graph, state, following, _zeros(state), findings)


def _zeros(state: ir.Value) -> np.ndarray | None:
    """What a state holds before the first run: the value zero, which is the zero point of a quantised tensor."""
    dims = [dim for dim in state.shape or () if isinstance(dim, int)]
    if state.shape is None or len(dims) != len(state.shape) or math.prod(dims) > MOST_STATE:
        return None
    found = state.meta.get("quantization")
    return np.full([dim for dim in state.shape if isinstance(dim, int)], 0 if found is None else int(found.zero_point), state.dtype.numpy())


def _state(graph: ir.Graph, state: ir.Value, following: ir.Value, start: np.ndarray | None, findings: list[Finding]) -> None:
    graph.inputs.append(state)
    graph.outputs.append(following)
    if start is not None:
        state.const_value = array_tensor(start, state.name)
        graph.register_initializer(state)
    begins = "an initial value that the file does not hold" if start is None else "zeros" if not start.any() else "the value that the file sets once"
    sentence = f"a tensor that keeps its value between runs became the input {state.name!r}, which starts as {begins}, and the output {following.name!r}"
    findings.append(Finding("tflite.state", Severity.LOW, state.name or "", sentence, "feed the output of one run to the input of the next"))


# ---- resources: variables and hash tables


class Resources:
    """The variables and tables of one model. `values` are what variables hold where the walk stands, `initial` what CALL_ONCE has set."""

    def __init__(self, graph: ir.Graph, findings: list[Finding]):
        self.graph, self.findings = graph, findings
        self.initial: dict[Any, ir.Value] = {}
        self.values: dict[Any, ir.Value] = {}
        self.inputs: dict[Any, ir.Value] = {}
        self.assigned: set[Any] = set()
        self.tables: dict[Any, tuple[ir.Value, ir.Value]] = {}

    def lift(self) -> None:
        """Removes VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE, HASHTABLE_* and CALL_ONCE from the main graph where all of what they do is understood."""
        kinds = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "HASHTABLE", "HASHTABLE_IMPORT", "HASHTABLE_FIND", "HASHTABLE_SIZE", "CALL_ONCE"}
        nodes = [node for node in self.graph if node.op_type in kinds]
        bodies = [node.attributes["init"].value for node in nodes if node.op_type == "CALL_ONCE"]
        inner = [node for body in self.graph.subgraphs() if body not in bodies for node in body]
        if not nodes or any(node.op_type in kinds for node in inner) or not all(self.understood(body) for body in bodies):
            return
        for body in bodies:
            self.start(body)
        for node in nodes:
            if node.op_type != "CALL_ONCE":
                getattr(self, node.op_type.lower())(node)
        for node in reversed(nodes):
            self.graph.remove(node, safe=False)
        for key in self.inputs:
            self.finish(key)

    @staticmethod
    def understood(body: ir.Graph) -> bool:
        """An initialiser that only stores constants."""
        stores = {"VAR_HANDLE", "ASSIGN_VARIABLE", "HASHTABLE", "HASHTABLE_IMPORT"}
        return all(node.op_type in stores and all(value.const_value is not None for value in node.inputs[1:]) for node in body)

    def start(self, body: ir.Graph) -> None:
        for node in body:
            if node.op_type == "ASSIGN_VARIABLE":
                self.initial[self.key(node.inputs[0])] = node.inputs[1]
            elif node.op_type == "HASHTABLE_IMPORT":
                self.tables[self.key(node.inputs[0])] = (node.inputs[1], node.inputs[2])

    @staticmethod
    def key(handle: ir.Value) -> Any:
        """Handles of one name, or one table number, are one resource."""
        node = handle.producer()
        if node is None:
            return handle
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        return (node.op_type, attributes.get("container", ""), attributes.get("shared_name", ""), attributes.get("table_id", 0))

    def var_handle(self, node: ir.Node) -> None:
        """Only names the variable."""

    hashtable = hashtable_import = var_handle

    def read_variable(self, node: ir.Node) -> None:
        key, value = self.key(node.inputs[0]), node.outputs[0]
        if key not in self.values:
            state = ir.Value(name=key[2] or value.name + "/state", type=value.type, shape=value.shape)
            self.values[key] = self.inputs[key] = state
        value.replace_all_uses_with(self.values[key], replace_graph_outputs=True)

    def assign_variable(self, node: ir.Node) -> None:
        key = self.key(node.inputs[0])
        self.values[key] = node.inputs[1]
        self.assigned.add(key)

    def finish(self, key: Any) -> None:
        """A variable that is only read is a constant; one that is written as well is a state."""
        state, start = self.inputs[key], self.initial.get(key)
        if key not in self.assigned and start is not None:
            state.const_value = start.const_value
            self.graph.register_initializer(state)
            return
        following = self.values[key]
        if following is state or following.producer() is None or following.is_graph_output():
            static = np.asarray([dim for dim in state.shape or () if isinstance(dim, int)], np.int32)
            copy = ir.node("RESHAPE", [following, self.constant(static)], domain="tflite")
            copy.outputs[0].type, copy.outputs[0].shape, copy.outputs[0].name = following.type, following.shape, f"{state.name}{NEXT}"
            self.graph.append(copy)
            following = copy.outputs[0]
        _state(self.graph, state, following, start.const_value.numpy() if start is not None else _zeros(state), self.findings)

    def constant(self, array: np.ndarray) -> ir.Value:
        value = ir.Value(name=f"resource_{len(self.graph.initializers)}")
        value.const_value, value.dtype, value.shape = array_tensor(array, value.name), ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def hashtable_find(self, node: ir.Node) -> None:
        keys, values = self.tables[self.key(node.inputs[0])]
        found = ir.node("LabelEncoder", [node.inputs[1]], {
            "keys_tensor": keys.const_value, "values_tensor": values.const_value, "default_tensor": _vector(node.inputs[2].const_value)}, domain="ai.onnx.ml")
        result = node.outputs[0]
        found.outputs[0].type, found.outputs[0].shape = result.type, result.shape
        self.graph.insert_before(node, found)
        result.replace_all_uses_with(found.outputs[0], replace_graph_outputs=True)
        found.outputs[0].name, result.name = result.name, None

    def hashtable_size(self, node: ir.Node) -> None:
        keys, _ = self.tables[self.key(node.inputs[0])]
        node.outputs[0].replace_all_uses_with(self.constant(np.asarray([keys.const_value.size], np.int64)), replace_graph_outputs=True)


def _vector(tensor: Any) -> Any:
    array = tensor.numpy().reshape(1)
    return ir.StringTensor([bytes(array[0])], shape=ir.Shape([1])) if tensor.dtype == ir.DataType.STRING else array_tensor(array)


# ---- quantisation


ROUNDED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def unfold_quantization(graph: ir.Graph, mapped: Callable[[ir.Node], bool], findings: list[Finding]) -> None:
    """Every mapped operator sees floats: DEQUANTIZE before each quantised input, QUANTIZE after each quantised output. Weights stay the integers they are."""
    hybrid = [node for each in (graph, *graph.subgraphs()) for node in each if node.op_type in HYBRID and node.inputs[0].dtype == ir.DataType.FLOAT
              and any(value is not None and _stored(value) for value in node.inputs[1:])]
    for node in hybrid:
        _round_input(node)
    if hybrid:
        rounded = sum(node.op_type in ROUNDED for node in hybrid)
        sentence = (f"{len(hybrid)} operators with float inputs and integer weights: LiteRT rounds their inputs to integers on the fly, each kernel set in "
                    f"its own way; {rounded} of them round as its reference kernels do, the others compute in floats")
        where, hint = hybrid[0].name or hybrid[0].op_type, "kernel sets differ by about a percent of the range"
        findings.append(Finding("tflite.hybrid", Severity.LOW, where, sentence, hint))
    for each in (graph, *graph.subgraphs()):
        real: dict[ir.Value, ir.Value] = {}
        for node in list(each):
            if node.op_type in RAW or not mapped(node):
                continue
            for place, value in list(enumerate(node.inputs)):
                if value is None:
                    continue
                if place in BIASES.get(node.op_type, ()) and value.dtype in (ir.DataType.INT32, ir.DataType.INT64):
                    node.replace_input_with(place, _bias(each, node, place))
                elif _stored(value) or "blockwise" in value.meta:
                    if value not in real:
                        real[value] = _dequantized(each, node, value)
                    node.replace_input_with(place, real[value])
            if node.op_type != "QUANTIZE":
                for value in list(node.outputs):
                    if _stored(value):
                        _quantized(each, node, value)


def _round_input(node: ir.Node) -> None:
    """The hybrid kernels round float inputs to 8 bits, for each batch by its own range; with a zero point where the weights have a scale a channel."""
    if node.op_type not in ROUNDED:
        return
    x, weights = node.inputs[0], node.inputs[1]
    shifted = node.attributes.get_int("asymmetric_quantize_inputs", 0) if node.op_type == "FULLY_CONNECTED" else weights.meta["quantization"].per_axis
    rounded = ir.node("ROUND_INPUT", [x], {"asymmetric": int(shifted)}, domain="tflite", name=f"{node.name}/rounded")
    rounded.outputs[0].name, rounded.outputs[0].type, rounded.outputs[0].shape = f"{node.outputs[0].name}/rounded", x.type, x.shape
    node.graph.insert_before(node, rounded)
    node.replace_input_with(0, rounded.outputs[0])


def _stored(value: ir.Value) -> bool:
    return value.dtype in STORED and "quantization" in value.meta


def _dequantized(graph: ir.Graph, node: ir.Node, value: ir.Value) -> ir.Value:
    found = ir.node("DEQUANTIZE", [value], domain="tflite", name=f"{value.name}/dequantized")
    found.outputs[0].name, found.outputs[0].type, found.outputs[0].shape = f"{value.name}/dequantized", FLOAT, value.shape
    graph.insert_before(node, found)
    return found.outputs[0]


def _quantized(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """The new node's output takes over name, scale and users; the operator's own becomes its float input."""
    found = ir.node("QUANTIZE", [value], domain="tflite", name=value.name)
    stored = found.outputs[0]
    value.replace_all_uses_with(stored, replace_graph_outputs=True)
    found.replace_input_with(0, value)
    stored.name, stored.type, stored.shape = value.name, value.type, value.shape
    stored.meta.update(value.meta)
    value.name, value.type = f"{value.name}/real", FLOAT
    value.meta.clear()
    graph.insert_after(node, found)


def _bias(graph: ir.Graph, node: ir.Node, place: int) -> ir.Value:
    """An integer bias in real numbers. Its scale is that of input times weight, as the kernels have it, whatever the file says."""
    value = node.inputs[place]
    x, w = (_source(node.inputs[index]) for index in PRODUCTS.get(node.op_type, (0, 0)))
    found = value.meta.get("quantization")
    if node.op_type in PRODUCTS and "quantization" in x.meta and "quantization" in w.meta:
        scale = (np.float64(x.meta["quantization"].scale) * np.asarray(w.meta["quantization"].scale, np.float64)).astype(np.float32)
        found = Quantization(scale, np.zeros(scale.shape, np.int64), 0)
    if found is None:
        return value
    if value.const_value is None:
        return value
    if value.dtype == ir.DataType.INT64 or node.op_type not in PRODUCTS:        # DequantizeLinear takes no int64; no integer kernel will want the others
        result = ir.Value(name=f"{value.name}/real", type=FLOAT, shape=value.shape)
        result.const_value = lazily(lambda array: (array * np.asarray(found.scale, np.float64)).astype(np.float32), value.const_value, element_type=1,
                                    name=result.name)
        if result.name in graph.initializers:
            return graph.initializers[result.name]
        graph.register_initializer(result)
        return result
    value.meta["quantization"] = found
    return _dequantized(graph, node, value)


def _source(value: ir.Value) -> ir.Value:
    """The stored value behind a DEQUANTIZE that was just put before it."""
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "DEQUANTIZE" and "quantization" in node.inputs[0].meta else value


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value of a graph, without its bodies."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
