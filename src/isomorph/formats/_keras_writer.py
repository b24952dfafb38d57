"""Graphs of layers as configurations of Keras 3 and of Keras 2, and their variables in either layout.

Keras 3 finds variables by the place of a layer among those of its class, and orders layers itself when it loads a model: by their distance from the
outputs, then by the order in which a walk from the outputs meets them. The same order is made here.
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsupported
from isomorph.model import unused

if TYPE_CHECKING:
    import onnx_ir as ir

    from isomorph.dialects.keras.config import Layer
    from isomorph.model import Model

ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention")
EXPORTED = {"GroupedQueryAttention": "GroupQueryAttention"}        # classes that Keras exports by another name than their own
WRITTEN_AS, LEGACY = "3.0.0", "2.15.0"
LARGEST_CONSTANT = 1 << 16                     # elements of a constant that stands in the configuration
MODULES = {
    "nn": ("Relu", "Relu6", "Sigmoid", "Softplus", "Softsign", "Silu", "LeakyRelu", "Elu", "Selu", "Gelu", "Celu", "Softmax", "LogSoftmax", "MaxPool",
        "AveragePool",
           "Conv", "DepthwiseConv", "ConvTranspose", "OneHot", "DepthToSpace", "SpaceToDepth", "Threshold"),
    "core": ("Cast", "ScatterUpdate", "Scatter", "Slice", "SliceUpdate", "Unstack"),
    "math": ("Erf", "Rsqrt", "TopK", "Logsumexp"), "linalg": ("Det", "Norm"), "image": ("Resize",),
}
MODULE_OF = {name: f"keras.src.ops.{module}" for module, names in MODULES.items() for name in names} | {"Mish": "keras.src.activations.activations"}


@dataclass
class Step:
    """A node of the graph as it is written: its name in the file, the layer, and the call."""

    node: ir.Node
    name: str
    layer: Layer
    call: dict[str, Any]
    variables: dict[str, ir.Value]

    @property
    def tensors(self) -> list[ir.Value]:
        return [value for value in self.node.inputs[:len(self.node.inputs) - len(self.variables)] if value is not None]


class Written:
    """A model as steps in Keras' order, with names that a layer may have."""

    def __init__(self, model: Model, generation: int = 3):
        """`generation` says what `hard_sigmoid` means to the reader."""
        from isomorph.dialects.keras.config import Layer
        self.generation = generation
        self.graph, self.metadata = model.graph, model.metadata
        _own_outputs(model.graph)
        self.used: set[str] = set()
        self.inputs = {value: self.unique(value.name or "input") for value in self.graph.inputs}
        called = self.named()
        self.steps: dict[ir.Node, Step] = {}
        for node in self.graph:
            data, call, names = _described(node)
            start = len(node.inputs) - len(names)
            variables: dict[str, Any] = {name: node.inputs[start + place] for place, name in enumerate(names)}
            name = called[node]
            config, variables = fitted_gates(data["class_name"], data["config"], variables, generation)
            layer = Layer(data["class_name"], name, {"name": name, **self.settings(config)}, data["kind"])
            self.steps[node] = Step(node, name, layer, call, variables)
        self.order = self.arranged()
        self.check()

    def named(self) -> dict[ir.Node, str]:
        """A name for every layer: that of the output it makes, else that of the layer or operator it comes from, for those with variables first. The others of
        the same origin have their class behind it."""
        from isomorph.dialects.keras.variables import snake
        outputs = {value: self.unique(value.name or "output") for value in self.graph.outputs}
        found = {node: outputs[value] for node in self.graph for value in node.outputs if value in outputs and len(node.outputs) == 1}
        kinds = {node: _described(node) for node in self.graph}
        for node in sorted(kinds, key=lambda node: not kinds[node][2]):
            if node not in found:
                kind = snake(str(kinds[node][0]["class_name"]))
                origin = self.plain(_origin(node.name or "")) or kind
                found[node] = self.unique(origin if origin not in self.used else f"{origin}_{kind}")
        return found

    def settings(self, config: dict[str, Any]) -> dict[str, Any]:
        """A configuration with the activations of this generation."""
        return {key: "hard_sigmoid" if value == f"hard_sigmoid_{self.generation}" else value for key, value in config.items()}

    @staticmethod
    def plain(name: str) -> str:
        """A name without slashes."""
        return re.sub(r"[^A-Za-z0-9_.\-]+", "_", name).strip("_.")

    def unique(self, name: str) -> str:
        """A name without slashes, once."""
        return unused(self.plain(name) or "layer", self.used)

    def check(self) -> None:
        """Every node hangs on an input, and constants are small enough for a configuration."""
        blockers = [(step.node.op_type, step.name, "a constant as large as this has no place in a layer of this class") for step in self.steps.values()
                    for value in step.tensors if value.const_value is not None and value.const_value.size > LARGEST_CONSTANT]
        blockers += [(step.node.op_type, step.name, f"its hard_sigmoid is that of another generation than Keras {self.generation}")
            for step in self.steps.values()
                     if any(isinstance(value, str) and value.startswith("hard_sigmoid_") for value in step.layer.config.values())]
        if blockers:
            raise Unsupported(f"{len(blockers)} parts of the model cannot be written for Keras {self.generation}: {blockers[0][2]}", blockers=blockers)

    def arranged(self) -> list[Any]:
        """Inputs and nodes in the order of `keras.src.ops.function.map_graph`."""
        seen: dict[Any, int] = {}
        finished: list[Any] = []
        for output in self.graph.outputs:
            self._walk(output, seen, finished)
        depths: dict[Any, int] = {}
        for item in reversed(finished):
            depths.setdefault(item, 0)
            for parent in self._parents(item):
                depths[parent] = max(depths.get(parent, 0), depths[item] + 1)
        for value in self.inputs:
            if value not in depths:
                depths[value], seen[value] = 0, -1
        return sorted(depths, key=lambda item: (-depths[item], seen[item]))

    def _walk(self, value: ir.Value, seen: dict[Any, int], finished: list[Any]) -> None:
        done = set(map(id, finished))
        start = self._item(value)
        stack: list[tuple[Any, Iterator[Any]]] = []

        def enter(item: Any) -> None:
            if item not in seen:
                seen[item] = len(seen)
            stack.append((item, iter(self._parents(item))))

        if start is not None and id(start) not in done:
            enter(start)
        entered = {id(start)}
        while stack:
            item, parents = stack[-1]
            following = next((parent for parent in parents if id(parent) not in done and id(parent) not in entered), None)
            if following is not None:
                entered.add(id(following))
                enter(following)
                continue
            stack.pop()
            done.add(id(item))
            finished.append(item)

    def _item(self, value: ir.Value) -> Any:
        return value if value in self.inputs else value.producer()

    def _parents(self, item: Any) -> list[Any]:
        if item in self.inputs:
            return []
        found = [self._item(value) for value in self.steps[item].tensors if value.const_value is None or value in self.inputs]
        return [parent for parent in found if parent is not None]

    def reference(self, value: ir.Value) -> list[Any]:
        if value in self.inputs:
            return [self.inputs[value], 0, 0]
        node: Any = value.producer()
        return [self.steps[node].name, 0, value.index()]

    def layers(self) -> list[tuple[str, Layer, Step | None]]:
        """(name, layer, step) in Keras' order; inputs have no step."""
        from isomorph.dialects.keras.config import Layer
        return [(self.inputs[item], Layer("InputLayer", self.inputs[item], {}), None) if item in self.inputs else
                (self.steps[item].name, self.steps[item].layer, self.steps[item]) for item in self.order]

    @property
    def modern_only(self) -> list[str]:
        """The classes that a file for Keras 2 and Keras 3 cannot hold: operations, layers called with constants, and attention, whose call with several named
        tensors Keras 3 does not read as Keras 2 writes it."""
        return sorted({step.layer.class_name for step in self.steps.values() if step.layer.kind != "keras" or step.layer.class_name in ATTENTION
                       or any(value.const_value is not None for value in step.tensors)})


