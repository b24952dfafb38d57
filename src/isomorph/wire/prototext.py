"""The text form of protocol buffers, read by schema (https://protobuf.dev/reference/protobuf/textformat-spec/)."""
from __future__ import annotations

import re
from typing import Any

from isomorph.errors import Damaged, Unsafe
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.protobuf import SCALARS, Record, Row

TOKEN = re.compile(r"""\s*(?:\#[^\n]*\n\s*)*(?:
    (?P<name>[A-Za-z_][\w.]*) | (?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?f?|inf\b|nan\b)) |
    (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*') | (?P<mark>[{}<>\[\]:;,-]))""", re.VERBOSE)
REST = re.compile(r"(?:\s|#[^\n]*(?:\n|\Z))*\Z")
ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
UNSIGNED = ("uint32", "uint64", "fixed32", "fixed64")
ENUMS = re.compile(r"DT_(\w+)\Z")


def read(source: Any, message: type[Record], limits: Limits = DEFAULT, where: str = "") -> Record:
    """The record of `message` that the text says. Names of fields that the schema does not have are passed over. Raises `Damaged` and `Unsafe`."""
    return _Parser(bytes(source).decode("utf-8", "surrogateescape"), limits, where).message(message)


class _Parser:
    def __init__(self, text: str, limits: Limits, where: str):
        self.text, self.limits, self.where, self.at = text, limits, where, 0

    def damaged(self, what: str) -> Damaged:
        line = self.text.count("\n", 0, self.at) + 1
        return Damaged(what, where=f"{self.where}, line {line}")

    def next(self) -> tuple[str, str]:
        found = TOKEN.match(self.text, self.at)
        if found is None:
            if REST.match(self.text, self.at):
                self.at = len(self.text)
                return "end", ""
            raise self.damaged(f"{self.text[self.at:self.at + 20].strip()!r} is no text form of a message")
        self.at = found.end()
        return found.lastgroup or "", found[found.lastgroup or 0]

    def peek(self) -> tuple[str, str]:
        at = self.at
        found = self.next()
        self.at = at
        return found

    def message(self, kind: type[Record] | None, closing: str = "", depth: int = 0) -> Record:
        if depth > self.limits.recursion:
            raise Unsafe(f"messages are nested deeper than {self.limits.recursion}", where=self.where)
        record = kind() if kind is not None else Record()
        rows = {row.name: row for row in kind.ORDERED} if kind is not None else {}
        while True:
            group, token = self.next()
            if (group, token) == ("mark", closing) or (group == "end" and not closing):
                return record
            if group == "mark" and token in ";,":
                continue
            if group == "mark" and token == "[":               # an extension
                while self.next()[1] not in ("]", ""):
                    pass
                token = ""
            elif group != "name":
                raise self.damaged(f"{token!r} where a field is expected" if token else "the text ends inside a message")
            self.field(record, rows.get(token), depth)

    def field(self, record: Record, row: Row | None, depth: int) -> None:
        if self.peek() == ("mark", ":"):
            self.next()
        if self.peek() == ("mark", "["):
            self.next()
            while self.peek() != ("mark", "]"):
                self.keep(record, row, self.value(row, depth))
                if self.peek() == ("mark", ","):
                    self.next()
            self.next()
            return
        self.keep(record, row, self.value(row, depth))

    def keep(self, record: Record, row: Row | None, value: Any) -> None:
        if row is None:
            return
        fields = record.__dict__
        if row.many == "map":
            key = value.key
            held = value.value if "value" in value or not value.ROWS[2].message else value.ROWS[2].message()
            fields.setdefault(row.name, {})[key] = held
        elif row.many:
            fields.setdefault(row.name, []).append(value)
        else:
            fields[row.name] = value

    def value(self, row: Row | None, depth: int) -> Any:
        group, token = self.next()
        if group == "mark" and token in "{<" and (row is None or row.message is not None):
            return self.message(row.message if row is not None else None, {"{": "}", "<": ">"}[token], depth + 1)
        if row is not None and row.message is not None:
            raise self.damaged(f"{token!r} where a message is expected")
        if group == "text" and (row is None or row.type in ("string", "bytes")):
            parts = [_unescaped(token)]
            while self.peek()[0] == "text":
                parts.append(_unescaped(self.next()[1]))
            data = b"".join(parts)
            return data if row is None or row.type == "bytes" else data.decode("utf-8", "surrogateescape")
        if group == "mark" and token == "-":
            group, token = self.next()
            token = f"-{token}"
        if group in ("number", "name"):
            return self.scalar(token, row)
        raise self.damaged(f"{token!r} where a value is expected" if token else "the text ends inside a field")

    def scalar(self, token: str, row: Row | None) -> Any:
        kind = row.type if row is not None else ""
        try:
            if kind == "bool":
                return {"true": True, "t": True, "1": True, "True": True, "false": False, "f": False, "0": False, "False": False}[token]
            if kind in ("float", "double"):
                return float(token.rstrip("fF") if not token.lstrip("-").startswith(("inf", "nan", "0x")) else token)
            if kind in ("", "string", "bytes"):
                if kind:
                    raise ValueError
                return token
            if ENUMS.match(token):
                from isomorph.wire.tf_operators import REFERENCE, TYPES
                name = token[3:].lower()
                return TYPES[name] if name in TYPES else 0 if name == "invalid" else TYPES[name.removesuffix("_ref")] + REFERENCE
            return _whole(token, kind) if kind in SCALARS and not token[:1].isalpha() else 0
        except (KeyError, ValueError):
            raise self.damaged(f"{token!r} is no {kind}") from None


def _whole(token: str, kind: str) -> int:
    """An integer in decimal, hexadecimal or octal. Raises `ValueError` where its type cannot hold it."""
    digits = token.lstrip("+-")
    number = int(digits, 8 if digits.startswith("0") and digits.isdecimal() else 0) * (-1 if token.startswith("-") else 1)
    bits = 32 if kind.endswith("32") else 64
    low, high = (0, 1 << bits) if kind in UNSIGNED else (-1 << bits - 1, 1 << bits - 1)
    if not low <= number < high:
        raise ValueError
    return number


def _unescaped(token: str) -> bytes:
    raw = token[1:-1].encode("utf-8", "surrogateescape")
    return ESCAPE.sub(_byte, raw)


def _byte(found: re.Match[bytes]) -> bytes:
    """The byte that an escape stands for."""
    octal, hexadecimal, letter = found.groups()
    return bytes((int(octal, 8) & 255,)) if octal else bytes((int(hexadecimal, 16),)) if hexadecimal else ESCAPES.get(letter, letter)
