"""NumPy arrays: .npz, a zip of .npy files, and a single .npy."""
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

MAGIC = b"\x93NUMPY"
MOST_HEADERS = 200
DTYPE = re.compile(rb"'descr': *(?:'([^']{1,40})'|(\[))")
SHAPE = re.compile(rb"'shape': *\(([0-9, ]*)\)")


def identify(artifact: Artifact) -> Match | None:
    """Recognises `\\x93NUMPY`, and a zip whose members all are such files: how many arrays, their dtypes, whether any holds pickled objects."""
    if artifact.is_folder:
        return None
    if artifact.head.startswith(MAGIC):
        dtype, shape = _header(artifact.head)
        flavour = "npy, pickled objects" if dtype == "objects" else "npy"
        return Match("npz", ".".join(str(byte) for byte in artifact.head[6:8]), flavour, "weights", {"dtype": dtype, "shape": shape})
    if not artifact.head.startswith(b"PK\3\4"):
        return None
    archive = artifact.archive
    if archive is None or archive.kind != "zip" or not archive.names or not all(name.endswith(".npy") for name in archive.names):
        return None
    heads = [archive.head(name, 512) for name in archive.names[:MOST_HEADERS]]
    if not all(head.startswith(MAGIC) for head in heads):
        return None
    dtypes = sorted({_header(head)[0] for head in heads})
    packed = any(not member.stored for member in archive.members.values())
    detail: dict[str, Any] = {"arrays": len(archive.names), "dtypes": dtypes, "compressed": packed}
    return Match("npz", "", "npz, pickled objects" if "objects" in dtypes else "npz", "weights", detail)


def _header(head: bytes) -> tuple[str, list[int] | None]:
    """dtype and shape of the header of one .npy file. Format: numpy.lib.format, "Format Version 1.0"; the text is matched, never evaluated."""
    dtype, shape = DTYPE.search(head[:4096]), SHAPE.search(head[:4096])
    text = "unknown" if dtype is None else "structured" if dtype[2] else dtype[1].decode("latin1")
    return "objects" if "O" in text else text, [int(part) for part in shape[1].split(b",") if part.strip()] if shape else None


FORMAT = Format(
    name="npz", title="NumPy arrays", extensions=(".npz", ".npy"), holds="weights",
    spec="https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html", identify=identify,
)
