"""An exported program as its graph: plain JSON and raw weights. The pickles and libraries that may stand beside them are named and never loaded.

Field names: torch/_export/serde/schema.py. Versions differ in fields, so every field is read by name and absent ones are taken as empty.
"""
from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from isomorph.dialects._lower import Rejected
from isomorph.dialects.torch.interpreter import Interpreter
from isomorph.dialects.torch.loops import emit_loop
from isomorph.dialects.torch.lowering import Lowering
from isomorph.dialects.torch.program_values import UNKNOWN, Cell, Raised, Stop, Unknown, has_unknown
from isomorph.dialects.torch.to_onnx import SCALAR_TYPES
from isomorph.errors import Damaged, IsomorphError, Unsafe, Unsupported
from isomorph.formats import _torch, _torch_files, _torch_interface
from isomorph.formats._torch_values import DType, Storage, TensorRecord, flatten, is_sizes, made_tensor
from isomorph.model import HUB_IR_VERSION, HUB_OPSET, Model
from isomorph.report import Finding, Severity
from isomorph.wire.archive import Archive, open_archive
from isomorph.wire.pickle import Machine

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

# ScalarType of the schema -> our name of the dtype, and the number that printed code uses
TYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 10: "complex64", 11: "complex128", 12: "bool",
         13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz"}
OPERATORS = {"truediv": "div", "mod": "remainder", "floordiv": "floordiv", "and_": "__and__", "or_": "__or__", "not_": "__not__", "not": "__not__",
             "float": "Float", "int": "Int"}
SILENT_TARGETS = ("_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size", "_assert_tensor_metadata", "lift_fresh_copy_")
# Until 2.7; the first releases call pickled tensors .json
OLD_PROGRAM = "serialized_exported_program.json"
OLD_WEIGHTS = ("serialized_state_dict.pt", "serialized_state_dict.json", "serialized_constants.pt", "serialized_constants.json")
MOST_NODES = 1_000_000
SYMBOL = re.compile(r"Symbol\('(\w{1,64})'[^()]*\)|([A-Za-z_]\w{0,63})")


