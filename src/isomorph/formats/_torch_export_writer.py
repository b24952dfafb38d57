"""A graph of aten calls as an exported program: the archive of `torch.export.save` since 2.8, with raw weights.

Field names and numbers: torch/_export/serde/schema.py, layout: torch/export/pt2_archive. Every value has metadata there: a size that is not known before
the run is a symbol of its own, as PyTorch itself writes sizes that depend on data.
"""
from __future__ import annotations

import builtins
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from isomorph.dialects.torch.calls import DOMAIN, arguments, is_number
from isomorph.dialects.torch.schemas import overload_of
from isomorph.errors import Unsupported, Usage
from isomorph.formats import _torch_interface, _torch_names, _torch_zip
from isomorph.passes.captures import captured
from isomorph.progress import SILENT, Progress
from isomorph.report import Report, Severity
from isomorph.tensors import dims_of

if TYPE_CHECKING:
    from isomorph.model import Model

SCHEMA, OPSET, NAME = {"major": 8, "minor": 20}, 10, "model"
WRITER = "2.13.0"                       # the release whose serialization this is
D = ir.DataType
SCALAR_TYPES = {D.UINT8: 1, D.INT8: 2, D.INT16: 3, D.INT32: 4, D.INT64: 5, D.FLOAT16: 6, D.FLOAT: 7, D.DOUBLE: 8, D.COMPLEX64: 10, D.COMPLEX128: 11, D.BOOL: 12,
                D.BFLOAT16: 13, D.UINT16: 28, D.FLOAT8E4M3FN: 29, D.FLOAT8E5M2: 30, D.FLOAT8E4M3FNUZ: 31, D.FLOAT8E5M2FNUZ: 32}
SYMBOLIC = {"sym_add": "_operator.add", "sym_mul": "_operator.mul", "sym_trunc": "math.trunc"}
KINDS = {"int": "sym_int", "float": "sym_float", "bool": "sym_bool"}
POSITIONAL, KEYWORD = 1, 2
STRIDED = 7
LIKELY = 2                               # the example size of an open dimension; 0 and 1 would be taken as fixed
CPU = {"type": "cpu", "index": None}
Json = dict[str, Any]


def write(model: Model, path: str | os.PathLike[str], *, force: bool = False, progress: Progress = SILENT) -> Report:
    """A file that `torch.export.load` takes. Raises `Usage` where the output exists, `Unsupported` for element types that the format has no number for."""
    path = Path(path)
    if model.dialect != "torch":
        raise Usage("an exported program holds calls of aten", where=str(path), hint="hand over the model in the dialect torch")
    weights = _torch_names.weights(model)
    document = Program(model, weights).document()
    report = Report(str(path))
    if model.metadata:
        report.add("metadata.dropped", Severity.INFO, str(path), f"{len(model.metadata)} entries of metadata are not written")
    progress.start("write", sum(weight.tensor.nbytes for weight in weights), "bytes")
    with _torch_zip.writing(path, path.stem or NAME, force=force, progress=progress) as archive:
        archive.text("archive_format", "pt2")
        archive.text("archive_version", "0")
        archive.text("byteorder", "little")
        archive.text(".data/version", "3\n")
        archive.text(f"models/{NAME}.json", json.dumps(document, allow_nan=False))
        archive.text(f"data/weights/{NAME}_weights_config.json", json.dumps({"config": {
            weight.name: {"path_name": f"weight_{place}", "is_param": weight.trained, "use_pickle": False, "tensor_meta": _stored(weight)}
            for place, weight in enumerate(weights)}}))
        for place, weight in enumerate(weights):
            archive.tensor(f"data/weights/weight_{place}", weight.tensor)
        archive.text(f"data/constants/{NAME}_constants_config.json", '{"config": {}}')
        archive.text(f"data/sample_inputs/{NAME}.pt", "")
        archive.text(_torch_interface.EXTRA, _torch_interface.written(model))
    progress.finish()
    report.facts |= {"bytes": path.stat().st_size, "tensors": len(weights)}
    return report


def _stored(weight: _torch_names.Weight) -> Json:
    dims = dims_of(weight.tensor)
    return _meta(weight.value.dtype, [{"as_int": dim} for dim in dims], [{"as_int": step} for step in _torch_zip.strides_of(dims)], weight.trained)


