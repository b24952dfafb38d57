"""FlatBuffers by a schema in aligned text: a reader that verifies as it reads, and a writer that streams forward.

The reader does what the C++ verifier does (https://github.com/google/flatbuffers, `verifier.h`), which Python's flatbuffers package lacks: every offset,
vtable, field, vector and string is checked against the bytes before it is used. Vectors of numbers come back as `memoryview`s of the mapping, so nothing
is copied and a length of 10^9 costs nothing.

The writer places the root first, its children after it, and large payloads (anything with `nbytes` and `chunks()`) last, so that a model of any size is
written without holding its weights. Little-endian machines only, as everywhere in isomorph.
"""
from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from functools import cache, cached_property
from importlib import resources
from typing import Any, BinaryIO

from isomorph.errors import Damaged, Unsafe
from isomorph.wire import files
from isomorph.wire.limits import DEFAULT, Limits

FORMAT = {"bool": "?", "byte": "b", "ubyte": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "long": "q", "ulong": "Q", "float": "f", "double": "d"}
WIDTH = {name: struct.calcsize("<" + code) for name, code in FORMAT.items()}
STREAMED = 1 << 12                          # longer byte vectors are written from where they lie, not copied
BIGGEST = (1 << 31) - 1                     # offsets of a FlatBuffer are 32 bits; the C++ verifier refuses more


class Enum:
    """Names of numbers. A number without a name stays a number."""

    def __init__(self, scalar: str, words: list[str]):
        self.scalar, self.numbers = scalar, {}
        following = 0
        for word in words:
            name, _, number = word.partition("=")
            following = int(number) if number else following
            self.numbers[name] = following
            following += 1

    @cached_property
    def names(self) -> dict[int, str]:
        return {number: name for name, number in self.numbers.items()}


class Field:
    """One field of a table: where it stands and what it holds. `kind` is "scalar", "string", "table", "union", "numbers" or "tables"."""

    def __init__(self, schema: Schema, slot: int, text: str):
        self.name, _, rest = text.partition(":")
        rest, _, align = rest.partition("@")
        self.type, _, default = rest.partition("=")
        self.slot, self.enum = slot, None
        element = self.type.strip("[]")
        definition = schema.definitions.get(element, ("scalar",))[0]
        if definition == "enum":
            self.enum = schema.enum(element)
            self.scalar = self.enum.scalar
        else:
            self.scalar = element
        if self.type.startswith("["):
            self.kind = "tables" if definition == "table" else "numbers"
        else:
            self.kind = "scalar" if definition == "enum" else "string" if element == "string" else definition
        self.element, self.slots = element, 2 if self.kind == "union" else 1
        self.align = max(4, int(align or 0), WIDTH.get(self.scalar, 4))
        self.default = self._default(default)

    def _default(self, text: str) -> Any:
        if self.kind == "tables" or self.kind == "numbers":
            return ()
        if self.kind != "scalar":
            return None
        if self.enum:
            return text or self.enum.names.get(0, 0)
        return float(text or 0) if self.scalar in ("float", "double") else bool(int(text or 0)) if self.scalar == "bool" else int(text or 0)


class Kind:
    """A table type: its fields in the order of their slots."""

    def __init__(self, schema: Schema, name: str, words: list[str]):
        self.name, self.fields, slot = name, {}, 0
        for word in words:
            if word != "-":
                field = Field(schema, slot, word)
                self.fields[field.name] = field
                slot += field.slots
            else:
                slot += 1
        self.slots = slot


