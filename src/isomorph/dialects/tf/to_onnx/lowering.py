"""Carries out a TensorFlow graph in order, node by node, and writes down what it does as ONNX.

TensorFlow's files say little about shapes, and its functions are called with whatever types come: so every node is mapped where it is reached, when the types
and shapes of its inputs are known, with constants computed on the way. Functions are inlined by walking through them again for every call.
"""
from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Rejected, Rewrite
from isomorph.dialects._lower import Mapping as Table
from isomorph.errors import Damaged, IsomorphError, Unsafe
from isomorph.passes import fold, shapes
from isomorph.report import Finding, Severity
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.tf_operators import operator

EXPANSION = 50                      # nodes walked for each node of the file, before functions that call each other are refused
MOST_ELEMENTS = 1 << 13             # of a constant computed on the way; larger ones are left to the pass that computes them when they are written
KEPT = fold.NOT_CONSTANT | {"Identity", "Constant"}
# What is known of the shapes of operators that stay custom ones: that of the first input, or those of each output.
LIKE_THE_INPUT = {"StringToHashBucketFast", "StringToHashBucket", "StringToHashBucketStrong", "StaticRegexReplace", "RegexReplace", "StringStrip",
                  "StringLength", "DecodeBase64", "EncodeBase64", "AsString", "Substr", "UnicodeTranscode"}
CUSTOM_SHAPES = dict.fromkeys(("SparseCross", "SparseCrossV2", "SparseCrossHashed"), ([None, 2], [None], [2]))
UNSIZED = {"Expand", "Tile", "ConstantOfShape", "Range", "Resize", "Pad", "OneHot", "EyeLike"}


@dataclass
class Elements:
    """A TensorList or TensorArray. `tensor` is [length, *element] where it has been written as a whole; until then there is only a `length`.

    Inside the body of a loop `slot` tells which loop variable it came from and `writes` what was put into it since, as (index or None for the end, item).
    """

    dtype: Any
    tensor: ir.Value | None = None
    length: ir.Value | None = None
    shape: tuple[int, ...] | None = None
    slot: int | None = None
    writes: tuple[tuple[ir.Value | None, ir.Value], ...] = ()
    watched: list[int] = field(default_factory=list)        # slots whose items were read inside the loop


@dataclass
class Variable:
    """A resource variable: where its content stands in `Lowering.state`."""

    name: str


@dataclass
class Lookup:
    """A hash table with its content: keys -> values, as constants of these types."""

    name: str
    key_type: str = ""
    value_type: str = ""
    keys: Any = None
    values: Any = None


@dataclass
class Feature:
    """The input that a feature of tf.Example messages became and, where it has any length, the input that says how many of a row are there."""

    value: ir.Value
    count: ir.Value | None = None

    def described(self, key: str) -> list[Any]:
        """The feature, its input, that of its count or "", its type as NumPy calls it, its sizes: for a runtime that has to make messages."""
        kind = "object" if self.value.dtype == ir.DataType.STRING else self.value.dtype.numpy().name           # type: ignore[union-attr]
        sizes = [dim if isinstance(dim, int) else None for dim in self.value.shape or ()]
        return [key, str(self.value.name), str(self.count.name) if self.count is not None else "", kind, sizes]


class TfBuilder(Builder):
    """`op` in the rules. Nodes go to where the walk stands; what is computed from small constants becomes a constant at once."""

    context: Lowering

    def __init__(self, node: ir.Node, context: Lowering):
        super().__init__(node, "", context)
        self.made = context.current

    def make(self, op_type: str, inputs: Any, attributes: dict[str, Any], *, outputs: int = 1, domain: str | None = None, dtype: Any = None,
             shape: Any = None) -> Any:
        results = super().make(op_type, inputs, attributes, outputs=outputs, domain=domain)
        values = (results,) if outputs == 1 else results
        for value in values:
            if value.type is None and dtype is not None:
                value.dtype = ir.DataType(dtype)
            if value.shape is None and shape is not None:
                value.shape = ir.Shape(shape)
        node = self.made[-1]
        shapes.learn(node)
        folded = self.context.folded(node)
        if folded is None:
            return results
        self.made.pop()
        detach(node)
        made = [self.const(array, name=f"{self.context.label(self.node)}/const") for array in folded]
        return made[0] if outputs == 1 else tuple(made)

    def thing(self, value: ir.Value) -> Any:
        """What stands behind a value that is no tensor: Elements, a Variable, a Lookup."""
        return value.meta.get("thing")

    def as_value(self, thing: Any) -> ir.Value:
        """A value that stands for something that is no tensor."""
        value = ir.Value(name=None)
        value.meta["thing"] = thing
        return value


def detach(node: ir.Node) -> None:
    """Gives back the inputs of a node that does not enter the graph."""
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)


