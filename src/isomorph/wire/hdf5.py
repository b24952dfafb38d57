"""The outline of an HDF5 file: the attributes and links of its root group, read under a budget and without h5py, whose import costs more than the rest.

Layout: HDF5 File Format Specification 3.0: superblock II.A, B-trees and heaps III, object headers IV. Attributes and links that a file keeps in a fractal
heap (more than eight of them, newest layout only) are not listed; `dense` says so.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from isomorph.errors import Damaged

SIGNATURE = b"\x89HDF\r\n\x1a\n"
PLACES = (0, 512, 1024, 2048, 4096, 8192)
UNDEFINED = (1 << 64) - 1
LINK_INFO, LINK, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 0x02, 0x06, 0x0C, 0x10, 0x11, 0x15
STRING, VARIABLE = 3, 9                    # classes of datatypes
MOST_MESSAGES, MOST_NODES, MOST_LINKS, MOST_TEXTS, LONGEST_NAME = 1_000, 64, 500, 32, 1_024


@dataclass
class Outline:
    """The root group. Attribute values are kept where they are text: their first 4,096 bytes, else None. Links name object header addresses."""

    version: int = 0
    attributes: dict[str, str | None] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    dense: bool = False


class _File:
    """A mapped file and the widths of its addresses and lengths."""

    def __init__(self, view: memoryview, where: str):
        self.view, self.where, self.texts = view, where, 0
        self.base = next((at for at in PLACES if bytes(view[at:at + 8]) == SIGNATURE), -1)
        if self.base < 0:
            raise Damaged("there is no HDF5 superblock", where=where)
        self.version = self.number(self.base + 8, 1)
        if self.version > 3:
            raise Damaged(f"superblock version {self.version} is unknown", where=where, offset=self.base)
        widths = self.base + (13 if self.version < 2 else 9)
        self.offset, self.length = self.number(widths, 1), self.number(widths + 1, 1)
        if self.offset not in (2, 4, 8) or self.length not in (2, 4, 8):
            raise Damaged("offsets or lengths have an impossible width", where=where, offset=widths)

    def number(self, at: int, width: int) -> int:
        if not 0 <= at <= len(self.view) - width:
            raise Damaged("an HDF5 structure lies beyond the end of the file", where=self.where, offset=at)
        return int.from_bytes(self.view[at:at + width], "little")

    def address(self, at: int) -> int:
        """An address as a position in the file, -1 where it is undefined."""
        value = self.number(at, self.offset)
        return -1 if value == (1 << 8 * self.offset) - 1 else self.base + value

    def piece(self, at: int, count: int) -> bytes:
        if not 0 <= at <= at + count <= len(self.view):
            raise Damaged("an HDF5 structure lies beyond the end of the file", where=self.where, offset=at)
        return bytes(self.view[at:at + count])

    def expect(self, at: int, mark: bytes) -> None:
        if self.piece(at, len(mark)) != mark:
            raise Damaged(f"expected the HDF5 structure {mark.decode()}", where=self.where, offset=at)

    def root(self) -> int:
        """The address of the root group's object header."""
        if self.version >= 2:
            return self.address(self.base + 12 + 3 * self.offset)
        entry = self.base + (24 if self.version == 0 else 28) + 4 * self.offset
        return self.address(entry + self.offset)


def outline(view: memoryview, where: str = "") -> Outline:
    """Attributes and links of the root group. Raises `Damaged` where a structure does not hold."""
    file = _File(view, where)
    return _group(file, file.root())


def group(view: memoryview, address: int, where: str = "") -> Outline:
    """The same of another group, whose address a link of the outline names."""
    return _group(_File(view, where), address)


def _group(file: _File, address: int) -> Outline:
    result = Outline(file.version)
    for kind, at, size in _messages(file, address):
        if kind == ATTRIBUTE:
            name, value = _attribute(file, at, size)
            result.attributes[name] = value
        elif kind == SYMBOL_TABLE:
            result.links |= _symbols(file, file.address(at), file.address(at + file.offset))
        elif kind == LINK:
            name, target = _link(file, at)
            result.links[name] = target
        elif kind in (LINK_INFO, ATTRIBUTE_INFO):
            flags = file.number(at + 1, 1)
            counter = (8 if kind == LINK_INFO else 2) if flags & 1 else 0
            result.dense = result.dense or file.address(at + 2 + counter) >= 0
    return result


