"""TensorBundle: an index that is a sorted table, and shards of raw tensor bytes (tensorflow/core/util/tensor_bundle, tensor_bundle.proto).

    PREFIX.index                      "" -> BundleHeaderProto, name -> BundleEntryProto
    PREFIX.data-0000i-of-0000n        bytes of the tensors, little-endian, at the offsets that the entries say

A variable that was saved in pieces has one entry with its whole shape and `slices`, and one entry a piece under an encoded key. A string tensor is stored as
varint lengths, a masked crc32c of the lengths as u32, then the bytes.
"""
from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from isomorph.errors import Damaged, Missing, Unsafe, Unsupported
from isomorph.wire import files, protobuf, sstable
from isomorph.wire.crc32c import crc32c, crc32c_of, masked
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.protobuf_head import varint

SUFFIX = ".index"
VERSION = 1                                # kTensorBundleVersion; also what it asks of its consumer
MOST_SHARDS = 99_999
ALIGNMENT = 64                             # of tensors that we write, so that a mapping can be used in place
STRING, RESOURCE, VARIANT = 7, 20, 21
# Bytes of an element by DataType. Types of 2 and 4 bits take a whole byte, as in memory.
ELEMENT_BYTES = {
    1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, 8: 8, 9: 8, 10: 1, 11: 1, 12: 1, 13: 4, 14: 2, 15: 2, 16: 2, 17: 2, 18: 16, 19: 2, 22: 4, 23: 8, 24: 1, 25: 1, 26: 1,
    27: 1, 28: 1, 29: 1, 30: 1, 31: 1, 32: 1, 33: 1,
}


@dataclass(frozen=True)
class Entry:
    """A tensor of the bundle. `dtype` is TensorFlow's DataType number. `slices` are (start, length) an axis for each piece, empty for a whole tensor."""

    key: bytes
    dtype: int
    dims: tuple[int, ...]
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    slices: tuple[tuple[tuple[int, int], ...], ...] = ()


