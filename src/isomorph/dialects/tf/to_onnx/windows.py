"""TensorFlow -> ONNX: convolutions, pools, normalisation, resizing, and everything else that looks at pictures.

ONNX has channels first. Channels-last operators stand between two Transposes, which a later pass takes out again.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Ints, constant
from isomorph.dialects.tf.to_onnx.operators import DOUBLE, FLOAT, INT64, Value, number, scalar_of, single, to_onnx
from isomorph.dialects.tflite.to_onnx import common as lite_common
from isomorph.dialects.tflite.to_onnx import operators as lite_operators
from isomorph.dialects.tflite.to_onnx import windows as lite_windows
from isomorph.dialects.tflite.to_onnx.common import longs, permuted, size, sizes_of


class Layout:
    """Where batch, channels and places stand in a value of `data_format`."""

    def __init__(self, data_format: str, spatial: int):
        self.last, self.spatial = data_format.endswith("C") and data_format != "NC", spatial
        self.axes = list(range(1, 1 + spatial)) if self.last else list(range(2, 2 + spatial))

    def places(self, values: Sequence[Any]) -> list[Any]:
        """The entries of a list with one entry an axis, such as strides, that belong to places."""
        return [values[axis] for axis in self.axes] if len(values) == self.spatial + 2 else list(values) or [1] * self.spatial

    def first(self, op: Builder, x: Value) -> Value:
        """x with its channels first."""
        return op.Transpose(x, perm=[0, self.spatial + 1, *range(1, self.spatial + 1)]) if self.last else x

    def back(self, op: Builder, y: Value) -> Value:
        return op.Transpose(y, perm=[0, *range(2, self.spatial + 2), 1]) if self.last else y


def frame(op: Builder, sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], padding: str, dilations: Sequence[int],
          explicit: Sequence[int] = ()) -> dict[str, Any]:
    """Attributes of a convolution or pool over places of these sizes, whose paddings may be given as begin and end of each."""
    attributes = lite_common.frame(op, sizes, kernel, strides, "VALID" if padding == "EXPLICIT" else padding, dilations)
    return attributes | {"pads": [*explicit[::2], *explicit[1::2]]} if padding == "EXPLICIT" else attributes


def _explicit(layout: Layout, paddings: Sequence[int]) -> list[int]:
    """The begins and ends of the places, from a list with a pair an axis."""
    return [paddings[2 * axis + side] for axis in layout.axes for side in (0, 1)] if paddings else []


def convolved(op: Builder, x: Value, w: Value, spatial: int, *, strides: Sequence[int], padding: str, data_format: str, dilations: Sequence[int],
              explicit_paddings: Sequence[int] = (), depthwise: bool = False, bias: Value | None = None,
              finish: Callable[[Value], Value] | None = None) -> Value:
    """The convolution of x with places..., I, O (or, depthwise, with places..., channel, which), with its bias; `finish` stands before the way back."""
    layout = Layout(data_format, spatial)
    a, kernel = single(op, x), single(op, w)
    *extent, inner, outer = op.static(kernel)
    channels = op.of(x)[1][-1 if layout.last else 1]
    sizes = [op.of(x)[1][axis] for axis in layout.axes]
    where = frame(op, sizes, extent, layout.places(strides), padding, layout.places(dilations), _explicit(layout, explicit_paddings))
    if depthwise:
        kernel = reshaped(op, kernel, [*extent, 1, inner * outer])
        where["group"] = inner
    elif isinstance(channels, int) and inner and channels != inner:
        where["group"] = channels // inner
    y = op.Conv(layout.first(op, a), permuted(op, kernel, [spatial + 1, spatial, *range(spatial)]), None if bias is None else single(op, bias), **where)
    y = finish(y) if finish else y
    y = layout.back(op, y)
    return y if y.dtype == x.dtype else op.Cast(y, to=x.dtype)


def reshaped(op: Builder, w: Value, dims: list[int]) -> Value:
    """A weight in another shape: lazily where it is stored."""
    from isomorph.tensors import lazily
    if lite_common.constant_value(w):
        return op.const(lazily(lambda array: array.reshape(dims), w.const_value, dims=dims), name=w.name)
    return op.Reshape(w, dims)


@to_onnx("Conv2D")
def conv_2d(op, x, w, *, strides, padding, data_format="NHWC", dilations=(1, 1, 1, 1), explicit_paddings=(), use_cudnn_on_gpu=1):
    return convolved(op, x, w, 2, strides=strides, padding=padding, data_format=data_format, dilations=dilations, explicit_paddings=explicit_paddings)


@to_onnx("Conv1D")
def conv_1d(op, x, w, *, stride=1, padding, data_format="NWC", dilations=(1,), **rest):
    return convolved(op, x, w, 1, strides=[stride], padding=padding, data_format=data_format, dilations=dilations)


@to_onnx("Conv3D")
def conv_3d(op, x, w, *, strides, padding, data_format="NDHWC", dilations=(1, 1, 1, 1, 1)):
    return convolved(op, x, w, 3, strides=strides, padding=padding, data_format=data_format, dilations=dilations)


@to_onnx("Conv")
def conv(op, x, w, *, strides, padding, explicit_paddings=(), data_format="CHANNELS_LAST", dilations=(), batch_dims=1, groups=1):
    """Any number of places."""
    spatial = op.of(x)[0] - 2
    name = "NC" if data_format == "CHANNELS_FIRST" else "NHWC"
    return convolved(op, x, w, spatial, strides=strides, padding=padding, data_format=name, dilations=dilations or [1] * spatial,
                     explicit_paddings=explicit_paddings)


@to_onnx("DepthwiseConv2dNative", "DepthwiseConv2d")
def depthwise_conv_2d(op, x, w, *, strides, padding, data_format="NHWC", dilations=(1, 1, 1, 1), explicit_paddings=()):
    return convolved(op, x, w, 2, strides=strides, padding=padding, data_format=data_format, dilations=dilations, explicit_paddings=explicit_paddings,
                     depthwise=True)


ACTIVATIONS: dict[str, Callable[[Builder, Value, float], Value]] = {
    "Relu": lambda op, y, alpha: op.Relu(y), "Relu6": lambda op, y, alpha: op.Clip(y, number(y, 0), number(y, 6)), "Elu": lambda op, y, alpha: op.Elu(y),
    "LeakyRelu": lambda op, y, alpha: op.LeakyRelu(y, alpha=alpha), "Sigmoid": lambda op, y, alpha: op.Sigmoid(y), "Tanh": lambda op, y, alpha: op.Tanh(y),
    "GeluExact": lambda op, y, alpha: op.Gelu(y), "GeluApproximate": lambda op, y, alpha: op.Gelu(y, approximate="tanh"),
    "Softmax": lambda op, y, alpha: op.Softmax(y, axis=-1),
}


class Fused:
    """The bias, normalisation and activation that a fused operator does after its own work, with channels first."""

    def __init__(self, op: Builder, arguments: Sequence[Value], fused_ops: Sequence[str], epsilon: float, alpha: float, spatial: int):
        self.op, self.arguments, self.epsilon, self.alpha, self.spatial = op, list(arguments), epsilon, alpha, spatial
        self.steps = [str(step) for step in fused_ops]
        self.bias = self.arguments.pop(0) if self.steps[:1] == ["BiasAdd"] else None
        self.steps = self.steps[1:] if self.bias is not None else self.steps

    def __call__(self, y: Value) -> Value:
        op = self.op
        for step in self.steps:
            if step == "FusedBatchNorm":
                scale, offset, mean, variance = (self.arguments.pop(0) for _ in range(4))
                y = op.BatchNormalization(y, scale, offset, mean, variance, epsilon=self.epsilon)
            elif step == "Prelu":
                slope = self.arguments.pop(0)
                rank = op.of(slope)[0]
                y = op.PRelu(y, op.Transpose(slope, perm=[rank - 1, *range(rank - 1)]) if rank > 1 and self.spatial else
                             op.Unsqueeze(slope, list(range(1, 1 + self.spatial))) if self.spatial else slope)
            elif step == "Add":
                other = self.arguments.pop(0)
                y = op.Add(y, op.Transpose(other, perm=[0, 3, 1, 2]) if self.spatial else other)
            elif step in ACTIVATIONS:
                y = ACTIVATIONS[step](op, y, self.alpha)
            else:
                op.reject(f"the fused operator {step}")
        return y


@to_onnx("_FusedConv2D", "FusedConv2D", "FusedDepthwiseConv2dNative", "_FusedDepthwiseConv2dNative")
def fused_conv_2d(op, x, w, *arguments, strides, padding, fused_ops=(), data_format="NHWC", dilations=(1, 1, 1, 1), explicit_paddings=(), epsilon=1e-4,
                  leakyrelu_alpha=0.2, **rest):
    after = Fused(op, arguments, fused_ops, epsilon, leakyrelu_alpha, 2)
    return convolved(op, x, w, 2, strides=strides, padding=padding, data_format=data_format, dilations=dilations, explicit_paddings=explicit_paddings,
                     depthwise="Depthwise" in op.node.op_type, bias=after.bias, finish=after)


@to_onnx("_FusedMatMul")
def fused_matmul(op, a, b, *arguments, transpose_a=0, transpose_b=0, fused_ops=(), epsilon=1e-4, leakyrelu_alpha=0.2, **rest):
    after = Fused(op, arguments, fused_ops, epsilon, leakyrelu_alpha, 0)
    return after(op.Gemm(a, b, after.bias, transA=transpose_a, transB=transpose_b))


@to_onnx("_FusedBatchNormEx")
def fused_batch_norm_ex(op, x, scale, offset, mean, variance, *side, activation_mode="Identity", **rest):
    y, *others = fused_batch_norm(op, x, scale, offset, mean, variance, **{key: value for key, value in rest.items() if key != "num_side_inputs"})
    y = op.Add(y, side[0]) if side else y
    return (y if activation_mode == "Identity" else ACTIVATIONS[activation_mode](op, y, 0.2), *others)


# ---- the transposed convolutions


def transposed(op: Builder, shape: Value, w: Value, x: Value, spatial: int, strides: Sequence[int], padding: str, data_format: str,
               dilations: Sequence[int], explicit: Sequence[int] = (), depthwise: bool = False) -> Value:
    """The gradient of a convolution: filter places..., O, I as of the forward convolution from the result's channels O to x's channels I."""
    layout = Layout(data_format, spatial)
    *extent, inner, outer = op.static(w)
    strides, dilations = layout.places(strides), layout.places(dilations)
    wanted = constant(shape)
    partly = shape.meta.get("known") if wanted is None else tuple(int(x) for x in wanted)
    if partly is None or len(partly) not in (spatial, spatial + 2):
        outputs: list[Any] = [None] * spatial
    else:
        outputs = [partly[axis] for axis in layout.axes] if len(partly) == spatial + 2 else list(partly)
    reach = [(k - 1) * d + 1 for k, d in zip(extent, dilations, strict=True)]
    pads, extras = _transposed_pads(op, [op.of(x)[1][axis] for axis in layout.axes], outputs, reach, strides, padding, _explicit(layout, explicit))
    a, kernel = single(op, x), single(op, w)
    group = 1
    if depthwise:
        kernel, group = reshaped(op, kernel, [*extent, 1, inner * outer]), inner
    y = op.ConvTranspose(layout.first(op, a), permuted(op, kernel, [spatial + 1, spatial, *range(spatial)]), kernel_shape=extent, strides=strides,
                         dilations=dilations if max(dilations) > 1 else None, pads=pads, output_padding=extras, group=group)
    y = layout.back(op, y)
    return y if y.dtype == x.dtype else op.Cast(y, to=x.dtype)


def _transposed_pads(op: Builder, sizes: Sequence[Any], outputs: Sequence[Any], reach: Sequence[int], strides: Sequence[int], padding: str,
                     explicit: Sequence[int]) -> tuple[list[int], list[int]]:
    """What is cut off the full result at both ends, and what is added to it because the forward convolution stopped short of the end."""
    begins, ends, extras = [], [], []
    for axis, (length, out, extent, stride) in enumerate(zip(sizes, outputs, reach, strides, strict=True)):
        known = isinstance(length, int) and isinstance(out, int)
        full = (length - 1) * stride + extent if isinstance(length, int) else 0
        if padding == "SAME":
            total = max(full - out, 0) if known else max(extent - stride, 0)
            begin, end = total // 2, total - total // 2
        else:
            begin, end = explicit[2 * axis:2 * axis + 2] if padding == "EXPLICIT" else (0, 0)
        more = out - (full - begin - end) if known else max(stride - extent, 0) if padding == "SAME" else 0
        begins.append(begin)
        ends.append(end + max(-more, 0))
        extras.append(max(more, 0))
    return begins + ends, extras


@to_onnx("Conv2DBackpropInput", "Conv2DBackpropInputV2")
def conv_2d_backprop_input(op, shape, w, x, *, strides, padding, data_format="NHWC", dilations=(1, 1, 1, 1), explicit_paddings=(), use_cudnn_on_gpu=1):
    return transposed(op, shape, w, x, 2, strides, padding, data_format, dilations, explicit_paddings)


@to_onnx("Conv3DBackpropInputV2")
def conv_3d_backprop_input(op, shape, w, x, *, strides, padding, data_format="NDHWC", dilations=(1, 1, 1, 1, 1)):
    return transposed(op, shape, w, x, 3, strides, padding, data_format, dilations)


@to_onnx("DepthwiseConv2dNativeBackpropInput")
def depthwise_backprop_input(op, shape, w, x, *, strides, padding, data_format="NHWC", dilations=(1, 1, 1, 1), explicit_paddings=()):
    if op.static(w)[-1] != 1:
        op.reject("a depth multiplier")
    return transposed(op, shape, w, x, 2, strides, padding, data_format, dilations, explicit_paddings, depthwise=True)


# ---- pools


def pooled(op: Builder, x: Value, target: str, spatial: int, ksize: Sequence[int], strides: Sequence[int], padding: str, data_format: str,
           explicit: Sequence[int] = ()) -> Value:
    layout = Layout(data_format, spatial)
    a = single(op, x) if target == "AveragePool" else op.Cast(x, to=FLOAT) if x.dtype not in (FLOAT, DOUBLE) else x
    sizes = [op.of(x)[1][axis] for axis in layout.axes]
    where = frame(op, sizes, layout.places(ksize), layout.places(strides), padding, [1] * spatial, _explicit(layout, explicit))
    if any(extent != 1 for axis, extent in enumerate(ksize) if axis not in layout.axes):
        op.reject("a window over batch or channels")
    y = layout.back(op, op.make(target, (layout.first(op, a),), where))
    return y if y.dtype == x.dtype else op.Cast(y, to=x.dtype)


@to_onnx("AvgPool", "AvgPool3D")
def average_pool(op, x, *, ksize, strides, padding, data_format="NHWC"):
    """Counts only what lies inside, as ONNX does by default."""
    return pooled(op, x, "AveragePool", 3 if "3D" in op.node.op_type else 2, ksize, strides, padding, data_format)


@to_onnx("MaxPool", "MaxPool3D")
def max_pool(op, x, *, ksize, strides, padding, data_format="NHWC", explicit_paddings=()):
    return pooled(op, x, "MaxPool", 3 if "3D" in op.node.op_type else 2, ksize, strides, padding, data_format, explicit_paddings)


@to_onnx("MaxPoolV2")
def max_pool_v2(op, x, ksize: Ints, strides: Ints, *, padding, data_format="NHWC"):
    return pooled(op, x, "MaxPool", 2, ksize, strides, padding, data_format)


@to_onnx("MaxPoolWithArgmax")
def max_pool_with_argmax(op, x, *, ksize, strides, padding, include_batch_in_index=0, Targmax=""):
    """ONNX counts places of [N, C, H, W], TensorFlow of [H, W, C]."""
    layout = Layout("NHWC", 2)
    _, height, width, channels = op.of(x)[1]
    if not all(isinstance(dim, int) for dim in (height, width, channels)):
        op.reject("the size of the picture is not known")
    where = frame(op, [height, width], layout.places(ksize), layout.places(strides), padding, [1, 1])
    y, places = op.make("MaxPool", (layout.first(op, single(op, x)),), where, outputs=2)
    inside = op.Mod(layout.back(op, places), height * width)
    place = op.Add(op.Mul(inside, channels), op.const(np.arange(channels, dtype=np.int64)))
    if include_batch_in_index:
        batch = op.Div(layout.back(op, places), height * width * channels)
        place = op.Add(place, op.Mul(batch, height * width * channels))
    return layout.back(op, y), place


@to_onnx("FractionalMaxPool", "FractionalAvgPool")
def fractional(op, x, **rest):
    op.reject("its regions are chosen at random")


# ---- normalisation


@to_onnx("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def fused_batch_norm(op, x, scale, offset, mean, variance, *, epsilon=1e-4, exponential_avg_factor=1.0, data_format="NHWC", is_training=1):
    """In training it takes mean and variance from x, and hands on the variance of a sample (divided by one less)."""
    rank, _ = op.of(x)
    layout = Layout(data_format, rank - 2)
    a = layout.first(op, single(op, x))
    if not is_training:
        y = op.BatchNormalization(a, scale, offset, mean, variance, epsilon=epsilon)
        return layout.back(op, y), mean, variance, mean, variance, mean
    axes = [0, *range(2, rank)]
    centre = op.ReduceMean(a, axes, keepdims=1)
    centred = op.Sub(a, centre)
    spread = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    shape = [1, -1] + [1] * (rank - 2)
    y = op.Add(op.Mul(op.Div(centred, op.Sqrt(op.Add(spread, epsilon))), op.Reshape(scale, shape)), op.Reshape(offset, shape))
    count = op.Cast(op.ReduceProd(op.Gather(op.Shape(a), op.const(axes)), keepdims=0), to=FLOAT)
    flat_mean, flat = op.Reshape(centre, [-1]), op.Reshape(spread, [-1])
    sample = op.Mul(flat, op.Div(count, op.Max(op.Sub(count, 1.0), 1.0)))
    if exponential_avg_factor != 1:
        flat_mean = op.Add(op.Mul(mean, 1 - exponential_avg_factor), op.Mul(flat_mean, exponential_avg_factor))
        sample = op.Add(op.Mul(variance, 1 - exponential_avg_factor), op.Mul(sample, exponential_avg_factor))
    return layout.back(op, y), flat_mean, sample, op.Reshape(centre, [-1]), flat, op.Reshape(centre, [-1])


@to_onnx("LRN")
def lrn(op, x, *, depth_radius=5, bias=1.0, alpha=1.0, beta=0.5):
    return lite_windows.local_response_normalization(op, x, radius=depth_radius, bias=bias, alpha=alpha, beta=beta)


# ---- resizing and moving


@to_onnx("ResizeBilinear")
def resize_bilinear(op, x, sizes, *, align_corners=0, half_pixel_centers=0):
    x = op.Cast(x, to=FLOAT) if x.dtype != FLOAT else x
    return lite_windows.resize_bilinear(op, x, sizes, align_corners=align_corners, half_pixel_centers=half_pixel_centers)


@to_onnx("ResizeNearestNeighbor")
def resize_nearest(op, x, sizes, *, align_corners=0, half_pixel_centers=0):
    a = x if x.dtype in (FLOAT, ir.DataType.UINT8, ir.DataType.INT32) else op.Cast(x, to=FLOAT)
    return lite_windows.resize_nearest_neighbor(op, a, sizes, align_corners=align_corners, half_pixel_centers=half_pixel_centers)


@to_onnx("ResizeBicubic")
def resize_bicubic(op, x, sizes, *, align_corners=0, half_pixel_centers=0):
    """With half pixels TensorFlow takes -0.5 for the cubic and leaves out what lies outside, else -0.75. Its weights stand in a table of 1,024 positions
    between two pixels: where a position is none of these, the weights are taken as they are, as a matrix for each axis."""
    matrices = _cubic_matrices(op, x, sizes, bool(align_corners), bool(half_pixel_centers))
    if matrices is not None:
        down, across = matrices
        first = op.Transpose(op.Cast(x, to=FLOAT) if x.dtype != FLOAT else x, perm=[0, 3, 1, 2])
        return op.Transpose(op.MatMul(op.const(down), op.MatMul(first, op.const(across.T.copy()))), perm=[0, 2, 3, 1])
    where = "align_corners" if align_corners else "half_pixel" if half_pixel_centers else "asymmetric"
    coefficient = -0.5 if half_pixel_centers else -0.75
    return lite_windows.resized(op, op.Cast(x, to=FLOAT) if x.dtype != FLOAT else x, sizes, mode="cubic", coordinate_transformation_mode=where,
                        cubic_coeff_a=coefficient, exclude_outside=half_pixel_centers)


CUBIC_POSITIONS = 1024                      # tensorflow/core/kernels/image/resize_bicubic_op.cc
MOST_WEIGHTS = 1 << 22                      # of both matrices


def _cubic_matrices(op: Builder, x: ir.Value, sizes: ir.Value, align_corners: bool, half_pixels: bool) -> list[np.ndarray] | None:
    """The weights [out, in] of both axes; None where sizes are not known, where the matrices are large, or where ONNX's own weights are the same."""
    wanted, (_, dims) = constant(sizes), op.of(x)
    if wanted is None or not all(isinstance(size, int) for size in dims[1:3]):
        return None
    pairs = [(int(dims[axis + 1]), int(wanted.reshape(-1)[axis])) for axis in (0, 1)]       # type: ignore[arg-type]
    if sum(size * out for size, out in pairs) > MOST_WEIGHTS:
        return None
    positions = [_cubic_positions(size, out, align_corners, half_pixels) for size, out in pairs]
    grows = all(out >= size for size, out in pairs)                     # ONNX Runtime refuses some that shrink
    if grows and all(np.array_equal(place * CUBIC_POSITIONS, np.round(place * CUBIC_POSITIONS)) for place in positions):
        return None
    return [_cubic_matrix(size, place, half_pixels) for (size, _), place in zip(pairs, positions, strict=True)]


