"""What the PyTorch formats share: where the pickle of an archive stands, and what kind of object a pickle holds."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.wire import pickle
from isomorph.wire.pickle_records import Call, Dict, Name, Persistent, Stream
from isomorph.wire.pickle_rules import INERT

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.wire.archive import Archive

REBUILDS = ("torch._utils", "torch._tensor", "torch.nn.parameter", "torch.storage", "torch")
ORDERED = Name("collections", "OrderedDict")
NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
COMPILED = (".so", ".o", ".cubin", ".cpp", ".dll", ".dylib", ".pyd")      # what AOTInductor puts into packages
LONGEST_PICKLE = 1 << 20                   # bytes of a packed pickle that are unpacked to look at
TRAINING = ("optimizer", "optimizer_state_dict", "optimizer_states", "epoch", "global_step", "lr_schedulers", "scheduler")


def zip_of(artifact: Artifact) -> Archive | None:
    """The archive of a file that begins like a zip."""
    return artifact.archive if not artifact.is_folder and artifact.head.startswith(b"PK\3\4") else None


def root_of(archive: Archive, member: str) -> str | None:
    """The folder inside an archive, with its slash, that holds `member`; PyTorch puts everything into one. None where no folder does."""
    found = [name for name in archive.names if name == member or name.endswith("/" + member)]
    return min(found, key=len).removesuffix(member) if found else None


def walk(archive: Archive, member: str) -> Stream:
    """The outline of a pickled member."""
    stored = archive.members[member].stored
    data = archive.read(member) if stored else memoryview(archive.head(member, LONGEST_PICKLE))
    return pickle.walk(data)


def describe(stream: Stream) -> tuple[str, dict[str, Any]]:
    """The kind of object (state_dict, checkpoint, module, tensor, ...) and what is known of it. A whole module names its class."""
    value = stream.value
    detail: dict[str, Any] = {"pickle_protocol": stream.protocol}
    if foreign := [str(name) for name in stream.names if is_foreign(name)]:
        detail["classes"] = sorted(foreign)[:64]
    if stream.stop < 0:
        detail["partly_read"] = True
    if isinstance(value, (Dict, Call)) and (isinstance(value, Dict) or value.callee == ORDERED or _constructs(value, ORDERED)):
        kind, more = _dictionary([pair for pair in value.items if isinstance(pair, tuple) and len(pair) == 2])
        return kind, detail | more
    if is_tensor(value):
        return "tensor", detail
    if isinstance(value, Call) and isinstance(name := class_of(value), Name):
        return "module", detail | {"class": str(name)}
    if isinstance(value, (list, tuple)) and value and all(is_tensor(item) for item in value):
        return "tensors", detail | {"tensors": len(value)}
    return "other objects", detail


def _constructs(call: Call, name: Name) -> bool:
    """Protocol 0 and 1 reach a class through copyreg._reconstructor(class, base, state)."""
    return isinstance(call.callee, Name) and call.callee.qualname == "_reconstructor" and isinstance(call.args, tuple) and call.args[:1] == (name,)


def class_of(call: Call) -> Any:
    """The class that a construction makes an object of, also where it goes through copyreg."""
    if isinstance(call.callee, Persistent):            # legacy files carry the source of a class: ("module", class, file, source)
        parts = call.callee.id
        return parts[1] if isinstance(parts, tuple) and len(parts) > 1 and parts[0] == "module" else call.callee
    first = call.args[0] if isinstance(call.args, tuple) and call.args else None
    if isinstance(call.callee, Name) and call.callee.qualname in ("_reconstructor", "__newobj__") and isinstance(first, Name):
        return first
    return call.callee


def is_tensor(value: Any) -> bool:
    """Whether PyTorch would make a tensor, parameter or storage of it."""
    if isinstance(value, Persistent):
        return True
    return isinstance(value, Call) and isinstance(value.callee, Name) and value.callee.module in REBUILDS


def is_foreign(name: Name) -> bool:
    """Whether a name is none of those that weights need: then a loader would import somebody's module."""
    return name.module not in (*REBUILDS, "collections", "_codecs", "__builtin__", "builtins", "copy_reg", "copyreg", "torch.serialization", "torch._C", *NUMPY)


def _dictionary(pairs: list[tuple[Any, Any]]) -> tuple[str, dict[str, Any]]:
    keys = [key for key, _ in pairs if isinstance(key, str)]
    if pairs and all(is_tensor(value) or isinstance(value, (int, float, str, type(None))) for _, value in pairs) and any(is_tensor(v) for _, v in pairs):
        return "state_dict", {"entries": len(pairs), "first_entries": keys[:4]}
    whole = next((value for _, value in pairs if isinstance(value, Call) and not is_tensor(value) and _is_module(value)), None)
    detail: dict[str, Any] = {"keys": keys[:32]}
    if "pytorch-lightning_version" in keys:
        return "lightning checkpoint", detail
    if whole is not None:
        return "checkpoint with a module", detail | {"class": str(class_of(whole))}
    if set(TRAINING) & set(keys):
        return "training checkpoint", detail
    return "state_dict" if not pairs else "checkpoint", detail


def _is_module(call: Call) -> bool:
    name = class_of(call)
    made = not call.args or name is not call.callee              # modules are made without arguments, members of an enumeration of their values
    return made and isinstance(name, Name) and is_foreign(name) and name not in INERT
