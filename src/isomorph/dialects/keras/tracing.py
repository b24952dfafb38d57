"""Calling a model layer by layer: into a graph whose nodes are layers, or, inside a wrapper, into the graph that is being made.

A node of the dialect has the class of its layer as operator type, the kind of it as domain (`keras`, `keras.ops`, `keras.tf`, `keras.custom`), tensors and
then variables as inputs, and three attributes: `layer`, the configuration as JSON; `call`, the arguments as JSON in which `{"slot": i}` is input i; and
`variables`, the names of the inputs behind the tensors.
"""
from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from isomorph.dialects.keras.config import Call, Layer, Ref, flat, mapped, walk
from isomorph.dialects.keras.variables import modern, tree
from isomorph.errors import Damaged

DOMAINS = {"keras": "keras", "ops": "keras.ops", "tf": "keras.tf", "custom": "keras.custom"}
TYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "FLOAT16", "bfloat16": "BFLOAT16", "string": "STRING", "bool": "BOOL", "uint8": "UINT8",
         "int8": "INT8", "uint16": "UINT16", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint32": "UINT32", "uint64": "UINT64",
         "complex64": "COMPLEX64", "half": "FLOAT16", "double": "DOUBLE", "float": "FLOAT"}
Emit = Callable[[Layer, tuple, dict[str, Any], str], Any]


def trace(model: Layer, args: tuple[Any, ...], emit: Emit, scope: str = "") -> Any:
    """What a model gives for these arguments, by calling `emit(layer, args, kwargs, path)` for every layer of it."""
    if model.outputs is None:
        value = args[0] if len(args) == 1 else list(args)
        for layer in model.layers:
            if layer.class_name != "InputLayer":
                value = emit(layer, (value,), {}, _path(scope, layer))
        return value
    given = flat(list(args))
    results: dict[str, list[list[Any]]] = {layer.name: [] for layer in model.layers}
    for ref, value in zip(flat(model.inputs), given, strict=False):
        results[ref.layer] = [[value]]
    based = _based(model)
    pending = [(layer, list(layer.calls)) for layer in model.layers if layer.calls]

    def found(leaf: Any) -> Any:
        return results[leaf.layer][leaf.node - based.get(leaf.layer, 0)][leaf.tensor] if isinstance(leaf, Ref) else leaf

    while pending:
        moved = False
        for layer, calls in pending:
            while calls and _ready(calls[0], results, based):
                call = calls.pop(0)
                outcome = emit(layer, tuple(mapped(found, list(call.args))), mapped(found, call.kwargs), _path(scope, layer))
                results[layer.name].append(flat(outcome))
                moved = True
        pending = [(layer, calls) for layer, calls in pending if calls]
        if not moved:
            raise Damaged("its layers call each other in a circle, or name layers that are missing", where=f"{scope}: {pending[0][0].name}")
    return mapped(lambda ref: _output(results, ref, based), model.outputs)


def _path(scope: str, layer: Layer) -> str:
    return f"{scope}/{layer.name}" if scope else layer.name


def _based(model: Layer) -> dict[str, int]:
    """Layers whose calls are counted from one: models whose first call is their own, as Keras 2 writes it."""
    highest: dict[str, int] = {}
    for layer in model.layers:
        for call in layer.calls:
            for leaf in (*flat(list(call.args)), *flat(call.kwargs)):
                if isinstance(leaf, Ref):
                    highest[leaf.layer] = max(highest.get(leaf.layer, 0), leaf.node)
    for leaf in flat(model.outputs):
        if isinstance(leaf, Ref) and leaf.layer not in highest:
            highest[leaf.layer] = leaf.node
    return {layer.name: 1 for layer in model.layers if layer.is_model and layer.calls and highest.get(layer.name, 0) >= len(layer.calls)}


def _ready(call: Call, results: dict[str, list[list[Any]]], based: dict[str, int]) -> bool:
    leaves = [leaf for leaf in (*flat(list(call.args)), *flat(call.kwargs)) if isinstance(leaf, Ref)]
    return all(leaf.node - based.get(leaf.layer, 0) < len(results.get(leaf.layer, ())) for leaf in leaves)


def _output(results: dict[str, list[list[Any]]], ref: Ref, based: dict[str, int]) -> Any:
    """An output of the model; Keras 3 counts the calls of a model inside from one here, although not in the arguments of calls."""
    calls = results[ref.layer]
    return calls[min(ref.node - based.get(ref.layer, 0), len(calls) - 1)][ref.tensor]