def _cubic_positions(size: int, out: int, align_corners: bool, half_pixels: bool) -> np.ndarray:
    """Where each result lies between the pixels, in float32 as the kernel has it."""
    scale = np.float32(size - 1) / np.float32(out - 1) if align_corners and out > 1 else np.float32(size) / np.float32(out)
    places = np.arange(out, dtype=np.float32)
    return (places + np.float32(0.5)) * scale - np.float32(0.5) if half_pixels else places * scale


def _cubic_matrix(size: int, positions: np.ndarray, half_pixels: bool) -> np.ndarray:
    """Of four pixels around each position, the weights at the nearest position of the table. What lies outside has none, or the weight of the last pixel."""
    a = -0.5 if half_pixels else -0.75
    first = np.floor(positions)
    t = (np.rint((positions - first) * CUBIC_POSITIONS) / CUBIC_POSITIONS).astype(np.float64)
    near, far = (lambda d: ((a + 2) * d - (a + 3)) * d * d + 1), (lambda d: ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)
    matrix = np.zeros((len(positions), size))
    for step, weights in zip((-1, 0, 1, 2), (far(t + 1), near(t), near(1 - t), far(2 - t)), strict=True):
        place = first.astype(np.int64) + step
        inside = np.clip(place, 0, size - 1)
        np.add.at(matrix, (np.arange(len(positions)), inside), np.where((place == inside) | (not half_pixels), weights, 0))
    total = matrix.sum(1, keepdims=True)
    return (matrix / total if half_pixels else matrix).astype(np.float32)


