"""PyTorch itself: TorchScript by `torch.jit.load`, exported programs by `torch.export.load`. Runs inside the child only."""
from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from isomorph.runtime.pipe import element_dtype

# Element types by ONNX's names, as NumPy and ml_dtypes call them
NAMES = {"FLOAT": "float32", "DOUBLE": "float64", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "BOOL": "bool", "COMPLEX64": "complex64",
         "COMPLEX128": "complex128", "FLOAT8E4M3FN": "float8_e4m3fn", "FLOAT8E4M3FNUZ": "float8_e4m3fnuz", "FLOAT8E5M2": "float8_e5m2",
         "FLOAT8E5M2FNUZ": "float8_e5m2fnuz", "FLOAT8E8M0": "float8_e8m0fnu"}
EXTRA = "extra/isomorph.json"


def prepare() -> None:
    """Imports the runtime."""
    import torch  # noqa: F401


def version() -> str:
    """Of the installed package."""
    import torch
    return str(torch.__version__)


def load(path: str, *, threads: int, ports: dict[str, Any] | None = None) -> Loaded:
    """`ports` says what a TorchScript file does not: names, types and shapes of its inputs, and names of its outputs. Files of ours bring them along."""
    import torch
    torch.set_num_threads(threads)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        exported = any(name.endswith("archive_format") or name.endswith("serialized_exported_program.json") for name in names)
        own = next((name for name in names if name.endswith("/" + EXTRA)), None)
        stated = json.loads(archive.read(own)) if own else None
    if exported:
        program = torch.export.load(path)
        return Loaded(program.module(), stated or _ports_of(program))
    module = torch.jit.load(path, map_location="cpu").eval()
    return Loaded(module, ports or stated or {"inputs": [], "outputs": []})


def _ports_of(program: Any) -> dict[str, Any]:
    """Inputs and outputs of an exported program, from its placeholders and results."""
    metas = {node.name: node.meta.get("val") for node in program.graph.nodes}

    def port(name: str) -> dict[str, Any]:
        value: Any = metas.get(name)
        if not hasattr(value, "dtype"):
            return {"name": name, "dtype": {bool: "bool", int: "int64", float: "float64"}.get(type(value), "int64"), "shape": []}
        return {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": [size if isinstance(size, int) else str(size) for size in value.shape]}
    signature = program.graph_signature
    return {"inputs": [port(name) for name in signature.user_inputs], "outputs": [port(str(name)) for name in signature.user_outputs]}


class Loaded:
    """A module that is called with its inputs in order. Its results are flattened."""

    def __init__(self, module: Any, ports: dict[str, Any]):
        self.module = module
        self.inputs = [_port(port) for port in ports["inputs"]]
        self.outputs = [_port(port) for port in ports["outputs"]]

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        results = list(_flat(self.prepared(feeds)()))
        names = [port["name"] for port in self.outputs] or [f"output_{place}" for place in range(len(results))]
        return dict(zip(names, map(_array, results), strict=True))

    def prepared(self, feeds: dict[str, Any]) -> Callable[[], Any]:
        """A function that runs once on these inputs."""
        import torch
        given = [_tensor(feeds[port["name"]]) for port in self.inputs] if self.inputs else [_tensor(array) for array in feeds.values()]

        def once() -> Any:
            with torch.no_grad():
                return self.module(*given)
        return once


def _port(port: dict[str, Any]) -> dict[str, Any]:
    return {"name": port["name"], "dtype": NAMES.get(port["dtype"], port["dtype"].lower()), "shape": port["shape"], "scale": None}


def _flat(result: Any) -> Any:
    if isinstance(result, (list, tuple)):
        for item in result:
            yield from _flat(item)
    elif isinstance(result, dict):
        for item in result.values():
            yield from _flat(item)
    elif result is not None:
        yield result


def _tensor(array: np.ndarray) -> Any:
    """Types that NumPy lacks go over as bytes of the same width."""
    import torch
    kind = getattr(torch, array.dtype.name)
    if array.dtype.kind != "V" and array.dtype.isbuiltin == 1:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape).copy())
    return torch.from_numpy(np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape).copy()).view(kind)


def _array(value: Any) -> np.ndarray:
    import torch
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    value = value.detach().cpu().contiguous()
    name = str(value.dtype).removeprefix("torch.")
    try:
        return value.numpy()
    except TypeError:
        return value.view({1: torch.uint8, 2: torch.int16}[value.element_size()]).numpy().view(element_dtype(name))
