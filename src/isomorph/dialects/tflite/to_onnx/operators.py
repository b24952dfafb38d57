"""TensorFlow Lite -> ONNX, operator by operator.

The steps before (`to_hub`) have brought the graph into the form these rules take: quantised tensors stand behind DEQUANTIZE and QUANTIZE, so that every
operator sees floats; variables, resources and tables are values. Convolutions, pools and resizing stand between two Transposes, which a later pass cancels.
Recurrent operators and control flow have files of their own, `recurrent` and `control`.

What each operator computes: https://github.com/google-ai-edge/LiteRT, `tflite/kernels/internal/reference`.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Array, Builder, Float, Int, Ints, Mapping, constant
from isomorph.tensors import lazily

to_onnx = Mapping("tflite")
FLOAT, INT32, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL
TYPE = {"FLOAT32": FLOAT, "FLOAT16": ir.DataType.FLOAT16, "INT32": INT32, "UINT8": ir.DataType.UINT8, "INT64": INT64, "BOOL": BOOL}
NARROW = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)      # ONNX defines arithmetic on them, ONNX Runtime has no kernels
FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]                                                      # channels-last to channels-first, and back
END = np.iinfo(np.int64).max

to_onnx.same({
    "ABS": "Abs", "FLOOR": "Floor", "CEIL": "Ceil", "ROUND": "Round", "NEG": "Neg", "SIN": "Sin", "COS": "Cos", "EXP": "Exp", "LOG": "Log", "SQRT": "Sqrt",
    "SIGN": "Sign", "POW": "Pow", "RELU": "Relu", "ELU": "Elu", "TANH": "Tanh", "LOGISTIC": "Sigmoid", "HARD_SWISH": "HardSwish", "PRELU": "PRelu",
    "LOGICAL_AND": "And", "LOGICAL_OR": "Or", "LOGICAL_NOT": "Not", "BITWISE_XOR": "BitwiseXor", "ADD_N": "Sum",
})


# ---- what the rules share


def longs(op: Builder, vector: ir.Value) -> ir.Value:
    """A shape, an axis or a position as int64."""
    array = constant(vector)
    if array is not None:
        return op.const(array.astype(np.int64))
    return vector if vector.dtype == INT64 else op.Cast(vector, to=INT64)


def vector(op: Builder, value: ir.Value) -> ir.Value:
    """A scalar or vector as an int64 vector."""
    array = constant(value)
    return op.const(array.astype(np.int64).reshape(-1)) if array is not None else op.Reshape(longs(op, value), [-1])


def size(op: Builder, x: ir.Value, axis: int) -> int | ir.Value:
    """A dimension: a number where it is known, else a vector of one element."""
    rank, sizes = op.of(x)
    axis %= rank
    known = sizes[axis]
    return known if isinstance(known, int) else op.Shape(x, start=axis, end=axis + 1)


def sizes_of(op: Builder, *parts: int | ir.Value) -> ir.Value:
    """A shape vector from numbers and vectors."""
    if all(isinstance(part, int) for part in parts):
        return op.const(list(parts))
    return op.Concat(*(op.const([part]) if isinstance(part, int) else part for part in parts), axis=0)


def times(op: Builder, part: int | ir.Value, factor: int) -> int | ir.Value:
    return part * factor if isinstance(part, int) else op.Mul(part, [factor])


def divided(op: Builder, part: int | ir.Value, factor: int) -> int | ir.Value:
    return part // factor if isinstance(part, int) else op.Div(part, [factor])


def plus(op: Builder, part: int | ir.Value, more: int) -> int | ir.Value:
    return part + more if isinstance(part, int) else op.Add(part, [more])


def bounded(op: Builder, count: int, most: int = 1 << 22) -> int:
    """A number of elements or nodes that the file asks for, as long as it is one that makes sense."""
    return count if 0 <= count <= most else op.reject(f"{count} elements or parts")


def wide(op: Builder, *xs: ir.Value, types: Container[ir.DataType] = NARROW, to: ir.DataType = INT32) -> tuple[ir.Value, ...]:
    """Small integers as int32."""
    return tuple(op.Cast(x, to=to) if x.dtype in types else x for x in xs)


def narrow(op: Builder, y: ir.Value, like: ir.Value) -> ir.Value:
    """Back to the type of `like`."""
    return y if y.dtype == like.dtype else op.Cast(y, to=like.dtype)


def activation(op: Builder, y: ir.Value, name: str) -> ir.Value:
    """What a fused activation function does to the result of its operator."""
    bounds = {"RELU_N1_TO_1": (-1, 1), "RELU6": (0, 6)}
    if name in bounds:
        return op.Clip(y, *(op.const(np.asarray(bound, (y.dtype or FLOAT).numpy())) for bound in bounds[name]))
    made = {"NONE": lambda: y, "RELU": lambda: op.Relu(y), "TANH": lambda: op.Tanh(y)}.get(name)
    return made() if made else op.reject(f"the fused activation function {name} has no equivalent")


def permuted(op: Builder, w: ir.Value, perm: Sequence[int]) -> ir.Value:
    """A weight with its axes in another order: lazily where it is stored, also under its quantisation or float16; else by a Transpose.

    Several operators may share a weight: it is stored in the new order once.
    """
    key = f"permuted {tuple(perm)} {id(op.context.graph_of(op.node))}"
    if key not in w.meta:
        w.meta[key] = _permuted(op, w, perm)
    return w.meta[key]


def _permuted(op: Builder, w: ir.Value, perm: Sequence[int]) -> ir.Value:
    node = w.producer()
    if constant_value(w):
        return op.const(lazily(perm, w.const_value), name=w.name)
    if node is None or node.domain or node.op_type not in ("DequantizeLinear", "Cast") or not constant_value(node.inputs[0]):
        return op.Transpose(w, perm=list(perm))
    stored = permuted(op, node.inputs[0], perm)
    if node.op_type == "Cast":
        return op.Cast(stored, to=w.dtype)
    axis = node.attributes["axis"].value if "axis" in node.attributes else None
    if "block_size" in node.attributes:
        scale, *zeros = (permuted(op, value, perm) for value in node.inputs[1:])
        return op.DequantizeLinear(stored, scale, *zeros, axis=perm.index(axis), block_size=node.attributes["block_size"].value)
    return op.DequantizeLinear(stored, *node.inputs[1:], axis=None if axis is None else perm.index(axis))


def constant_value(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and value.producer() is None and not value.is_graph_input()


def window(op: Builder, x: ir.Value, kernel: Sequence[int], strides: Sequence[int], padding: str, dilations: Sequence[int] | None = None) -> dict[str, Any]:
    """Attributes of a convolution or pool over the axes 1.. of a channels-last `x`."""
    return frame(op, op.of(x)[1][1:len(kernel) + 1] if padding != "VALID" else (), kernel, strides, padding, dilations or [1] * len(kernel))


def frame(op: Builder, sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], padding: str, dilations: Sequence[int]) -> dict[str, Any]:
    """Attributes of a convolution or pool over places of these sizes. SAME becomes numbers wherever the size or the stride allows."""
    attributes: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(strides)}
    if max(dilations) > 1:
        attributes["dilations"] = list(dilations)
    if padding == "VALID":
        return attributes
    totals = []
    for length, extent, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (extent - 1) * dilation + 1
        if stride == 1:
            totals.append(reach - 1)
        elif isinstance(length, int):
            totals.append(max((-(-length // stride) - 1) * stride + reach - length, 0))
        elif max(dilations) > 1:
            op.reject("SAME padding of a size that is not known, with strides and dilations")
        else:
            return attributes | {"auto_pad": "SAME_UPPER"}
    return attributes | {"pads": [total // 2 for total in totals] + [total - total // 2 for total in totals]}


# ---- elementwise


def _arithmetic(target: str) -> Callable[..., Any]:
    def rule(op, x, y, *, fused_activation_function="NONE", pot_scale_int16=1):
        a, b = wide(op, x, y)
        return activation(op, narrow(op, op.make(target, (a, b), {}), x), fused_activation_function)
    return rule


def _widened(target: str, **attributes: Any) -> Callable[..., Any]:
    """An operator that ONNX Runtime does not compute on small integers."""
    def rule(op, *xs):
        return narrow(op, op.make(target, wide(op, *xs), attributes), xs[0])
    return rule


def _comparison(target: str, negated: bool = False) -> Callable[..., Any]:
    def rule(op, x, y):
        result = op.make(target, wide(op, x, y), {}, dtype=BOOL)
        return op.Not(result) if negated else result
    return rule


for _name, _target in {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}.items():
    to_onnx(_name)(_arithmetic(_target))
for _name, _target in {"MAXIMUM": "Max", "MINIMUM": "Min", "STABLEHLO_ADD": "Add", "STABLEHLO_MULTIPLY": "Mul", "STABLEHLO_MAXIMUM": "Max",
                       "STABLEHLO_MINIMUM": "Min"}.items():
    to_onnx(_name)(_widened(_target))
for _name, _target in {"EQUAL": "Equal", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual", "LESS": "Less", "LESS_EQUAL": "LessOrEqual"}.items():
    to_onnx(_name)(_comparison(_target))
to_onnx("NOT_EQUAL")(_comparison("Equal", negated=True))


@to_onnx("RELU6")
def relu6(op, x):
    return activation(op, x, "RELU6")


@to_onnx("RELU_N1_TO_1")
def relu_n1_to_1(op, x):
    return activation(op, x, "RELU_N1_TO_1")


@to_onnx("RELU_0_TO_1")
def relu_0_to_1(op, x):
    return op.Clip(x, 0.0, 1.0)


@to_onnx("LEAKY_RELU")
def leaky_relu(op, x, *, alpha=0.0):
    return op.LeakyRelu(x, alpha=alpha)


@to_onnx("GELU")
def gelu(op, x, *, approximate=0):
    return op.Gelu(x, approximate="tanh" if approximate else "none")


@to_onnx("RSQRT")
def rsqrt(op, x):
    return op.Reciprocal(op.Sqrt(x))


@to_onnx("SQUARE")
def square(op, x):
    return op.Mul(x, x)


@to_onnx("SQUARED_DIFFERENCE")
def squared_difference(op, x, y):
    difference = op.Sub(x, y)
    return op.Mul(difference, difference)


@to_onnx("FLOOR_DIV")
def floor_div(op, x, y):
    """Rounds towards minus infinity; ONNX divides integers towards zero."""
    a, b = wide(op, x, y)
    if a.dtype == FLOAT:
        return op.Floor(op.Div(a, b))
    return narrow(op, op.Div(op.Sub(a, op.Mod(a, b)), b), x)


@to_onnx("FLOOR_MOD")
def floor_mod(op, x, y):
    """The sign of the divisor, for floats as well, where ONNX offers only that of the dividend."""
    if x.dtype != FLOAT:
        return op.Mod(x, y)
    remainder = op.Mod(x, y, fmod=1)
    wrong = op.And(op.Not(op.Equal(remainder, 0.0)), op.Not(op.Equal(op.Less(remainder, 0.0), op.Less(y, 0.0))))
    return op.Where(wrong, op.Add(remainder, y), remainder)


@to_onnx("ATAN2")
def atan2(op, y, x):
    """atan(y / x), moved by pi where x is negative; the axes and zero stand apart."""
    angle = op.Atan(op.Div(y, x))
    turn = op.Where(op.Less(y, 0.0), op.const(np.asarray(-math.pi, y.dtype.numpy())), op.const(np.asarray(math.pi, y.dtype.numpy())))
    turned = op.Where(op.Less(x, 0.0), op.Add(angle, turn), angle)
    nothing = op.And(op.Equal(x, 0.0), op.Equal(y, 0.0))
    return op.Where(nothing, op.Mul(y, 0.0), turned)


@to_onnx("RIGHT_SHIFT")
def right_shift(op, x, y):
    """An arithmetic shift: division by a power of two, rounded down. ONNX shifts unsigned integers only."""
    if x.dtype.name.startswith("U"):
        a, b = wide(op, x, y, types=(ir.DataType.UINT16,), to=ir.DataType.UINT32)
        return narrow(op, op.BitShift(a, b, direction="RIGHT"), x)
    a, b = (op.Cast(value, to=INT64) for value in (x, y))
    power = op.Cast(op.BitShift(op.const(np.uint64(1)), op.Cast(b, to=ir.DataType.UINT64), direction="LEFT"), to=INT64)
    return op.Cast(op.Div(op.Sub(a, op.Mod(a, power)), power), to=x.dtype)


@to_onnx("SELECT")
def select(op, condition, x, y):
    """A vector condition chooses whole rows."""
    rank, _ = op.of(x)
    if condition.shape is not None and condition.shape.rank() == 1 and rank > 1:
        condition = op.Unsqueeze(condition, list(range(1, rank)))
    return select_v2(op, condition, x, y)


@to_onnx("SELECT_V2")
def select_v2(op, condition, x, y):
    """In the next wider type where ONNX Runtime has no kernel for that of the values."""
    a, b = wide(op, x, y, types=CHOSEN_AS, to=CHOSEN_AS.get(x.dtype, x.dtype))
    return narrow(op, op.Where(condition, a, b), x)


CHOSEN_AS = {ir.DataType.INT16: INT32, ir.DataType.UINT16: INT32, ir.DataType.UINT64: INT64, ir.DataType.BOOL: ir.DataType.UINT8}


@to_onnx("CAST")
def cast(op, x, **types):
    """Its options repeat the types of its tensors."""
    return op.Cast(x, to=op.outputs[0].dtype)


@to_onnx("BITCAST")
def bitcast(op, x):
    """Elements of another size take, or make, a last dimension."""
    target = op.outputs[0].dtype
    if x.dtype.itemsize != target.itemsize:
        return op.reject("a change of the element size has no equivalent")
    return op.Cast(x, to=target) if x.dtype == ir.DataType.BOOL else op.BitCast(x, to=target)   # a bool is a byte of 0 or 1; ONNX Runtime casts those only


@to_onnx("CUMSUM")
def cumsum(op, x, axis, *, exclusive=0, reverse=0):
    return op.CumSum(x, longs(op, axis), exclusive=exclusive, reverse=reverse)


@to_onnx("BUCKETIZE")
def bucketize(op, x, *, boundaries=()):
    """How many boundaries are at or below x."""
    if not boundaries:
        return op.ConstantOfShape(op.Shape(x), value=np.zeros(1, np.int32))
    values = op.Unsqueeze(op.Cast(x, to=FLOAT), [-1])
    reached = op.Cast(op.GreaterOrEqual(values, op.const(np.asarray(boundaries, np.float32))), to=INT32)
    return op.ReduceSum(reached, [-1], keepdims=0)


# ---- quantisation


@to_onnx("DEQUANTIZE")
def dequantize(op, x):
    """float16 only changes its type; integers get their scale from the tensor."""
    if x.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) or not x.meta.keys() & {"quantization", "blockwise"}:
        return op.Cast(x, to=FLOAT)
    if "blockwise" in x.meta:
        scales, zeros, block = x.meta["blockwise"]
        return op.DequantizeLinear(x, op.Cast(scales, to=FLOAT) if scales.dtype != FLOAT else scales, zeros, axis=x.shape.rank() - 1, block_size=block)
    return op.DequantizeLinear(x, *_scale_of(op, x, x.meta["quantization"]), axis=_axis(x.meta["quantization"]))


@to_onnx("QUANTIZE")
def quantize(op, x):
    """The scale stands on the output."""
    target = op.outputs[0]
    if "quantization" not in target.meta:
        return op.reject("its output has no scale")
    return op.QuantizeLinear(x, *_scale_of(op, target, target.meta["quantization"]), axis=_axis(target.meta["quantization"]))


def _axis(quantization: Any) -> int | None:
    return quantization.axis if quantization.per_axis else None


def _scale_of(op: Builder, value: ir.Value, quantization: Any) -> list[ir.Value]:
    """Scale and zero point as inputs of QuantizeLinear and DequantizeLinear; int32 has no zero point there."""
    scale = op.const(np.asarray(quantization.scale, np.float32))
    if value.dtype == INT32:
        return [scale]
    return [scale, op.const(np.asarray(quantization.zero_point).astype(value.dtype.numpy()))]


@to_onnx("DENSIFY")
def densify(op, x):
    """The reader has made it dense."""
    return x


@to_onnx("FAKE_QUANT")
def fake_quant(op, x, *, min, max, num_bits, narrow_range=0):
    """Rounds to the values of an integer type whose range is nudged so that zero is one of them."""
    low, high = float(narrow_range), float(2 ** num_bits - 1)
    scale = (max - min) / (high - low)
    zero = np.clip(np.floor(low - min / scale + 0.5), low, high)
    least, most = np.float32((low - zero) * scale), np.float32((high - zero) * scale)
    steps = op.Floor(op.Add(op.Mul(op.Sub(op.Clip(x, float(least), float(most)), float(least)), float(1 / scale)), 0.5))
    return op.Add(op.Mul(steps, float(scale)), float(least))


# ---- convolutions and pools


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


# ---- matrices


@to_onnx("FULLY_CONNECTED")
def fully_connected(op, x, w, b=None, *, fused_activation_function="NONE", weights_format="DEFAULT", keep_num_dims=0, asymmetric_quantize_inputs=0,
                    quantized_bias_type="FLOAT32"):
    """x [..., K] * w [N, K], flattened to a matrix unless keep_num_dims."""
    if weights_format != "DEFAULT":
        op.reject(f"weights in the format {weights_format}")
    rank = x.shape.rank() if x.shape is not None else None
    if keep_num_dims and rank != 2:
        y = op.MatMul(x, permuted(op, w, (1, 0)))
        return activation(op, y if b is None else op.Add(y, b), fused_activation_function)
    known = rank == 2 and (not isinstance(x.shape[1], int) or x.shape[1] == w.shape[1])
    return activation(op, op.Gemm(x if known else op.Reshape(x, [-1, w.shape[1]]), w, b, transB=1), fused_activation_function)


@to_onnx("BATCH_MATMUL")
def batch_matmul(op, x, y, *, adj_x=0, adj_y=0, asymmetric_quantize_inputs=0):
    def turned(value: ir.Value) -> ir.Value:
        rank, _ = op.of(value)
        return permuted(op, value, [*range(rank - 2), rank - 1, rank - 2])
    return op.MatMul(turned(x) if adj_x else x, turned(y) if adj_y else y)


@to_onnx("SOFTMAX")
def softmax(op, x, *, beta=0.0):
    return op.Softmax(x if beta == 1 else op.Mul(x, beta), axis=-1)


@to_onnx("LOG_SOFTMAX")
def log_softmax(op, x):
    return op.LogSoftmax(x, axis=-1)


@to_onnx("L2_NORMALIZATION")
def l2_normalization(op, x, *, fused_activation_function="NONE"):
    """Over the last axis, never dividing by less than 1e-6."""
    return activation(op, op.Div(x, op.Max(op.ReduceL2(x, [-1]), 1e-6)), fused_activation_function)


@to_onnx("EMBEDDING_LOOKUP")
def embedding_lookup(op, ids, table):
    return op.Gather(table, ids, axis=0)


@to_onnx("EMBEDDING_LOOKUP_SPARSE")
def embedding_lookup_sparse(op, ids, places, shape, weights, table, *, combiner="SUM"):
    """Weighs rows of the table and adds what has the same place; the last coordinate only tells entries apart."""
    def summed(values: ir.Value, dims: ir.Value) -> ir.Value:
        return op.ScatterND(op.ConstantOfShape(dims), bucket, values, reduction="add")
    rank = op.of(table)[0]
    bucket, buckets = op.Slice(longs(op, places), [0], [-1], [1]), op.Slice(longs(op, shape), [0], [-1], [0])
    columns = op.Unsqueeze(weights, list(range(1, rank)))
    total = summed(op.Mul(op.Gather(table, ids, axis=0), columns), op.Concat(buckets, op.Shape(table, start=1), axis=0))
    if combiner == "SUM":
        return total
    norm = summed(weights, buckets) if combiner == "MEAN" else op.Sqrt(summed(op.Mul(weights, weights), buckets))
    norm = op.Where(op.Equal(norm, 0.0), op.const(np.float32(1)), norm)
    return op.Div(total, op.Unsqueeze(norm, list(range(-rank + 1, 0))))


@to_onnx("HASHTABLE_LOOKUP")
def hashtable_lookup(op, wanted, keys, values):
    """Rows of the keys that are there, zeros for others, and which were."""
    equal = op.Cast(op.Equal(op.Unsqueeze(wanted, [1]), op.Unsqueeze(keys, [0])), to=INT32)
    rows = op.Gather(values, op.ArgMax(equal, axis=1, keepdims=0), axis=0)
    hits = op.Cast(op.ReduceMax(equal, [1], keepdims=0), to=BOOL)
    nothing = op.const(np.asarray("" if values.dtype == ir.DataType.STRING else 0, values.dtype.numpy()))
    found = op.Unsqueeze(hits, list(range(1, op.of(values)[0]))) if op.of(values)[0] > 1 else hits
    return op.Where(found, rows, nothing), op.Cast(hits, to=ir.DataType.UINT8)


# ---- reductions


def reduction(target: str, widened: Callable[..., tuple[ir.Value, ...]] = wide) -> Callable[..., Any]:
    """A rule for a reduction whose small integers become what `widened` makes of them."""
    def rule(op, x, axes, *, keep_dims=0):
        (a,) = widened(op, x)
        return narrow(op, op.make(target, (a, vector(op, axes)), {"keepdims": keep_dims, "noop_with_empty_axes": 1}), x)
    return rule


for _name, _target in {"SUM": "ReduceSum", "REDUCE_PROD": "ReduceProd", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin"}.items():
    to_onnx(_name)(reduction(_target))


@to_onnx("MEAN")
def mean(op, x, axes, *, keep_dims=0):
    """Of integers it is the sum divided towards zero."""
    if x.dtype == FLOAT:
        return op.ReduceMean(x, vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1)
    a = op.Cast(x, to=INT64)
    total = op.ReduceSum(a, vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1)
    count = op.ReduceProd(op.Gather(op.Shape(x), vector(op, axes)), keepdims=0)
    return op.Cast(op.Div(total, count), to=x.dtype)


@to_onnx("REDUCE_ANY")
def reduce_any(op, x, axes, *, keep_dims=0):
    """As a sum, which is right where there is nothing to add; the greatest of nothing is not."""
    return op.Cast(op.ReduceSum(op.Cast(x, to=INT32), vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1), to=BOOL)


@to_onnx("REDUCE_ALL")
def reduce_all(op, x, axes, *, keep_dims=0):
    return op.Cast(op.ReduceProd(op.Cast(x, to=INT32), vector(op, axes), keepdims=keep_dims, noop_with_empty_axes=1), to=BOOL)


def _position(target: str) -> Callable[..., Any]:
    def rule(op, x, axis: Int, *, output_type="FLOAT32"):
        (a,) = wide(op, x, types=(*NARROW, INT64, BOOL))
        return op.Cast(op.make(target, (a,), {"axis": axis, "keepdims": 0}, dtype=INT64), to=op.outputs[0].dtype)
    return rule


to_onnx("ARG_MAX")(_position("ArgMax"))
to_onnx("ARG_MIN")(_position("ArgMin"))


@to_onnx("TOPK_V2")
def topk_v2(op, x, k):
    (a,) = wide(op, x)
    values, places = op.TopK(a, vector(op, k), _outputs=2)
    return narrow(op, values, x), op.Cast(places, to=op.outputs[1].dtype)


@to_onnx("UNIQUE")
def unique(op, x, *, idx_out_type="INT32"):
    """In the order of first occurrence."""
    (a,) = wide(op, x, types=(*NARROW, INT32), to=INT64)
    values, _, inverse, _ = op.Unique(a, sorted=0, axis=0, _outputs=4)
    return narrow(op, values, x), op.Cast(inverse, to=op.outputs[1].dtype)


# ---- shapes and places


@to_onnx("RESHAPE")
def reshape(op, x, shape=None, *, new_shape=()):
    """The vector [0] once meant a scalar."""
    array = np.asarray(new_shape, np.int64) if shape is None else constant(shape)
    if array is None:
        return op.Reshape(x, longs(op, shape))
    sizes = [] if array.tolist() == [0] and 0 not in (op.outputs[0].shape or ()) else array.reshape(-1).tolist()
    return op.Reshape(x, op.const(np.asarray(sizes, np.int64)), allowzero=1 if 0 in sizes else None)


@to_onnx("TRANSPOSE")
def transpose(op, x, perm: Ints):
    return op.Transpose(x, perm=[axis % len(perm) for axis in perm])


@to_onnx("SQUEEZE")
def squeeze(op, x, *, squeeze_dims=()):
    return op.Squeeze(x, list(squeeze_dims) or None)


@to_onnx("EXPAND_DIMS")
def expand_dims(op, x, axis):
    return op.Unsqueeze(x, vector(op, axis))


@to_onnx("PACK")
def pack(op, *xs, values_count=0, axis=0):
    return op.Concat(*(op.Unsqueeze(x, [axis]) for x in xs), axis=axis)


@to_onnx("UNPACK")
def unpack(op, x, *, num, axis=0):
    if num != len(op.outputs):
        op.reject(f"{num} parts for {len(op.outputs)} outputs")
    parts = op.Split(x, axis=axis, num_outputs=num, _outputs=num)
    return [op.Squeeze(part, [axis]) for part in (parts if num > 1 else [parts])]


@to_onnx("CONCATENATION")
def concatenation(op, *xs, axis=0, fused_activation_function="NONE"):
    return activation(op, op.Concat(*xs, axis=axis), fused_activation_function)


@to_onnx("SPLIT")
def split(op, axis: Int, x, *, num_splits):
    size, count = op.of(x)[1][axis], len(op.outputs)
    if size == 0:                                   # which ONNX Runtime does not divide by a number
        return op.Split(x, [0] * count, axis=axis, _outputs=count)
    return op.Split(x, axis=axis, num_outputs=count, _outputs=count)


@to_onnx("SPLIT_V")
def split_v(op, x, sizes, axis: Int, *, num_splits):
    return op.Split(x, longs(op, sizes), axis=axis, _outputs=len(op.outputs))


@to_onnx("TILE")
def tile(op, x, repeats):
    return op.Tile(x, longs(op, repeats))


@to_onnx("BROADCAST_TO")
def broadcast_to(op, x, shape):
    return op.Expand(x, longs(op, shape))


@to_onnx("BROADCAST_ARGS")
def broadcast_args(op, x, y):
    """The shape that two shapes broadcast to: ones in front of the shorter, then whichever is not one."""
    (m,), (n,) = op.static(x), op.static(y)
    bounded(op, m + n, 64)
    a, b = (op.Concat(op.const(np.ones(max(m, n) - length, value.dtype.numpy())), value, axis=0) for value, length in ((x, m), (y, n)))
    return op.Where(op.Equal(a, 1), b, a)


@to_onnx("FILL")
def fill(op, shape, value):
    return op.Expand(value, longs(op, shape))


@to_onnx("ZEROS_LIKE")
def zeros_like(op, x):
    return op.ConstantOfShape(op.Shape(x), value=np.zeros(1, x.dtype.numpy()))


@to_onnx("RANGE")
def range_(op, start, limit, delta):
    return op.Range(start, limit, delta)


@to_onnx("SHAPE")
def shape(op, x, *, out_type="FLOAT32"):
    return op.Cast(op.Shape(x), to=op.outputs[0].dtype)


@to_onnx("RANK")
def rank(op, x):
    known = x.shape is not None
    return op.Identity(op.const(np.asarray(x.shape.rank(), np.int32))) if known else op.Cast(op.Size(op.Shape(x)), to=INT32)


@to_onnx("PAD")
def pad(op, x, paddings):
    return padded(op, x, paddings, None)


@to_onnx("PADV2")
def padv2(op, x, paddings, value):
    return padded(op, x, paddings, op.Reshape(value, op.const(np.zeros(0, np.int64))) if value.shape is None or value.shape.rank() else value)


def padded(op: Builder, x: ir.Value, paddings: ir.Value, value: ir.Value | None) -> ir.Value:
    """[[begin, end], ...] -> every begin, then every end."""
    pairs = constant(paddings)
    pads = op.const(pairs.T.reshape(-1).astype(np.int64)) if pairs is not None else op.Reshape(op.Transpose(longs(op, paddings), perm=[1, 0]), [-1])
    a, *filler = wide(op, x, *([] if value is None else [value]))
    return narrow(op, op.Pad(a, pads, *filler), x)


@to_onnx("MIRROR_PAD")
def mirror_pad(op, x, paddings: Array, *, mode="REFLECT"):
    """ONNX reflects without the border; with it (SYMMETRIC), the slices are turned round and set beside x."""
    if mode == "REFLECT":
        return op.Pad(x, paddings.T.reshape(-1).astype(np.int64), mode="reflect")
    for axis, (begin, end) in enumerate(paddings.tolist()):
        parts = [x]
        if begin:
            parts.insert(0, op.Slice(x, [begin - 1], [-END], [axis], [-1]))
        if end:
            parts.append(op.Slice(x, [-1], [-end - 1], [axis], [-1]))
        x = op.Concat(*parts, axis=axis) if len(parts) > 1 else x
    return x


@to_onnx("SLICE")
def slice_(op, x, begin, extent):
    """A size of -1 means up to the end."""
    start, length = longs(op, begin), longs(op, extent)
    axes = list(range(op.of(x)[0]))
    first, lengths = constant(start), constant(length)
    if first is not None and lengths is not None:
        ends = np.where(lengths < 0, END, first + lengths)
        return op.Slice(x, start, op.const(ends), axes)
    return op.Slice(x, start, op.Where(op.Less(length, 0), op.const(np.int64(END)), op.Add(start, length)), axes)


@to_onnx("STRIDED_SLICE")
def strided_slice(op, x, begin, end, strides: Ints, *, begin_mask=0, end_mask=0, ellipsis_mask=0, new_axis_mask=0, shrink_axis_mask=0, offset=0):
    """numpy's basic indexing, written as bit masks: one bit an entry of `begin`, `end` and `strides`."""
    given, axis = len(strides), 0
    entries: list[Any] = []                                 # (axis, place in begin)
    fresh: list[int] = []                                   # axes of the result that are new
    dropped: list[int] = []                                 # axes that fall away
    skipped = op.of(x)[0] - (given - bin(new_axis_mask).count("1") - (1 if ellipsis_mask else 0))
    for place in range(given):
        bit = 1 << place
        if ellipsis_mask & bit:
            axis += skipped
        elif new_axis_mask & bit:
            fresh.append(axis - len(dropped) + len(fresh))
        else:
            entries.append((axis, place))
            if shrink_axis_mask & bit:
                dropped.append(axis)
            axis += 1
    places = [place for _, place in entries]
    masks = [[bool(mask >> place & 1) for place in places] for mask in (begin_mask, end_mask, shrink_axis_mask)]
    starts, ends = _limits(op, begin, end, [strides[place] for place in places], places, masks, bool(offset))
    y = op.Slice(x, starts, ends, [axis for axis, _ in entries], [1 if shrink else strides[place] for place, shrink in zip(places, masks[2], strict=True)])
    y = op.Squeeze(y, dropped) if dropped else y
    return op.Unsqueeze(y, fresh) if fresh else y