class Schema:
    """A schema text (see `schemas/tflite.txt`), of which only what is used is parsed."""

    def __init__(self, text: str):
        self.identifier, self.definitions = b"", {}
        for line in text.splitlines():
            head, _, words = line.partition(":")
            if line.startswith("identifier"):
                self.identifier = line.split()[1].encode()
            elif line and line[0] != "#":
                kind, name, *scalar = head.split()
                self.definitions[name] = (kind, words, scalar[0] if scalar else "ubyte")
        self._made: dict[str, Any] = {}

    def kind(self, name: str) -> Kind:
        return self._made.get(name) or self._made.setdefault(name, Kind(self, name, self.definitions[name][1].split()))

    def enum(self, name: str) -> Enum:
        """An enumeration, or the types of a union with their numbers."""
        return self._made.get(name) or self._made.setdefault(name, Enum(self.definitions[name][2], self.definitions[name][1].split()))

    def record(self, kind: str, **fields: Any) -> Record:
        """A new record. `TypeError` for a field that the table does not have."""
        for name in fields.keys() - self.kind(kind).fields.keys():
            raise TypeError(f"{kind} has no field {name}")
        return Record(self.kind(kind), fields)


@cache
def schema(name: str) -> Schema:
    """A schema that isomorph carries, by the name of its file."""
    return Schema(resources.files("isomorph.wire").joinpath("schemas", f"{name}.txt").read_text())


class Record:
    """A table as attributes. A field that the file does not hold has the schema's default; `_fields` are those that it does hold."""

    __slots__ = ("_fields", "_kind")

    def __init__(self, kind: Kind, fields: dict[str, Any]):
        self._kind, self._fields = kind, fields

    def __getattr__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            if name not in self._kind.fields:
                raise AttributeError(f"{self._kind.name} has no field {name}") from None
            return self._kind.fields[name].default

    def __repr__(self) -> str:
        return f"{self._kind.name}({', '.join(f'{name}={value!r}' for name, value in self._fields.items())})"


def read(view: memoryview, schema: Schema, root: str, limits: Limits = DEFAULT, *, where: str = "", notes: list[tuple[str, int]] | None = None) -> Record:
    """The root table, verified. Enumerations are names, unions records, strings text, vectors of numbers memoryviews of `view`, of tables tuples.

    Raises `Damaged` where bytes contradict the layout and `Unsafe` where a limit is reached. What is odd but harmless (unknown fields and union types,
    tables that claim to end outside the file) is appended to `notes` as (sentence, offset).
    """
    reader = _Reader(view, schema, limits, where, [] if notes is None else notes)
    if reader.end < 12:
        raise Damaged(f"{reader.end} bytes are too few for a FlatBuffer", where=where)
    if schema.identifier and bytes(view[4:8]) != schema.identifier:
        raise Damaged(f"the identifier is {bytes(view[4:8])!r}, not {schema.identifier!r}", where=where, offset=4)
    return reader.table(reader.target(0, "the root"), schema.kind(root), 1)[0]


