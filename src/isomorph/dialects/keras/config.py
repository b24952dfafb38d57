"""The configuration of a Keras model as a tree of layers, whichever generation of Keras wrote it (1, 2, 3, TensorFlow.js). Nothing in it is imported or run.

A call of a layer is a structure of positional and keyword arguments in which tensors stand as `Ref`s. Keras 3 writes calls as nested arguments
with `__keras_tensor__`, Keras 1 and 2 as lists of `[layer, node, tensor, {keyword arguments}]`.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from isomorph.dialects.keras import op_layers
from isomorph.dialects.keras.legacy import modernised
from isomorph.errors import Damaged, Unsafe

DEEPEST = 64
MODELS = {"Functional", "Model", "Sequential"}
OPERATIONS = re.compile(r"keras(\.src)?\.(ops|activations)(\.|$)")
LAYERS = re.compile(r"(tf_|tensorflow\.python\.)?keras(\.src)?(\.(layers|models|engine|legacy))?(\.|$)")


class Ref(NamedTuple):
    """Result `tensor` of call `node` of a layer."""

    layer: str
    node: int
    tensor: int


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a layer."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class Layer:
    """A layer, an operation (`kind` "ops"), a raw TensorFlow function ("tf"), or an object that only its author has ("custom")."""

    class_name: str
    name: str
    config: dict[str, Any]
    kind: str = "keras"
    module: str = ""
    calls: list[Call] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    inputs: Any = None                 # structures of `Ref`s, of functional models
    outputs: Any = None
    build: dict[str, Any] = field(default_factory=dict)
    one_based: bool = False            # its references count calls from one, because the first is the model's own

    @property
    def is_model(self) -> bool:
        return bool(self.layers) or self.class_name in MODELS

    @property
    def trainable(self) -> bool:
        return self.config.get("trainable", True) is not False

    def to_json(self) -> dict[str, Any]:
        """Of a layer that is no model: what a node of the graph keeps of it."""
        return {"class_name": self.class_name, "kind": self.kind, "config": self.config, "build": self.build}


def parse(data: Any, where: str = "") -> Layer:
    """The layer that a configuration describes. Raises `Damaged` where it has not the form of one, `Unsafe` where it is nested too deep."""
    try:
        return _layer(data, where, 0)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise Damaged(f"the configuration is none of Keras ({type(error).__name__}: {error})", where=where) from error


def _layer(data: dict[str, Any], where: str, depth: int) -> Layer:
    if depth > DEEPEST:
        raise Unsafe(f"layers are nested more than {DEEPEST} deep", where=where)
    data = modernised(data)
    config = plain(data["config"], depth)
    name = str(data.get("name") or config.get("name") or "")
    layer = Layer(str(data["class_name"]), name, config, _kind(data), str(data.get("module") or ""), build=plain(data.get("build_config") or {}, depth))
    if layer.kind == "tf":
        layer.class_name = str(config.get("function") or layer.class_name)
    entries = data["config"].get("layers") if layer.kind != "ops" else None
    if isinstance(entries, list) and all(isinstance(entry, dict) and "class_name" in entry for entry in entries):
        layer.layers = [_layer(entry, f"{where}/{layer.name}", depth + 1) for entry in entries]
        layer.inputs, layer.outputs = (_references(data["config"].get(key)) for key in ("input_layers", "output_layers"))
        layer.config = {key: value for key, value in config.items() if key not in ("layers", "input_layers", "output_layers")}
        if layer.class_name not in MODELS:                       # a subclass that kept the configuration of what it extends
            layer.kind, layer.class_name = "keras", "Functional" if layer.outputs is not None else "Sequential"
    layer.calls = [_call(node) for node in data.get("inbound_nodes") or [] if node]
    return _as_function(layer) if layer.class_name == "TensorFlowOpLayer" else layer


def _as_function(layer: Layer) -> Layer:
    """A node of a graph as the function call that later releases write; under the operator's own name where there is none."""
    calls = [op_layers.function_of(layer.config, flat(list(call.args))) for call in layer.calls]
    made = [Call(tuple(call[1]), call[2]) for call in calls if call is not None]
    if len(made) < len(calls) or not calls:
        return replace(layer, class_name=op_layers.operator_of(layer.config), kind="tf", config={})
    return replace(layer, class_name=next(call[0] for call in calls if call is not None), kind="tf", calls=made, config={})


def _kind(data: dict[str, Any]) -> str:
    module, registered = str(data.get("module") or ""), str(data.get("registered_name") or "")
    if data["class_name"] in ("TFOpLambda", "SlicingOpLambda"):
        return "tf"
    if OPERATIONS.match(module) or (not module and _is_operation(data)):
        return "ops"
    package = registered.partition(">")[0] if ">" in registered else ""
    if package not in ("", "keras", "Keras") or (module and not LAYERS.match(module)) or ">" in data["class_name"] or (not module and registered):
        return "custom"
    return "keras"


def _is_operation(data: dict[str, Any]) -> bool:
    """In an .h5 file of Keras 3 operations have no module; unlike layers they have no type and cannot be trained."""
    nodes = data.get("inbound_nodes")
    modern = isinstance(nodes, list) and bool(nodes) and isinstance(nodes[0], dict)
    return modern and isinstance(data["config"], dict) and not {"dtype", "trainable", "layers"} & data["config"].keys()


