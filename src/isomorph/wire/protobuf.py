"""Protocol buffers read and written by schema, without generated code and without copying payloads.

A schema is aligned text in `schemas/NAME.txt`; every message of it becomes a subclass of `Record` whose instances hold the fields that were present
as attributes and answer with the default of the type for the others. `bytes` fields are slices of the source. Fields that the schema does not know are
carried in `unknown_fields` and written again. Specification: https://protobuf.dev/programming-guides/encoding/
"""
from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NamedTuple

from isomorph.errors import Damaged, Unsafe
from isomorph.wire import files
from isomorph.wire.limits import DEFAULT, Limits

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
UNSIGNED = (1 << 64) - 1
FLUSH = 1 << 20

# type -> (wire type, default, struct format of fixed types)
SCALARS: dict[str, tuple[int, Any, str]] = {
    "int32": (VARINT, 0, ""), "int64": (VARINT, 0, ""), "uint32": (VARINT, 0, ""), "uint64": (VARINT, 0, ""), "sint32": (VARINT, 0, ""),
    "sint64": (VARINT, 0, ""), "bool": (VARINT, False, ""), "float": (FIXED32, 0.0, "f"), "double": (FIXED64, 0.0, "d"), "fixed32": (FIXED32, 0, "I"),
    "fixed64": (FIXED64, 0, "Q"), "sfixed32": (FIXED32, 0, "i"), "sfixed64": (FIXED64, 0, "q"), "string": (BYTES, "", ""), "bytes": (BYTES, b"", ""),
}


class Row(NamedTuple):
    """One field of a message. `many` is "" for one value, "*", "*packed" or "*lazy" for several, "map" for a map."""

    number: int
    name: str
    type: str
    many: str
    message: Any                 # the Record class of a message type, else None
    wire: int
    tag: bytes                   # as it stands before every value that is not packed


class Record:
    """One message. Fields that were present are in `__dict__`; `name in record` tells presence."""

    ROWS: ClassVar[dict[int, Row]] = {}
    ORDERED: ClassVar[tuple[Row, ...]] = ()          # by number, the order of writing
    unknown_fields: Sequence[tuple[int, int, Any]] = ()

    def __init__(self, **fields: Any):
        self.__dict__.update(fields)

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None              # type: ignore[assignment]

    if TYPE_CHECKING:
        # The fields of the schema.
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


