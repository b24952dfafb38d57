"""Normalisation layers. ONNX's own operators where their axes agree, sums and products otherwise."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.operations import value_of
from isomorph.dialects.keras.to_onnx.table import layer, ops


def _axes(op: Op, x: Value, axis: Any) -> list[int]:
    rank = op.rank(x)
    return sorted({int(each) % rank for each in (axis if isinstance(axis, list) else [axis])})


def along(op: Op, x: Value, value: Value | None, axes: list[int]) -> Value | None:
    """A vector over `axes` shaped so that it broadcasts over x."""
    if value is None:
        return None
    rank = op.rank(x)
    if axes == list(range(rank - len(axes), rank)):
        return value
    own = iter(op.static(value))
    return op.Reshape(value, op.const([next(own) if axis in axes else 1 for axis in range(rank)]))


@layer("BatchNormalization")
def batch_normalization(op: Op, x: Value, *, axis: Any = -1, epsilon: float = 1e-3, center: bool = True, scale: bool = True, mode: int = 0,
                        momentum: float = 0.99) -> Value:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, with what was learnt about mean and variance."""
    mean, variance = op.need("moving_mean"), op.need("moving_variance")
    axes = _axes(op, x, axis)
    gamma = op.variable("gamma") if scale else None
    beta = op.variable("beta") if center else None
    rank = op.rank(x)
    if len(axes) == 1 and rank >= 2 and axes[0] in (1, rank - 1) and x.dtype == ir.DataType.FLOAT:
        size = op.static(mean)
        ones = [op.const(np.full(size, fill, np.float32)) for fill in (1, 0)]
        last = axes[0] == rank - 1 and rank > 2
        y = op.first(x, "channels_last") if last else x
        y = op.BatchNormalization(y, gamma or ones[0], beta or ones[1], mean, variance, epsilon=float(epsilon), momentum=float(momentum))
        return op.last(y, "channels_last") if last else y
    spread = [along(op, x, value, axes) for value in (mean, variance, gamma, beta)]
    return _scaled(op, op.Div(op.Sub(x, spread[0]), op.Sqrt(op.Add(spread[1], op.scalar(epsilon, x)))), spread[2], spread[3])


def _scaled(op: Op, y: Value, gamma: Value | None, beta: Value | None) -> Value:
    y = y if gamma is None else op.Mul(y, gamma)
    return y if beta is None else op.Add(y, beta)


@layer("LayerNormalization")
def layer_normalization(op: Op, x: Value, *, axis: Any = -1, epsilon: float = 1e-3, center: bool = True, scale: bool = True,
                        rms_scaling: bool = False) -> Value:
    axes = _axes(op, x, axis)
    rank, sizes = op.of(x)
    gamma, beta = op.variable("gamma") if scale else None, op.variable("beta") if center else None
    last = axes == list(range(rank - len(axes), rank))
    if last and not rms_scaling and all(isinstance(sizes[each], int) for each in axes):
        gamma = op.const(np.ones([sizes[each] for each in axes], x.dtype.numpy())) if gamma is None else gamma
        return op.LayerNormalization(x, gamma, beta, axis=axes[0], epsilon=float(epsilon))
    gamma, beta = along(op, x, gamma, axes), along(op, x, beta, axes)
    if rms_scaling:
        # Keras divides by the root of the variance and takes no mean off before.
        mean = op.ReduceMean(x, op.const(axes), keepdims=1)
        variance = op.ReduceMean(op.Mul(op.Sub(x, mean), op.Sub(x, mean)), op.const(axes), keepdims=1)
        return _scaled(op, op.Div(x, op.Sqrt(op.Add(variance, op.scalar(epsilon, x)))), gamma, None)
    return _scaled(op, standardized(op, x, axes, epsilon), gamma, beta)


def standardized(op: Op, x: Value, axes: list[int], epsilon: float) -> Value:
    centred = op.Sub(x, op.ReduceMean(x, op.const(axes), keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), op.const(axes), keepdims=1)
    return op.Div(centred, op.Sqrt(op.Add(variance, op.scalar(epsilon, x))))


@layer("RMSNormalization")
def rms_normalization(op: Op, x: Value, *, axis: Any = -1, epsilon: float = 1e-6) -> Value:
    axes = _axes(op, x, axis)
    square = op.ReduceMean(op.Mul(x, x), op.const(axes), keepdims=1)
    return op.Mul(op.Div(x, op.Sqrt(op.Add(square, op.scalar(epsilon, x)))), along(op, x, op.need("scale"), axes))


