"""Convolutions, pools and resizing, each between two Transposes that a later pass cancels, and what moves places between space and batch or channels."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Array, Builder, Ints, constant
from isomorph.dialects.tflite.to_onnx.common import END, FIRST, LAST, activation, divided, longs, permuted, plus, size, sizes_of, times, to_onnx, window


@to_onnx("CONV_2D")
def conv_2d(op, x, w, b=None, *, padding="SAME", stride_w=0, stride_h=0, fused_activation_function="NONE", dilation_w_factor=1, dilation_h_factor=1,
            quantized_bias_type="FLOAT32"):
    """NHWC * OHWI; fewer input channels in the filter than in x mean groups."""
    _, height, width, channels = op.static(w)
    _, sizes = op.of(x)
    group = sizes[3] // channels if isinstance(sizes[3], int) else 1
    where = window(op, x, (height, width), (stride_h, stride_w), padding, (dilation_h_factor, dilation_w_factor))
    y = op.Conv(op.Transpose(x, perm=FIRST), permuted(op, w, (0, 3, 1, 2)), b, group=group, **where)
    return op.Transpose(activation(op, y, fused_activation_function), perm=LAST)


@to_onnx("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(op, x, w, b=None, *, padding="SAME", stride_w=0, stride_h=0, depth_multiplier=0, fused_activation_function="NONE",
                      dilation_w_factor=1, dilation_h_factor=1):
    """Filter 1HWC, its channel = input channel * multiplier + which."""
    _, height, width, channels = op.static(w)
    _, sizes = op.of(x)
    group = sizes[3] if isinstance(sizes[3], int) else channels // max(depth_multiplier, 1)
    where = window(op, x, (height, width), (stride_h, stride_w), padding, (dilation_h_factor, dilation_w_factor))
    y = op.Conv(op.Transpose(x, perm=FIRST), permuted(op, w, (3, 0, 1, 2)), b, group=group, **where)
    return op.Transpose(activation(op, y, fused_activation_function), perm=LAST)


@to_onnx("CONV_3D")
def conv_3d(op, x, w, b=None, *, padding="SAME", stride_d=0, stride_w=0, stride_h=0, fused_activation_function="NONE", dilation_d_factor=1,
            dilation_w_factor=1, dilation_h_factor=1):
    """NDHWC * DHWIO."""
    *kernel, _, _ = op.static(w)
    where = window(op, x, kernel, (stride_d, stride_h, stride_w), padding, (dilation_d_factor, dilation_h_factor, dilation_w_factor))
    y = op.Conv(op.Transpose(x, perm=[0, 4, 1, 2, 3]), permuted(op, w, (4, 3, 0, 1, 2)), b, **where)
    return op.Transpose(activation(op, y, fused_activation_function), perm=[0, 2, 3, 4, 1])


def transposed(op: Builder, x: ir.Value, kernel: Sequence[int], strides: Sequence[int], padding: str, shape: ir.Value) -> dict[str, Any]:
    """Attributes of ConvTranspose: the pads that the forward convolution from the output to x would have."""
    wanted = constant(shape)
    _, sizes = op.of(x)
    outputs = [None] * len(kernel) if op.outputs[0].shape is None else [dim if isinstance(dim, int) else None for dim in op.outputs[0].shape][1:-1]
    if wanted is not None:
        outputs = [int(dim) for dim in wanted.reshape(-1)[-len(kernel) - 1:-1]]
    begins, ends, extras = [], [], []
    for length, out, extent, stride in zip(sizes[1:], outputs, kernel, strides, strict=False):
        known = isinstance(length, int) and out is not None
        full = (length - 1) * stride + extent if isinstance(length, int) else 0
        total = (max(full - out, 0) if known else max(extent - stride, 0)) if padding == "SAME" else 0
        extra = max(out - (full - total), 0) if known else max(stride - extent, 0) if padding == "SAME" else 0
        cut = max(full - total - out, 0) if known else 0            # a smaller output than the kernel reaches: the rest is never computed
        begins.append(total // 2)
        ends.append(total - total // 2 + cut)
        extras.append(extra)
    return {"kernel_shape": list(kernel), "strides": list(strides), "pads": begins + ends, "output_padding": extras}


@to_onnx("TRANSPOSE_CONV")
def transpose_conv(op, shape, w, x, b=None, *, padding="SAME", stride_w=0, stride_h=0, fused_activation_function="NONE", quantized_bias_type="FLOAT32"):
    """Filter OHWI, as of the forward convolution from x's channels I to O."""
    _, height, width, _ = op.static(w)
    where = transposed(op, x, (height, width), (stride_h, stride_w), padding, shape)
    y = op.ConvTranspose(op.Transpose(x, perm=FIRST), permuted(op, w, (3, 0, 1, 2)), b, **where)
    return op.Transpose(activation(op, y, fused_activation_function), perm=LAST)


