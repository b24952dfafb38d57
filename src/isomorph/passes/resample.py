"""Resize, GridSample, RoiAlign, DeformConv and their kin as matrix products and gathers.

Resize along one axis is a linear map: for known sizes its matrix [out, in] is computed here once, whatever the mode, so that every
coordinate transformation, cubic and antialiased filters included, comes out the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Array, Builder, Mapping, constant

resample = Mapping()


# ---- Resize


def coordinates(out: int, size: int, scale: float, transformation: str, roi: tuple[float, float] = (0.0, 1.0), length: float | None = None) -> np.ndarray:
    """Where each output element lies on the input axis (ONNX Resize, coordinate_transformation_mode)."""
    i = np.arange(out, dtype=np.float64)
    length = size * scale if length is None else length
    if transformation == "align_corners":
        return i * (size - 1) / (length - 1) if length > 1 else np.zeros(out)
    if transformation == "asymmetric":
        return i / scale
    if transformation == "tf_crop_and_resize":
        start, end = roi
        return start * (size - 1) + i * (end - start) * (size - 1) / (length - 1) if length > 1 else np.full(out, 0.5 * (start + end) * (size - 1))
    if transformation == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if length > 1 else np.zeros(out)
    if transformation == "half_pixel_symmetric":
        adjustment = out / length
        return size / 2 * (1 - adjustment) + (i + 0.5) / scale - 0.5
    return (i + 0.5) / scale - 0.5


def nearest(positions: np.ndarray, mode: str) -> np.ndarray:
    rounding: dict[str, Callable] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    }
    return rounding[mode](positions)


def _filter(mode: str, cubic: float) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """The kernel function of the distance, and its radius."""
    if mode == "linear":
        return lambda t: np.maximum(1 - np.abs(t), 0), 1

    def keys(t: np.ndarray) -> np.ndarray:
        t = np.abs(t)
        inner = ((cubic + 2) * t - (cubic + 3)) * t * t + 1
        outer = ((cubic * t - 5 * cubic) * t + 8 * cubic) * t - 4 * cubic
        return np.where(t <= 1, inner, np.where(t < 2, outer, 0))

    return keys, 2


def resize_matrix(
    out: int,
    size: int,
    scale: float,
    *,
    mode: str,
    transformation: str,
    nearest_mode: str = "round_prefer_floor",
    cubic: float = -0.75,
    antialias: bool = False,
    exclude_outside: bool = False,
    extrapolation: float = 0.0,
    roi: tuple[float, float] = (0.0, 1.0),
    length: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The matrix [out, size] of one axis, and a constant [out] to add where positions outside are extrapolated."""
    positions = coordinates(out, size, scale, transformation, roi, length)
    matrix, offset = np.zeros((out, size)), np.zeros(out)
    if mode == "nearest":
        matrix[np.arange(out), np.clip(nearest(positions, nearest_mode), 0, size - 1).astype(int)] = 1
    else:
        kernel, radius = _filter(mode, cubic)
        shrink = min(scale, 1.0) if antialias else 1.0
        reach = math.ceil(radius / shrink) + 1
        for row, position in enumerate(positions):
            base = math.floor(position)
            taps = np.arange(base - reach, base + reach + 1)
            weights = kernel((taps - position) * shrink)
            if exclude_outside:
                weights = np.where((taps < 0) | (taps >= size), 0, weights)
            if exclude_outside or antialias:
                total = weights.sum()
                weights = weights / total if total else weights
            np.add.at(matrix[row], np.clip(taps, 0, size - 1), weights)
    if transformation == "tf_crop_and_resize":
        outside = (positions < 0) | (positions > size - 1)
        matrix[outside], offset[outside] = 0, extrapolation
    return matrix, offset


