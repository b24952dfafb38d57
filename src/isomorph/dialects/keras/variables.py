"""Which variables a layer has, in the order in which Keras makes them, and where each file layout keeps them.

A `Tree` has the variables of a layer itself and the layers inside it. Keras 3 stores variable i of a layer at `<attribute>/.../vars/i`; older files
list the variables of a top-level layer in one row, trainable ones first.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from isomorph.dialects.keras.config import Layer

Config = dict[str, Any]

# Words are variables; `?key` says which setting they need, `~` marks what is not trained.
OWN = {
    "Dense": "kernel bias?use_bias", "EinsumDense": "kernel bias?bias_axes", "Embedding": "embeddings",
    "ReversibleEmbedding": "embeddings reverse_embeddings?!tie_weights", "PReLU": "alpha", "MaxoutDense": "kernel bias?bias",
    "Highway": "kernel gate_kernel bias?bias gate_bias?bias",
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D",
                     "LocallyConnected1D", "LocallyConnected2D"), "kernel bias?use_bias"),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), "depthwise_kernel pointwise_kernel bias?use_bias"),
    "BatchNormalization": "gamma?scale beta?center ~moving_mean ~moving_variance", "LayerNormalization": "gamma?scale beta?center",
    "GroupNormalization": "gamma?scale beta?center", "RMSNormalization": "scale", "InstanceNormalization": "gamma?scale beta?center",
    **dict.fromkeys(("SimpleRNNCell", "GRUCell", "LSTMCell", "ConvLSTMCell"), "kernel recurrent_kernel bias?use_bias"),
    **dict.fromkeys(("CuDNNLSTM", "CuDNNGRU"), "kernel recurrent_kernel bias"),
    "Discretization": "~summary?!bin_boundaries",
    "Normalization": "~mean?!mean ~variance?!mean ~count?!mean", "Attention": "scale?use_scale concat_score_weight?is_concat",
    "AdditiveAttention": "scale?use_scale",
    "STFTSpectrogram": "real_kernel?has_real imag_kernel?has_imaginary",
    "SpectralNormalization": "~vector_u", "LayerScale": "gamma",
}
CELLS = {"LSTM": "LSTMCell", "GRU": "GRUCell", "SimpleRNN": "SimpleRNNCell", "ConvLSTM1D": "ConvLSTMCell", "ConvLSTM2D": "ConvLSTMCell",
         "ConvLSTM3D": "ConvLSTMCell"}
PROJECTIONS = {"MultiHeadAttention": ("query_dense", "key_dense", "value_dense", "output_dense"),
               "GroupedQueryAttention": ("_query_dense", "_key_dense", "_value_dense", "_output_dense")}
SHOWN = {"query_dense": "query", "key_dense": "key", "value_dense": "value", "output_dense": "attention_output", "gate_dense": "gate"}


@dataclass
class Tree:
    """A layer's own variables as (name, trainable, place in `vars`), and the layers inside it as (attribute in Keras 3, name, tree)."""

    own: list[tuple[str, bool, int]] = field(default_factory=list)
    inner: list[tuple[str, str, Tree]] = field(default_factory=list)
    trainable: bool = True


def tree(layer: Layer) -> Tree:
    """What a layer is made of."""
    kind, config = layer.class_name, layer.config
    if layer.is_model and layer.kind != "ops":
        return Tree(inner=list(_inside_model(layer)), trainable=layer.trainable)
    if layer.kind != "keras":
        return Tree()
    if kind in CELLS and ("keras_1" not in config or kind not in KERAS_1_GATES):
        return Tree(inner=[("cell", "", Tree(own(CELLS[kind], config)))], trainable=layer.trainable)
    if kind in PROJECTIONS:
        return Tree(inner=[*_projections(kind, config)], trainable=layer.trainable)
    if kind in KERAS_1_GATES and "keras_1" in config:
        return Tree([(f"{letter}_{gate}", True, 0) for gate in KERAS_1_GATES[kind] for letter in "WUb"], trainable=layer.trainable)
    return Tree(own(kind, config), list(_inside(layer)), layer.trainable)


KERAS_1_GATES = {"LSTM": "icfo", "GRU": "zrh"}


def own(kind: str, config: Config) -> list[tuple[str, bool, int]]:
    """The variables of a layer of this class and configuration, from the table."""
    found: list[tuple[str, bool, int]] = []
    for word in OWN.get(kind, "").split():
        name, _, condition = word.lstrip("~").partition("?")
        if not condition or _holds(condition, config):
            found.append((name, not word.startswith("~"), len(found)))
    if kind == "SpectralNormalization":
        found = [("vector_u", False, 1)]                # its place 0 is the kernel of the layer inside
    quantized = quantization_of(config)
    if quantized and kind in ("Dense", "EinsumDense", "Embedding", "ReversibleEmbedding"):
        found = _quantized(kind, quantized, config, found)
    return found


def quantization_of(config: Config) -> str:
    """How a layer's weights are quantised: `int8`, `int4`, `int4/128` in blocks, and others; empty where they are not."""
    policy = config.get("dtype")
    return str(policy.get("mode") or "") if isinstance(policy, dict) and policy.get("policy") not in (None, "DTypePolicy") else ""


