"""Networks of keras.applications with random weights, from .keras and .h5 to five other formats, each run in the runtime that the format is made for.

The default run takes small ones; `pytest -m slow` takes all that Keras exports, one after the other, and prints what each route differs by.
"""
from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import environments
import numpy as np
import pytest
import running

from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.errors import IsomorphError
from isomorph.formats import _table
from isomorph.model import Model

BOUND = 1e-4                                     # of the range of the output
ROUTES = ("onnx", "tflite", "tfjs_graph", "saved_model", "torchscript")
SMALL = ("MobileNetV3Small", "EfficientNetB0")
PATIENCE = 900                                   # seconds that a runtime may take for a network


class Maker:
    """Keras in a process of its own, which makes one network after the other."""

    def __init__(self, folder: Path):
        self.folder = folder
        command = [str(environments.python("tensorflow")), str(Path(__file__).with_name("keras_applications.py")), str(folder)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.names: list[str] = self.answer()

    def answer(self) -> Any:
        assert self.child.stdout is not None
        line = next((line for line in self.child.stdout if line.startswith(("{", "["))), None)
        assert line is not None, "Keras died"
        return json.loads(line)

    def __call__(self, name: str) -> dict[str, Any]:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{name}\n")
        self.child.stdin.flush()
        return self.answer()


@contextmanager
def maker(folder: Path) -> Iterator[Maker]:
    """Ends its process, and those of the runtimes, in which large networks are still loaded."""
    made = Maker(folder)
    try:
        yield made
    finally:
        made.child.kill()
        made.child.wait()
        running.close()


def differences(source: Path, data: Path, routes: tuple[str, ...] = ROUTES) -> dict[str, Any]:
    """By route what the results differ by in their range, or why there are none."""
    hub = to_hub(_table.get("keras" if source.suffix == ".keras" else "keras_h5").read(Artifact.open(source)))
    found: dict[str, Any] = {}
    for route in routes:
        path = source.parent / "out" / _table.output_name(route, "model")
        try:
            found[route] = difference(hub, route, path, data)
        except IsomorphError as error:
            found[route] = str(error)
    return found


def difference(hub: Model, route: str, path: Path, data: Path) -> float:
    format = _table.get(route)
    path.parent.mkdir(exist_ok=True)
    format.writer(from_hub(hub, format.dialect), path, force=True)
    arrays = np.load(data)
    options = {"ports": {side: [{"name": value.name, "dtype": "FLOAT", "shape": None} for value in values]
               for side, values in (("inputs", hub.graph.inputs), ("outputs", hub.graph.outputs))}} if route == "torchscript" else {}
    session = running.opened(path, route, timeout=PATIENCE, **options)
    (got,) = session.run({session.inputs()[0].name: arrays["picture"]}).values()
    wanted = arrays["result"]
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def prepare() -> None:
    for name in ("tensorflow", "torch", "tfjs"):
        environments.use(name)


def test_small_networks(tmp_path: Path) -> None:
    prepare()
    with maker(tmp_path) as made:
        for name in SMALL:
            made(name)
            found = differences(tmp_path / f"{name}.keras", tmp_path / f"{name}.npz")
            found["h5"] = differences(tmp_path / f"{name}.h5", tmp_path / f"{name}.npz", ("onnx",))["onnx"]
            assert found.keys() == {*ROUTES, "h5"}
            assert not {route: what for route, what in found.items() if isinstance(what, str) or not what <= BOUND}


@pytest.mark.slow
def test_every_network(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The lines that it prints are: network, suffix, and by route the difference."""
    prepare()
    wrong, count = {}, 0
    with maker(tmp_path) as made:
        assert len(made.names) >= 40
        for name in made.names:
            answer = made(name)
            for file in answer.get("files", ()):
                found = differences(tmp_path / file, tmp_path / f"{name}.npz")
                told = "  ".join(f"{route} {what if isinstance(what, str) else format(what, '.1e')}" for route, what in found.items())
                with capsys.disabled():
                    print(f"{file:28}", told, flush=True)
                count += len(found)
                wrong |= {f"{file} -> {route}": what for route, what in found.items() if isinstance(what, str) or not what <= BOUND}
            wrong |= {name: answer["error"]} if "error" in answer else {}
            for path in sorted(tmp_path.rglob("*"), reverse=True):           # a network takes up to ten gigabytes in all its forms
                path.rmdir() if path.is_dir() else path.unlink()
    with capsys.disabled():
        print(f"{count - len(wrong)} of {count} conversions of {len(made.names)} networks within {BOUND} of the range")
    assert not wrong