def _limits(op: Builder, begin: ir.Value, end: ir.Value, strides: list[int], places: list[int], masks: list[list[bool]],
            offset: bool) -> tuple[ir.Value, ir.Value]:
    """Where each slice starts and ends. An entry that falls away takes one element, whatever `end` says; -1 + 1 would be 0, so it becomes the end."""
    open_start, open_end, shrink = masks
    near = np.asarray([0 if stride > 0 else END for stride in strides], np.int64)
    far = np.asarray([END if stride > 0 else -END for stride in strides], np.int64)
    free = np.asarray(open_start) & ~np.asarray(shrink)
    a, b = longs(op, begin), longs(op, end)
    first, last = constant(a), constant(b)
    following: Any
    starts: Any
    ends: Any
    if first is not None and last is not None:
        starts = np.where(free, near, first[places])
        following = np.where(starts == -1, END, starts + 1)
        ends = np.where(open_end, far, last[places] + (first[places] if offset else 0))
        return op.const(starts), op.const(np.where(shrink, following, ends))
    if places != list(range(_length(begin) or -1)):
        a, b = op.Gather(a, op.const(places)), op.Gather(b, op.const(places))
    following = op.Add(a, [1])
    following = op.Where(op.Equal(following, [0]), op.const([END]), following)
    starts = op.Where(op.const(free), op.const(near), a) if free.any() else a
    ends = op.Add(a, b) if offset else b
    ends = op.Where(op.const(np.asarray(open_end)), op.const(far), ends) if any(open_end) else ends
    return starts, op.Where(op.const(np.asarray(shrink)), following, ends) if any(shrink) else ends