def _meta(dtype: Any, sizes: list[Json], strides: list[Json], trained: bool = False) -> Json:
    if dtype not in SCALAR_TYPES:
        raise Unsupported(f"an exported program has no number for the element type {dtype.name}" if dtype is not None else "a value has no known element type")
    return {"dtype": SCALAR_TYPES[dtype], "sizes": sizes, "requires_grad": trained, "device": CPU, "strides": strides, "storage_offset": {"as_int": 0},
            "layout": STRIDED}


class Symbols:
    """Names of open dimensions: `s0`, ... for those of inputs, which are the same wherever their name is, `u0`, ... for what only the run tells."""

    def __init__(self) -> None:
        self.named: dict[str, str] = {}
        self.lowest: list[int | None] = []

    def of_input(self, dim: Any, fallback: str) -> str:
        return self.named.setdefault(str(dim) if dim is not None else fallback, f"s{len(self.named)}")

    def of_value(self, dim: Any) -> str:
        return self.named[dim] if dim in self.named else self.unknown(0)

    def unknown(self, lowest: int | None) -> str:
        """A number that only the run tells: a size, which is at least 0, or any integer."""
        self.lowest.append(lowest)
        return f"u{len(self.lowest) - 1}"

    def ranges(self) -> list[tuple[str, int | None]]:
        return [*((symbol, 0) for symbol in self.named.values()), *((f"u{place}", lowest) for place, lowest in enumerate(self.lowest))]

    @staticmethod
    def expression(name: str) -> str:
        return f"Symbol('{name}', {'positive=True, ' if name[0] == 's' else ''}integer=True)"


class Scope:
    """The names and the metadata of one graph or body."""

    def __init__(self) -> None:
        self.names: dict[ir.Value, str] = {}
        self.used = set(dir(builtins)) | {"self", "torch", "output"}
        self.tensors: Json = {}
        self.numbers: dict[str, Json] = {kind: {} for kind in KINDS}
        self.nodes: list[Json] = []

    def fresh(self, base: str) -> str:
        return _torch_names.fresh(base, self.used)

    def graph(self, inputs: list[Json], outputs: list[Json], *, single: bool = False) -> Json:
        return {"inputs": inputs, "outputs": outputs, "nodes": self.nodes, "tensor_values": self.tensors, "sym_int_values": self.numbers["int"],
                "sym_bool_values": self.numbers["bool"], "is_single_tensor_return": single, "custom_obj_values": {},
                "sym_float_values": self.numbers["float"]}