@to_onnx("CONV_3D_TRANSPOSE")
def conv_3d_transpose(op, shape, w, x, b=None, *, padding="SAME", stride_d=0, stride_w=0, stride_h=0, fused_activation_function="NONE", dilation_d_factor=1,
                      dilation_w_factor=1, dilation_h_factor=1):
    """Filter DHWOI."""
    if (dilation_d_factor, dilation_w_factor, dilation_h_factor) != (1, 1, 1):
        op.reject("dilations")
    *kernel, _, _ = op.static(w)
    where = transposed(op, x, kernel, (stride_d, stride_h, stride_w), padding, shape)
    y = op.ConvTranspose(op.Transpose(x, perm=[0, 4, 1, 2, 3]), permuted(op, w, (4, 3, 0, 1, 2)), b, **where)
    return op.Transpose(activation(op, y, fused_activation_function), perm=[0, 2, 3, 4, 1])


def pooled(op: Builder, x: ir.Value, target: str, options: dict[str, Any]) -> ir.Value:
    kernel, strides = (options["filter_height"], options["filter_width"]), (options["stride_h"], options["stride_w"])
    return op.make(target, (op.Transpose(x, perm=FIRST),), window(op, x, kernel, strides, options.get("padding", "SAME")))


@to_onnx("AVERAGE_POOL_2D")
def average_pool_2d(op, x, **options):
    """Counts only what lies inside, as ONNX does by default."""
    y = pooled(op, x, "AveragePool", options)
    return op.Transpose(activation(op, y, options.get("fused_activation_function", "NONE")), perm=LAST)


@to_onnx("MAX_POOL_2D")
def max_pool_2d(op, x, **options):
    y = pooled(op, x, "MaxPool", options)
    return op.Transpose(activation(op, y, options.get("fused_activation_function", "NONE")), perm=LAST)


@to_onnx("L2_POOL_2D")
def l2_pool_2d(op, x, **options):
    y = op.Sqrt(pooled(op, op.Mul(x, x), "AveragePool", options))
    return op.Transpose(activation(op, y, options.get("fused_activation_function", "NONE")), perm=LAST)


def resized(op: Builder, x: ir.Value, sizes: ir.Value, **attributes: Any) -> ir.Value:
    """Sizes of all four axes: ONNX Runtime 1.31 mistakes `axes` when it moves a Transpose across."""
    array = constant(sizes)
    target = [int(length) for length in array] if array is not None else [longs(op, sizes)]
    y = op.Resize(op.Transpose(x, perm=FIRST), None, None, sizes_of(op, size(op, x, 0), size(op, x, 3), *target), **attributes)
    return op.Transpose(y, perm=LAST)


@to_onnx("RESIZE_BILINEAR")
def resize_bilinear(op, x, sizes, *, align_corners=0, half_pixel_centers=0):
    where = "align_corners" if align_corners else "half_pixel" if half_pixel_centers else "asymmetric"
    return resized(op, x, sizes, mode="linear", coordinate_transformation_mode=where)