def _length(value: ir.Value) -> int | None:
    return value.shape[0] if value.shape is not None and value.shape.rank() == 1 and isinstance(value.shape[0], int) else None


@to_onnx("REVERSE_V2")
def reverse_v2(op, x, axes: Ints):
    return op.Slice(x, [-1] * len(axes), [-END] * len(axes), list(axes), [-1] * len(axes)) if axes else op.Identity(x)


@to_onnx("REVERSE_SEQUENCE")
def reverse_sequence(op, x, lengths, *, seq_dim=0, batch_dim=0):
    """ONNX wants time and batch as the first two axes."""
    rest = [axis for axis in range(op.of(x)[0]) if axis not in (seq_dim, batch_dim)]
    perm = [seq_dim, batch_dim, *rest]
    y = op.ReverseSequence(op.Transpose(x, perm=perm), longs(op, lengths), time_axis=0, batch_axis=1)
    return op.Transpose(y, perm=np.argsort(perm).tolist())


@to_onnx("GATHER")
def gather(op, x, places, *, axis=0, batch_dims=0):
    """With batch dimensions: GatherND over the axis brought to the front of what is not batch, and the result's axes put in order."""
    rank, _ = op.of(x)
    axis, batch_dims = axis % rank, batch_dims % max(op.of(places)[0], 1)
    places = wide(op, places)[0]
    if not batch_dims:
        return op.Gather(x, places, axis=axis)
    front = op.Transpose(x, perm=[*range(batch_dims), axis, *[other for other in range(batch_dims, rank) if other != axis]])
    y = op.GatherND(front, op.Unsqueeze(longs(op, places), [-1]), batch_dims=batch_dims)
    chosen, between = op.of(places)[0] - batch_dims, axis - batch_dims
    if not between:
        return y
    total = rank - 1 + chosen
    moved = [*range(batch_dims), *range(batch_dims + chosen, batch_dims + chosen + between), *range(batch_dims, batch_dims + chosen)]
    return op.Transpose(y, perm=[*moved, *range(batch_dims + chosen + between, total)])


