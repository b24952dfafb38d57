"""The models that are converted, and the inputs that source and results are run on."""
from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.runtime.session import Port

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = Path(__file__).with_suffix(".toml")
DATA = Path(os.environ.get("ISOMORPH_DATA") or ROOT.parent / "shared" / "data")
SEED = 2


class Unavailable(Exception):
    """A model that cannot be fetched here, with the reason."""


@dataclass(frozen=True)
class Case:
    """One model: `source` is the format it is in, `shapes` fixes inputs that the file leaves open, `sizes` are shapes of inputs that stay open,
    `values` is the kind of numbers of each input."""

    name: str
    source: str
    file: str
    shapes: Mapping[str, Sequence[int]]
    sizes: Mapping[str, Sequence[int]]
    values: Mapping[str, str | int]

    def path(self) -> Path:
        """The file. Raises `Unavailable` where it cannot be had."""
        if self.name == "digits":
            return ROOT / "src" / "isomorph" / "data" / "digits.onnx"
        if self.file:
            if not (DATA / self.file).exists():
                raise Unavailable("the folder of shared data is not there")
            return DATA / self.file
        return _published(self.name)

    def feeds(self, ports: Sequence[Port], turn: int = 0) -> dict[str, np.ndarray]:
        """One array for each input, always the same in the same turn."""
        random = np.random.default_rng(SEED + turn)
        shapes = {port.name: [dim if isinstance(dim, int) else 1 for dim in port.shape or ()] for port in ports} | dict(self.sizes) | dict(self.shapes)
        return {port.name: made(self.values[port.name], shapes[port.name], np.dtype(port.dtype), random) for port in ports}


@cache
def _zoo() -> Any:
    sys.path.insert(0, str(ROOT / "tests"))
    import zoo
    return zoo


def _published(name: str) -> Path:
    import pytest
    try:
        return _zoo().zoo(name)
    except pytest.skip.Exception as reason:
        raise Unavailable(str(reason)) from None


def cases(pattern: str = "") -> list[Case]:
    """Those whose name holds the pattern, in the order of the catalogue."""
    tables = tomllib.loads(CATALOGUE.read_text())
    return [Case(name, source, row.get("file", ""), row.get("shapes", {}), row.get("sizes", {}), row["values"])
            for source, rows in tables.items() for name, row in rows.items() if pattern in name]


def made(kind: str | int, shape: Sequence[int], dtype: np.dtype, random: np.random.Generator) -> np.ndarray:
    """An array of a kind of `cases.toml`."""
    if isinstance(kind, int):
        return np.full(shape, kind, dtype)
    if kind == "bytes":
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max + 1, shape).astype(dtype)
    return np.asarray(KINDS[kind](random, shape)).astype(dtype)


KINDS = {
    "image": lambda random, shape: random.uniform(-1, 1, shape),
    "unit": lambda random, shape: random.uniform(0, 1, shape),
    "pixels": lambda random, shape: random.uniform(0, 255, shape),
    "audio": lambda random, shape: 0.1 * random.standard_normal(shape),
    "state": lambda random, shape: 0.1 * random.standard_normal(shape),
    "features": lambda random, shape: random.standard_normal(shape),
}