@resample("Resize")
def resize(
    op,
    x,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    mode="nearest",
    coordinate_transformation_mode="half_pixel",
    nearest_mode="round_prefer_floor",
    cubic_coeff_a=-0.75,
    antialias=0,
    exclude_outside=0,
    extrapolation_value=0.0,
    axes=None,
    keep_aspect_ratio_policy="stretch",
):
    rank = len(op.static(x))
    axes = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    targets = resize_targets(op.static(x), axes, scales, sizes, keep_aspect_ratio_policy)
    for place, (axis, (out, scale, length)) in enumerate(zip(axes, targets, strict=True)):
        size = op.static(x)[axis]
        region = (float(roi[place]), float(roi[place + len(axes)])) if roi is not None and len(roi) else (0.0, 1.0)
        if out == size and scale == 1.0 and coordinate_transformation_mode != "tf_crop_and_resize":
            continue
        matrix, offset = resize_matrix(
            out,
            size,
            scale,
            mode=mode,
            transformation=coordinate_transformation_mode,
            nearest_mode=nearest_mode,
            cubic=cubic_coeff_a,
            antialias=bool(antialias),
            exclude_outside=bool(exclude_outside),
            extrapolation=extrapolation_value,
            roi=region,
            length=length,
        )
        x = _along(op, x, axis, matrix, offset, mode == "nearest")
    return x if x is not op.node.inputs[0] else op.Identity(x)


def resize_targets(
    sizes: list[int], axes: list[int], scales: np.ndarray | None, wanted: np.ndarray | None, policy: str
) -> list[tuple[int, float, float | None]]:
    """For each axis the output size, the scale, and the length that aligned corners refer to."""
    if wanted is None or not len(wanted):
        factors = [float(np.float32(s)) for s in (scales if scales is not None else [1.0] * len(axes))]
        return [(math.floor(sizes[axis] * scale), scale, sizes[axis] * scale) for axis, scale in zip(axes, factors, strict=True)]
    ratios = [want / sizes[axis] for want, axis in zip(wanted.tolist(), axes, strict=True)]
    if policy != "stretch":
        ratio = (min if policy == "not_larger" else max)(ratios)
        return [(math.floor(sizes[axis] * ratio + 0.5), ratio, math.floor(sizes[axis] * ratio + 0.5)) for axis in axes]
    return [(int(want), ratio, None) for want, ratio in zip(wanted.tolist(), ratios, strict=True)]


def _along(op: Builder, x: ir.Value, axis: int, matrix: np.ndarray, offset: np.ndarray, is_gather: bool) -> ir.Value:
    rank = len(op.static(x))
    if is_gather and not offset.any() and (matrix.sum(1) == 1).all():
        return op.Gather(x, op.const(matrix.argmax(1).astype(np.int64)), axis=axis)
    weights = matrix.T.astype(np.float32)
    order = [i for i in range(rank) if i != axis] + [axis]
    kind = x.dtype
    y = x if kind == ir.DataType.FLOAT else op.Cast(x, to=1)
    y = op.MatMul(y if axis == rank - 1 else op.Transpose(y, perm=order), op.const(weights))
    if offset.any():
        y = op.Add(y, op.const(offset.astype(np.float32)))
    y = y if axis == rank - 1 else op.Transpose(y, perm=[order.index(i) for i in range(rank)])
    return y if kind == ir.DataType.FLOAT else op.Cast(y, to=int(kind))


# ---- sampling at computed positions


def _unnormalised(op: Builder, grid: ir.Value, size: int, align_corners: bool) -> ir.Value:
    """[-1, 1] -> positions on an axis of `size` elements."""
    if align_corners:
        return op.Mul(op.Add(grid, 1.0), (size - 1) / 2)
    return op.Sub(op.Mul(op.Add(grid, 1.0), size / 2), 0.5)


def _reflected(op: Builder, x: ir.Value, size: int, align_corners: bool) -> ir.Value:
    low, span = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
    if span == 0:
        return op.Mul(x, 0.0)
    y = op.Abs(op.Sub(x, low))
    y = op.Mod(y, op.const(np.float32(2 * span)))
    return op.Add(op.Sub(op.const(np.float32(span)), op.Abs(op.Sub(y, span))), low)