@to_onnx("GATHER_ND")
def gather_nd(op, x, places):
    return op.GatherND(x, longs(op, places))


@to_onnx("SCATTER_ND")
def scatter_nd(op, places, updates, shape):
    """Into zeros; what meets at one place is added."""
    (a,) = wide(op, updates)
    zeros = op.ConstantOfShape(longs(op, shape), value=np.zeros(1, a.dtype.numpy()))
    return narrow(op, op.ScatterND(zeros, longs(op, places), a, reduction="add"), updates)


@to_onnx("SPARSE_TO_DENSE")
def sparse_to_dense(op, places, shape, values, default, *, validate_indices=0):
    """Indices are a number, a list of numbers, or rows of coordinates."""
    rank = op.of(places)[0]
    rows = longs(op, places) if rank == 2 else op.Reshape(longs(op, places), [-1, 1])
    (a, b) = wide(op, values, default)
    count = op.Shape(rows, start=0, end=1)
    return narrow(op, op.ScatterND(op.Expand(b, longs(op, shape)), rows, op.Expand(a, count)), values)


@to_onnx("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(op, x, update, start):
    """The start is moved so that the update fits; then every element goes to its place."""
    sizes = op.static(update)
    if not sizes:
        return op.Identity(update)
    bounded(op, math.prod(sizes))
    fits = op.Sub(op.Shape(x), op.const(sizes))
    begin = op.Min(op.Max(longs(op, start), 0), fits)
    grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).astype(np.int64)
    return op.ScatterND(x, op.Add(op.const(grid), begin), update)