def plain(value: Any, depth: int = 0) -> Any:
    """A configuration value without Keras' wrappings: tuples and arrays as lists, functions as their names, slices and dtypes as small dictionaries."""
    if depth > DEEPEST:
        raise Unsafe(f"values are nested more than {DEEPEST} deep")
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("class_name")
    if kind in WRAPPED:
        return WRAPPED[kind](value, depth)
    if isinstance(kind, str) and kind.endswith("DTypePolicy"):
        return {"policy": kind, **value.get("config", {})}
    return {str(key): plain(item, depth + 1) for key, item in value.items()}


def _own(module: Any) -> bool:
    """Whether a function is one of Keras."""
    return str(module or "keras").split(".")[0] in ("keras", "builtins")


WRAPPED: dict[Any, Callable[[dict[str, Any], int], Any]] = {
    "__tuple__": lambda value, depth: plain(value["items"], depth + 1),
    "__tensor__": lambda value, depth: plain(value["config"]["value"], depth + 1),
    "__numpy__": lambda value, depth: plain(value["config"]["value"], depth + 1),
    "__bytes__": lambda value, depth: value["config"]["value"],
    "__ellipsis__": lambda value, depth: {"ellipsis": True},
    "__slice__": lambda value, depth: {"slice": [plain(value["config"][key], depth + 1) for key in ("start", "stop", "step")]},
    "__keras_tensor__": lambda value, depth: {"ref": value["config"]["keras_history"]},
    "function": lambda value, depth: value["config"] if _own(value.get("module")) else {"foreign": value["config"]},
    "__lambda__": lambda value, depth: {"foreign": "code"},
}


def _call(node: Any) -> Call:
    """One entry of `inbound_nodes`."""
    if isinstance(node, dict) and "args" in node:
        return Call(tuple(_marked(plain(item)) for item in node["args"]), {key: _marked(plain(item)) for key, item in node["kwargs"].items()})
    keywords: dict[str, Any] = {}
    structure = _old(node, keywords)
    if isinstance(structure, list) and len(structure) == 1:
        structure = structure[0]
    return Call((structure,), keywords)


def _marked(value: Any) -> Any:
    """References as such, in a plain structure of Keras 3."""
    if isinstance(value, dict):
        return Ref(*value["ref"][:3]) if "ref" in value else {key: _marked(item) for key, item in value.items()}
    return [_marked(item) for item in value] if isinstance(value, list) else value


def _old(node: Any, keywords: dict[str, Any]) -> Any:
    """Tensors and keyword arguments of a call as Keras 1 and 2 write it."""
    if isinstance(node, dict):
        return {key: _old(item, keywords) for key, item in node.items()}
    if node and isinstance(node[0], str) and len(node) in (3, 4):
        if len(node) == 4 and isinstance(node[3], dict):
            keywords.update({key: _old_value(item) for key, item in node[3].items() if key not in keywords})
        return node[2] if node[0] == "_CONSTANT_VALUE" else Ref(node[0], int(node[1]), int(node[2]))
    return [_old(item, keywords) for item in node]


def _old_value(value: Any) -> Any:
    """A keyword argument, which may hold references."""
    if isinstance(value, list):
        if len(value) in (3, 4) and isinstance(value[0], str) and value[0] == "_CONSTANT_VALUE":
            return value[2]
        if len(value) == 3 and isinstance(value[0], str) and type(value[1]) is int and type(value[2]) is int:
            return Ref(*value)
        return [_old_value(item) for item in value]
    if isinstance(value, dict):
        if value.get("class_name") == "__ellipsis__":
            return {"ellipsis": True}
        if set(value) == {"start", "stop", "step"}:
            return {"slice": [_old_value(value[key]) for key in ("start", "stop", "step")]}
        return {key: _old_value(item) for key, item in value.items()}
    return value


def _references(value: Any) -> Any:
    """`input_layers` and `output_layers`: lists of [layer, node, tensor], one such list, or dictionaries of them."""
    if isinstance(value, dict):
        if value.get("class_name") == "__tuple__":
            return _references(value["items"])
        return {key: _references(item) for key, item in value.items()}
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        return Ref(value[0], int(value[1]), int(value[2]))
    return [_references(item) for item in value] if isinstance(value, list) else value


def flat(structure: Any) -> list[Any]:
    """The leaves of a structure in Keras' order: dictionaries by sorted keys."""
    if isinstance(structure, dict) and not ("slice" in structure or "ellipsis" in structure):
        return [leaf for key in sorted(structure) for leaf in flat(structure[key])]
    return [leaf for item in structure for leaf in flat(item)] if isinstance(structure, (list, tuple)) and not isinstance(structure, Ref) else [structure]


def mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    """The structure with `function` applied to its leaves."""
    if isinstance(structure, dict):
        return {key: mapped(function, item) for key, item in structure.items()}
    if isinstance(structure, (list, tuple)) and not isinstance(structure, Ref):
        return [mapped(function, item) for item in structure]
    return function(structure)


def walk(layer: Layer) -> Iterator[Layer]:
    """A layer and all inside it."""
    yield layer
    for inner in layer.layers:
        yield from walk(inner)