class Lowering(Rewrite):
    """The ONNX graph being made. `current` takes the nodes: those of the main graph, or of the body that is being made."""

    def __init__(self, name: str, table: Table, functions: Mapping[str, ir.Function], *, nodes: int = 0, limits: Limits = DEFAULT):
        super().__init__(ir.Graph([], [], nodes=[], name=name, opset_imports={}), table, "", infer_node=shapes.infer_node)
        self.functions, self.limits = functions, limits
        self.current: list[ir.Node] = []
        self.scope = ""
        self.calls: list[str] = []
        self.left = 10_000 + EXPANSION * nodes
        self.state: dict[str, ir.Value] = {}                # variable -> what it holds where the walk stands
        self.stored: dict[str, ir.Value] = {}               # variable -> its initializer
        self.assigned: dict[str, None] = {}
        self.tables: dict[str, Lookup] = {}
        self.constants: dict[ir.Value, ir.Value] = {}
        self.depth = 0                                      # of bodies around the walk
        self.assets: Mapping[str, Any] = {}                 # lines of the files of the model, by name
        self.pivots: dict[str, tuple] = {}                  # nodes that are only carried out in some branch of TensorFlow 1 -> which
        self.features: dict[str, dict[str, Feature]] = {}   # input of messages -> the inputs that its features became, by their keys
        self.kept: dict[str, str] = {}                      # nodes that stay custom operators -> why

    # ---- values

    def lookup(self, env: Mapping[ir.Value, ir.Value], value: ir.Value | None) -> ir.Value | None:
        if value is None:
            return None
        if value in env:
            return env[value]
        if value.const_value is not None:
            return self.initializer(value)
        raise Damaged(f"the value {value.name!r} is read before it is made", where=self.graph.name or "")

    def initializer(self, value: ir.Value) -> ir.Value:
        """A constant of the file, or the resource that a variable is."""
        if value not in self.constants:
            variable = value.meta.get("variable")
            if variable is None:
                self.constants[value] = self.weight(value.const_value, self.unique(f"{self.scope}{value.name}"))
            else:
                name = variable.get("shared_name") or value.name or ""
                if name not in self.stored:
                    self.stored[name] = self.state[name] = self.weight(value.const_value, self.unique(name))
                if variable.get("op", "VarHandleOp") == "VarHandleOp":
                    self.constants[value] = ir.Value(name=None)
                    self.constants[value].meta["thing"] = Variable(name)
                else:
                    self.constants[value] = self.stored[name]
        return self.constants[value]

    def weight(self, tensor: Any, name: str) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def folded(self, node: ir.Node) -> list[np.ndarray] | None:
        """The results of a node that are known already."""
        first = node.outputs[0] if node.outputs else None
        if first is None or node.op_type in KEPT or node.domain:
            return None
        elements = first.meta.get("known")
        if len(node.outputs) == 1 and shapes.is_number(elements):
            dims = [dim for dim in first.shape if isinstance(dim, int)]
            return [np.asarray(elements, first.dtype.numpy()).reshape(dims)]
        given = [value.const_value for value in node.inputs if value is not None]
        if not given or any(tensor is None for tensor in given) or any(value is not None and not is_constant(value) for value in node.inputs):
            return None
        sizes = shapes.dims(first)
        known = sizes is not None and all(isinstance(size, int) for size in sizes)
        if sum(tensor.size for tensor in given) > MOST_ELEMENTS or math.prod(size for size in sizes or () if isinstance(size, int)) > MOST_ELEMENTS:
            return None
        if not known and node.op_type in UNSIZED:
            return None
        arrays = {value.name: value.const_value.numpy() for value in node.inputs if value is not None}
        try:
            results = fold._results(ir.serde.serialize_node(node), arrays)
        except Exception:       # the reference implementation raises whatever its NumPy code does; the node then stays as it is
            return None
        made = [np.asarray(result) for result in results]
        if any(array.size > MOST_ELEMENTS for array in made) or len(made) != len(node.outputs):
            return None
        return [array if value.dtype in (None, ir.DataType.STRING) else array.astype(value.dtype.numpy(), copy=False)
                for value, array in zip(node.outputs, made, strict=True)]

    # ---- the walk

    def walk(self, graph: Any, env: dict[ir.Value, ir.Value]) -> list[ir.Value]:
        """Carries out a graph whose inputs are in `env` and returns what its outputs are."""
        for node in graph:
            self.left -= 1
            if self.left < 0:
                raise Unsafe(f"functions that call each other make more than {EXPANSION} times what the file holds", where=self.graph.name or "")
            self.carry_out(node, env)
        return [self.lookup(env, value) for value in graph.outputs]      # type: ignore[misc]

    def carry_out(self, item: Any, env: dict[ir.Value, ir.Value]) -> None:
        """A node, or a loop that was found among the nodes of TensorFlow 1."""
        if not isinstance(item, ir.Node):
            from isomorph.dialects.tf.to_onnx import control
            control.frame(self, item, env)
        elif item.op_type in ("Merge", "RefMerge"):
            from isomorph.dialects.tf.to_onnx import control
            env[item.outputs[0]], env[item.outputs[1]] = control.merged(self, item, env)
        else:
            self.step(item, env)

    def branches(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> tuple:
        """The branches of TensorFlow 1 that a node is in: those of its inputs, and of the nodes that it waits for."""
        found = [tag for value in inputs if value is not None for tag in value.meta.get("branches", ())]
        found += [tag for name in node.meta.get("control", ()) for tag in self.pivots.get(self.scope + name, ())]
        return tuple(dict.fromkeys(found))

    def step(self, node: ir.Node, env: dict[ir.Value, ir.Value]) -> None:
        inputs = [self.lookup(env, value) for value in node.inputs]
        outputs = [ir.Value(name=None, type=value.type) for value in node.outputs]
        copy = ir.Node("tf", node.op_type, inputs, list(node.attributes.values()), outputs=outputs, name=self.scope + (node.name or ""))
        copy.meta.update(node.meta)
        results = self.results(copy, inputs)
        tags = self.branches(node, inputs) if self.pivots or node.op_type in ("Switch", "RefSwitch") else ()
        if tags and node.op_type not in ("Switch", "RefSwitch"):
            results = [self.tagged(copy, value, tags) for value in results]
            self.pivots[self.scope + (node.name or "")] = tags
        for index in range(len(copy.inputs)):
            copy.replace_input_with(index, None)
        for value, result in zip(node.outputs, results, strict=False):
            if result is not None:
                env[value] = self.agreed(copy, result, value)
            else:
                env[value] = ir.Value(name=None, type=value.type)

    def tagged(self, node: ir.Node, value: ir.Value | None, tags: tuple) -> ir.Value | None:
        """A value that is only there in some branch; a value that others share gets a name of its own first."""
        if value is None or value.meta.get("branches") == tags:
            return value
        if "thing" in value.meta or value.meta.get("blocked"):
            return value
        copy = value
        if value.producer() is None or value not in [output for made in self.current[-1:] for output in made.outputs]:
            copy = TfBuilder(node, self).Identity(value)
            copy.const_value = value.const_value
        copy.meta["branches"] = tags
        return copy

    def agreed(self, node: ir.Node, result: ir.Value, declared: ir.Value) -> ir.Value:
        """A result in the type that TensorFlow gives it; the rules need not care."""
        if result.dtype is None or declared.dtype is None or "thing" in result.meta:
            if result.dtype is None and "thing" not in result.meta and declared.dtype is not None:
                result.dtype = declared.dtype
            return result
        return result if result.dtype == declared.dtype else TfBuilder(node, self).Cast(result, to=declared.dtype)

    def results(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> list[ir.Value | None]:
        """What the rule of an operator makes of a node; a node without a rule, or one that its rule refuses, is a blocker and gives nothing."""
        name = node.op_type
        if (node.domain, name) not in self.mapping.rules:
            if name in self.functions:
                return list(self.call(name, inputs, node.name or name))
            return self.blocked(node, inputs, "no mapping for this operator")
        if any(value is not None and value.meta.get("blocked") for value in inputs):
            return [self.unknown(value) for value in node.outputs]
        op = TfBuilder(node, self)
        rule = self.mapping.rules[node.domain, name]
        try:
            special = self.on_pairs(op, inputs)
            if special is None:
                arguments, attributes = self.bind(rule, node)
                special = rule.function(op, *arguments, **attributes)
            result = special
        except Rejected as why:
            return self.blocked(node, inputs, str(why))
        except IsomorphError:
            raise
        except RecursionError:
            raise Unsafe("functions or bodies are nested too deeply", where=self.graph.name or "") from None
        except Exception as error:          # a rule that meets what it does not expect is a node that cannot be mapped, with a reason
            return self.blocked(node, inputs, f"its mapping failed: {type(error).__name__}: {error}")
        return list(result) if isinstance(result, (tuple, list)) else [result]

    def on_pairs(self, op: TfBuilder, inputs: Sequence[ir.Value | None]) -> Any:
        """What an operator makes of complex numbers, None where it has none or its own rule knows them."""
        from isomorph.dialects.tf.to_onnx import spectra
        node = op.node
        if not any(spectra.is_complex(value) for value in (*inputs, *node.outputs)) or node.op_type not in spectra.COMPLEX.keys() | spectra.APART:
            return None
        if node.op_type in spectra.COMPLEX:
            special: Any = spectra.COMPLEX[node.op_type]
            return special(op, *inputs)
        found = []
        for part in (0, 1):
            given = [spectra.parts(op, value)[part] if spectra.is_complex(value) else value for value in inputs]
            outputs = [ir.Value(name=None) for _ in node.outputs]
            half = ir.Node("tf", node.op_type, given, list(node.attributes.values()), outputs=outputs, name=node.name)
            found.append(self.results(half, given)[0])
            detach(half)
        return spectra.pair(op, *found)

    def bind(self, rule: Any, node: ir.Node) -> tuple[list[Any], dict[str, Any]]:
        """As in every dialect; types and counts, which the values of a node tell, need not be in the signature."""
        if not rule.ignores_rest:
            known = operator(node.op_type)
            kinds = known.attributes if known is not None else {}
            counts = {argument.number for argument in (*known.inputs, *known.outputs)} if known is not None else set()
            for name in [name for name in node.attributes if name not in rule.attributes]:
                if name.startswith("_") or kinds.get(name) in ("type", "list(type)") or name in counts:
                    del node.attributes[name]
        return super().bind(rule, node)

    def blocked(self, node: ir.Node, inputs: Sequence[ir.Value | None], reason: str) -> list[ir.Value | None]:
        """The node as a custom operator, where all of its values are tensors; else an obstacle."""
        if any(value is not None and value.meta.get("blocked") for value in inputs):
            return [self.unknown(value) for value in node.outputs]
        if node.outputs and all(value.dtype is not None for value in node.outputs) and all(value is None or value.dtype is not None for value in inputs):
            plain = [attribute for attribute in node.attributes.values() if attribute.value is not None and attribute.type != ir.AttributeType.TYPE_PROTOS]
            shape = inputs[0].shape if node.op_type in LIKE_THE_INPUT and inputs and inputs[0] is not None else None
            stated = [ir.Shape(sizes) for sizes in CUSTOM_SHAPES.get(node.op_type, ())] or [shape] * len(node.outputs)
            outputs = [ir.Value(name=self.unique(f"{node.name}:{place}"), type=value.type, shape=known)
                       for place, (value, known) in enumerate(zip(node.outputs, stated, strict=False))]
            kept = ir.Node("tf", node.op_type, inputs, plain, outputs=outputs, name=self.unique(node.name or node.op_type))
            self.kept[kept.name or ""] = reason
            self.current.append(kept)
            return list(outputs)
        if not node.outputs:
            sentence = f"tf::{node.op_type} gives nothing to the graph and is left out: {reason}"
            self.findings.append(Finding("operator.dropped", Severity.MEDIUM, node.name or "", sentence))
            return []
        entry = (node.op_type, node.name or node.op_type, reason)
        if entry not in self.blockers:
            self.blockers.append(entry)
        return [self.unknown(value) for value in node.outputs]

    @staticmethod
    def unknown(value: ir.Value) -> ir.Value:
        """Stands for what could not be mapped, so that the walk goes on and finds every other obstacle."""
        made = ir.Value(name=None, type=value.type)
        made.meta["blocked"] = True
        return made

    def call(self, name: str, arguments: Sequence[ir.Value | None], label: str) -> list[ir.Value]:
        """Walks through a function in the place of its call."""
        function = self.functions.get(name)
        if function is None:
            raise Damaged(f"it calls the function {name!r}, which it does not have", where=label)
        if name in self.calls:
            raise Damaged(f"the function {name!r} calls itself", where=label)
        if len(arguments) < len(function.inputs):
            raise Damaged(f"the function {name!r} takes {len(function.inputs)} arguments, and {len(arguments)} are given", where=label)
        outer = self.scope
        self.calls.append(name)
        self.scope = f"{label}/"
        try:
            return self.walk(function.graph, dict(zip(function.inputs, arguments, strict=False)))      # type: ignore[arg-type]
        finally:
            self.calls.pop()
            self.scope = outer

    @contextlib.contextmanager
    def block(self) -> Iterator[list[ir.Node]]:
        """Nodes made inside belong to a body."""
        outer, self.current = self.current, []
        self.depth += 1
        try:
            yield self.current
        finally:
            self.current = outer
            self.depth -= 1

    # ---- the end

    def finish(self, outputs: Sequence[tuple[str, ir.Value]]) -> ir.Graph:
        """The graph with its nodes and outputs."""
        named: list[tuple[str, ir.Value]] = []
        for name, value in outputs:
            if value.is_graph_input() or value.producer() is None or any(value is other for _, other in named):
                value = TfBuilder(ir.node("output", [], domain="tf", name=name), self).Identity(value)
            value.name = self.unique(name)
            named.append((name, value))
        self.graph.extend(self.current)
        self.graph.outputs.extend(value for _, value in named)
        return self.graph


def is_constant(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()
