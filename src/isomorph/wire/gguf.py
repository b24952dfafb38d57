"""The bytes of GGUF, versions 1 to 3, of both byte orders: keys, tensor infos, and where the data begins. Long arrays stay in the file until asked for.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; what is refused follows ggml/src/gguf.cpp.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from isomorph.errors import Damaged, Unsafe
from isomorph.wire.limits import DEFAULT, Limits

MAGIC = b"GGUF"
VERSIONS = (1, 2, 3)
# number of a value type -> its name and its struct code; strings and arrays have none
KINDS = {0: ("u8", "B"), 1: ("i8", "b"), 2: ("u16", "H"), 3: ("i16", "h"), 4: ("u32", "I"), 5: ("i32", "i"), 6: ("f32", "f"), 7: ("bool", "?"),
         8: ("string", ""), 9: ("array", ""), 10: ("u64", "Q"), 11: ("i64", "q"), 12: ("f64", "d")}
NUMBERS = {name: number for number, (name, _) in KINDS.items()}
CODES = {name: code for name, code in KINDS.values()}
WIDTHS = {name: struct.calcsize("<" + code) for name, code in KINDS.values() if code}
ALIGNMENT = 32
HIGHEST_ALIGNMENT = 1 << 16
MOST_KEYS, MOST_STRINGS = 20_000, 1_500_000
LONGEST_TEXT, LONGEST_KEY, LONGEST_NAME, MOST_DIMENSIONS, DEEPEST = 16 << 20, 65_535, 63, 4, 4
HIGHEST = (1 << 63) - 1                    # of a size or a count of elements, as the reference counts them


class Array(Sequence[Any]):
    """An array of the file, read when it is asked for. `kind` names the type of its elements."""

    def __init__(self, kind: str, count: int, view: memoryview, start: int, stop: int, order: str, wide: str):
        self.kind, self.size, self.view, self.start, self.stop, self.order, self.wide = kind, count, view, start, stop, order, wide
        self._items: list[Any] | None = None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice) and self._items is None and place.step in (None, 1) and not place.start and (place.stop or 0) > 0:
            return self._first(min(place.stop, self.size))
        return self.items[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, (str, bytes)) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Array<{self.kind}>[{self.size}]"

    @property
    def items(self) -> list[Any]:
        """All elements, made at the first use and kept."""
        if self._items is None:
            self._items = self._first(self.size)
        return self._items

    @property
    def raw(self) -> memoryview:
        """The bytes of the elements as they stand in the file."""
        return self.view[self.start:self.stop]

    def _first(self, count: int) -> list[Any]:
        if self.kind in WIDTHS:
            values = struct.unpack_from(f"{self.order}{count}{CODES[self.kind].replace('?', 'B')}", self.view, self.start)
            return [value != 0 for value in values] if self.kind == "bool" else list(values)
        cursor = Cursor(self.view, self.order, self.wide, self.start)
        return [cursor.text() if self.kind == "string" else cursor.array(1) for _ in range(count)]


class Keys(dict[str, Any]):
    """The metadata of a file: values by key, and in `kinds` the type of each value that is no array."""

    def __init__(self, values: dict[str, Any] | None = None, kinds: dict[str, str] | None = None):
        super().__init__(values or {})
        self.kinds: dict[str, str] = dict(kinds or {})


@dataclass(frozen=True)
class Info:
    """What the file says of a tensor: its sizes with the fastest first, the number of its type, and the offset of its data in the data section."""

    name: str
    sizes: tuple[int, ...]
    type: int
    offset: int


@dataclass
class Header:
    """What stands before the data. `data` is where the data section begins; `stated` counts the tensors that the file announces."""

    version: int = 0
    order: str = "<"
    keys: Keys = field(default_factory=Keys)
    tensors: list[Info] = field(default_factory=list)
    stated: int = 0
    alignment: int = ALIGNMENT
    data: int = 0
    cursor: Cursor | None = None                    # where the infos of the tensors begin
    damage: Damaged | Unsafe | None = None          # what ended the reading early

    @property
    def big(self) -> bool:
        return self.order == ">"


class Cursor:
    """A place in the bytes. Every count is compared with what is left of the file before it is used."""

    def __init__(self, view: memoryview, order: str, wide: str, at: int):
        self.view, self.order, self.wide, self.at = view, order, wide, at
        self.strings = 0
        self.length = struct.Struct(order + wide)

    @property
    def rest(self) -> int:
        return len(self.view) - self.at

    def number(self, code: str) -> Any:
        shape = struct.Struct(self.order + code)
        if shape.size > self.rest:
            raise Damaged("the file ends inside a number", offset=self.at)
        value = shape.unpack_from(self.view, self.at)[0]
        self.at += shape.size
        return value

    def text(self, most: int = HIGHEST) -> str:
        """Bytes that are no UTF-8 become half surrogates, so that nothing is lost."""
        length = self.number(self.wide)
        if length > self.rest or length > most:
            raise Damaged(f"a text of {length} bytes where {min(self.rest, most)} are possible", offset=self.at)
        if length > LONGEST_TEXT:
            raise Unsafe(f"a text of {length} bytes, at most {LONGEST_TEXT} are read", where=f"byte {self.at}")
        start, self.at = self.at, self.at + length
        return str(self.view[start:self.at], "utf-8", "surrogateescape")

    def name(self, most: int, what: str) -> str:
        start = self.at
        text = self.text(most)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Damaged(f"{what} is not UTF-8", offset=start) from None
        return text

    def kind(self) -> str:
        number = self.number("I")
        if number not in KINDS:
            raise Damaged(f"there is no value type {number}", offset=self.at - 4)
        return KINDS[number][0]

    def value(self, kind: str) -> Any:
        if kind == "string":
            return self.text()
        if kind == "array":
            return self.array(0)
        value = self.number(CODES[kind].replace("?", "B"))
        return value != 0 if kind == "bool" else value

    def array(self, depth: int) -> Array:
        """Steps over the elements: a vocabulary of 262,144 tokens in about 30 ms."""
        kind, count = self.kind(), self.number(self.wide)
        start = self.at
        least = WIDTHS.get(kind, self.length.size)
        if count > self.rest // least:
            raise Damaged(f"an array of {count} elements in {self.rest} bytes", offset=start)
        if kind in WIDTHS:
            self.at += count * least
        elif kind == "string":
            self._step_over(count)
        elif depth < DEEPEST and count <= MOST_KEYS:
            for _ in range(count):
                self.array(depth + 1)
        else:
            raise Unsafe(f"arrays in arrays, {count} of them at depth {depth}", where=f"byte {start}")
        return Array(kind, count, self.view, start, self.at, self.order, self.wide)

    def _step_over(self, count: int) -> None:
        self.strings += count
        if self.strings > MOST_STRINGS:
            raise Unsafe(f"{self.strings} texts, at most {MOST_STRINGS} are read", where=f"byte {self.at}")
        unpack, view, at, width = self.length.unpack_from, self.view, self.at, self.length.size
        end = len(view)
        try:
            for _ in range(count):
                at += width + unpack(view, at)[0]
        except (struct.error, OverflowError, IndexError, ValueError):
            at = end + 1
        if at > end:
            raise Damaged(f"an array of {count} texts is longer than the file", offset=self.at)
        self.at = at


def parse(view: memoryview, limits: Limits = DEFAULT) -> Header:
    """The keys, as far as they make sense: `damage` says what ended them. `read_infos` goes on to the tensors."""
    header = Header()
    raw = int.from_bytes(view[4:8], "little")
    header.order = ">" if raw & 0xFFFF == 0 and raw else "<"           # nothing in the file states it, but no version is 65536
    header.version = int.from_bytes(view[4:8], "big" if header.big else "little")
    cursor = header.cursor = Cursor(view, header.order, "I" if header.version == 1 else "Q", 8)
    try:
        if bytes(view[:4]) != MAGIC:
            raise Damaged("it does not begin with GGUF", offset=0)
        if header.version not in VERSIONS:
            raise Damaged(f"there is no version {header.version}", offset=4)
        _read_keys(cursor, header, limits)
    except (Damaged, Unsafe) as error:
        header.damage = error
    return header


def read_infos(header: Header) -> Header:
    """Adds what the file says of its tensors and where the data begins. Offsets are not judged here. Raises what ended the keys, or `Damaged`."""
    if header.damage:
        raise header.damage
    if header.data:
        return header
    cursor = header.cursor
    assert cursor is not None
    header.tensors = [_info(cursor) for _ in range(header.stated)]
    names = [info.name for info in header.tensors]
    if len(set(names)) != len(names):
        raise Damaged(f"the tensor {_twice(names)!r} stands twice")
    header.data = -(-cursor.at // header.alignment) * header.alignment if header.tensors else cursor.at
    return header


def _read_keys(cursor: Cursor, header: Header, limits: Limits) -> None:
    wide = cursor.length.size
    header.stated, count = cursor.number(cursor.wide), cursor.number(cursor.wide)
    if header.stated * (wide + 16) + count * (wide + 5) > cursor.rest:
        raise Damaged(f"{header.stated} tensors and {count} keys in {cursor.rest} bytes", offset=8)
    if header.stated > limits.tensors or count > MOST_KEYS:
        raise Unsafe(f"{header.stated} tensors and {count} keys, at most {limits.tensors} and {MOST_KEYS} are read", where="byte 8")
    if header.version == 1 and not header.stated and not count and cursor.rest:         # wide counts of a later version, half of which were read
        raise Damaged(f"it holds neither keys nor tensors, and {cursor.rest} bytes more", offset=cursor.at)
    for _ in range(count):
        start = cursor.at
        name = cursor.name(LONGEST_KEY, "a key")
        if not name or name in header.keys:
            raise Damaged(f"the key {name[:80]!r} stands twice" if name else "a key without a name", offset=start)
        kind = cursor.kind()
        header.keys[name] = cursor.value(kind)
        if kind != "array":
            header.keys.kinds[name] = kind
    alignment = header.keys.get("general.alignment", ALIGNMENT)
    if header.keys.kinds.get("general.alignment", "u32") != "u32" or isinstance(alignment, Array):
        raise Damaged("general.alignment is no u32")
    if not 0 < alignment <= HIGHEST_ALIGNMENT or alignment & alignment - 1:
        raise Damaged(f"an alignment of {alignment}, which is no power of two up to {HIGHEST_ALIGNMENT}")
    header.alignment = alignment


def _info(cursor: Cursor) -> Info:
    name = cursor.name(LONGEST_NAME, "the name of a tensor")
    count = cursor.number("I")
    if count > MOST_DIMENSIONS:
        raise Damaged(f"tensor {name!r} has {count} dimensions, at most {MOST_DIMENSIONS} are possible", offset=cursor.at - 4)
    sizes = tuple(cursor.number(cursor.wide) for _ in range(count))
    elements = 1
    for size in sizes:
        elements *= max(size, 1)
    if elements > HIGHEST:
        raise Damaged(f"tensor {name!r} has the sizes {list(sizes)}", offset=cursor.at)
    return Info(name, sizes, cursor.number("I"), cursor.number("Q"))


def _twice(names: list[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


# Writing, always version 3 and little-endian

def emit(keys: Keys, tensors: Sequence[Info], alignment: int) -> bytes:
    """What stands before the data, with the padding up to it; a file without tensors has none."""
    out = bytearray(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(keys)))
    for name, value in keys.items():
        out += _text(name)
        _emit_value(out, value, keys.kinds.get(name))
    for info in tensors:
        out += _text(info.name) + struct.pack(f"<I{len(info.sizes)}QIQ", len(info.sizes), *info.sizes, info.type, info.offset)
    return bytes(out + bytes(-len(out) % alignment if tensors else 0))


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def kind_of(value: Any) -> str:
    """The type that a value is stored as where nothing says it: the narrowest of u32, i32, u64 and i64 for whole numbers, f32 for others."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return next((kind for kind, low, high in (("u32", 0, 1 << 32), ("i32", -1 << 31, 1 << 31), ("u64", 0, 1 << 64)) if low <= value < high), "i64")
    if isinstance(value, float):
        return "f32"
    if isinstance(value, Sequence):
        return "array"
    raise TypeError(f"GGUF has no type for {type(value).__name__}")


