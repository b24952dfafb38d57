"""The fields of a protobuf message without a schema, as far as they can be told from the outside: for recognising files, not for reading them.

Layout: protobuf.dev, "Encoding". Payloads are skipped by their length and never touched.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MOST_FIELDS = 20_000


class Field(NamedTuple):
    """One field: its number, wire type, value of a varint (else 0), and where its payload begins and ends."""

    number: int
    wire: int
    value: int
    start: int
    stop: int


@dataclass
class Outline:
    """The fields of one message in order. `valid` is False where the bytes are no message.

    `cut` is the number of a field that runs over the end, and `rest` the position where its payload begins.
    """

    fields: list[Field] = field(default_factory=list)
    cut: int = 0
    rest: int = -1
    valid: bool = True
    complete: bool = True

    def first(self, number: int) -> Field | None:
        return next((item for item in self.fields if item.number == number), None)

    def first_or_cut(self, number: int, end: int) -> Field | None:
        """The first field of that number; where the file ends inside it, what is left of it."""
        if self.cut == number and self.rest >= 0 and self.first(number) is None:
            return Field(number, BYTES, 0, self.rest, end)
        return self.first(number)

    def all(self, number: int) -> list[Field]:
        return [item for item in self.fields if item.number == number]

    def kinds(self) -> dict[int, int]:
        """The wire type of every field number that occurs (of its last occurrence)."""
        return {item.number: item.wire for item in self.fields}

    def fits(self, allowed: dict[int, int]) -> bool:
        """Whether every field is one of `allowed` (number -> wire type)."""
        return all(allowed.get(number) == wire for number, wire in self.kinds().items())


def varint(view: memoryview, at: int, stop: int) -> tuple[int, int]:
    """The value at `at` and where the next byte stands; -1 for the position where there is no varint of at most 10 bytes."""
    value = shift = 0
    while at < stop and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, -1


def outline(view: memoryview, start: int = 0, stop: int | None = None, most: int = MOST_FIELDS) -> Outline:
    """The first `most` fields of the message in `view[start:stop]`. Never raises: bytes that are no message give `valid = False`."""
    end = len(view) if stop is None else stop
    result = Outline()
    at = start
    while at < end:
        if len(result.fields) >= most:
            result.complete = False
            return result
        tag, at = varint(view, at, end)
        number, wire = tag >> 3, tag & 7
        if at < 0 or not 0 < number < 1 << 29 or wire not in (VARINT, FIXED64, BYTES, FIXED32):
            result.valid = result.complete = False
            return result
        value = 0
        if wire == BYTES:
            length, begin = varint(view, at, end)
            following = begin + length
        elif wire == VARINT:
            begin = at
            value, following = varint(view, at, end)
        else:
            begin, following = at, at + (8 if wire == FIXED64 else 4)
        if begin < 0 or following < 0 or following > end:
            result.cut, result.rest, result.complete = number, begin, False
            return result
        result.fields.append(Field(number, wire, value, begin, following))
        at = following
    return result


def text(view: memoryview, item: Field | None, limit: int = 200) -> str:
    """The payload of a field as text, cut to `limit` bytes; empty where it is absent or no text."""
    if item is None or item.wire != BYTES:
        return ""
    data = bytes(view[item.start:min(item.stop, item.start + limit)])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""
