"""Archives and compressed files that hold a model: which one, and under what name. Nothing is extracted."""
from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from isomorph.artifact import Artifact
from isomorph.errors import IsomorphError
from isomorph.formats import Match
from isomorph.wire import compressed

if TYPE_CHECKING:
    from isomorph.wire.archive import Archive

MOST_MEMBERS, MOST_OTHERS = 32, 12        # members looked at: whose name is a model's, and others
UNPACKED = 1 << 20                         # bytes unpacked of one compressed file
EACH, ALTOGETHER = 1 << 18, 2 << 20        # bytes unpacked of one member, and of all
UNLIKELY = (".py", ".pyc", ".md", ".txt", ".csv", ".png", ".jpg", ".jpeg", ".html", ".js", ".css", ".class", ".so", ".dll", ".yaml", ".yml", ".cfg", ".proto",
            ".java", ".ipynb", ".sh", "/", "METADATA", "RECORD", "WHEEL", "LICENSE")
CANNOT = "isomorph cannot look inside: unpack it and give what is inside"
UNPACK = "unpack it and give what is inside"


def identify(artifact: Artifact) -> Match | None:
    """Recognises archives and compressed files by what they hold; one without a model in it is nobody's."""
    if artifact.is_folder or artifact.limits.archive_depth < 1:
        return None
    if compressed.begins_compressed(artifact.head):
        return _packed(artifact)
    return _archived(artifact, artifact.archive) if artifact.archive else None


def _archived(artifact: Artifact, found: Archive) -> Match | None:
    """A zip or tar some of whose members are models."""
    holds = _members(found, _deeper(artifact))
    return Match("archive", "", found.kind, "", {"holds": holds, "members": len(found.names)}, UNPACK) if holds else None


def _packed(artifact: Artifact) -> Match | None:
    """A gzip, bzip2, xz, lzma or lz4 file that is a model inside; zstd, 7z and rar, whose inside is not seen."""
    head = compressed.read(artifact.view, UNPACKED)
    if head is None or (not head.data and head.kind.startswith("zlib")):
        return None
    if not head.data:
        return Match("archive", "", head.kind, "", {}, CANNOT)
    name = artifact.name.removesuffix(artifact.suffix)
    format_name = _format_of(Artifact(None, head.data, name=name, limits=_deeper(artifact).limits))
    if not format_name:
        return None
    return Match("archive", "", head.kind, "", {"holds": {name: format_name}}, UNPACK)


def _deeper(artifact: Artifact) -> Artifact:
    limits = dataclasses.replace(artifact.limits, archive_depth=artifact.limits.archive_depth - 1)
    return Artifact(artifact.path, artifact.view, name=artifact.name, limits=limits)


def _members(found: Archive, outer: Artifact) -> dict[str, str]:
    """Member -> format. Members that may be models by their name come first; large packed ones are judged by their beginning."""
    from isomorph.formats import _table
    candidates = [name for name in found.names if not name.endswith(UNLIKELY) and found.members[name].size]
    by_name = [name for name in candidates if _table.by_extension(name) is not None]
    likely = [*by_name[:MOST_MEMBERS], *[name for name in candidates if name not in set(by_name)][:MOST_OTHERS]]
    left, holds = ALTOGETHER, {}
    for name in likely:
        member = found.members[name]
        try:
            if member.stored:
                data: bytes | memoryview = found.read(name)
            elif left <= 0:
                break
            else:
                data = found.head(name, min(EACH, left))
                left -= len(data)
        except IsomorphError:
            continue
        inner = Artifact(None, data, name=name.rpartition("/")[2], limits=outer.limits)
        if format_name := _format_of(inner):
            holds[name] = format_name
    return holds


def _format_of(inner: Artifact) -> str:
    """The format of what is inside, empty where there is none; an inner archive names what it holds itself."""
    from isomorph.formats import _table
    try:
        match = _table.identify(inner)
    except IsomorphError:
        return ""
    if match.format == "archive" and (inside := match.detail.get("holds")):
        return ", ".join(sorted(set(inside.values())))
    return "" if match.format in ("empty", "archive") else match.format