def _kind_of_all(values: Sequence[Any]) -> str:
    if stated := getattr(values, "kind", None):
        return stated
    kinds = {kind_of(value) for value in values}
    if len(kinds) <= 1:
        return kinds.pop() if kinds else "i32"
    if kinds <= {"u32", "i32"}:
        return "i32" if max(values) < 1 << 31 else "i64"
    return "i64" if kinds <= {"u32", "i32", "u64", "i64"} else "f32" if "string" not in kinds and "array" not in kinds else "string"


def _emit_value(out: bytearray, value: Any, kind: str | None) -> None:
    kind = kind or kind_of(value)
    out += struct.pack("<I", NUMBERS[kind])
    if kind == "array":
        _emit_array(out, value)
    elif kind == "string":
        out += _text(value)
    else:
        out += struct.pack("<" + CODES[kind], value)


def _emit_array(out: bytearray, values: Sequence[Any]) -> None:
    kind = _kind_of_all(values)
    out += struct.pack("<IQ", NUMBERS[kind], len(values))
    if isinstance(values, Array) and values.order == "<" and values.wide == "Q" and kind != "array":
        out += values.raw
    elif kind == "string":
        for value in values:
            out += _text(value)
    elif kind == "array":
        for value in values:
            _emit_array(out, value)
    else:
        out += struct.pack(f"<{len(values)}{CODES[kind]}", *values)