@to_onnx("ScaleAndTranslate")
def scale_and_translate(op, x, sizes: Ints, scale: ir.Value, translation: ir.Value, *, kernel_type="lanczos3", antialias=1):
    """Without moving and with the scale that the sizes say, it is resizing."""
    factors, moved = constant(scale), constant(translation)
    height, width = op.of(x)[1][1:3]
    plain = factors is not None and moved is not None and not moved.any() and isinstance(height, int) and isinstance(width, int)
    if not plain or not np.allclose(factors, [sizes[0] / height, sizes[1] / width], rtol=1e-5) or kernel_type not in ("triangle", "keyscubic"):
        op.reject("scaling with another filter, moved, or by another factor than its sizes say")
    mode = {"triangle": "linear", "keyscubic": "cubic"}[kernel_type]
    extra = {"cubic_coeff_a": -0.5, "exclude_outside": 1} if mode == "cubic" else {}
    return lite_windows.resized(op, op.Cast(x, to=FLOAT), op.const(list(sizes)), mode=mode, coordinate_transformation_mode="half_pixel",
                        antialias=int(antialias and (sizes[0] < height or sizes[1] < width)) or None, **extra)


@to_onnx("CropAndResize")
def crop_and_resize(op, x, boxes, which, sizes: Ints, *, method="bilinear", extrapolation_value=0.0):
    """Four corners of every sample, gathered and weighed; what lies outside the picture is `extrapolation_value`."""
    _, height, width, _ = op.of(x)[1]
    picture = op.Cast(x, to=FLOAT) if x.dtype != FLOAT else x
    lengths = [op.Cast(scalar_of(op, op.Shape(x, start=axis, end=axis + 1)), to=FLOAT) if not isinstance(length, int) else op.const(np.float32(length))
               for axis, length in ((1, height), (2, width))]
    low_y, low_x, high_y, high_x = (op.Slice(boxes, [place], [place + 1], [1]) for place in range(4))
    ys, xs = (_samples(op, low, high, length, count) for low, high, length, count in
              ((low_y, high_y, lengths[0], sizes[0]), (low_x, high_x, lengths[1], sizes[1])))
    inside = [op.And(op.GreaterOrEqual(at, 0.0), op.LessOrEqual(at, op.Sub(length, 1.0))) for at, length in ((ys, lengths[0]), (xs, lengths[1]))]
    grid = op.Unsqueeze(op.And(op.Unsqueeze(inside[0], [2]), op.Unsqueeze(inside[1], [1])), [3])
    batch = op.Unsqueeze(longs(op, which), [1, 2])

    def taken(rows: Value, columns: Value) -> Value:
        """Pixels at [box, row, column] of whole coordinates."""
        row, column = (op.Cast(op.Min(op.Max(at, 0.0), op.Sub(length, 1.0)), to=INT64) for at, length in ((rows, lengths[0]), (columns, lengths[1])))
        parts = [batch, op.Unsqueeze(row, [2]), op.Unsqueeze(column, [1])]
        shape = op.Concat(op.Shape(boxes, start=0, end=1), op.const([sizes[0], sizes[1]]), axis=0)
        return op.GatherND(picture, op.Concat(*(op.Unsqueeze(op.Expand(part, shape), [3]) for part in parts), axis=3))
    if method == "nearest":
        y = taken(*(op.Floor(op.Add(at, 0.5)) for at in (ys, xs)))
    else:
        top, left = op.Floor(ys), op.Floor(xs)
        bottom, right = op.Ceil(ys), op.Ceil(xs)
        down, over = op.Unsqueeze(op.Sub(ys, top), [2, 3]), op.Unsqueeze(op.Sub(xs, left), [1, 3])
        upper, lower = ((taken(row, left), taken(row, right)) for row in (top, bottom))
        mixed = [op.Add(a, op.Mul(op.Sub(b, a), over)) for a, b in (upper, lower)]
        y = op.Add(mixed[0], op.Mul(op.Sub(mixed[1], mixed[0]), down))
    return op.Where(grid, y, op.const(np.float32(extrapolation_value)))


