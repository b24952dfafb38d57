"""Whole modules in a pickle: their tree, with the names of the classes, what they were made with, and what of it is needed to run them."""
from __future__ import annotations

from typing import Any

from isomorph.formats._torch_values import DType, TensorRecord
from isomorph.report import Finding, Severity
from isomorph.wire.pickle import Call, Dict, Name

STANDARD = "torch.nn.modules."
CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
MOST_SHOWN = 2_000


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


def tensor_of(module: Call, name: str) -> TensorRecord | None:
    """A parameter or buffer of a module, None where it has none of that name."""
    value = (part(module, "_parameters") | part(module, "_buffers")).get(name)
    return value if isinstance(value, TensorRecord) else None


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
    hint = "export the model where its code is: torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
    return [Finding("torch.no-forward", Severity.LOW, where, sentence, hint)]
