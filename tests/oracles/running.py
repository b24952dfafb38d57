"""Runs model files for the tests of this folder: many files of a format one after the other in one child process, replaced when it dies."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isomorph import runtime
from isomorph.errors import Unsupported
from isomorph.runtime.session import Session, _port

needs_litert = pytest.mark.skipif(not runtime.get("litert").available(), reason="LiteRT is not installed: pip install 'isomorph[litert]'")
_CHILDREN: dict[str, Session] = {}


def run(path: Path, feeds: Mapping[str, np.ndarray] | None = None, *, seed: int = 0, **options: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(inputs, outputs) of one file. Inputs that are not given are random. Options as those of `runtime.litert` or `runtime.onnxruntime`."""
    session = opened(path, "tflite" if path.suffix == ".tflite" else "onnx", **options)
    if feeds is None:
        feeds = {port.name: random_array(port.dtype, port.shape or (), seed + place) for place, port in enumerate(session.inputs())}
    return dict(feeds), session.run(feeds)


def opened(path: Path, format: str, *, timeout: float = 60, **options: Any) -> Session:
    """The file in the child process of its format."""
    session = _CHILDREN.get(format)
    if session is None or session._child is None or session._child.poll() is not None:
        session = _CHILDREN[format] = Session(path, format, options=options, timeout=timeout)
        session.__enter__()
        return session
    session.path, session.options, session.timeout = path, options, timeout
    loading = {"module": session.runtime.module, "path": str(path), "threads": 1, "options": options}
    answer = session._ask("load", loading, refused=Unsupported)
    session._ports = ([_port(port) for port in answer["inputs"]], [_port(port) for port in answer["outputs"]])
    return session


def once_more(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of another run of the file that was run last, in the same interpreter."""
    session = _CHILDREN["tflite" if path.suffix == ".tflite" else "onnx"]
    assert session.path == path
    return session.run(feeds)


def random_array(dtype: str, shape: tuple[Any, ...], seed: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Floats of [low, high), whole ranges of small integers; a dimension that is not fixed becomes 2."""
    generator = np.random.default_rng(seed)
    dims = [dim if isinstance(dim, int) and dim > 0 else 2 for dim in shape]
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return generator.uniform(low, high, dims).astype(kind)
    if kind.kind == "c":
        return (generator.uniform(low, high, dims) + 1j * generator.uniform(low, high, dims)).astype(kind)
    if kind.kind == "b":
        return generator.integers(0, 2, dims).astype(kind)
    limits = np.iinfo(kind)
    return generator.integers(max(limits.min, -1000), min(limits.max, 1000) + 1, dims).astype(kind)


def close() -> None:
    for session in _CHILDREN.values():
        session.close()
    _CHILDREN.clear()
