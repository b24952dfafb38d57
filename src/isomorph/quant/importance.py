"""Importance matrices: for each column of a weight the mean square of what it is multiplied with, so that encoders know which errors matter.

Two kinds of file are read: GGUF with `NAME.in_sum2` and `NAME.counts` for each weight, as llama-imatrix writes it now, and the one before, a list of
(name, calls, float32 values) with the number of chunks and the name of the text behind it. Written is GGUF. Source: llama.cpp tools/imatrix.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Unsupported
from isomorph.formats import _table
from isomorph.model import Checkpoint
from isomorph.tensors import array_tensor, dims_of

SUMS, COUNTS = ".in_sum2", ".counts"
LONGEST_NAME = 1 << 12


@dataclass
class Importance:
    """Weight name -> float32 [columns], or [experts, columns] of stacked experts; on how many chunks of which texts it was measured."""

    weights: dict[str, np.ndarray]
    chunks: int = 0
    texts: list[str] = field(default_factory=list)

    def of(self, name: str, tensor: Any) -> np.ndarray | None:
        """What belongs to a tensor. Raises `Unsupported` where it is of another size, except for embeddings, which are looked up and not multiplied."""
        found, dims = self.weights.get(name), dims_of(tensor)
        if found is None:
            return None
        experts = dims[0] if len(dims) == 3 else 1
        if found.size == dims[-1] * experts:
            return found.reshape(experts, -1) if experts > 1 else found.reshape(-1)
        if name == "token_embd.weight":
            return None
        raise Unsupported(f"the importance matrix has {found.size} values for a weight of the shape {list(dims)}", where=name,
                          hint="it belongs to another model")


def read(path: str | Path) -> Importance:
    """An importance matrix. Raises `Damaged` for anything else, and for values that are negative, infinite or no numbers."""
    artifact = Artifact.open(path)
    found = _of_gguf(artifact) if bytes(artifact.view[:4]) == b"GGUF" else _of_list(artifact)
    for name, values in found.weights.items():
        if not np.isfinite(values).all() or (values < 0).any():
            raise Damaged("the importance matrix holds values that are negative, infinite or no numbers", where=f"{artifact.where}: {name}")
    return found


def _of_gguf(artifact: Artifact) -> Importance:
    content = _table.get("gguf").reader(artifact)
    names = [name.removesuffix(SUMS) for name in content if name.endswith(SUMS)] if isinstance(content, Checkpoint) else []
    if not names or any(f"{name}{COUNTS}" not in content for name in names):
        raise Damaged("the file holds no importance matrix: tensors in_sum2 and counts for each weight", where=artifact.where)
    weights = {}
    for name in names:
        sums, counts = (np.asarray(content[f"{name}{end}"].numpy(), np.float32).reshape(-1) for end in (SUMS, COUNTS))
        if not counts.size or sums.size % counts.size:
            raise Damaged(f"{sums.size} sums for {counts.size} counts", where=f"{artifact.where}: {name}")
        each = np.rint(counts)[:, None]
        weights[name] = np.where(each > 0, sums.reshape(counts.size, -1) / np.where(each > 0, each, np.float32(1)), np.float32(1))
    texts = content.metadata.get("imatrix.datasets") or []
    return Importance(weights, _number(content.metadata.get("imatrix.chunk_count")), [str(text) for text in texts])


def _number(value: Any) -> int:
    return int(value) if isinstance(value, (int, str)) and str(value).isdigit() else 0


class _Cursor:
    """Reads little-endian numbers and bytes one after the other, never beyond the end."""

    def __init__(self, artifact: Artifact):
        self.view, self.where, self.at = artifact.view, artifact.where, 0

    def take(self, size: int) -> memoryview:
        if size < 0 or self.at + size > len(self.view):
            raise Damaged(f"{size} bytes at {self.at} lie outside the file", where=self.where)
        self.at += size
        return self.view[self.at - size:self.at]

    def number(self) -> int:
        return struct.unpack("<i", self.take(4))[0]

    def text(self) -> str:
        size = self.number()
        if size > LONGEST_NAME:
            raise Damaged(f"a name of {size} bytes: this is no importance matrix", where=self.where)
        return str(self.take(size), "utf-8", "replace")


def _of_list(artifact: Artifact) -> Importance:
    cursor = _Cursor(artifact)
    weights = dict(_entries(cursor, cursor.number()))
    if not weights:
        raise Damaged("the importance matrix is empty", where=artifact.where)
    if cursor.at + 4 > artifact.size:
        return Importance(weights)
    chunks = max(cursor.number(), 0)
    return Importance(weights, chunks, [cursor.text()] if cursor.at + 4 <= artifact.size else [])


def _entries(cursor: _Cursor, count: int) -> Iterator[tuple[str, np.ndarray]]:
    for _ in range(count):
        name, calls, size = cursor.text(), cursor.number(), cursor.number()
        values = np.frombuffer(cursor.take(4 * size), "<f4")
        yield name, values / np.float32(calls) if calls > 0 else values.copy()


def checkpoint(sums: Mapping[str, np.ndarray], counts: Mapping[str, int], *, chunks: int, chunk: int, texts: list[str]) -> Checkpoint:
    """What a GGUF file of an importance matrix holds: sums of squares of each weight's inputs over `counts` positions, in chunks of `chunk` positions."""
    from isomorph.formats.gguf import Keys, Typed
    tensors = {}
    for name, values in sums.items():
        tensors[f"{name}{SUMS}"] = array_tensor(np.asarray(values, np.float32).reshape(1, -1), f"{name}{SUMS}")
        tensors[f"{name}{COUNTS}"] = array_tensor(np.asarray([[counts[name]]], np.float32), f"{name}{COUNTS}")
    keys = Keys({"general.type": "imatrix", "imatrix.datasets": Typed("string", texts), "imatrix.chunk_count": chunks, "imatrix.chunk_size": chunk},
                {"imatrix.chunk_count": "u32", "imatrix.chunk_size": "u32"})
    return Checkpoint(tensors, keys)
