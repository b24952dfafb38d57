"""Graphs of the dialect "tf" -> GraphDef records, as `_graphdef` describes them.

The mapping may leave out every attribute that follows from the values of a node: types, counts and lists of types are filled in here.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsupported
from isomorph.formats._tf_tensors import TYPE_OF_ELEMENT, encode, schema, shape_record
from isomorph.tensors import dims_of, type_of
from isomorph.wire.protobuf import Record
from isomorph.wire.tf_operators import TYPES, Argument, operator

if TYPE_CHECKING:
    import onnx_ir as ir

PRODUCER = 1882                     # the version of the graph format that TensorFlow 2.21 accepts from every producer
FORBIDDEN = re.compile(r"[^A-Za-z0-9_./>-]")


def type_of_value(value: ir.Value | None) -> str:
    """TensorFlow's name of a value's element type."""
    if value is None:
        raise Unsupported("an input that is left out")
    if "variable" in value.meta:
        if value.meta["variable"].get("op", "VarHandleOp") == "VarHandleOp":
            return "resource"
    elif "tf_type" in value.meta:
        return value.meta["tf_type"]
    if value.dtype is None or int(value.dtype) not in TYPE_OF_ELEMENT:
        raise Unsupported(f"the type {value.dtype} of {value.name}", where=str(value.name))
    return TYPE_OF_ELEMENT[int(value.dtype)]


def filled_attributes(op_type: str, given: dict[str, Any], inputs: Sequence[ir.Value | None], outputs: Sequence[ir.Value]) -> dict[str, Any]:
    """`given` and the attributes that follow from the values: types, counts, lists of types."""
    known = operator(op_type)
    if known is None:
        return given
    made = dict(given)
    for arguments, values in ((known.inputs, [type_of_value(value) for value in inputs]), (known.outputs, [type_of_value(value) for value in outputs])):
        _fill(made, known.attributes, arguments, values)
    return made


def _fill(made: dict[str, Any], kinds: dict[str, str], arguments: Sequence[Argument], types: list[str]) -> None:
    free = [argument for argument in arguments if argument.listed or argument.number]
    rest = len(types) - (len(arguments) - len(free))                 # values of the one argument that takes several
    place = 0
    for argument in arguments:
        if argument.listed:
            many = len(made[argument.attribute]) if isinstance(made.get(argument.attribute), list) else rest
            made.setdefault(argument.attribute, types[place:place + many])
        elif argument.number:
            many = made.setdefault(argument.number, rest)
        else:
            many = 1
        if not argument.listed and argument.attribute and place < len(types) and many:
            made.setdefault(argument.attribute, types[place])
        place += many


class Encoder:
    """One GraphDef being made: names that TensorFlow takes, nodes, and functions of bodies."""

    def __init__(self) -> None:
        self.kinds = schema()
        self.functions: dict[str, Record] = {}
        self.names: dict[int, str] = {}
        self.taken: set[str] = set()

    def graph_def(self, graph: ir.Graph, functions: Iterable[ir.Function] = ()) -> Record:
        """The GraphDef of a main graph and its functions. Inputs become Placeholders, initializers Const or variables."""
        for function in functions:
            self.functions[function.name] = self.function(function.graph, function.name, function.meta.get("results"), function.meta.get("control") or {})
        nodes = [self.placeholder(value) for value in graph.inputs] + self.nodes(graph, {})
        library = self.kinds["FunctionDefLibrary"](function=list(self.functions.values()))
        return self.kinds["GraphDef"](node=nodes, library=library, versions=self.kinds["VersionDef"](producer=PRODUCER))

    def unique(self, name: str) -> str:
        clean = FORBIDDEN.sub("_", name) or "node"
        clean = clean if clean[0].isalnum() or clean[0] == "." else f"n{clean}"
        candidate, count = clean, 0
        while candidate.lower() in self.taken:                       # TensorFlow tells nodes apart by case, some of its tools do not
            count += 1
            candidate = f"{clean}_{count}"
        self.taken.add(candidate.lower())
        return candidate

    def reference(self, value: ir.Value, arguments: dict[ir.Value, str]) -> str:
        """How a node input names a value: in the main graph by port, in a function by output argument."""
        if value in arguments:
            return arguments[value]
        name = self.name_of(value)
        node = value.producer()
        index = value.index() or 0
        if not arguments.get(None):                                  # type: ignore[call-overload]
            return f"{name}:{index}" if index else name
        known = operator(node.op_type if node is not None else "VarHandleOp" if "variable" in value.meta else "Const")
        label, place = "output", index
        if known is not None and node is not None:
            made = filled_attributes(node.op_type, _plain(node), node.inputs, node.outputs)
            for argument in known.outputs:
                many = len(made[argument.attribute]) if argument.listed else int(made[argument.number]) if argument.number else 1
                if place < many:
                    label = argument.name
                    break
                place -= many
        elif known is not None:
            label, place = known.outputs[0].name, 0
        return f"{name}:{label}:{place}"

    def name_of(self, value: ir.Value) -> str:
        """The name of the node that makes a value."""
        node = value.producer()
        owner = node if node is not None else value
        if id(owner) not in self.names:
            self.names[id(owner)] = self.unique((node.name if node is not None else None) or value.name or "node")
        return self.names[id(owner)]

    def placeholder(self, value: ir.Value) -> Record:
        shape = None if value.shape is None else list(value.shape)
        return self.record("Placeholder", self.name_of(value), [], {"dtype": type_of_value(value), "shape": tuple(shape) if shape is not None else None})

    def nodes(self, graph: ir.Graph, arguments: dict[Any, str]) -> list[Record]:
        made = [self.initializer(value) for value in graph.initializers.values() if value not in arguments and not value.is_graph_input()]
        for node in graph:
            if node.outputs:
                self.name_of(node.outputs[0])
        made += [self.node(node, arguments) for node in graph]
        return made

    def initializer(self, value: ir.Value) -> Record:
        name = self.name_of(value)
        variable = value.meta.get("variable")
        if variable is None:
            tensor = self.kinds["AttrValue"](tensor=encode(value.const_value, value.meta.get("tf_type", "")))
            kind = self.kinds["AttrValue"](type=tensor.tensor.dtype)
            return self.kinds["NodeDef"](name=name, op="Const", attr={"dtype": kind, "value": tensor})
        variable.setdefault("shared_name", name)
        given = {"dtype": TYPE_OF_ELEMENT[type_of(value.const_value)], "shape": dims_of(value.const_value), "shared_name": variable["shared_name"],
                 "container": variable.get("container", "")}
        return self.record(variable.get("op", "VarHandleOp"), name, [], given)

    def node(self, node: ir.Node, arguments: dict[Any, str]) -> Record:
        inputs = [self.reference(value, arguments) for value in node.inputs if value is not None]
        name = self.name_of(node.outputs[0]) if node.outputs else self.names.setdefault(id(node), self.unique(node.name or node.op_type))
        made = self.record(node.op_type, name, inputs, filled_attributes(node.op_type, _plain(node), [value for value in node.inputs if value is not None],
                                                                         node.outputs))
        made.attr.update(node.meta.get("attributes", {}))
        if node.meta.get("control"):
            made.input = [*made.input, *(f"^{wanted}" for wanted in node.meta["control"])]
        if node.meta.get("device"):
            made.device = node.meta["device"]
        return made

    def record(self, op_type: str, name: str, inputs: list[str], attributes: dict[str, Any]) -> Record:
        known = operator(op_type)
        made = {label: self.attribute(value, known.attributes.get(label, "") if known else "") for label, value in attributes.items()}
        return self.kinds["NodeDef"](name=name, op=op_type, input=inputs, attr=made)

    def attribute(self, value: Any, kind: str) -> Record:
        """A plain value as an AttrValue, by the kind that the operator declares or, for others, by what it looks like."""
        kinds = self.kinds
        if kind.startswith("list") or (not kind and isinstance(value, (list, tuple))):
            inner = kind[5:-1] or _kind(value[0] if len(value) else 0)
            field = FIELD_OF[inner]
            return kinds["AttrValue"](list=kinds["ListValue"](**{field: [self.scalar(item, inner) for item in value]}))
        kind = kind or _kind(value)
        return kinds["AttrValue"](**{FIELD_OF[kind]: self.scalar(value, kind)})

    def scalar(self, value: Any, kind: str) -> Any:
        if kind == "type":
            return TYPES[value if isinstance(value, str) else TYPE_OF_ELEMENT[int(value)]]
        if kind == "shape":
            return shape_record(value)
        if kind == "tensor":
            return encode(value)
        if kind == "func":
            return self.kinds["NameAttrList"](name=value if isinstance(value, str) else self.body(value))
        if kind == "string":
            return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        return {"int": int, "float": float, "bool": bool}[kind](value)

    def body(self, graph: ir.Graph) -> str:
        """A body of control flow as a function of its own; its inputs are the arguments."""
        name = self.unique(graph.name or "body")
        self.functions[name] = self.function(graph, name)
        return name

    def function(self, graph: ir.Graph, name: str, results: Sequence[str] | None = None, control: dict[str, str] | None = None) -> Record:
        """A FunctionDef. Values are named inside a function only, so that names may repeat those of the main graph."""
        outer, self.taken = self.taken, set()
        kinds = self.kinds
        arguments: dict[Any, str] = {None: "function"}
        for value in graph.inputs:
            arguments[value] = self.unique((value.name or "argument").replace("/", "_").replace(".", "_").replace("-", "_"))
        labels = list(results or (f"result_{place}" for place in range(len(graph.outputs))))
        inputs = [kinds["ArgDef"](name=arguments[value], type=TYPES[type_of_value(value)]) for value in graph.inputs]
        outputs = [kinds["ArgDef"](name=label, type=TYPES[type_of_value(value)]) for label, value in zip(labels, graph.outputs, strict=True)]
        nodes = self.nodes(graph, arguments)
        stateful = any((known := operator(node.op)) is not None and known.stateful for node in nodes)
        signature = kinds["OpDef"](name=name, input_arg=inputs, output_arg=outputs, is_stateful=stateful, control_output=list(control or ()))
        ret = {label: self.reference(value, arguments) for label, value in zip(labels, graph.outputs, strict=True)}
        self.taken = outer | {name.lower()}
        return kinds["FunctionDef"](signature=signature, node_def=nodes, ret=ret, control_ret=dict(control or {}))


FIELD_OF = {"string": "s", "int": "i", "float": "f", "bool": "b", "type": "type", "shape": "shape", "tensor": "tensor", "func": "func"}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "int" if isinstance(value, int) else "float" if isinstance(value, float) else "string" if isinstance(value, (str, bytes)) else "tensor"


def _plain(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}
