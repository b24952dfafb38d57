"""Pooling over windows, over everything, and onto a given size."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.convolution import padded, several
from isomorph.dialects.keras.to_onnx.table import layer, ops

Sizes = Any


def pooled(op: Op, x: Value, kind: str, pool_size: Sizes, strides: Sizes, padding: str, data_format: str | None) -> Value:
    """Averages leave out what padding adds, in both libraries."""
    y = op.first(x, data_format)
    count = op.rank(y) - 2
    window = several(pool_size, count)
    steps = several(strides if strides is not None else pool_size, count)
    y = op.make(kind, [y], {"kernel_shape": window, "strides": steps, **padded(op, y, padding, window, steps, [1] * count)})
    return op.last(y, data_format)


@layer("MaxPooling1D", "MaxPooling2D", "MaxPooling3D")
def max_pooling(op: Op, x: Value, *, pool_size: Sizes = 2, strides: Sizes = None, padding: str = "valid", data_format: str | None = None) -> Value:
    return pooled(op, x, "MaxPool", pool_size, strides, padding, data_format)


@layer("AveragePooling1D", "AveragePooling2D", "AveragePooling3D")
def average_pooling(op: Op, x: Value, *, pool_size: Sizes = 2, strides: Sizes = None, padding: str = "valid", data_format: str | None = None) -> Value:
    return pooled(op, x, "AveragePool", pool_size, strides, padding, data_format)


@ops("MaxPool")
def max_pool_operation(op: Op, x: Value, *, pool_size: Sizes, strides: Sizes = None, padding: str = "valid", data_format: str | None = None) -> Value:
    return pooled(op, x, "MaxPool", pool_size, strides, padding, data_format)


@ops("AveragePool")
def average_pool_operation(op: Op, x: Value, *, pool_size: Sizes, strides: Sizes = None, padding: str = "valid", data_format: str | None = None) -> Value:
    return pooled(op, x, "AveragePool", pool_size, strides, padding, data_format)


def _axes(op: Op, x: Value, data_format: str | None) -> list[int]:
    rank = op.rank(x)
    return list(range(2, rank)) if data_format == "channels_first" else list(range(1, rank - 1))


@layer("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")
def global_max(op: Op, x: Value, *, data_format: str | None = None, keepdims: bool = False) -> Value:
    op.result_mask = None
    return op.ReduceMax(x, op.const(_axes(op, x, data_format)), keepdims=int(keepdims))


@layer("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")
def global_average(op: Op, x: Value, *, data_format: str | None = None, keepdims: bool = False) -> Value:
    """In one dimension, masked steps are left out."""
    axes = _axes(op, x, data_format)
    mask = op.mask if op.layer.class_name.endswith("1D") else None
    op.result_mask = None
    if not isinstance(mask, Value):
        return op.ReduceMean(x, op.const(axes), keepdims=int(keepdims))
    kept = op.Unsqueeze(op.cast(mask, x.dtype), op.const([2 if axes == [1] else 1]))
    total = op.ReduceSum(op.Mul(x, kept), op.const(axes), keepdims=int(keepdims))
    return op.Div(total, op.ReduceSum(kept, op.const(axes), keepdims=int(keepdims)))


@layer("AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D", "AdaptiveAveragePooling3D")
def adaptive_average(op: Op, x: Value, *, output_size: Sizes, data_format: str | None = None) -> Value:
    return adaptive(op, x, output_size, data_format, largest=False)


@layer("AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D")
def adaptive_max(op: Op, x: Value, *, output_size: Sizes, data_format: str | None = None) -> Value:
    return adaptive(op, x, output_size, data_format, largest=True)


@ops("AdaptiveAveragePool")
def adaptive_average_operation(op: Op, x: Value, *, output_size: Sizes, data_format: str | None = None) -> Value:
    return adaptive(op, x, output_size, data_format, largest=False)


@ops("AdaptiveMaxPool")
def adaptive_max_operation(op: Op, x: Value, *, output_size: Sizes, data_format: str | None = None) -> Value:
    return adaptive(op, x, output_size, data_format, largest=True)


def adaptive(op: Op, x: Value, output_size: Sizes, data_format: str | None, *, largest: bool) -> Value:
    """Windows that together cover an axis, of two lengths: means by a matrix, maxima by gathering, where a window's last element stands in for missing ones."""
    axes = _axes(op, x, data_format)
    for axis, wanted in zip(axes, several(output_size, len(axes)), strict=True):
        size = op.sizes(x)[axis]
        if not isinstance(size, int):
            return op.reject("the size of its input is not known")
        windows = [(math.floor(i * size / wanted), math.ceil((i + 1) * size / wanted)) for i in range(wanted)]
        x = (_gathered if largest else _averaged)(op, x, axis, size, windows)
    return x


def _averaged(op: Op, x: Value, axis: int, size: int, windows: list[tuple[int, int]]) -> Value:
    matrix = np.zeros((size, len(windows)), x.dtype.numpy())
    for place, (start, stop) in enumerate(windows):
        matrix[start:stop, place] = 1 / (stop - start)
    rank = op.rank(x)
    order = [other for other in range(rank) if other != axis] + [axis]
    y = op.MatMul(op.turned(x, tuple(order)), op.const(matrix))
    return op.turned(y, tuple(order.index(place) for place in range(rank)))


def _gathered(op: Op, x: Value, axis: int, size: int, windows: list[tuple[int, int]]) -> Value:
    longest = max(stop - start for start, stop in windows)
    index = np.array([[min(start + step, stop - 1) for step in range(longest)] for start, stop in windows])
    return op.ReduceMax(op.Gather(x, op.const(index), axis=axis), op.const([axis + 1]), keepdims=0)
