"""Pickles that are no PyTorch file: scikit-learn models, joblib dumps, others. Told by the names in their outline; nothing is loaded."""
from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from isomorph.formats import Match, _torch
from isomorph.wire import compressed, pickle
from isomorph.wire.pickle_records import Call, Dict, Stream

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

WRAPPERS = ("joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle")
UNPACKED = 1 << 20
LEGACY = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."          # how torch.save began before 1.6
ENOUGH = 40                                # opcodes after which bytes without a PROTO opcode are believed to be a pickle


def sklearn(artifact: Artifact) -> Match | None:
    """A pickle whose outermost object, or an element of it, is of scikit-learn, plain or by joblib, compressed or not."""
    return _match(artifact, "sklearn")


def joblib(artifact: Artifact) -> Match | None:
    """Any other pickle in which joblib keeps arrays."""
    return _match(artifact, "joblib")


def other(artifact: Artifact) -> Match | None:
    """Any other pickle. Its flavour is the package of the outermost class."""
    return _match(artifact, "pickle")


def _match(artifact: Artifact, name: str) -> Match | None:
    if artifact.is_folder or artifact.head[2:15] == LEGACY:
        return None
    looked = _look(bytes(artifact.view[:UNPACKED]))
    if looked is None:
        return None
    compression, stream = looked
    by_joblib = "joblib" in compression or any(found.module in WRAPPERS for found in stream.names)
    detail = _facts(stream)
    root = str(detail.get("class", ""))
    package = root.partition(".")[0]
    if not package and any(found.module.startswith("sklearn.") and found.module not in WRAPPERS for found in stream.names):
        package = "sklearn"                # a dictionary or list of models
    if ("sklearn" if package == "sklearn" else "joblib" if by_joblib else "pickle") != name:
        return None
    detail["compression"] = compression
    if stream.problem and not by_joblib:
        detail["unread"] = stream.problem
    writer = "joblib" if by_joblib else "pickle"
    flavour = package if name == "pickle" and package else f"{writer}, {compression}" if compression else writer
    return Match(name, str(stream.protocol), flavour, "", detail)


def _facts(stream: Stream) -> dict[str, Any]:
    """The outermost object and the classes that a loader would import."""
    value, detail = stream.value, {"classes": sorted(str(name) for name in stream.names if _torch.is_foreign(name))[:64]}
    if isinstance(value, Call):
        return detail | {"class": str(_torch.class_of(value))}
    if isinstance(value, Dict):
        return detail | {"keys": [pair[0] for pair in value.items if isinstance(pair[0], (str, int))][:32]}
    return detail | ({"items": len(value)} if isinstance(value, (list, tuple)) else {})


@lru_cache(maxsize=1)                      # three rows look at the same bytes
def _look(data: bytes) -> tuple[str, Stream] | None:
    packed = compressed.read(memoryview(data), UNPACKED)
    inner = packed.data if packed else data
    if not inner or not _plausible(inner):
        return None
    stream = pickle.walk(memoryview(inner))
    believed = not stream.problem or stream.opcodes > ENOUGH or any(found.module in WRAPPERS for found in stream.names)
    if not believed or (stream.value is None and not stream.names) or (inner[0] != 0x80 and not stream.names and stream.opcodes < ENOUGH):
        return None
    return (packed.kind if packed else ""), stream


def _plausible(data: bytes) -> bool:
    return (data[0] == 0x80 and data[1:2] in (b"\2", b"\3", b"\4", b"\5")) or data[:1] in (b"(", b"c", b"]", b"}", b"l")
