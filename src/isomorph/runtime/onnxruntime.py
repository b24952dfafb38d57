"""ONNX Runtime, CPU provider. Runs inside the child only."""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from isomorph.runtime.pipe import element_dtype

# The type strings of NodeArg (https://onnxruntime.ai/docs/api/python/api_summary.html) that NumPy names otherwise.
DTYPES = {"float": "float32", "double": "float64", "string": "object", "float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2",
          "float8e4m3fnuz": "float8_e4m3fnuz", "float8e5m2fnuz": "float8_e5m2fnuz"}
# What its run() does not take from NumPy, with the number of the ONNX element type.
BY_BYTES = {"bfloat16": 16, "float8_e4m3fn": 17, "float8_e4m3fnuz": 18, "float8_e5m2": 19, "float8_e5m2fnuz": 20}


def prepare() -> None:
    """Imports the runtime and silences it."""
    import onnxruntime
    onnxruntime.set_default_logger_severity(4)


def version() -> str:
    """Of the installed package."""
    import onnxruntime
    return onnxruntime.__version__


def load(path: str, *, threads: int, optimise: bool = True, carry: dict[str, Any] | None = None) -> Loaded:
    """`optimise=False` runs the graph as it is written, without fusions. `carry` is {output: [input, shape]}: what such an output is after one run is that
    input of the next, zeros of that shape before the first; it stays in this process, and is neither fed nor answered."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return Loaded(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]), carry or {})


class Loaded:
    """A session, its ports as plain dictionaries."""

    def __init__(self, session: Any, carry: dict[str, Any]):
        self.session = session
        self.names = [argument.name for argument in session.get_outputs()]
        self.following = {output: name for output, (name, _) in carry.items()}
        inputs = [_port(argument) for argument in session.get_inputs()]
        self.first = {port["name"]: np.zeros(shape, element_dtype(port["dtype"])) for port in inputs for name, shape in carry.values() if name == port["name"]}
        self.held = dict(self.first)
        self.inputs = [port for port in inputs if port["name"] not in self.held]
        self.outputs = [_port(argument) for argument in session.get_outputs() if argument.name not in carry]

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        values = dict(zip(self.names, self.prepared(feeds | self.held)(), strict=True))
        self.held = {name: values.pop(output) for output, name in self.following.items()}
        return values

    def forget(self) -> None:
        """From now on what is carried is what it was before the first run."""
        self.held = dict(self.first)

    def prepared(self, feeds: dict[str, Any]) -> Callable[[], list[Any]]:
        """A function that runs once on these inputs."""
        ports = self.inputs + self.outputs
        if not any(port["dtype"] in BY_BYTES for port in ports):
            return lambda: self.session.run(None, feeds)
        values = {name: _ort_value(array) for name, array in feeds.items()}
        return lambda: [_array(value) for value in self.session.run_with_ort_values(None, values)]


def _port(argument: Any) -> dict[str, Any]:
    kind = argument.type                                                     # "tensor(float)", "seq(tensor(int64))", "optional(...)"
    tensor = kind.startswith("tensor(")
    return {"name": argument.name, "dtype": _element(kind) if tensor else kind, "shape": list(argument.shape) if tensor else None}


def _element(kind: str) -> str:
    name = kind.removeprefix("tensor(").removesuffix(")")
    return DTYPES.get(name, name)


def _ort_value(array: np.ndarray) -> Any:
    import onnxruntime
    if array.dtype.name not in BY_BYTES:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    raw = array.view(np.uint16 if array.itemsize == 2 else np.uint8)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, BY_BYTES[array.dtype.name])


def _array(value: Any) -> Any:
    name = _element(value.data_type())
    if name not in BY_BYTES:
        return value.numpy()
    raw = (ctypes.c_char * value.tensor_size_in_bytes()).from_address(value.data_ptr())
    return np.frombuffer(bytes(raw), element_dtype(name)).reshape(value.shape())