@resample("GridSample")
def grid_sample(op, x, grid, *, mode="linear", padding_mode="zeros", align_corners=0):
    """One gather a corner, weighted; corners outside weigh nothing where the padding is zero."""
    n, c, *sizes = op.static(x)
    rank, mode = len(sizes), {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    points = op.static(grid)[1:-1]
    flat = op.Reshape(grid, [n, math.prod(points), rank])
    # The grid lists the last axis first.
    axes = [op.Squeeze(op.Slice(flat, [rank - 1 - i], [rank - i], [2]), [2]) for i in range(rank)]
    axes = [_unnormalised(op, axis, size, bool(align_corners)) for axis, size in zip(axes, sizes, strict=True)]
    if mode != "cubic":
        axes = [_bounded(op, axis, size, padding_mode, bool(align_corners)) for axis, size in zip(axes, sizes, strict=True)]
    taps = [_taps(op, axis, mode) for axis in axes]
    source = op.Reshape(op.Transpose(x, perm=[0, *range(2, rank + 2), 1]), [n * math.prod(sizes), c])
    batch = op.const(np.broadcast_to(np.arange(n)[:, None] * math.prod(sizes), (n, math.prod(points))).astype(np.float32).copy())
    total = None
    for corner in np.ndindex(*(len(axis) for axis in taps)):
        index, weight = batch, None
        for axis, tap in enumerate(corner):
            position, share = taps[axis][tap]
            if mode == "cubic" and padding_mode != "zeros":
                position = _bounded(op, position, sizes[axis], padding_mode, bool(align_corners))
            inside = op.And(op.Greater(position, -0.5), op.Less(position, sizes[axis] - 0.5))
            stride = float(math.prod(sizes[axis + 1 :]))
            index = op.Add(index, op.Mul(op.Min(op.Max(position, 0.0), sizes[axis] - 1.0), stride))
            share = op.Mul(share, op.Cast(inside, to=1)) if share is not None else op.Cast(inside, to=1)
            weight = share if weight is None else op.Mul(weight, share)
        part = op.Mul(op.Gather(source, op.Cast(index, to=6), axis=0), op.Unsqueeze(weight, [2]))
        total = part if total is None else op.Add(total, part)
    return op.Transpose(op.Reshape(total, [n, *points, c]), perm=[0, rank + 1, *range(1, rank + 1)])


def _bounded(op: Builder, axis: ir.Value, size: int, padding_mode: str, align_corners: bool) -> ir.Value:
    if padding_mode == "border":
        return op.Min(op.Max(axis, 0.0), size - 1.0)
    if padding_mode == "reflection":
        return op.Min(op.Max(_reflected(op, axis, size, align_corners), 0.0), size - 1.0)
    return axis


def _taps(op: Builder, axis: ir.Value, mode: str) -> list[tuple[ir.Value, ir.Value | None]]:
    """Positions and shares of the elements that one sample reads along an axis."""
    if mode == "nearest":
        return [(op.Round(axis), None)]
    base = op.Floor(axis)
    t = op.Sub(axis, base)
    if mode == "linear":
        return [(base, op.Sub(op.const(np.float32(1)), t)), (op.Add(base, 1.0), t)]
    a = -0.75

    def near(d):
        return op.Add(op.Mul(op.Mul(op.Sub(op.Mul(d, a + 2), a + 3), d), d), 1.0)

    def far(d):
        return op.Sub(op.Mul(op.Add(op.Mul(op.Sub(op.Mul(d, a), 5 * a), d), 8 * a), d), 4 * a)

    u = op.Sub(op.const(np.float32(1)), t)
    return [(op.Sub(base, 1.0), far(op.Add(t, 1.0))), (base, near(t)), (op.Add(base, 1.0), near(u)), (op.Add(base, 2.0), far(op.Add(u, 1.0)))]


@resample("AffineGrid")
def affine_grid(op, theta, size: Array, *, align_corners=0):
    """Constant homogeneous coordinates times theta."""
    n, _, *sizes = (int(s) for s in size)
    lines = [np.linspace(-1, 1, s) if align_corners else (2 * np.arange(s) + 1) / s - 1 for s in sizes]
    mesh = np.stack([*[*np.meshgrid(*lines, indexing="ij")][::-1], np.ones(sizes)], -1).reshape(1, -1, len(sizes) + 1)
    grid = op.MatMul(op.const(np.repeat(mesh, n, 0).astype(theta.dtype.numpy())), op.Transpose(theta, perm=[0, 2, 1]))
    return op.Reshape(grid, [n, *sizes, len(sizes)])


@resample("RoiAlign")
def roi_align(
    op, x, rois, batch_indices, *, mode="avg", output_height=1, output_width=1, sampling_ratio=0, spatial_scale=1.0, coordinate_transformation_mode="half_pixel"
):
    """A fixed grid of samples a bin. The adaptive count (sampling_ratio 0) depends on the data unless the boxes are constant."""
    _n, _c, _h, _w = op.static(x)
    count = op.static(rois)[0]
    boxes = constant(rois)
    shift = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    if sampling_ratio == 0:
        if boxes is None:
            op.reject("an adaptive sampling ratio over boxes that are not constant")
        parts = [roi_align_one(op, x, rois, batch_indices, i, boxes[i], mode, output_height, output_width, spatial_scale, shift) for i in range(count)]
        return op.Concat(*parts, axis=0) if len(parts) > 1 else parts[0]
    return _roi_samples(op, x, rois, batch_indices, (sampling_ratio, sampling_ratio), mode, output_height, output_width, spatial_scale, shift)


def roi_align_one(op, x, rois, batch_indices, i, box, mode, height, width, scale, shift):
    spans = [(box[3] - box[1]) * scale, (box[2] - box[0]) * scale]
    spans = [max(span, 1.0) if shift == 0 else span for span in spans]
    ratios = (max(math.ceil(spans[0] / height), 1), max(math.ceil(spans[1] / width), 1))
    return _roi_samples(op, x, op.Slice(rois, [i], [i + 1], [0]), op.Slice(batch_indices, [i], [i + 1], [0]), ratios, mode, height, width, scale, shift)


def _roi_samples(
    op: Builder, x: ir.Value, rois: ir.Value, batch: ir.Value, ratios: tuple[int, int], mode: str, height: int, width: int, scale: float, shift: float
) -> ir.Value:
    n, c, *sizes = op.static(x)
    count = op.static(rois)[0]
    places = []
    for axis, (cells, ratio) in enumerate(((height, ratios[0]), (width, ratios[1]))):
        start = op.Sub(op.Mul(op.Slice(rois, [1 - axis], [2 - axis], [1]), scale), shift)
        end = op.Sub(op.Mul(op.Slice(rois, [3 - axis], [4 - axis], [1]), scale), shift)
        span = op.Sub(end, start) if shift else op.Max(op.Sub(end, start), 1.0)
        steps = (np.arange(cells * ratio) + 0.5) / (cells * ratio)
        places.append(op.Add(start, op.Mul(span, op.const(steps[None].astype(np.float32)))))  # [count, cells * ratio]
    grid_h, grid_w = height * ratios[0], width * ratios[1]
    ys, xs = op.Reshape(places[0], [count, grid_h, 1]), op.Reshape(places[1], [count, 1, grid_w])
    source = op.Reshape(op.Transpose(x, perm=[0, 2, 3, 1]), [n * sizes[0] * sizes[1], c])
    base = op.Mul(op.Reshape(op.Cast(batch, to=1), [count, 1, 1]), float(sizes[0] * sizes[1]))
    taps = []
    for value, size in ((ys, sizes[0]), (xs, sizes[1])):
        inside = op.And(op.Greater(value, -1.0001), op.Less(value, float(size) + 1e-4))
        bounded = op.Min(op.Max(value, 0.0), size - 1.0)
        low = op.Floor(bounded)
        high = op.Min(op.Add(low, 1.0), size - 1.0)
        t = op.Sub(bounded, low)
        keep = op.Cast(inside, to=1)
        taps.append([(low, op.Mul(op.Sub(op.const(np.float32(1)), t), keep)), (high, op.Mul(t, keep))])
    parts = []
    for y, wy in taps[0]:
        for xx, wx in taps[1]:
            index = op.Cast(op.Add(op.Add(base, op.Mul(y, float(sizes[1]))), xx), to=6)
            parts.append(op.Mul(op.Gather(source, index, axis=0), op.Unsqueeze(op.Mul(wy, wx), [3])))  # [count, grid_h, grid_w, c]
    join = op.Max if mode == "max" else op.Add
    total = parts[0]
    for part in parts[1:]:
        total = join(total, part)
    cells = op.Reshape(total, [count, height, ratios[0], width * ratios[1] * c])
    reduce = op.ReduceMax if mode == "max" else op.ReduceMean
    rows = op.Reshape(reduce(cells, [2], keepdims=0), [count * height, width, ratios[1], c])
    return op.Transpose(op.Reshape(reduce(rows, [2], keepdims=0), [count, height, width, c]), perm=[0, 3, 1, 2])


@resample("DeformConv")
def deform_conv(op, x, w, offset, b=None, mask=None, *, kernel_shape=None, pads=None, strides=None, dilations=None, group=1, offset_group=1):
    """Samples one plane a kernel position, then one matrix product over kernel and channels."""
    n, c, h, wd = op.static(x)
    outputs, per_group, *kernel = op.static(w)
    strides, dilations, pads = strides or [1, 1], dilations or [1, 1], pads or [0] * 4
    _, _, oh, ow = op.static(offset)
    count = math.prod(kernel)
    source = op.Reshape(
        op.Transpose(op.Reshape(x, [n, offset_group, c // offset_group, h * wd]), perm=[0, 1, 3, 2]), [n * offset_group * h * wd, c // offset_group]
    )
    shifts = op.Reshape(offset, [n, offset_group, count, 2, oh * ow])
    grid = np.stack(np.meshgrid(np.arange(oh) * strides[0] - pads[0], np.arange(ow) * strides[1] - pads[1], indexing="ij"), 0).reshape(2, 1, oh * ow)
    inner = np.stack(np.meshgrid(np.arange(kernel[0]) * dilations[0], np.arange(kernel[1]) * dilations[1], indexing="ij"), 0).reshape(2, count, 1)
    where = (grid + inner).astype(np.float32)  # [2, count, oh * ow]
    base = op.const((np.arange(n * offset_group) * h * wd).reshape(n, offset_group, 1, 1).astype(np.float32))
    taps = []
    for axis, size in enumerate((h, wd)):
        value = op.Add(op.Squeeze(op.Slice(shifts, [axis], [axis + 1], [3]), [3]), op.const(where[axis]))  # [n, g, count, oh * ow]
        low = op.Floor(value)
        t = op.Sub(value, low)
        pair = []
        for position, share in ((low, op.Sub(op.const(np.float32(1)), t)), (op.Add(low, 1.0), t)):
            inside = op.And(op.Greater(position, -0.5), op.Less(position, size - 0.5))
            pair.append((op.Min(op.Max(position, 0.0), size - 1.0), op.Mul(share, op.Cast(inside, to=1))))
        taps.append(pair)
    total = None
    for y, wy in taps[0]:
        for xx, wx in taps[1]:
            index = op.Cast(op.Add(op.Add(base, op.Mul(y, float(wd))), xx), to=6)
            part = op.Mul(op.Gather(source, index, axis=0), op.Unsqueeze(op.Mul(wy, wx), [4]))  # [n, g, count, oh * ow, c / g]
            total = part if total is None else op.Add(total, part)
    if mask is not None:
        total = op.Mul(total, op.Reshape(mask, [n, offset_group, count, oh * ow, 1]))
    columns = op.Reshape(op.Transpose(total, perm=[0, 1, 4, 2, 3]), [n, group, per_group * count, oh * ow])
    y = op.MatMul(op.Reshape(w, [1, group, outputs // group, per_group * count]), columns)
    y = op.Reshape(y, [n, outputs, oh, ow])
    return y if b is None else op.Add(y, op.Reshape(b, [-1, 1, 1]))
