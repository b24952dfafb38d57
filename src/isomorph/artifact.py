"""A file, folder, archive or byte string, opened once: its head is read once, its container is parsed once, its bytes are mapped."""
from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import NotRecognised, Unsafe
from isomorph.wire import files
from isomorph.wire.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from isomorph.wire.archive import Archive

HEAD_BYTES = 1 << 16


class Artifact:
    """One thing that may be a model. Nothing is read before it is asked for, and nothing is ever written."""

    def __init__(self, path: Path | None, data: bytes | memoryview | None = None, *, name: str = "", limits: Limits = DEFAULT):
        self.path, self.limits = path, limits
        self.name = name or (path.name if path else "<bytes>")
        self._data = data
        self.parsed: dict[str, Any] = {}       # headers that formats have parsed, by format

    @classmethod
    def open(cls, source: str | os.PathLike | bytes | Artifact, limits: Limits = DEFAULT) -> Artifact:
        """Opens a path or wraps bytes. Raises `NotRecognised` where there is nothing to read, `Unsafe` for a device, pipe or socket."""
        if isinstance(source, Artifact):
            return source
        if isinstance(source, (bytes, bytearray, memoryview)):
            return cls(None, source if isinstance(source, bytes) else memoryview(source), limits=limits)
        path = Path(source)
        if not path.exists():
            raise NotRecognised("there is no such file or folder", where=str(path))
        if not path.is_file() and not path.is_dir():
            raise Unsafe("neither a regular file nor a folder", where=str(path))
        if not os.access(path, os.R_OK):
            raise NotRecognised("no permission to read it", where=str(path), hint="check the permissions with `ls -l`")
        return cls(path, limits=limits)

    @property
    def where(self) -> str:
        return str(self.path) if self.path else self.name

    @cached_property
    def is_folder(self) -> bool:
        return self.path is not None and self.path.is_dir()

    @cached_property
    def size(self) -> int:
        """Bytes of the file; of all files for a folder."""
        if self.path is None:
            return len(self._data or b"")
        if self.is_folder:
            return sum(child.stat().st_size for child in self.path.rglob("*") if child.is_file())
        return self.path.stat().st_size

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix.lower()

    @cached_property
    def head(self) -> bytes:
        """The first 64 KiB, empty for a folder."""
        if self.is_folder:
            return b""
        if self.path is None:
            return bytes(memoryview(self._data or b"")[:HEAD_BYTES])
        with self.path.open("rb") as file:
            return file.read(HEAD_BYTES)

    @cached_property
    def view(self) -> memoryview:
        """All bytes, mapped and read-only; pages are loaded when they are touched."""
        if self.path is None:
            return memoryview(self._data or b"")
        if self.is_folder:
            raise NotRecognised("a folder has no bytes of its own", where=self.where)
        with self.path.open("rb") as file:
            return files.mapped(file)

    @cached_property
    def archive(self) -> Archive | None:
        """The members of a zip or tar file, parsed once; None where it is no archive."""
        from isomorph.wire import archive
        return None if self.is_folder else archive.open_archive(self.view, self.where, self.limits)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names directly inside a folder, sorted."""
        return tuple(sorted(os.listdir(self.path))) if self.is_folder and self.path else ()

    def child(self, name: str) -> Artifact | None:
        """A file or folder inside this folder, by a relative path that may come from a file: never outside it. None where it is absent."""
        if self.path is None or not self.is_folder:
            return None
        path = files.contained(self.path, name)
        return Artifact(path, limits=self.limits) if path.exists() else None

    def sibling(self, name: str) -> Artifact | None:
        """A companion that stands beside this file, by a relative path that may come from the file: never outside its folder."""
        if self.path is None:
            return None
        return Artifact(self.path.parent, limits=self.limits).child(name)
