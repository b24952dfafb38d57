"""TorchScript: a zip of printed code, pickled attributes, constants and raw storages.

Reading executes `forward` symbolically (`dialects.torch.interpreter`). The code names no ranks: they come from the inputs that a trace keeps, from the caller,
or are tried until the program takes them.
"""
from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isomorph.errors import IsomorphError, Unsupported
from isomorph.formats import Capabilities, Format, Match, _torch, _torch_interface
from isomorph.formats._torch_values import TensorRecord
from isomorph.model import by_name
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity
from isomorph.wire.pickle_records import Call

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.dialects.torch.interpreter import Interpreter
    from isomorph.formats._torchscript import Program
    from isomorph.model import Model

RANKS = (4, 2, 3, 5, 1)                    # of float inputs that nothing is known of, the likeliest first


def identify(artifact: Artifact) -> Match | None:
    """Recognises data.pkl beside constants.pkl or code: the class of the root module, its version, whether it is for the mobile interpreter."""
    archive = _torch.zip_of(artifact)
    root = _torch.root_of(archive, "data.pkl") if archive else None
    if archive is None or root is None or root + "constants.pkl" not in archive.members:
        return None
    code = [name for name in archive.names if name.startswith(root + "code/") and name.endswith(".py")]
    version = archive.head(root + "version", 8).decode("latin1").strip() if root + "version" in archive.members else ""
    value = _torch.walk(archive, root + "data.pkl").value
    detail: dict[str, Any] = {"class": str(value.callee) if isinstance(value, Call) else "", "code_files": len(code)}
    mobile = root + "bytecode.pkl" in archive.members
    return Match("torchscript", version, "mobile" if mobile else "", "graph", detail)


# Reading

