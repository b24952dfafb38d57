"""Files of the GGML family before GGUF, made by hand."""
from __future__ import annotations

import struct
from collections.abc import Sequence

F32, F16, Q4_0, Q4_1, Q4_2, Q4_3, Q5_0, Q5_1, Q8_0, Q4_K = 0, 1, 2, 3, 4, 5, 6, 7, 8, 12
WORDS = [b"a", b"\xff", b"", b"word"]
Row = tuple[str, Sequence[int], int, bytes]          # name, dims as NumPy has them, type, data


def tensors(rows: Sequence[Row], start: int, aligned: bool) -> bytes:
    out = b""
    for name, dims, kind, data in rows:
        out += struct.pack(f"<3I{len(dims)}I", len(dims), len(name), kind, *reversed(dims)) + name.encode()
        out += bytes(-(start + len(out)) % 32 if aligned else 0) + data
    return out


def words(scored: bool = False) -> bytes:
    return b"".join(struct.pack("<I", len(word)) + word + (struct.pack("<f", -place) if scored else b"") for place, word in enumerate(WORDS))


def file(kind: str, rows: Sequence[Row], version: int = 0, file_type: int = 0) -> bytes:
    """`kind` is llama, gpt-2, gpt-j, gpt-neox, whisper, silero or rwkv; a llama of version 0 is lmgg, of 1 to 3 tjgg, of -1 fmgg."""
    count = len(WORDS)
    if kind == "llama":
        magic = b"lmgg" if version == 0 else b"fmgg" + struct.pack("<I", 1) if version < 0 else b"tjgg" + struct.pack("<I", version)
        head = magic + struct.pack("<7I", count, 64, 32, 4, 2, 16, file_type) + words(version != 0)
    elif kind == "rwkv":
        head = b"fmgg" + struct.pack("<5I", version, 256, 64, 2, file_type)
    elif kind == "silero":
        head = b"lmgg" + struct.pack("<I", 10) + b"silero-16k" + struct.pack("<3I", 5, 1, 2) + struct.pack("<3I", 512, 64, 2)
        head += struct.pack("<6I", 129, 128, 3, 128, 64, 3) + struct.pack("<4I", 128, 128, 128, 1)
    elif kind == "whisper":
        head = b"lmgg" + struct.pack("<11I", 51864, 1500, 384, 6, 4, 448, 384, 6, 4, 80, file_type) + struct.pack("<2I", 2, 3) + struct.pack("<6f", *range(6))
        head += struct.pack("<I", count) + words()
    else:
        numbers = {"gpt-2": (count, 64, 64, 4, 2), "gpt-j": (count, 64, 64, 4, 2, 16), "gpt-neox": (count, 64, 64, 4, 2, 16, 1),
                   "gpt-neox early": (count, 64, 64, 4, 2, 16)}[kind]
        head = b"lmgg" + struct.pack(f"<{len(numbers) + 1}I", *numbers, file_type)
        head += (b"" if "neox" in kind else struct.pack("<I", count)) + words()
    return head + tensors(rows, len(head), kind == "llama" and version > 0)