@ops("RMSNorm")
def rms_operation(op: Op, x: Value, scale: Value | None = None, *, axis: Any = -1, epsilon: float | None = None) -> Value:
    axes = _axes(op, x, axis)
    square = op.ReduceMean(op.Mul(x, x), op.const(axes), keepdims=1)
    y = op.Div(x, op.Sqrt(op.Add(square, op.scalar(1e-7 if epsilon is None else epsilon, x))))
    return y if scale is None else op.Mul(y, along(op, x, scale, axes))


@ops("LayerNorm")
def layer_operation(op: Op, x: Value, gamma: Value | None = None, beta: Value | None = None, *, axis: Any = -1, epsilon: float | None = None) -> Value:
    axes = _axes(op, x, axis)
    y = standardized(op, x, axes, 1e-7 if epsilon is None else epsilon)
    return _scaled(op, y, along(op, x, gamma, axes), along(op, x, beta, axes))


@layer("UnitNormalization")
def unit_normalization(op: Op, x: Value, *, axis: Any = -1) -> Value:
    """Divided by the length over the axes."""
    squares = op.ReduceSumSquare(x, op.const(_axes(op, x, axis)), keepdims=1)
    return op.Div(x, op.Sqrt(op.Max(squares, op.scalar(1e-12, x))))


@layer("GroupNormalization")
def group_normalization(op: Op, x: Value, *, groups: int = 32, axis: int = -1, epsilon: float = 1e-3, center: bool = True, scale: bool = True) -> Value:
    """Mean and variance over each group of channels and everything but the batch. ONNX wants channels second."""
    rank, sizes = op.of(x)
    axis %= rank
    order = (0, axis, *(other for other in range(1, rank) if other != axis))
    y = op.turned(x, order)
    channels = sizes[axis]
    gamma = op.variable("gamma") if scale else op.const(np.ones(channels, x.dtype.numpy()))
    beta = op.variable("beta") if center else op.const(np.zeros(channels, x.dtype.numpy()))
    y = op.GroupNormalization(y, gamma, beta, num_groups=channels if groups == -1 else groups, epsilon=float(epsilon))
    return op.turned(y, tuple(order.index(place) for place in range(rank)))


@layer("Normalization")
def normalization(op: Op, x: Value, *, axis: Any = -1, mean: Any = None, variance: Any = None, invert: bool = False) -> Value:
    """(x - mean) / sqrt(variance), or back, with what `adapt` saw or the configuration states."""
    rank = op.rank(x)
    axes = [] if axis is None else _axes(op, x, axis)
    pair = []
    for name, stated in (("mean", mean), ("variance", variance)):
        value = op.const(np.asarray(stated, np.float32)) if stated is not None else op.need(name)
        array = np.asarray(value.const_value.numpy(), np.float32)
        shape = array.shape if array.ndim != rank else [array.shape[place] for place in axes]
        ends = iter(shape)
        pair.append(array.reshape([next(ends, 1) if place in axes else 1 for place in range(rank)] if axes else ()))
    deviation = np.maximum(np.sqrt(pair[1]), np.float32(1e-7))
    kind = op.compute.numpy()
    x = op.cast(x, op.compute)
    centre, spread = op.const(pair[0].astype(kind)), op.const(deviation.astype(kind))
    return op.Add(centre, op.Mul(x, spread)) if invert else op.Div(op.Sub(x, centre), spread)


@ops("BatchNorm", "BatchNormalization")
def batch_operation(op: Op, x: Value, mean: Any, variance: Any, offset: Any = None, scale: Any = None, *, axis: int,
                    epsilon: float = 1e-3) -> Value:
    given = [None if value is None else value_of(op, value, x) for value in (mean, variance, scale, offset)]
    spread = [along(op, x, value, [axis % op.rank(x)]) for value in given]
    return _scaled(op, op.Div(op.Sub(x, spread[0]), op.Sqrt(op.Add(spread[1], op.scalar(epsilon, x)))), spread[2], spread[3])


@ops("Normalize")
def normalize_operation(op: Op, x: Value, *, axis: int = -1, order: int = 2, epsilon: float | None = None) -> Value:
    least = 1e-7 if epsilon is None else epsilon
    if order == 2:
        squares = op.Max(op.ReduceSumSquare(x, op.const([axis]), keepdims=1), op.scalar(least ** 2, x))
        return op.Div(x, op.Sqrt(squares))
    length = op.make("ReduceL1", [x, op.const([axis])], {"keepdims": 1}) if order == 1 else op.reject(f"the norm of order {order} is not mapped")
    return op.Div(x, op.Max(length, op.scalar(least, x)))