class Grapher:
    """The graph of the dialect, as it grows. `tensors` are the model's variables by path."""

    def __init__(self, model: Layer, tensors: dict[str, Any]):
        self.model, self.tensors = model, tensors
        self.graph = ir.Graph([], [], nodes=[], name=model.name or "model", opset_imports={})
        self.values: dict[str, ir.Value] = {}
        self.names: dict[str, int] = {}
        self.widths = _widths(model)

    def build(self) -> ir.Graph:
        """The main graph. Inputs are the model's input layers, outputs are named after the layers that make them."""
        inputs = [self.input(layer) for layer in input_layers(self.model)]
        args = (inputs if len(inputs) != 1 else inputs[0],)
        for value in flat(trace(self.model, args, self.emit)):
            if value.is_graph_input() or any(value is other for other in self.graph.outputs):
                value = self.emit(Layer("Identity", f"{value.name}_output", {}), (value,), {}, f"{value.name}_output")
            self.graph.outputs.append(value)
        return self.graph

    def input(self, layer: Layer) -> ir.Value:
        shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape") or layer.config.get("shape")
        if not isinstance(shape, list):
            raise Damaged("it does not say which shape its input has", where=layer.name, hint="call the model once before it is saved")
        dims = [dim if isinstance(dim, int) else "batch" if axis == 0 else f"{layer.name}_{axis}" for axis, dim in enumerate(shape)]
        dtype = layer.config.get("dtype") or "float32"
        kind = TYPES.get(dtype if isinstance(dtype, str) else str(dtype.get("name")), "FLOAT")
        value = ir.Value(name=self.unique(layer.name), shape=ir.Shape(dims), type=ir.TensorType(ir.DataType[kind]))
        self.graph.inputs.append(value)
        return value

    def emit(self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> Any:
        """One node for one call of a layer; the layers of a model inside for a call of that."""
        if layer.is_model and layer.kind != "ops":
            return trace(layer, args, self.emit, path)
        inputs: list[ir.Value] = []

        def slot(leaf: Any) -> Any:
            if not isinstance(leaf, ir.Value):
                return leaf
            inputs.append(leaf)
            return {"slot": len(inputs) - 1}

        call = {"args": mapped(slot, list(args)), "kwargs": mapped(slot, kwargs)}
        variables = [name for name, _ in modern(tree(layer)) if f"{path}/{name}" in self.tensors]
        inputs += [self.variable(f"{path}/{name}") for name in variables]
        attributes = {"layer": json.dumps(layer.to_json()), "call": json.dumps(call), "variables": json.dumps(variables)}
        width = max(self.widths.get(path, 1), 1)
        node = ir.node(layer.class_name, inputs, attributes, domain=DOMAINS[layer.kind], num_outputs=width, name=self.unique(path))
        for index, value in enumerate(node.outputs):
            value.name = node.name if width == 1 else f"{node.name}:{index}"
        self.graph.append(node)
        return node.outputs[0] if width == 1 else list(node.outputs)

    def variable(self, path: str) -> ir.Value:
        """An initializer; layers that are called more than once share theirs."""
        if path not in self.values:
            value = ir.Value(name=path)
            tensor = self.tensors[path]
            tensor.name = path
            value.const_value, value.dtype, value.shape = tensor, tensor.dtype, ir.Shape(tensor.shape)
            self.graph.register_initializer(value)
            self.values[path] = value
        return self.values[path]

    def unique(self, name: str) -> str:
        self.names[name] = self.names.get(name, -1) + 1
        return f"{name}_{self.names[name]}" if self.names[name] else name


def _widths(model: Layer, scope: str = "") -> dict[str, int]:
    """How many results of each layer are used, by path."""
    widths: dict[str, int] = {}
    for layer in model.layers:
        widths |= _widths(layer, _path(scope, layer))
    leaves = [leaf for layer in model.layers for call in layer.calls for leaf in (*flat(list(call.args)), *flat(call.kwargs))]
    for leaf in (*leaves, *flat(model.outputs)):
        if isinstance(leaf, Ref):
            path = f"{scope}/{leaf.layer}" if scope else leaf.layer
            widths[path] = max(widths.get(path, 1), leaf.tensor + 1)
    return widths


def input_layers(model: Layer) -> list[Layer]:
    """The input layers in the order of the model's arguments; of a Sequential without one, what its first layer says of its input."""
    if model.outputs is not None:
        by_name = {layer.name: layer for layer in model.layers}
        return [by_name[ref.layer] for ref in flat(model.inputs)]
    first = model.layers[0] if model.layers else model
    if first.class_name == "InputLayer":
        return [first]
    if first.is_model and first.layers and not first.config.get("batch_input_shape"):
        return input_layers(first)
    shape = first.config.get("batch_input_shape")
    seen = model.config.get("build_input_shape") or model.build.get("input_shape") or first.build.get("input_shape")
    if not shape and isinstance(seen, list) and seen:
        shape = [None, *seen[1:]]                                    # of the tensors that it was first called with, whatever their batch was
    if not isinstance(shape, list) and isinstance(first.config.get("input_dim"), int) and first.class_name != "Embedding":
        shape = [None, first.config["input_dim"]]                    # Keras 1
    if not isinstance(shape, list) and first.class_name == "Embedding":
        shape = [None, first.config.get("input_length")]
    dtype = first.config.get("dtype") if first.config.get("batch_input_shape") and isinstance(first.config.get("dtype"), str) else "float32"
    return [Layer("InputLayer", f"{first.name}_input", {"batch_shape": shape, "dtype": dtype})]


def size(model: Layer) -> int:
    """How many layers there are."""
    return sum(1 for _ in walk(model))
