"""The beginning of a JSON document as plain values, read under a budget: for recognising files whose whole text would be too much to parse.

Grammar: RFC 8259, read leniently: what decides is which keys stand where, and a document may end early because only its head was read.
"""
from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

MOST_BYTES = 1 << 20
MOST_TOKENS = 40_000
DEEPEST = 8                                # containers below this are skipped over
WIDEST = 64                                # elements kept of an array
LONGEST = 1 << 12                          # characters kept of a string

TOKEN = re.compile(rb'[\s,:]*+(?:([{}\[\]])|"((?:[^"\\]|\\.)*+)"|([^\s,:{}\[\]"]++))', re.DOTALL)
SKIPPED = "..."
LITERALS: dict[bytes, Any] = {b"true": True, b"false": False, b"null": None}


class Head(NamedTuple):
    """The value as far as it was read, and whether that was all of it."""

    value: Any
    complete: bool


def begins_json(head: bytes) -> bool:
    """Whether the first character that is no space is a brace or bracket."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def read(view: memoryview | bytes) -> Head:
    """The outline of a document that begins with a brace or bracket. Arrays keep 64 elements, values below depth 8 are `"..."`. Never raises."""
    return _read(bytes(view[:MOST_BYTES]))


@lru_cache(maxsize=4)                      # every JSON format looks at the same head
def _read(data: bytes) -> Head:
    if not begins_json(data):
        return Head(None, False)
    scanner = TOKEN.scanner(data, 3 if data.startswith(b"\xef\xbb\xbf") else 0)        # type: ignore[attr-defined]
    root: list[Any] = []
    stack: list[Any] = [root]
    keys: list[str | None] = [None]
    for _ in range(MOST_TOKENS):
        token = scanner.match()
        if token is None:
            return Head(root[0] if root else None, False)
        bracket, string, literal = token.groups()
        if bracket in (b"}", b"]"):
            stack.pop()
            keys.pop()
            if len(stack) == 1:
                return Head(root[0], not data[token.end():].strip())
            if not stack:
                return Head(None, False)
            continue
        holder = stack[-1]
        if string is not None and type(holder) is dict and keys[-1] is None:
            keys[-1] = _text(string)
            continue
        value: Any = {} if bracket == b"{" else [] if bracket else _text(string) if string is not None else _literal(literal)
        if bracket and len(stack) > DEEPEST:
            _put(holder, keys, SKIPPED)
        else:
            _put(holder, keys, value)
        if bracket:
            stack.append(value)
            keys.append(None)
    return Head(root[0] if root else None, False)


def _put(holder: Any, keys: list[str | None], value: Any) -> None:
    key = keys[-1]
    if type(holder) is dict:
        if key is not None:
            holder[key] = value
        keys[-1] = None
    elif len(holder) < WIDEST:
        holder.append(value)


def _text(data: bytes) -> str:
    text = data[:LONGEST].decode("utf-8", "replace")
    if "\\" in text:
        text = re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", _escape, text, flags=re.DOTALL)
    return text


def _escape(match: re.Match[str]) -> str:
    code, character = match.groups()
    return chr(int(code, 16)) if code else {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}.get(character, character)


def _literal(data: bytes) -> Any:
    if data in LITERALS:
        return LITERALS[data]
    try:
        return float(data) if len(data) < 64 and any(c in data for c in b".eE") else int(data) if len(data) < 64 else SKIPPED
    except ValueError:
        return data[:LONGEST].decode("utf-8", "replace")
