"""Weights of TensorFlow.js: what `weightsManifest` of a model.json lists, in shards beside it (tfjs-core/src/io/{types,io_utils}.ts).

    weightsManifest  [{paths: [...], weights: [{name, shape, dtype, quantization?: {dtype, min, scale, original_dtype}}]}]

The shards of a group, one behind the other, hold its weights without gaps in the order of the list, so that a weight may cross shards. Numbers are
little-endian; of a string the length comes first, as u32. A quantised weight is stored in fewer bits: value = stored * scale + min, or a float16.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from isomorph.errors import Damaged, Missing, Unsafe
from isomorph.wire import files
from isomorph.wire.limits import DEFAULT, Limits

SHARD_BYTES = 4 << 20                      # what browsers cache
MOST_SHARDS = 250                          # which are open at the same time while they are written; larger models get larger shards
# Bytes of an element as it is stored
ELEMENT_BYTES = {"float32": 4, "int32": 4, "uint8": 1, "uint16": 2, "float16": 2, "bool": 1, "complex64": 8, "int8": 1, "int16": 2, "float64": 8, "int64": 8}
NARROW = frozenset({"uint8", "uint16", "float16"})


@dataclass(frozen=True)
class Weight:
    """A weight of the manifest. `stored` is the type of the bytes in `parts`, which are slices of shards that follow each other.

    `stored` differs from `dtype` where the weight is quantised: value = stored * scale + minimum, by nothing for float16.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    stored: str
    parts: tuple[memoryview, ...]
    scale: float = 1.0
    minimum: float = 0.0

    def data(self) -> memoryview:
        """The bytes in one piece: a slice of a mapping where the weight lies in one shard."""
        return self.parts[0] if len(self.parts) == 1 else memoryview(b"".join(self.parts))

    def strings(self) -> list[bytes]:
        """The elements of a weight of strings in row-major order."""
        data, at, found = self.data(), 0, []
        for _ in range(math.prod(self.shape)):
            length = int.from_bytes(data[at:at + 4], "little")
            found.append(bytes(data[at + 4:at + 4 + length]))
            at += 4 + length
        return found


class _Stream:
    """The shards of a group as one run of bytes."""

    def __init__(self, views: Sequence[memoryview], where: str):
        self.views, self.where, self.at = list(views), where, 0

    def take(self, count: int, name: str) -> tuple[memoryview, ...]:
        parts = []
        while count:
            while self.views and self.at == len(self.views[0]):
                self.views.pop(0)
                self.at = 0
            if not self.views:
                raise Damaged(f"the shards end {count} bytes before the weight {name[:120]!r} does", where=self.where,
                              hint="the download or copy is not complete")
            part = self.views[0][self.at:self.at + count]
            self.at, count = self.at + len(part), count - len(part)
            parts.append(part)
        return tuple(parts) or (memoryview(b""),)

    def rest(self) -> int:
        return sum(map(len, self.views)) - self.at


def read(manifest: Any, folder: Path | None, where: str, limits: Limits = DEFAULT) -> dict[str, Weight]:
    """The weights that a manifest lists, by name and in order; `folder` is where the shards are. No data is read, except to find the ends of strings.

    Raises `Damaged` where manifest and shards contradict each other, `Missing` where a shard is absent, `Unsafe` where a path leaves the folder.
    """
    found: dict[str, Weight] = {}
    for index, group in enumerate(_list(manifest, "weightsManifest", where)):
        place = f"{where}, weightsManifest[{index}]"
        fields = group if isinstance(group, dict) else {}
        paths, rows = _list(fields.get("paths"), "paths", place), _list(fields.get("weights"), "weights", place)
        if len(found) + len(rows) > limits.tensors:
            raise Unsafe(f"more than {limits.tensors} weights", where=place, hint="raise Limits.tensors if the file is trusted")
        stream = _Stream([_shard(folder, path, place) for path in paths], place)
        for row in rows:
            weight = _weight(row, stream, place, limits)
            if weight.name in found:
                raise Damaged(f"the weight {weight.name[:120]!r} is listed twice", where=place)
            found[weight.name] = weight
        if stream.rest():
            raise Damaged(f"the shards have {stream.rest()} bytes more than their weights", where=place)
    return found