def _samples(op: Builder, low: Value, high: Value, length: Value, count: int) -> Value:
    """Where the samples of each box lie along one axis, [boxes, count]; a single sample lies in the middle."""
    if count == 1:
        return op.Mul(op.Mul(op.Add(low, high), 0.5), op.Sub(length, 1.0))
    step = op.Div(op.Mul(op.Sub(high, low), op.Sub(length, 1.0)), float(count - 1))
    return op.Add(op.Mul(low, op.Sub(length, 1.0)), op.Mul(op.const(np.arange(count, dtype=np.float32)), step))


@to_onnx("ImageProjectiveTransformV2", "ImageProjectiveTransformV3")
def image_projective_transform(op, x, transforms, sizes: Ints, fill: ir.Value = None, *, interpolation="NEAREST", fill_mode="CONSTANT"):
    """An output pixel (x, y) comes from ((a0 x + a1 y + a2) / k, (b0 x + b1 y + b2) / k), k = c0 x + c1 y + 1."""
    if fill_mode not in ("CONSTANT", "NEAREST"):
        op.reject(f"the filling {fill_mode}")
    _, height, width, _ = op.of(x)[1]
    if not isinstance(height, int) or not isinstance(width, int):
        op.reject("the size of the picture is not known")
    content = constant(fill)
    if fill_mode == "CONSTANT" and fill is not None and (content is None or content.any()):
        op.reject("a filling other than zero")
    rows, columns = np.meshgrid(np.arange(sizes[0]), np.arange(sizes[1]), indexing="ij")
    at = [op.const(part.reshape(1, -1).astype(np.float32)) for part in (columns, rows)]
    a0, a1, a2, b0, b1, b2, c0, c1 = (op.Slice(transforms, [place], [place + 1], [1]) for place in range(8))
    k = op.Add(op.Add(op.Mul(c0, at[0]), op.Mul(c1, at[1])), 1.0)
    px, py = (op.Div(op.Add(op.Add(op.Mul(p, at[0]), op.Mul(q, at[1])), r), k) for p, q, r in ((a0, a1, a2), (b0, b1, b2)))

    def taken(row: Value, column: Value) -> Value:
        inside = op.And(op.And(op.GreaterOrEqual(row, 0.0), op.Less(row, float(height))), op.And(op.GreaterOrEqual(column, 0.0), op.Less(column, float(width))))
        place = op.Add(op.Mul(op.Min(op.Max(row, 0.0), float(height - 1)), float(width)), op.Min(op.Max(column, 0.0), float(width - 1)))
        flat = op.Reshape(picture, sizes_of(op, size(op, x, 0), height * width, size(op, x, 3)))
        whole = op.Expand(op.Cast(place, to=INT64), sizes_of(op, size(op, x, 0), sizes[0] * sizes[1]))
        pixels = op.GatherND(flat, op.Unsqueeze(whole, [2]), batch_dims=1)
        return pixels if fill_mode == "NEAREST" else op.Where(op.Unsqueeze(inside, [2]), pixels, op.const(np.float32(0)))
    picture = op.Cast(x, to=FLOAT) if x.dtype != FLOAT else x
    if interpolation == "NEAREST":
        y = taken(op.Round(py), op.Round(px))
    else:
        top, left = op.Floor(py), op.Floor(px)
        down, over = op.Unsqueeze(op.Sub(py, top), [2]), op.Unsqueeze(op.Sub(px, left), [2])
        bottom, right = op.Add(top, 1.0), op.Add(left, 1.0)
        rows_of = [op.Add(op.Mul(taken(row, left), op.Sub(1.0, over)), op.Mul(taken(row, right), over)) for row in (top, bottom)]
        y = op.Add(op.Mul(rows_of[0], op.Sub(op.const(np.float32(1)), down)), op.Mul(rows_of[1], down))
    return op.Reshape(y, sizes_of(op, size(op, x, 0), sizes[0], sizes[1], size(op, x, 3)))


