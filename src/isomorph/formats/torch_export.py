"""PyTorch .pt2: an exported program as JSON with its weights, or a package that AOTInductor compiled."""
from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsupported
from isomorph.formats import Capabilities, Format, Match, _torch
from isomorph.progress import SILENT, Progress

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Model
    from isomorph.report import Report
    from isomorph.wire.archive import Archive

OLD = "serialized_exported_program.json"
SCHEMA = re.compile(rb'"schema_version" *: *\{ *"major" *: *(\d+) *, *"minor" *: *(\d+)')
TORCH = re.compile(rb'"torch_version" *: *"([^"]{1,40})"')
AOT_HINT = "it holds code compiled for one machine: convert the exported program it was made from"


def identify(artifact: Artifact) -> Match | None:
    """Recognises each layout: the archive since 2.8 (raw or pickled weights), the flat one before, and AOTInductor packages of both generations."""
    archive = _torch.zip_of(artifact)
    if archive is None:
        return None
    root = _torch.root_of(archive, "archive_format")
    if root is not None and archive.head(root + "archive_format", 16).strip() == b"pt2":
        return _identify_archive(archive, root)
    root = _torch.root_of(archive, OLD)
    if root is not None:
        version = archive.head(root + "version", 16).decode("latin1").strip() if root + "version" in archive.members else ""
        state = next((name for name in archive.names if "serialized_state_dict" in name), "")
        return Match("torch_export", version, "exported program, flat layout", "graph", _versions(archive, root + OLD) | {"weights": state})
    if any("aotinductor/" in name for name in archive.names) and any(name.endswith(_torch.COMPILED) for name in archive.names):
        return Match("torch_export", "", "AOTInductor package", "", {"models": _compiled(archive)}, AOT_HINT)
    return None


def _identify_archive(archive: Archive, root: str) -> Match:
    version = archive.head(root + "archive_version", 16).decode("latin1").strip() if root + "archive_version" in archive.members else ""
    programs = [name for name in archive.names if name.startswith(root + "models/") and name.endswith(".json")]
    detail: dict[str, Any] = {"models": [name.rpartition("/")[2].removesuffix(".json") for name in programs]}
    if compiled := _compiled(archive):
        flavour = "exported program and AOTInductor package" if programs else "AOTInductor package"
        return Match("torch_export", version, flavour, "graph" if programs else "", detail | {"models": detail["models"] or compiled}, AOT_HINT)
    raw = any(name.endswith("_weights_config.json") for name in archive.names)
    if programs:
        detail |= _versions(archive, programs[0])
    return Match("torch_export", version, "exported program, raw weights" if raw else "exported program, pickled weights", "graph", detail)


def _compiled(archive: Archive) -> list[str]:
    """The models of an AOTInductor package: the folders that hold compiled code."""
    folders = [name.partition("aotinductor/")[2].split("/")[0] for name in archive.names if "aotinductor/" in name and name.endswith(_torch.COMPILED)]
    return sorted(set(folders))


def _versions(archive: Archive, member: str) -> dict[str, Any]:
    """The versions stand at the end of the program, which may be long: only its tail is searched, and only where it is stored."""
    if not archive.members[member].stored:
        return {}
    tail = bytes(archive.read(member)[-(1 << 16):])
    schema, torch = SCHEMA.search(tail), TORCH.search(tail)
    found = {"schema_version": f"{int(schema[1])}.{int(schema[2])}"} if schema else {}
    return found | ({"torch_version": torch[1].decode("latin1")} if torch else {})


def read(artifact: Artifact, *, progress: Progress = SILENT) -> Model:
    """The graph of the exported program. Compiled code and pickled objects are never loaded. Raises `Unsupported` for a package that holds only those."""
    from isomorph.formats import _torch_export
    archive = _torch.zip_of(artifact)
    if archive is None:
        raise Damaged("no zip of an exported program", where=artifact.where)
    root = _torch.root_of(archive, "archive_format")
    if root is None:
        root = _torch.root_of(archive, OLD)
    if root is None or not (root + OLD in archive.members or any(name.startswith(root + "models/") for name in archive.names)):
        raise Unsupported("the package holds compiled code and no exported program", where=artifact.where, hint=AOT_HINT)
    return _torch_export.read(artifact, archive, root)


def write(model: Model, path: str | os.PathLike[str], *, force: bool = False, progress: Progress = SILENT) -> Report:
    """A file that `torch.export.load` takes, from a graph of aten calls. Raises `Usage` where the output exists."""
    from isomorph.formats import _torch_export_writer
    return _torch_export_writer.write(model, path, force=force, progress=progress)


FORMAT = Format(
    name="torch_export", title="PyTorch exported program", extensions=(".pt2",), holds="graph",
    spec="https://github.com/pytorch/pytorch/blob/main/torch/_export/serde/schema.py", identify=identify, read=read, write=write, dialect="torch",
    can=Capabilities(dynamic_shapes=True, control_flow=True),
)
