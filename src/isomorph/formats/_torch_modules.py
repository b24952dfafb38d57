"""Whole modules in a pickle: their tree, with the names of the classes, what they were made with, and what of it is needed to run them."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsafe, Unsupported
from isomorph.formats._torch_values import DType, TensorRecord, is_module
from isomorph.report import Finding, Severity
from isomorph.wire import json_head
from isomorph.wire.pickle_records import Call, Dict, Name

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.dialects.torch.modules import Module
    from isomorph.model import Model

STANDARD = "torch.nn.modules."
WAYS_OUT = ("add --module package.module:factory to run your own code with these weights, or export the model where its code is, with torch.export.save or "
            "torch.jit.trace")
MOST_SHOWN = 2_000
DEEPEST, MOST_MODULES = 200, 100_000


def class_of(module: Call) -> str:
    """The dotted name of a module's class."""
    return str(module.callee)


def hyperparameters(module: Call) -> dict[str, Any]:
    """The plain attributes of a module, such as `in_features`; private ones and those that every module has are left out."""
    found = {}
    for key, value in module.state.items:
        if isinstance(key, str) and not key.startswith("_") and key != "training" and (plain := plain_of(value)) is not NotImplemented:
            found[key] = plain
    return found


def plain_of(value: Any) -> Any:
    """A value as JSON has it, NotImplemented where it is none."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, DType):
        return "torch." + value.name
    if isinstance(value, (list, tuple)) and len(value) < 100:
        items = [plain_of(item) for item in value]
        return NotImplemented if any(item is NotImplemented for item in items) else items
    return NotImplemented


def part(module: Call, name: str) -> dict[str, Any]:
    """The `_modules`, `_parameters` or `_buffers` of a module by name."""
    found = module.state.get(name) if isinstance(module.state, Dict) else None
    return {key: value for key, value in found.items if isinstance(key, str)} if isinstance(found, Dict) else {}


def tree(root: Call) -> Module:
    """A module and those inside it, as the mapping takes them. Raises `Unsafe` where they are inside one another without end."""
    from isomorph.dialects.torch.modules import HOOKS, Module
    made = 0

    def of(module: Call, depth: int) -> Module:
        nonlocal made
        made += 1
        if depth > DEEPEST or made > MOST_MODULES:
            raise Unsafe("modules inside modules without end")
        settings = {key: str(value) if isinstance(value, Name) else plain_of(value) for key, value in module.state.items if isinstance(key, str)}
        tensors = part(module, "_parameters") | part(module, "_buffers")
        hooks = [str(getattr(hook, "callee", hook)) for name in HOOKS if isinstance(held := module.state.get(name), Dict) for _, hook in held.items]
        return Module(class_of(module), {key: value for key, value in settings.items() if value is not NotImplemented},
                      {key: value for key, value in tensors.items() if isinstance(value, (TensorRecord, type(None)))},
                      {key: of(value, depth + 1) for key, value in part(module, "_modules").items() if is_module(value)}, hooks)
    return of(root, 0)


def is_standard(module: Call) -> bool:
    return isinstance(module.callee, Name) and module.callee.module.startswith(STANDARD)


def describe(modules: dict[str, Call]) -> dict[str, Any]:
    """Metadata `class` and `modules`: path -> class, followed by its hyperparameters as its constructor takes them."""
    shown = {}
    for path, module in list(modules.items())[:MOST_SHOWN]:
        made_with = ", ".join(f"{key}={value!r}" for key, value in hyperparameters(module).items())
        shown[path or "(root)"] = f"{class_of(module)}({made_with})"
    return {"class": class_of(next(iter(modules.values()))), "modules": shown}


def findings(modules: dict[str, Call], where: str) -> list[Finding]:
    """The classes whose `forward` is in nobody's file: the tree does not say what they compute."""
    foreign = list(dict.fromkeys(class_of(module) for module in modules.values() if not is_standard(module)))
    if not foreign:
        return []
    shown = ", ".join(foreign[:4]) + (" and others" if len(foreign) > 4 else "")
    sentence = f"the file names {shown} and holds no code: what `forward` of {foreign[0]} computes is not in the file, so that it is read as weights"
    return [Finding("torch.no-forward", Severity.LOW, where, sentence, WAYS_OUT)]


# ---- graphs

def network(artifact: Artifact, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model | None:
    """The graph of a file that holds a module whose tree says what it computes, in ONNX; None where there is no module.

    Raises `Unsupported` with every module whose `forward` is not in the file.
    """
    from isomorph.formats import _torch_files
    if artifact.is_folder or json_head.begins_json(artifact.head):
        return None
    module = _root(_torch_files.load(artifact).value)
    if module is None:
        return None
    from isomorph.dialects.torch import modules
    root = tree(module)
    given = next(iter((input_shapes or {}).values()), None)
    best: Any = None
    for dtype, shape in _tried(modules.likely_inputs(root), given):
        lowering = modules.build(root, lambda record, path: record.tensor(path), dtype, shape)
        if best is None or len(lowering.operators) > len(best[0].operators):
            best = lowering, dtype, shape
        if not lowering.blockers:
            break
    lowering, dtype, shape = best
    if lowering.blockers:
        kinds = ", ".join(dict.fromkeys(kind for kind, _, _ in lowering.blockers))
        raise Unsupported(f"the tree of the module {class_of(module)} does not say what {kinds} computes", where=artifact.where,
                          blockers=lowering.blockers, hint=WAYS_OUT)
    if given is None:
        message = f"the file does not say what it is: {dtype.lower()} of {len(shape)} axes follows from the first layers"
        lowering.findings.append(Finding("torch.guessed-rank", Severity.MEDIUM, "input", message, "say it with --input input=1x3x224x224"))
    return _model(lowering, class_of(module))


def _root(value: Any) -> Call | None:
    """The module that a file holds: the value itself, or the only one under a key of a checkpoint."""
    if is_module(value):
        return value
    held = [item for _, item in value.items if is_module(item)] if isinstance(value, Dict) else []
    return held[0] if len(held) == 1 else None


def _tried(likely: list[tuple[str, list[Any]]], given: Sequence[int] | None) -> list[tuple[str, list[Any]]]:
    """Types and shapes to try: those that the caller fixes, -1 being an open size, else what the layers say."""
    if given is None:
        return likely
    dims = [dim if dim >= 0 else "batch" if axis == 0 else f"input_{axis}" for axis, dim in enumerate(given)]
    return [(dtype, dims) for dtype in dict.fromkeys(dtype for dtype, _ in likely)]


def _model(lowering: Any, kind: str) -> Model:
    import onnx_ir as ir

    from isomorph.model import HUB_IR_VERSION, HUB_OPSET, Model
    lowering.graph.opset_imports.update({"": HUB_OPSET})
    return Model(ir.Model(lowering.graph, ir_version=HUB_IR_VERSION), "onnx", metadata={"class": kind}, findings=list(lowering.findings))