class _Reader:
    """One pass over one buffer. Tables that several others point to are read once but counted each time, as the C++ verifier counts them."""

    def __init__(self, view: memoryview, schema: Schema, limits: Limits, where: str, notes: list[tuple[str, int]]):
        self.view, self.schema, self.limits, self.where, self.notes = view, schema, limits, where, notes
        self.end = min(len(view), BIGGEST)
        self.tables, self.table_limit = 0, min(limits.flatbuffer_tables, self.end // 4 + 1000)        # unless vectors overlap, a table costs 4 bytes
        self.vector_bytes, self.vector_limit = 0, 4 * self.end + (1 << 20)
        self.vtables: dict[tuple[int, str], list[tuple[Field, int]]] = {}
        self.done: dict[tuple[int, str], tuple[Record, int]] = {}

    def damaged(self, what: str, offset: int) -> Damaged:
        return Damaged(what, where=self.where, offset=offset)

    def note(self, sentence: str, offset: int) -> None:
        if len(self.notes) < 100:
            self.notes.append((sentence, offset))

    def inside(self, position: int, size: int, align: int, what: str) -> int:
        if position < 0 or position + size > self.end:
            raise self.damaged(f"{what} of {size} bytes lies outside the {self.end} bytes of the FlatBuffer", position)
        if position % align:
            raise self.damaged(f"{what} is not aligned to {align} bytes", position)
        return position

    def scalar(self, position: int, code: str, what: str) -> Any:
        size = struct.calcsize("<" + code)
        return struct.unpack_from("<" + code, self.view, self.inside(position, size, size, what))[0]

    def target(self, position: int, what: str) -> int:
        offset = self.scalar(position, "I", f"the offset of {what}")
        if offset == 0 or offset > BIGGEST:
            raise self.damaged(f"the offset of {what} is {offset}", position)
        return position + offset

    def count(self, tables: int) -> None:
        self.tables += tables
        if self.tables > self.table_limit:
            raise Unsafe(f"more than {self.table_limit} tables (limit flatbuffer_tables)", where=self.where)

    def table(self, position: int, kind: Kind, depth: int) -> tuple[Record, int]:
        """The record at `position`, and how many tables it holds."""
        if depth > self.limits.flatbuffer_depth:
            raise Unsafe(f"tables nested deeper than {self.limits.flatbuffer_depth} (limit flatbuffer_depth)", where=self.where)
        known = self.done.get((position, kind.name))
        if known:
            self.count(known[1])
            return known
        before = self.tables
        self.count(1)
        vtable = position - self.scalar(position, "i", f"the table {kind.name}")
        present = self.vtables.get((vtable, kind.name))
        if present is None:
            present = self.vtables[vtable, kind.name] = self.vtable(vtable, kind)
        values = {field.name: self.field(field, position + offset, position, present, depth) for field, offset in present}
        result = self.done[position, kind.name] = Record(kind, values), self.tables - before
        return result

    def vtable(self, vtable: int, kind: Kind) -> list[tuple[Field, int]]:
        """The fields that a vtable lists, with their offsets in the table."""
        size = self.scalar(vtable, "H", f"the vtable of {kind.name}")
        if size < 4 or size % 2:
            raise self.damaged(f"the vtable of {kind.name} has the size {size}", vtable)
        self.inside(vtable, size, 2, f"the vtable of {kind.name}")
        known = min(size // 2 - 2, kind.slots)
        table_size, *offsets = struct.unpack_from(f"<{known + 1}H", self.view, vtable + 2)
        for slot, offset in enumerate(offsets):
            if offset and offset < 4:
                raise self.damaged(f"slot {slot} of {kind.name} overlaps the table's own header", vtable + 4 + 2 * slot)
            if offset >= table_size and offset:
                self.note(f"slot {slot} of {kind.name} lies outside the table's own size", vtable)
        if any(self.view[vtable + 4 + 2 * known:vtable + min(size, 4 + 2 * known + 128)]):      # no further: vtables of 64 KiB may overlap
            self.note(f"{kind.name} has a field beyond slot {known - 1}, which this schema does not know", vtable)
        return [(field, offsets[field.slot]) for field in kind.fields.values() if field.slot < len(offsets) and (offsets[field.slot] or field.kind == "union")]

    def field(self, field: Field, position: int, table: int, present: list[tuple[Field, int]], depth: int) -> Any:
        if field.kind == "scalar":
            value = self.scalar(position, FORMAT[field.scalar] if field.scalar != "bool" else "B", field.name)
            return field.enum.names.get(value, value) if field.enum else value != 0 if field.scalar == "bool" else value
        if field.kind == "union":
            return self.union(field, position, table, depth)
        target = self.target(position, field.name)
        if field.kind == "table":
            return self.table(target, self.schema.kind(field.element), depth + 1)[0]
        width = {"string": 1, "tables": 4}.get(field.kind) or WIDTH[field.scalar]
        length = self.scalar(target, "I", f"the length of {field.name}")
        self.inside(target + 4, length * width, width, f"{field.name} with {length} elements")
        self.vector_bytes += 0 if field.scalar == "ubyte" else length * width                 # bytes stay a slice, whoever shares them
        if self.vector_bytes > self.vector_limit:
            raise Unsafe("vectors that overlap make the file larger than four times its size", where=self.where)
        data = self.view[target + 4:target + 4 + length * width]
        if field.kind == "tables":
            kind, start = self.schema.kind(field.element), target + 4
            return tuple(self.table(self.target(place, field.name), kind, depth + 1)[0] for place in range(start, start + 4 * length, 4))
        if field.kind == "numbers":
            return data if width == 1 and field.scalar == "ubyte" else data.cast("B").cast(FORMAT[field.scalar])  # type: ignore[call-overload]
        if self.scalar(target + 4 + length, "B", f"the end of {field.name}"):
            raise self.damaged(f"the text {field.name} does not end in a NUL byte", target + 4 + length)
        return str(data, "utf-8", "backslashreplace")

    def union(self, field: Field, position: int, table: int, depth: int) -> Record | None:
        """A union stands in two slots: the type, then the value. `position` is that of the type, or of the table where it is absent."""
        type_number = self.scalar(position, "B", f"the type of {field.name}") if position != table else 0
        value = self.value_of_union(table, field)
        if not type_number or value is None:
            if value is not None or type_number:
                self.note(f"{field.name} has a type without a value, or a value without a type", table)
            return None
        name = self.schema.enum(field.element).names.get(type_number)
        if name is None:
            self.note(f"{field.name} has the unknown type {type_number}", position)
            return None
        return self.table(self.target(value, field.name), self.schema.kind(name), depth + 1)[0]

    def value_of_union(self, table: int, field: Field) -> int | None:
        vtable = table - self.scalar(table, "i", field.name)
        size = self.scalar(vtable, "H", field.name)
        slot = 4 + 2 * (field.slot + 1)
        offset = self.scalar(vtable + slot, "H", field.name) if slot + 2 <= size else 0
        return table + offset if offset else None


def write(record: Record, schema: Schema, file: BinaryIO) -> int:
    """Writes `record` as the root of a FlatBuffer with the schema's identifier, and returns its size in bytes.

    Fields equal to their default are left out, equal parts are stored once, and bytes that come as an object with `nbytes` and `chunks()` are
    streamed, last and aligned. `TypeError` or `struct.error` for values that a field cannot hold: these are errors of the caller.
    """
    layout = _Layout(record, schema)
    for chunk in layout.chunks():
        files.put(file, chunk)
    return layout.size


def measure(record: Record, schema: Schema) -> int:
    """The bytes that `write` would write."""
    return _Layout(record, schema).size


class _Bytes:
    """A slice of a mapping as a payload."""

    def __init__(self, view: memoryview):
        self.view, self.nbytes = view, view.nbytes

    def chunks(self) -> Iterator[memoryview]:
        yield self.view


class _Part:
    """A contiguous piece of the file: `data` with holes for the offsets of `children` (place in data, part), from `origin` on aligned to `align`."""

    __slots__ = ("align", "children", "data", "origin", "payload", "position", "vtable")

    def __init__(self, data: bytes, align: int, origin: int, children: tuple = (), vtable: _Part | None = None, payload: Any = None):
        self.data, self.align, self.origin, self.children, self.vtable, self.payload = data, align, origin, children, vtable, payload
        self.position = -1

    @property
    def size(self) -> int:
        return len(self.data) + (self.payload.nbytes if self.payload is not None else 0)


class _Layout:
    """Every part of a FlatBuffer and its position. Parts with equal content are one part."""

    def __init__(self, record: Record, schema: Schema):
        self.schema = schema
        self.known: dict[Any, Any] = {}
        self.parts: list[Any] = []
        self.root = self.table(record)
        self.size, payloads, ready = 8 if schema.identifier else 4, [], [self.root]
        waiting = Counter(id(child) for part in self.known.values() for _, child in part.children)
        while ready:
            part = ready.pop()
            if part.payload is not None:
                payloads.append(part)
                continue
            if part.vtable is not None and part.vtable.position < 0:
                self.place(part.vtable)
            self.place(part)
            for _, child in reversed(part.children):              # an offset only points forward: a part stands after everything that points to it
                waiting[id(child)] -= 1
                if not waiting[id(child)]:
                    ready.append(child)
        for part in payloads:
            self.place(part)
        self.size += -self.size % 16
        if self.size > BIGGEST:
            raise ValueError(f"a FlatBuffer of {self.size} bytes; its offsets end at {BIGGEST}")

    def place(self, part: _Part) -> None:
        part.position = self.size + -(self.size + part.origin) % part.align
        self.size = part.position + part.size
        self.parts.append(part)

    def chunks(self) -> Iterator[Any]:
        yield struct.pack("<I", self.root.position) + self.schema.identifier
        position = 4 + len(self.schema.identifier)
        for part in self.parts:
            data = bytearray(part.data)
            for place, child in part.children:
                struct.pack_into("<I", data, place, child.position - part.position - place)
            if part.vtable is not None:
                struct.pack_into("<i", data, 0, part.position - part.vtable.position)
            yield bytes(part.position - position) + data
            if part.payload is not None:
                yield from part.payload.chunks()
            position = part.position + part.size
        yield bytes(self.size - position)

    def once(self, key: tuple, part: _Part) -> _Part:
        return self.known.setdefault(key, part)

    def table(self, record: Record) -> _Part:
        """Fields of 8 bytes first, so that the table needs no gaps: its header takes 4 bytes and stands 4 bytes before a multiple of 8."""
        cells = sorted(self.cells(record), key=lambda cell: -cell[1])
        align = 8 if cells and cells[0][1] == 8 else 4
        data, children, offsets = bytearray(4), [], {}
        for slot, _, value in cells:
            offsets[slot] = len(data)
            if isinstance(value, _Part):
                children.append((len(data), value))
                value = bytes(4)
            data += value
        count = max(offsets, default=-1) + 1
        vtable = struct.pack(f"<{count + 2}H", 4 + 2 * count, len(data), *(offsets.get(slot, 0) for slot in range(count)))
        vtable_part = self.once(("vtable", vtable), _Part(vtable, 2, 0))
        key = ("table", vtable, bytes(data), tuple(id(child) for _, child in children))
        return self.once(key, _Part(bytes(data), align, 4 if align == 8 else 0, tuple(children), vtable_part))

    def cells(self, record: Record) -> Iterator[tuple[int, int, bytes | _Part]]:
        """(slot, width, bytes or part) of every field that differs from its default."""
        for name, value in record._fields.items():
            field = record._kind.fields[name]
            if value is None or (field.kind == "scalar" and value == field.default):
                continue
            if field.kind == "scalar":
                number = field.enum.numbers.get(value, value) if field.enum else value
                data = struct.pack("<" + FORMAT[field.scalar], number)
                yield field.slot, len(data), data
            elif field.kind == "union":
                yield field.slot, 1, bytes([self.schema.enum(field.element).numbers[value._kind.name]])
                yield field.slot + 1, 4, self.table(value)
            else:
                yield field.slot, 4, self.part(field, value)

    def part(self, field: Field, value: Any) -> _Part:
        if field.kind == "table":
            return self.table(value)
        if field.kind == "tables":
            children = [self.table(item) for item in value]
            data = struct.pack("<I", len(children)) + bytes(4 * len(children))
            return self.once(("tables", *map(id, children)), _Part(data, 4, 0, tuple((4 + 4 * place, child) for place, child in enumerate(children))))
        if field.kind == "string":
            data = value.encode("utf-8", "surrogateescape")
            return self.once((4, "text", data), _Part(struct.pack("<I", len(data)) + data + b"\0", 4, 0))
        if isinstance(value, memoryview) and value.nbytes > STREAMED:
            return self.once(("payload", id(value)), _Part(struct.pack("<I", len(value)), field.align, 4, payload=_Bytes(value)))
        if hasattr(value, "chunks"):
            return self.once(("payload", id(value)), _Part(struct.pack("<I", value.nbytes // WIDTH[field.scalar]), field.align, 4, payload=value))
        data = bytes(value) if field.scalar == "ubyte" else struct.pack(f"<{len(value)}{FORMAT[field.scalar]}", *value)
        return self.once((field.align, "numbers", len(value), data), _Part(struct.pack("<I", len(value)) + data, field.align, 4))