def _messages(file: _File, address: int) -> Iterator[tuple[int, int, int]]:
    """(kind, position, size) of every message of an object header, continuations included, of both versions."""
    modern = file.piece(address, 4) == b"OHDR"
    if modern:
        flags = file.number(address + 5, 1)
        at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        blocks = [(at + width, file.number(at, width))]
        head, creation = 4, 2 if flags & 4 else 0
    else:
        if file.number(address, 1) != 1:
            raise Damaged("expected an HDF5 object header", where=file.where, offset=address)
        blocks = [(address + 16, file.number(address + 8, 4))]
        head, creation = 8, 0
    count = 0
    while blocks:
        at, size = blocks.pop(0)
        end = at + size
        while at + head + creation <= end and count < MOST_MESSAGES:
            count += 1
            kind, length = (file.number(at, 1), file.number(at + 1, 2)) if modern else (file.number(at, 2), file.number(at + 2, 2))
            data = at + head + creation
            if kind == CONTINUATION:
                start, room = file.address(data), file.number(data + file.offset, file.length)
                if len(blocks) < MOST_NODES:
                    blocks.append((start + 4, room - 8) if modern else (start, room))
            elif data + length <= end:
                yield kind, data, length
            at = data + length


def _attribute(file: _File, at: int, size: int) -> tuple[str, str | None]:
    version = file.number(at, 1)
    lengths = [file.number(at + 2 + 2 * index, 2) for index in range(3)]
    start = at + (9 if version == 3 else 8)
    padded = [-(-length // 8) * 8 if version == 1 else length for length in lengths]
    name = file.piece(start, min(lengths[0], LONGEST_NAME)).rstrip(b"\0").decode("utf-8", "replace")
    kind = file.number(start + padded[0], 1) & 0x0F
    width = file.number(start + padded[0] + 4, 4)
    data = start + sum(padded)
    if data > at + size:
        return name, None
    if kind == STRING:
        return name, file.piece(data, min(width, at + size - data, 4096)).rstrip(b"\0 ").decode("utf-8", "replace")
    if kind == VARIABLE and file.number(start + padded[0] + 1, 1) & 0x0F == 1 and data + 8 + file.offset <= at + size:
        return name, _heap_text(file, file.number(data, 4), file.address(data + 4), file.number(data + 4 + file.offset, 4))
    return name, None


def _heap_text(file: _File, length: int, heap: int, index: int) -> str | None:
    """A string of variable length: object `index` of a global heap."""
    file.texts += 1
    if heap < 0 or file.texts > MOST_TEXTS:
        return None
    file.expect(heap, b"GCOL")
    at, end = heap + 8 + file.length, heap + file.number(heap + 8, file.length)
    for _ in range(MOST_MESSAGES):
        if at + 8 + file.length > min(end, len(file.view)):
            break
        number, size = file.number(at, 2), file.number(at + 8, file.length)
        if number == index:
            return file.piece(at + 8 + file.length, min(length, size, 4096)).decode("utf-8", "replace")
        if number == 0:
            break
        at += 8 + file.length + -(-size // 8) * 8
    return None


def _symbols(file: _File, tree: int, heap: int) -> dict[str, int]:
    """The links of a group of the old kind: a B-tree of symbol nodes whose names stand in a local heap."""
    file.expect(heap, b"HEAP")
    names = file.address(heap + 8 + 2 * file.length)
    links: dict[str, int] = {}
    pending, seen = [tree], 0
    while pending and seen < MOST_NODES and len(links) < MOST_LINKS:
        node, seen = pending.pop(0), seen + 1
        if file.piece(node, 4) == b"TREE":
            entries, at = min(file.number(node + 6, 2), MOST_NODES), node + 8 + 2 * file.offset
            pending += [file.address(at + file.length + index * (file.length + file.offset)) for index in range(entries)]
            continue
        file.expect(node, b"SNOD")
        for index in range(min(file.number(node + 6, 2), MOST_LINKS)):
            entry = node + 8 + index * (2 * file.offset + 24)
            name = file.view[max(0, names + file.number(entry, file.offset)):][:LONGEST_NAME]
            links[bytes(name).split(b"\0")[0].decode("utf-8", "replace")] = file.address(entry + file.offset)
    return links


def _link(file: _File, at: int) -> tuple[str, int]:
    """A link message; only hard links have an address, of the others it is -1."""
    flags = file.number(at + 1, 1)
    place = at + 2
    kind = 0
    if flags & 8:
        kind, place = file.number(place, 1), place + 1
    place += (8 if flags & 4 else 0) + (1 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    length = file.number(place, width)
    name = file.piece(place + width, min(length, LONGEST_NAME)).decode("utf-8", "replace")
    return name, file.address(place + width + length) if kind == 0 else -1
