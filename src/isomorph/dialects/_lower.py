"""The engine of all mappings: operators of one dialect become operators of another, one small function each, in either direction.

A `Mapping` is a table from operator names to rules. A rule is a function whose signature is the operator's schema: positional
parameters are inputs, keyword-only parameters are attributes with the schema's defaults, `*xs` takes the rest of the inputs and
`**rest` names attributes that do not matter. An input annotated `Ints`, `Floats`, `Int`, `Float` or `Array` must be a constant.
`rewrite` applies a mapping in place, collects every operator that cannot be mapped, and names the source on every node it makes.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from isomorph.errors import IsomorphError
from isomorph.report import Finding, Severity
from isomorph.tensors import array_tensor

Array = np.ndarray
Ints = tuple[int, ...]
Floats = tuple[float, ...]
Int = int
Float = float

_CONSTANTS: dict[str, Callable[[np.ndarray], Any]] = {
    "Array": lambda array: array,
    "Ints": lambda array: tuple(int(x) for x in array.reshape(-1)),
    "Floats": lambda array: tuple(float(x) for x in array.reshape(-1)),
    "Int": lambda array: int(array.reshape(-1)[0]),
    "Float": lambda array: float(array.reshape(-1)[0]),
}


class Rejected(Exception):
    """A rule cannot map this node; the message says why."""


@dataclass
class Rule:
    """A mapping function with its signature taken apart once."""

    function: Callable[..., Any]
    inputs: list[tuple[str, bool, Callable | None]] = field(default_factory=list)  # name, required, constant conversion
    variadic: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)  # name -> default, inspect._empty where required
    ignores_rest: bool = False

    def __post_init__(self) -> None:
        for parameter in list(inspect.signature(self.function).parameters.values())[1:]:
            if parameter.kind is parameter.VAR_POSITIONAL:
                self.variadic = True
            elif parameter.kind is parameter.VAR_KEYWORD:
                self.ignores_rest = True
            elif parameter.kind is parameter.KEYWORD_ONLY:
                self.attributes[parameter.name] = parameter.default
            else:
                kind = str(parameter.annotation).split("|")[0].strip().removeprefix("_lower.")
                self.inputs.append((parameter.name, parameter.default is parameter.empty, _CONSTANTS.get(kind)))


class Mapping:
    """Operator names -> rules. Names are `Op` in the domain given at creation, or `domain::Op`."""

    def __init__(self, domain: str = ""):
        self.domain = domain
        self.rules: dict[tuple[str, str], Rule] = {}

    def _key(self, name: str) -> tuple[str, str]:
        domain, _, op_type = name.rpartition("::")
        return (domain, op_type) if "::" in name else (self.domain, name)

    def __call__(self, *names: str) -> Callable[[Callable], Callable]:
        def register(function: Callable) -> Callable:
            for name in names:
                self.rules[self._key(name)] = Rule(function)
            return function

        return register

    def same(self, names: dict[str, str]) -> None:
        """Operators that only change their name: inputs, and attributes of the same meaning, go over as they are."""
        for source, target in names.items():

            def rename(op: Builder, *inputs: ir.Value | None, _target: str = target) -> Any:
                attributes = {name: attribute.value for name, attribute in op.node.attributes.items()}
                return op.make(_target, inputs, attributes, outputs=len(op.node.outputs))

            self.rules[self._key(source)] = Rule(rename, variadic=True)
            self.rules[self._key(source)].inputs, self.rules[self._key(source)].attributes = [], {}

    def __contains__(self, node: ir.Node) -> bool:
        return (node.domain, node.op_type) in self.rules

    def update(self, other: Mapping) -> Mapping:
        self.rules.update(other.rules)
        return self


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer or of a `Constant` node's output, None where the value is computed at run time."""
    if value is None:
        return None
    if value.const_value is not None and (value.is_initializer() or value.producer() is not None) and not value.is_graph_input():
        return value.const_value.numpy()
    return None  # an initializer that is an input too is only its default