@to_onnx("ExtractImagePatches")
def extract_image_patches(op, x, *, ksizes, strides, rates, padding):
    """A convolution whose filters pick one place of the window for one channel each."""
    _, height, width, channels = op.of(x)[1]
    if not isinstance(channels, int):
        op.reject("the number of channels is not known")
    extent = ksizes[1:3]
    count = extent[0] * extent[1]
    lite_common.bounded(op, count * channels * channels * count)
    where = frame(op, [height, width], extent, strides[1:3], padding, rates[1:3])
    places = np.eye(count, dtype=np.float32).reshape(count, 1, 1, *extent)
    kernel = places * np.eye(channels, dtype=np.float32).reshape(1, channels, channels, 1, 1)
    y = op.Conv(op.Transpose(single(op, x), perm=[0, 3, 1, 2]), op.const(kernel.reshape(count * channels, channels, *extent)), **where)
    return op.Transpose(y, perm=[0, 2, 3, 1])


@to_onnx("Dilation2D")
def dilation_2d(op, x, w, *, strides, rates, padding):
    """The greatest sum of picture and filter: a slice of the padded picture for every place of the filter."""
    _, height, width, _ = op.of(x)[1]
    if not isinstance(height, int) or not isinstance(width, int):
        op.reject("the size of the picture is not known")
    rows, columns, _ = op.static(w)
    where = frame(op, [height, width], [rows, columns], strides[1:3], padding, rates[1:3])
    top, left, bottom, right = where.get("pads", [0] * 4)
    padded = op.Pad(x, [0, top, left, 0, 0, bottom, right, 0], op.const(number(x, float(np.finfo(np.float32).min)))) if any(where.get("pads", [])) else x
    outputs = [(length + before + after - (extent - 1) * rate - 1) // stride + 1 for length, before, after, extent, rate, stride in
               ((height, top, bottom, rows, rates[1], strides[1]), (width, left, right, columns, rates[2], strides[2]))]
    parts = []
    for row in range(rows):
        for column in range(columns):
            starts = [row * rates[1], column * rates[2]]
            ends = [start + (count - 1) * stride + 1 for start, count, stride in zip(starts, outputs, strides[1:3], strict=True)]
            part = op.Slice(padded, starts, ends, [1, 2], list(strides[1:3]))
            parts.append(op.Add(part, op.Squeeze(op.Slice(w, [row, column], [row + 1, column + 1], [0, 1]), [0, 1])))
    return op.Max(*parts) if len(parts) > 1 else parts[0]


