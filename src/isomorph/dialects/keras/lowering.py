"""Layers to ONNX on the engine: binds a call's arguments and a layer's configuration to its rule, casts as the policy says, and carries masks along.

A rule's positional parameters are the arguments of the layer's `call`, its keyword-only ones are settings (and options of `call`) with Keras' defaults.
"""
from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping, Rejected, Rewrite, Rule, constant
from isomorph.dialects.keras.config import Layer, flat, mapped
from isomorph.dialects.keras.tracing import DOMAINS, TYPES, trace
from isomorph.errors import Damaged
from isomorph.tensors import lazily

Value = ir.Value
# Settings that say how a layer is trained, built or named, not what it computes when it is used.
NOT_COMPUTED = {"name", "trainable", "dtype", "batch_input_shape", "batch_shape", "seed", "activity_regularizer", "implementation", "synchronized", "momentum",
                "quantization_config", "lora_rank", "lora_alpha", "renorm", "renorm_clipping", "renorm_momentum", "fused", "virtual_batch_size", "stateful",
                "unroll", "unit_forget_bias", "dropout", "recurrent_dropout", "keras_1", "force_generator", "autocast", "input_dtype", "input_dim",
                "noise_shape",
                "ragged", "sparse", "mode_1", "input_length", "query_shape", "key_shape", "value_shape", "function", "optional", "rng_type", "shared_axes",
                "oov_method", "salt", "encoding", "vocabulary_size"}
SUFFIXES = ("_initializer", "_regularizer", "_constraint")
CALL_ONLY = {"training", "mask", "name"}
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}
UNSET = object()


class KerasBuilder(Builder):
    """`op` in the rules: one call of one layer, with its `layer`, its `variables` by name and the `mask` that comes with its first argument."""

    context: KerasRewrite

    def __init__(self, node: ir.Node, context: KerasRewrite, layer: Layer, variables: dict[str, Value]):
        super().__init__(node, "", context)
        self.layer, self.variables = layer, variables
        self.mask: Any = None
        self.result_mask: Any = UNSET

    def inner(self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, attribute: str = "") -> Any:
        """What a layer inside this one gives; its variables are those of this one that `attribute` begins."""
        start = f"{attribute}/" if attribute else ""
        variables = {name[len(start):]: value for name, value in self.variables.items() if name.startswith(start)}
        op = KerasBuilder(self.node, self.context, layer, variables)
        op.made = self.made
        if layer.is_model and layer.kind != "ops":
            return trace(layer, args, lambda each, a, k, path: op.inner(each, a, k, path))
        return self.context.invoke(op, args, kwargs or {})

    def call(self, kind: str, name: str, *args: Any, **settings: Any) -> Any:
        """What another class of layer or operation would give, with these settings and this layer's variables."""
        return self.inner(Layer(name, self.layer.name, settings, kind), args)

    @property
    def compute(self) -> ir.DataType:
        """The type in which the layer computes."""
        return ir.DataType[TYPES.get(policy(self.layer.config)[1], "FLOAT")]

    def variable(self, name: str, *, cast: bool = True) -> Value | None:
        """A variable in the type in which the layer computes, None where it has none of that name."""
        value = self.variables.get(name)
        if value is None or not cast or value.dtype not in FLOATS or value.dtype == self.compute:
            return value
        return self.cast(value, self.compute)

    def need(self, name: str) -> Value:
        """The same, where the layer cannot do without."""
        value = self.variable(name)
        return self.reject(f"its variable `{name}` is not in the file") if value is None else value

    def cast(self, value: Value, dtype: ir.DataType) -> Value:
        return value if value.dtype == dtype else self.Cast(value, to=int(dtype))

    def scalar(self, number: float, like: Value) -> Value:
        return self.const(np.asarray(number, like.dtype.numpy()))

    def turned(self, value: Value, perm: tuple[int, ...]) -> Value:
        """Transposed: lazily where it is a constant, nothing where nothing moves."""
        if perm == tuple(range(len(perm))):
            return value
        if value.const_value is not None and value.is_initializer():
            key = ("turned", value, perm)
            if key not in self.context.shared:
                self.context.shared[key] = self.const(lazily(perm, value.const_value), name=f"{value.name}.T")
            return self.context.shared[key]
        return self.Transpose(value, perm=perm)

    def stored(self, function: Callable[..., np.ndarray], *values: Value, dims: tuple[int, ...] | None = None, name: str | None = None) -> Value:
        """A constant computed from constants when it is written."""
        tensors = [value.const_value for value in values]
        return self.const(lazily(function, *tensors, dims=dims), name=name or values[0].name)

    def rank(self, value: Value) -> int:
        return self.of(value)[0]

    def sizes(self, value: Value) -> list[Any]:
        """The dimensions: numbers, or names or None where they are not known."""
        return self.of(value)[1]

    def first(self, x: Value, data_format: str | None) -> Value:
        """Channels first."""
        rank = self.rank(x)
        return x if data_format == "channels_first" or rank < 3 else self.turned(x, (0, rank - 1, *range(1, rank - 1)))

    def last(self, x: Value, data_format: str | None) -> Value:
        """Back from channels first to how the layer has it."""
        rank = self.rank(x)
        return x if data_format == "channels_first" or rank < 3 else self.turned(x, (0, *range(2, rank), 1))

    def size_of(self, x: Value, axis: int) -> Value:
        """The size of one axis as an int64 vector of one element, a constant where it is known."""
        known = self.sizes(x)[axis]
        axis %= self.rank(x)
        return self.const([known]) if isinstance(known, int) else self.Shape(x, start=axis, end=axis + 1)

    def shape(self, *parts: Any) -> Value:
        """A shape from numbers and int64 vectors."""
        if all(isinstance(part, int) for part in parts):
            return self.const(list(parts))
        return self.Concat(*(self.const([part]) if isinstance(part, int) else part for part in parts), axis=0)

    def reshaped(self, x: Value, sizes: list[Any]) -> Value:
        """Reshaped to numbers, -1 and vectors of one element."""
        y = self.Reshape(x, self.shape(*sizes))
        if y.shape is None or any(not isinstance(dim, int) for dim in y.shape):
            known = [None] * len(sizes) if y.shape is None else [dim if isinstance(dim, int) else dim.value for dim in y.shape]
            y.shape = ir.Shape([size if isinstance(size, int) and size >= 0 else dim for size, dim in zip(sizes, known, strict=True)])
        return y

    def activation(self, x: Value, spec: Any) -> Value:
        """An activation by name or by configuration."""
        if spec in (None, "linear"):
            return x
        if isinstance(spec, str):
            return self.inner(Layer(spec, self.layer.name, {}, "activation"), (x,))
        if isinstance(spec, dict) and "class_name" in spec:
            from isomorph.dialects.keras.config import parse
            return self.inner(parse(spec), (x,))
        return self.reject(f"its activation {str(spec)[:80]} is none of Keras")


