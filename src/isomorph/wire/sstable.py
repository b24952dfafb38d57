"""Sorted tables of keys and values as LevelDB and TensorFlow lay them out (tensorflow/core/lib/io/{table_format,block,format}).

    data blocks, metaindex block, index block, footer
    block     entries: varint shared, varint unshared, varint length of the value, rest of the key, value; u32 restarts; u32 number of restarts
    after it  1 byte compression (0 none, 1 snappy), u32 masked crc32c over block and that byte
    index     the greatest key of a block or a separator behind it -> varint offset, varint size of the block
    footer    48 bytes: handles of metaindex and index, zeros up to byte 40, u64 magic number
"""
from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from isomorph.errors import Damaged, Unsafe
from isomorph.wire.crc32c import crc32c, masked
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.protobuf_head import varint
from isomorph.wire.snappy import decompress

MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5
PLAIN, SNAPPY = 0, 1
BLOCK_BYTES = 1 << 16
RESTART_EVERY = 16


class _Block:
    """The bytes of one block with a position that only moves forward and never beyond the end."""

    def __init__(self, data: memoryview, where: str):
        self.data, self.where, self.at = data, where, 0
        restarts = int.from_bytes(data[-4:], "little") if len(data) >= 4 else -1
        self.end = len(data) - 4 - 4 * restarts
        if restarts < 0 or self.end < 0:
            raise Damaged(f"a block of the table has {len(data)} bytes and {restarts} restart points", where=where)

    def number(self) -> int:
        value, self.at = varint(self.data, self.at, self.end)
        if self.at < 0:
            raise Damaged("a block of the table ends inside a number", where=self.where)
        return value

    def take(self, count: int) -> memoryview:
        if count > self.end - self.at:
            raise Damaged(f"a block of the table ends inside an entry of {count} bytes", where=self.where)
        self.at += count
        return self.data[self.at - count:self.at]

    def entries(self) -> Iterator[tuple[bytes, memoryview]]:
        key = b""
        while self.at < self.end:
            shared, rest, length = self.number(), self.number(), self.number()
            if shared > len(key):
                raise Damaged(f"a key of the table shares {shared} bytes with one of {len(key)}", where=self.where)
            key = key[:shared] + bytes(self.take(rest))
            yield key, self.take(length)


def read(view: memoryview, where: str = "", limits: Limits = DEFAULT) -> Iterator[tuple[bytes, memoryview]]:
    """All entries in order. Raises `Damaged` for a wrong checksum, offset or order, `Unsafe` where there are more entries than `Limits.tensors`."""
    if len(view) < FOOTER or int.from_bytes(view[-8:], "little") != MAGIC:
        raise Damaged("the file does not end with the footer of a table", where=where)
    footer = view[-FOOTER:-8]
    at = 0
    handle = []
    for _ in range(4):
        number, at = varint(footer, at, len(footer))
        if at < 0:
            raise Damaged("the footer of the table is damaged", where=where, offset=len(view) - FOOTER)
        handle.append(number)
    previous, count = None, 0
    for _, place in _block(view, handle[2], handle[3], where, limits).entries():
        offset, at = varint(place, 0, len(place))
        size, at = varint(place, max(at, 0), len(place)) if at >= 0 else (0, -1)
        if at < 0:
            raise Damaged("the index of the table has no place for a block", where=where)
        for key, value in _block(view, offset, size, where, limits).entries():
            if previous is not None and key <= previous:
                raise Damaged(f"the keys of the table are not in order: {previous[:80]!r} stands before {key[:80]!r}", where=where)
            previous, count = key, count + 1
            if count > limits.tensors + 1:
                raise Unsafe(f"the table has more than {limits.tensors} entries", where=where, hint="raise Limits.tensors if the file is trusted")
            yield key, value


def _block(view: memoryview, offset: int, size: int, where: str, limits: Limits) -> _Block:
    if offset + size + TRAILER > len(view) - FOOTER:
        raise Damaged(f"a block of the table would end {offset + size + TRAILER + FOOTER - len(view)} bytes behind it", where=where, offset=offset)
    kind = view[offset + size]
    stored = int.from_bytes(view[offset + size + 1:offset + size + TRAILER], "little")
    if stored != masked(crc32c(view[offset:offset + size + 1])):
        raise Damaged("a block of the table does not have its checksum", where=where, offset=offset)
    if kind not in (PLAIN, SNAPPY):
        raise Damaged(f"a block of the table has the unknown compression {kind}", where=where, offset=offset)
    data = view[offset:offset + size]
    return _Block(memoryview(decompress(data, where, limits)) if kind == SNAPPY else data, where)


def number(value: int) -> bytes:
    """A varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write(file: BinaryIO, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """A table of `entries`, whose keys must ascend. Keys share their beginnings, blocks are not compressed, as TensorFlow writes them."""
    at = 0
    index: list[tuple[bytes, bytes]] = []

    def put(block: bytes) -> bytes:
        nonlocal at
        place = number(at) + number(len(block))
        file.write(block + bytes([PLAIN]) + struct.pack("<I", masked(crc32c(block + bytes([PLAIN])))))
        at += len(block) + TRAILER
        return place

    pending: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in entries:
        pending.append((key, value))
        size += len(key) + len(value)
        if size >= BLOCK_BYTES:
            index.append((key, put(_packed(pending, RESTART_EVERY))))
            pending, size = [], 0
    if pending:
        index.append((pending[-1][0], put(_packed(pending, RESTART_EVERY))))
    handles = put(_packed([], 1)) + put(_packed(index, 1))
    file.write(handles.ljust(FOOTER - 8, b"\0") + struct.pack("<Q", MAGIC))


def _packed(entries: list[tuple[bytes, bytes]], restart_every: int) -> bytes:
    out, restarts, previous = bytearray(), [], b""
    for place, (key, value) in enumerate(entries):
        shared = 0
        if place % restart_every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        out += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