class Program:
    """The document, built from the graph."""

    def __init__(self, model: Model, weights: list[_torch_names.Weight]):
        self.model, self.weights, self.symbols = model, weights, Symbols()
        self.scope = Scope()
        self.bodies = 0

    def document(self) -> Json:
        graph = self.model.graph
        specs: list[Json] = []
        for value in graph.inputs:
            self.scope.names[value] = self.scope.fresh(value.name or "input")
        for weight in self.weights:
            self.scope.names[weight.value] = name = self.scope.fresh(("p_" if weight.trained else "b_") + "_".join(weight.path))
            self.scope.tensors[name] = _stored(weight)
            specs.append({"parameter": {"arg": {"name": name}, "parameter_name": weight.name}} if weight.trained else
                         {"buffer": {"arg": {"name": name}, "buffer_name": weight.name, "persistent": True}})
        for value in graph.inputs:
            self.describe(value, is_input=True)
            specs.append({"user_input": {"arg": {"as_tensor": {"name": self.scope.names[value]}}}})
        inputs = [{"as_tensor": {"name": self.scope.names[value]}} for value in (*(weight.value for weight in self.weights), *graph.inputs)]
        for value in graph.outputs:
            if value.producer() is not None and value not in self.scope.names:
                self.scope.names[value] = self.scope.fresh(value.name or "output")
        self.block(graph)
        outputs = self.results(graph.outputs)
        names = [self.scope.names[value] for value in graph.inputs]
        module = {"graph": self.scope.graph(inputs, outputs),
                  "signature": {"input_specs": specs, "output_specs": [{"user_output": {"arg": output}} for output in outputs]},
                  "module_call_graph": [{"fqn": "", "signature": {"inputs": [], "outputs": [], "in_spec": _calling(len(names)),
                                                                  "out_spec": _giving(len(outputs)), "forward_arg_names": names}}],
                  "metadata": {}, "treespec_namedtuple_fields": {}}
        return {"graph_module": module, "opset_version": {"aten": OPSET},
                "range_constraints": {symbol: {"min_val": lowest, "max_val": None} for symbol, lowest in self.symbols.ranges()},
                "schema_version": SCHEMA, "verifiers": ["TRAINING"], "torch_version": WRITER, "guards_code": []}

    # ---- values

    def name(self, value: Any) -> str:
        if value not in self.scope.names:
            self.scope.names[value] = self.scope.fresh((value.name or "value").rpartition("/")[2])
        return self.scope.names[value]

    def describe(self, value: ir.Value, *, is_input: bool = False) -> None:
        """Metadata under the name that the value has in this scope."""
        name = self.name(value)
        if is_number(value):
            kind = value.meta["number"]
            self.scope.numbers[kind][name] = self.expression(self.symbols.unknown(None)) if kind == "int" else {"as_expr": {
                "expr_str": f"Symbol('zu{self.scope_number()}', real=True)", "hint": None}} if kind == "float" else {"as_expr": {"expr_str": "True"}}
            return
        dims = dims_of_value(value)
        known = [dim if isinstance(dim, int) else self.symbols.of_input(dim, f"{name}_{axis}") if is_input else self.symbols.of_value(dim)
                 for axis, dim in enumerate(dims)]
        self.scope.tensors[name] = _meta(value.dtype, [self.size([dim]) for dim in known], [self.size(known[axis + 1:]) for axis in range(len(known))])

    def scope_number(self) -> int:
        self.bodies += 1
        return self.bodies

    def size(self, factors: Sequence[int | str]) -> Json:
        """The product of sizes: a number, or an expression with the value of its example."""
        numbers, names = math.prod(max(factor, 1) if len(factors) > 1 else factor for factor in factors if isinstance(factor, int)), \
            [factor for factor in factors if isinstance(factor, str)]
        if not names:
            return {"as_int": numbers}
        parts = ([str(numbers)] if numbers != 1 else []) + [self.symbols.expression(name) for name in names]
        backed = all(name[0] == "s" for name in names)
        return {"as_expr": {"expr_str": "*".join(parts), "hint": {"as_int": numbers * LIKELY ** len(names)} if backed else None}}

    def expression(self, symbol: str) -> Json:
        return {"as_expr": {"expr_str": self.symbols.expression(symbol), "hint": None}}

    def results(self, outputs: Iterable[ir.Value]) -> list[Json]:
        """Outputs that nothing else is: what is an input, a weight, or an output already is copied."""
        made = {output["as_tensor"]["name"] for node in self.scope.nodes for output in _tensors(node["outputs"])}
        found: list[Json] = []
        for value in outputs:
            name = self.name(value)
            if name not in made:
                source, name = name, self.scope.fresh(value.name or "output")
                self.scope.tensors[name] = self.scope.tensors[source]
                self.node("torch.ops.aten.clone.default", [_named("self", {"as_tensor": {"name": source}})], [{"as_tensor": {"name": name}}], name)
            made.discard(name)
            found.append({"as_tensor": {"name": name}})
        return found

    # ---- nodes

    def node(self, target: str, inputs: list[Json], outputs: list[Json], name: str, *, of_body: bool | None = None) -> None:
        self.scope.nodes.append({"target": target, "inputs": inputs, "outputs": outputs, "metadata": {}, "is_hop_single_tensor_return": of_body, "name": name})

    def block(self, graph: ir.Graph) -> None:
        for node in graph:
            if node.domain != DOMAIN:
                (self.branch if node.op_type == "If" else self.loop)(node)
            else:
                self.call(node)

    def call(self, node: ir.Node) -> None:
        args, keywords = arguments(node)
        name = "clone" if node.op_type == "Identity" else node.op_type
        for value in node.outputs:
            self.describe(value)
        outputs = [self.reference(value) for value in node.outputs]
        own = self.name(node.outputs[0]) if len(outputs) == 1 else self.scope.fresh(name)
        if name in SYMBOLIC:
            self.node(SYMBOLIC[name], [_named("", self.argument(argument)) for argument in args], outputs, own)
            return
        schema = overload_of(name, args, keywords)
        inputs = [_named(key, self.argument(argument)) for key, argument in zip(schema.arguments, args, strict=False)]
        inputs += [_named(key, self.argument(argument), KEYWORD) for key, argument in keywords.items()]
        self.node(f"torch.ops.aten.{name}.{schema.overload}", inputs, outputs, own)

    def reference(self, value: Any) -> Json:
        name = self.name(value)
        return {f"as_{KINDS[value.meta['number']]}": {"as_name": name}} if is_number(value) else {"as_tensor": {"name": name}}

    def argument(self, argument: Any) -> Json:
        if isinstance(argument, ir.Value):
            return self.reference(argument)
        if isinstance(argument, D):
            if argument not in SCALAR_TYPES:
                raise Unsupported(f"an exported program has no element type {argument.name}")
            return {"as_scalar_type": SCALAR_TYPES[argument]}
        if isinstance(argument, list):
            return self.listed(argument)
        if isinstance(argument, float) and not math.isfinite(argument):
            return {"as_float": "NaN" if math.isnan(argument) else "Infinity" if argument > 0 else "-Infinity"}
        kind = "none" if argument is None else {bool: "bool", int: "int", float: "float", str: "string"}[type(argument)]
        return {f"as_{kind}": True if argument is None else argument}

    def listed(self, items: list[Any]) -> Json:
        """Numbers, some of which may be known at the run only, or tensors, some of which may be absent."""
        if any(isinstance(item, ir.Value) and is_number(item) for item in items):
            return {"as_sym_ints": [{"as_name": self.name(item)} if isinstance(item, ir.Value) else {"as_int": item} for item in items]}
        if any(isinstance(item, ir.Value) for item in items):
            if None in items:
                return {"as_optional_tensors": [{"as_none": True} if item is None else {"as_tensor": {"name": self.name(item)}} for item in items]}
            return {"as_tensors": [{"name": self.name(item)} for item in items]}
        return {"as_floats" if any(isinstance(item, float) for item in items) else "as_ints": items}

    # ---- control flow

    def body(self, inputs: list[ir.Value], build: Callable[[], list[Json]], *, single: bool = False) -> Json:
        """A graph of its own: `inputs` are values that go by the same name inside, `build()` makes the nodes and answers the outputs."""
        outer, self.scope = self.scope, Scope()
        try:
            for value in inputs:
                self.describe(value)
            given = [{"as_tensor": {"name": self.name(value)}} for value in inputs]
            outputs = build()
            return self.scope.graph(given, outputs, single=single)
        finally:
            self.scope = outer

    def as_graph(self, kind: str, graph: Json) -> Json:
        self.bodies += 1
        return {"as_graph": {"name": f"{kind}_{self.bodies}", "graph": graph}}

    def branch(self, node: ir.Node) -> None:
        """torch.cond: both bodies take everything that either of them reads from around it."""
        bodies = [node.attributes[name].value for name in ("then_branch", "else_branch")]
        outer = list(dict.fromkeys(value for body in bodies for value in captured(body)))
        graphs = []
        for kind, body in zip(("true_graph", "false_graph"), bodies, strict=True):
            def build(body: ir.Graph = body) -> list[Json]:
                self.block(body)
                return self.results(body.outputs)
            graphs.append(self.as_graph(kind, self.body(outer, build)))
        operands = {"as_tensors": [{"name": self.name(value)} for value in outer]}
        for value in node.outputs:
            self.describe(value)
        inputs = [_named("", item) for item in (self.reference(node.inputs[0]), *graphs, operands)]
        self.node("torch.ops.higher_order.cond", inputs, [self.reference(value) for value in node.outputs], self.scope.fresh("cond"), of_body=False)

    def loop(self, node: ir.Node) -> None:
        """torch.while_loop over [round, go on, carried values, collected values], which grow by concatenation; all else that is read is handed in."""
        body = node.attributes["body"].value
        (count, condition), carried = (*node.inputs, None, None)[:2], node.inputs[2:]
        outer = captured(body)
        collected = body.outputs[1 + len(carried):]
        piles = [ir.Value(name=f"{value.name}_pile", type=value.type, shape=ir.Shape([None, *dims_of_value(value)])) for value in collected]
        limit = ir.Value(name="limit", type=ir.TensorType(D.INT64), shape=ir.Shape([]))
        state = [*body.inputs[:2], *body.inputs[2:2 + len(carried)], *piles]
        for value, dtype in zip(body.inputs, (D.INT64, D.BOOL), strict=False):
            value.dtype, value.shape = dtype, ir.Shape([])
        inside = [*state, limit, *outer]

        def ask() -> list[Json]:
            less = self.aten("lt", [state[0], limit], D.BOOL, [])
            return [{"as_tensor": {"name": self.aten("logical_and", [less, state[1]], D.BOOL, [], raw=True)}}]

        def step() -> list[Json]:
            self.block(body)
            following = self.aten("add", [state[0], 1], D.INT64, [], raw=True)
            go = self.aten("reshape", [body.outputs[0], []], D.BOOL, [], raw=True)
            results = [{"as_tensor": {"name": name}} for name in (following, go)]
            results += self.results(body.outputs[1:1 + len(carried)])
            for pile, value in zip(piles, collected, strict=True):
                row = self.aten("unsqueeze", [value, 0], value.dtype, [1, *dims_of_value(value)])
                results.append({"as_tensor": {"name": self.aten("cat", [[pile, row], 0], value.dtype, dims_of_value(pile), raw=True)}})
            return results
        graphs = [self.as_graph("cond_graph", self.body(inside, ask, single=True)), self.as_graph("body_graph", self.body(inside, step))]
        first = self.aten("full", [[], 0], D.INT64, [], dtype=D.INT64, raw=True)
        start = self.aten("full", [[], True], D.BOOL, [], dtype=D.BOOL, raw=True) if condition is None else \
            self.aten("reshape", [condition, []], D.BOOL, [], raw=True)
        most = self.aten("full", [[], (1 << 63) - 1], D.INT64, [], dtype=D.INT64, raw=True) if count is None else \
            self.aten("reshape", [count, []], D.INT64, [], raw=True)
        # Where a size is not known, [0] stands for nothing: concatenation leaves it out whatever the rank.
        starts = [[0, *sizes] if all(isinstance(size, int) for size in sizes) else [0] for sizes in (dims_of_value(pile)[1:] for pile in piles)]
        empty = [self.aten("full", [start, 0], pile.dtype, start, dtype=pile.dtype, raw=True) for pile, start in zip(piles, starts, strict=True)]
        given = [first, start, *(self.name(value) for value in carried), *empty]
        extra = [most, *(self.name(value) for value in outer)]
        unused = [ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([])) for name, dtype in (("rounds", D.INT64), ("went_on", D.BOOL))]
        for value in (*unused, *node.outputs):
            self.describe(value)
        lists = [{"as_tensors": [{"name": name} for name in names]} for names in (given, extra)]
        inputs = [_named("", item) for item in (*graphs, *lists)]
        self.node("torch.ops.higher_order.while_loop", inputs, [self.reference(value) for value in (*unused, *node.outputs)], self.scope.fresh("while_loop"),
                  of_body=False)

    def aten(self, name: str, args: list[Any], kind: Any, shape: list[Any], *, raw: bool = False, **keywords: Any) -> Any:
        """A call that no node of the graph stands for; its value, or with `raw` the name that it has."""
        value = ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))
        self.describe(value)
        schema = overload_of(name, args, keywords)
        inputs = [_named(key, self.argument(argument)) for key, argument in zip(schema.arguments, args, strict=False)]
        inputs += [_named(key, self.argument(argument), KEYWORD) for key, argument in keywords.items()]
        self.node(f"torch.ops.aten.{name}.{schema.overload}", inputs, [self.reference(value)], self.name(value))
        return self.name(value) if raw else value


def dims_of_value(value: ir.Value) -> list[Any]:
    """Numbers, symbols and None; a value of unknown rank counts as a vector."""
    return [None] if value.shape is None else [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def _named(name: str, argument: Json, kind: int = POSITIONAL) -> Json:
    return {"name": name, "arg": argument, "kind": kind}


def _tensors(outputs: list[Json]) -> list[Json]:
    return [output for output in outputs if "as_tensor" in output]


LEAF: Json = {"type": None, "context": None, "children_spec": []}


def _calling(count: int) -> str:
    positional = {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF] * count}
    named = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    return json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [positional, named]}])


def _giving(count: int) -> str:
    """One result comes as it is, several as a tuple."""
    return json.dumps([1, LEAF if count == 1 else {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF] * count}])