def policy(config: dict[str, Any]) -> tuple[str, str]:
    """(type of the variables, type of the computation) of a layer."""
    dtype = config.get("dtype")
    name = dtype if isinstance(dtype, str) else (dtype or {}).get("name") or (dtype or {}).get("source_name") or (dtype or {}).get("config", {}).get("name")
    if name is None and isinstance(dtype, dict):
        name = str((dtype.get("config") or {}).get("source_name") or "float32")
    name = str(name or "float32")
    if name.startswith("mixed_"):
        return "float32", name.removeprefix("mixed_")
    return name, name


class KerasMapping(Mapping):
    """The table: layers, operations, raw functions and activations by kind."""

    def layer(self, *names: str) -> Any:
        return self(*(f"keras::{name}" for name in names))

    def ops(self, *names: str) -> Any:
        return self(*(f"keras.ops::{name}" for name in names))

    def tf(self, *names: str) -> Any:
        return self(*(f"keras.tf::{name}" for name in names))

    def act(self, *names: str) -> Any:
        return self(*(f"activation::{name}" for name in names))

    def __contains__(self, node: ir.Node) -> bool:
        """Every node is looked at, so that one without a rule is refused with the reason that its kind has."""
        return True

    def find(self, layer: Layer) -> Rule | None:
        key = DOMAINS.get(layer.kind, layer.kind)
        return self.rules.get((key, layer.class_name)) or self.rules.get((key, layer.class_name.removeprefix("compat.v1.")))


