"""`keras.ops` on pictures."""
from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.images import framed, unframed
from isomorph.dialects.keras.to_onnx.places import sliced
from isomorph.dialects.keras.to_onnx.table import ops

# ---- pictures

@ops("DepthToSpace", "SpaceToDepth")
def depth_space(op: Op, x: Value, *, block_size: int, data_format: str | None = None) -> Value:
    return op.last(op.make(op.layer.class_name, [op.first(x, data_format)], {"blocksize": block_size}), data_format)


@ops("Resize")
def resize(op: Op, x: Value, *, size: Any, interpolation: str = "bilinear", antialias: bool = False, crop_to_aspect_ratio: bool = False,
           pad_to_aspect_ratio: bool = False, fill_mode: str = "constant", fill_value: float = 0.0, data_format: str | None = None) -> Value:
    return op.call("keras", "Resizing", x, height=int(size[0]), width=int(size[1]), interpolation=interpolation, antialias=antialias, data_format=data_format,
                   crop_to_aspect_ratio=crop_to_aspect_ratio, pad_to_aspect_ratio=pad_to_aspect_ratio, fill_value=fill_value)


@ops("RGBToGrayscale")
def rgb_to_grayscale(op: Op, x: Value, *, data_format: str | None = None) -> Value:
    axis = -3 if data_format == "channels_first" else -1
    weights = np.asarray([0.2989, 0.587, 0.114], x.dtype.numpy())
    shaped = op.const(weights.reshape([3, 1, 1] if axis == -3 else [3]))
    return op.ReduceSum(op.Mul(x, shaped), op.const([axis]), keepdims=1)


@ops("CropImages")
def crop_images(op: Op, x: Value, *, top_cropping: Any = None, left_cropping: Any = None, bottom_cropping: Any = None, right_cropping: Any = None,
                target_height: Any = None, target_width: Any = None, data_format: str | None = None) -> Value:
    rows, columns = (-2, -1) if data_format == "channels_first" else (-3, -2)
    parts = []
    for axis, begin, end, target in ((rows, top_cropping, bottom_cropping, target_height), (columns, left_cropping, right_cropping, target_width)):
        size = op.sizes(x)[axis]
        begin = size - (end or 0) - target if begin is None else begin
        end = size - begin - target if end is None else end
        parts.append((axis, [int(begin), int(size - end), None]))
    return sliced(op, x, parts)


@ops("PadImages")
def pad_images(op: Op, x: Value, *, top_padding: Any = None, left_padding: Any = None, bottom_padding: Any = None, right_padding: Any = None,
               target_height: Any = None, target_width: Any = None, data_format: str | None = None) -> Value:
    rank = op.rank(x)
    rows, columns = (rank - 2, rank - 1) if data_format == "channels_first" else (rank - 3, rank - 2)
    begins, ends = [0] * rank, [0] * rank
    for axis, begin, end, target in ((rows, top_padding, bottom_padding, target_height), (columns, left_padding, right_padding, target_width)):
        size = op.sizes(x)[axis]
        begins[axis] = int(target - size - (end or 0) if begin is None else begin)
        ends[axis] = int(target - size - begins[axis] if end is None else end)
    return op.Pad(x, op.const([*begins, *ends]))


@ops("ExtractPatches")
def extract_patches(op: Op, x: Value, *, size: Any, strides: Any = None, dilation_rate: Any = 1, padding: str = "valid",
                    data_format: str | None = None) -> Value:
    """A convolution with one-hot kernels: each patch as channels."""
    from isomorph.dialects.keras.to_onnx.convolution import convolved, several
    window = several(size, 2)
    y = op.first(x, data_format)
    channels = op.sizes(y)[1]
    kernel = np.eye(window[0] * window[1] * channels, dtype=x.dtype.numpy()).reshape(*window, channels, -1)
    return op.last(convolved(op, y, op.const(kernel), None, strides or size, padding, dilation_rate), data_format)