@to_onnx("ONE_HOT")
def one_hot(op, places, depth, on, off, *, axis=0):
    """Negative indices are nowhere, where ONNX counts them from the end."""
    index = longs(op, places)
    count = longs(op, depth)
    index = op.Where(op.Less(index, 0), count, index)
    a, b = wide(op, off, on, types=(*NARROW, BOOL))
    values = op.Concat(*(op.Reshape(value, [1]) for value in (a, b)), axis=0)
    return narrow(op, op.OneHot(index, count, values, axis=axis), on)


@to_onnx("WHERE")
def where(op, condition):
    (a,) = wide(op, condition)
    return op.Transpose(op.NonZero(a), perm=[1, 0])


@to_onnx("MATRIX_DIAG")
def matrix_diag(op, x):
    return diagonal(op, op.Unsqueeze(x, [-1]), op.const(np.zeros((), x.dtype.numpy())), size(op, x, -1), size(op, x, -1), x)


@to_onnx("MATRIX_SET_DIAG")
def matrix_set_diag(op, x, values):
    rank, sizes = op.of(x)
    rows, columns = sizes[-2:]
    column = op.Unsqueeze(values, [-1])
    if isinstance(rows, int) and isinstance(columns, int) and rows > columns:
        column = op.Pad(wide(op, column)[0], [0] * (2 * rank - 2) + [rows - columns, 0])
    return diagonal(op, column, x, size(op, x, -2), size(op, x, -1), x)