class KerasRewrite(Rewrite):
    """One conversion. `passing` are the classes through which a mask goes as it is."""

    passing: frozenset[str] = frozenset()
    generation: int = 3                        # the major version of the Keras that wrote the file

    def builder_for(self, node: ir.Node) -> KerasBuilder:
        layer = json.loads(node.attributes["layer"].value)
        names = json.loads(node.attributes["variables"].value)
        start = len(node.inputs) - len(names)
        variables = {name: node.inputs[start + index] for index, name in enumerate(names)}
        return KerasBuilder(node, self, Layer(layer["class_name"], node.name or "", layer["config"], layer["kind"], build=layer["build"]), variables)

    def outcome(self, op: Any, node: ir.Node) -> Any:
        call = json.loads(node.attributes["call"].value)
        filled = _filled(call, list(node.inputs))
        return flat(self.invoke(op, tuple(filled["args"]), filled["kwargs"]))

    def invoke(self, op: KerasBuilder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of one rule, with the casts and masks that Keras puts around every layer."""
        mapping: Any = self.mapping
        rule = mapping.find(op.layer)
        if rule is None:
            raise Rejected(no_rule(op.layer))
        if op.layer.kind == "keras":
            args = tuple(mapped(lambda leaf: self.autocast(op, leaf), list(args)))
            explicit = kwargs.get("mask")
            op.mask = explicit if explicit is not None else mapped(mask_of, args[0]) if args else None
        arguments, settings = self.matched(rule, op.layer, args, dict(kwargs))
        result = rule.function(op, *arguments, **settings)
        if op.result_mask is not UNSET:
            set_mask(flat(result)[0], op.result_mask)
        elif op.layer.kind == "keras" and op.layer.class_name in self.passing and isinstance(op.mask, Value):
            set_mask(flat(result)[0], op.mask)
        return result

    @staticmethod
    def autocast(op: KerasBuilder, leaf: Any) -> Any:
        if not isinstance(leaf, Value) or leaf.dtype not in FLOATS or op.compute not in FLOATS or op.layer.class_name in ("InputLayer",
            "Identity") or leaf.dtype == op.compute:
            return leaf
        mask = mask_of(leaf)
        result = op.Cast(leaf, to=int(op.compute))
        set_mask(result, mask)
        return result

    @staticmethod
    def matched(rule: Rule, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments of the call and settings of the layer as those of the rule."""
        arguments: list[Any] = []
        named: dict[str, Any] = {}
        for index, (name, required, convert) in enumerate(rule.inputs):
            stated = layer.config.get(name) if layer.kind != "keras" else None
            value = args[index] if index < len(args) else kwargs.pop(name, stated)
            if value is None and required:
                raise Rejected(f"its argument `{name}` is missing")
            if convert is not None and isinstance(value, Value):
                array = constant(value)
                if array is None:
                    raise Rejected(f"its argument `{name}` must be a constant")
                value = convert(array)
            if index < len(args) and len(arguments) == index:
                arguments.append(value)
            elif value is not None or name in layer.config:                    # others keep their defaults
                named[name] = value
        extra = list(args[len(rule.inputs):])
        if extra and not rule.variadic and any(value is not None for value in extra):
            raise Rejected(f"it is called with {len(args)} arguments, the mapping takes {len(rule.inputs)}")
        arguments += extra if rule.variadic else []
        settings = {name: value for name, value in layer.config.items() if name in rule.attributes or rule.ignores_rest}
        settings |= {name: kwargs.pop(name) for name in list(kwargs) if name in rule.attributes} | named
        unknown = [name for name, value in layer.config.items() if name not in settings and _matters(name, value)]
        unknown += [name for name, value in kwargs.items() if name not in CALL_ONLY and value is not None and value is not False]
        missing = [name for name, default in rule.attributes.items() if default is inspect.Parameter.empty and name not in settings]
        if unknown or missing:
            raise Rejected("; ".join([f"its setting `{name}` is missing" for name in missing] + [f"its setting `{name}` has no equivalent"
                for name in unknown]))
        return arguments, settings


def _matters(name: str, value: Any) -> bool:
    return name not in NOT_COMPUTED and not name.endswith(SUFFIXES) and value is not None and value is not False and value != []


def no_rule(layer: Layer) -> str:
    """Why a layer without a rule cannot be converted."""
    if layer.class_name == "Lambda" and layer.kind == "keras":
        return "it holds Python code, which is never run: replace it by layers or operations of Keras, and save again"
    if layer.kind == "custom" or layer.kind == "keras":
        return "only its author has the code of this class: replace it by layers or operations of Keras, and save again"
    return "no mapping for this operator"


def mask_of(value: Any) -> Any:
    return value.meta.get("mask") if isinstance(value, Value) else None


def set_mask(value: Any, mask: Any) -> None:
    if isinstance(value, Value):
        value.meta.pop("mask", None)
        if mask is not None:
            value.meta["mask"] = mask


def _filled(structure: Any, inputs: list[Value]) -> Any:
    """Arguments with the values in their slots."""
    if isinstance(structure, dict):
        if "slot" in structure:
            if not 0 <= structure["slot"] < len(inputs):
                raise Damaged("a call names an argument that is not there")
            return inputs[structure["slot"]]
        return {key: _filled(item, inputs) for key, item in structure.items()}
    return [_filled(item, inputs) for item in structure] if isinstance(structure, list) else structure
