"""The one place that opens a file which a model names, and the one place that writes an output.

Containment follows the four layers of the ONNX external data defence (onnx/docs/ExternalDataSecurity.md): names are judged as text, every component is
opened relative to the descriptor of its parent and never through a link, and what was opened is looked at again through its descriptor.
"""
from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from isomorph.errors import Damaged, IsomorphError, Unsafe, Usage

PART = ".part"
TOKEN_BYTES = 4
MOST_COMPONENTS, MOST_NAME_BYTES = 32, 1024
FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "the file is larger than the system allows"}
SHOWN = 120
LEAST_COPIED, COPIED, BUFFERED = 1 << 16, 1 << 17, 1 << 19      # bytes from which reading the file is worth it, read at a time, and written at a time


# Reading companions

def checked_components(folder: Path, name: str) -> tuple[str, ...]:
    """The components of a relative path that a file names. Raises `Unsafe` where it is absolute, has `..`, a scheme, a drive, NUL or a backslash."""
    if not name or "\0" in name or "\\" in name or "://" in name or name.startswith(("/", "~")) or (len(name) > 1 and name[1] == ":"):
        raise Unsafe(f"the companion file name {name[:SHOWN]!r} is not a plain relative path", where=str(folder))
    components = tuple(component for component in name.split("/") if component not in ("", "."))
    if ".." in components:
        raise Unsafe(f"the companion file name {name[:SHOWN]!r} leaves its folder", where=str(folder))
    if not components or len(components) > MOST_COMPONENTS or len(name.encode("utf-8", "surrogateescape")) > MOST_NAME_BYTES:
        raise Unsafe(f"the companion file name {name[:SHOWN]!r} is empty or too long", where=str(folder))
    return components


def contained(folder: Path, name: str) -> Path:
    """The path of `name` inside `folder`, which need not exist. Raises `Unsafe` where it would leave it or goes through a link."""
    path = folder.resolve()
    for component in checked_components(folder, name):
        path = path / component
        if path.is_symlink():
            raise _linked(folder, name)
    if path.exists() and not path.is_dir():
        _refuse_unusual(path.lstat(), folder, name)
    return path


def open_contained(folder: Path, name: str) -> BinaryIO | None:
    """The file `name` inside `folder`, opened for reading; None where it is absent.

    Between the check and the opening nobody can swap a component, because only descriptors are used. Raises `Unsafe` as `contained` does.
    """
    components = checked_components(folder, name)
    if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
        return _open_by_path(folder, name)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for place, component in enumerate(components):
            more = os.O_DIRECTORY if place + 1 < len(components) else 0
            parent, descriptor = descriptor, os.open(component, flags | more, dir_fd=descriptor)
            os.close(parent)
        _refuse_unusual(os.fstat(descriptor), folder, name)
        return os.fdopen(descriptor, "rb")
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.ENOENT:
            return None
        # ENOTDIR comes from a link in the middle, which O_DIRECTORY with O_NOFOLLOW does not follow.
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):
            raise _linked(folder, name) from None
        raise Unsafe(f"the companion {name[:SHOWN]!r} cannot be opened: {error.strerror}", where=str(folder)) from None
    except Unsafe:
        os.close(descriptor)
        raise


def map_contained(folder: Path, name: str) -> memoryview | None:
    """The bytes of the file `name` inside `folder`, mapped and read-only; None where it is absent. Raises `Unsafe` as `contained` does."""
    file = open_contained(folder, name)
    if file is None:
        return None
    with file:
        return mapped(file)


def _open_by_path(folder: Path, name: str) -> BinaryIO | None:
    """For systems without openat: check, open, and check that the very same file was opened."""
    path = contained(folder, name)
    if not path.exists():
        return None
    file = path.open("rb")
    if not os.path.samestat(os.fstat(file.fileno()), path.lstat()):
        file.close()
        raise Unsafe(f"the companion {name[:SHOWN]!r} was exchanged while it was opened", where=str(folder))
    return file


