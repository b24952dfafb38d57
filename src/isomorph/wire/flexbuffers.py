"""FlexBuffers, the schema-less sister of FlatBuffers, as far as options of custom operators need them: maps of numbers, texts and vectors of numbers.

Layout: https://flatbuffers.dev/internals/#flexbuffers. The root stands at the end: value, its type, its width.
"""
from __future__ import annotations

import struct
from typing import Any

INTS, UINTS, FLOATS = {1: "b", 2: "h", 4: "i", 8: "q"}, {1: "B", 2: "H", 4: "I", 8: "Q"}, {4: "f", 8: "d"}
INT, UINT, FLOAT, KEY, STRING, INDIRECT_INT, INDIRECT_UINT, INDIRECT_FLOAT, MAP, VECTOR = range(1, 11)
BLOB, BOOL = 25, 26
TYPED = {11: INT, 12: UINT, 13: FLOAT, 14: KEY, 36: BOOL}
MOST = 4096


class NotFlex(ValueError):
    """The bytes are no FlexBuffer, or hold more than options do."""


def loads(data: bytes | memoryview) -> Any:
    """The root value. Raises `NotFlex`."""
    data = bytes(data)
    if len(data) < 3:
        raise NotFlex
    width, packed = data[-1], data[-2]
    try:
        return _Reader(data).value(len(data) - 2 - width, width, packed, 0)
    except (struct.error, LookupError, ValueError):             # ValueError: text that is not UTF-8 or has no end, keys without values
        raise NotFlex from None


class _Reader:
    def __init__(self, data: bytes):
        self.data, self.read = data, 0

    def number(self, codes: dict[int, str], position: int, width: int) -> Any:
        if position < 0:
            raise NotFlex
        return struct.unpack_from("<" + codes[width], self.data, position)[0]

    def target(self, position: int, width: int) -> int:
        """Offsets point backwards."""
        found = position - self.number(UINTS, position, width)
        if not 0 <= found <= position:                              # an empty vector may stand where its offset does
            raise NotFlex
        return found

    def value(self, position: int, width: int, packed: int, depth: int) -> Any:
        """The value at `position`: itself where it is stored in place, else what its offset points to. The low bits of the type are the width there."""
        self.read += 1
        if depth > 4 or self.read > MOST:
            raise NotFlex
        kind, inner = packed >> 2, 1 << (packed & 3)
        if kind in (0, INT, UINT, FLOAT, BOOL):
            codes = {INT: INTS, FLOAT: FLOATS}.get(kind, UINTS)
            found = None if kind == 0 else self.number(codes, position, width)
            return bool(found) if kind == BOOL else found
        where = self.target(position, width)
        if kind in (INDIRECT_INT, INDIRECT_UINT, INDIRECT_FLOAT):
            return self.number({INDIRECT_INT: INTS, INDIRECT_UINT: UINTS, INDIRECT_FLOAT: FLOATS}[kind], where, inner)
        if kind == KEY:
            return self.data[where:self.data.index(b"\0", where)].decode()
        if kind in (STRING, BLOB):
            found = self.data[where:where + self.number(UINTS, where - inner, inner)]
            return found.decode() if kind == STRING else found
        if kind == MAP:
            return self.map(where, inner, depth)
        if kind == VECTOR or kind in TYPED:
            return self.vector(where, inner, TYPED.get(kind), depth)
        raise NotFlex

    def vector(self, where: int, width: int, kind: int | None, depth: int) -> list[Any]:
        size = self.number(UINTS, where - width, width)
        if size > MOST:
            raise NotFlex
        types = [kind << 2 if kind else self.data[where + size * width + place] for place in range(size)]
        return [self.value(where + place * width, width, packed, depth + 1) for place, packed in enumerate(types)]

    def map(self, where: int, width: int, depth: int) -> dict[str, Any]:
        keys_width = self.number(UINTS, where - 2 * width, width)
        keys = self.vector(self.target(where - 3 * width, width), keys_width, KEY, depth)
        return dict(zip(keys, self.vector(where, width, None, depth), strict=True))
