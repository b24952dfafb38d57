"""CRC-32C (polynomial 0x82f63b78, reflected) and the masked form of it that LevelDB and TensorFlow store beside data.

Masking (tensorflow/core/lib/hash/crc32c.h) keeps the checksum of data that contains checksums meaningful.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import google_crc32c

STEP = 1 << 20
DELTA = 0xA282EAD8


def crc32c(data: Any, crc: int = 0) -> int:
    """The checksum of bytes; `crc` is that of the bytes before them. Takes any buffer, a megabyte at a time, because the library takes `bytes` alone."""
    view = memoryview(data)
    view = view if view.nbytes == 0 else view.cast("B")
    for start in range(0, len(view), STEP):
        crc = google_crc32c.extend(crc, bytes(view[start:start + STEP]))
    return crc


def crc32c_of(pieces: Iterable[Any]) -> int:
    """The checksum of pieces that follow each other."""
    crc = 0
    for piece in pieces:
        crc = crc32c(piece, crc)
    return crc


def masked(crc: int) -> int:
    """The form in which a checksum is stored: rotated by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17) + DELTA) & 0xFFFFFFFF
