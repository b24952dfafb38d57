"""The user's own code with the weights of a file: makes a module by a factory, loads the weights, and exports the program. Runs inside the child only.

What goes right and wrong is written to `facts`, a JSON file, because a refusal here has a code and a hint of its own.
"""
from __future__ import annotations

import importlib
import inspect
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH, SIDE, LENGTH = 2, 64, 16                # of examples, where nobody says a size
MOST_KINDS = 4                                 # inputs whose types are tried in all ways
FORWARD = "say the shapes of its inputs with --input 1x3x224x224, in their order, or let the factory return (module, inputs)"
# The likely input of a module whose first layer is of this class: attribute with the width, sizes behind the batch, whether it is whole numbers
FIRST = {"Conv1d": ("in_channels", [-1, LENGTH], False), "Conv2d": ("in_channels", [-1, SIDE, SIDE], False),
         "Conv3d": ("in_channels", [-1, LENGTH, SIDE, SIDE], False), "Linear": ("in_features", [-1], False), "Embedding": ("", [LENGTH], True),
         "LSTM": ("input_size", [LENGTH, -1], False), "GRU": ("input_size", [LENGTH, -1], False), "RNN": ("input_size", [LENGTH, -1], False)}


class Refused(Exception):
    """`code` is that of the error that the parent raises."""

    def __init__(self, code: str, what: str, hint: str = ""):
        super().__init__(what)
        self.facts = {"code": code, "what": what, "hint": hint}


def prepare() -> None:
    """Nothing: that PyTorch is absent is told by `load`."""


def version() -> str:
    """Of the installed package, empty without one."""
    torch = sys.modules.get("torch")
    return str(getattr(torch, "__version__", ""))


class Made:
    """What the worker asks for: no inputs and outputs, because the program is read from its file."""

    inputs: list[Any] = []
    outputs: list[Any] = []


def load(path: str, *, threads: int, factory: str, shapes: dict[str, list[int]], program: str, facts: str, folders: list[str]) -> Made:
    """`path` holds a state dict that `torch.load(weights_only=True)` takes, `program` is the .pt2 to write."""
    sys.path[:0] = folders
    try:
        told = export(Path(path), factory, shapes, program)
    except Refused as refusal:
        told = {"error": refusal.facts}
    Path(facts).write_text(json.dumps(told))
    return Made()


def export(weights: Path, factory: str, shapes: dict[str, list[int]], program: str) -> dict[str, Any]:
    """What was done, in words. Raises `Refused`."""
    try:
        import torch
    except ImportError as error:
        raise Refused("missing", f"PyTorch cannot be imported by {sys.executable}: {error}",
                      "run `pip install 'isomorph[torch]'`, or name a Python that has it in ISOMORPH_PYTHON_TORCH") from None
    module, given = module_of(factory, torch)
    told = {"class": f"{type(module).__module__}.{type(module).__qualname__}"} | fitted(module, torch.load(weights, weights_only=True), torch)
    module.eval()
    args, keywords, open_axes, guessed = examples(module, given, shapes, torch)
    dims = [{axis: torch.export.Dim.AUTO for axis in axes} or None for axes in open_axes]
    names = list(keywords)
    dynamic: Any = (*dims[:len(args)], *dims[len(args):]) if not names else dict(zip([*parameters(module)[:len(args)], *names], dims, strict=True))
    try:
        with torch.no_grad():
            exported = torch.export.export(module, tuple(args), keywords or None, dynamic_shapes=dynamic)
        torch.export.save(exported, program)
    except Exception as error:                  # whatever the user's code or PyTorch's tracing raises
        raise Refused("unsupported", f"torch.export does not take the module: {first_lines(error)}",
                      "trace it where its code is: torch.jit.trace(model, inputs).save('model.jit')") from None
    described = [f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" for value in (*args, *keywords.values())]
    return told | {"inputs": described, "guessed": guessed}


def module_of(factory: str, torch: Any) -> tuple[Any, Any]:
    """(module, example inputs or None) of `package.module:factory`, which is a class or function without arguments, or a module itself."""
    place, colon, name = factory.partition(":")
    if not colon or not place or not name:
        raise Refused("usage", f"{factory!r} names no factory", "write package.module:factory")
    try:
        found = importlib.import_module(place)
    except ModuleNotFoundError as error:
        near = "the working folder and PYTHONPATH are looked through" if place.startswith(error.name or "\0") else "the module imports it"
        raise Refused("missing", f"there is no module {error.name}: {near}", f"run it in the folder of {place.partition('.')[0]}") from None
    except Exception as error:
        raise Refused("unsupported", f"importing {place} fails: {first_lines(error)}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise Refused("missing", f"{place} has no {name}", "it has " + ", ".join(sorted(key for key in vars(found) if not key.startswith("_"))[:20])
                          if inspect.ismodule(found) else "")
        found = getattr(found, part)
    if not isinstance(found, torch.nn.Module):
        try:
            found = found()                     # type: ignore[operator]
        except Exception as error:
            raise Refused("unsupported", f"calling {factory} without arguments fails: {first_lines(error)}", "name a function that takes none") from None
    module, given = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(module, torch.nn.Module):
        raise Refused("unsupported", f"{factory} gives a {type(module).__name__} and no torch.nn.Module")
    return module, given


def fitted(module: Any, weights: dict[str, Any], torch: Any) -> dict[str, Any]:
    """Loads the weights under the prefix that fits best, such as `model.` of a training checkpoint. Raises `Refused` with every name that does not fit."""
    wanted = module.state_dict()
    prefix = min(prefixes(wanted, weights), key=lambda text: (len([key for key in wanted if text + key not in weights]), len(text)))
    mine = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    missing = [key for key in wanted if key not in mine]
    places = {wanted[key].data_ptr() for key in wanted if key in mine and isinstance(wanted[key], torch.Tensor)}
    missing = [key for key in missing if not (isinstance(wanted[key], torch.Tensor) and wanted[key].data_ptr() in places)]       # tied: its other name is there
    unexpected = [key for key in mine if key not in wanted]
    shapes = [f"{key} is {list(mine[key].shape)} in the file and {list(wanted[key].shape)} in the module" for key in mine
              if key in wanted and mine[key].shape != wanted[key].shape]
    told = [f"{len(names)} {what}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" for what, names in (
        ("are missing in the file", missing), ("are in the file and not in the module", unexpected), ("have another shape", shapes)) if names]
    if told:
        raise Refused("unsupported", f"the weights do not fit {type(module).__name__}; " + "; ".join(told), "does the factory make the model with these sizes?")
    module.load_state_dict(mine, strict=False)
    return {"prefix": prefix, "left_out": len(weights) - len(mine)}


def prefixes(wanted: dict[str, Any], weights: dict[str, Any]) -> set[str]:
    """What may stand before the names of the module in the file."""
    return {"", *(name[:-len(key)] for key in itertools.islice(wanted, 4) for name in weights if name.endswith("." + key))}


# ---- inputs

def parameters(module: Any) -> list[str]:
    return [name for name, parameter in inspect.signature(module.forward).parameters.items()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)]