class Bundle(Mapping[str, Entry]):
    """The tensors of a bundle by name. Data stays in the mapped shards until it is asked for."""

    def __init__(self, folder: Path, prefix: str, index: memoryview, limits: Limits = DEFAULT):
        """`folder` and `prefix` say where the shards are. Raises `Damaged`, `Unsafe` or `Unsupported` where the index is not as it must be."""
        self.folder, self.prefix, self.where, self.limits = folder, prefix, str(folder / f"{prefix}{SUFFIX}"), limits
        self.shards: dict[int, memoryview] = {}
        self.entries: dict[bytes, Entry] = {}
        self.messages = protobuf.schema("tensor_bundle")
        table = sstable.read(index, self.where, limits)
        key, value = next(table, (b"?", memoryview(b"")))
        if key:
            raise Damaged("the bundle has no header", where=self.where)
        self.count = self._header(value)
        for key, value in table:
            self.entries[key] = self._entry(key, value)
        self.names = {key.decode("utf-8", "surrogateescape"): entry for key, entry in self.entries.items() if not key.startswith(b"\0")}

    def _header(self, value: memoryview) -> int:
        header = protobuf.read(value, self.messages["BundleHeaderProto"], self.limits, self.where)
        if header.endianness:
            raise Unsupported("the bundle is big-endian", where=self.where, hint="save it again on a little-endian machine")
        if header.version is not None and header.version.min_consumer > VERSION:
            raise Unsupported(f"the bundle asks for version {header.version.min_consumer} of its format", where=self.where)
        if not 0 < header.num_shards <= MOST_SHARDS:
            raise Damaged(f"the bundle says that it has {header.num_shards} shards", where=self.where)
        return header.num_shards

    def _entry(self, key: bytes, value: memoryview) -> Entry:
        record = protobuf.read(value, self.messages["BundleEntryProto"], self.limits, self.where)
        dims = tuple(dim.size for dim in record.shape.dim) if record.shape is not None else ()
        slices = tuple(tuple((extent.start, extent.length if "length" in extent else -1) for extent in each.extent) for each in record.slices)
        where = f"{self.where}, {key[:200].decode('utf-8', 'backslashreplace')}"
        if any(dim < 0 for dim in dims) or (record.shape is not None and record.shape.unknown_rank):
            raise Damaged(f"a stored tensor has the shape {list(dims)}", where=where)
        if len(dims) > self.limits.dimensions:
            raise Unsafe(f"a tensor has {len(dims)} axes", where=where, hint="raise Limits.dimensions if the file is trusted")
        if record.offset < 0 or record.size < 0 or not 0 <= record.shard_id < self.count:
            raise Damaged(f"a tensor of {record.size} bytes at {record.offset} in shard {record.shard_id} of {self.count}", where=where)
        width = ELEMENT_BYTES.get(record.dtype)
        if not slices and width is not None and record.size != width * math.prod(dims):
            raise Damaged(f"{record.size} bytes are stored where the shape {list(dims)} takes {width * math.prod(dims)}", where=where)
        return Entry(key, record.dtype, dims, record.shard_id, record.offset, record.size, record.crc32c, slices)

    def __getitem__(self, name: str) -> Entry:
        return self.names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def data(self, entry: Entry) -> memoryview:
        """The stored bytes of a whole tensor, a slice of the mapped shard. Raises `Missing` without the shard, `Damaged` where it is too short."""
        view = self._shard(entry.shard)
        if entry.offset + entry.size > len(view):
            raise Damaged(f"shard {entry.shard} has {len(view)} bytes, but a tensor lies at {entry.offset} to {entry.offset + entry.size}",
                          where=self._where(entry), hint="the download or copy is not complete")
        return view[entry.offset:entry.offset + entry.size]

    def _where(self, entry: Entry) -> str:
        return f"{self.where}, {entry.key[:200].decode('utf-8', 'backslashreplace')}"

    def _shard(self, number: int) -> memoryview:
        if number not in self.shards:
            name = shard_name(self.prefix, number, self.count)
            view = files.map_contained(self.folder, name)
            if view is None:
                raise Missing(f"the shard {name} is not there", where=self.where, hint="put it beside the index")
            self.shards[number] = view
        return self.shards[number]

    def verify(self, entry: Entry) -> None:
        """Raises `Damaged` where the bytes do not have the checksum of the index."""
        checked = self.strings(entry)[1] if entry.dtype == STRING else crc32c(self.data(entry))
        if entry.crc != masked(checked):
            raise Damaged("the tensor does not have its checksum", where=self._where(entry), offset=entry.offset)

    def strings(self, entry: Entry) -> tuple[list[memoryview], int]:
        """The elements of a string tensor in row-major order, and the checksum of what is stored, which counts lengths as numbers of 4 bytes."""
        view, count = self.data(entry), math.prod(entry.dims)
        if count > len(view):
            raise Damaged(f"{count} strings in {len(view)} bytes", where=self._where(entry), offset=entry.offset)
        lengths, at = [], 0
        for _ in range(count):
            length, at = varint(view, at, len(view))
            if at < 0:
                raise Damaged("a string tensor ends inside its lengths", where=self._where(entry), offset=entry.offset)
            lengths.append(length)
        start = at + 4
        if start + sum(lengths) != len(view):
            raise Damaged(f"strings of {sum(lengths)} bytes in {len(view) - start}", where=self._where(entry), offset=entry.offset)
        crc = crc32c_of(map(_length_word, lengths))
        if int.from_bytes(view[at:start], "little") != masked(crc):
            raise Damaged("the lengths of a string tensor do not have their checksum", where=self._where(entry), offset=entry.offset)
        found = []
        for length in lengths:
            found.append(view[start:start + length])
            start += length
        return found, crc32c(view[at:], crc)

    def pieces(self, entry: Entry) -> list[tuple[tuple[slice, ...], Entry]]:
        """Where each piece of a sliced tensor goes, and its entry. Raises `Damaged` where one is missing, does not fit, or they do not cover the tensor."""
        found = []
        for extents in entry.slices:
            part = self.entries.get(slice_key(entry.key, extents))
            bounds = [(start, size if length < 0 else length) for (start, length), size in zip(extents, entry.dims, strict=False)]
            inside = len(extents) == len(entry.dims) and all(0 <= start <= start + length <= size
                                                             for (start, length), size in zip(bounds, entry.dims, strict=True))
            if part is None or part.slices or not inside or part.dims != tuple(length for _, length in bounds) or part.dtype != entry.dtype:
                raise Damaged(f"the piece {bounds} of a sliced tensor is missing or does not fit", where=self._where(entry))
            found.append((tuple(slice(start, start + length) for start, length in bounds), part))
        if sum(math.prod(part.dims) for _, part in found) < math.prod(entry.dims):
            raise Damaged("the pieces of a sliced tensor do not cover it", where=self._where(entry))
        return found


