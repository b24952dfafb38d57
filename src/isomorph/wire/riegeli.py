"""Riegeli's files of records, read: github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md.

A file is a row of chunks, and a chunk holds records. Every 64 KiB a header of 24 bytes interrupts whatever is there. Headers carry HighwayHash sums, which are
checked; those of data only up to 1 MiB, because plain Python is slow at it. Chunks whose records are taken apart field by field ("transposed", which no writer
does unless it is asked to) are refused.
"""
from __future__ import annotations

import struct
from typing import Any, NamedTuple

from isomorph.errors import Damaged, Missing, Unsafe, Unsupported
from isomorph.wire import snappy
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.protobuf_head import varint

BLOCK, BLOCK_HEADER, CHUNK_HEADER = 1 << 16, 24, 40
USABLE = BLOCK - BLOCK_HEADER
SIGNATURE = bytes.fromhex("83af70d10d884a3f0000000000000000400000000000000091bac23c9287e1a9")
RECORDS, TRANSPOSED, WITHOUT_RECORDS = ord("r"), ord("t"), frozenset(b"smp")
NONE, BROTLI, ZSTD, SNAPPY = 0, ord("b"), ord("z"), ord("s")
MOST_HASHED = 1 << 20
MASK = (1 << 64) - 1


class Chunk(NamedTuple):
    """Where a chunk begins and what its header says."""

    begin: int
    data: int                   # the position behind the header
    data_size: int
    data_hash: int
    records: int
    decoded_size: int


class Records:
    """The records of a file by position: the beginning of a chunk plus the number of the record in it. `last` is the position of the last record."""

    def __init__(self, view: memoryview, limits: Limits = DEFAULT, where: str = ""):
        if bytes(view[:len(SIGNATURE)]) != SIGNATURE:
            raise Damaged("it does not begin as a file of records does", where=where)
        self.view, self.limits, self.where = view, limits, where
        self.chunks: dict[int, Chunk] = {}
        self.decoded: tuple[int, list[memoryview]] = (-1, [])
        at = 0
        while at < len(view):
            at = self._header(at)
            if len(self.chunks) > limits.tensors:
                raise Unsafe(f"more than {limits.tensors} chunks (limit tensors)", where=where)
        if not self.chunks:
            raise Damaged("it holds no records", where=where)
        self.begins = sorted(self.chunks)
        self.last = self.begins[-1] + self.chunks[self.begins[-1]].records - 1
        self.size = sum(chunk.decoded_size for chunk in self.chunks.values())

    def __getitem__(self, position: int) -> memoryview:
        """The record there. Raises `Damaged` where there is none."""
        import bisect
        begin = self.begins[max(0, bisect.bisect_right(self.begins, position) - 1)]
        if self.decoded[0] != begin:
            self.decoded = (begin, self._records(self.chunks[begin]))
        found = self.decoded[1]
        if not 0 <= position - begin < len(found):
            raise Damaged("there is no record at this place", where=self.where, offset=position)
        return found[position - begin]

    def _header(self, begin: int) -> int:
        """Notes the chunk that begins here and returns where the next one does."""
        raw, after = self._span(begin, CHUNK_HEADER)
        stated, data_size, data_hash, kind, decoded_size = struct.unpack("<QQQQQ", raw)
        if highway_hash(raw[8:]) != stated:
            raise Damaged("the header of a chunk does not have its checksum", where=self.where, offset=begin)
        count, kind = kind >> 8, kind & 0xFF
        if kind == TRANSPOSED:
            raise Unsupported("its records are taken apart field by field (a transposed chunk), of which no description is published", where=self.where)
        if kind == RECORDS and count:
            self.chunks[begin] = Chunk(begin, after, data_size, data_hash, count, decoded_size)
        elif kind not in WITHOUT_RECORDS | {RECORDS}:
            raise Damaged(f"a chunk of the type {kind}", where=self.where, offset=begin)
        return max(_with_headers(begin, CHUNK_HEADER + data_size), _boundary(begin + count))

    def _span(self, at: int, size: int) -> tuple[bytes, int]:
        """`size` bytes from here on without the headers of blocks, and the position behind them."""
        if size > len(self.view) - at:
            raise Damaged("the file ends inside a chunk", where=self.where, offset=at)
        pieces = []
        while size:
            at += BLOCK_HEADER if at % BLOCK == 0 else 0
            part = min(size, BLOCK - at % BLOCK)
            if at + part > len(self.view):
                raise Damaged("the file ends inside a chunk", where=self.where, offset=at)
            pieces.append(self.view[at:at + part])
            at, size = at + part, size - part
        return b"".join(pieces), at

    def _records(self, chunk: Chunk) -> list[memoryview]:
        """The records of a simple chunk: their sizes, then all of them one behind the other."""
        data, _ = self._span(chunk.data, chunk.data_size)
        if len(data) <= MOST_HASHED and highway_hash(data) != chunk.data_hash:
            raise Damaged("the data of a chunk do not have their checksum", where=self.where, offset=chunk.begin)
        view = memoryview(data)
        length, at = varint(view, 1, len(view))
        if at < 0 or length > len(view) - at:
            raise Damaged("the sizes of a chunk run beyond its end", where=self.where, offset=chunk.begin)
        sizes, values = (memoryview(self._unpacked(part, view[0])) for part in (view[at:at + length], view[at + length:]))
        found, place, start = [], 0, 0
        for _ in range(min(chunk.records, len(sizes))):
            size, place = varint(sizes, place, len(sizes))
            if place < 0 or size > len(values) - start:
                break
            found.append(values[start:start + size])
            start += size
        if len(found) != chunk.records or start != len(values) or start != chunk.decoded_size:
            raise Damaged("the sizes of a chunk contradict its data", where=self.where, offset=chunk.begin)
        return found

    def _unpacked(self, part: memoryview, kind: int) -> Any:
        if kind == NONE:
            return part
        size, at = varint(part, 0, len(part))
        if at < 0:
            raise Damaged("compressed data without a size", where=self.where)
        if size > self.limits.expansion_floor and size > len(part) * self.limits.expansion:
            raise Unsafe(f"{len(part)} bytes unpack to {size}", where=self.where, hint="raise Limits.expansion if the file is trusted")
        made = snappy.decompress(part[at:], self.where, self.limits) if kind == SNAPPY else _brotli(part[at:], size, kind, self.where)
        if len(made) != size:
            raise Damaged(f"data that should unpack to {size} bytes do not", where=self.where)
        return made


