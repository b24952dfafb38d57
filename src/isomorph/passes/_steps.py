"""What the step of a recurrent network consists of: products, constants and activations (`raising` puts them together)."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant

Value = ir.Value


@dataclass
class Terms:
    """A sum: the step's input, and the state, each times a matrix, and constants. Of every matrix and constant the columns `start` to `stop`.

    `inputs`, `states` and `products` (of the state times a gate) hold (matrix, first row or None, start, stop); `constants` (vector, start, stop).
    """

    inputs: list[tuple[Any, slice | None, int, int]] = field(default_factory=list)
    states: list[tuple[Any, slice | None, int, int]] = field(default_factory=list)
    constants: list[tuple[Any, int, int]] = field(default_factory=list)

    def plus(self, other: Terms) -> Terms:
        return Terms(self.inputs + other.inputs, self.states + other.states, self.constants + other.constants)

    def cut(self, start: int, stop: int) -> Terms:
        def part(item: tuple) -> tuple:
            return (*item[:-2], item[-2] + start, item[-2] + stop)
        def vector(item: tuple) -> tuple:
            return item if item[0].size == 1 else part(item)
        return Terms([part(item) for item in self.inputs], [part(item) for item in self.states], [vector(item) for item in self.constants])

    def matrix(self, which: str, rows: int, columns: int) -> Any:
        """[columns, rows] of ONNX, computed when it is written."""
        items = getattr(self, which)
        tensors = [item[0] for item in items]
        cuts = [item[1:] for item in items]

        def summed(*arrays: np.ndarray) -> np.ndarray:
            out = np.zeros((rows, columns), arrays[0].dtype if arrays else np.float32)
            for array, (row, start, stop) in zip(arrays, cuts, strict=True):
                out = out + array[row if row is not None else slice(None), start:stop]
            return np.ascontiguousarray(out.T)
        return tensors, summed

    def vector(self, columns: int) -> Any:
        items = list(self.constants)

        def summed(*arrays: np.ndarray) -> np.ndarray:
            out = np.zeros(columns, np.float32)
            for array, (_, start, stop) in zip(arrays, items, strict=True):
                flat = array.reshape(-1)
                out = out + (flat if flat.size == 1 else flat[start:stop])
            return out
        return [item[0] for item in items], summed


@dataclass
class Gate:
    """An activation of terms."""

    name: str
    terms: Terms
    parameters: dict[str, float] = field(default_factory=dict)


# ---- looking around in a graph


def origin(value: Value) -> Value:
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def through_casts(value: Value | None) -> Value | None:
    while value is not None and "known" not in value.meta:
        node = value.producer()
        if node is None or node.op_type not in ("Cast", "Squeeze", "Identity"):
            break
        value = node.inputs[0]
    return value


def is_inside(body: ir.Graph, value: Value) -> bool:
    node = value.producer()
    return (node is not None and node.graph is body) or value in body.inputs


def axes_of(node: ir.Node) -> list[int]:
    array = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return [] if array is None else array.reshape(-1).tolist()


def scaled(value: Value) -> tuple[Value, float]:
    """(x, factor) of a value that is x times or divided by a number; else itself and 1."""
    node = value.producer()
    if node is None or node.op_type not in ("Mul", "Div"):
        return value, 1.0
    x, factor = scalar_and_value(node)
    if x is None or not factor or (node.op_type == "Div" and x is not node.inputs[0]):
        return value, 1.0
    return x, 1 / factor if node.op_type == "Div" else factor


def clipped(value: Value) -> tuple[Value | None, float | None, float | None]:
    """(x, least, most) of a value that is cut to a range."""
    node = value.producer()
    if node is not None and node.op_type == "Clip":
        bounds = [constant(bound) for bound in node.inputs[1:3]]
        numbers = [float(bound.reshape(-1)[0]) if bound is not None and bound.size == 1 else None for bound in bounds]
        low, high, *_ = [*numbers, None, None]
        return node.inputs[0], low, high
    if node is not None and node.op_type in ("Min", "Max") and len(node.inputs) == 2:
        inner, outer_bound = scalar_and_value(node)
        inside = inner.producer() if inner is not None else None
        if inside is not None and {inside.op_type, node.op_type} == {"Min", "Max"} and len(inside.inputs) == 2:
            x, inner_bound = scalar_and_value(inside)
            return (x, inner_bound, outer_bound) if node.op_type == "Min" else (x, outer_bound, inner_bound)
    return None, None, None


def scalar_and_value(node: ir.Node) -> tuple[Value | None, float | None]:
    """Of two inputs, one of which is a number: the other one, and the number."""
    for place in (0, 1):
        array = constant(node.inputs[place])
        if array is not None and array.size == 1:
            return node.inputs[1 - place], float(array.reshape(-1)[0])
    return None, None
