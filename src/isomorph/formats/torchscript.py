"""TorchScript: a zip of printed code, pickled attributes, constants and raw storages."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match, _torch
from isomorph.wire.pickle import Call

if TYPE_CHECKING:
    from isomorph.artifact import Artifact


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


FORMAT = Format(
    name="torchscript", title="TorchScript", extensions=(".jit", ".ts", ".ptl", ".pt"), holds="graph",
    spec="https://github.com/pytorch/pytorch/blob/main/torch/csrc/jit/docs/serialization.md", identify=identify, dialect="torch",
)