def diagonal(op: Builder, column: ir.Value, rest: ir.Value, rows: int | ir.Value, columns: int | ir.Value, like: ir.Value) -> ir.Value:
    """`column` where row and column meet, `rest` elsewhere."""
    if isinstance(rows, int) and isinstance(columns, int):
        bounded(op, rows * columns)
        mask = op.const(np.eye(rows, columns, dtype=bool))
    else:
        counts = [op.Range(op.const(np.int64(0)), op.const(np.int64(part)) if isinstance(part, int) else op.Squeeze(part, [0]), op.const(np.int64(1)))
                  for part in (rows, columns)]
        mask = op.Equal(op.Unsqueeze(counts[0], [1]), counts[1])
    a, b = wide(op, column, rest)
    return narrow(op, op.Where(mask, a, b), like)


# ---- segments


def _segments(target: str | None, start: Callable[[np.dtype], Any]) -> Callable[..., Any]:
    """Scatters rows into `num` segments; a negative segment is dropped, by way of one segment too many."""
    def rule(op, x, ids, num):
        count = vector(op, num)
        rank, shared = op.of(x)[0], op.of(ids)[0]
        segment = longs(op, ids)
        segment = op.Where(op.Less(segment, 0), count, segment)
        shape = op.Concat(op.Add(count, [1]), op.Shape(x, start=shared, end=rank), axis=0)
        empty = op.ConstantOfShape(shape, value=np.asarray([start(x.dtype.numpy())], x.dtype.numpy()))
        y = op.ScatterND(empty, op.Unsqueeze(segment, [-1]), x, reduction=target)
        return op.Slice(y, [0], count, [0])
    return rule


