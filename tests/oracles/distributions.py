"""Weights as they come and as they should not: what blocks are compared on."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda random, count: random.standard_normal(count),
    "laplace": lambda random, count: random.laplace(size=count),
    "student": lambda random, count: random.standard_t(3, size=count),
    "uniform": lambda random, count: random.random(count) * 2 - 0.3,
    "sparse": lambda random, count: random.standard_normal(count) * (random.random(count) < 0.15),          # groups of zeros of both signs
    "steps": lambda random, count: random.integers(-8, 9, count) / 8,                                       # ties
    "scales": lambda random, count: (random.standard_normal((count // 16, 16)) * 10.0 ** random.integers(-30, 8, (count // 16, 1))).ravel(),
    "wild": lambda random, count: random.standard_normal(count) * 10.0 ** random.integers(-12, 6, count),
    "subnormal": lambda random, count: random.standard_normal(count) * 1e-40,
}


def rows(name: str, seed: int, count: int, columns: int) -> np.ndarray:
    """float32 [count, columns] of one distribution."""
    return DISTRIBUTIONS[name](np.random.default_rng(seed), count * columns).astype(np.float32).reshape(count, columns)
