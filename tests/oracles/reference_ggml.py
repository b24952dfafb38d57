"""ggml's own C code, called through ctypes: the reference for every block."""
from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from isomorph.quant.blocks import BLOCKS


@cache
def library() -> ctypes.CDLL:
    """libggml-base of the package libggml-python, which is compiled without contraction of multiplications and additions."""
    package = pytest.importorskip("libggml", reason="the reference is not installed: pip install libggml-python")
    found = [path for root in package.__path__ for path in Path(root).rglob("libggml-base.so")]
    if not found:
        pytest.skip("libggml-python has no library for this system")
    made = ctypes.CDLL(str(found[0]))
    made.ggml_quantize_chunk.restype = ctypes.c_size_t
    made.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return made


def decoded(name: str, blocks: np.ndarray) -> np.ndarray:
    """float32 elements of blocks, given as uint8 [n, bytes of a block]."""
    kind = BLOCKS[name]
    out = np.empty(len(blocks) * kind.elements, np.float32)
    function = f"dequantize_row_{name.lower().replace('_k', '_K')}"
    getattr(library(), function)(blocks.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(out.size))
    return out


def encoded(name: str, rows: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """uint8 [blocks, bytes of a block] of float32 [rows, columns], with one weight a column where `importance` gives them."""
    kind = BLOCKS[name]
    rows = np.ascontiguousarray(rows, np.float32)
    out = np.empty((rows.size // kind.elements, kind.bytes), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    written = library().ggml_quantize_chunk(kind.number, rows.ctypes.data, out.ctypes.data, 0, rows.shape[0], rows.shape[1],
                                            None if weights is None else weights.ctypes.data)
    assert written == out.size
    return out
