"""GraphDef records of TensorFlow -> graphs of the dialect "tf". SavedModel, frozen graphs and TensorFlow.js share it; `_graphdef_writer` is the way back.

How a graph stands in memory:

* A node is an `ir.Node` of the domain "tf" under its own name. Output 0 is the value `name`, output i the value `name:i`.
* `Const` is an initializer over a lazy tensor, whose value has the node's name. `VarHandleOp`, `VariableV2` and `Variable` whose content is known are
  initializers too, with `meta["variable"]` = {"op", "shared_name", "container", "key" (in the checkpoint), ...}; nodes still read and assign them.
* `Placeholder` is a graph input.
* Attributes are plain: types by TensorFlow's name ("float", "resource"), booleans as 0 and 1, shapes as tuples with -1 (None where the rank is unknown),
  functions by name. What the operator does not declare stands as a record in `node.meta["attributes"]`.
* Control inputs are the names of nodes in `node.meta["control"]`; the order of the nodes respects them. NextIteration -> Merge is the only edge backwards.
* Values whose type ONNX does not have carry TensorFlow's name of it in `meta["tf_type"]` ("resource", "variant", "qint8").
* A function is an `ir.Function` of the domain "tf" with `meta["results"]`, the names of its output arguments, and `meta["control"]`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsafe
from isomorph.formats._tf_tensors import ELEMENT, decode, shape_of, type_name
from isomorph.wire import tf_operators
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.protobuf import Record

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "tf"
PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
MERGES, ROUNDS = ("Merge", "RefMerge"), ("NextIteration", "RefNextIteration")
Content = Callable[[Record], Any]           # NodeDef -> (tensor, what is known of it) of a variable or a constant that lies elsewhere, or None


def variable_attributes(node: Record) -> dict[str, Any]:
    """`meta["variable"]` of the initializer that stands for a variable."""
    return {"op": node.op, **{name: _text(node.attr[name].s) for name in ("shared_name", "container") if name in node.attr}}


def split_reference(reference: str) -> tuple[str, str]:
    """`name`, `name:1` or, in functions, `name:argument:1` -> node and place."""
    name, _, place = reference.partition(":")
    return name, place


def _node_of(reference: str) -> str:
    return split_reference(reference.removeprefix("^"))[0]


class Decoder:
    """The functions of one GraphDef, and the graphs made of its nodes. Each function is made when something that is read calls it."""

    def __init__(self, graph_def: Record, where: str = "", limits: Limits = DEFAULT, *, content: Content | None = None):
        self.graph_def, self.where, self.limits, self.content = graph_def, where, limits, content
        library = graph_def.library.function if graph_def.library is not None else ()
        self.library: dict[str, Record] = {}
        for function in library:
            if function.signature is None or not function.signature.name:
                raise Damaged("a function without a name", where=where)
            self.library[function.signature.name] = function
        self.functions: dict[str, ir.Function | None] = {}
        self.wanted: list[str] = []
        self.values = 0

    def model(self, inputs: Sequence[str] = (), outputs: Sequence[str] | None = None, name: str = "main", targets: Sequence[str] = ()) -> ir.Model:
        """The graph between `inputs` (fed values) and `outputs`, or the whole graph, with the functions it needs.

        Without `outputs` the graph ends in every value that nobody reads. `targets` are nodes to keep for their effects.
        """
        import onnx_ir as ir
        graph = _Body(self, self.graph_def.node, f"{self.where}").main(inputs, outputs, name, targets)
        while self.wanted:
            called = self.wanted.pop()
            if called not in self.functions:
                self.functions[called] = self.function(called)
        functions = [function for function in self.functions.values() if function is not None]
        graph.opset_imports[DOMAIN] = 1
        return ir.Model(graph, ir_version=10, functions=functions)

    def function(self, name: str) -> ir.Function | None:
        """The function of that name, None where the library has none: the mapping says so where it is called."""
        import onnx_ir as ir
        record = self.library.get(name)
        if record is None:
            return None
        graph = _Body(self, record.node_def, f"{self.where}, function {name}", record).function()
        made = ir.Function(DOMAIN, name, "", graph=graph, attributes=[])
        made.meta["results"] = [argument.name for argument in record.signature.output_arg]
        made.meta["control"] = dict(record.control_ret)
        return made

    def count(self, more: int) -> None:
        """Values made so far, against `limits.tensors`."""
        self.values += more
        if self.values > self.limits.tensors:
            raise Unsafe(f"more than {self.limits.tensors} values (limit tensors)", where=self.where)


class _Body:
    """The nodes of the graph or of one function, by name, while they become a graph."""

    def __init__(self, decoder: Decoder, nodes: Iterable[Record], where: str, record: Record | None = None):
        self.decoder, self.where, self.record = decoder, where, record
        self.nodes: dict[str, Record] = {}
        for node in nodes:
            if node.name in self.nodes or not node.name:
                raise Damaged(f"two nodes are called {node.name!r}" if node.name else "a node without a name", where=where)
            self.nodes[node.name] = node
        self.arguments: dict[str, ir.Value] = {}                # values that come from outside, by reference
        self.made: dict[str, list[ir.Value]] = {}
        self.layouts: dict[str, dict[str, int]] = {}            # node -> output argument -> its first output
        self.initializers: list[ir.Value] = []
        self.inputs: list[ir.Value] = []
        self.ports: dict[str, int] = {}                         # node -> the highest output that is read, for operators TensorFlow does not have
        self.later: list[tuple[ir.Node, int, str]] = []
        self.graph_nodes: list[ir.Node] = []

    # ---- the two kinds of graphs

    def main(self, inputs: Sequence[str], outputs: Sequence[str] | None, name: str, targets: Sequence[str]) -> ir.Graph:
        import onnx_ir as ir
        for reference in inputs:
            self.feed(reference)
        roots = list(self.nodes) if outputs is None else [split_reference(reference)[0] for reference in outputs]
        order = self.order([*targets, *roots], {split_reference(reference)[0] for reference in inputs})
        self.make(order)
        if outputs is None:
            read = {split_reference(reference)[0] for node in order for reference in self.nodes[node].input}
            results = [value for node in self.graph_nodes if node.name not in read and node.outputs for value in node.outputs[:1]]
        else:
            results = [self.value(reference, "the outputs") for reference in outputs]
        return ir.Graph(self.inputs, results, nodes=self.graph_nodes, initializers=self.initializers, name=name)

    def function(self) -> ir.Graph:
        import onnx_ir as ir
        assert self.record is not None
        signature = self.record.signature
        for argument in signature.input_arg:
            value = self.typed(argument.name, type_name(argument.type))
            self.arguments[argument.name] = self.arguments[f"{argument.name}:0"] = value
            self.inputs.append(value)
        missing = [argument.name for argument in signature.output_arg if argument.name not in self.record.ret]
        if missing:
            raise Damaged(f"nothing returns the output {missing[0]!r}", where=self.where)
        references = [self.record.ret[argument.name] for argument in signature.output_arg]
        roots = [name for name in (split_reference(reference)[0] for reference in (*references, *self.record.control_ret.values())) if name in self.nodes]
        # Stateful operators have effects although nobody may read them.
        effects = [node.name for node in self.nodes.values() if (known := tf_operators.operator(node.op)) is None or known.stateful]
        self.make(self.order([*roots, *effects], set()))
        results = [self.value(reference, "its results") for reference in references]
        return ir.Graph(self.inputs, results, nodes=self.graph_nodes, initializers=self.initializers, name=signature.name)

    # ---- order

    def order(self, roots: Iterable[str], fed: set[str]) -> list[str]:
        """Every node that the roots need, after those it needs itself; what goes back to the beginning of a loop comes after it.

        Raises `Damaged` for a cycle that is no loop.
        """
        done: dict[str, bool] = {}
        order: list[str] = []
        queue = list(dict.fromkeys(roots))
        for root in queue:
            if root in done or root in fed or root in self.arguments:
                continue
            stack: list[tuple[str, Iterator[str]]] = [(root, self.needs(root))]
            done[root] = False
            while stack:
                name, needs = stack[-1]
                following = next((need for need in needs if need not in fed and need not in self.arguments and done.get(need) is not True), None)
                if following is None:
                    stack.pop()
                    done[name] = True
                    order.append(name)
                    if self.nodes[name].op in MERGES:
                        queue += [wanted for wanted in map(_node_of, self.nodes[name].input) if wanted in self.nodes and self.nodes[wanted].op in ROUNDS]
                elif following in done:
                    raise Damaged(f"its nodes form a cycle through {following!r}", where=self.where)
                else:
                    done[following] = False
                    stack.append((following, self.needs(following)))
        return order

    def needs(self, name: str) -> Iterator[str]:
        node = self.nodes.get(name)
        if node is None:
            raise Damaged(f"there is no node {name!r}, and another reads it", where=self.where)
        loop = node.op in MERGES
        for reference in node.input:
            wanted, place = split_reference(reference.removeprefix("^"))
            if loop and wanted in self.nodes and self.nodes[wanted].op in ROUNDS:
                continue
            if wanted not in self.nodes and reference in self.arguments:
                continue
            if place.isdigit():
                self.ports[wanted] = max(self.ports.get(wanted, 0), min(int(place), tf_operators.MOST_VALUES))
            yield wanted

    # ---- values and nodes

    def typed(self, name: str, kind: str) -> ir.Value:
        import onnx_ir as ir
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType(ELEMENT[kind])) if kind in ELEMENT else None)
        if kind not in ELEMENT or kind.startswith("q"):
            value.meta["tf_type"] = kind or "unknown"
        return value

    def feed(self, reference: str) -> None:
        """A graph input in the place of a value of the graph."""
        import onnx_ir as ir
        name, place = split_reference(reference)
        node = self.nodes.get(name)
        if node is None:
            raise Damaged(f"there is no node {name!r}, and a signature feeds it", where=self.where)
        types = [kind for _, kinds in self.layout(node, self.attributes(node)) for kind in kinds]
        index = int(place) if place.isdigit() else 0
        value = self.typed(name if not index else f"{name}:{index}", types[index] if index < len(types) else "")
        attr = node.attr.get("shape") if node.op.startswith("Placeholder") else None
        dims = shape_of(attr.shape, self.decoder.limits, self.where) if attr is not None and attr.shape is not None else None
        if dims is None and "_output_shapes" in node.attr and node.attr["_output_shapes"].list is not None:
            stated = list(node.attr["_output_shapes"].list.shape)
            dims = shape_of(stated[index], self.decoder.limits, self.where) if index < len(stated) else None
        if dims is not None:
            value.shape = ir.Shape([dim if dim >= 0 else f"{value.name}_{axis}" for axis, dim in enumerate(dims)])
        self.inputs.append(value)
        self.arguments[reference] = value
        if not index:
            self.arguments[name] = self.arguments[f"{name}:0"] = value

    def value(self, reference: str, reader: str) -> ir.Value:
        """What a reference names."""
        if reference in self.arguments:
            return self.arguments[reference]
        name, place = split_reference(reference)
        values = self.made.get(name)
        if values is None:
            raise Damaged(f"there is no value {reference!r}, and {reader} reads it", where=self.where)
        argument, _, index = place.rpartition(":")
        if argument or (place and not place.isdigit()):
            starts = self.layouts.get(name, {})
            if (argument or place) not in starts and not starts and values:
                starts = {argument or place: 0}                 # an operator TensorFlow does not have
            if (argument or place) not in starts:
                raise Damaged(f"{reference!r} names an output that its operator does not have", where=self.where)
            number = starts[argument or place] + (int(index) if argument and index.isdigit() else 0)
        else:
            number = int(place or 0)
        if number >= len(values):
            raise Damaged(f"there is no value {reference!r}, and {reader} reads it", where=self.where)
        return values[number]

    def make(self, order: Sequence[str]) -> None:
        for name in order:
            node = self.nodes[name]
            if not (node.op in PLACEHOLDERS and self.record is None and self.placeholder(node)) and not self.constant(node):
                self.node(node)
        for made, index, reference in self.later:
            made.replace_input_with(index, self.value(reference, made.name or ""))

    def placeholder(self, node: Record) -> bool:
        self.feed(node.name)
        self.made[node.name] = [self.arguments[node.name]]
        return True

    def constant(self, node: Record) -> bool:
        """Const, and a variable whose content is known, become initializers."""
        import onnx_ir as ir
        found: Any = None
        meta: dict[str, Any] = {}
        if node.op == "Const":
            attr = node.attr.get("value")
            if attr is None or attr.tensor is None:
                raise Damaged(f"the constant {node.name!r} has no value", where=self.where)
            outside = self.decoder.content(node) if self.decoder.content is not None else None
            kind = type_name(attr.tensor.dtype)
            if outside is None and kind not in ELEMENT:
                return False
            found = outside if outside is not None else decode(attr.tensor, node.name, f"{self.where}, {node.name}", self.decoder.limits)
            meta = {"tf_type": kind} if kind.startswith("q") else {}
        elif node.op in VARIABLES and self.decoder.content is not None:
            found = self.decoder.content(node)
            meta = {"variable": variable_attributes(node)}
        if found is None:
            return False
        self.decoder.count(1)
        if isinstance(found, tuple):
            found, extra = found
            meta["variable"] = {**meta.get("variable", {}), **extra}
        value = ir.Value(name=node.name, type=ir.TensorType(found.dtype), shape=ir.Shape(found.shape), const_value=found)
        value.meta.update(meta)
        control = [reference[1:] for reference in node.input if reference.startswith("^")]
        if control:
            value.meta["control"] = control
        self.initializers.append(value)
        self.made[node.name] = [value]
        known = tf_operators.operator(node.op)
        self.layouts[node.name] = {argument.name: 0 for argument in known.outputs} if known else {}
        return True

    def layout(self, node: Record, attributes: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
        """The output arguments of a node and the types of their values."""
        operator = tf_operators.operator(node.op)
        where = f"{self.where}, {node.name}"
        if operator is not None:
            return tf_operators.layout(operator.outputs, operator.defaults | dict(attributes), where)
        called = self.decoder.library.get(node.op)
        if called is not None:
            return [(argument.name, [type_name(argument.type)]) for argument in called.signature.output_arg]
        kind = next((str(attributes[name]) for name in ("Tout", "dtype", "T") if isinstance(attributes.get(name), str)), "")
        return [(f"output_{port}", [kind]) for port in range(self.ports.get(node.name, 0) + 1)]

    def node(self, node: Record) -> None:
        import onnx_ir as ir
        where = f"{self.where}, {node.name}"
        attributes = self.attributes(node)
        layout = self.layout(node, attributes)
        outputs: list[ir.Value] = []
        starts: dict[str, int] = {}
        for argument, types in layout:
            starts[argument] = len(outputs)
            for kind in types:
                outputs.append(self.typed(f"{node.name}:{len(outputs)}" if outputs else node.name, kind))
        self.decoder.count(len(outputs) + 1)
        inputs: list[ir.Value | None] = []
        control: list[str] = []
        for reference in node.input:
            if reference.startswith("^"):
                control.append(reference[1:])
                continue
            name, _ = split_reference(reference)
            late = name in self.nodes and name not in self.made and reference not in self.arguments
            if late:
                self.later.append((None, len(inputs), reference))       # type: ignore[arg-type]
            inputs.append(None if late else self.value(reference, node.name))
        made = ir.Node(DOMAIN, node.op, inputs, [_attribute(name, value) for name, value in attributes.items()], outputs=outputs, name=node.name)
        self.later = [(made if waiting is None else waiting, index, reference) for waiting, index, reference in self.later]
        operator = tf_operators.operator(node.op)
        rest = {name: attr for name, attr in node.attr.items() if operator is None or name not in operator.attributes}
        made.meta.update({key: value for key, value in (("control", control), ("attributes", rest), ("device", node.device)) if value})
        self.made[node.name], self.layouts[node.name] = outputs, starts
        self.graph_nodes.append(made)
        if node.op in self.decoder.library:
            self.decoder.wanted.append(node.op)
        if not layout and len(outputs) > tf_operators.MOST_VALUES:
            raise Unsafe(f"{len(outputs)} outputs", where=where)

    def attributes(self, node: Record) -> dict[str, Any]:
        """The attributes that the operator declares (all, for an operator that is not TensorFlow's) as plain values."""
        operator = tf_operators.operator(node.op)
        found: dict[str, Any] = {}
        for name, attr in node.attr.items():
            if operator is None and name.startswith("_"):
                continue
            if operator is None or name in operator.attributes:
                found[name] = self.plain(attr, operator.attributes.get(name, "") if operator else "", f"{self.where}, {node.name}, attribute {name}")
        return found

    def plain(self, attr: Record, kind: str, where: str) -> Any:
        field = next((name for name in ("s", "i", "f", "b", "type", "shape", "tensor", "func", "list", "placeholder") if name in attr), "")
        if field == "list":
            return [self.element(name, item, where) for name in ("s", "i", "f", "b", "type", "shape", "tensor", "func") for item in getattr(attr.list, name)]
        if not field and kind.startswith("list"):
            return []
        return self.element(field, getattr(attr, field), where) if field else None

    def element(self, field: str, item: Any, where: str) -> Any:
        if field == "func":
            self.decoder.wanted.append(item.name)
            return item.name
        if field == "tensor":
            return decode(item, "", where, self.decoder.limits) if type_name(item.dtype) in ELEMENT else None
        if field == "shape":
            return shape_of(item, self.decoder.limits, where)
        return PLAIN[field](item) if field in PLAIN else item


def _text(data: Any) -> str:
    return bytes(data).decode("utf-8", "surrogateescape")


PLAIN: dict[str, Callable[[Any], Any]] = {"s": _text, "type": type_name, "b": int}


def _attribute(name: str, value: Any) -> ir.Attr:
    import onnx_ir as ir
    if isinstance(value, list) and any(item is None or isinstance(item, tuple) for item in value):
        return ir.Attr(name, ir.AttributeType.TYPE_PROTOS, value)       # shapes
    if value is None or isinstance(value, tuple):
        return ir.Attr(name, ir.AttributeType.INTS, value)              # a shape, None where its rank is unknown
    if isinstance(value, list):
        kind = (ir.AttributeType.STRINGS if value and isinstance(value[0], str) else ir.AttributeType.FLOATS if value and isinstance(value[0], float)
                else ir.AttributeType.TENSORS if value and hasattr(value[0], "dtype") else ir.AttributeType.INTS)
        return ir.Attr(name, kind, value)
    kind = (ir.AttributeType.STRING if isinstance(value, str) else ir.AttributeType.FLOAT if isinstance(value, float)
            else ir.AttributeType.TENSOR if hasattr(value, "dtype") else ir.AttributeType.INT)
    return ir.Attr(name, kind, value)
