"""The engine under `upgrade` and `downgrade`: tables of adapters that bring one node from one version of its operator to the next, in place.

A node keeps its name, its outputs and its place; what an adapter adds stands before it or after it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.errors import Unsupported
from isomorph.model import unused
from isomorph.passes import shapes
from isomorph.report import Finding
from isomorph.tensors import array_tensor

Adapter = Callable[["Edit"], None]
# type of an attribute -> the attribute of Constant that gives it as a tensor, for attributes of functions, whose value only the caller knows
CONSTANT_ATTRIBUTE = {ir.AttributeType.INTS: "value_ints", ir.AttributeType.INT: "value_int", ir.AttributeType.FLOAT: "value_float",
                      ir.AttributeType.FLOATS: "value_floats"}


class Blocked(Exception):
    """A node cannot be adapted; the message says why."""


class Adapters:
    """A table (operator, version) -> function, where the version is the one that brought the newer form."""

    def __init__(self) -> None:
        self.table: dict[str, dict[int, Adapter]] = {}

    def __call__(self, version: int, *operators: str) -> Callable[[Adapter], Adapter]:
        def register(function: Adapter) -> Adapter:
            for operator in operators:
                self.table.setdefault(operator, {})[version] = function
            return function
        return register

    def between(self, operator: str, low: int, high: int) -> list[int]:
        """The versions above `low` and up to `high` for which there is an adapter."""
        return sorted(version for version in self.table.get(operator, ()) if low < version <= high)


class Edit:
    """One node under change."""

    def __init__(self, node: ir.Node, graph: Any, walk: Walk):
        self.node, self.graph, self.walk = node, graph, walk
        self.made: list[ir.Node] = []

    def block(self, reason: str) -> Any:
        raise Blocked(reason)

    # Attributes

    def get(self, name: str, default: Any = None) -> Any:
        """The plain value of an attribute."""
        attribute = self.node.attributes.get(name)
        if attribute is not None and attribute.is_ref():
            self.block(f"its attribute `{name}` is an attribute of the function around it")
        return default if attribute is None else attribute.value

    def take(self, name: str, default: Any = None) -> Any:
        """The same, and the attribute is gone."""
        value = self.get(name, default)
        self.node.attributes.pop(name, None)
        return value

    def set(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            if value is None:
                self.block(f"its attribute `{name}` is missing")
            empty = isinstance(value, (list, tuple)) and not value
            self.node.attributes[name] = ir.AttrInt64s(name, []) if empty else ir.convenience.convert_attribute(name, value)

    # Inputs

    def input(self, index: int) -> ir.Value | None:
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def set_input(self, index: int, value: ir.Value | None) -> None:
        if index >= len(self.node.inputs):
            if value is None:
                return
            self.node.resize_inputs(index + 1)
        self.node.replace_input_with(index, value)

    def drop_inputs(self, start: int) -> None:
        self.node.resize_inputs(min(start, len(self.node.inputs)))

    def to_input(self, name: str, index: int, dtype: Any = np.int64, *, vector: bool = True) -> None:
        """An attribute, where it is present, becomes an input. One of a function stays symbolic."""
        attribute = self.node.attributes.pop(name, None)
        if attribute is None:
            return
        if attribute.is_ref():
            name = CONSTANT_ATTRIBUTE[attribute.type]
            symbolic: dict[str, Any] = {name: ir.RefAttr(name, attribute.ref_attr_name, attribute.type)}
            value = self.add("Constant", **symbolic)
            if vector and attribute.type in (ir.AttributeType.INT, ir.AttributeType.FLOAT):
                value = self.add("Reshape", value, self.const([1]))
        else:
            value = self.const(np.asarray(attribute.value, dtype).reshape([-1] if vector else []))
        self.set_input(index, value)

    def constant(self, index: int) -> np.ndarray | None:
        """The array of a constant input, None where it is computed at run time."""
        return constant_of(self.input(index))

    def const(self, data: Any, dtype: Any = np.int64) -> ir.Value:
        """A constant: an initializer of the graph, or a Constant node in a function, which has no initializers."""
        array = data if isinstance(data, np.ndarray) else np.asarray(list(data) if isinstance(data, range) else data, dtype)
        tensor = array_tensor(array, self.walk.unique(f"{self.label}/constant"))
        if self.walk.in_function:
            return self.add("Constant", value=tensor)
        value = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    # Nodes

    @property
    def label(self) -> str:
        return self.node.name or next((value.name for value in self.node.outputs if value.name), "") or self.node.op_type

    def add(self, op_type: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any) -> Any:
        """A node before this one; its output, or the tuple of them."""
        node = ir.node(op_type, list(inputs), attributes, num_outputs=outputs, name=self.walk.unique(f"{self.label}/{op_type}"))
        for value in node.outputs:
            value.name = self.walk.unique(f"{self.label}/{op_type}_output")
        self.graph.insert_before(self.node, node)
        self.made.append(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def after(self, index: int, op_type: str, *inputs: ir.Value, **attributes: Any) -> None:
        """A node between output `index` and everything that used it."""
        old = self.node.outputs[index]
        node = ir.node(op_type, [old, *inputs], attributes, name=self.walk.unique(f"{self.label}/{op_type}"))
        new = node.outputs[0]
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        node.replace_input_with(0, old)
        name, old.name = old.name, self.walk.unique(f"{old.name}/before_{op_type}")
        new.name = name
        old.type = old.shape = None
        self.graph.insert_after(self.node, node)
        self.made.append(node)

    def become(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> None:
        """This node turns into another operator, the last one of what replaces it."""
        self.node.op_type, self.node.domain = op_type, ""
        self.node.attributes.clear()
        self.set(**attributes)
        self.node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            self.node.replace_input_with(index, value)

    # What is known of values

    def rank(self, index: int) -> int:
        shape = self.walk.shape(self.input(index))
        return len(shape) if shape is not None else self.block(f"the rank of its input {index} is not known")

    def dims(self, index: int) -> list[Any] | None:
        """Sizes of an input: ints, None where unknown; None as a whole where the rank is unknown."""
        shape = self.walk.shape(self.input(index))
        return None if shape is None else [dim if isinstance(dim, int) else None for dim in shape]

    def dtype(self, index: int = 0) -> ir.DataType | None:
        value = self.input(index)
        return None if value is None else self.walk.dtype(value)

    def numpy_type(self, index: int = 0) -> Any:
        """The NumPy type of an input, float32 where nothing is known."""
        return (self.dtype(index) or ir.DataType.FLOAT).numpy()

    def used(self, index: int) -> bool:
        return index < len(self.node.outputs) and bool(self.node.outputs[index].uses() or self.node.outputs[index].is_graph_output())


class Walk:
    """One pass over a model: names, findings and blockers. `adapt` brings one node to the target."""

    def __init__(self, model: ir.Model, where: str, target: int):
        self.model, self.where, self.target = model, where, target
        self.in_function = False
        self.findings: list[Finding] = []
        self.blockers: list[tuple[str, str, str]] = []
        self.opened: set[int] = set()          # nodes (by id) whose producers are being inferred, and those that are inferred themselves
        self.inferred: set[int] = set()
        self.names: set[str] | None = None

    def unique(self, name: str) -> str:
        if self.names is None:
            self.names = {value.name for graph in self.model.graphs() for value in _values(graph) if value.name}
        return unused(name, self.names)

    def run(self, graph: Any, adapt: Callable[[Edit], None], *, backwards: bool = False) -> None:
        """Visits every node, bodies after the node that holds them; from the last to the first where producers must keep their form meanwhile."""
        nodes = list(graph)
        for node in reversed(nodes) if backwards else nodes:
            self.visit(Edit(node, graph, self), adapt)
            for body in bodies(node):
                self.run(body, adapt, backwards=backwards)

    def visit(self, edit: Edit, adapt: Callable[[Edit], None]) -> None:
        operator = edit.node.op_type
        try:
            adapt(edit)
        except Blocked as why:
            self.blockers.append((operator, edit.label, str(why)))
        except (ArithmeticError, LookupError, TypeError, ValueError, ir.serde.SerdeError) as error:
            # An adapter trusts sizes, axes and types to fit one another; in a file that was tampered with they do not.
            self.blockers.append((operator, edit.label, f"its inputs and attributes contradict its definition ({type(error).__name__}: {str(error)[:80]})"))

    def finish(self, what: str) -> list[Finding]:
        """The findings; raises `Unsupported` with every blocker."""
        if self.blockers:
            operators = sorted({operator for operator, _, _ in self.blockers})
            raise Unsupported(f"{len(self.blockers)} nodes cannot be brought to {what}: {', '.join(operators)}", where=self.where, blockers=self.blockers,
                              hint=f"the first: {self.blockers[0][1]}, {self.blockers[0][2]}")
        return self.findings

    def shape(self, value: ir.Value | None) -> ir.Shape | None:
        if value is not None and value.shape is None:
            self.infer(value)
        return None if value is None else value.shape

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        if value.dtype is None:
            self.infer(value)
        return value.dtype

    def infer(self, value: ir.Value) -> None:
        """Infers the types and shapes that `value` depends on, once. With a stack of its own, because graphs are deeper than Python's."""
        stack = [value.producer()]
        while stack:
            node = stack[-1]
            if node is None or id(node) in self.inferred:
                stack.pop()
            elif id(node) in self.opened:
                stack.pop()
                self.inferred.add(id(node))
                if node.domain == "":
                    shapes.infer_node(node)
            else:
                self.opened.add(id(node))
                stack += [given.producer() for given in node.inputs if given is not None and (given.shape is None or given.dtype is None)]


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer or of a Constant node; None for what is computed, and for an input that merely has a default."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain != "" or not node.attributes:
        return None
    name, attribute = next(iter(node.attributes.items()))
    if attribute.is_ref():
        return None
    if name == "value":
        return attribute.value.numpy()
    kind = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}.get(name)
    return None if kind is None else np.asarray(attribute.value, kind)


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs in the attributes of a control-flow node."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.value
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.value


def _values(graph: Any) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