def _brotli(part: memoryview, size: int, kind: int, where: str) -> bytes:
    if kind != BROTLI:
        raise Unsupported("its records are compressed with " + ("Zstandard" if kind == ZSTD else f"an unknown method ({kind})"), where=where)
    try:
        import brotli
    except ImportError:
        raise Missing("its records are compressed with Brotli", where=where, hint="run `pip install 'isomorph[brotli]'`") from None
    try:
        return bytes(brotli.Decompressor().process(bytes(part), output_buffer_limit=size + 1))
    except brotli.error as error:
        raise Damaged(f"Brotli refuses the data: {error}", where=where) from None


def _with_headers(at: int, size: int) -> int:
    """Where `size` bytes from here on end, headers of blocks between them."""
    return at + size + (size + (at + USABLE - 1) % BLOCK) // USABLE * BLOCK_HEADER


def _boundary(at: int) -> int:
    """The next place from here on where a chunk may begin, which is not in the header of a block nor right behind it."""
    return at + max(0, -at % BLOCK - (USABLE - 1))


# HighwayHash of 64 bits: github.com/google/highwayhash, c/highwayhash.c. Its state are four lanes each of v0, v1, mul0 and mul1.

KEY = struct.unpack("<4Q", b"Riegeli/records\n" * 2)
MUL0 = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
MUL1 = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)


def highway_hash(data: bytes) -> int:
    """The sum that Riegeli's headers carry."""
    v0, v1 = [mul ^ key for mul, key in zip(MUL0, KEY, strict=True)], [mul ^ _halves(key) for mul, key in zip(MUL1, KEY, strict=True)]
    state = (v0, v1, list(MUL0), list(MUL1))
    whole = len(data) - len(data) % 32
    for start in range(0, whole, 32):
        _update(state, struct.unpack_from("<4Q", data, start))
    if rest := data[whole:]:
        for lane in range(4):
            v0[lane] = v0[lane] + (len(rest) << 32) + len(rest) & MASK
            v1[lane] = _turned(v1[lane] & 0xFFFFFFFF, len(rest)) | _turned(v1[lane] >> 32, len(rest)) << 32
        _update(state, struct.unpack("<4Q", _padded(rest)))
    for _ in range(4):
        _update(state, [_halves(v0[lane]) for lane in (2, 3, 0, 1)])
    return v0[0] + v1[0] + state[2][0] + state[3][0] & MASK


def _halves(lane: int) -> int:
    return lane >> 32 | lane << 32 & MASK


def _turned(half: int, count: int) -> int:
    return (half << count | half >> 32 - count) & 0xFFFFFFFF


def _padded(rest: bytes) -> bytes:
    """The last bytes, fewer than 32, in the packet that stands for them."""
    packet, odd = bytearray(32), len(rest) & 3
    packet[:len(rest) - odd] = rest[:len(rest) - odd]
    if len(rest) & 16:
        packet[28:] = rest[-4:]
    elif odd:
        tail = rest[len(rest) - odd:]
        packet[16:19] = bytes((tail[0], tail[odd >> 1], tail[odd - 1]))
    return bytes(packet)


def _update(state: tuple[list[int], ...], packet: Any) -> None:
    v0, v1, mul0, mul1 = state
    for lane in range(4):
        v1[lane] = v1[lane] + mul0[lane] + packet[lane] & MASK
        mul0[lane] ^= (v1[lane] & 0xFFFFFFFF) * (v0[lane] >> 32)
        v0[lane] = v0[lane] + mul1[lane] & MASK
        mul1[lane] ^= (v0[lane] & 0xFFFFFFFF) * (v1[lane] >> 32)
    for into, source in ((v0, v1), (v1, v0)):
        for low in (0, 2):
            a, b = _zipped(source[low], source[low + 1])
            into[low], into[low + 1] = into[low] + a & MASK, into[low + 1] + b & MASK


def _zipped(low: int, high: int) -> tuple[int, int]:
    """Bytes of two lanes in another order, so that the poor ones of a product meet the good ones."""
    both = low.to_bytes(8, "little") + high.to_bytes(8, "little")
    return int.from_bytes(bytes(both[place] for place in LOW), "little"), int.from_bytes(bytes(both[place] for place in HIGH), "little")


LOW, HIGH = (3, 12, 2, 5, 14, 1, 15, 0), (11, 4, 10, 13, 9, 6, 8, 7)
