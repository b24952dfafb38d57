"""PyTorch .pt and .pth: a state_dict or a pickled object, in a zip (since 1.6), as bare pickles, or in a tar (before 0.1.10)."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match, _torch
from isomorph.wire import json_head, pickle

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.wire.archive import Archive

MAGIC = b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."          # behind the two bytes of PROTO, torch/serialization.py
PACKAGE_HINT = "it is a torch.package with code inside: load it where you trust it, and save its weights as .safetensors"
TAR_MEMBERS = {"storages", "tensors", "pickle"}


def identify(artifact: Artifact) -> Match | None:
    """Recognises the three containers by their members or magic number, and reads the pickle's outline: state_dict, checkpoint, or which class."""
    if artifact.is_folder:
        return None
    if json_head.begins_json(artifact.head):
        return _identify_index(artifact)
    if artifact.head[2:15] == MAGIC:
        return _identify_legacy(artifact)
    if archive := _torch.zip_of(artifact):
        return _identify_zip(archive)
    archive = artifact.archive if artifact.head[257:262] == b"ustar" or artifact.head[:9] in (b"storages\0", b"tensors\0\0", b"pickle\0\0\0") else None
    if archive and archive.kind == "tar" and {name.removeprefix("./") for name in archive.names} >= TAR_MEMBERS:
        return _match("tar", _torch.describe(_torch.walk(archive, next(name for name in archive.names if name.removeprefix("./") == "pickle"))), {})
    return None


def _identify_index(artifact: Artifact) -> Match | None:
    """The list of which tensor is in which shard, as Hugging Face writes it."""
    document = json_head.read(artifact.view).value
    shards = document.get("weight_map") if isinstance(document, dict) else None
    files = sorted({name for name in shards.values() if isinstance(name, str)}) if isinstance(shards, dict) else []
    if not files or not all(name.endswith((".bin", ".pt", ".pth")) for name in files):
        return None
    return Match("torch", "", "indexed", "weights", {"shards": len(files), "companions": files})


def _identify_zip(archive: Archive) -> Match | None:
    package = _torch.root_of(archive, ".data/extern_modules")
    if package is not None:
        modules = archive.head(package + ".data/extern_modules", 4096).decode("utf-8", "replace").split()
        return Match("torch", "", "package", "weights", {"container": "zip", "extern_modules": modules}, PACKAGE_HINT)
    root = _torch.root_of(archive, "data.pkl")
    if root is None or root + "constants.pkl" in archive.members:          # with constants it is TorchScript
        return None
    storages = sum(name.startswith(root + "data/") for name in archive.names)
    more: dict[str, Any] = {"storages": storages}
    if root + "byteorder" in archive.members:
        more["byte_order"] = archive.head(root + "byteorder", 8).decode("latin1").strip()
    return _match("zip", _torch.describe(_torch.walk(archive, root + "data.pkl")), more)


def _identify_legacy(artifact: Artifact) -> Match:
    """Magic number, protocol, system information, then the object: each a pickle of its own."""
    at = 0
    for _ in range(4):
        stream = pickle.walk(artifact.view, at)
        if stream.stop < 0:
            break
        at = stream.stop
    else:
        return _match("legacy", _torch.describe(stream), {})
    described = _torch.describe(stream)
    return _match("legacy", described, {"truncated": True} if stream.problem else {})


def _match(container: str, described: tuple[str, dict[str, Any]], more: dict[str, Any]) -> Match:
    kind, detail = described
    return Match("torch", "", f"{kind}, {container}", "weights", {"container": container} | detail | more)


FORMAT = Format(
    name="torch", title="PyTorch", extensions=(".pt", ".pth", ".bin", ".ckpt"), holds="weights",
    spec="https://github.com/pytorch/pytorch/blob/main/torch/serialization.py", identify=identify,
)