def _quantized(kind: str, mode: str, config: Config, found: list[tuple[str, bool, int]]) -> list[tuple[str, bool, int]]:
    names = [name for name, _, _ in found]
    main = [name for name in names if name in ("kernel", "embeddings", "reverse_embeddings")]
    names += [f"{name}_scale" for name in main]
    if mode.startswith("int4/") and not mode.endswith("/-1"):
        names += [f"{name}_zero" for name in main] + ["g_idx"]
    return [(name, name == "bias", place) for place, name in enumerate(names)]


# Conditions that are no setting by itself.
CONDITIONS: dict[str, Callable[[Config], bool]] = {
    "is_concat": lambda config: config.get("score_mode") == "concat",
    "has_real": lambda config: config.get("mode") != "imag", "has_imaginary": lambda config: config.get("mode") != "real",
}


def _holds(condition: str, config: Config) -> bool:
    if condition in CONDITIONS:
        return CONDITIONS[condition](config)
    if condition.startswith("!"):
        return not _given(config.get(condition[1:], True if condition[1:] == "tie_weights" else None))
    return _given(config.get(condition, condition != "bias_axes" and condition not in ("use_scale",)))


def _given(value: Any) -> bool:
    return value is not None and value is not False


def snake(name: str) -> str:
    """The name of a class as Keras 3 names its group."""
    name = re.sub(r"\W+", "", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def numbered(layers: list[Layer]) -> Iterator[tuple[str, Layer]]:
    """Layers with the names that Keras 3 gives the members of a list."""
    used: dict[str, int] = {}
    for layer in layers:
        name = snake(layer.class_name)
        used[name] = used.get(name, -1) + 1
        yield f"{name}_{used[name]}" if used[name] else name, layer


def _inside_model(layer: Layer) -> Iterator[tuple[str, str, Tree]]:
    for name, inner in numbered([inner for inner in layer.layers if inner.kind != "ops"]):
        yield f"layers/{name}", inner.name, tree(inner)


def _inside(layer: Layer) -> Iterator[tuple[str, str, Tree]]:
    """The layers that a wrapper's configuration describes."""
    for attribute, inner in wrapped(layer):
        yield attribute, SHOWN.get(attribute, attribute), tree(inner)


def wrapped(layer: Layer) -> list[tuple[str, Layer]]:
    """The layers inside a wrapper by the attribute under which Keras 3 keeps them."""
    from isomorph.dialects.keras.config import parse
    config = layer.config
    if layer.class_name == "Bidirectional":
        forward = parse(config["layer"])
        backward = parse(config["backward_layer"]) if config.get("backward_layer") else forward
        return [("forward_layer", forward), ("backward_layer", backward)]
    if layer.class_name in ("TimeDistributed", "SpectralNormalization", "Wrapper"):
        return [("layer", parse(config["layer"]))]
    if layer.class_name == "RNN":
        return [("cell", parse(_stacked(config["cell"])))]
    if layer.class_name == "StackedRNNCells":
        return [(f"cells/{name}", inner) for name, inner in numbered([parse(cell) for cell in config["cells"]])]
    if layer.class_name == "Pipeline":
        return [(f"_pipeline_layers/{name}", inner) for name, inner in numbered([parse(inner) for inner in config["layers"]])]
    return []


def _stacked(cell: Any) -> Any:
    """A list of cells is a stack of them."""
    return {"class_name": "StackedRNNCells", "config": {"cells": cell}} if isinstance(cell, list) else cell


def _projections(kind: str, config: Config) -> Iterator[tuple[str, str, Tree]]:
    attributes = list(PROJECTIONS[kind])
    if config.get("use_gate"):
        attributes.insert(3, "_gate_dense" if kind == "GroupedQueryAttention" else "gate_dense")
    variables = own("Dense", {"use_bias": config.get("use_bias", True)})
    for attribute in attributes:
        yield attribute, attribute.strip("_").removesuffix("_dense").replace("output", "attention_output"), Tree(variables)


def modern(of: Tree, place: str = "", name: str = "") -> Iterator[tuple[str, str]]:
    """(path of the variable, path of its dataset in Keras 3's layout)."""
    start = f"{place}/" if place else ""
    for variable, _, index in of.own:
        yield _joined(name, variable), f"{start}vars/{index}"
    for attribute, inner_name, inner in of.inner:
        yield from modern(inner, start + attribute, _joined(name, inner_name))


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def in_row(of: Tree) -> list[str]:
    """Paths of the variables in the order in which older files list them: those that are trained, then the others."""
    return [*_trained(of, ""), *_fixed(of, "")]


def _trained(of: Tree, name: str) -> Iterator[str]:
    if of.trainable:
        yield from (_joined(name, variable) for variable, trainable, _ in of.own if trainable)
        for _, inner_name, inner in of.inner:
            yield from _trained(inner, _joined(name, inner_name))


def _fixed(of: Tree, name: str) -> Iterator[str]:
    kinds = (False,) if of.trainable else (True, False)
    for kind in kinds:
        yield from (_joined(name, variable) for variable, trainable, _ in of.own if trainable is kind)
    for _, inner_name, inner in of.inner:
        if not of.trainable:
            yield from _trained(inner, _joined(name, inner_name))
        yield from _fixed(inner, _joined(name, inner_name))
