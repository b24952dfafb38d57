"""The root element of an XML document and the first of some elements in it, found by a search: for recognising files. No entity is ever expanded."""
from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

MOST_BYTES = 2 << 20
# Atomic groups: without them, a head of nothing but comments could be taken apart in exponentially many ways
PROLOGUE = rb"(?>\s+|<\?.*?\?>|<!--.*?-->|(?P<doctype><!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>))*+"
ROOT = re.compile(rb"\A" + PROLOGUE + rb"<(?:[\w.-]+:)?(?P<name>[\w.-]+)(?P<rest>[^<>]*)>", re.DOTALL)
ATTRIBUTE = re.compile(rb"([\w.:-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")


class Root(NamedTuple):
    """The root element without its namespace prefix, its attributes, and whether a DOCTYPE stands before it."""

    name: str
    attributes: dict[str, str]
    doctype: bool


def read(head: bytes) -> Root | None:
    """The root element in the first 64 KiB, None where there is none."""
    found = ROOT.match(as_utf8(head[:1 << 16]))
    if found is None:
        return None
    pairs = {key.decode("utf-8", "replace"): (a or b).decode("utf-8", "replace") for key, a, b in ATTRIBUTE.findall(found["rest"])}
    return Root(found["name"].decode("utf-8", "replace"), pairs, found["doctype"] is not None)


def as_utf8(head: bytes) -> bytes:
    """The text without its byte order mark; UTF-16 is recoded."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head[:len(head) & ~1].decode("utf-16", "replace").encode()
    return head.removeprefix(b"\xef\xbb\xbf")


def elements(view: memoryview, names: Iterable[str]) -> list[str]:
    """Which of the elements occur in the first 2 MiB outside comments and CDATA, in order of first appearance."""
    wanted = b"|".join(name.encode() for name in names)
    search = re.compile(rb"<(?:(!--)|(!\[CDATA\[)|(?:[\w.-]++:)?(" + wanted + rb")[\s/>])")
    text = as_utf8(bytes(view[:MOST_BYTES]))
    found: dict[str, None] = {}
    match = search.search(text)
    while match:
        at = match.end()
        if match[3]:
            found[match[3].decode()] = None
        else:
            at = text.find(b"-->" if match[1] else b"]]>", at)
        match = search.search(text, at) if at >= 0 else None
    return list(found)
