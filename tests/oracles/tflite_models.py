"""Small TFLite graphs for tests: tensors as dtype and shape, operators by name."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import zoo

from isomorph.artifact import Artifact
from isomorph.formats import tflite
from isomorph.model import Model, Quantization
from isomorph.tensors import array_tensor


class Graph:
    """In the making: `x = g.input("float32", 1, 4)`, `c = g.const(array)`, `y = g.ADD(x, c, out=("float32", 1, 4), fused_activation_function="RELU")`."""

    def __init__(self, name: str = "main"):
        self.name, self.inputs, self.nodes, self.constants, self.count = name, [], [], [], 0

    def value(self, dtype: str | None, *shape: Any, quantization: Quantization | None = None, name: str = "") -> ir.Value:
        """A dimension of None is dynamic; a shape of one None is unknown; the dtype None is a resource."""
        self.count += 1
        value = ir.Value(name=name or f"{self.name}_{self.count}", type=ir.TensorType(ir.DataType[DTYPES.get(dtype, dtype.upper())]) if dtype else None)
        if dtype is None:
            value.meta["tflite_type"] = "RESOURCE"
        value.shape = None if shape == (..., ) else ir.Shape([f"{value.name}_{axis}" if dim is None else dim for axis, dim in enumerate(shape)])
        if quantization is not None:
            value.meta["quantization"] = quantization
        return value

    def input(self, dtype: str | None, *shape: Any, **more: Any) -> ir.Value:
        self.inputs.append(self.value(dtype, *shape, **more))
        return self.inputs[-1]

    def variable(self, dtype: str, *shape: int, **more: Any) -> ir.Value:
        value = self.value(dtype, *shape, **more)
        value.meta["variable"] = True
        return value

    def const(self, array: Any, quantization: Quantization | None = None) -> ir.Value:
        array = np.asarray(array) if not isinstance(array, (list, tuple)) else np.asarray(array, np.int32)
        self.count += 1
        value = ir.Value(name=f"{self.name}_{self.count}")
        tensor = array_tensor(array, value.name)
        value.const_value, value.dtype, value.shape = tensor, tensor.dtype, ir.Shape(array.shape)
        if quantization is not None:
            value.meta["quantization"] = quantization
        self.constants.append(value)
        return value

    def __getattr__(self, op_type: str) -> Any:
        if op_type.startswith("__"):
            raise AttributeError(op_type)

        def make(*inputs: ir.Value | None, out: Any = None, outs: Sequence[Any] = (), domain: str = "tflite", meta: Mapping[str, Any] | None = None,
                 **attributes: Any) -> Any:
            outputs = [item if isinstance(item, ir.Value) else self.value(*item) for item in ([out] if out is not None else outs)]
            node = ir.node(op_type, list(inputs), attributes, domain=domain, outputs=outputs)
            node.meta.update(meta or {})
            self.nodes.append(node)
            return outputs[0] if out is not None else tuple(outputs)
        return make

    def graph(self, *outputs: ir.Value) -> ir.Graph:
        return ir.Graph(self.inputs, outputs, nodes=self.nodes, initializers=self.constants, name=self.name, opset_imports={"tflite": 3, "tflite.custom": 1})

    def model(self, *outputs: ir.Value) -> Model:
        return Model(ir.Model(self.graph(*outputs), ir_version=10), "tflite")

    def save(self, path: Path, *outputs: ir.Value) -> Path:
        tflite.write(self.model(*outputs), path, force=True)
        return path


DTYPES = {"float32": "FLOAT", "float64": "DOUBLE", "bool": "BOOL"}


def quantized(scale: Any, zero_point: Any = 0, axis: int = 0) -> Quantization:
    scale = np.asarray(scale, np.float32)
    return Quantization(scale, np.broadcast_to(np.asarray(zero_point, np.int64), scale.shape), axis)


def read(path: Path) -> Model:
    return tflite.read(Artifact.open(path))


def real_models() -> list[str]:
    """The published .tflite files of `zoo.toml`, and those in the folders that ISOMORPH_MODELS names."""
    more = [str(path) for folder in os.environ.get("ISOMORPH_MODELS", "").split(os.pathsep) if folder for path in sorted(Path(folder).rglob("*.tflite"))]
    return [*zoo.names(".tflite"), *more]


def real_model(name: str) -> Path:
    return Path(name) if name.endswith(".tflite") else zoo.zoo(name)
