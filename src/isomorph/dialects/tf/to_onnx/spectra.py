"""TensorFlow -> ONNX: complex numbers as pairs of tensors, and Fourier transforms."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.dialects.tf.to_onnx.lowering import TfBuilder
from isomorph.dialects.tf.to_onnx.operators import DOUBLE, FLOAT, Value, atan2, number, to_onnx

FIRST_AXES = {"": 1, "2D": 2, "3D": 3}


@dataclass
class Complex:
    """Real and imaginary part of a value."""

    real: Value
    imaginary: Value


def parts(op: TfBuilder, x: Value) -> tuple[Value, Value]:
    """Real and imaginary part; a complex constant is taken apart."""
    thing = x.meta.get("thing")
    if isinstance(thing, Complex):
        return thing.real, thing.imaginary
    array = constant(x)
    if array is not None and array.dtype.kind == "c":
        return op.const(np.ascontiguousarray(array.real)), op.const(np.ascontiguousarray(array.imag))
    return x, op.ConstantOfShape(op.Shape(x), value=np.zeros(1, x.dtype.numpy()))


def pair(op: TfBuilder, real: Value, imaginary: Value) -> Value:
    value = op.as_value(Complex(real, imaginary))
    value.shape = real.shape
    return value


def is_complex(value: Value | None) -> bool:
    return value is not None and (isinstance(value.meta.get("thing"), Complex) or value.dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128))


@to_onnx("Complex")
def complex_(op, real, imaginary, **rest):
    return pair(op, real, imaginary)


@to_onnx("Real")
def real(op, x, **rest):
    return parts(op, x)[0]


@to_onnx("Imag")
def imag(op, x, **rest):
    return parts(op, x)[1]


@to_onnx("Conj")
def conj(op, x):
    return pair(op, parts(op, x)[0], op.Neg(parts(op, x)[1])) if is_complex(x) else x


@to_onnx("ComplexAbs")
def complex_abs(op, x, **rest):
    """As a hypotenuse, so that squares neither overflow nor vanish: the greater part times the root of 1 + (smaller / greater)^2."""
    a, b = (op.Abs(part) for part in parts(op, x))
    most = op.Max(a, b)
    ratio = op.Div(op.Min(a, b), op.Where(op.Equal(most, number(most, 0)), op.const(number(most, 1)), most))
    return op.Mul(most, op.Sqrt(op.Add(op.Mul(ratio, ratio), number(most, 1))))


@to_onnx("Angle")
def angle(op, x, **rest):
    real_part, imaginary = parts(op, x)
    return atan2(op, imaginary, real_part)


def transform(op: TfBuilder, x: Value, axes: int, *, inverse: bool) -> Value:
    """The transform over the last axes of a complex value, one after the other."""
    real_part, imaginary = parts(op, x)
    rank = op.of(real_part)[0]
    joined = op.Concat(op.Unsqueeze(real_part, [-1]), op.Unsqueeze(imaginary, [-1]), axis=-1)
    for axis in range(rank - axes, rank):
        joined = op.DFT(_batched(op, joined, rank), None, op.const(np.int64(axis + (rank == 1))), inverse=int(inverse))
        joined = op.Squeeze(joined, [0]) if rank == 1 else joined
    return _split(op, joined)


def _batched(op: TfBuilder, joined: Value, rank: int) -> Value:
    """ONNX wants an axis before those it transforms."""
    return op.Unsqueeze(joined, [0]) if rank == 1 else joined


def _split(op: TfBuilder, joined: Value) -> Value:
    real_part, imaginary = op.Split(joined, axis=-1, num_outputs=2, _outputs=2)
    return pair(op, op.Squeeze(real_part, [-1]), op.Squeeze(imaginary, [-1]))


def _transforms(axes: int, inverse: bool) -> Any:
    def rule(op, x, **rest):
        return transform(op, x, axes, inverse=inverse)
    return rule


def _real_transforms(axes: int) -> Any:
    def rule(op, x, length: ir.Value, **rest):
        """Cut off or filled up with zeros to the length; of the last axis only the half that is not a mirror image."""
        wanted = constant(length)
        rank, sizes = op.of(x)
        if wanted is None:
            op.reject("the length of the transform must be a constant")
        for axis, extent in zip(range(rank - axes, rank), wanted.tolist(), strict=True):
            x = _fitted(op, x, axis, sizes[axis], extent)
        made = transform(op, x, axes, inverse=False)
        half = int(wanted[-1]) // 2 + 1
        real_part, imaginary = (op.Slice(part, [0], [half], [rank - 1]) for part in parts(op, made))
        return pair(op, real_part, imaginary)
    return rule


def _fitted(op: TfBuilder, x: Value, axis: int, size: Any, extent: int) -> Value:
    if size == extent:
        return x
    if not isinstance(size, int):
        op.reject("the length of the signal is not known")
    rank = op.of(x)[0]
    if size > extent:
        return op.Slice(x, [0], [extent], [axis])
    pads = [0] * (2 * rank)
    pads[rank + axis] = extent - size
    return op.Pad(x, pads)


def _inverse_real(axes: int) -> Any:
    def rule(op, x, length: ir.Value, **rest):
        """The missing half is the mirror image, conjugated: its cosines and sines are added up over the half that is there."""
        wanted = constant(length)
        if wanted is None:
            op.reject("the length of the transform must be a constant")
        real_part, imaginary = parts(op, x)
        rank, sizes = op.of(real_part)
        extents = [int(extent) for extent in wanted]
        half = extents[-1] // 2 + 1
        real_part, imaginary = (_fitted(op, part, rank - 1, sizes[-1], half) for part in (real_part, imaginary))
        for place, axis in enumerate(range(rank - axes, rank - 1)):
            real_part, imaginary = (_fitted(op, part, axis, sizes[axis], extents[place]) for part in (real_part, imaginary))
        value = pair(op, real_part, imaginary)
        if axes > 1:
            joined = op.Concat(op.Unsqueeze(real_part, [-1]), op.Unsqueeze(imaginary, [-1]), axis=-1)
            for axis in range(rank - axes, rank - 1):
                joined = op.DFT(joined, None, op.const(np.int64(axis)), inverse=1)
            value = _split(op, joined)
        real_part, imaginary = parts(op, value)
        count, angles = extents[-1], 2 * np.pi * np.outer(np.arange(half), np.arange(extents[-1])) / extents[-1]
        weight = np.full((half, 1), 2.0)
        weight[0] = 1
        if count % 2 == 0:
            weight[-1] = 1
        kind = (real_part.dtype or FLOAT).numpy()
        cosines, sines = ((weight * table / count).astype(kind) for table in (np.cos(angles), -np.sin(angles)))
        return op.Add(op.MatMul(real_part, op.const(cosines)), op.MatMul(imaginary, op.const(sines)))
    return rule


for _name, _axes in FIRST_AXES.items():
    to_onnx(f"FFT{_name}")(_transforms(_axes, False))
    to_onnx(f"IFFT{_name}")(_transforms(_axes, True))
    to_onnx(f"RFFT{_name}")(_real_transforms(_axes))
    to_onnx(f"IRFFT{_name}")(_inverse_real(_axes))


# ---- arithmetic on pairs

APART = {"Reshape", "Transpose", "Identity", "StridedSlice", "Slice", "ExpandDims", "Squeeze", "Neg", "GatherV2", "Tile", "ReverseV2", "Roll", "BroadcastTo",
         "Sum", "ConcatV2", "Pack", "Pad", "Mean", "GatherNd"}


def multiplied(op: TfBuilder, x: Value, y: Value) -> Value:
    (a, b), (c, d) = parts(op, x), parts(op, y)
    return pair(op, op.Sub(op.Mul(a, c), op.Mul(b, d)), op.Add(op.Mul(a, d), op.Mul(b, c)))


def divided(op: TfBuilder, x: Value, y: Value) -> Value:
    (a, b), (c, d) = parts(op, x), parts(op, y)
    norm = op.Add(op.Mul(c, c), op.Mul(d, d))
    return pair(op, op.Div(op.Add(op.Mul(a, c), op.Mul(b, d)), norm), op.Div(op.Sub(op.Mul(b, c), op.Mul(a, d)), norm))


def added(op: TfBuilder, x: Value, y: Value) -> Value:
    target = "Sub" if op.node.op_type == "Sub" else "Add"
    return pair(op, *(op.make(target, both, {}) for both in zip(parts(op, x), parts(op, y), strict=True)))


def exponential(op: TfBuilder, x: Value) -> Value:
    a, b = parts(op, x)
    size = op.Exp(a)
    return pair(op, op.Mul(size, op.Cos(b)), op.Mul(size, op.Sin(b)))


def cast(op: TfBuilder, x: Value) -> Value:
    """A complex type changes its precision, a real one gets an imaginary part, and becoming real drops it."""
    target = {ir.DataType.COMPLEX64: FLOAT, ir.DataType.COMPLEX128: DOUBLE}.get(op.outputs[0].dtype)
    if target is None:
        return op.Cast(parts(op, x)[0], to=op.outputs[0].dtype)
    a, b = (op.Cast(part, to=target) for part in parts(op, x))
    return pair(op, a, b)


COMPLEX = {"Mul": multiplied, "RealDiv": divided, "Div": divided, "Add": added, "AddV2": added, "Sub": added, "Exp": exponential, "Cast": cast}
