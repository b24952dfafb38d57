"""TensorFlow.js in Node.js, the runtime of its GraphModels and LayersModels. Runs inside the child, and starts `tfjs.js` in a Node.js of its own there.

TensorFlow.js computes in float32, int32, bool, text and complex64. A GraphModel's signature may state wider or narrower types: arrays are brought into the
type that is computed in before they are fed, and results back into the type that the signature states.
"""
from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.runtime import pipe

COMPUTED = {"f": "float32", "i": "int32", "u": "int32", "b": "bool", "c": "complex64", "O": "object", "S": "object", "U": "object", "V": "float32"}
# DataType of a signature -> the dtype of the arrays that go in and come out
STATED = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16", "DT_BFLOAT16": "bfloat16", "DT_INT8": "int8", "DT_UINT8": "uint8",
          "DT_INT16": "int16", "DT_UINT16": "uint16", "DT_INT32": "int32", "DT_UINT32": "uint32", "DT_INT64": "int64", "DT_UINT64": "uint64",
          "DT_BOOL": "bool", "DT_STRING": "object", "DT_COMPLEX64": "complex64", "DT_COMPLEX128": "complex128", "DT_INT4": "int4",
          "DT_UINT4": "uint4"}
node: subprocess.Popen[bytes] | None = None
about: dict[str, Any] = {}


def ask(request: str, **arguments: Any) -> dict[str, Any]:
    """An answer of Node.js. Raises `RuntimeError` with what it says where it refuses, `EOFError` where it died."""
    assert node is not None
    assert node.stdin is not None
    pipe.send(node.stdin, {"do": request, "with": arguments})
    answer = pipe.receive(node.stdout)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


def prepare(backend: str = "cpu") -> None:
    """Starts Node.js with the package, once."""
    global node
    if node is not None and node.poll() is None:
        return
    folder = os.environ["ISOMORPH_NODE_TFJS"]
    node = subprocess.Popen(["node", "--stack-size=4000", str(Path(__file__).with_name("tfjs.js"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=sys.stderr)
    about.update(ask("prepare", folder=folder, backend=backend))


def version() -> str:
    """Of the package."""
    return str(about.get("version", ""))


def load(path: str, *, threads: int) -> Loaded:
    """A GraphModel or LayersModel by its model.json, or by the folder that has one."""
    place = Path(path)
    file = place / "model.json" if place.is_dir() else place
    signature = json.loads(file.read_bytes()).get("signature")
    return Loaded(ask("load", file=str(file)), signature if isinstance(signature, dict) else {})


class Loaded:
    """Inputs and outputs by the names of the signature, else by those of the nodes."""

    def __init__(self, ports: dict[str, Any], signature: dict[str, Any]):
        self.layers = ports["layers"]
        self.fed = _ports(ports["inputs"], signature.get("inputs"))
        self.given = _ports(ports["outputs"], signature.get("outputs"))
        self.stated = bool(signature.get("outputs"))
        self.inputs = [port for port, _ in self.fed]
        self.outputs = [port for port, _ in self.given]

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        self.feed(feeds)
        answer = ask("run", outputs=[name for _, name in self.given], layers=self.layers, answer=True)
        return {port["name"]: _stated(array, port["dtype"]) if self.stated else array for (port, _), array in zip(self.given, answer["results"], strict=True)}

    def prepared(self, feeds: dict[str, Any]) -> Callable[[], Any]:
        """A function that runs once on these inputs and waits for the results."""
        self.feed(feeds)
        return lambda: ask("run", outputs=[name for _, name in self.given], layers=self.layers, answer=False)

    def feed(self, feeds: dict[str, Any]) -> None:
        names = {port["name"]: name for port, name in self.fed}
        ask("feed", arrays={names[name]: _computed(np.asarray(array)) for name, array in feeds.items()})


def _ports(found: list[dict[str, Any]], stated: Any) -> list[tuple[dict[str, Any], str]]:
    """What the model says of its inputs or outputs, each with the name of its tensor; tables that its initialiser hands over are no inputs."""
    if not isinstance(stated, dict) or not stated:
        return [({"name": port["name"], "dtype": "object" if port["dtype"] == "string" else port["dtype"], "shape": _shape(port["shape"]), "scale": None},
                 port["name"]) for port in found]
    kinds = {port["name"].split(":")[0]: port for port in found}
    return [({"name": name, "dtype": STATED.get(str(info.get("dtype")), "float32"), "shape": _dims(info), "scale": None},
             _tensor(str(info["name"]), kinds)) for name, info in stated.items() if "name" in info and "resourceId" not in info]


def _tensor(name: str, found: dict[str, Any]) -> str:
    """Placeholders are fed by the name of the node, results are asked for with their port."""
    node, _, place = name.partition(":")
    return node if place in ("", "0") else name


def _dims(info: dict[str, Any]) -> list[int | None] | None:
    shape = info.get("tensorShape") or {}
    return None if shape.get("unknownRank") else _shape([int(dim.get("size", 0)) for dim in shape.get("dim", [])])


def _shape(shape: list[int] | None) -> list[int | None] | None:
    return None if shape is None else [None if dim is None or dim < 0 else dim for dim in shape]


def _computed(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "OSU":
        return array
    return array.astype("int32" if array.dtype.name in ("int4", "uint4") else COMPUTED[array.dtype.kind])


def _stated(array: np.ndarray, dtype: str) -> np.ndarray:
    with contextlib.suppress(TypeError, ValueError):
        return array if array.dtype.kind in "OSU" else array.astype(pipe.element_dtype(dtype))
    return array
