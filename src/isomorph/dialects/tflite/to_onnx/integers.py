"""Quantised operators as arithmetic of integers, on request and in the place of QuantizeLinear and DequantizeLinear: bit for bit what LiteRT's reference
kernels and TensorFlow Lite for Microcontrollers compute.

Products are ConvInteger and MatMulInteger. A sum becomes an integer of the output as gemmlowp does it (`MultiplyByQuantizedMultiplier` in
tflite/kernels/internal/common.h): it is multiplied by a factor of 31 bits, shifted down and rounded, and then shifted and rounded once more. Arithmetic in
floats rounds once, which is off by one where the first rounding decides. An operator that has no rule here, or other types than the rule takes, stays and is
unfolded into floats like all others.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping, constant
from isomorph.dialects._scan import scanned
from isomorph.dialects.tflite.to_onnx import fixed_point
from isomorph.dialects.tflite.to_onnx.common import FIRST, INT32, INT64, LAST, constant_value, permuted, window

integers = Mapping("tflite")
BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
HEADROOM = 20                      # bits by which sums of two tensors are widened before they are rounded
ABOVE = np.int64(1 << 61)          # more than any product: sums of 30 bits times factors of 31


def factors(real: Any) -> tuple[np.ndarray, np.ndarray]:
    """(numbers below 2^31, exponents of two): what `QuantizeMultiplier` makes of real factors, each rounded to 31 bits."""
    split = [math.frexp(float(each)) for each in np.asarray(real, np.float64).reshape(-1)]
    numbers = [math.floor(fraction * 2.0 ** 31 + 0.5) for fraction, _ in split]
    pairs = [(number // 2, exponent + 1) if number == 1 << 31 else (number, exponent) for number, (_, exponent) in zip(numbers, split, strict=True)]
    pairs = [(0, 0) if exponent < -31 else (number, exponent) for number, exponent in pairs]
    return np.array([number for number, _ in pairs], np.int64), np.array([exponent for _, exponent in pairs], np.int64)


def halved(op: Builder, value: ir.Value, divisor: Any) -> ir.Value:
    """Divided by whole numbers, int64, rounded to the nearest, halves away from zero."""
    divisor = np.asarray(divisor, np.int64)
    return op.Div(op.Add(value, op.Mul(op.Sign(value), op.const(divisor // 2))), op.const(divisor))


def shifted(op: Builder, value: ir.Value, bits: Any) -> ir.Value:
    """int64 of less than 62 bits divided by powers of two, rounded to the nearest, halves up. A division of what is positive is a shift, so it is made that."""
    bits = np.asarray(bits, np.int64)
    half, whole = np.int64(1) << (bits - 1), np.int64(1) << bits
    return op.Sub(op.Div(op.Add(value, op.const(half + ABOVE)), op.const(whole)), op.const(ABOVE >> bits))


def scaled(op: Builder, value: ir.Value, real: Any, shape: list[int] | None = None, *, once: bool = False) -> ir.Value:
    """An integer times real factors that have the shape `shape`, as int64: rounded twice as gemmlowp does, or once, as fully connected layers are."""
    numbers, exponents = (each.reshape(shape or []) for each in factors(real))
    value = op.Cast(value, to=INT64)
    if once:
        return shifted(op, op.Mul(value, op.const(numbers)), 31 - exponents)
    high = shifted(op, op.Mul(value, op.const(numbers << np.maximum(exponents, 0))), 31)
    return high if (exponents >= 0).all() else halved(op, high, np.int64(1) << np.maximum(-exponents, 0))


def scale_of(value: ir.Value) -> np.float32:
    return np.float32(np.asarray(value.meta["quantization"].scale).reshape(-1)[0])


def zero_of(value: ir.Value) -> int:
    return int(np.asarray(value.meta["quantization"].zero_point).reshape(-1)[0])


def centred(op: Builder, value: ir.Value) -> ir.Value:
    """int64, without the zero point."""
    return op.Sub(op.Cast(value, to=INT64), op.const(np.int64(zero_of(value))))


def finished(op: Builder, value: ir.Value, activation: str = "NONE") -> ir.Value:
    """int64 around zero as the integers of the node's output: zero point, activation, type."""
    output = op.outputs[0]
    scale, zero, limits = scale_of(output), zero_of(output), np.iinfo(output.dtype.numpy())

    def place(real: float) -> int:
        steps = np.float32(real) / scale
        return zero + int(math.copysign(math.floor(abs(steps) + 0.5), steps))
    least, most = {"NONE": (None, None), "RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}[activation]
    low = limits.min if least is None else max(limits.min, place(least))
    high = limits.max if most is None else min(limits.max, place(most))
    return op.Cast(op.Clip(op.Add(value, op.const(np.int64(zero))), op.const(np.int64(low)), op.const(np.int64(high))), to=output.dtype)


def whole(*values: ir.Value | None, activation: str = "NONE") -> bool:
    """Whether all are 8-bit integers with one scale each, and the activation is one that limits."""
    plain = all(value is not None and value.dtype in BYTES and "quantization" in value.meta and np.size(value.meta["quantization"].scale) == 1
                for value in values)
    return plain and activation in ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")


# ---- products

def _fits(op: Builder, x: ir.Value, w: ir.Value, b: ir.Value | None, activation: str, axis: int) -> bool:
    """Whether a product can be computed: 8-bit inputs of one kind, a stored filter with a scale for all or for each output channel, a stored int32 bias."""
    found = w.meta.get("quantization")
    if found is None or not whole(x, op.outputs[0], activation=activation) or x.dtype != w.dtype or not constant_value(w):
        return False
    even = np.size(found.scale) == 1 or (found.axis == axis and not np.any(found.zero_point))
    return even and (b is None or (constant_value(b) and b.dtype == INT32))


def _real(op: Builder, x: ir.Value, w: ir.Value, each: bool) -> np.ndarray:
    """What a sum of products is multiplied with. Kernels with a factor for each channel multiply in double precision, the others in single precision first."""
    scales = np.asarray(w.meta["quantization"].scale, np.float32).reshape(-1)
    products = np.float64(scale_of(x)) * scales.astype(np.float64) if each else np.float64(scale_of(x) * scales)
    return np.asarray(products / np.float64(scale_of(op.outputs[0])))


def _zeros(op: Builder, x: ir.Value, w: ir.Value) -> list[ir.Value]:
    return [op.const(np.asarray(zero_of(value), value.dtype.numpy())) for value in (x, w)]


def _convolved(op: Builder, x: ir.Value, w: ir.Value, b: ir.Value | None, kernel: ir.Value, where: dict[str, Any], activation: str, axis: int) -> Any:
    channels, each = op.static(w)[axis], x.dtype == ir.DataType.INT8
    y = op.ConvInteger(op.Transpose(x, perm=FIRST), kernel, *_zeros(op, x, w), **where, _dtype=INT32)
    if b is not None:
        y = op.Add(y, op.const(constant(b).reshape(channels, 1, 1)))
    real = np.broadcast_to(_real(op, x, w, each), channels)
    return op.Transpose(finished(op, scaled(op, y, real, [channels, 1, 1]), activation), perm=LAST)


@integers("CONV_2D")
def conv_2d(op, x, w, b=None, *, padding="SAME", stride_w=0, stride_h=0, fused_activation_function="NONE", dilation_w_factor=1, dilation_h_factor=1,
            quantized_bias_type="FLOAT32"):
    """NHWC * OHWI; fewer input channels in the filter than in x mean groups."""
    if not _fits(op, x, w, b, fused_activation_function, 0):
        return NotImplemented
    _, height, width, channels = op.static(w)
    where = window(op, x, (height, width), (stride_h, stride_w), padding, (dilation_h_factor, dilation_w_factor))
    group = op.of(x)[1][3] // channels
    return _convolved(op, x, w, b, permuted(op, w, (0, 3, 1, 2)), where | {"group": group}, fused_activation_function, 0)


@integers("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(op, x, w, b=None, *, padding="SAME", stride_w=0, stride_h=0, depth_multiplier=0, fused_activation_function="NONE",
                      dilation_w_factor=1, dilation_h_factor=1):
    """Filter 1HWC, its channel = input channel * multiplier + which."""
    if not _fits(op, x, w, b, fused_activation_function, 3):
        return NotImplemented
    _, height, width, _ = op.static(w)
    where = window(op, x, (height, width), (stride_h, stride_w), padding, (dilation_h_factor, dilation_w_factor))
    return _convolved(op, x, w, b, permuted(op, w, (3, 0, 1, 2)), where | {"group": op.of(x)[1][3]}, fused_activation_function, 3)


@integers("FULLY_CONNECTED")
def fully_connected(op, x, w, b=None, *, fused_activation_function="NONE", weights_format="DEFAULT", keep_num_dims=0, asymmetric_quantize_inputs=0,
                    quantized_bias_type="FLOAT32"):
    """x [..., depth] times w [units, depth]."""
    if not _fits(op, x, w, b, fused_activation_function, 0) or weights_format != "DEFAULT":
        return NotImplemented
    units, depth = op.static(w)
    y = op.MatMulInteger(op.Reshape(x, op.const([-1, depth])), permuted(op, w, (1, 0)), *_zeros(op, x, w), _dtype=INT32)
    if b is not None:
        y = op.Add(y, op.const(constant(b).reshape(units)))
    each = np.size(w.meta["quantization"].scale) > 1
    y = finished(op, scaled(op, y, _real(op, x, w, each), [units] if each else None, once=True), fused_activation_function)
    return op.Reshape(y, op.const([*op.static(x)[:-1], units])) if keep_num_dims else y


# ---- sums, products of two tensors, changes of scale

def _added(combined: str) -> Callable[..., Any]:
    def rule(op, x, y, *, fused_activation_function="NONE", pot_scale_int16=1):
        """Both in steps of twice the greater scale, with bits to spare."""
        output = op.outputs[0]
        if not whole(x, y, output, activation=fused_activation_function):
            return NotImplemented
        twice = np.float64(2 * max(scale_of(x), scale_of(y)))
        parts = [scaled(op, op.Mul(centred(op, each), op.const(np.int64(1 << HEADROOM))), np.float64(scale_of(each)) / twice) for each in (x, y)]
        total = op.make(combined, parts, {})
        return finished(op, scaled(op, total, twice / np.float64(scale_of(output) * np.float32(1 << HEADROOM))), fused_activation_function)
    return rule


integers("ADD")(_added("Add"))
integers("SUB")(_added("Sub"))


@integers("MUL")
def mul(op, x, y, *, fused_activation_function="NONE"):
    output = op.outputs[0]
    if not whole(x, y, output, activation=fused_activation_function):
        return NotImplemented
    real = np.float64(scale_of(x) * scale_of(y) / scale_of(output))
    return finished(op, scaled(op, op.Mul(centred(op, x), centred(op, y)), real), fused_activation_function)


@integers("QUANTIZE")
def quantize(op, x):
    """From one scale to another."""
    if not whole(x, op.outputs[0]):
        return NotImplemented
    return finished(op, scaled(op, centred(op, x), np.float64(scale_of(x)) / np.float64(scale_of(op.outputs[0]))))


@integers("AVERAGE_POOL_2D")
def average_pool_2d(op, x, *, padding="SAME", stride_w=0, stride_h=0, filter_width=0, filter_height=0, fused_activation_function="NONE"):
    """The sum of what lies inside, divided by how much that is and rounded; input and output have one scale."""
    output = op.outputs[0]
    if not whole(x, output, activation=fused_activation_function) or (scale_of(x), zero_of(x)) != (scale_of(output), zero_of(output)):
        return NotImplemented
    _, height, width, channels = op.of(x)[1]
    if not isinstance(height, int) or not isinstance(width, int):
        return NotImplemented
    where = window(op, x, (filter_height, filter_width), (stride_h, stride_w), padding)
    ones = op.const(np.ones((channels, 1, filter_height, filter_width), x.dtype.numpy()))
    total = op.Cast(op.ConvInteger(op.Transpose(x, perm=FIRST), ones, **where, group=channels, _dtype=INT32), to=INT64)
    pads = where.get("pads", [0, 0, 0, 0])
    rows, columns = (_inside(length, extent, stride, pads[axis], pads[axis + 2]) for axis, (length, extent, stride) in
                     enumerate(((height, filter_height, stride_h), (width, filter_width, stride_w))))
    mean = halved(op, total, np.outer(rows, columns))
    return op.Transpose(finished(op, op.Sub(mean, op.const(np.int64(zero_of(output)))), fused_activation_function), perm=LAST)


def _inside(length: int, extent: int, stride: int, before: int, after: int) -> np.ndarray:
    """How many places of each window along an axis are no padding."""
    starts = np.arange((length + before + after - extent) // stride + 1) * stride - before
    return np.minimum(starts + extent, length) - np.maximum(starts, 0)


# ---- an LSTM with matrices of 8 bits and cells of 16 bits

GATE = 2.0 ** -12                  # the step of what goes into a gate; what comes out of it has steps of 2^-15


def _limited(op: Builder, value: ir.Value, dtype: ir.DataType, limit: int | None = None) -> ir.Value:
    """int64, held in the range of a type, or in a narrower one."""
    limits = np.iinfo(dtype.numpy())
    low, high = (limits.min, limits.max) if limit is None else (-limit, limit)
    return op.Clip(value, op.const(np.int64(low)), op.const(np.int64(high)))


def _looked_up(op: Builder, table: np.ndarray, value: ir.Value) -> ir.Value:
    """A function of 16 bits of an int64, by its table."""
    return op.Cast(op.Gather(op.const(table), op.Add(value, op.const(np.int64(1 << 15))), axis=0, _dtype=ir.DataType.INT16), to=INT64)


class IntegerCell:
    """`LstmStepInteger8x8_16` of tflite/kernels/lstm_eval.cc, without peepholes, projection, normalisation or coupled gates."""

    def __init__(self, op: Builder, x: ir.Value, inputs: list, hidden: Any, clip: float):
        self.op, self.x, self.hidden = op, x, hidden
        self.weights, self.recurrent, self.biases, (self.h, self.c) = inputs[0:4], inputs[4:8], inputs[11:15], inputs[17:19]
        self.exponent = round(math.log2(scale_of(self.c)))
        self.limit = int(min(clip / float(scale_of(self.c)), (1 << 15) - 1)) if clip > 0 else None
        self.turned = [[permuted(op, w, (1, 0)) for w in group] for group in (self.weights, self.recurrent)]
        self.sigmoid, self.tanh, self.out = fixed_point.sigmoid(), fixed_point.tanh(3), fixed_point.tanh(15 + self.exponent)

    @staticmethod
    def fits(op: Builder, x: ir.Value, inputs: list, hidden: Any, function: str) -> bool:
        matrices, special = inputs[0:8], (*inputs[8:11], *inputs[15:17], *inputs[19:])
        if any(value is None for value in (*matrices, *inputs[11:15], *inputs[17:19])) or any(value is not None for value in special):
            return False
        h, c = inputs[17:19]
        bytes_ = whole(x, h, op.outputs[0], *matrices) and all(value.dtype == ir.DataType.INT8 and constant_value(value) for value in matrices)
        cells = c.dtype == ir.DataType.INT16 and "quantization" in c.meta and math.log2(scale_of(c)).is_integer() and math.log2(scale_of(c)) <= -9
        return bytes_ and cells and hidden is not None and function == "TANH" and all(constant_value(bias) for bias in inputs[11:15])

    def gate(self, number: int, x: ir.Value, h: ir.Value) -> ir.Value:
        op, total = self.op, None
        for value, source, stored, turned in ((x, self.x, self.weights, self.turned[0]), (h, self.h, self.recurrent, self.turned[1])):
            y = op.MatMulInteger(value, turned[number], *_zeros(op, source, stored[number]), _dtype=INT32)
            if value is x:
                y = op.Add(y, op.const(constant(self.biases[number])))
            y = scaled(op, y, np.float64(scale_of(stored[number]) * scale_of(source) / np.float32(GATE)))
            total = _limited(op, y if total is None else op.Add(y, total), ir.DataType.INT16)
        return total

    def step(self, x: ir.Value, states: list[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
        op, (h, c) = self.op, states
        enter, forget, new, out = (_looked_up(op, self.tanh if number == 2 else self.sigmoid, self.gate(number, x, h)) for number in range(4))
        kept = halved(op, op.Mul(forget, op.Cast(c, to=INT64)), 1 << 15)
        cell = _limited(op, op.Add(kept, halved(op, op.Mul(enter, new), 1 << (30 + self.exponent))), ir.DataType.INT16, self.limit)
        scale, zero = self.hidden
        result = scaled(op, op.Mul(out, _looked_up(op, self.out, cell)), np.float64(np.float32(2.0 ** -15) / np.float32(scale) * np.float32(2.0 ** -15)))
        y = op.Cast(_limited(op, op.Add(result, op.const(np.int64(zero))), ir.DataType.INT8), to=ir.DataType.INT8)
        return y, [y, op.Cast(cell, to=ir.DataType.INT16)]


@integers("UNIDIRECTIONAL_SEQUENCE_LSTM")
def unidirectional_sequence_lstm(op, x, *inputs, time_major=0, fused_activation_function="NONE", cell_clip=0.0, proj_clip=0.0, asymmetric_quantize_inputs=0,
                                 diagonal_recurrent_tensors=0):
    """Returns the outputs, then the next values of both states."""
    rest, scratch = [*inputs, *[None] * (23 - len(inputs))], op.node.meta.get("intermediates", ())
    found = scratch[4].meta.get("quantization") if len(scratch) > 4 else None
    hidden = None if found is None else (np.float32(np.reshape(found.scale, -1)[0]), int(np.reshape(found.zero_point, -1)[0]))
    if diagonal_recurrent_tensors or not IntegerCell.fits(op, x, rest, hidden, fused_activation_function):
        return NotImplemented
    cell = IntegerCell(op, x, rest, hidden, cell_clip)
    y, states = scanned(op, x, rest[17:19], cell.step, axis=0 if time_major else 1)
    return y, *states
