"""Pictures: resizing, cropping and scaling of values."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.table import layer

# How ONNX's Resize is asked for what TensorFlow does: half-pixel centres, no antialiasing; lanczos and area have no counterpart.
MODES: dict[str, dict[str, Any]] = {
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"},
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "bicubic": {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.5, "exclude_outside": 1},
}


def resized(op: Op, x: Value, height: int, width: int, interpolation: str) -> Value:
    """Channels-first pictures at a new size."""
    if interpolation not in MODES:
        return op.reject(f"the interpolation {interpolation!r} has no equivalent")
    if interpolation == "bicubic" and all(isinstance(size, int) for size in op.sizes(x)[2:]):
        return cubic(op, x, height, width)
    head = op.shape(op.size_of(x, 0) if not isinstance(op.sizes(x)[0], int) else op.sizes(x)[0], op.sizes(x)[1] if isinstance(op.sizes(x)[1], int)
                    else op.size_of(x, 1), int(height), int(width))
    return op.Resize(x, None, None, head, **MODES[interpolation])


TABLE = 1024                                    # steps in which TensorFlow keeps the cubic kernel


def cubic(op: Op, x: Value, height: int, width: int) -> Value:
    """One matrix for each axis: TensorFlow rounds the places of its cubic kernel, and ONNX Runtime has no cubic kernel that makes pictures smaller."""
    tall, wide = op.static(x)[2:] if all(isinstance(size, int) for size in op.sizes(x)) else op.sizes(x)[2:]
    across = op.MatMul(x, op.const(cubic_matrix(wide, width).T.astype(x.dtype.numpy())))
    return op.MatMul(op.const(cubic_matrix(tall, height).astype(x.dtype.numpy())), across)


def cubic_matrix(size: int, wanted: int) -> np.ndarray:
    """[wanted, size]: four weights in each row; those outside are left out and the rest made to sum to one."""
    def kernel(place: float) -> float:
        a, x = -0.5, abs(place)
        return ((a + 2) * x - (a + 3)) * x * x + 1 if x <= 1 else ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    matrix = np.zeros((wanted, size))
    for row in range(wanted):
        centre = np.float32(row + 0.5) * np.float32(size / wanted) - np.float32(0.5)
        first = int(np.floor(centre))
        step = np.rint((centre - first) * TABLE) / TABLE
        for tap in range(-1, 3):
            if 0 <= first + tap < size:
                matrix[row, first + tap] = kernel(tap - step)
        matrix[row] /= matrix[row].sum()
    return matrix


def scaled(op: Op, x: Value, factors: list[int], interpolation: str) -> Value:
    """Channels-first pictures made larger by whole factors."""
    sizes = op.sizes(x)[2:]
    if interpolation == "bicubic" and all(isinstance(size, int) for size in sizes):
        return cubic(op, x, sizes[0] * factors[0], sizes[1] * factors[1])
    if interpolation == "nearest":
        asked: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        asked = MODES.get(interpolation) or op.reject(f"the interpolation {interpolation!r} has no equivalent")
    return enlarged(op, x, factors, **asked)


def enlarged(op: Op, x: Value, factors: list[int], **asked: Any) -> Value:
    """A Resize by whole factors; inference knows nothing of a batch that is multiplied by one."""
    y = op.Resize(x, None, op.const([1.0, 1.0, *map(float, factors)]), **asked)
    sizes = op.sizes(x)
    y.shape = ir.Shape([*sizes[:2], *(size * factor if isinstance(size, int) else None for size, factor in zip(sizes[2:], factors, strict=True))])
    return y


def framed(op: Op, x: Value, data_format: str | None) -> tuple[Value, bool]:
    """Channels-first with a batch axis, and whether there was none."""
    alone = op.rank(x) == 3
    y = op.Unsqueeze(x, op.const([0])) if alone else x
    return op.first(y, data_format), alone


def unframed(op: Op, y: Value, alone: bool, data_format: str | None) -> Value:
    y = op.last(y, data_format)
    return op.Squeeze(y, op.const([0])) if alone else y


@layer("Resizing")
def resizing(op: Op, x: Value, *, height: int, width: int, interpolation: str = "bilinear", crop_to_aspect_ratio: bool = False,
             pad_to_aspect_ratio: bool = False, fill_mode: str = "constant", fill_value: float = 0.0, antialias: bool = False, data_format: str | None = None,
             **rest: Any) -> Value:
    if antialias:
        return op.reject("antialiasing has no equivalent")
    y, alone = framed(op, op.cast(x, op.compute), data_format)
    if crop_to_aspect_ratio or pad_to_aspect_ratio:
        sizes = op.sizes(y)[2:]
        if not all(isinstance(size, int) for size in sizes):
            return op.reject("keeping the aspect ratio needs a known size of its input")
        y = _cropped(op, y, height, width) if crop_to_aspect_ratio else _boxed(op, y, height, width, fill_value)
    return unframed(op, resized(op, y, height, width, interpolation), alone, data_format)


def _cropped(op: Op, x: Value, height: int, width: int) -> Value:
    """The middle of the picture with the aspect ratio of the target."""
    tall, wide = op.sizes(x)[2:]
    keep_h = min(tall, int(wide * height / width))
    keep_w = min(wide, int(tall * width / height))
    top, left = int((tall - keep_h) / 2), int((wide - keep_w) / 2)
    return op.Slice(x, op.const([top, left]), op.const([top + keep_h, left + keep_w]), op.const([2, 3]))


def _boxed(op: Op, x: Value, height: int, width: int, fill: float) -> Value:
    """The picture with borders that give it the aspect ratio of the target."""
    tall, wide = op.sizes(x)[2:]
    pad_h = max(tall, int(wide * height / width)) - tall
    pad_w = max(wide, int(tall * width / height)) - wide
    top, left = pad_h // 2, pad_w // 2
    return op.Pad(x, op.const([0, 0, top, left, 0, 0, pad_h - top, pad_w - left]), op.scalar(fill, x))


@layer("RandomCrop")
def random_crop(op: Op, x: Value, *, height: int, width: int, data_format: str | None = None, **rest: Any) -> Value:
    """Keras 3 leaves pictures alone unless it trains; Keras 2 crops them to the aspect ratio and resizes."""
    if op.context.generation >= 3:
        return x
    return op.call("keras", "Resizing", x, height=height, width=width, crop_to_aspect_ratio=True)


@layer("CenterCrop")
def center_crop(op: Op, x: Value, *, height: int, width: int, data_format: str | None = None, **rest: Any) -> Value:
    """The middle of a larger picture; a smaller one is cropped to the aspect ratio and resized."""
    y, alone = framed(op, op.cast(x, op.compute), data_format)
    sizes = op.sizes(y)[2:]
    if not all(isinstance(size, int) for size in sizes):
        return op.reject("it needs a known size of its input")
    tall, wide = sizes
    if tall >= height and wide >= width:
        top, left = int((tall - height) / 2), int((wide - width) / 2)
        y = op.Slice(y, op.const([top, left]), op.const([top + height, left + width]), op.const([2, 3]))
    else:
        y = resized(op, _cropped(op, y, height, width), height, width, "bilinear")
    return unframed(op, y, alone, data_format)


@layer("Rescaling")
def rescaling(op: Op, x: Value, *, scale: Any = 1.0, offset: Any = 0.0) -> Value:
    kind = op.compute.numpy()
    x = op.cast(x, op.compute)
    factor, shift = (np.asarray(value, np.float32).astype(kind) for value in (scale, offset))
    y = op.Mul(x, op.const(factor))
    return op.Add(y, op.const(shift)) if shift.any() else y