def _least(dtype: np.dtype) -> Any:
    return np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min


def _most(dtype: np.dtype) -> Any:
    return np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max


for _name, _target, _start in (("SUM", "add", lambda dtype: 0), ("PROD", "mul", lambda dtype: 1), ("MAX", "max", _least), ("MIN", "min", _most)):
    to_onnx("UNSORTED_SEGMENT_" + _name)(_segments(_target, _start))


@to_onnx("SEGMENT_SUM")
def segment_sum(op, x, ids):
    """Sorted segments: the last tells how many there are."""
    segment = longs(op, ids)
    count = op.Add(op.ReduceMax(segment, [0], keepdims=1), [1])
    shape = op.Concat(count, op.Shape(x, start=1), axis=0)
    empty = op.ConstantOfShape(shape, value=np.zeros(1, x.dtype.numpy()))
    return op.ScatterND(empty, op.Unsqueeze(segment, [-1]), x, reduction="add")


# ---- detection


def suppressed(op: Builder, boxes: ir.Value, scores: ir.Value, most: ir.Value, overlap: ir.Value, least: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Indices of the boxes that stay, [most], zeros behind them; how many they are, a vector of one; and `most` as such a vector."""
    limit = vector(op, most)
    chosen = op.NonMaxSuppression(op.Unsqueeze(boxes, [0]), op.Unsqueeze(scores, [0, 1]), limit, op.Reshape(overlap, [1]), op.Reshape(least, [1]))
    index = op.Squeeze(op.Slice(chosen, [2], [3], [1]), [1])
    count = op.Shape(index)
    return op.Pad(index, op.Concat(op.const([0]), op.Sub(limit, count), axis=0)), count, limit


@to_onnx("NON_MAX_SUPPRESSION_V4")
def non_max_suppression_v4(op, boxes, scores, most, overlap, least):
    index, count, _ = suppressed(op, boxes, scores, most, overlap, least)
    return op.Cast(index, to=INT32), op.Cast(op.Squeeze(count, [0]), to=INT32)


@to_onnx("NON_MAX_SUPPRESSION_V5")
def non_max_suppression_v5(op, boxes, scores, most, overlap, least, sigma: Float):
    """Without soft suppression; the scores behind the last box are zero."""
    if sigma:
        op.reject("soft suppression (a sigma that is not 0) has no equivalent")
    index, count, limit = suppressed(op, boxes, scores, most, overlap, least)
    inside = op.Less(op.Range(op.const(np.int64(0)), op.Squeeze(limit, [0]), op.const(np.int64(1))), count)
    kept = op.Where(inside, op.Gather(scores, index, axis=0), op.const(np.float32(0)))
    return op.Cast(index, to=INT32), kept, op.Cast(op.Squeeze(count, [0]), to=INT32)


# ---- random numbers: the same distribution, never the same numbers


@to_onnx("RANDOM_UNIFORM")
def random_uniform(op, shape, *, seed=0, seed2=0):
    op.lose("values.random", "random numbers of the same distribution, but other ones")
    return op.RandomUniformLike(op.ConstantOfShape(longs(op, shape)), low=0.0, high=1.0, seed=float(seed) or None)


@to_onnx("RANDOM_STANDARD_NORMAL")
def random_standard_normal(op, shape, *, seed=0, seed2=0):
    op.lose("values.random", "random numbers of the same distribution, but other ones")
    return op.RandomNormalLike(op.ConstantOfShape(longs(op, shape)), seed=float(seed) or None)


@to_onnx("MULTINOMIAL")
def multinomial(op, logits, count: Int, *, seed=0, seed2=0):
    op.lose("values.random", "random numbers of the same distribution, but other ones")
    return op.Cast(op.Multinomial(logits, sample_size=count, dtype=INT32, seed=float(seed) or None), to=op.outputs[0].dtype)


@to_onnx("ROUND_INPUT")
def round_input(op, x, *, asymmetric=0):
    """x as the hybrid kernels see it (`tensor_utils::SymmetricQuantizeFloats`, `AsymmetricQuantizeFloats`): 8 bits over the range of each batch."""
    axes = list(range(1, len(x.shape)))
    low, high = op.ReduceMin(x, axes, keepdims=1), op.ReduceMax(x, axes, keepdims=1)
    if asymmetric:
        low, high = op.Min(low, 0.0), op.Max(high, 0.0)
        scale = op.Div(op.Sub(high, low), 255.0)
    else:
        scale = op.Div(op.Max(op.Abs(low), op.Abs(high)), 127.0)
    scale = op.Where(op.Equal(scale, 0.0), op.const(np.float32(1)), scale)
    zero = op.Round(op.Sub(op.const(np.float32(-128)), op.Div(low, scale))) if asymmetric else op.const(np.float32(0))
    stored = op.Min(op.Max(op.Round(op.Add(op.Div(x, scale), zero)), -128.0 if asymmetric else -127.0), 127.0)
    return op.Mul(op.Sub(stored, zero), scale)