@to_onnx("SpaceToDepth")
def space_to_depth(op, x, *, block_size, data_format="NHWC"):
    layout = Layout(data_format, 2)
    return layout.back(op, op.SpaceToDepth(layout.first(op, x), blocksize=block_size))


@to_onnx("DepthToSpace")
def depth_to_space(op, x, *, block_size, data_format="NHWC"):
    layout = Layout(data_format, 2)
    return layout.back(op, op.DepthToSpace(layout.first(op, x), blocksize=block_size, mode="DCR"))


@to_onnx("SpaceToBatch")
def space_to_batch(op, x, paddings: ir.Value, *, block_size):
    return lite_windows.space_to_batch_nd(op, x, (block_size, block_size), constant(paddings))


@to_onnx("BatchToSpace")
def batch_to_space(op, x, crops: ir.Value, *, block_size):
    return lite_windows.batch_to_space_nd(op, x, (block_size, block_size), constant(crops))


@to_onnx("AdjustContrastv2")
def adjust_contrast(op, x, factor):
    """Around the mean of every channel of every picture."""
    centre = op.ReduceMean(x, [-3, -2])
    return op.Add(op.Mul(op.Sub(x, centre), factor), centre)


# ---- quantisation


@to_onnx("FakeQuantWithMinMaxArgs")
def fake_quant_args(op, x, *, min=-6.0, max=6.0, num_bits=8, narrow_range=0):
    return lite_operators.fake_quant(op, x, min=min, max=max, num_bits=num_bits, narrow_range=narrow_range)


