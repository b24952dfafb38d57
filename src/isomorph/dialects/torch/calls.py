"""Calls of aten operators as nodes of a graph: the values among their arguments are the node's inputs, everything else stands in a template beside them.

Arguments are what PyTorch's schemas know: tensors, numbers, texts, None, lists of these, and element types. A value with `meta["number"]` ("int", "float",
"bool") is no tensor but a number of the run, as the sizes of a tensor are.
"""
from __future__ import annotations

from typing import Any

import onnx_ir as ir

from isomorph.dialects._lower import Builder, Rewrite
from isomorph.model import Model

DOMAIN = "aten"


class Ref(int):
    """The place of a value among the inputs of its node."""


def arguments(node: ir.Node) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the named arguments of a call, with its values in their places."""
    args, keywords = node.meta.get("call", ([Ref(0)], {}))
    return [_filled(argument, node) for argument in args], {name: _filled(argument, node) for name, argument in keywords.items()}


def _filled(argument: Any, node: ir.Node) -> Any:
    if isinstance(argument, Ref):
        return node.inputs[argument]
    return [_filled(item, node) for item in argument] if isinstance(argument, list) else argument


def is_number(value: ir.Value) -> bool:
    return "number" in value.meta


class CallBuilder(Builder):
    """`op` in the rules of `from_onnx`: `op.conv2d(x, w, b, stride=[1, 1])` makes a call, its named arguments are those of PyTorch's schema."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, _outputs: int = 1, _dtype: Any = None, _shape: Any = None, _number: str = "", **keywords: Any) -> Any:
            values: list[ir.Value] = []
            template = ([_template(argument, values) for argument in args], {key: _template(item, values) for key, item in keywords.items()})
            node = ir.node(name, values, domain=DOMAIN, num_outputs=_outputs)
            node.meta["call"] = template
            node.name = f"{self.context.label(self.node)}/{name}_{self.context.next()}"
            if self.node.name:
                node.metadata_props["source"] = self.node.name
            for value in node.outputs:
                value.name = self.context.unique(f"{self.context.label(self.node)}/{name}")
                self._describe(value, values, _dtype or keywords.get("dtype"), _shape, _number)
            self.made.append(node)
            return node.outputs[0] if _outputs == 1 else tuple(node.outputs)

        return call

    @staticmethod
    def _describe(value: ir.Value, inputs: list[ir.Value], dtype: Any, shape: Any, number: str) -> None:
        """Type and shape: as told, else those of the first input."""
        if number:
            value.meta["number"] = number
            dtype, shape = {"int": ir.DataType.INT64, "float": ir.DataType.DOUBLE, "bool": ir.DataType.BOOL}[number], []
        first = next((x for x in inputs if not is_number(x)), None)
        value.dtype = dtype or (first.dtype if first is not None else None)
        value.shape = ir.Shape(shape) if shape is not None else first.shape if first is not None else None

    def sizes(self, shape: ir.Value) -> list[Any]:
        """The elements of a vector of integers as numbers: those that are known, sizes of inputs, and else what the run gives."""
        from isomorph.passes.shapes import known
        count = self.of(shape)[1][0]
        found = known(shape) or [None] * count if isinstance(count, int) else self.reject(f"the length of {shape.name} is not known")
        return [item if isinstance(item, int) else self.symbol(item) or self.element(shape, place) for place, item in enumerate(found)]

    def symbol(self, name: Any) -> ir.Value | None:
        """The size of the input whose dimension has this name."""
        for value in self.context.graph.inputs if isinstance(name, str) else ():
            for axis, dim in enumerate(value.shape or ()):
                if not isinstance(dim, int) and dim.value == name:
                    return self.size(value, axis)
        return None

    def size(self, x: ir.Value, axis: int) -> Any:
        known = self.of(x)[1][axis]
        return known if isinstance(known, int) else self.sym_size(x, axis, _number="int")

    def element(self, vector: ir.Value, place: int | None = None) -> ir.Value:
        """One element as a number of the run."""
        chosen = vector if place is None else self.select(vector, 0, place, _shape=[])
        kind = "float" if vector.dtype.is_floating_point() else "bool" if vector.dtype == ir.DataType.BOOL else "int"
        return self.item(chosen, _number=kind)

    def number(self, value: Any) -> Any:
        """A scalar or vector of one as a number: known, or of the run."""
        array = self.value(value) if isinstance(value, ir.Value) else None
        if array is not None:
            return array.reshape(-1)[0].item()
        return value if not isinstance(value, ir.Value) or is_number(value) else self.element(value)


def _template(argument: Any, values: list[ir.Value]) -> Any:
    if isinstance(argument, ir.Value):
        values.append(argument)
        return Ref(len(values) - 1)
    return [_template(item, values) for item in argument] if isinstance(argument, (list, tuple)) else argument


class Calls(Rewrite):
    """ONNX operators become calls. If and Loop stay what they are, with bodies of calls: each writer has its own form of them."""

    builder_class = CallBuilder
    refused: dict[str, str] = {}

    def apply(self, node: ir.Node) -> bool:
        """As the engine does it, but a node that no form could be found for is not mapped as if it had one."""
        reason = self.refused.get(self.label(node))
        if reason is not None:
            self.blockers.append((node.op_type, self.label(node), reason))
            return False
        return super().apply(node)


def operators(model: Model) -> dict[str, int]:
    """How often each operator is called."""
    from isomorph.model import operators as count
    return dict(count(model))
