"""Turns one aten call after the other into ONNX nodes, with types and shapes known as soon as a call is made.

TorchScript says nothing about ranks, and its code branches on them: so calls are mapped in the order in which the program makes them, not afterwards.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx_ir as ir

from isomorph.dialects._lower import Builder, Rejected, Rewrite, constant
from isomorph.dialects.torch.to_onnx import to_onnx
from isomorph.errors import IsomorphError
from isomorph.passes.shapes import infer_node, known
from isomorph.tensors import lazily

D = ir.DataType
TRUTH = {D.BOOL: D.INT32}
WHOLE = {kind: D.FLOAT for kind in (D.BOOL, D.UINT8, D.INT8, D.INT16, D.INT32, D.INT64)}
EXACT = dict.fromkeys(WHOLE, D.DOUBLE)
# Operators of ONNX whose kernels know fewer types than aten's: the type -> the one that stands in
WIDER: dict[str, dict[D, D]] = {
    **dict.fromkeys(("TopK", "Max", "Min", "Clip", "ArgMax", "ArgMin", "CumSum", "Abs", "Mul", "Sub", "Mod"), TRUTH), "Where": {D.BOOL: D.UINT8},
    **dict.fromkeys(("Conv", "ConvTranspose", "AveragePool"), WHOLE), **dict.fromkeys(("Gemm", "DepthToSpace"), EXACT),
    "MaxPool": {kind: D.DOUBLE for kind in WHOLE if kind not in (D.UINT8, D.INT8)}, "Relu": {D.INT64: D.DOUBLE, D.BOOL: D.INT32},
}
WIDE_AT = {"Where": 1}                    # the first input that has the type of the data


class TorchBuilder(Builder):
    """`op` in the rules: one call, which has no node of its own."""

    def __init__(self, node: ir.Node, context: Lowering):
        super().__init__(node, "", context)
        self.made = context.current

    def make(self, op_type: str, inputs: Iterable[Any], attributes: dict[str, Any], **more: Any) -> Any:
        """As the engine does it; where no kernel of ONNX Runtime knows the element type, in one that holds all its values."""
        given = list(inputs)
        at = WIDE_AT.get(op_type, 0)
        kind = given[at].dtype if len(given) > at and isinstance(given[at], ir.Value) else None
        wide = WIDER.get(op_type, {}).get(kind)
        if wide is None or more.get("dtype") is not None:
            return super().make(op_type, given, attributes, **more)
        plain = super().make

        def cast(x: Any, old: Any, new: Any) -> Any:
            return plain("Cast", [x], {"to": int(new)}) if isinstance(x, ir.Value) and x.dtype == old else x
        made = plain(op_type, [cast(x, kind, wide) if place >= at else x for place, x in enumerate(given)], attributes, **more)
        return tuple(cast(x, wide, kind) for x in made) if isinstance(made, tuple) else cast(made, wide, kind)

    def turned(self, weight: ir.Value) -> ir.Value:
        """A matrix with its axes exchanged: lazily where it is a constant, once for all who ask."""
        if weight.const_value is None or weight.producer() is not None or weight.is_graph_input():
            return self.Transpose(weight, perm=[1, 0])
        if "turned" not in weight.meta:
            weight.meta["turned"] = self.const(lazily((1, 0), weight.const_value), name=f"{weight.name}.T")
        return weight.meta["turned"]


class Lowering(Rewrite):
    """The graph being made. `current` takes the nodes: those of the main graph or of the branch that is being executed."""

    def __init__(self, name: str):
        super().__init__(ir.Graph([], [], nodes=[], name=name, opset_imports={}), to_onnx, "", infer_node=infer_node)
        self.current: list[ir.Node] = []
        self.scope = ""
        self.operators: dict[str, int] = {}

    def call(self, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        """What `aten::name` gives, as values. Raises `Rejected` where there is no rule or the rule cannot map the call."""
        self.operators[f"aten::{name}"] = self.operators.get(f"aten::{name}", 0) + 1
        rule = self.mapping.rules.get(("aten", name))
        if rule is None:
            raise Rejected("no mapping for this operator")
        node = ir.node(name, [], domain="aten", name=f"{self.scope}/{name}" if self.scope else name)
        try:
            return rule.function(TorchBuilder(node, self), *args, **keywords)
        except (Rejected, IsomorphError):
            raise
        except Exception as error:              # a rule that meets what it does not expect is a call that cannot be mapped, with a reason
            raise Rejected(f"its mapping failed: {type(error).__name__}: {error}") from error

    def builder(self, name: str) -> TorchBuilder:
        """For nodes that no rule makes."""
        return TorchBuilder(ir.node(name, [], domain="aten", name=f"{self.scope}/{name}" if self.scope else name), self)

    def input(self, name: str, dtype: Any, shape: list[Any]) -> ir.Value:
        value = ir.Value(name=self.unique(name), shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.graph.inputs.append(value)
        return value

    def weight(self, tensor: Any, name: str) -> ir.Value:
        """An initializer over a lazy tensor."""
        value = ir.Value(name=self.unique(name))
        tensor.name = value.name
        value.const_value, value.dtype, value.shape = tensor, tensor.dtype, ir.Shape(tensor.shape)
        self.graph.register_initializer(value)
        return value

    def block(self, what: str, reason: str) -> None:
        if (what, self.scope, reason) not in self.blockers:
            self.blockers.append((what, self.scope, reason))

    def finish(self, outputs: list[tuple[str, ir.Value]]) -> ir.Graph:
        """The graph with its nodes and outputs; what nothing reads is left out."""
        named: list[tuple[str, ir.Value]] = []
        for name, value in outputs:
            if value.is_graph_input() or value.is_initializer() or value.producer() is None or any(value is other for _, other in named):
                value = self.builder("output").Identity(value)
            value.name = self.unique(name)
            named.append((name, value))
        self.graph.extend(self.current)
        for _, value in named:
            self.graph.outputs.append(value)
        for graph in (*self.graph.subgraphs(), self.graph):
            for node in reversed(graph):
                if all(not value.uses() and not value.is_graph_output() for value in node.outputs):
                    graph.remove(node, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]
        return self.graph


def static(value: Any) -> Any:
    """A number for a scalar value that is known, the value itself otherwise."""
    if not isinstance(value, ir.Value) or (value.shape is not None and len(value.shape)):
        return value
    array = constant(value)
    if array is not None and array.size == 1:
        return array.reshape(-1)[0].item()
    elements = known(value)
    return elements[0] if elements and isinstance(elements[0], int) else value


def scalar(value: ir.Value) -> Any:
    """A value as a number of the program: known, or marked as no tensor."""
    found = static(value)
    if isinstance(found, ir.Value):
        found.meta["scalar"] = True
    return found


def symbol(value: Any) -> str | None:
    """The name of the dimension that a scalar value equals."""
    elements = known(value) if isinstance(value, ir.Value) else None
    return elements[0] if elements and len(elements) == 1 and isinstance(elements[0], str) else None


