"""Makes nodes of the dialect: layers with their configuration and variables, and operations with their settings and arguments."""
from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping, Rewrite, constant
from isomorph.dialects.keras.config import flat, mapped
from isomorph.tensors import lazily

Value = ir.Value
POLICIES = {"FLOAT": "float32", "DOUBLE": "float64", "FLOAT16": "float16", "BFLOAT16": "bfloat16"}
# The public name of each type, for settings.
NAMES = {"FLOAT": "float32", "DOUBLE": "float64", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "STRING": "string", "BOOL": "bool"}


def type_name(dtype: ir.DataType) -> str:
    return NAMES.get(dtype.name, dtype.name.lower())


class LayerBuilder(Builder):
    """`op` in the rules that write Keras."""

    def ops(self, kind: str, *args: Any, _outputs: int = 1, _dtype: Any = None, _shape: Any = None, **settings: Any) -> Any:
        """An operation. Arguments are values, numbers, and structures of them."""
        return self.emit("keras.ops", kind, "ops", args, {}, settings, {}, _outputs, _dtype, _shape)

    def layer(self, kind: str, *args: Any, _variables: dict[str, Value] | None = None, _outputs: int = 1, _dtype: Any = None, _shape: Any = None,
              _call: dict[str, Any] | None = None, **settings: Any) -> Any:
        """A layer with its variables by name; `_call` has arguments of its call that go by name."""
        variables = {name: value for name, value in (_variables or {}).items() if value is not None}
        kinds = [value.dtype for value in variables.values()] or [value.dtype for value in flat(list(args)) if isinstance(value, Value)]
        policy = POLICIES.get(kinds[0].name if kinds else "FLOAT", "float32")
        return self.emit("keras", kind, "keras", args, _call or {}, {"dtype": policy, **settings}, variables, _outputs, _dtype, _shape)

    def emit(self, domain: str, kind: str, of: str, args: tuple, kwargs: dict[str, Any], settings: dict[str, Any], variables: dict[str, Value], outputs: int,
             dtype: Any, shape: Any) -> Any:
        inputs: list[Value] = []

        def slot(leaf: Any) -> Any:
            if isinstance(leaf, np.ndarray):
                leaf = self.const(leaf)
            if not isinstance(leaf, Value):
                return leaf.item() if isinstance(leaf, np.generic) else leaf
            inputs.append(leaf)
            return {"slot": len(inputs) - 1}

        call = {"args": mapped(slot, list(args)), "kwargs": mapped(slot, kwargs)}
        layer = {"class_name": kind, "kind": of, "config": settings, "build": {}}
        attributes = {"layer": json.dumps(layer), "call": json.dumps(call), "variables": json.dumps(list(variables))}
        like = next((value.dtype for value in inputs), None)
        return self.make(kind, [*inputs, *variables.values()], attributes, outputs=outputs, domain=domain, dtype=dtype if dtype is not None else like,
                         shape=shape)

    def turned(self, value: Value, perm: tuple[int, ...]) -> Value:
        """A stored weight with its axes in another order, once for all that use it."""
        key = ("turned", value, perm)
        if key not in self.context.shared:
            self.context.shared[key] = self.const(lazily(perm, value.const_value), name=value.name)
        return self.context.shared[key]

    def computed(self, function: Any, value: Value, dims: Any) -> Value:
        return self.const(lazily(function, value.const_value, dims=tuple(dims)), name=value.name)

    def is_stored(self, value: Value | None) -> bool:
        return value is not None and constant_place(value)

    def cast(self, value: Value, dtype: ir.DataType) -> Value:
        return value if value.dtype == dtype else self.ops("Cast", value, dtype=type_name(dtype), _dtype=dtype, _shape=value.shape)


def constant_place(value: Value) -> bool:
    """Whether a value is a constant, without reading it."""
    return value.const_value is not None and value.is_initializer() and not value.is_graph_input()


class LayerRewrite(Rewrite):
    """A rewrite whose rules make layers."""

    builder_class = LayerBuilder


def number(value: Value | None) -> Any:
    """A constant of one element as a Python number, None where it is none."""
    array = constant(value)
    return None if array is None or array.size != 1 else array.reshape(-1)[0].item()


from_onnx = Mapping("")