def _refuse_unusual(status: os.stat_result, folder: Path, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unsafe(f"the companion {name[:SHOWN]!r} is not a regular file", where=str(folder))
    if status.st_nlink > 1:
        raise Unsafe(f"the companion {name[:SHOWN]!r} is a hard link ({status.st_nlink} names)", where=str(folder), hint="copy the file")


def _linked(folder: Path, name: str) -> Unsafe:
    return Unsafe(f"the companion {name[:SHOWN]!r} is or goes through a symbolic link", where=str(folder), hint="replace the link by the file itself")


# Mapped bytes

class Mapping(mmap.mmap):
    """A file that is mapped for reading and stays open, so that parts of it can be copied without touching their pages."""

    descriptor = -1

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def mapped(file: BinaryIO) -> memoryview:
    """All bytes of an open file, mapped and read-only; pages are loaded when they are touched."""
    if not os.fstat(file.fileno()).st_size:
        return memoryview(b"")
    mapping = Mapping(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapping.descriptor = os.dup(file.fileno())
    return memoryview(mapping)


def place_of(view: memoryview) -> int:
    """At which byte of its mapping a slice begins."""
    import ctypes

    def address(buffer: Any) -> int:
        record = (ctypes.c_void_p * 16)()              # Py_buffer, whose first field is the address and the second a reference to be given back
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(record), 0)
        try:
            return record[0] or 0
        finally:
            ctypes.pythonapi.PyBuffer_Release(ctypes.byref(record))
    return address(view) - address(view.obj)


def put(output: BinaryIO, chunk: Any) -> None:
    """Writes bytes. Slices of a mapping are read from its file through a small buffer that stays in the processor's cache: a third of the time that touching
    their pages takes, and they never count as memory of this process. It costs less than to let the system copy between two files, because what is written
    begins at multiples of the buffer: the system keeps such pieces in large pages."""
    view = memoryview(chunk)
    if view.nbytes < LEAST_COPIED:
        output.write(view)
        return
    if view.nbytes >= BUFFERED:
        reserve(output, view.nbytes)
    first = BUFFERED - output.tell() % BUFFERED if output.seekable() else BUFFERED
    for start, stop in ((0, first), (first, view.nbytes)):
        for piece in pieces(view.cast("B")[start:stop], BUFFERED):
            output.write(piece)


def reserve(output: BinaryIO, count: int) -> None:
    """Has the system find room on the disk for `count` bytes that are written next, which takes half as long as finding it page by page. Raises OSError
    where there is none."""
    try:
        os.posix_fallocate(output.fileno(), output.tell(), count)
    except OSError as error:                       # a file system that cannot, or no file at all
        if error.errno in FULL:
            raise
    except AttributeError:
        pass                                       # a system that cannot


def pieces(view: memoryview, size: int = COPIED) -> Iterator[memoryview]:
    """The bytes of a view, `size` at a time. Those of a mapped file stand in one buffer that the next piece overwrites."""
    if not isinstance(view.obj, Mapping) or not hasattr(os, "preadv"):
        yield from (view.cast("B")[start:start + size] for start in range(0, view.nbytes, size))
        return
    buffer = memoryview(bytearray(min(size, view.nbytes)))
    start, stop = place_of(view), place_of(view) + view.nbytes
    while start < stop:
        wanted = min(size, stop - start)
        done = 0
        while done < wanted:
            count = os.preadv(view.obj.descriptor, [buffer[done:wanted]], start + done)
            if not count:
                raise Damaged("the file became shorter while it was read")
            done += count
        yield buffer[:wanted]
        start += wanted


# Writing outputs

@contextlib.contextmanager
def replacing(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """A file that appears under `path` whole or not at all: written beside it, renamed. Errors as in `replacing_all`."""
    with replacing_all([path], force=force) as files:
        yield files[0]


@contextlib.contextmanager
def replacing_all(paths: Sequence[Path], *, force: bool = False) -> Iterator[list[BinaryIO]]:
    """Files that appear under `paths` whole or not at all, in that order; the last one should be the file that names the others.

    Each is written under a name of its own that no other process uses, and locked, so that parts left behind by killed processes can be told from those
    of living ones and are removed. What stood under a path before is given up once the new file is on the disk; a file that replaces nothing gets there when
    the system writes it, as a copy does. Raises `Usage` where a path exists and `force` is not set, or its folder cannot be written, and `IsomorphError` where
    the disk is full; nothing is left behind then.
    """
    for path in paths:
        _refuse_existing(path, force)
        remove_orphans(path)
    parts: list[tuple[Path, BinaryIO]] = []
    try:
        for path in paths:
            parts.append(_open_part(path))
        yield [file for _, file in parts]
        for (_, file), path in zip(parts, paths, strict=True):
            file.flush()
            if os.path.lexists(path):
                os.fsync(file.fileno())
        for (part, _), path in zip(parts, paths, strict=True):
            _publish(part, path, force)
    except OSError as error:
        if error.errno in FULL:
            raise IsomorphError(FULL[error.errno], where=str(paths[-1]), hint="make room or write to another disk; nothing was left behind") from None
        raise
    finally:
        for part, file in parts:
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                part.unlink()


@contextlib.contextmanager
def inside_new_folders(folders: Sequence[Path]) -> Iterator[None]:
    """Makes the folders that an output of several files needs, outer ones first. What stays empty because writing failed is removed again."""
    made = []
    try:
        for folder in folders:
            try:
                folder.mkdir()
                made.append(folder)
            except FileExistsError:
                if not folder.is_dir():
                    raise Usage("the output is a folder, and a file has its name", where=str(folder), hint="choose another name") from None
            except OSError as error:
                raise Usage(f"the folder of the output cannot be made: {error.strerror}", where=str(folder), hint="choose another place") from None
        yield
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()                     # only what is empty


def _refuse_existing(path: Path, force: bool) -> None:
    if path.is_dir():
        raise Usage("the output is a folder", where=str(path), hint="name a file")
    if os.path.lexists(path) and not force:
        raise Usage("the output exists already", where=str(path), hint="choose another name or add --force")


def _open_part(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        part = path.with_name(f"{path.name}.{os.urandom(TOKEN_BYTES).hex()}{PART}")
        try:
            file = part.open("xb")
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise Usage(f"the output cannot be written: {error.strerror}", where=str(path), hint="create the folder or choose another") from None
        if (_lock(file.fileno()) or sys.platform == "win32") and part.exists():
            return part, file
        file.close()                   # another writer took it for an orphan, between its making and its locking


def _publish(part: Path, path: Path, force: bool) -> None:
    """Renames. With `force` the new name is on the disk as well, as what it replaced is gone; without it, a file that another process made in the meantime
    is not overwritten."""
    if not force:
        try:
            _rename_new(part, path)
        except FileExistsError:
            raise Usage("the output was made by another process in the meantime", where=str(path), hint="choose another name or add --force") from None
        return
    os.replace(part, path)
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _rename_new(part: Path, path: Path) -> None:
    """Renames where nothing has the new name. A hard link is the portable way to do that in one step; file systems without links get a check first."""
    if sys.platform == "win32":
        os.rename(part, path)
        return
    try:
        os.link(part, path, follow_symlinks=False)
        os.unlink(part)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "exists", str(path)) from None
        os.rename(part, path)


def remove_orphans(path: Path) -> None:
    """Removes the parts of `path` whose writers are dead: nobody holds their lock."""
    if not path.parent.is_dir():
        return
    for name in os.listdir(path.parent):
        token = name[len(path.name) + 1:-len(PART)]
        if name == f"{path.name}.{token}{PART}" and len(token) == 2 * TOKEN_BYTES and not set(token) - set("0123456789abcdef"):
            with contextlib.suppress(OSError):
                _remove_unlocked(path.parent / name)


def _remove_unlocked(part: Path) -> None:
    """Windows refuses to remove a file that is open; elsewhere the lock tells."""
    if sys.platform == "win32":
        part.unlink()
        return
    descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _lock(descriptor):
            part.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Takes the exclusive lock of a file that ends with its process. False where another process has it."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True           # a file system without locks: then nobody else can hold one
    return True
