"""Convolutions and pools in the form that aten's calls take: padding alike on both sides, and by numbers."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping
from isomorph.dialects.torch.from_onnx.kernels import T as D

windows = Mapping()


def explicit(op: Builder, x: ir.Value, kernel: list[int], strides: list[int], dilations: list[int], pads: Any, auto_pad: str) -> list[int]:
    """The padding as numbers, all that stand before and then all behind."""
    n = len(kernel)
    if auto_pad in ("NOTSET", "VALID", ""):
        return list(pads) if pads is not None and auto_pad != "VALID" else [0] * 2 * n
    _, (_, _, *sizes) = op.of(x)
    befores, behinds = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        if not isinstance(size, int) and stride != 1:
            op.reject(f"{auto_pad} of an unknown size in steps of {stride}")
        span = (k - 1) * dilation + 1
        total = span - 1 if not isinstance(size, int) else max((-(-size // stride) - 1) * stride + span - size, 0)
        small = total // 2
        befores.append(small if auto_pad == "SAME_UPPER" else total - small)
        behinds.append(total - befores[-1])
    return [*befores, *behinds]


def padded(op: Builder, x: ir.Value, pads: list[int], value: float) -> ir.Value:
    n = len(pads) // 2
    return op.Pad(x, [0, 0, *pads[:n], 0, 0, *pads[n:]], op.const(np.asarray(value, x.dtype.numpy())))


@windows("Conv")
def conv(op, x, w, b=None, *, kernel_shape=None, auto_pad="NOTSET", pads=None, strides=None, dilations=None, group=1):
    """aten pads both sides alike."""
    n = op.of(x)[0] - 2
    if not 1 <= n <= 3:
        op.reject(f"a convolution over {n} axes")
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    amounts = explicit(op, x, list(kernel_shape or op.static(w)[2:]), strides, dilations, pads, auto_pad)
    even = amounts[:n] == amounts[n:]
    if even and auto_pad == "NOTSET":
        return NotImplemented
    if not even or min(amounts) < 0:
        x, amounts = padded(op, x, amounts, 0.0), [0] * 2 * n
    return op.Conv(x, w, b, pads=amounts, strides=strides, dilations=dilations, group=group)


@windows("ConvTranspose")
def conv_transpose(op, x, w, b=None, *, kernel_shape=None, auto_pad="NOTSET", pads=None, strides=None, dilations=None, group=1, output_padding=None,
                   output_shape=None):
    """aten cuts both sides alike and adds less than a step behind; everything else is cut from, or added to, the whole result."""
    n = op.of(x)[0] - 2
    if not 1 <= n <= 3:
        op.reject(f"a convolution over {n} axes")
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    extra = list(output_padding or [0] * n)
    kernel = list(kernel_shape or op.static(w)[2:])
    amounts = list(pads or [0] * 2 * n) if auto_pad == "NOTSET" else [0] * 2 * n
    whole = [strides[i] * -1 + dilations[i] * (kernel[i] - 1) + 1 for i in range(n)]          # besides stride * size
    if output_shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        for i, size in enumerate(op.of(x)[1][2:]):
            if output_shape is not None and not isinstance(size, int):
                op.reject("an output shape of an input whose size is not known")
            total = (strides[i] * size + whole[i] + extra[i] - output_shape[-n:][i]) if output_shape is not None else whole[i] + extra[i]
            before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            amounts[i], amounts[n + i] = before, total - before
    even = amounts[:n] == amounts[n:] and min(amounts) >= 0
    fits = all(item < max(step, dilation) for item, step, dilation in zip(extra, strides, dilations, strict=True))
    if even and fits and auto_pad == "NOTSET" and output_shape is None:
        return NotImplemented
    if even and fits:
        return op.ConvTranspose(x, w, b, pads=amounts, strides=strides, dilations=dilations, group=group, output_padding=extra)
    # The bias must reach what padding adds behind, so it is added afterwards.
    y = op.ConvTranspose(x, w, None, strides=strides, dilations=dilations, group=group)
    y = padded(op, y, [*(-amount for amount in amounts[:n]), *(add - amount for add, amount in zip(extra, amounts[n:], strict=True))], 0.0)
    return y if b is None else op.Add(y, op.Reshape(b, [1, -1, *[1] * n]))


def limits(x: ir.Value) -> tuple[float, float]:
    """The least and the greatest value of an element type."""
    kind: Any = x.dtype
    if kind.is_floating_point():
        return -np.inf, np.inf
    return (0, 1) if kind == D.BOOL else (np.iinfo(kind.numpy()).min, np.iinfo(kind.numpy()).max)


@windows("MaxPool")
def max_pool(op, x, *, kernel_shape, auto_pad="NOTSET", pads=None, strides=None, dilations=None, ceil_mode=0, storage_order=0):
    n = len(kernel_shape)
    if n > 3:
        op.reject(f"a window over {n} axes")
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    amounts = explicit(op, x, list(kernel_shape), strides, dilations, pads, auto_pad)
    indices = len(op.outputs) == 2 and (op.outputs[1].uses() or op.outputs[1].is_graph_output())
    if storage_order and indices:
        op.reject("indices in the order of columns")
    fits = amounts[:n] == amounts[n:] and all(2 * amount <= k for amount, k in zip(amounts, kernel_shape, strict=False))
    if fits and auto_pad == "NOTSET" and (indices or len(op.outputs) == 1):
        return NotImplemented
    if not fits and indices:
        op.reject("indices of windows with uneven padding")
    if not fits:
        x, amounts = padded(op, x, amounts, limits(x)[0]), [0] * 2 * n
    window = dict(kernel_shape=kernel_shape, pads=amounts, strides=strides, dilations=dilations, ceil_mode=ceil_mode)
    return op.MaxPool(x, **window, _outputs=2) if indices else op.MaxPool(x, **window)


def rounded_up(op: Builder, x: ir.Value, kernel: list[int], strides: list[int], dilations: list[int], pads: list[int]) -> list[int]:
    """How much must stand behind each axis so that windows which begin inside it, and end outside, are whole."""
    n = len(kernel)
    amounts = []
    for axis, size in enumerate(op.static(x)[2:]):
        span, room = (kernel[axis] - 1) * dilations[axis] + 1, size + pads[axis] + pads[n + axis]
        count = -(-(room - span) // strides[axis]) + 1
        count -= (count - 1) * strides[axis] >= size + pads[axis]
        amounts.append(max((count - 1) * strides[axis] + span - room, 0))
    return amounts


@windows("AveragePool")
def average_pool(op, x, *, kernel_shape, auto_pad="NOTSET", pads=None, strides=None, dilations=None, ceil_mode=0, count_include_pad=0):
    """Windows with holes, and uneven padding that does not count, are a convolution with ones over data and over ones."""
    n = len(kernel_shape)
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    amounts = explicit(op, x, list(kernel_shape), strides, dilations, pads, auto_pad)
    even = amounts[:n] == amounts[n:] and all(2 * amount <= k for amount, k in zip(amounts, kernel_shape, strict=False))
    window = dict(kernel_shape=kernel_shape, strides=strides, ceil_mode=ceil_mode)
    if set(dilations) == {1} and n <= 3:
        if even and auto_pad == "NOTSET":
            return NotImplemented
        if even or not any(amounts):
            return op.AveragePool(x, **window, pads=amounts, count_include_pad=count_include_pad)
        if count_include_pad and not ceil_mode:
            return op.AveragePool(padded(op, x, amounts, 0.0), **window)
    more = [0] * n + (rounded_up(op, x, list(kernel_shape), strides, dilations, amounts) if ceil_mode else [0] * n)
    _, (_, channels, *_) = op.of(x)
    kernel = op.const(np.ones((channels, 1, *kernel_shape), x.dtype.numpy()))

    def total(value: ir.Value, filler: float) -> ir.Value:
        whole = padded(op, padded(op, value, amounts, filler), more, 0.0)
        return op.Conv(whole, kernel, None, strides=strides, dilations=dilations, group=channels)
    return op.Div(total(x, 0.0), total(op.Add(op.Mul(x, 0.0), 1.0), float(count_include_pad)))


@windows("LpPool")
def lp_pool(op, x, *, kernel_shape, auto_pad="NOTSET", pads=None, strides=None, dilations=None, ceil_mode=0, p=2):
    """The root of the mean of powers, times the number of elements of a window, of which padding is part."""
    count = float(np.prod(kernel_shape))
    mean = op.AveragePool(op.Pow(op.Abs(x), float(p)), kernel_shape=kernel_shape, auto_pad=auto_pad, pads=pads, strides=strides, dilations=dilations,
                          ceil_mode=ceil_mode, count_include_pad=1)
    return op.Pow(op.Mul(mean, count), 1.0 / p)


@windows("GlobalLpPool")
def global_lp_pool(op, x, *, p=2):
    axes = list(range(2, op.of(x)[0]))
    return op.Pow(op.ReduceSum(op.Pow(op.Abs(x), float(p)), axes, keepdims=1), 1.0 / p)
