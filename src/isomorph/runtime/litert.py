"""LiteRT, the runtime of TensorFlow Lite files. Runs inside the child only."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from isomorph.runtime.pipe import text_array

KERNELS = {"default": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


def prepare() -> None:
    """Imports the runtime."""
    import ai_edge_litert.interpreter  # noqa: F401
    import ml_dtypes  # noqa: F401    LiteRT gives out bfloat16 only where its type is known
    warnings.simplefilter("ignore")


def version() -> str:
    """Of the installed package."""
    from importlib.metadata import version
    return version("ai-edge-litert")


def load(path: str, *, threads: int, kernels: str = "default", expose: bool = False) -> Loaded:
    """`kernels`: XNNPACK and optimised ones (`default`), without XNNPACK (`builtin`), plain ones (`reference`). `expose` makes every tensor an output."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    interpreter = Interpreter(model_path=path, num_threads=threads, experimental_preserve_all_tensors=expose,
                              experimental_op_resolver_type=getattr(OpResolverType, KERNELS[kernels]))
    return Loaded(interpreter, expose)


class Loaded:
    """Inputs and outputs go by the argument names of the file's first signature that covers the main graph, else by tensor names, in the file's order."""

    def __init__(self, interpreter: Any, expose: bool):
        self.interpreter, self.expose, self.allocated = interpreter, expose, False
        names = self._signature()
        self.input_details = _named(interpreter.get_input_details(), names.get("inputs", {}))
        self.output_details = _named(interpreter.get_output_details(), names.get("outputs", {}))
        self.inputs = [_port(name, detail) for name, detail in self.input_details]
        self.outputs = [_port(name, detail) for name, detail in self.output_details]
        dynamic = any(dim is None for port in self.inputs for dim in port["shape"])
        if not dynamic:                             # so that a file which cannot be prepared is refused when it is loaded
            self._allocate()

    def _allocate(self) -> None:
        self.interpreter.allocate_tensors()
        self.allocated = True

    def _signature(self) -> dict[str, dict[str, int]]:
        main = {"inputs": _indices(self.interpreter.get_input_details()), "outputs": _indices(self.interpreter.get_output_details())}
        for signature in self.interpreter._get_full_signature_list().values():
            if all(set(signature[side].values()) == main[side] for side in main):
                return signature
        return {}

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name; with `expose`, every tensor of the main graph as well."""
        self.prepared(feeds)()
        answers = {name: self.interpreter.get_tensor(detail["index"]) for name, detail in self.output_details}
        return self._everything() | answers if self.expose else answers

    def prepared(self, feeds: dict[str, Any]) -> Callable[[], None]:
        """A function that runs once on these inputs."""
        for name, detail in self.input_details:
            current = self.interpreter._get_tensor_details(detail["index"], 0)["shape"].tolist()
            if current != list(feeds[name].shape):
                self.interpreter.resize_tensor_input(detail["index"], list(feeds[name].shape))
                self.allocated = False
        if not self.allocated:
            self._allocate()
        for name, detail in self.input_details:
            self.interpreter.set_tensor(detail["index"], _fed(feeds[name]))
        return self.interpreter.invoke

    def _everything(self) -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for detail in self.interpreter.get_tensor_details():
            try:
                arrays[detail["name"]] = self.interpreter.get_tensor(detail["index"])
            except ValueError:                      # never computed, or inside a delegate
                continue
        return arrays


def _indices(details: list[dict[str, Any]]) -> set[int]:
    return {detail["index"] for detail in details}


def _named(details: list[dict[str, Any]], arguments: dict[str, int]) -> list[tuple[str, dict[str, Any]]]:
    """(argument name or tensor name, details) in the order of the file; two arguments may share a tensor."""
    if not arguments:
        return [(detail["name"], detail) for detail in details]
    return [(name, detail) for detail in details for name, index in arguments.items() if index == detail["index"]]


def _port(name: str, detail: dict[str, Any]) -> dict[str, Any]:
    shape = (detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]).tolist()
    scales = detail["quantization_parameters"]["scales"]
    dtype = np.dtype(detail["dtype"])
    return {"name": name, "dtype": "object" if dtype.kind in "OSU" else dtype.name, "shape": [None if dim < 0 else dim for dim in shape],
            "scale": float(scales[0]) if len(scales) == 1 else None}


def _fed(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "OSU":
        return array
    texts = [text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape") for text in array.ravel().tolist()]
    return text_array(texts, array.shape)
