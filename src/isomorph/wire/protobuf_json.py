"""Records of protocol buffers as JSON and back, in the mapping that the specification fixes (protobuf.dev/programming-guides/json).

Names in camelCase, 64-bit numbers as text, bytes as base64, NaN and infinities as text, maps as objects. Enumerations are numbers in our schemas: which
fields are some, and what their values are called, is given as `Enums`.
"""
from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from isomorph.errors import Damaged, Unsafe
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.protobuf import Record, Row

Enums = Mapping[tuple[str, str], Mapping[str, int]]           # (message, field) -> name -> number
NO_ENUMS: Enums = MappingProxyType({})
WIDE = {"int64", "uint64", "sint64", "fixed64", "sfixed64"}
WHOLE = WIDE | {"int32", "uint32", "sint32", "fixed32", "sfixed32"}
REAL = {"float", "double"}


def camel(name: str) -> str:
    """snake_case -> camelCase."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def read(value: Any, message: type[Record], where: str = "", limits: Limits = DEFAULT, enums: Enums = NO_ENUMS, depth: int = 0) -> Record:
    """The record that a JSON object stands for. Fields that the schema does not know are left out.

    Raises `Damaged` where a value has another type than its field, `Unsafe` where nesting exceeds its limit.
    """
    if depth > limits.recursion:
        raise Unsafe(f"messages are nested deeper than {limits.recursion}", where=where, hint="raise Limits.recursion if the file is trusted")
    if not isinstance(value, dict):
        raise Damaged(f"{message.__name__} is {str(value)[:40]!r}", where=where)
    record = message()
    for row in message.ORDERED:
        item = value.get(camel(row.name), value.get(row.name))
        if item is None:
            continue
        place = f"{where}.{row.name}" if where else row.name
        names = enums.get((message.__name__, row.name), {})

        def one(each: Any, row: Row = row, place: str = place, names: Mapping[str, int] = names) -> Any:
            return read(each, row.message, place, limits, enums, depth + 1) if row.message is not None else _scalar(each, row.type, names, place)
        if row.many == "map":
            if not isinstance(item, dict):
                raise Damaged(f"a map is {str(item)[:40]!r}", where=place)
            entry = row.message.ROWS[2]
            record.__dict__[row.name] = {key: read(each, entry.message, f"{place}.{key[:80]}", limits, enums, depth + 1) if entry.message is not None
                                         else _scalar(each, entry.type, {}, place) for key, each in item.items()}
        elif row.many:
            if not isinstance(item, list):
                raise Damaged(f"a list is {str(item)[:40]!r}", where=place)
            record.__dict__[row.name] = [one(each) for each in item]
        else:
            record.__dict__[row.name] = one(item)
    return record


def _scalar(value: Any, kind: str, names: Mapping[str, int], where: str) -> Any:
    try:
        if kind == "string" and isinstance(value, str):
            return value
        if kind == "bytes":                        # some writers list the numbers of the bytes
            return bytes(value) if isinstance(value, list) else base64.b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4))
        if kind == "bool" and isinstance(value, bool):
            return value
        if kind in REAL:
            return float(value)
        if kind in WHOLE:
            number = names[value] if isinstance(value, str) and value in names else int(value)
            if abs(number) < 1 << 64 and not isinstance(value, bool):
                return number
    except (TypeError, ValueError, AttributeError, OverflowError, binascii.Error):
        pass
    raise Damaged(f"{str(value)[:40]!r} where a {kind} belongs", where=where)


def write(record: Record, enums: Enums = NO_ENUMS) -> dict[str, Any]:
    """The JSON object of a record. `bytes` must be short, because they become text."""
    found: dict[str, Any] = {}
    for row in record.ORDERED:
        value = record.__dict__.get(row.name)
        if value is None:
            continue
        names = {number: name for name, number in enums.get((type(record).__name__, row.name), {}).items()}

        def one(each: Any, row: Row = row, names: dict[int, str] = names) -> Any:
            return write(each, enums) if row.message is not None else _text(each, row.type, names)
        if row.many == "map":
            entry = row.message.ROWS[2]
            found[camel(row.name)] = {key: write(each, enums) if entry.message is not None else _text(each, entry.type, {}) for key, each in value.items()}
        elif row.many:
            found[camel(row.name)] = [one(each) for each in value]
        else:
            found[camel(row.name)] = one(value)
    return found


def _text(value: Any, kind: str, names: dict[int, str]) -> Any:
    if kind == "bytes":
        return base64.b64encode(value if isinstance(value, bytes) else b"".join(value.chunks()) if hasattr(value, "chunks") else bytes(value)).decode()
    if kind in REAL:
        return float(value) if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if kind in WHOLE:
        return names.get(int(value), str(int(value)) if kind in WIDE else int(value))
    return value