class Program:
    """The parts of one exported program inside its archive."""

    def __init__(self, artifact: Artifact, archive: Archive, root: str):
        self.artifact, self.archive, self.root = artifact, archive, root
        self.findings: list[Finding] = []
        self.opcodes = 0                       # of all pickles so far
        models = sorted(name for name in archive.names if name.startswith(root + "models/") and name.endswith(".json"))
        member = models[0] if models else root + OLD_PROGRAM
        self.name = member.rpartition("/")[2].removesuffix(".json")
        document = self.document(member)
        self.graph_module = fields(document, "graph_module")
        self.graph, self.signature = fields(self.graph_module, "graph"), fields(self.graph_module, "signature")
        if "inputs_to_parameters" in self.signature:
            self.signature = specified(self.graph, self.signature)
        self.tensors = self._read_weights()
        self._look_into_pickles()
        self._look_at_compiled_code()
        if len(models) > 1:
            self._find("torch_export.other-models", Severity.MEDIUM, member, f"{len(models)} models are in the package, the first is read")

    def _find(self, code: str, severity: Severity, where: str, message: str) -> None:
        self.findings.append(Finding(code, severity, where, message))

    def document(self, member: str) -> dict[str, Any]:
        """A JSON member. Raises `Damaged` where it is none, `Unsafe` where it is too long."""
        try:
            text = bytes(self.archive.read(member, self.artifact.limits.json_bytes)).decode("utf-8")
            found = json.loads(text, object_hook=without_nulls if member == self.root + OLD_PROGRAM else None)
        except (ValueError, RecursionError) as error:
            raise Damaged(f"{member} is not valid JSON ({str(error)[:80]})", where=self.artifact.where) from None
        if not isinstance(found, dict):
            raise Damaged(f"{member} is no JSON object", where=self.artifact.where)
        return found

    def _read_weights(self) -> dict[str, TensorRecord]:
        found: dict[str, TensorRecord] = {}
        for folder in ("weights", "constants"):
            for member in [name for name in self.archive.names if name.startswith(f"{self.root}data/{folder}/")]:
                if member.endswith("_config.json"):
                    found |= self._configured(member)
                elif member.endswith(".pt"):
                    found |= self._pickled(member)
        for name in OLD_WEIGHTS:
            if self.root + name in self.archive.members:
                found |= self._pickled(self.root + name)
        return found

    def _configured(self, member: str) -> dict[str, TensorRecord]:
        folder, found = member.rpartition("/")[0], {}
        for name, entry in fields(self.document(member), "config").items():
            meta = fields(entry, "tensor_meta")
            if not isinstance(entry, dict) or entry.get("use_pickle") or not meta:
                self._find("torch_export.not-loaded", Severity.MEDIUM, str(name), "an object that only a pickle of Python holds is not loaded")
                continue
            path = f"{folder}/{entry.get('path_name')}"
            if path not in self.archive.members:
                raise Damaged(f"the data of {str(name)[:80]} is not there", where=f"{self.artifact.where}, {member}")
            dims, strides = ([plain_int(size) for size in listed(meta.get(key))] for key in ("sizes", "strides"))
            offset = plain_int(meta.get("storage_offset", {"as_int": 0}))
            dtype = TYPES.get(number_in(meta, "dtype"))
            if dtype is None or not is_sizes(dims) or not is_sizes(strides):
                raise Damaged(f"{str(name)[:80]} has no type or shape", where=f"{self.artifact.where}, {member}")
            info = self.archive.members[path]
            storage = Storage(path, DType(dtype), info.size, stored=info.stored, view=reader(self.archive, path))
            machine = Machine(memoryview(b""), limits=self.artifact.limits, where=self.artifact.where)
            found[str(name)] = made_tensor(machine, storage, offset, dims, strides, None)
        return found

    def _pickled(self, member: str) -> dict[str, TensorRecord]:
        """A state_dict that is a torch file inside the archive; old programs keep it under a name that ends in .json as well."""
        inner = open_archive(self.archive.read(member), f"{self.artifact.where}, {member}", self.artifact.limits)
        root = next((name.removesuffix("data.pkl") for name in inner.names if name.endswith("data.pkl")), None) if inner else None
        if inner is None or root is None:
            return {}
        loaded = _torch_files.load_zip(inner, root, self.artifact.limits, f"{self.artifact.where}, {member}", depth=1)
        self.findings += [Finding(note.code, Severity(note.severity), note.where, note.message) for note in loaded.notes]
        self.opcodes += loaded.opcodes
        if self.opcodes > self.artifact.limits.pickle_opcodes:
            raise Unsafe(f"pickles of more than {self.artifact.limits.pickle_opcodes:,} operations together", where=self.artifact.where,
                         hint="raise Limits.pickle_opcodes if the file is trusted")
        flat = flatten(loaded.value, self.artifact.limits, self.artifact.where)
        return {name: record for name, record in flat.tensors.items() if isinstance(record, TensorRecord)}

    def _look_into_pickles(self) -> None:
        """Loaders open the sample inputs without restrictions: what they would call is told, nothing is loaded."""
        for member in [name for name in self.archive.names if "/sample_inputs/" in name or name.endswith("serialized_example_inputs.pt")]:
            if not self.archive.members[member].size:
                continue
            try:
                self._pickled(member)
            except IsomorphError as error:
                self._find("torch_export.sample-inputs", Severity.MEDIUM, member, f"the sample inputs cannot be read: {error.what[:160]}")
                return                     # more of them may cost as much each

    def _look_at_compiled_code(self) -> None:
        """Native libraries beside the program, which a loader would open and so run: named, and left alone."""
        compiled = [name for name in self.archive.names if name.endswith(_torch.COMPILED)]
        if compiled:
            self._find("torch_export.native-code", Severity.HIGH, compiled[0], f"{len(compiled)} files of native code stand beside the program: "
                       f"{', '.join(compiled[:4])}; they are neither loaded nor kept")


