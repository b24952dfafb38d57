"""Composed calls: pictures, bits, and numbers of shapes."""
from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import MOST_IMPLIED, axes_of, rank
from isomorph.dialects.torch.to_onnx.composed import Aten, composed, like, sizes

# ---- pictures

@composed("im2col")
def im2col(a, x, kernel_size, dilation, padding, stride):
    """Columns of windows, as a gather of positions of the padded picture."""
    single = rank(a.op, x) == 3
    x = a.unsqueeze(x, 0) if single else x
    x = a.constant_pad_nd(x, [padding[1], padding[1], padding[0], padding[0]], 0)
    n, channels, height, width = sizes(a, x)
    counts = [(size - step * (k - 1) - 1) // s + 1 for size, step, k, s in zip((height, width), dilation, kernel_size, stride, strict=True)]
    if math.prod(counts) * math.prod(kernel_size) > MOST_IMPLIED:
        a.op.reject("windows of more elements than a file holds")
    rows, columns = (np.arange(k)[:, None] * step + np.arange(count) * s for k, step, count, s in zip(kernel_size, dilation, counts, stride, strict=True))
    places = rows[:, None, :, None] * width + columns[None, :, None, :]
    flat = a.index(a.reshape(x, [n, channels, height * width]), [None, None, a.op.const(places.reshape(-1).astype(np.int64))])
    y = a.reshape(flat, [n, channels * math.prod(kernel_size), math.prod(counts)])
    return a.squeeze(y, 0) if single else y


@composed("grid_sampler_2d", "grid_sampler_3d", "grid_sampler")
def grid_sampler(a, x, grid, interpolation_mode, padding_mode, align_corners):
    modes, paddings = ("linear", "nearest", "cubic"), ("zeros", "border", "reflection")
    return a.op.GridSample(x, grid, mode=modes[interpolation_mode], padding_mode=paddings[padding_mode], align_corners=int(align_corners))


@composed("affine_grid_generator")
def affine_grid_generator(a, theta, size, align_corners):
    return a.op.AffineGrid(theta, a.op.const(list(size)), align_corners=int(align_corners))


@composed("max_unpool2d", "max_unpool3d")
def max_unpool(a, x, indices, output_size, *rest):
    """Places count inside each channel."""
    spatial = int(a.op.node.op_type[-2])
    lead, size = sizes(a, x)[:-spatial], math.prod(output_size)
    flat = a.zeros([*lead, size], dtype=like(x))
    y = a.scatter(flat, -1, a.reshape(indices, [*lead, -1]), a.reshape(x, [*lead, -1]))
    return a.reshape(y, [*lead, *output_size])


# ---- bits and numbers of shapes

composed("_shape_as_tensor")(lambda a, x: a.op.Shape(x))
composed("bitwise_left_shift", "__lshift__")(lambda a, x, y: a.mul(x, a.pow(a.full_like(x, 2), y)))
composed("bitwise_right_shift", "__rshift__")(lambda a, x, y: a.floor_divide(x, a.pow(a.full_like(x, 2), y)))
composed("tensordot")(lambda a, x, y, p, q: _tensordot(a, x, y, p, q))
composed("bilinear")(lambda a, x, y, weight, bias=None: _biased(a, a.einsum("...i,oij,...j->...o", [x, weight, y]), bias))
composed("linalg_vander")(lambda a, x, N=None: a.pow(a.unsqueeze(x, -1), a.op.const(np.arange(N or sizes(a, x)[-1]))))
composed("_softmax_backward_data")(lambda a, gradient, y, dim, dtype=None: a.sub(a.mul(gradient, y), a.mul(y, a.sum(a.mul(gradient, y), [dim], True))))
composed("native_dropout_backward")(lambda a, gradient, mask, scale: a.mul(a.mul(gradient, mask), scale))
composed("nonzero_static")(lambda a, x, size, fill_value=-1: _nonzero_static(a, x, size, fill_value))


def _biased(a: Aten, x: ir.Value, bias: ir.Value | None) -> ir.Value:
    return x if bias is None else a.add(x, bias)


def _tensordot(a: Aten, x: ir.Value, y: ir.Value, p: list[int], q: list[int]) -> ir.Value:
    """Shared axes last on one side and first on the other."""
    p, q = axes_of(a.op, x, p), axes_of(a.op, y, q)
    left, right = ([axis for axis in range(rank(a.op, v)) if axis not in used] for v, used in ((x, p), (y, q)))
    shapes = sizes(a, x), sizes(a, y)
    shared = math.prod(shapes[0][axis] for axis in p)
    product = a.matmul(a.reshape(a.permute(x, [*left, *p]), [-1, shared]), a.reshape(a.permute(y, [*q, *right]), [shared, -1]))
    return a.reshape(product, [*(shapes[0][axis] for axis in left), *(shapes[1][axis] for axis in right)])


def _nonzero_static(a: Aten, x: ir.Value, size: int, fill_value: int) -> ir.Value:
    found = a.nonzero(x)
    filler = a.full([size, rank(a.op, x)], fill_value, dtype=4)
    return a.slice(a.cat([found, filler], 0), 0, 0, size)