# ---- hard_sigmoid, whose slope is 0.2 in Keras 2 and 1/6 in Keras 3

SLOPES = {"hard_sigmoid_2": 0.2, "hard_sigmoid_3": 1 / 6}
GATES = {"LSTM": (4, (0, 1, 3)), "GRU": (3, (0, 1))}          # gates in a row of variables, and those that the recurrent activation is applied to


def fitted_gates(kind: str, config: dict[str, Any], variables: dict[str, Any], generation: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recurrent layer whose gates have the other slope: with this generation's, over weights that are larger by the quotient, which gives the same."""
    name, own = config.get("recurrent_activation"), f"hard_sigmoid_{generation}"
    if kind not in GATES or name not in SLOPES or name == own:
        return config, variables
    count, gates = GATES[kind]
    factor = SLOPES[name] / SLOPES[own]
    return {**config, "recurrent_activation": own}, {key: _scaled(value, count, gates, factor) for key, value in variables.items()}


def _scaled(value: ir.Value, count: int, gates: tuple[int, ...], factor: float) -> ir.Value:
    """A variable with the columns of some gates times a factor, when it is written."""
    import onnx_ir as ir

    from isomorph.tensors import lazily

    def columns(array: Any) -> Any:
        import numpy as np
        factors = np.ones(count, array.dtype)
        factors[list(gates)] = factor
        return array * np.repeat(factors, array.shape[-1] // count)
    tensor = lazily(columns, value.const_value, name=value.name)
    return ir.Value(name=value.name, const_value=tensor, shape=value.shape, type=value.type)


MADE = re.compile(r"(^|/)[A-Z]\w*_\d+$")              # what a rewrite puts behind the name of the node that it began with


def _origin(name: str) -> str:
    """The name of a node without what rewrites have put behind it."""
    while MADE.search(name):
        name = MADE.sub("", name)
    return name


def _described(node: ir.Node) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Layer, call and names of the variables of a node. The engine puts plain Identity nodes where an output needs a name of its own."""
    if "layer" not in node.attributes:
        return {"class_name": "Copy", "kind": "ops", "config": {}}, {"args": [{"slot": 0}], "kwargs": {}}, []
    return tuple(json.loads(node.attributes[key].value) for key in ("layer", "call", "variables"))  # type: ignore[return-value]


def _own_outputs(graph: ir.Graph) -> None:
    """Outputs of Keras are called after the layer that makes them, so each gets one of its own."""
    import onnx_ir as ir
    seen: set[ir.Value] = set()
    for place, value in enumerate(graph.outputs):
        node = value.producer()
        if (node is None or len(node.outputs) > 1 or value in seen) and value.const_value is None:
            copy = ir.node("Identity", [value], domain="keras")
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            copy.outputs[0].name = f"{value.name}_{place}" if value in seen else value.name
            graph.append(copy)
            graph.outputs[place] = copy.outputs[0]
            if not value.is_graph_input():
                value.name = f"{value.name}_value"
        seen.add(value)


# ---- Keras 3

def config_3(written: Written, name: str) -> dict[str, Any]:
    """The configuration of a functional model of Keras 3."""
    entries = [_input_3(written, item) if item in written.inputs else _entry_3(written, written.steps[item]) for item in written.order]
    outputs = [written.reference(value) for value in written.graph.outputs]
    config = {"name": name, "trainable": True, "layers": entries, "input_layers": [[each, 0, 0] for each in written.inputs.values()], "output_layers": outputs}
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": config, "registered_name": "Functional",
            "build_config": {"input_shape": None}}


def shape_of(value: ir.Value) -> list[int | None]:
    return [dim if isinstance(dim, int) else None for dim in value.shape or ()]


def dtype_of(value: ir.Value) -> str:
    from isomorph.dialects.keras.from_onnx.writing import type_name
    return type_name(value.dtype) if value.dtype is not None else "float32"


def _input_3(written: Written, value: ir.Value) -> dict[str, Any]:
    name = written.inputs[value]
    config = {"batch_shape": shape_of(value), "dtype": dtype_of(value), "sparse": False, "ragged": False, "name": name}
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": None, "name": name, "inbound_nodes": []}


def _entry_3(written: Written, step: Step) -> dict[str, Any]:
    arguments = {"args": _filled(written, step, step.call["args"]), "kwargs": _filled(written, step, step.call["kwargs"])}
    kind = step.layer.class_name
    config = {key: _arguments_of_slices(value) for key, value in step.layer.config.items()}
    if step.layer.kind == "ops":
        return {"module": MODULE_OF.get(kind, "keras.src.ops.numpy"), "class_name": kind, "config": config, "registered_name": kind, "name": step.name,
                "inbound_nodes": [arguments]}
    if isinstance(config.get("dtype"), str):
        config["dtype"] = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": config["dtype"]}, "registered_name": None}
    return {"module": "keras.layers", "class_name": EXPORTED.get(kind, kind), "config": config, "registered_name": None, "name": step.name,
            "inbound_nodes": [arguments]}


def _arguments_of_slices(value: Any) -> Any:
    if isinstance(value, dict) and "slice" in value:
        start, stop, each = value["slice"]
        return {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": each}}
    if isinstance(value, dict) and "ellipsis" in value:
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(value, dict):
        return {key: _arguments_of_slices(item) for key, item in value.items()}
    return [_arguments_of_slices(item) for item in value] if isinstance(value, list) else value


def _filled(written: Written, step: Step, structure: Any) -> Any:
    """Arguments with tensors as references and constants as arrays."""
    if isinstance(structure, dict) and "slot" in structure:
        value: Any = step.node.inputs[structure["slot"]]
        if value.const_value is not None and value not in written.inputs:
            array = value.const_value.numpy()
            return {"class_name": "__numpy__", "config": {"value": _plain(array), "dtype": array.dtype.name}}
        return {"class_name": "__keras_tensor__", "config": {"shape": shape_of(value), "dtype": dtype_of(value), "keras_history": written.reference(value)}}
    if isinstance(structure, dict) and not ("slice" in structure or "ellipsis" in structure):
        return {key: _filled(written, step, item) for key, item in structure.items()}
    return [_filled(written, step, item) for item in structure] if isinstance(structure, list) else _arguments_of_slices(structure)


def _plain(array: Any) -> Any:
    return array.astype("float32").tolist() if array.dtype.name == "bfloat16" else array.tolist()


def places_3(written: Written) -> Iterator[tuple[str, Any]]:
    """(path of the dataset, tensor) of every variable."""
    from isomorph.dialects.keras.variables import modern, numbered, tree
    listed = [(layer, step) for _, layer, step in written.layers() if layer.kind == "keras"]
    names = [name for name, _ in numbered([layer for layer, _ in listed])]
    for name, (layer, step) in zip(names, listed, strict=True):
        if step is not None:
            for variable, place in modern(tree(layer), f"layers/{name}"):
                yield place, step.variables[variable].const_value


# ---- Keras 2, whose layers are all that it knows

OLD_SETTINGS = {"LeakyReLU": {"negative_slope": "alpha"}}


def config_2(written: Written, name: str) -> dict[str, Any]:
    """The configuration of a functional model as Keras 2, Keras 3 and TensorFlow.js read it."""
    entries: list[dict[str, Any]] = []
    for item in written.order:
        if item in written.inputs:
            own = written.inputs[item]
            config = {"batch_input_shape": shape_of(item), "dtype": dtype_of(item), "sparse": False, "name": own}
            entries.append({"class_name": "InputLayer", "config": config, "name": own, "inbound_nodes": []})
            continue
        step = written.steps[item]
        renamed = OLD_SETTINGS.get(step.layer.class_name, {})
        config = {renamed.get(key, key): value for key, value in step.layer.config.items()} | {"trainable": True}
        entries.append({"class_name": step.layer.class_name, "config": config, "name": step.name, "inbound_nodes": [_node_2(written, step)]})
    outputs = [written.reference(value) for value in written.graph.outputs]
    config = {"name": name, "trainable": True, "layers": entries, "input_layers": [[each, 0, 0] for each in written.inputs.values()], "output_layers": outputs}
    return {"class_name": "Functional", "config": config}


def _node_2(written: Written, step: Step) -> list[Any]:
    """All tensors of a call, one behind the other: initial states are more inputs."""
    return [[*written.reference(value), {}] for value in step.tensors]


def rows_2(written: Written) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """(layer, [(name of the variable, tensor)]) in the order of the layers; variables that are trained come first."""
    from isomorph.dialects.keras.variables import in_row, tree
    for name, layer, step in written.layers():
        row = [(f"{name}/{_shown(layer, variable)}", step.variables[variable].const_value) for variable in in_row(tree(layer))] if step is not None else []
        yield name, row


def _shown(layer: Layer, variable: str) -> str:
    """The layers inside a wrapper go by their names: TensorFlow.js looks weights up by them."""
    if layer.class_name != "Bidirectional":
        return variable
    return variable.replace("_layer/", f"_{layer.config['layer']['config']['name']}/", 1)