def _list(value: Any, name: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise Damaged(f"`{name}` is no list", where=where)
    return value


def _shard(folder: Path | None, path: Any, where: str) -> memoryview:
    if not isinstance(path, str):
        raise Damaged(f"the path of a shard is {str(path)[:80]!r}", where=where)
    view = files.map_contained(folder, path) if folder is not None else None
    if view is None:
        raise Missing(f"the shard {path[:120]} is not there", where=where, hint="put it beside model.json")
    return view


def _weight(row: Any, stream: _Stream, where: str, limits: Limits) -> Weight:
    fields = row if isinstance(row, dict) else {}
    name, dtype, shape, quantised = fields.get("name"), fields.get("dtype"), fields.get("shape"), fields.get("quantization")
    if not isinstance(name, str) or not isinstance(dtype, str) or not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Damaged("a weight without a name, type and shape", where=where)
    if len(shape) > limits.dimensions:
        raise Unsafe(f"the weight {name[:120]!r} has {len(shape)} axes", where=where, hint="raise Limits.dimensions if the file is trusted")
    count = math.prod(shape)
    if dtype == "string":
        return Weight(name, dtype, tuple(shape), dtype, _strings(stream, count, name))
    stored, scale, minimum = _quantisation(quantised, name, where) if quantised is not None else (dtype, 1.0, 0.0)
    if dtype not in ELEMENT_BYTES or stored not in ELEMENT_BYTES:
        raise Damaged(f"the weight {name[:120]!r} has the unknown type {dtype[:40]!r}", where=where)
    return Weight(name, dtype, tuple(shape), stored, stream.take(count * ELEMENT_BYTES[stored], name), scale, minimum)


def _quantisation(fields: Any, name: str, where: str) -> tuple[str, float, float]:
    stored = fields.get("dtype") if isinstance(fields, dict) else None
    numbers = [fields.get(key, default) for key, default in (("scale", 1.0), ("min", 0.0))] if stored in NARROW else []
    if not numbers or not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise Damaged(f"the quantisation of {name[:120]!r} is {str(fields)[:120]}", where=where)
    return str(stored), float(numbers[0]), float(numbers[1])


def _strings(stream: _Stream, count: int, name: str) -> tuple[memoryview, ...]:
    if count > stream.rest() // 4:
        raise Damaged(f"the shards end before the {count} strings of {name[:120]!r} do", where=stream.where)
    parts: list[memoryview] = []
    for _ in range(count):
        length = stream.take(4, name)
        parts += [*length, *stream.take(int.from_bytes(b"".join(length), "little"), name)]
    return tuple(parts) or (memoryview(b""),)


# Writing

@dataclass(frozen=True)
class Stored:
    """A weight to be written: a row of the manifest, and what gives its bytes when they are asked for."""

    row: dict[str, Any]
    nbytes: int
    chunks: Callable[[], Iterable[Any]]


def manifest_of(weights: Sequence[Stored]) -> tuple[list[dict[str, Any]], list[str], int]:
    """The manifest with one group, the names of the shards, and the bytes of every shard but the last."""
    total = sum(weight.nbytes for weight in weights)
    size = max(SHARD_BYTES, -(-total // MOST_SHARDS))
    count = -(-total // size)
    names = [f"group1-shard{index}of{count}.bin" for index in range(1, count + 1)]
    return ([{"paths": names, "weights": [weight.row for weight in weights]}] if weights else []), names, size


def write(weights: Iterable[Stored], shards: Sequence[BinaryIO], size: int) -> None:
    """Fills the shards, each with `size` bytes, with the data of the weights in order. Raises `Damaged` where a weight gives other bytes than it said."""
    at = 0
    for weight in weights:
        end = at + weight.nbytes
        for chunk in weight.chunks():
            view = memoryview(chunk)
            view = view.cast("B") if view.nbytes else view
            while len(view) and at < end:
                part = view[:min(size - at % size, end - at)]
                shards[at // size].write(part)
                view, at = view[len(part):], at + len(part)
            if len(view):
                raise Damaged(f"a weight gives more than the {weight.nbytes} bytes that it announced", where=str(weight.row.get("name")))
        if at != end:
            raise Damaged(f"a weight gives {end - at} bytes less than it announced", where=str(weight.row.get("name")))
