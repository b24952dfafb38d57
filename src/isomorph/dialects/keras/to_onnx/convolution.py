"""Convolutions of all kinds: spatial axes in the middle in Keras, behind the channels in ONNX."""
from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.operations import value_of
from isomorph.dialects.keras.to_onnx.table import layer, ops

Sizes = Any                                # an int for all spatial axes, or a list of one for each


def several(sizes: Sizes, count: int) -> list[int]:
    """One number for every spatial axis."""
    return [int(size) for size in sizes] if isinstance(sizes, list) else [int(sizes)] * count


def same_pads(sizes: list[Any], window: list[int], strides: list[int], dilations: list[int]) -> dict[str, Any]:
    """TensorFlow's `same`: more at the end; written as numbers where sizes are known."""
    if not all(isinstance(size, int) for size in sizes):
        # With a stride of one and an odd window the padding does not depend on the size; otherwise ONNX computes it as TensorFlow does.
        if any(stride != 1 for stride in strides):
            return {"auto_pad": "SAME_UPPER"}
        sizes = [1] * len(sizes)
    total = [max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
             for size, k, stride, dilation in zip(sizes, window, strides, dilations, strict=True)]
    return {"pads": [extra // 2 for extra in total] + [extra - extra // 2 for extra in total]}


def padded(op: Op, x: Value, padding: Any, window: list[int], strides: list[int], dilations: list[int]) -> dict[str, Any]:
    """The attributes for `valid`, `same` and `causal`, of channels-first x."""
    if padding == "same":
        return same_pads(op.sizes(x)[2:], window, strides, dilations)
    if padding == "causal":
        return {"pads": [(window[0] - 1) * dilations[0], 0]}
    return {}


def oriented(op: Op, kernel: Value) -> Value:
    """[..., in, out] -> [out, in, ...]"""
    rank = op.rank(kernel)
    return op.turned(kernel, (rank - 1, rank - 2, *range(rank - 2)))


def finished(op: Op, y: Value, bias: Value | None, data_format: str | None, activation: Any) -> Value:
    """The activation on the axes of Keras, where it may be a softmax; elementwise ones do not mind."""
    return op.activation(op.last(y, data_format), activation)


@layer("Conv1D", "Conv2D", "Conv3D")
def conv(op: Op, x: Value, *, filters: int = 0, kernel_size: Sizes, strides: Sizes = 1, padding: str = "valid", data_format: str | None = None,
         dilation_rate: Sizes = 1, groups: int = 1, activation: Any = None, use_bias: bool = True, rank: int = 0, **tuning: Any) -> Value:
    bias = op.variable("bias") if use_bias else None
    y = convolved(op, op.first(x, data_format), op.need("kernel"), bias, strides, padding, dilation_rate, groups)
    return finished(op, y, bias, data_format, activation)


def convolved(op: Op, x: Value, kernel: Value, bias: Value | None, strides: Sizes, padding: Any, dilation: Sizes, groups: int = 1) -> Value:
    """A convolution of channels-first x with a kernel of Keras."""
    count = op.rank(x) - 2
    window, steps, dilations = list(op.static(kernel))[:count], several(strides, count), several(dilation, count)
    where = padded(op, x, padding, window, steps, dilations)
    return op.Conv(x, oriented(op, kernel), bias, strides=steps, dilations=dilations, group=groups, kernel_shape=window, **where)


@layer("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(op: Op, x: Value, *, kernel_size: Sizes = None, strides: Sizes = 1, padding: str = "valid", depth_multiplier: int = 1,
              data_format: str | None = None,
              dilation_rate: Sizes = 1, activation: Any = None, use_bias: bool = True, rank: int = 0, **tuning: Any) -> Value:
    bias = op.variable("bias") if use_bias else None
    y = by_channel(op, op.first(x, data_format), op.need("kernel"), bias, strides, padding, dilation_rate)
    return finished(op, y, bias, data_format, activation)


def by_channel(op: Op, x: Value, kernel: Value, bias: Value | None, strides: Sizes, padding: Any, dilation: Sizes) -> Value:
    """A convolution of every channel with its own kernels, [..., channels, multiplier]."""
    *window, channels, multiplier = op.static(kernel)
    count = len(window)
    steps, dilations = several(strides, count), several(dilation, count)

    def regroup(array: np.ndarray) -> np.ndarray:
        return np.moveaxis(array.reshape(*window, channels * multiplier), -1, 0)[:, None]

    dims = (channels * multiplier, 1, *window)
    if kernel.const_value is not None and kernel.is_initializer():
        weight = op.stored(regroup, kernel, dims=dims)
    else:
        flat = op.Reshape(kernel, op.const([*window, 1, channels * multiplier]))
        weight = op.Transpose(flat, perm=[count + 1, count, *range(count)])
    where = padded(op, x, padding, window, steps, dilations)
    return op.Conv(x, weight, bias, strides=steps, dilations=dilations, group=channels, kernel_shape=window, **where)


@layer("SeparableConv1D", "SeparableConv2D")
def separable(op: Op, x: Value, *, filters: int = 0, kernel_size: Sizes = None, strides: Sizes = 1, padding: str = "valid", data_format: str | None = None,
              dilation_rate: Sizes = 1, depth_multiplier: int = 1, activation: Any = None, use_bias: bool = True, rank: int = 0, groups: int = 1,
              **tuning: Any) -> Value:
    """A depthwise convolution, then one with a window of one."""
    y = by_channel(op, op.first(x, data_format), op.need("depthwise_kernel"), None, strides, padding, dilation_rate)
    y = convolved(op, y, op.need("pointwise_kernel"), op.variable("bias") if use_bias else None, 1, "valid", 1)
    return finished(op, y, None, data_format, activation)


@layer("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def conv_transpose(op: Op, x: Value, *, filters: int = 0, kernel_size: Sizes, strides: Sizes = 1, padding: str = "valid", output_padding: Sizes = None,
                   data_format: str | None = None, dilation_rate: Sizes = 1, activation: Any = None, use_bias: bool = True, rank: int = 0, groups: int = 1,
                   output_shape: Any = None, **tuning: Any) -> Value:
    bias = op.variable("bias") if use_bias else None
    y = transposed(op, op.first(x, data_format), op.need("kernel"), bias, strides, padding, output_padding, dilation_rate)
    return finished(op, y, bias, data_format, activation)


def transposed(op: Op, x: Value, kernel: Value, bias: Value | None, strides: Sizes, padding: str, output_padding: Sizes, dilation: Sizes) -> Value:
    """A transposed convolution of channels-first x with a kernel [..., out, in].

    The full result has (size - 1) * stride + extent elements. Without `output_padding` Keras keeps size * stride of them for `same`, and at least
    size * stride for `valid`; with it, (size - 1) * stride + extent - 2 * pad + output_padding. What is cut off is less at the beginning.
    """
    count = op.rank(x) - 2
    window, steps, dilations = op.static(kernel)[:count], several(strides, count), several(dilation, count)
    extra = [None] * count if output_padding is None else several(output_padding, count)
    begins, ends, grown = [], [], []
    for k, stride, step, out in zip(window, steps, dilations, extra, strict=True):
        begin, end, more = _cut((k - 1) * step + 1, stride, padding, out)
        begins.append(begin)
        ends.append(end)
        grown.append(more)
    weight = op.turned(kernel, (count + 1, count, *range(count)))
    if any(more >= stride for more, stride in zip(grown, steps, strict=True)):
        # ONNX Runtime wants the output padding below the stride: the rest is zeros, to which the bias belongs too.
        y = op.ConvTranspose(x, weight, None, strides=steps, dilations=dilations, kernel_shape=window, pads=[*begins, *ends])
        y = op.Pad(y, op.const([0, 0, *[0] * count, 0, 0, *grown]))
        return y if bias is None else op.Add(y, op.Reshape(bias, op.const([1, -1, *[1] * count])))
    return op.ConvTranspose(x, weight, bias, strides=steps, dilations=dilations, kernel_shape=window, pads=[*begins, *ends],
                            output_padding=grown if any(grown) else None)


def _cut(extent: int, stride: int, padding: str, output_padding: int | None) -> tuple[int, int, int]:
    """(pad at the begin, pad at the end, output padding) of one axis."""
    if output_padding is None:
        if padding == "valid":
            return 0, 0, max(stride - extent, 0)
        total = max(extent - stride, 0)
        return total // 2, total - total // 2, max(stride - extent, 0)
    if padding == "valid":
        return 0, 0, output_padding
    pad = extent // 2
    # length = (size - 1) * stride + extent - 2 * pad + output_padding; TensorFlow's gradient of `same` over that length cuts the begin by half.
    total = 2 * pad - output_padding
    begin = max(total, 0) // 2 if total >= 0 else 0
    return begin, max(total, 0) - begin, max(-total, 0)


@ops("Conv")
def conv_operation(op: Op, x: Value, kernel: Any, *, strides: Sizes = 1, padding: str = "valid", data_format: str | None = None,
                   dilation_rate: Sizes = 1) -> Value:
    kernel = value_of(op, kernel, x)
    channels, taken = op.sizes(op.first(x, data_format))[1], op.static(kernel)[-2]
    y = convolved(op, op.first(x, data_format), kernel, None, strides, padding, dilation_rate or 1, channels // taken if isinstance(channels, int) else 1)
    return op.last(y, data_format)


@ops("DepthwiseConv")
def depthwise_operation(op: Op, x: Value, kernel: Any, *, strides: Sizes = 1, padding: str = "valid", data_format: str | None = None,
                        dilation_rate: Sizes = 1) -> Value:
    return op.last(by_channel(op, op.first(x, data_format), value_of(op, kernel, x), None, strides, padding, dilation_rate or 1), data_format)


@ops("SeparableConv")
def separable_operation(op: Op, x: Value, depthwise_kernel: Value, pointwise_kernel: Any, *, strides: Sizes = 1, padding: str = "valid",
                        data_format: str | None = None, dilation_rate: Sizes = 1) -> Value:
    y = by_channel(op, op.first(x, data_format), value_of(op, depthwise_kernel, x), None, strides, padding, dilation_rate or 1)
    return op.last(convolved(op, y, value_of(op, pointwise_kernel, x), None, 1, "valid", 1), data_format)


@ops("ConvTranspose")
def conv_transpose_operation(op: Op, x: Value, kernel: Any, *, strides: Sizes = 1, padding: str = "valid", output_padding: Sizes = None,
                             data_format: str | None = None, dilation_rate: Sizes = 1) -> Value:
    y = transposed(op, op.first(x, data_format), value_of(op, kernel, x), None, strides, padding, output_padding, dilation_rate or 1)
    return op.last(y, data_format)


@layer("LocallyConnected1D", "LocallyConnected2D")
def locally_connected(op: Op, x: Value, *, filters: int, kernel_size: Sizes, strides: Sizes = 1, padding: str = "valid", data_format: str | None = None,
                      activation: Any = None, use_bias: bool = True, **tuning: Any) -> Value:
    """A convolution whose kernel differs from place to place: windows as rows, one matrix for each place."""
    if tuning.get("implementation", 1) != 1 or padding != "valid":
        return op.reject("only its form with one matrix for each place is mapped (implementation=1)")
    if data_format == "channels_first" and op.rank(x) > 3:
        return op.reject("its weights are kept channels-last only")
    last = x if data_format != "channels_first" else op.Transpose(x, perm=[0, 2, 1])
    count = op.rank(last) - 2
    window, steps = several(kernel_size, count), several(strides, count)
    sizes = op.sizes(last)[1:-1] if all(isinstance(size, int) for size in op.sizes(last)[1:]) else op.reject("the size of its input is not known")
    channels = op.sizes(last)[-1]
    places = [(size - k) // step + 1 for size, k, step in zip(sizes, window, steps, strict=True)]
    grid = np.arange(int(np.prod(sizes))).reshape(sizes)
    starts = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(places, steps, strict=True)), indexing="ij"), -1).reshape(-1, count)
    windows = np.stack([grid[tuple(slice(a, a + k) for a, k in zip(start, window, strict=True))].ravel() for start in starts])
    rows = op.Gather(op.Reshape(last, op.const([0, int(np.prod(sizes)), channels])), op.const(windows), axis=1)      # [batch, places, window, channels]
    matrix = op.need("kernel")                                                                                        # [places, window * channels, filters]
    flat = op.Reshape(rows, op.const([0, len(windows), 1, windows.shape[1] * channels]))
    y = op.Reshape(op.MatMul(flat, matrix), op.const([0, *places, filters]))
    if use_bias:
        y = op.Add(y, op.need("bias"))
    y = op.activation(y, activation)
    return y if data_format != "channels_first" else op.Transpose(y, perm=[0, 2, 1])
