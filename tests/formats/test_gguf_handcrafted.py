"""The good and bad files that llama.cpp makes by hand in tests/test-gguf.cpp, all 34 under its names, with its verdicts.

isomorph reads version 1, which llama.cpp refuses; the file of version 1 among them has the wide counts of later versions and so contradicts itself.
"""
from __future__ import annotations

import struct

import pytest
from gguf_files import ARRAY, F32, I8, STRING, gguf

from isomorph.artifact import Artifact
from isomorph.errors import IsomorphError
from isomorph.formats import gguf as format_

KEYS = [(f"my_key_{place}", kind, value) for place, (kind, value) in enumerate(
    [(0, 200), (1, -3), (2, 60000), (3, -5), (4, 1 << 31), (5, -7), (6, 0.5), (7, 1), (STRING, "some text"), (10, 1 << 63), (11, -1), (12, 0.25),
     (ARRAY, (4, [1, 2, 3])), (ARRAY, (STRING, ["a", "", "bc"])), (ARRAY, (12, [1.0]))])]
I64, UNKNOWN_TYPE, UNKNOWN_KIND, LARGEST = 27, 43, 13, (1 << 64) - 1
SHAPES = [((4, 3), F32, 48), ((33,), I8, 33), ((2, 2, 2), I64, 64)]


def aligned(alignment: int, kind: int = 4) -> list:
    return [*KEYS, ("general.alignment", kind, alignment)]


def tensors(alignment: int = 32, **changed: object) -> list:
    """(name, sizes, type, offset) of some tensors one behind the other; `changed` replaces a part of all of them."""
    found, offset = [], 0
    for place, (sizes, kind, size) in enumerate(SHAPES):
        row = {"name": f"my_tensor_{place}", "sizes": sizes, "kind": kind, "offset": offset} | changed
        found.append(tuple(row[name] for name in ("name", "sizes", "kind", "offset")))
        offset += -(-size // alignment) * alignment
    return found


def file(keys: list = KEYS, rows: list = (), data: int | None = None, alignment: int = 32, **counts: int) -> bytes:
    whole = sum(-(-size // alignment) * alignment for _, _, size in SHAPES) if rows else 0
    return gguf(keys=keys, tensors=rows, data=bytes(whole if data is None else data), alignment=alignment, **counts)


EMPTY, BIG = gguf(), 4 * ((1 << 31) - 1)
GOOD = {"HEADER_EMPTY", "KV_SUCCESS", "TENSORS_ZERO_DIM", "TENSORS_SUCCESS", "TENSORS_CUSTOM_ALIGN", "DATA_SUCCESS", "DATA_CUSTOM_ALIGN"}
CASES = {
    "HEADER_BAD_MAGIC": b"FUGG" + EMPTY[4:], "HEADER_BAD_VERSION_0": gguf(version=0), "HEADER_BAD_VERSION_1": EMPTY[:4] + struct.pack("<I", 1) + EMPTY[8:],
    "HEADER_BAD_VERSION_FUTURE": gguf(version=4), "HEADER_BAD_N_TENSORS": gguf(n_tensors=LARGEST), "HEADER_BAD_N_KV": gguf(n_keys=LARGEST),
    "HEADER_EMPTY": EMPTY,
    "KV_BAD_KEY_SIZE": gguf(n_keys=1) + struct.pack("<Q", LARGEST) + b"my_key_0" + struct.pack("<II", 4, 7),
    "KV_EMPTY_KEY": file([("", kind, value) for _, kind, value in KEYS]), "KV_BAD_TYPE": gguf(keys=[("my_key_0", UNKNOWN_KIND, b"\1")]),
    "KV_DUPLICATE_KEY": file([(f"my_key_{place // 2}", kind, value) for place, (_, kind, value) in enumerate(KEYS)]),
    "KV_BAD_ALIGN": file(aligned(13)), "KV_WRONG_TYPE_ALIGN": file(aligned(32, kind=5)), "KV_SUCCESS": file(),
    "TENSORS_BAD_NAME_SIZE": file(rows=tensors(name="my_tensor_with_a_very_long_name_which_is_longer_than_what_is_allowed_for_ggml_tensors")[:1]),
    "TENSORS_BAD_N_DIMS": file(rows=tensors(sizes=(1, 1, 1, 1, 1))), "TENSORS_BAD_SHAPE": file(rows=tensors(sizes=(LARGEST,))),
    "TENSORS_ZERO_DIM": file(rows=[(name, (sizes[0], 0), kind, 0) for name, sizes, kind, _ in tensors()]),
    "TENSORS_NE_TOO_BIG": file(rows=tensors(sizes=(BIG, BIG))), "TENSORS_NBYTES_TOO_BIG": file(rows=tensors(sizes=(1533916891, 1533916891), kind=I64)),
    "TENSORS_NBYTES_PAD_WRAP": file(rows=tensors(sizes=(4, (1 << 30) - 1, (1 << 30) + 1), kind=F32)[:1]),
    "TENSORS_BAD_TYPE": file(rows=tensors(kind=UNKNOWN_TYPE)), "TENSORS_BAD_OFFSET": file(rows=tensors(offset=LARGEST)),
    "TENSORS_DUPLICATE_NAME": file(rows=tensors(name="my_tensor")), "TENSORS_BAD_ALIGN": file(aligned(13), tensors(13), alignment=13),
    "TENSORS_INCONSISTENT_ALIGN": file(rows=tensors(1), alignment=1), "TENSORS_SUCCESS": file(rows=tensors()),
    "TENSORS_CUSTOM_ALIGN": file(aligned(1), tensors(1), alignment=1),
    "DATA_NOT_ENOUGH_DATA": file(rows=tensors(), data=sum(-(-size // 32) * 32 for _, _, size in SHAPES) - 1),
    "DATA_BAD_ALIGN": file(aligned(13), tensors(13), alignment=13), "DATA_INCONSISTENT_ALIGN": file(rows=tensors(1), alignment=1),
    "DATA_MEM_SIZE_OVERFLOW": gguf(tensors=[("a", (0x7FFFFFFFFFFFFFC0,), I8, 0), ("b", (0x7FFFFFFFFFFFFFC0,), I8, 0x7FFFFFFFFFFFFFC0)], data=bytes(32)),
    "DATA_SUCCESS": file(rows=tensors()), "DATA_CUSTOM_ALIGN": file(aligned(1), tensors(1), alignment=1),
}


def test_there_are_as_many():
    assert len(CASES) == 34
    assert set(CASES) >= GOOD


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_is_the_same(name):
    accepted = True
    try:
        for tensor in format_.read(Artifact.open(CASES[name])).values():
            tensor.numpy()
    except IsomorphError:
        accepted = False
    assert accepted == (name in GOOD)