@to_onnx("RESIZE_NEAREST_NEIGHBOR")
def resize_nearest_neighbor(op, x, sizes, *, align_corners=0, half_pixel_centers=0):
    """Half pixels: floor of the centre's position, which is the half-pixel position rounded up at one half."""
    where = "align_corners" if align_corners else "half_pixel" if half_pixel_centers else "asymmetric"
    nearest = "round_prefer_ceil" if align_corners or half_pixel_centers else "floor"
    return resized(op, x, sizes, mode="nearest", nearest_mode=nearest, coordinate_transformation_mode=where)


@to_onnx("LOCAL_RESPONSE_NORMALIZATION")
def local_response_normalization(op, x, *, radius=0, bias=0.0, alpha=0.0, beta=0.0):
    """ONNX divides alpha by the size of the window."""
    extent = 2 * radius + 1
    return op.Transpose(op.LRN(op.Transpose(x, perm=FIRST), size=extent, bias=bias, alpha=alpha * extent, beta=beta), perm=LAST)


@to_onnx("SPACE_TO_DEPTH")
def space_to_depth(op, x, *, block_size):
    return op.Transpose(op.SpaceToDepth(op.Transpose(x, perm=FIRST), blocksize=block_size), perm=LAST)


@to_onnx("DEPTH_TO_SPACE")
def depth_to_space(op, x, *, block_size):
    return op.Transpose(op.DepthToSpace(op.Transpose(x, perm=FIRST), blocksize=block_size, mode="DCR"), perm=LAST)


@to_onnx("SPACE_TO_BATCH_ND")
def space_to_batch_nd(op, x, block: Ints, paddings: Array):
    """Pads, cuts every spatial axis into (blocks, within), and moves the places within before the batch."""
    rank, spatial = x.shape.rank(), len(block)
    pads = np.pad(paddings, ((1, rank - 1 - spatial), (0, 0))).T.reshape(-1).astype(np.int64)
    lengths = [plus(op, size(op, x, axis + 1), int(paddings[axis].sum())) for axis in range(spatial)]
    rest = [size(op, x, axis) for axis in range(spatial + 1, rank)]
    cut = [part for length, extent in zip(lengths, block, strict=True) for part in (divided(op, length, extent), extent)]
    y = op.Reshape(op.Pad(x, pads), sizes_of(op, size(op, x, 0), *cut, *rest))
    y = op.Transpose(y, perm=[*range(2, 2 * spatial + 1, 2), 0, *range(1, 2 * spatial + 1, 2), *range(2 * spatial + 1, rank + spatial)])
    return op.Reshape(y, sizes_of(op, times(op, size(op, x, 0), math.prod(block)), *cut[::2], *rest))


@to_onnx("BATCH_TO_SPACE_ND")
def batch_to_space_nd(op, x, block: Ints, crops: Array):
    """The way back: the places within come out of the batch, then the crops are cut off."""
    rank, spatial = x.shape.rank(), len(block)
    batch = divided(op, size(op, x, 0), math.prod(block))
    lengths, rest = [size(op, x, axis + 1) for axis in range(spatial)], [size(op, x, axis) for axis in range(spatial + 1, rank)]
    y = op.Reshape(x, sizes_of(op, *block, batch, *lengths, *rest))
    y = op.Transpose(y, perm=[spatial, *[part for axis in range(spatial) for part in (spatial + 1 + axis, axis)], *range(2 * spatial + 1, rank + spatial)])
    y = op.Reshape(y, sizes_of(op, batch, *[times(op, length, extent) for length, extent in zip(lengths, block, strict=True)], *rest))
    ends = [-int(crop) or END for crop in crops[:, 1]]
    return op.Slice(y, crops[:, 0].astype(np.int64), ends, list(range(1, spatial + 1))) if crops.any() else y
