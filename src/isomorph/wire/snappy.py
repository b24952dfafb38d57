"""Snappy's raw format, read: github.com/google/snappy/blob/main/format_description.txt. It compresses the blocks of an index, so plain Python is enough."""
from __future__ import annotations

from isomorph.errors import Damaged, Unsafe
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.protobuf_head import varint

LITERAL, NEAR, FAR = 0, 1, 2
LONGEST_INLINE = 60


def decompress(view: memoryview, where: str = "", limits: Limits = DEFAULT) -> bytes:
    """The unpacked bytes. Raises `Damaged` where they are not what the length at the beginning says, `Unsafe` where that length is out of proportion."""
    length, at = varint(view, 0, len(view))
    if at < 0:
        raise Damaged("a snappy block has no length", where=where)
    if length > limits.expansion_floor and length > len(view) * limits.expansion:
        raise Unsafe(f"a snappy block of {len(view)} bytes unpacks to {length}", where=where, hint="raise Limits.expansion if the file is trusted")
    out = bytearray()
    try:
        while at < len(view) and len(out) <= length:
            at = _element(view, at, out)
    except IndexError:
        raise Damaged("a snappy block ends inside an element", where=where) from None
    except ValueError as error:
        raise Damaged(f"a snappy block {error}", where=where) from None
    if len(out) != length or at != len(view):
        raise Damaged(f"a snappy block says that it unpacks to {length} bytes, and does not", where=where)
    return bytes(out)


def _element(view: memoryview, at: int, out: bytearray) -> int:
    """Appends what one element stands for, a run of literals or a copy of what came before, and returns where the next one begins."""
    tag = view[at]
    kind, short = tag & 3, tag >> 2
    if kind == LITERAL:
        width = short - LONGEST_INLINE + 1 if short >= LONGEST_INLINE else 0
        count = 1 + (_number(view, at + 1, width) if width else short)
        start = at + 1 + width
        if start + count > len(view):
            raise ValueError("has a literal that runs beyond its end")
        out += view[start:start + count]
        return start + count
    if kind == NEAR:
        _copy(out, tag >> 5 << 8 | view[at + 1], 4 + (short & 7))
        return at + 2
    width = 2 if kind == FAR else 4
    _copy(out, _number(view, at + 1, width), 1 + short)
    return at + 1 + width


def _number(view: memoryview, at: int, width: int) -> int:
    if at + width > len(view):
        raise IndexError
    return int.from_bytes(view[at:at + width], "little")


def _copy(out: bytearray, distance: int, count: int) -> None:
    if not 0 < distance <= len(out):
        raise ValueError("copies from before its beginning")
    piece = out[-distance:]
    out += (piece * (count // distance + 1))[:count]
