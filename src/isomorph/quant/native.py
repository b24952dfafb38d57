"""The compiled encoders, where the installation could build them: `native.c`, called without Python's lock, with the bits of `encode`."""
from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.util import find_spec

import numpy as np

from isomorph.quant.blocks import BLOCKS

VARIABLE = "ISOMORPH_NATIVE"                 # 0: leave it to NumPy


@cache
def library() -> ctypes.CDLL | None:
    """The library; None where it was not built, or the variable says not to use it."""
    found = find_spec("isomorph.quant._native") if os.environ.get(VARIABLE) != "0" else None
    if found is None or not found.origin:
        return None
    try:
        loaded = ctypes.CDLL(found.origin)
        loaded.isomorph_encode.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64]
    except (OSError, AttributeError):
        return None
    return loaded


def encode(name: str, groups: np.ndarray, weights: np.ndarray | None, blocks: np.ndarray) -> bool:
    """Fills `blocks` from float32 [blocks, elements], with a weight for each element or none. False where there is no kernel for this."""
    found, kind = library(), BLOCKS[name]
    if found is None or not len(groups):
        return False
    given = None if weights is None else np.ascontiguousarray(weights, np.float32)
    at = None if given is None else given.ctypes.data
    return bool(found.isomorph_encode(kind.number, groups.ctypes.data, at, groups.size, blocks.ctypes.data, kind.bytes))
