"""GGUF files made by hand, byte by byte, so that the reader is not tested with its own writer."""
from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
F32, Q4_0, I8 = 0, 2, 24


def gguf(version: int = 3, keys: Sequence[tuple[str, int, Any]] = (), tensors: Sequence[tuple[str, Sequence[int], int, int]] = (), data: bytes = b"",
         order: str = "<", alignment: int = 32, **counts: int) -> bytes:
    """Keys are (name, type, value), an array's value is (element type, items); tensors are (name, sizes, type, offset)."""
    wide = order + ("I" if version == 1 else "Q")

    def text(value: str | bytes) -> bytes:
        raw = value if isinstance(value, bytes) else value.encode()
        return struct.pack(wide, len(raw)) + raw

    def payload(kind: int, value: Any) -> bytes:
        if kind == STRING:
            return text(value)
        if kind == ARRAY:
            inner, items = value
            return struct.pack(order + "I", inner) + struct.pack(wide, len(items)) + b"".join(payload(inner, item) for item in items)
        return struct.pack(order + CODES[kind], value)

    out = b"GGUF" + struct.pack(order + "I", version)
    out += struct.pack(wide, counts.get("n_tensors", len(tensors))) + struct.pack(wide, counts.get("n_keys", len(keys)))
    for name, kind, value in keys:
        out += text(name) + struct.pack(order + "I", kind) + (value if isinstance(value, bytes) and kind != STRING else payload(kind, value))
    for name, sizes, kind, offset in tensors:
        out += text(name) + struct.pack(order + "I", len(sizes)) + b"".join(struct.pack(wide, size) for size in sizes)
        out += struct.pack(order + "IQ", kind, offset)
    return out + (bytes(-len(out) % alignment) if tensors else b"") + data


def padded(data: bytes, alignment: int = 32) -> bytes:
    return data + bytes(-len(data) % alignment)
