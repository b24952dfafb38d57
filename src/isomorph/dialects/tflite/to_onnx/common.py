"""What the rules of TensorFlow Lite share: their table, sizes that only the run knows, windows, types that ONNX Runtime has no kernels for."""
from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping, constant
from isomorph.tensors import lazily

to_onnx = Mapping("tflite")
FLOAT, INT32, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL
TYPE = {"FLOAT32": FLOAT, "FLOAT16": ir.DataType.FLOAT16, "INT32": INT32, "UINT8": ir.DataType.UINT8, "INT64": INT64, "BOOL": BOOL}
NARROW = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)      # ONNX defines arithmetic on them, ONNX Runtime has no kernels
FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]                                                      # channels-last to channels-first, and back
END = np.iinfo(np.int64).max


def longs(op: Builder, vector: ir.Value) -> ir.Value:
    """A shape, an axis or a position as int64."""
    array = constant(vector)
    if array is not None:
        return op.const(array.astype(np.int64))
    return vector if vector.dtype == INT64 else op.Cast(vector, to=INT64)


def vector(op: Builder, value: ir.Value) -> ir.Value:
    """A scalar or vector as an int64 vector."""
    array = constant(value)
    return op.const(array.astype(np.int64).reshape(-1)) if array is not None else op.Reshape(longs(op, value), [-1])


def size(op: Builder, x: ir.Value, axis: int) -> int | ir.Value:
    """A dimension: a number where it is known, else a vector of one element."""
    rank, sizes = op.of(x)
    axis %= rank
    known = sizes[axis]
    return known if isinstance(known, int) else op.Shape(x, start=axis, end=axis + 1)


def sizes_of(op: Builder, *parts: int | ir.Value) -> ir.Value:
    """A shape vector from numbers and vectors."""
    if all(isinstance(part, int) for part in parts):
        return op.const(list(parts))
    return op.Concat(*(op.const([part]) if isinstance(part, int) else part for part in parts), axis=0)


def times(op: Builder, part: int | ir.Value, factor: int) -> int | ir.Value:
    return part * factor if isinstance(part, int) else op.Mul(part, [factor])


def divided(op: Builder, part: int | ir.Value, factor: int) -> int | ir.Value:
    return part // factor if isinstance(part, int) else op.Div(part, [factor])


def plus(op: Builder, part: int | ir.Value, more: int) -> int | ir.Value:
    return part + more if isinstance(part, int) else op.Add(part, [more])


def bounded(op: Builder, count: int, most: int = 1 << 22) -> int:
    """A number of elements or nodes that the file asks for, as long as it is one that makes sense."""
    return count if 0 <= count <= most else op.reject(f"{count} elements or parts")


def wide(op: Builder, *xs: ir.Value, types: Container[ir.DataType] = NARROW, to: ir.DataType = INT32) -> tuple[ir.Value, ...]:
    """Small integers as int32."""
    return tuple(op.Cast(x, to=to) if x.dtype in types else x for x in xs)


def narrow(op: Builder, y: ir.Value, like: ir.Value) -> ir.Value:
    """Back to the type of `like`."""
    return y if y.dtype == like.dtype else op.Cast(y, to=like.dtype)


def activation(op: Builder, y: ir.Value, name: str) -> ir.Value:
    """What a fused activation function does to the result of its operator."""
    bounds = {"RELU_N1_TO_1": (-1, 1), "RELU6": (0, 6)}
    if name in bounds:
        return op.Clip(y, *(op.const(np.asarray(bound, (y.dtype or FLOAT).numpy())) for bound in bounds[name]))
    made = {"NONE": lambda: y, "RELU": lambda: op.Relu(y), "TANH": lambda: op.Tanh(y)}.get(name)
    return made() if made else op.reject(f"the fused activation function {name} has no equivalent")


def permuted(op: Builder, w: ir.Value, perm: Sequence[int]) -> ir.Value:
    """A weight with its axes in another order: lazily where it is stored, also under its quantisation or float16; else by a Transpose.

    Several operators may share a weight: it is stored in the new order once.
    """
    key = f"permuted {tuple(perm)} {id(op.context.graph_of(op.node))}"
    if key not in w.meta:
        w.meta[key] = _permuted(op, w, perm)
    return w.meta[key]


def _permuted(op: Builder, w: ir.Value, perm: Sequence[int]) -> ir.Value:
    node = w.producer()
    if constant_value(w):
        return op.const(lazily(perm, w.const_value), name=w.name)
    if node is None or node.domain or node.op_type not in ("DequantizeLinear", "Cast") or not constant_value(node.inputs[0]):
        return op.Transpose(w, perm=list(perm))
    stored = permuted(op, node.inputs[0], perm)
    if node.op_type == "Cast":
        return op.Cast(stored, to=w.dtype)
    axis = node.attributes["axis"].value if "axis" in node.attributes else None
    if "block_size" in node.attributes:
        scale, *zeros = (permuted(op, value, perm) for value in node.inputs[1:])
        return op.DequantizeLinear(stored, scale, *zeros, axis=perm.index(axis), block_size=node.attributes["block_size"].value)
    return op.DequantizeLinear(stored, *node.inputs[1:], axis=None if axis is None else perm.index(axis))


def constant_value(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and value.producer() is None and not value.is_graph_input()


def window(op: Builder, x: ir.Value, kernel: Sequence[int], strides: Sequence[int], padding: str, dilations: Sequence[int] | None = None) -> dict[str, Any]:
    """Attributes of a convolution or pool over the axes 1.. of a channels-last `x`."""
    return frame(op, op.of(x)[1][1:len(kernel) + 1] if padding != "VALID" else (), kernel, strides, padding, dilations or [1] * len(kernel))


def frame(op: Builder, sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], padding: str, dilations: Sequence[int]) -> dict[str, Any]:
    """Attributes of a convolution or pool over places of these sizes. SAME becomes numbers wherever the size or the stride allows."""
    attributes: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(strides)}
    if max(dilations) > 1:
        attributes["dilations"] = list(dilations)
    if padding == "VALID":
        return attributes
    totals = []
    for length, extent, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (extent - 1) * dilation + 1
        if stride == 1:
            totals.append(reach - 1)
        elif isinstance(length, int):
            totals.append(max((-(-length // stride) - 1) * stride + reach - length, 0))
        elif max(dilations) > 1:
            op.reject("SAME padding of a size that is not known, with strides and dilations")
        else:
            return attributes | {"auto_pad": "SAME_UPPER"}
    return attributes | {"pads": [total // 2 for total in totals] + [total - total // 2 for total in totals]}