def examples(module: Any, given: Any, shapes: dict[str, list[int]], torch: Any) -> tuple[list[Any], dict[str, Any], list[list[int]], bool]:
    """Inputs that `forward` takes: those of the caller, of the factory, of the module's own example, or what its first layer says. With open axes."""
    if shapes:
        args, keywords, axes = stated(module, shapes, torch)
        return args, keywords, axes, False
    own = given if given is not None else getattr(module, "example_input_array", None)
    own = own if own is not None else getattr(module, "dummy_inputs", None)
    if isinstance(own, dict):
        ready: tuple[list[Any], dict[str, Any]] = ([], own)
    elif own is not None:
        ready = (list(own) if isinstance(own, (tuple, list)) else [own], {})
    else:
        args, keywords, axes = first_layer(module, torch)
        return args, keywords, axes, True
    if complaint := complaint_of(module, *ready, torch):
        raise Refused("unsupported", f"forward does not take the example inputs: {complaint}", FORWARD)
    return *ready, [[] for _ in (*ready[0], *ready[1])], False


def stated(module: Any, shapes: dict[str, list[int]], torch: Any) -> tuple[list[Any], dict[str, Any], list[list[int]]]:
    """Types are tried: floats first, then whole numbers."""
    known = parameters(module)
    names = {known[int(name)] if name not in known and name.isdecimal() and int(name) < len(known) else name: shape for name, shape in shapes.items()}
    strange = [name for name in names if name not in known]
    if strange:
        raise Refused("usage", f"forward has no parameter {strange[0]!r}", "it has " + ", ".join(known))
    sizes = [[(BATCH if axis == 0 else SIDE) if size < 0 else size for axis, size in enumerate(shape)] for shape in names.values()]
    ordered, complaint = list(names) == known[:len(names)], ""
    for kinds in itertools.islice(itertools.product((False, True), repeat=len(names)), 1 << MOST_KINDS):
        values = [example(shape, whole, torch) for shape, whole in zip(sizes, kinds, strict=True)]
        args, keywords = (values, {}) if ordered else ([], dict(zip(names, values, strict=True)))
        said = complaint_of(module, args, keywords, torch)
        if not said:
            return args, keywords, [[axis for axis, size in enumerate(shape) if size < 0] for shape in names.values()]
        complaint = complaint or said
    raise Refused("unsupported", f"forward fails on {', '.join('x'.join(map(str, shape)) for shape in sizes)}: {complaint}", FORWARD)


def first_layer(module: Any, torch: Any) -> tuple[list[Any], dict[str, Any], list[list[int]]]:
    for layer in module.modules():
        if type(layer).__name__ not in FIRST:
            continue
        width, sizes, whole = FIRST[type(layer).__name__]
        shape = [BATCH, *(getattr(layer, width) if size < 0 else size for size in sizes)]
        args = [example(shape, whole, torch)]
        if len([name for name in parameters(module) if inspect.signature(module.forward).parameters[name].default is inspect.Parameter.empty]) == 1 \
                and not complaint_of(module, args, {}, torch):
            return args, {}, [[0]]
        break
    raise Refused("usage", f"nothing says what goes into {type(module).__name__}", FORWARD)


def example(shape: list[int], whole: bool, torch: Any) -> Any:
    return torch.randint(0, 2, shape) if whole else torch.randn(shape)


def complaint_of(module: Any, args: list[Any], keywords: dict[str, Any], torch: Any) -> str:
    """Empty where `forward` takes them, else what it says."""
    try:
        with torch.no_grad():
            module(*args, **keywords)
    except Exception as error:
        return first_lines(error)
    return ""


def first_lines(error: BaseException) -> str:
    lines: Iterator[str] = (line.strip() for line in str(error).splitlines())
    return f"{type(error).__name__}: {' '.join(itertools.islice((line for line in lines if line), 3))[:400]}"


def folders() -> list[str]:
    """Where the user's code is looked for: the working folder, then PYTHONPATH. For the parent."""
    return [os.getcwd(), *(entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry)]