@to_onnx("FakeQuantWithMinMaxVars")
def fake_quant_vars(op, x, low: ir.Value, high: ir.Value, *, num_bits=8, narrow_range=0):
    """The range becomes one in which zero is a step, in float32 as the kernel does it."""
    if constant(low) is None or constant(high) is None:
        op.reject("its range must be constant")
    return _nudged(op, x, constant(low).astype(np.float32).reshape(()), constant(high).astype(np.float32).reshape(()), num_bits, narrow_range)


@to_onnx("FakeQuantWithMinMaxVarsPerChannel")
def fake_quant_channels(op, x, low: ir.Value, high: ir.Value, *, num_bits=8, narrow_range=0):
    if constant(low) is None or constant(high) is None:
        op.reject("its range must be constant")
    return _nudged(op, x, constant(low).astype(np.float32), constant(high).astype(np.float32), num_bits, narrow_range)


def _nudged(op: Builder, x: Value, low: np.ndarray, high: np.ndarray, bits: int, narrow_range: int) -> Value:
    first, last = np.float32(narrow_range), np.float32(2 ** bits - 1)
    scale = (high - low) / (last - first)
    zero = np.clip(np.floor(first - low / scale + np.float32(0.5)), first, last).astype(np.float32)
    least, most = ((first - zero) * scale).astype(np.float32), ((last - zero) * scale).astype(np.float32)
    inside = op.Min(op.Max(x, op.const(least)), op.const(most))
    steps = op.Floor(op.Add(op.Mul(op.Sub(inside, op.const(least)), op.const((np.float32(1) / scale).astype(np.float32))), 0.5))
    return op.Add(op.Mul(steps, op.const(scale.astype(np.float32))), op.const(least))