def fields(value: Any, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def reader(archive: Archive, path: str) -> Any:
    return lambda: archive.read(path)


def without_nulls(given: dict[str, Any]) -> dict[str, Any]:
    """The first releases wrote every member of a union, all but one of them null."""
    return {name: value for name, value in given.items() if value is not None}


def specified(graph: dict[str, Any], signature: dict[str, Any]) -> dict[str, Any]:
    """The signature of torch 2.1, which says by name which inputs are weights and which outputs buffers become, as specifications in order."""
    inputs, outputs = [], []
    for argument in listed(graph.get("inputs")):
        name = str(fields(argument, "as_tensor").get("name"))
        given: dict[str, Any] = {"user_input": {"arg": argument}}
        for kind in ("parameter", "buffer"):
            if name in fields(signature, f"inputs_to_{kind}s"):
                given = {kind: {"arg": {"name": name}, f"{kind}_name": signature[f"inputs_to_{kind}s"][name]}}
        inputs.append(given)
    for argument in listed(graph.get("outputs")):
        name = str(fields(argument, "as_tensor").get("name"))
        buffer = fields(signature, "buffers_to_mutate").get(name)
        outputs.append({"user_output": {"arg": argument}} if buffer is None else {"buffer_mutation": {"arg": {"name": name}, "buffer_name": buffer}})
    return {"input_specs": inputs, "output_specs": outputs}


def number_in(value: dict[str, Any], name: str) -> int:
    found = value.get(name)
    return found if isinstance(found, int) else 0


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def plain_int(value: Any) -> Any:
    return value.get("as_int") if isinstance(value, dict) else value


def real(value: Any) -> Any:
    """A float; infinities and what is no number stand as texts."""
    return {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}.get(value, UNKNOWN) if isinstance(value, str) else value


class Body:
    """A graph inside a node."""

    def __init__(self, graph: dict[str, Any]):
        self.graph = graph


class Graph:
    """One execution of the nodes in their order."""

    def __init__(self, program: Program, changed: frozenset[str] = frozenset()):
        self.program, self.changed = program, changed            # the buffers that the program writes to in place
        self.buffers: dict[str, Cell] = {}
        self.lowering = Lowering(program.name)
        self.machine = Interpreter(None, self.lowering)
        self.values: dict[str, Any] = {}
        self.outputs: list[tuple[str, Any]] = []

    def run(self) -> Graph:
        mutated = {fields(spec, "buffer_mutation").get("buffer_name") for spec in self.specs("output_specs") if "buffer_mutation" in spec} | self.changed
        for spec in self.specs("input_specs"):
            self.take(spec, mutated)
        nodes = self.program.graph.get("nodes", [])
        if not isinstance(nodes, list) or len(nodes) > MOST_NODES:
            raise Damaged("the graph has no list of nodes", where=self.program.artifact.where)
        try:
            for node in nodes:
                self.execute(node if isinstance(node, dict) else {})
        except (Stop, Raised, RecursionError) as reason:
            self.lowering.block("graph", str(reason) or "it cannot be followed further")
        except IsomorphError:
            raise
        except Exception as error:              # arguments that no schema of an operator allows
            self.lowering.block("graph", f"the program contradicts itself: {type(error).__name__}: {str(error)[:120]}")
        for spec in self.specs("output_specs"):
            self.give(spec)
        for name in sorted(self.changed):
            self.outputs.append((f"{name}/next", self.machine.plain(self.buffers[name])))
        return self

    def written(self) -> frozenset[str]:
        """The parameters and buffers that were changed in place."""
        return frozenset(name for name, cell in self.buffers.items() if id(cell) in self.machine.changed)

    def specs(self, name: str) -> list[dict[str, Any]]:
        found = self.program.signature.get(name, [])
        return [spec for spec in found if isinstance(spec, dict)] if isinstance(found, list) else []

    def take(self, spec: dict[str, Any], mutated: set[Any]) -> None:
        """A parameter, buffer or constant by its name in the module, or an input of the caller."""
        for kind, key in (("parameter", "parameter_name"), ("buffer", "buffer_name"), ("tensor_constant", "tensor_constant_name")):
            if kind in spec:
                name, place = str(fields(spec, kind).get(key)), str(fields(fields(spec, kind), "arg").get("name"))
                record = self.program.tensors.get(name)
                if record is None:
                    self.lowering.block(name, "its data is not in the file")
                elif name in mutated:
                    tensor = record.tensor(name)
                    self.values[place] = self.buffers[name] = Cell(self.lowering.input(name, ir.DataType(tensor.element_type), list(tensor.dims)))
                else:
                    self.values[place] = self.buffers[name] = Cell(self.lowering.weight(record.tensor(name), name))
                return
        argument = fields(fields(spec, "user_input"), "arg")
        if "as_tensor" in argument:
            name = str(fields(argument, "as_tensor").get("name"))
            meta = fields(fields(self.program.graph, "tensor_values"), name)
            meta = fields(meta, "meta") or meta                     # a level more in torch 2.1
            dtype = DType(TYPES.get(number_in(meta, "dtype"), "float32"))
            dims = [dimension(size, f"{name}_{axis}") for axis, size in enumerate(listed(meta.get("sizes")))]
            self.values[name] = Cell(self.lowering.input(name, ir.DataType(dtype.element_type), dims))
        elif spec.get("user_input") is None:
            self.lowering.block(next(iter(spec), "input"), "inputs of this kind have no graph")

    def give(self, spec: dict[str, Any]) -> None:
        if "user_output" in spec:
            value = self.argument(fields(fields(spec, "user_output"), "arg"))
            name = str(fields(fields(fields(spec, "user_output"), "arg"), "as_tensor").get("name", f"output_{len(self.outputs)}"))
        else:
            change = fields(spec, "buffer_mutation")
            value, name = self.values.get(str(fields(change, "arg").get("name")), UNKNOWN), f"{change.get('buffer_name')}/next"
            if not change:
                self.lowering.block(next(iter(spec), "output"), "outputs of this kind have no graph")
                return
        value = self.machine.plain(value)
        if isinstance(value, (bool, int, float)):
            value = self.machine.tensor(value)
        if isinstance(value, ir.Value):
            self.outputs.append((name, value))
        elif value is not None and not self.lowering.blockers:
            self.lowering.block("output", f"what {name} is cannot be told")

    def argument(self, given: Any) -> Any:
        """An argument of a node: a union that names its kind."""
        if not isinstance(given, dict) or len(given) != 1:
            return None
        ((kind, value),) = given.items()
        if kind in ("as_tensor", "as_sym_int", "as_sym_bool", "as_sym_float") and isinstance(value, dict):
            name = value.get("name", value.get("as_name"))
            return self.values.get(str(name), UNKNOWN) if name is not None else next(iter(value.values()), None)
        if kind == "as_tensors":
            return [self.argument({"as_tensor": item}) for item in listed(value)]
        if kind in ("as_sym_ints", "as_sym_bools", "as_sym_floats"):
            return [self.argument({"as_sym_int": item}) for item in listed(value)]
        if kind == "as_optional_tensors":
            return [self.argument(item) for item in listed(value)]
        if kind == "as_scalar_type":
            numbers = {place: SCALAR_TYPES.index(found) for place, name in TYPES.items() if (found := ir.DataType(DType(name).element_type)) in SCALAR_TYPES}
            return numbers.get(value, UNKNOWN) if isinstance(value, int) else UNKNOWN
        if kind == "as_graph":
            return Body(fields(value, "graph"))
        if kind in ("as_none", "as_memory_format", "as_layout", "as_device"):
            return None if kind != "as_device" else "cpu"
        if kind in ("as_float", "as_floats"):
            return [real(item) for item in value] if isinstance(value, list) else real(value)
        return value if kind in ("as_int", "as_ints", "as_bool", "as_bools", "as_string", "as_strings") else UNKNOWN

    def execute(self, node: dict[str, Any]) -> None:
        target = str(node.get("target", ""))
        given = [entry for entry in listed(node.get("inputs")) if isinstance(entry, dict)]
        args = [self.argument(entry.get("arg")) for entry in given if entry.get("kind", 1) != 2]
        keywords = {str(entry.get("name")): self.argument(entry.get("arg")) for entry in given if entry.get("kind", 1) == 2}
        self.lowering.scope = str(node.get("name") or "")
        result = self.call(target, args, {key: value for key, value in keywords.items() if key not in ("layout", "device", "pin_memory", "memory_format")})
        outputs = [entry for entry in listed(node.get("outputs")) if isinstance(entry, dict)]
        if len(outputs) > 1:
            for place, entry in enumerate(outputs):
                self.keep(entry, result[place] if isinstance(result, (list, tuple)) and place < len(result) else UNKNOWN)
        elif outputs:
            of_body = target.startswith("torch.ops.higher_order.") and "as_tensors" not in outputs[0] and isinstance(result, list) and len(result) == 1
            self.keep(outputs[0], result[0] if of_body else result)

    def call(self, target: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        if target.startswith("torch.ops.aten."):
            name = target.split(".")[3]
            if name in SILENT_TARGETS:
                return None
            return self.machine.call_function("torch." + {"sym_size": "size", "sym_numel": "numel"}.get(name, name), args, keywords)
        if target.startswith(("_operator.", "operator.", "math.", "torch.sym_")):
            name = target.rpartition(".")[2].removeprefix("sym_")
            return self.machine.call_function("torch." + OPERATORS.get(name, name), args, keywords)
        try:
            if target == "torch.ops.higher_order.cond" and len(args) == 4:
                return self.branch(*args)
            if target == "torch.ops.higher_order.while_loop" and len(args) == 4:
                return self.loop(*args)
        except Rejected as why:
            self.lowering.block(target, str(why))
            return UNKNOWN
        self.lowering.block(target, "an operator that is not of aten")
        return UNKNOWN

    def inside(self, body: Body, args: list[Any]) -> list[Any]:
        """The results of a body on these arguments; its nodes go where nodes go now. Raises `Rejected` where it is none or takes others."""
        if not isinstance(body, Body) or len(listed(body.graph.get("inputs"))) != len(args):
            raise Rejected("its body does not take what it is given")
        outer, self.values = self.values, {}
        try:
            for entry, value in zip(listed(body.graph.get("inputs")), args, strict=True):
                self.keep(entry if isinstance(entry, dict) else {}, value)
            for node in listed(body.graph.get("nodes")):
                self.execute(node if isinstance(node, dict) else {})
            return [self.machine.plain(self.argument(entry)) for entry in listed(body.graph.get("outputs"))]
        finally:
            self.values = outer

    def branch(self, condition: Any, then: Body, other: Body, operands: list[Any]) -> Any:
        """torch.cond. A condition that is known takes its branch."""
        truth = self.machine.truth(condition)
        if isinstance(truth, bool):
            return self.machine.cells(self.inside(then if truth else other, operands))
        if isinstance(truth, Unknown):
            return UNKNOWN
        sides = []
        outer = self.lowering.current
        for body in (then, other):
            nodes: list[ir.Node] = []
            self.lowering.current = nodes
            try:
                sides.append((nodes, self.inside(body, operands)))
            finally:
                self.lowering.current = outer
        if len(sides[0][1]) != len(sides[1][1]) or any(has_unknown(value) for _, values in sides for value in values):
            raise Rejected("its branches give different things")
        return self.machine.cells(self.machine.emit_if(truth, sides))

    def loop(self, test: Body, body: Body, carried: list[Any], more: list[Any]) -> Any:
        """torch.while_loop."""
        def step(place: Any, values: list[Any]) -> tuple[Any, list[Any], list[Any]]:
            results = self.inside(body, [*map(Cell, values), *more])
            if len(results) != len(values) or any(has_unknown(value) for value in results):
                raise Rejected("its body does not give what it takes")
            return self.asked(test, [*map(Cell, results), *more]), results, []
        start = [self.machine.tensor(self.machine.plain(value)) for value in carried]
        first = self.asked(test, [*map(Cell, start), *more])
        return self.machine.cells(emit_loop(self.lowering, None, first, start, step))

    def asked(self, test: Body, args: list[Any]) -> Any:
        (answer,) = self.inside(test, args)
        return answer

    def keep(self, entry: dict[str, Any], result: Any) -> None:
        ((kind, value),) = entry.items() if len(entry) == 1 else (("", None),)
        if kind == "as_tensors" and isinstance(value, list):
            for place, item in enumerate(value):
                self.keep({"as_tensor": item}, result[place] if isinstance(result, (list, tuple)) and place < len(result) else UNKNOWN)
        elif isinstance(value, dict):
            self.values[str(value.get("name", value.get("as_name")))] = result


def dimension(size: Any, fallback: str) -> Any:
    """A number, the symbol of an expression, or a name of our own for a longer expression."""
    if isinstance(size, dict) and isinstance(size.get("as_int"), int):
        return size["as_int"]
    text = fields(size, "as_expr").get("expr_str")
    symbol = SYMBOL.fullmatch(text) if isinstance(text, str) else None
    return (symbol[1] or symbol[2]) if symbol else fallback


def read(artifact: Artifact, archive: Archive, root: str) -> Model:
    """The model of an archive. Raises `Damaged`, `Unsafe`, and `Unsupported` for an archive without a program."""
    program = Program(artifact, archive, root)
    if not program.graph:
        raise Unsupported("the archive holds no exported program", where=artifact.where)
    graph = Graph(program).run()
    if written := graph.written():
        graph = Graph(program, written).run()
    lowering = graph.lowering
    for name, _ in graph.outputs:
        if name.endswith("/next") and name.removesuffix("/next") in program.tensors:
            program.findings.append(Finding("torch.state", Severity.LOW, name.removesuffix("/next"),
                                            "the program changes this buffer: it is an input and an output, and starts with the value in the file"))
    outputs = [] if lowering.blockers else graph.outputs
    made = lowering.finish(outputs)
    _torch_interface.restore(made, archive, root)
    made.opset_imports.update({"": HUB_OPSET})
    metadata: dict[str, Any] = {"operators": dict(lowering.operators)} | ({"blockers": list(lowering.blockers)} if lowering.blockers else {})
    return Model(ir.Model(made, ir_version=HUB_IR_VERSION), "torch", metadata=metadata, findings=[*program.findings, *lowering.findings])
