"""The one place that opens a file which a model names, and the one place that writes an output.

Containment follows the four layers of the ONNX external data defence (onnx/docs/ExternalDataSecurity.md).
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from isomorph.errors import Unsafe, Usage

PART = ".part"


def contained(folder: Path, name: str) -> Path:
    """The path of `name` inside `folder`. Raises `Unsafe` where it would leave it: absolute, `..`, a scheme, a drive, a link."""
    if not name or "\0" in name or "\\" in name or "://" in name or name.startswith(("/", "~")) or (len(name) > 1 and name[1] == ":"):
        raise Unsafe(f"the companion file name {name[:120]!r} is not a plain relative path", where=str(folder))
    base = folder.resolve()
    path = base
    for component in Path(name).parts:
        if component == "..":
            raise Unsafe(f"the companion file name {name[:120]!r} leaves its folder", where=str(folder))
        path = path / component
        if path.is_symlink():
            raise Unsafe(f"the companion {name[:120]!r} is a symbolic link", where=str(folder), hint="replace the link by the file itself")
    if path.exists() and not path.is_dir():
        status = path.lstat()
        if not path.is_file():
            raise Unsafe(f"the companion {name[:120]!r} is not a regular file", where=str(folder))
        if status.st_nlink > 1:
            raise Unsafe(f"the companion {name[:120]!r} is a hard link ({status.st_nlink} names)", where=str(folder), hint="copy the file")
    return path


@contextlib.contextmanager
def replacing(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """A file that appears under `path` whole or not at all: written beside it, flushed, renamed.

    Raises `Usage` where `path` exists and `force` is not set. A part left behind by a killed process is removed.
    """
    if path.exists() and not force:
        raise Usage("the output exists already", where=str(path), hint="choose another name or add --force")
    part = path.with_name(path.name + PART)
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
