"""Which fields a protobuf message in text form has near its beginning, without a schema: for recognising .pbtxt and .prototxt files.

Grammar: protobuf.dev, "Text Format Language Specification".
"""
from __future__ import annotations

import re
from typing import NamedTuple

MOST_BYTES = 1 << 16
MOST_TOKENS = 4_000
DEEPEST = 6                                # fields below this are passed over
TOKEN = re.compile(rb"""[\s,;]*+(?:\#[^\n]*+\s*+)*+(?:
    (?P<open>[A-Za-z_][\w.]*+)\s*+:?\s*+[{<]
  | (?P<key>[A-Za-z_][\w.]*+)\s*+:\s*+(?:(?P<text>"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')|(?P<word>[^\s{}<>\[\],;"']++)|(?P<list>\[))
  | (?P<close>[}>])
  | (?P<rest>"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+'|\]|[^\s{}<>\[\],;"']++))""", re.VERBOSE)


class Head(NamedTuple):
    """`fields` maps a path of names ("node.op") to the first value there, "" for a message. `sound` is False where the text is no such message."""

    fields: dict[str, str]
    sound: bool


def read(text: bytes) -> Head:
    """The fields of the first 64 KiB. Never raises."""
    scanner = TOKEN.scanner(text[:MOST_BYTES].removeprefix(b"\xef\xbb\xbf"))        # type: ignore[attr-defined]
    fields: dict[str, str] = {}
    path: list[str] = []
    for _ in range(MOST_TOKENS):
        token = scanner.match()
        if token is None:
            break
        name = token["open"] or token["key"]
        if name and len(path) < DEEPEST:
            value = (token["text"] or token["word"] or b"").strip(b"\"'")
            fields.setdefault(".".join([*path, name.decode()]), value.decode("utf-8", "replace"))
        if token["open"]:
            path.append(token["open"].decode())
        elif token["close"]:
            if not path:
                return Head(fields, False)
            path.pop()
        elif token["rest"] and not fields:
            return Head(fields, False)
    return Head(fields, bool(fields))
