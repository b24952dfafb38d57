"""`keras.ops` on pictures."""
from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
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