class Builder:
    """`op` in the mapping functions: makes nodes of the target dialect and knows the node that is being mapped."""

    def __init__(self, node: ir.Node, domain: str, context: Rewrite):
        self.node, self.domain, self.context = node, domain, context
        self.outputs = node.outputs
        self.made: list[ir.Node] = []

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if op_type.startswith("__"):
            raise AttributeError(op_type)

        def make(*inputs: Any, _outputs: int = 1, _domain: str | None = None, _dtype: Any = None, _shape: Any = None, **attributes: Any) -> Any:
            return self.make(op_type, inputs, attributes, outputs=_outputs, domain=_domain, dtype=_dtype, shape=_shape)

        return make

    def make(
        self,
        op_type: str,
        inputs: Iterable[Any],
        attributes: dict[str, Any],
        *,
        outputs: int = 1,
        domain: str | None = None,
        dtype: Any = None,
        shape: Any = None,
    ) -> Any:
        """Appends a node and returns its output, or the tuple of them. Arrays and numbers given as inputs become constants of the first input's type."""
        domain = self.domain if domain is None else domain
        given = list(inputs)
        like = next((x.dtype for x in given if isinstance(x, ir.Value) and x.dtype is not None), None)
        values = [self.const(x, like=like) if x is not None and not isinstance(x, ir.Value) else x for x in given]
        while values and values[-1] is None:
            values.pop()
        attributes = {name: self._attribute(name, value) for name, value in attributes.items() if value is not None}
        node = ir.node(op_type, values, attributes, domain=domain, num_outputs=outputs)
        node.name = f"{self.context.label(self.node)}/{op_type}_{self.context.next()}"
        for value in node.outputs:
            value.name = self.context.unique(self.context.label(self.node) + "/" + op_type)
        if self.node.name:
            node.metadata_props["source"] = self.node.name
        if dtype is not None or shape is not None:
            for value in node.outputs:
                value.dtype = ir.DataType(dtype) if dtype is not None else like
                value.shape = ir.Shape(shape) if shape is not None else None
        else:
            self.context.infer(node)
        self.made.append(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    @staticmethod
    def _attribute(name: str, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return array_tensor(value)
        if isinstance(value, (np.integer, np.floating, np.bool_)):
            return value.item()
        if isinstance(value, (tuple, list)):
            if not value:
                return ir.AttrInt64s(name, [])
            return [x.item() if isinstance(x, np.generic) else x for x in value]
        return int(value) if isinstance(value, bool) else value

    def of(self, value: ir.Value) -> tuple[int, list[int | str | None]]:
        """The rank and the dimensions of a value; rejects the node where the rank is not known."""
        if value.shape is None:
            raise Rejected(f"the rank of {value.name} is not known")
        return len(value.shape), [dim if isinstance(dim, int) else dim.value for dim in value.shape]

    def static(self, value: ir.Value) -> list[int]:
        """The dimensions of a value, all numbers; rejects the node otherwise."""
        _, sizes = self.of(value)
        if not all(isinstance(size, int) for size in sizes):
            raise Rejected(f"the shape {sizes} of {value.name} is not static")
        return sizes  # type: ignore[return-value]

    def const(self, data: Any, *, like: Any = None, name: str | None = None) -> ir.Value:
        """A constant from an array, a tensor, a number (of type `like`) or a list (int64, or float32 where it holds a float)."""
        if isinstance(data, (list, tuple)):
            data = np.asarray(data, np.float32 if any(isinstance(x, float) for x in data) else np.int64)
        elif isinstance(data, (int, float)):
            data = np.asarray(data, like.numpy() if like not in (None, ir.DataType.STRING) else np.float32 if isinstance(data, float) else np.int64)
        tensor = array_tensor(data) if isinstance(data, (np.ndarray, np.generic)) else data
        value = ir.Value(name=self.context.unique(name or self.context.label(self.node) + "/const"))
        tensor.name = value.name
        value.const_value, value.dtype, value.shape = tensor, tensor.dtype, ir.Shape(tensor.shape)
        self.context.graph_of(self.node).register_initializer(value)
        return value

    value = staticmethod(constant)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the source node that is not in the signature."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def lose(self, code: str, message: str, severity: Severity = Severity.LOW) -> None:
        """Records a loss at this node."""
        self.context.findings.append(Finding(code, severity, self.context.where(self.node), message))

    def reject(self, reason: str) -> Any:
        """This node cannot be mapped; every reason of every node is collected before the conversion fails."""
        raise Rejected(reason)

    @contextlib.contextmanager
    def body(self) -> Iterator[list[ir.Node]]:
        """Nodes made inside belong to a body that the rule builds, not to the graph of the node."""
        outer, self.made = self.made, []
        try:
            yield self.made
        finally:
            self.made = outer

    def subgraph(self, graph: ir.Graph) -> ir.Graph:
        """The body `graph` of a control-flow node: mapped by the same table before its owner is visited, moved to the node being made."""
        return graph


@dataclass
class Rewrite:
    """One application of a mapping to a graph: names, findings and blockers."""

    graph: ir.Graph
    mapping: Mapping
    domain: str
    findings: list[Finding] = field(default_factory=list)
    blockers: list[tuple[str, str, str]] = field(default_factory=list)
    keep: Callable[[ir.Node], bool] = lambda node: False
    infer_node: Callable[[ir.Node], None] | None = None
    changed: int = 0
    shared: dict[Any, ir.Value] = field(default_factory=dict)  # constants that several nodes of the target use
    builder_class: ClassVar[type[Builder]] = Builder  # what rules get as `op`; a dialect whose nodes are not ONNX's has its own
    _count: int = 0
    _names: set[str] = field(default_factory=set)
    _counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for graph in (self.graph, *self.graph.subgraphs()):
            self._names.update(value.name for value in (*graph.inputs, *graph.initializers.values()) if value.name)
            self._names.update(value.name for node in graph for value in node.outputs if value.name)

    def next(self) -> int:
        self._count += 1
        return self._count

    def unique(self, name: str) -> str:
        candidate = name
        while candidate in self._names:
            self._counts[name] = self._counts.get(name, 0) + 1
            candidate = f"{name}_{self._counts[name]}"
        self._names.add(candidate)
        return candidate

    @staticmethod
    def label(node: ir.Node) -> str:
        return node.name or next((value.name for value in node.outputs if value.name), "") or node.op_type

    def where(self, node: ir.Node) -> str:
        return f"{self.label(node)} ({node.domain + '::' if node.domain else ''}{node.op_type})"

    def graph_of(self, node: ir.Node) -> ir.Graph:
        return node.graph or self.graph

    def infer(self, node: ir.Node) -> None:
        if self.infer_node is not None:
            self.infer_node(node)
        elif node.outputs and node.inputs and node.inputs[0] is not None:
            for value in node.outputs:
                value.dtype, value.shape = node.inputs[0].dtype, None

    def run(self) -> Rewrite:
        for graph in (*reversed(list(self.graph.subgraphs())), self.graph):
            for node in list(graph):
                if node in self.mapping:
                    self.apply(node)
                elif not self.keep(node):
                    self.blockers.append((f"{node.domain + '::' if node.domain else ''}{node.op_type}", self.label(node), "no mapping for this operator"))
        return self

    def apply(self, node: ir.Node) -> bool:
        """Replaces one node by what its rule makes of it. False where the rule returns NotImplemented (leave it) or rejects it."""
        op = self.builder_for(node)
        try:
            result = self.outcome(op, node)
        except Rejected as why:
            self.blockers.append((f"{node.domain + '::' if node.domain else ''}{node.op_type}", self.label(node), str(why)))
            return False
        except IsomorphError:
            raise
        except Exception as error:  # a rule that meets what it does not expect is a node that cannot be mapped, with a reason
            self.blockers.append(
                (f"{node.domain + '::' if node.domain else ''}{node.op_type}", self.label(node), f"its mapping failed: {type(error).__name__}: {error}")
            )
            return False
        if result is NotImplemented:
            return False
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        self.replace(node, op.made, results)
        return True

    def builder_for(self, node: ir.Node) -> Builder:
        """`op` for the rule of a node."""
        return self.builder_class(node, self.domain, self)

    def outcome(self, op: Builder, node: ir.Node) -> Any:
        """What the rule of a node returns. A dialect whose nodes keep their arguments in another form binds them in its own way."""
        rule = self.mapping.rules[node.domain, node.op_type]
        arguments, attributes = self.bind(rule, node)
        return rule.function(op, *arguments, **attributes)

    def bind(self, rule: Rule, node: ir.Node) -> tuple[list[Any], dict[str, Any]]:
        """Inputs and attributes of a node as arguments of its rule; constants converted, defaults of the schema filled in."""
        arguments: list[Any] = []
        inputs = list(node.inputs)
        for index, (name, required, convert) in enumerate(rule.inputs):
            value = inputs[index] if index < len(inputs) else None
            if value is None:
                if required:
                    raise Rejected(f"its input `{name}` is missing")
                arguments.append(None)
            elif convert is None:
                arguments.append(value)
            else:
                array = constant(value)
                if array is None:
                    raise Rejected(f"its input `{name}` must be a constant")
                arguments.append(convert(array))
        if len(inputs) > len(rule.inputs):
            if not rule.variadic:
                raise Rejected(f"it has {len(inputs)} inputs, the mapping takes {len(rule.inputs)}")
            arguments += inputs[len(rule.inputs) :]
        while arguments and arguments[-1] is None and len(arguments) > sum(required for _, required, _ in rule.inputs):
            arguments.pop()
        given = {name: attribute.value for name, attribute in node.attributes.items()}
        missing = [name for name, default in rule.attributes.items() if default is inspect.Parameter.empty and name not in given]
        unknown = [name for name in given if name not in rule.attributes and not rule.ignores_rest and not rule.variadic]
        if missing or unknown:
            raise Rejected(
                "; ".join([f"its attribute `{name}` is missing" for name in missing] + [f"its attribute `{name}` has no equivalent" for name in unknown])
            )
        return arguments, {name: value for name, value in given.items() if name in rule.attributes or rule.ignores_rest}

    def replace(self, node: ir.Node, made: list[ir.Node], results: Sequence[ir.Value | None]) -> None:
        """Puts the new nodes where the old one stood and hands its outputs' names, types and uses to the results."""
        graph = self.graph_of(node)
        if made:
            graph.insert_before(node, made)
        fresh = {value for new in made for value in new.outputs}
        for old, new in zip(node.outputs, results, strict=False):
            if new is None or new is old:
                continue
            if new in fresh and not new.is_graph_output():
                fresh.discard(new)
                new.name, old.name = old.name, None
                if old.type is not None:
                    new.type = old.type
                if old.shape is not None:
                    new.shape = old.shape
                new.meta.update(old.meta)
            elif old.is_graph_output():
                # An output needs a value of its own under its own name.
                copy = ir.node("Identity", [new], domain="" if self.domain == "" else self.domain)
                copy.outputs[0].name, old.name = old.name, None
                copy.outputs[0].type, copy.outputs[0].shape = old.type, old.shape
                graph.insert_before(node, copy)
                new = copy.outputs[0]
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        self.changed += 1


def rewrite(
    graph: ir.Graph, mapping: Mapping, domain: str = "", *, keep: Callable[[ir.Node], bool] = lambda node: False, infer: Callable[[ir.Node], None] | None = None
) -> Rewrite:
    """Applies `mapping` to every node of `graph` and of its bodies, in place. Nodes for which `keep` holds stay as they are;
    all others without a rule, and all rejected ones, are in `blockers` of the result as (operator, where, reason)."""
    return Rewrite(graph, mapping, domain, keep=keep, infer_node=infer).run()