def read(artifact: Artifact, *, progress: Progress = SILENT, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """The graph of `forward`. Tensors that the module assigns to itself become inputs and outputs, with their first value left to the caller.

    `input_shapes` gives ranks and sizes of inputs by name. Where a call cannot be mapped, the model stays in the dialect "torch" and `to_hub` names every one.
    """
    from isomorph.formats._torchscript import Program
    program = Program(artifact)
    best: Attempt | None = None
    input_shapes = by_name(input_shapes or {}, [name for name, _, _ in _parameters(program)])
    for inputs in _candidates(program, input_shapes):
        attempt = Attempt(program, inputs)
        if best is None or attempt.reach > best.reach:
            best = attempt
        if not attempt.blockers:
            break
    assert best is not None
    model = best.model(artifact)
    model.findings += _guesses(program, best, input_shapes)
    return model


def _guesses(program: Program, attempt: Attempt, given: Mapping[str, Sequence[int]]) -> list[Finding]:
    """The inputs whose rank and type nobody stated: what was tried until the program took it."""
    if _torch_interface.read(program.archive, program.root)[0] or attempt.blockers:
        return []
    examples = program.traced_inputs()
    guessed = [name for place, (name, kind, default) in enumerate(_parameters(program))
               if kind == "Tensor" and not default and name not in given and not isinstance(examples[place] if place < len(examples) else None, TensorRecord)]
    return [Finding("torch.guessed-rank", Severity.MEDIUM, name, f"the file does not say what it is: {attempt.inputs[name][0].lower()} of "
                    f"{len(attempt.inputs[name][1])} axes was the first that the program takes", f"say it with --input {name}=1x3x224x224")
            for name in guessed if name in attempt.inputs]


def _parameters(program: Program) -> list[tuple[str, str, bool]]:
    """(name, type, whether it has a default) of the parameters of `forward` besides self."""
    function = program.method(program.main.kind, "forward")
    if function is None:
        raise Unsupported("the module has no `forward`", where=program.artifact.where, hint="its other methods cannot be converted")
    arguments = function.args.args[1:]
    first = len(arguments) - len(function.args.defaults)
    return [(argument.arg, ast.unparse(argument.annotation) if argument.annotation else "Tensor", place >= first) for place, argument in enumerate(arguments)]


def _candidates(program: Program, given: Mapping[str, Sequence[int]]) -> Iterator[dict[str, tuple[str, list[Any]]]]:
    """Types and shapes to try: what the caller says, what the trace kept, then guesses. The first axis is `batch` where nobody fixes it."""
    parameters = _parameters(program)
    traced = program.traced_inputs()
    stated, _ = _torch_interface.read(program.archive, program.root)
    if len(stated) == len(parameters) and all(shape is not None for _, _, shape in stated) and not given:
        yield {name: (dtype, [dim if dim is not None else f"{name}_{axis}" for axis, dim in enumerate(shape or [])])
               for (name, _, _), (_, dtype, shape) in zip(parameters, stated, strict=True)}
        return
    known: dict[str, tuple[str, list[Any]]] = {}
    closed: dict[str, tuple[str, list[Any]]] = {}          # only the batch is open
    fixed: dict[str, tuple[str, list[Any]]] = {}
    for place, (name, kind, _) in enumerate(parameters):
        example = traced[place] if place < len(traced) else None
        if kind in ("int", "float", "bool"):
            known[name] = closed[name] = fixed[name] = ({"int": "INT64", "float": "FLOAT", "bool": "BOOL"}[kind], [])
        elif name in given:
            dtype = _type_of(example) if isinstance(example, TensorRecord) else ""
            shape = ["batch" if size < 0 and not axis else f"{name}_{axis}" if size < 0 else size for axis, size in enumerate(given[name])]
            known[name] = closed[name] = fixed[name] = (dtype, shape)
        elif isinstance(example, TensorRecord):
            dtype, sizes = _type_of(example), list(example.dims)
            first: list[Any] = ["batch"] if len(sizes) > 1 else []
            second = ["sequence"] if dtype == "INT64" and len(sizes) == 2 else [f"{name}_1"] if len(sizes) == 3 else []
            known[name] = (dtype, [*first, *second, *sizes[len(first) + len(second):]])
            closed[name] = (dtype, [*first, *sizes[len(first):]])
            fixed[name] = (dtype, sizes)
    unknown = [name for name, kind, has_default in parameters if name not in known and kind == "Tensor" and not has_default]
    untyped = [name for name, (dtype, _) in known.items() if not dtype]
    for dtype in ("FLOAT", "INT64") if unknown or untyped else ("",):
        typed = known | {name: (dtype, known[name][1]) for name in untyped}
        for rank in (RANKS if dtype == "FLOAT" else (2, 1)) if unknown else ():
            yield typed | {name: (dtype, ["batch", *(f"{name}_{axis}" for axis in range(1, rank))]) for name in unknown}
        if not unknown:
            yield typed
    if not unknown and not untyped:
        yield from (more for more in (closed, fixed) if more != known)


def _type_of(record: Any) -> str:
    from isomorph.tensors import NAME
    return NAME[record.dtype.element_type]


class Attempt:
    """`forward` executed with these inputs. Where the module assigns tensors to itself, it is executed again with those as inputs."""

    def __init__(self, program: Program, inputs: dict[str, tuple[str, list[Any]]]):
        self.program, self.inputs = program, inputs
        first = self._execute({})
        states = self._states(first) if not self.lowering.blockers else {}
        if states:
            self._execute(states)
        self.blockers = self.lowering.blockers
        self.reach = (not self.blockers, sum(self.lowering.operators.values()))

    def _execute(self, states: dict[str, tuple[Any, str, Any]]) -> Interpreter:
        import onnx_ir as ir

        from isomorph.dialects.torch.interpreter import Interpreter
        from isomorph.dialects.torch.lowering import Lowering
        from isomorph.dialects.torch.program_values import Cell, Raised, Stop, Unchanged, Unknown
        self.lowering = Lowering(self.program.main.kind.rpartition(".")[2])
        machine = Interpreter(self.program, self.lowering)
        arguments: dict[str, Any] = {}
        for name, kind, has_default in _parameters(self.program):
            if name in self.inputs:
                dtype, shape = self.inputs[name]
                value = self.lowering.input(name, ir.DataType[dtype], shape)
                if kind in ("int", "float", "bool"):
                    value.meta["scalar"] = True
                arguments[name] = value if kind in ("int", "float", "bool") else Cell(value)
            elif not has_default:
                self.lowering.block("forward", f"its parameter {name} is of type {kind}, which no graph has")
        for path, (owner, name, shape) in states.items():
            machine.attributes[id(owner), name] = Unchanged() if shape is None else Cell(self.lowering.input(path, *shape))
        self.outputs: list[tuple[str, Any]] = []
        try:
            if not self.lowering.blockers:
                result = machine.call_method(self.program.main, "forward", [], arguments)
                self._collect(machine, result, "output")
                for path, (owner, name, shape) in states.items():
                    if shape is not None:
                        self.outputs.append((f"{path}/next", machine.plain(machine.attributes[id(owner), name])))
        except Stop:
            pass
        except Raised as raised:
            self.lowering.block("forward", f"the program raises an error: {str(raised)[:160]}")
        except RecursionError:
            self.lowering.block("forward", "the code is nested too deep")
        except IsomorphError:
            raise
        except Exception as error:              # code that no compiler of TorchScript let through: a number where a list stands, and such
            self.lowering.block("forward", f"the program contradicts itself: {type(error).__name__}: {str(error)[:120]}")
        if any(isinstance(value, Unknown) for _, value in self.outputs) and not self.lowering.blockers:
            self.lowering.block("forward", "its result is not known after a branch whose sides differ")
        return machine

    def _collect(self, machine: Interpreter, result: Any, name: str) -> None:
        """Results of results, flat, as graphs have them."""
        value = machine.plain(result) if not isinstance(result, (list, tuple, dict)) else result
        if isinstance(value, (list, tuple)):
            for place, item in enumerate(value):
                self._collect(machine, item, f"{name}_{place}")
        elif isinstance(value, dict):
            for key, item in value.items():
                self._collect(machine, item, str(key))
        elif isinstance(value, (bool, int, float)):
            self.outputs.append((name, machine.tensor(value)))
        elif value is not None:
            self.outputs.append((name, value))

    def _states(self, machine: Interpreter) -> dict[str, tuple[Any, str, Any]]:
        """What `forward` assigns to objects of the file: path -> (object, attribute, (type, shape) of a tensor, None for a number)."""
        from isomorph.dialects.torch.program_values import Cell
        found: dict[str, tuple[Any, str, Any]] = {}
        for (_, name), owner in machine.assigned.items():
            if name not in owner.fields:
                continue
            value = machine.attributes.get((id(owner), name))
            path = f"{owner.path}.{name}" if owner.path else name
            if isinstance(value, Cell):
                tensor = machine.value(value)
                shape = None if tensor.shape is None else [dim if isinstance(dim, int) else dim.value for dim in tensor.shape]
                found[path] = (owner, name, (tensor.dtype, [dim if dim is not None else f"{path}_{axis}" for axis, dim in enumerate(shape or [])]))
            elif not isinstance(value, (str, type(None))):
                found[path] = (owner, name, None)
        self.state_names = [path for path, (_, _, shape) in found.items() if shape is not None]
        self.number_names = [path for path, (_, _, shape) in found.items() if shape is None]
        return found

    def model(self, artifact: Artifact) -> Model:
        import onnx_ir as ir

        from isomorph.model import HUB_IR_VERSION, HUB_OPSET, Model
        lowering = self.lowering
        findings = [Finding(note.code, Severity(note.severity), note.where, note.message) for note in self.program.notes]
        if not self.blockers:
            findings += lowering.findings
            for path in getattr(self, "state_names", ()):
                findings.append(Finding("torch.state", Severity.LOW, path, "the module keeps this tensor between calls: it is an input and the output "
                                        f"{path}/next, and starts at zeros"))
            if numbers := getattr(self, "number_names", ()):
                findings.append(Finding("torch.state-number", Severity.LOW, ", ".join(numbers),
                                        "numbers that the module keeps between calls are taken to stay the same"))
        graph = lowering.finish([(name, value) for name, value in self.outputs if isinstance(value, ir.Value)] if not self.blockers else [])
        graph.opset_imports.update({"": HUB_OPSET})
        _torch_interface.restore(graph, self.program.archive, self.program.root)
        metadata: dict[str, Any] = {"class": self.program.main.kind, "operators": dict(lowering.operators)}
        if self.blockers:
            metadata["blockers"] = list(self.blockers)
        return Model(ir.Model(graph, ir_version=HUB_IR_VERSION), "torch", metadata=metadata, findings=findings)


def write(model: Model, path: str | os.PathLike[str], *, force: bool = False, progress: Progress = SILENT) -> Report:
    """A file that `torch.jit.load` takes, from a graph of aten calls. Raises `Usage` where the output exists."""
    from isomorph.formats import _torchscript_writer
    return _torchscript_writer.write(model, path, force=force, progress=progress)


FORMAT = Format(
    name="torchscript", title="TorchScript", extensions=(".jit", ".ts", ".ptl", ".pt"), holds="graph",
    spec="https://github.com/pytorch/pytorch/blob/main/torch/csrc/jit/docs/serialization.md", identify=identify, read=read, write=write, dialect="torch",
    can=Capabilities(dynamic_shapes=True, control_flow=True),
)
