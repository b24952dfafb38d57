"""The whole content of an HDF5 file through h5py: attributes, and datasets as places in the mapping where they lie in one piece.

Only what a file of weights needs is accepted. Links that lead elsewhere (soft, external, virtual datasets, external storage) are refused wherever they stand,
filters other than the library's own are too, because they name shared libraries, and a dataset that swells more than the limits allow is not read.
"""
from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Missing, Unsafe

if TYPE_CHECKING:
    import numpy as np

    from isomorph.wire.limits import Limits

FILTERS = {1, 2, 3, 4, 32000}                  # gzip, shuffle, fletcher32, szip, lzf
EXPANSION = 1000                               # declared : stored, as Keras allows; judged above `Limits.expansion_floor`
DEEPEST = 64


@dataclass(frozen=True)
class Dataset:
    """An array in the file: `data` are its bytes where they lie in one piece, else `load` reads and decodes it."""

    path: str
    dtype: np.dtype
    shape: tuple[int, ...]
    attributes: dict[str, Any]
    data: memoryview | None
    load: Callable[[], np.ndarray]


@dataclass
class Content:
    """Groups and datasets by path, in the order of the file; the root is ""."""

    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)

    def children(self, path: str) -> list[str]:
        """The names of the groups directly inside a group."""
        start = f"{path}/" if path else ""
        return [group[len(start):] for group in self.attributes if group and group.startswith(start) and "/" not in group[len(start):]]


class _Window(io.RawIOBase):
    """A mapping as a file that can only be read."""

    def __init__(self, view: memoryview):
        self.view, self.at = view, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: len(self.view)}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        piece = self.view[self.at:self.at + len(buffer)]
        buffer[:len(piece)] = piece
        self.at += len(piece)
        return len(piece)


def library() -> Any:
    """The module h5py, which only whoever holds HDF5 files needs. Raises `Missing` where it is not installed."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise Missing("the package h5py is not installed, which the HDF5 in Keras files needs", hint="run `pip install 'isomorph[keras]'`") from error
    return h5py


def read(view: memoryview, where: str, limits: Limits) -> Content:
    """Everything in a file. Raises `Damaged` where a structure does not hold, `Unsafe` where it leads outside or exceeds a limit, `Missing` without h5py."""
    h5py = library()
    try:
        file = h5py.File(_Window(view), "r", locking=False)
        return _Reader(file, view, where, limits).content
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise Damaged(f"the HDF5 library cannot read it: {str(error)[:160]}", where=where) from error


class _Reader:
    def __init__(self, file: Any, view: memoryview, where: str, limits: Limits):
        self.view, self.where, self.limits, self.content = view, where, limits, Content()
        self.seen: set[Any] = set()
        self.group(file, "", 0)

    def group(self, group: Any, path: str, depth: int) -> None:
        if depth > DEEPEST or len(self.content.attributes) + len(self.content.datasets) > self.limits.tensors:
            raise Unsafe("more groups than the limit `tensors` allows, or nested too deep", where=f"{self.where}: {path}")
        key = _address(group)
        if key in self.seen:
            raise Unsafe("a group is linked twice", where=f"{self.where}: {path}")
        self.seen.add(key)
        self.content.attributes[path] = {name: self.attribute(group.attrs, name) for name in group.attrs}
        for name in group:
            place = f"{path}/{name}" if path else name
            link = group.get(name, getlink=True)
            if type(link).__name__ != "HardLink":
                raise Unsafe(f"{type(link).__name__} leads outside its group and is not followed", where=f"{self.where}: {place}")
            child = group[name]
            if type(child).__name__ == "Group":
                self.group(child, place, depth + 1)
            elif type(child).__name__ == "Dataset":
                self.content.datasets[place] = self.dataset(child, place)

    def attribute(self, attributes: Any, name: str) -> Any:
        kind = attributes.get_id(name)
        size = math.prod(kind.shape) * kind.dtype.itemsize
        if size > self.limits.json_bytes:
            raise Unsafe(f"an attribute of {size} bytes exceeds the limit `json_bytes`", where=f"{self.where}: {name}")
        return attributes[name]

    def dataset(self, dataset: Any, path: str) -> Dataset:
        where = f"{self.where}: {path}"
        layout = dataset.id.get_create_plist()
        if dataset.is_virtual or layout.get_external_count():
            raise Unsafe("a dataset whose values lie in other files is not read", where=where)
        for index in range(layout.get_nfilters()):
            if layout.get_filter(index)[0] not in FILTERS:
                raise Unsafe(f"filter {layout.get_filter(index)[0]} is a plug-in, which is never loaded", where=where)
        shape = dataset.shape or ()
        if len(shape) > self.limits.dimensions:
            raise Unsafe(f"{len(shape)} dimensions exceed the limit `dimensions`", where=where)
        declared, stored = math.prod(shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
        if declared > self.limits.expansion_floor and declared > EXPANSION * max(stored, 1):
            raise Unsafe(f"{stored} stored bytes declare {declared}, more than {EXPANSION} times as many", where=where)
        attributes = {name: self.attribute(dataset.attrs, name) for name in dataset.attrs}
        return Dataset(path, dataset.dtype, shape, attributes, self.piece(dataset, declared, where), lambda: dataset[()])

    def piece(self, dataset: Any, declared: int, where: str) -> memoryview | None:
        offset = dataset.id.get_offset()
        if offset is None or dataset.chunks or dataset.dtype.hasobject:
            return None
        if offset + declared > len(self.view):
            raise Damaged(f"its {declared} bytes lie beyond the end of the file", where=where, offset=offset)
        return self.view[offset:offset + declared]


def _address(group: Any) -> Any:
    return library().h5o.get_info(group.id).addr