@ops("Unfold")
def unfold(op: Op, x: Value, *, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Value:
    """PyTorch's: [batch, channels * window, places] of channels-first pictures."""
    from isomorph.dialects.keras.to_onnx.convolution import several
    window, pads = several(kernel_size, 2), several(padding, 2)
    channels = op.sizes(x)[1]
    count = channels * window[0] * window[1]
    kernel = np.eye(count, dtype=x.dtype.numpy()).reshape(count, channels, *window)
    y = op.Conv(x, op.const(kernel), strides=several(stride, 2), dilations=several(dilation, 2), pads=[*pads, *pads], kernel_shape=window)
    return op.Reshape(y, op.const([0, count, -1]))


# ---- colours and edges

@ops("RGBToHSV")
def rgb_to_hsv(op: Op, x: Value, *, data_format: str | None = None) -> Value:
    """Hue from the channel that is greatest, saturation, value; grey has neither hue nor saturation."""
    axis = -3 if data_format == "channels_first" else -1
    r, g, b = op.Split(x, axis=axis, num_outputs=3, _outputs=3)
    value, least = op.Max(r, g, b), op.Min(r, g, b)
    spread, zero, one = op.Sub(value, least), op.scalar(0, x), op.scalar(1, x)
    grey = op.Equal(spread, zero)
    unit = op.Div(op.scalar(1 / 6, x), op.Where(grey, one, spread))

    def hue(a: Value, b: Value, turn: float) -> Value:
        return op.Add(op.Mul(unit, op.Sub(a, b)), op.scalar(turn, x))
    angle = op.Where(op.Equal(r, value), hue(g, b, 0), op.Where(op.Equal(g, value), hue(b, r, 2 / 6), hue(r, g, 4 / 6)))
    angle = op.Where(grey, zero, op.Where(op.Less(angle, zero), op.Add(angle, one), angle))
    positive = op.Greater(value, zero)
    saturation = op.Where(positive, op.Div(spread, op.Where(positive, value, one)), zero)
    return op.Concat(angle, saturation, value, axis=axis)


@ops("HSVToRGB")
def hsv_to_rgb(op: Op, x: Value, *, data_format: str | None = None) -> Value:
    axis = -3 if data_format == "channels_first" else -1
    hue, saturation, value = op.Split(x, axis=axis, num_outputs=3, _outputs=3)
    zero, one, place = op.scalar(0, x), op.scalar(1, x), op.Mul(hue, op.scalar(6, x))

    def away(centre: int) -> Value:
        return op.Abs(op.Sub(place, op.scalar(centre, x)))
    parts = [op.Clip(part, zero, one) for part in (op.Sub(away(3), one), op.Sub(op.scalar(2, x), away(2)), op.Sub(op.scalar(2, x), away(4)))]
    return op.Concat(*(op.Mul(op.Add(op.Sub(one, saturation), op.Mul(saturation, part)), value) for part in parts), axis=axis)


@ops("GaussianBlur")
def gaussian_blur(op: Op, x: Value, *, kernel_size: Any = (3, 3), sigma: Any = (1.0, 1.0), data_format: str | None = None) -> Value:
    """Every channel with the same kernel; Keras computes it with the second size first, and reshapes it."""
    from isomorph.dialects.keras.to_onnx.convolution import by_channel, several
    y, alone = framed(op, x, data_format)
    window = several(kernel_size, 2)
    lines = [np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / width) ** 2) for size, width in zip(window, sigma, strict=True)]
    one, two = (line / line.sum() for line in lines)
    kernel = np.tile(np.outer(two, one).reshape(*window, 1, 1), (1, 1, op.sizes(y)[1], 1)).astype(x.dtype.numpy())
    return unframed(op, by_channel(op, y, op.const(kernel), None, 1, "same", 1), alone, data_format)


SOBEL = ([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])         # down, across


@ops("SobelEdges")
def sobel_edges(op: Op, x: Value, *, data_format: str | None = None) -> Value:
    """Slopes down and across as a last axis, mirrored at the edges."""
    y = op.Pad(op.first(x, data_format), op.const([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect")
    channels = op.sizes(y)[1]

    def slope(kernel: list[list[int]]) -> Value:
        weight = np.tile(np.asarray(kernel, x.dtype.numpy()), (channels, 1, 1, 1))
        return op.Unsqueeze(op.last(op.Conv(y, op.const(weight), group=channels, kernel_shape=[3, 3]), data_format), op.const([-1]))
    return op.Concat(*map(slope, SOBEL), axis=-1)