class Packed(Sequence):
    """The values of a `*lazy` field, decoded only when they are looked at. `runs` are their encoded bytes: memoryviews of packed runs, and bytearrays
    that gather what came value by value."""

    def __init__(self, kind: str, runs: list[Any]):
        self.kind, self.runs = kind, runs

    def __iter__(self) -> Iterator[Any]:
        for run in self.runs:
            yield from _unpack(memoryview(run), self.kind)

    def __len__(self) -> int:
        layout = SCALARS[self.kind][2]
        return sum(len(run) // struct.calcsize(layout) if layout else _count(run) for run in self.runs)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None              # type: ignore[assignment]

    @property
    def nbytes(self) -> int:
        return sum(len(run) for run in self.runs)

    @property
    def raw(self) -> memoryview | None:
        """The little-endian values of a fixed-width field that came as one packed run, which is how every known writer stores it; else None."""
        return memoryview(self.runs[0]) if len(self.runs) == 1 and SCALARS[self.kind][2] else None

    def array(self) -> Any:
        """The values as a NumPy array of float32, float64, int32, uint64 or int64."""
        import numpy as np
        layout = SCALARS[self.kind][2]
        parts = [np.frombuffer(run, "<" + layout) if layout else _varint_array(run) for run in self.runs]
        values = np.concatenate(parts) if parts else np.zeros(0, layout or np.uint64)
        if layout or self.kind == "uint64":
            return values
        return values.astype(np.uint32).view(np.int32) if self.kind == "int32" else values.view(np.int64)


@functools.cache
def schema(name: str) -> dict[str, type[Record]]:
    """The messages of `schemas/NAME.txt` by name."""
    return parse_schema(resources.files("isomorph.wire").joinpath("schemas", f"{name}.txt").read_text("utf-8"))


def parse_schema(text: str) -> dict[str, type[Record]]:
    """Messages from aligned text: an unindented line names a message, an indented one is a field `number name type[ *|*packed|*lazy]`."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    messages = {line.strip(): type(line.strip(), (Record,), {"ROWS": {}}) for line in lines if not line.startswith(" ")}
    current = None
    for line in lines:
        if not line.startswith(" "):
            current = messages[line.strip()]
            continue
        number, name, kind = line.split(None, 2)
        _add_field(current, int(number), name, kind.strip(), messages)
    for message in messages.values():
        _order(message)
    return messages


def _order(message: Any) -> None:
    message.ORDERED = tuple(message.ROWS[number] for number in sorted(message.ROWS))


def _add_field(owner: Any, number: int, name: str, kind: str, messages: dict[str, type[Record]]) -> None:
    if kind.startswith("{"):
        key, kind = (part.strip() for part in kind.strip("{}").split(":"))
        many = "map"
        entry = type(f"{name}_entry", (Record,), {"ROWS": {}})
        _add_field(entry, 1, "key", key, messages)
        _add_field(entry, 2, "value", kind, messages)
        _order(entry)
        row = Row(number, name, kind, many, entry, BYTES, _varint(number << 3 | BYTES))
    else:
        kind, _, many = kind.partition(" ")
        many = many.strip()
        message = None if kind in SCALARS else messages[kind]
        wire = BYTES if message else SCALARS[kind][0]
        row = Row(number, name, kind, many, message, wire, _varint(number << 3 | wire))
    owner.ROWS[number] = row
    setattr(owner, name, {} if many == "map" else () if many else None if row.message else SCALARS[kind][1])


# Reading

def read(source: memoryview | bytes, message: type[Record], limits: Limits = DEFAULT, where: str = "", *, odd_text: list[int] | None = None) -> Record:
    """The record of `message` that fills `source`. Raises `Damaged` where bytes contradict the wire format, `Unsafe` where nesting exceeds its limit.

    Text that is not UTF-8 survives writing by surrogate escapes; where `odd_text` is given, it is spelled with backslashes instead and its offset noted.
    """
    view = memoryview(source)
    reader = _Reader(view, limits.recursion, where, odd_text)
    record = message()
    try:
        reader.message(record, 0, len(view), 0)
    except IndexError:
        raise Damaged("the file ends inside a field", where=where, offset=len(view)) from None
    return record


def merge(record: Record, source: memoryview | bytes, limits: Limits = DEFAULT, where: str = "") -> None:
    """Reads another part of a message into a record, as the specification demands: single values are replaced, messages merged, lists go on."""
    view = memoryview(source)
    try:
        _Reader(view, limits.recursion, where, None).message(record, 0, len(view), 0)
    except IndexError:
        raise Damaged("the data end inside a field", where=where, offset=len(view)) from None


class _Reader:
    def __init__(self, view: memoryview, depth_limit: int, where: str, odd_text: list[int] | None):
        self.view, self.depth_limit, self.where, self.odd_text = view, depth_limit, where, odd_text

    def damaged(self, what: str, at: int) -> Damaged:
        return Damaged(what, where=self.where, offset=at)

    def varint(self, at: int) -> tuple[int, int]:
        """An unsigned 64-bit number and the position after it. An IndexError is the end of the file."""
        view, value = self.view, 0
        for shift in range(0, 70, 7):
            byte = view[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & UNSIGNED, at
        raise self.damaged("a varint is longer than 10 bytes", at)

    def message(self, record: Record, at: int, end: int, depth: int) -> None:
        """Reads the fields between `at` and `end` into `record`. The hot loop: everything usual stands inline."""
        if depth > self.depth_limit:
            raise Unsafe(f"messages are nested deeper than {self.depth_limit}", where=self.where, hint="raise Limits.recursion if the file is trusted")
        view, rows, fields = self.view, record.ROWS, record.__dict__
        while at < end:
            start = at
            tag = view[at]
            at += 1
            if tag > 0x7F:
                tag, at = self.varint(start)
            wire = tag & 7
            row = rows.get(tag >> 3)
            if wire == BYTES:
                length = view[at]
                at += 1
                if length > 0x7F:
                    length, at = self.varint(at - 1)
                stop = at + length
                if stop > end:
                    raise self.damaged(f"a field of {length} bytes where {max(end - at, 0)} are left", start)
                if row is None:
                    self.carry(record, tag, view[at:stop], start)
                elif row.wire == BYTES:
                    self.delimited(row, fields, at, stop, depth)
                else:
                    self.packed(row, fields, at, stop)
                at = stop
            elif row is None or row.wire != wire:
                stop = self.skip(tag >> 3, wire, at, end, depth)
                self.carry(record, tag, view[at:stop], start)
                at = stop
            else:
                start = at
                value, at = self.scalar(row.type, wire, at)
                if row.many == "*lazy":
                    self.gather(row, fields, view[start:at])
                elif row.many:
                    fields.setdefault(row.name, []).append(value)
                else:
                    fields[row.name] = value
        if at != end:
            raise self.damaged("a field runs beyond the end of its message", end)

    def delimited(self, row: Row, fields: dict[str, Any], at: int, stop: int, depth: int) -> None:
        name, kind, many = row.name, row.type, row.many
        value: Any
        if many == "map":
            entry = row.message()
            self.message(entry, at, stop, depth + 1)
            value = entry.value if "value" in entry or not entry.ROWS[2].message else entry.ROWS[2].message()
            fields.setdefault(name, {})[entry.key] = value
            return
        if row.message is not None:
            # A message that comes twice is merged, as the specification demands.
            value = fields.get(name) if not many else None
            if value is None:
                value = row.message()
            self.message(value, at, stop, depth + 1)
        elif kind == "string":
            value = self.text(at, stop)
        else:
            value = self.view[at:stop]
        if not many:
            fields[name] = value
        elif name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]

    def text(self, at: int, stop: int) -> str:
        try:
            return str(self.view[at:stop], "utf-8")
        except UnicodeDecodeError:
            if self.odd_text is None:
                return str(self.view[at:stop], "utf-8", "surrogateescape")
            self.odd_text.append(at)
            return str(self.view[at:stop], "utf-8", "backslashreplace")

    def gather(self, row: Row, fields: dict[str, Any], encoded: memoryview) -> None:
        """One more value of a lazy field that did not come packed."""
        runs = fields.setdefault(row.name, Packed(row.type, [])).runs
        if not runs or isinstance(runs[-1], memoryview):
            runs.append(bytearray())
        runs[-1] += encoded

    def packed(self, row: Row, fields: dict[str, Any], at: int, stop: int) -> None:
        """A run of numbers. Every number is checked to end inside the run, without decoding it where the field is lazy."""
        width = {FIXED32: 4, FIXED64: 8}.get(row.wire, 0)
        if (width and (stop - at) % width) or (stop > at and not width and self.view[stop - 1] > 0x7F):
            raise self.damaged("a packed field ends inside a number", at)
        run = self.view[at:stop]
        if not row.many:
            values = list(_unpack(run, row.type))
            if values:
                fields[row.name] = values[-1]
        elif row.many == "*lazy":
            fields.setdefault(row.name, Packed(row.type, [])).runs.append(run)
        else:
            fields.setdefault(row.name, []).extend(_unpack(run, row.type))

    def scalar(self, kind: str, wire: int, at: int) -> tuple[Any, int]:
        if wire == VARINT:
            value = self.view[at]
            if value < 0x80:
                at += 1
            else:
                value, at = self.varint(at)
            return (value if kind == "int64" and value < 1 << 63 else _from_unsigned(value, kind)), at
        width, layout = (4, SCALARS[kind][2]) if wire == FIXED32 else (8, SCALARS[kind][2])
        if at + width > len(self.view):
            raise IndexError
        return struct.unpack_from("<" + layout, self.view, at)[0], at + width

    def skip(self, number: int, wire: int, at: int, end: int, depth: int) -> int:
        """The position after a value whose field is not in the schema or has another wire type than the schema says."""
        if number == 0 or wire in (END_GROUP, 6, 7):
            raise self.damaged(f"field number {number} with wire type {wire}", at)
        if wire == VARINT:
            return self.varint(at)[1]
        if wire in (FIXED32, FIXED64):
            stop = at + (4 if wire == FIXED32 else 8)
        elif wire == BYTES:
            length, at = self.varint(at)
            stop = at + length
        else:
            return self.group(number, at, end, depth + 1)
        if stop > end:
            raise self.damaged("a field runs beyond the end of its message", at)
        return stop

    def group(self, number: int, at: int, end: int, depth: int) -> int:
        if depth > self.depth_limit:
            raise Unsafe(f"groups are nested deeper than {self.depth_limit}", where=self.where)
        while at < end:
            tag, at = self.varint(at)
            if tag == number << 3 | END_GROUP:
                return at
            at = self.skip(tag >> 3, tag & 7, at, end, depth)
        raise self.damaged(f"group {number} does not end", at)

    def carry(self, record: Record, tag: int, payload: memoryview, at: int) -> None:
        if tag < 8:
            raise self.damaged("a field has number 0", at)
        record.__dict__.setdefault("unknown_fields", []).append((tag >> 3, tag & 7, payload))


def _from_unsigned(value: int, kind: str) -> Any:
    """What 64 unsigned bits mean. 32-bit kinds keep the low half, as the reference does."""
    if kind == "bool":
        return bool(value)
    if kind in ("sint32", "sint64"):
        return (value >> 1) ^ -(value & 1)
    if kind == "uint32":
        return value & 0xFFFFFFFF
    if kind == "int32":
        value &= 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value
    return value - (1 << 64) if kind == "int64" and value >> 63 else value


def _unpack(run: memoryview, kind: str) -> Any:
    layout = SCALARS[kind][2]
    if layout:
        return struct.unpack(f"<{len(run) // struct.calcsize(layout)}{layout}", run)
    return _varints(run, kind)


def _varints(run: memoryview, kind: str) -> Iterator[Any]:
    value = shift = 0
    for byte in run:
        if byte < 0x80:
            value |= byte << shift
            yield value if kind == "int64" and value < 1 << 63 else _from_unsigned(value & UNSIGNED, kind)
            value = shift = 0
            continue
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise Damaged("a packed varint is longer than 10 bytes")


def _count(run: memoryview) -> int:
    import numpy as np
    return int(np.count_nonzero(np.frombuffer(run, np.uint8) < 0x80))


def _varint_array(run: memoryview) -> Any:
    """The numbers of a run of varints as uint64, ten vectorised steps instead of a loop over bytes."""
    import numpy as np
    data = np.frombuffer(run, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts + 1
    if len(lengths) and lengths.max() > 10:
        raise Damaged("a packed varint is longer than 10 bytes")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(lengths.max()) if len(lengths) else 0):
        has = lengths > place
        values[has] |= (data[starts[has] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values


# Writing

def write(record: Record, file: BinaryIO) -> int:
    """Writes `record`, fields in the order of their numbers, unknown ones last, and returns the number of bytes.

    A `bytes` field may hold an object with `nbytes` and `chunks()`: its data is asked for when its place in the file has come, so that only one
    payload is in memory at a time.
    """
    pieces: list[Any] = []
    total = _message_pieces(record, pieces)
    buffer = bytearray()
    for piece in pieces:
        if isinstance(piece, (bytes, bytearray)):
            buffer += piece
            if len(buffer) < FLUSH:
                continue
        file.write(buffer)
        buffer = bytearray()
        if not isinstance(piece, (bytes, bytearray)):
            write_payload(piece, file)
    file.write(buffer)
    return total


def dumps(record: Record) -> bytes:
    """The bytes of `record`."""
    import io
    file = io.BytesIO()
    write(record, file)
    return file.getvalue()


def write_payload(payload: Any, file: BinaryIO) -> None:
    """Writes bytes, or an object with `nbytes` and `chunks()`. Raises `Damaged` where it gives another number of bytes than it announced."""
    if isinstance(payload, memoryview):
        files.put(file, payload)
        return
    written = 0
    for chunk in payload.chunks():
        files.put(file, chunk)
        written += memoryview(chunk).nbytes
    if written != payload.nbytes:
        raise Damaged(f"a tensor gave {written} bytes where {payload.nbytes} were announced", where=str(getattr(payload, "name", "")))


def _varint(value: int) -> bytes:
    value &= UNSIGNED
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message_pieces(record: Record, pieces: list[Any]) -> int:
    """Appends what `record` consists of and returns its length in bytes."""
    total, fields = 0, record.__dict__
    for row in record.ORDERED:
        if row.name in fields:
            total += _field_pieces(row, fields[row.name], pieces)
    for number, wire, payload in record.unknown_fields:
        head = _varint(number << 3 | wire) + (_varint(len(payload)) if wire == BYTES else b"")
        pieces += [head, payload]
        total += len(head) + len(payload)
    return total


def _field_pieces(row: Row, value: Any, pieces: list[Any]) -> int:
    many = row.many
    if not many:
        return 0 if value is None else _value_pieces(row, value, pieces)
    if many == "map":
        return sum([_value_pieces(row, row.message(key=key, value=item), pieces) for key, item in value.items()])
    if many != "*" and row.wire != BYTES:
        runs = value.runs if isinstance(value, Packed) else [b"".join([_encoded(item, row) for item in value])]
        length = sum(map(len, runs))
        head = _varint(row.number << 3 | BYTES) + _varint(length)
        pieces += [head, *runs] if length else []
        return len(head) + length if length else 0
    return sum([_value_pieces(row, item, pieces) for item in value])


def _value_pieces(row: Row, value: Any, pieces: list[Any]) -> int:
    if row.wire != BYTES:
        piece = row.tag + _encoded(value, row)
        pieces.append(piece)
        return len(piece)
    if row.message is not None:
        place = len(pieces)
        pieces.append(b"")
        length = _message_pieces(value, pieces)
        pieces[place] = head = row.tag + _varint(length)
        return len(head) + length
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes) and len(value) < FLUSH:
        piece = row.tag + _varint(len(value)) + value
        pieces.append(piece)
        return len(piece)
    length = value.nbytes if hasattr(value, "nbytes") else len(value)
    head = row.tag + _varint(length)
    pieces += [head, value]
    return len(head) + length


def _encoded(value: Any, row: Row) -> bytes:
    layout = SCALARS[row.type][2]
    if layout:
        return struct.pack("<" + layout, value)
    if row.type in ("sint32", "sint64"):
        return _varint(value << 1 ^ value >> 63)
    return _varint(int(value))
