"""The beginning of a compressed file, unpacked in memory under a bound: gzip, zlib, bzip2, xz, lzma and lz4; zstd and 7z are only named.

lz4 is decoded here (its frames and blocks are a page of specification: lz4_Frame_format.md, lz4_Block_format.md); the others are in the standard library.
"""
from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

MEMORY = 64 << 20                          # what an xz stream may ask for its dictionary
LZ4_UNCOMPRESSED = 1 << 31
MOST_LZ4 = 1 << 16


class Head(NamedTuple):
    """How the file is compressed, and its first bytes; empty where this kind cannot be unpacked here or the bytes do not hold."""

    kind: str
    data: bytes


def _zlib(bits: int) -> Callable[[bytes, int], bytes]:
    return lambda data, limit: zlib.decompressobj(bits).decompress(data, limit)


def _bzip2(data: bytes, limit: int) -> bytes:
    import bz2
    return bz2.BZ2Decompressor().decompress(data, limit)


def _xz(data: bytes, limit: int) -> bytes:
    import lzma
    try:
        return lzma.LZMADecompressor(memlimit=MEMORY).decompress(data, limit)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from None


def _lz4(data: bytes, limit: int) -> bytes:
    """The first 64 KiB of a frame: magic number, descriptor, then a length and data for each block. Plain Python is too slow for more."""
    limit = min(limit, MOST_LZ4)
    flags, at = data[4], 7
    at += (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    out = bytearray()
    while at + 4 <= len(data) and len(out) < limit:
        size = int.from_bytes(data[at:at + 4], "little")
        block = data[at + 4:at + 4 + (size & ~LZ4_UNCOMPRESSED)]
        if not block:
            break
        if size & LZ4_UNCOMPRESSED:
            out += block
        else:
            _lz4_block(block, out, limit)
        at += 4 + len(block) + (4 if flags & 0x10 else 0)
    return bytes(out[:limit])


def _lz4_block(block: bytes, out: bytearray, limit: int) -> None:
    """Sequences of literals and a match: token, literals, distance back, length. Stops where the block ends or enough came out."""
    at = 0
    while at < len(block) and len(out) < limit:
        token = block[at]
        at += 1
        count, at = _lz4_length(block, at, token >> 4)
        out += block[at:at + count]
        at += count
        if at + 2 > len(block):
            return
        distance = int.from_bytes(block[at:at + 2], "little")
        count, at = _lz4_length(block, at + 2, token & 15)
        count = min(count + 4, limit)
        if not 0 < distance <= len(out):
            return
        piece = bytes(out[-distance:])
        out += (piece * (count // distance + 1))[:count]


def _lz4_length(block: bytes, at: int, length: int) -> tuple[int, int]:
    if length == 15:
        while at < len(block):
            byte = block[at]
            at += 1
            length += byte
            if byte < 255:
                break
    return length, at


# How a file begins -> the name of its compression and what unpacks it
KINDS: tuple[tuple[bytes, str, Callable[[bytes, int], bytes] | None], ...] = (
    (b"\x1f\x8b\x08", "gzip", _zlib(31)),
    (b"BZh", "bzip2", _bzip2),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x5d\0\0", "lzma", _xz),
    (b"\x04\x22\x4d\x18", "lz4", _lz4),
    (b"\x28\xb5\x2f\xfd", "zstd", None),
    (b"7z\xbc\xaf\x27\x1c", "7z", None),
    (b"Rar!\x1a\x07", "rar", None),
    (b"ZF0x", "zlib of joblib 0.9", lambda data, limit: _zlib(15)(data[21:], limit)),          # behind the mark a length as text, 19 characters wide
    *((start, "zlib", _zlib(15)) for start in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")),
)


def begins_compressed(head: bytes) -> bool:
    return any(head.startswith(start) for start, _, _ in KINDS)


def read(view: memoryview, limit: int) -> Head | None:
    """The first `limit` bytes of what a compressed file holds, None where it is not compressed. Never raises."""
    return _read(bytes(view[:limit]), limit)


@lru_cache(maxsize=1)                      # several formats look into the same file
def _read(data: bytes, limit: int) -> Head | None:
    for start, kind, unpack in KINDS:
        if not data.startswith(start):
            continue
        try:
            return Head(kind, unpack(data, limit) if unpack else b"")
        except (ValueError, OSError, EOFError, IndexError, zlib.error):
            return Head(kind, b"")
    return None