def open_bundle(folder: Path, prefix: str, limits: Limits = DEFAULT) -> Bundle:
    """The bundle `folder/prefix`. `prefix` may come from a file: it never leaves the folder. Raises `Missing` where there is no index."""
    index = files.map_contained(folder, f"{prefix}{SUFFIX}")
    if index is None:
        raise Missing(f"there is no {prefix}{SUFFIX}", where=str(folder))
    return Bundle(folder, prefix, index, limits)


def shard_name(prefix: str, number: int, count: int) -> str:
    """The name of a shard, counted from 0."""
    return f"{prefix}.data-{number:05d}-of-{count:05d}"


def _length_word(length: int) -> bytes:
    return struct.pack("<I", length) if length < 1 << 32 else struct.pack("<Q", length)


# Keys of pieces: tensorflow/core/util/saved_tensor_slice_util.cc in the order-preserving code of tensorflow/core/lib/strings/ordered_code.cc

def slice_key(name: bytes, extents: Sequence[tuple[int, int]]) -> bytes:
    """The key of one piece: 0, the name, the number of axes, then start and length (-1: the whole axis) of each."""
    parts = [_ordered(0), _escaped(name), b"\0\1", _ordered(len(extents))]
    return b"".join(parts + [_ordered_signed(number) for extent in extents for number in extent])


def _escaped(name: bytes) -> bytes:
    return b"".join({0: b"\0\xff", 255: b"\xff\0"}.get(byte, bytes([byte])) for byte in name)


def _ordered(value: int) -> bytes:
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(digits)]) + digits


def _ordered_signed(value: int) -> bytes:
    """The number of leading ones of the first bytes is the length; negative numbers are complemented as a whole by two's complement."""
    length = (~value if value < 0 else value).bit_length() // 7 + 1
    digits = value.to_bytes(10, "big", signed=True)[-length:]
    header = ((1 << 16) - (1 << 16 - length)).to_bytes(2, "big")
    return bytes(digit ^ ones for digit, ones in zip(digits, header.ljust(length, b"\0"), strict=False))


# Writing

@dataclass(frozen=True)
class Stored:
    """A tensor to be written. `data` is bytes or an object with `chunks()`, for strings the list of all elements in row-major order."""

    key: str
    dtype: int
    dims: tuple[int, ...]
    data: Any


def write(index: BinaryIO, shard: BinaryIO, tensors: Iterable[Stored], written: Callable[[int], None] = lambda size: None) -> int:
    """Writes one shard and its index and returns the bytes of the shard. Tensors are asked for one after the other and never kept; `written` is told the
    bytes of each when it has been written."""
    messages = protobuf.schema("tensor_bundle")
    entries: dict[bytes, bytes] = {}
    at = 0
    for tensor in tensors:
        gap = -at % ALIGNMENT
        shard.write(bytes(gap))
        size, crc = _write_strings(shard, tensor.data) if tensor.dtype == STRING else _write_bytes(shard, tensor.data)
        shape = messages["TensorShapeProto"](dim=[messages["Dim"](size=size) for size in tensor.dims])
        record = messages["BundleEntryProto"](dtype=tensor.dtype, shape=shape, offset=at + gap, size=size, crc32c=masked(crc))
        entries[tensor.key.encode("utf-8", "surrogateescape")] = protobuf.dumps(record)
        at += gap + size
        written(size)
    header = messages["BundleHeaderProto"](num_shards=1, version=messages["VersionDef"](producer=VERSION))
    sstable.write(index, [(b"", protobuf.dumps(header)), *sorted(entries.items())])
    return at


def _write_bytes(file: BinaryIO, data: Any) -> tuple[int, int]:
    size = crc = 0
    for chunk in data.chunks() if hasattr(data, "chunks") else [data]:
        view = memoryview(chunk)
        file.write(view)
        size, crc = size + view.nbytes, crc32c(view, crc)
    return size, crc


def _write_strings(file: BinaryIO, elements: Sequence[bytes]) -> tuple[int, int]:
    lengths = b"".join(sstable.number(len(element)) for element in elements)
    crc = crc32c_of(_length_word(len(element)) for element in elements)
    pieces = [struct.pack("<I", masked(crc)), *elements]
    for piece in (lengths, *pieces):
        file.write(piece)
    for piece in pieces:
        crc = crc32c(piece, crc)
    return len(lengths) + sum(map(len, pieces)), crc
