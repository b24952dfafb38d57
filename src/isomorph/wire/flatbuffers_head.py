"""A bounded look at single tables of a flatbuffer, for recognising files; reading them is the work of `flatbuffers`.

Layout: flatbuffers.dev, "FlatBuffer Internals". Every function answers 0 or an empty value where an offset does not hold, and never raises.
"""
from __future__ import annotations


def number(view: memoryview, at: int, width: int, signed: bool = False) -> int:
    """A little-endian integer of `width` bytes, 0 where it lies outside."""
    return int.from_bytes(view[at:at + width], "little", signed=signed) if 0 <= at <= len(view) - width else 0


def identifier(head: bytes) -> str:
    """The four characters of the file identifier, where they are letters and digits, else an empty string."""
    mark = head[4:8]
    return mark.decode() if len(mark) == 4 and mark.isalnum() and mark.isascii() else ""


def root(view: memoryview) -> int:
    """Where the root table stands, 0 where the offset does not hold."""
    at = number(view, 0, 4)
    return at if is_table(view, at) else 0


def is_table(view: memoryview, at: int) -> bool:
    """Whether a table with a plausible vtable stands there."""
    if not 4 <= at <= len(view) - 4:
        return False
    vtable = at - number(view, at, 4, signed=True)
    size = number(view, vtable, 2)
    return 0 <= vtable <= len(view) - 4 and size >= 4 and size % 2 == 0 and vtable + size <= len(view)


def field(view: memoryview, table: int, slot: int) -> int:
    """Where the field of that slot stands in a table, 0 where it is absent."""
    vtable = table - number(view, table, 4, signed=True)
    if not table or 6 + 2 * slot > number(view, vtable, 2):
        return 0
    offset = number(view, vtable + 4 + 2 * slot, 2)
    return table + offset if offset else 0


def scalar(view: memoryview, table: int, slot: int, width: int, signed: bool = False, default: int = 0) -> int:
    at = field(view, table, slot)
    return number(view, at, width, signed) if at else default


def target(view: memoryview, at: int) -> int:
    """What the offset at `at` points to, 0 where it points outside."""
    to = at + number(view, at, 4)
    return to if at and at < to <= len(view) - 4 else 0


def child(view: memoryview, table: int, slot: int) -> int:
    """The table that a field points to, 0 where there is none."""
    at = target(view, field(view, table, slot))
    return at if is_table(view, at) else 0


def vector(view: memoryview, table: int, slot: int, element: int) -> tuple[int, int]:
    """Where the elements of a vector begin and how many there are; (0, 0) where it is absent or does not fit."""
    at = target(view, field(view, table, slot))
    count = number(view, at, 4)
    return (at + 4, count) if at and at + 4 + count * element <= len(view) else (0, 0)


def tables(view: memoryview, table: int, slot: int, most: int) -> list[int]:
    """The first `most` tables of a vector of tables."""
    start, count = vector(view, table, slot, 4)
    found = (target(view, start + 4 * index) for index in range(min(count, most)))
    return [at for at in found if is_table(view, at)]


def string(view: memoryview, table: int, slot: int, limit: int = 200) -> str:
    start, count = vector(view, table, slot, 1)
    return bytes(view[start:start + min(count, limit)]).decode("utf-8", "replace")
