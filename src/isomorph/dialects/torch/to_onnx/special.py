"""Composed calls: functions of analysis, by the series and approximations that are usual for them, in double precision."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import MOST_IMPLIED, axis_of, cast, is_float
from isomorph.dialects.torch.to_onnx.composed import Aten, composed

DOUBLE = 7                                 # of dtype arguments
# Lanczos, g = 7, 9 coefficients (P. Godfrey)
LANCZOS = (0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905, -0.13857109526572012,
           9.9843695780195716e-6, 1.5056327351493116e-7)
# B(2k) / 2k of the asymptotic series of digamma
DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66)
SHIFT = 10                                 # terms that are summed before a series at infinity is near enough
# M. Giles, Approximating the erfinv function: near zero, and in the tails
ERFINV = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)
ERFINV_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)


def polynomial(a: Aten, x: Any, coefficients: Sequence[float]) -> Any:
    """By Horner's rule; the highest power comes first."""
    y = a.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = a.add(a.mul(y, x), coefficient)
    return y


def analytic(*names: str) -> Any:
    """Registers a function of a real number: computed in double precision, given in the type of its input."""
    def register(function: Any) -> Any:
        def rule(a, x, *args):
            back = x.dtype if is_float(x) else ir.DataType.FLOAT
            return cast(a.op, function(a, a.to(x, DOUBLE), *args), back)
        composed(*names)(rule)
        return function
    return register


@analytic("lgamma", "special_gammaln")
def lgamma(a, x):
    """Below one half by reflection."""
    small = a.lt(x, 0.5)
    z = a.sub(a.where(small, a.rsub(x, 1.0), x), 1.0)
    total = a.full_like(z, LANCZOS[0])
    for place, coefficient in enumerate(LANCZOS[1:], 1):
        total = a.add(total, a.div(a.full_like(z, coefficient), a.add(z, float(place))))
    t = a.add(z, 7.5)
    large = a.add(a.sub(a.mul(a.add(z, 0.5), a.log(t)), t), a.add(a.log(total), 0.5 * math.log(2 * math.pi)))
    sine = a.abs(a.sin(a.mul(a.sub(x, a.floor(x)), math.pi)))
    return a.where(small, a.sub(a.rsub(a.log(sine), math.log(math.pi)), large), a.where(a.eq(x, math.inf), x, large))


@analytic("digamma", "special_digamma", "special_psi")
def digamma(a, x):
    """Below zero by reflection; small arguments are moved to where the asymptotic series holds."""
    negative = a.lt(x, 0.0)
    z = a.where(negative, a.rsub(x, 1.0), x)
    moved = a.zeros_like(z)
    for step in range(SHIFT):
        moved = a.add(moved, a.reciprocal(a.add(z, float(step))))
    far = a.add(z, float(SHIFT))
    square = a.reciprocal(a.mul(far, far))
    series = a.mul(polynomial(a, square, DIGAMMA[::-1]), square)
    value = a.sub(a.sub(a.log(far), a.div(a.full_like(far, 0.5), far)), a.add(series, moved))
    angle = a.mul(a.sub(x, a.floor(x)), math.pi)
    turned = a.sub(value, a.div(a.mul(a.cos(angle), math.pi), a.sin(angle)))
    pole = a.logical_and(negative, a.eq(x, a.floor(x)))
    return a.where(pole, math.nan, a.where(a.eq(x, 0.0), a.neg(a.reciprocal(x)), a.where(negative, turned, value)))


def zeta(a: Aten, s: float, q: Any) -> Any:
    """Hurwitz' zeta function for a whole s above 1: terms, then the formula of Euler and Maclaurin."""
    total = a.zeros_like(q)
    for step in range(SHIFT):
        total = a.add(total, a.pow(a.add(q, float(step)), -s))
    far = a.add(q, float(SHIFT))
    total = a.add(total, a.add(a.div(a.pow(far, 1 - s), s - 1), a.mul(a.pow(far, -s), 0.5)))
    factor, power = s, -s - 1
    for place, bernoulli in enumerate(BERNOULLI):
        total = a.add(total, a.mul(a.pow(far, power), bernoulli * factor / math.factorial(2 * place + 2)))
        factor *= (s + 2 * place + 1) * (s + 2 * place + 2)
        power -= 2
    return total


@composed("polygamma", "special_polygamma")
def polygamma(a, n, x):
    """The derivatives of digamma; the order may stand on either side."""
    n, x = (x, n) if isinstance(n, ir.Value) else (n, x)
    if n == 0:
        return a.digamma(x)
    value = a.mul(zeta(a, n + 1, a.to(x, DOUBLE)), (-1.0) ** (n + 1) * math.factorial(n))
    return cast(a.op, value, x.dtype if is_float(x) else ir.DataType.FLOAT)


@composed("mvlgamma", "special_multigammaln")
def mvlgamma(a, x, p):
    x = a.to(x, DOUBLE) if is_float(x) else a.to(x, 6)
    total = a.lgamma(x)
    for place in range(1, p):
        total = a.add(total, a.lgamma(a.sub(x, place / 2)))
    return cast(a.op, a.add(total, p * (p - 1) / 4 * math.log(math.pi)), ir.DataType.FLOAT)


@analytic("erfinv", "special_erfinv")
def erfinv(a, x):
    w = a.neg(a.log(a.mul(a.rsub(x, 1.0), a.add(x, 1.0))))
    near = polynomial(a, a.sub(w, 2.5), ERFINV)
    far = polynomial(a, a.sub(a.sqrt(a.clamp(w, 0.0)), 3.0), ERFINV_TAIL)
    value = a.mul(a.where(a.lt(w, 5.0), near, far), x)
    return a.where(a.eq(a.abs(x), 1.0), a.mul(x, math.inf), a.where(a.gt(a.abs(x), 1.0), math.nan, value))


@composed("special_ndtri")
def ndtri(a, x):
    return a.mul(a.erfinv(a.sub(a.mul(x if is_float(x) else a.to(x, 6), 2.0), 1.0)), math.sqrt(2))


# M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 9.8.1 to 9.8.4: (near zero, beyond), in (x / 3.75) ** 2 and 3.75 / x
I0 = ((0.0045813, 0.0360768, 0.2659732, 1.2067492, 3.0899424, 3.5156229, 1.0),
      (0.00392377, -0.01647633, 0.02635537, -0.02057706, 0.00916281, -0.00157565, 0.00225319, 0.01328592, 0.39894228))
I1 = ((0.00032411, 0.00301532, 0.02658733, 0.15084934, 0.51498869, 0.87890594, 0.5),
      (-0.00420059, 0.01787654, -0.02895312, 0.02282967, -0.01031555, 0.00163801, -0.00362018, -0.03988024, 0.39894228))


def bessel_i(a: Aten, x: Any, order: int, scaled: bool) -> Any:
    """The modified Bessel functions of the first kind, times exp(-|x|) where `scaled`."""
    size = a.abs(x)
    inner, outer = (I0, I1)[order]
    t = a.div(size, 3.75)
    near = polynomial(a, a.mul(t, t), inner)
    near = a.mul(near, x) if order else near
    far = a.div(polynomial(a, a.reciprocal(a.clamp(t, 1.0)), outer), a.sqrt(a.clamp(size, 3.75)))
    far = a.mul(far, a.sign(x)) if order else far
    if scaled:
        return a.where(a.lt(size, 3.75), a.mul(near, a.exp(a.neg(size))), far)
    return a.where(a.lt(size, 3.75), near, a.mul(far, a.exp(size)))


for _order in (0, 1):
    _names = ("i0", "special_i0", "special_modified_bessel_i0") if not _order else ("special_i1", "special_modified_bessel_i1")
    analytic(*_names)(lambda a, x, _order=_order: bessel_i(a, x, _order, False))
    analytic(f"special_i{_order}e")(lambda a, x, _order=_order: bessel_i(a, x, _order, True))
analytic("special_spherical_bessel_j0")(lambda a, x: a.where(a.eq(x, 0.0), 1.0, a.div(a.sin(x), x)))


@composed("fft_irfft", "fft_hfft")
def real_spectrum(a, x, n=None, dim=-1, norm=None):
    """Of a spectrum without imaginary part: a product with the matrix of its cosines."""
    axis = axis_of(a.op, x, dim)
    count = a.op.of(x)[1][axis]
    wanted = 2 * (count - 1) if n is None and isinstance(count, int) else n
    if not isinstance(count, int) or not isinstance(wanted, int) or not 0 < wanted * count <= MOST_IMPLIED:
        a.op.reject("a spectrum whose length only the run knows")
    make = np.fft.irfft if a.op.node.op_type == "fft_irfft" else np.fft.hfft
    back = x.dtype if is_float(x) else ir.DataType.FLOAT
    matrix = a.op.const(make(np.eye(count), wanted, norm=norm).astype(back.numpy()))
    return a.movedim(a.matmul(a.movedim(cast(a.op, x, back), axis, -1), matrix), -1, axis)


@composed("fft_irfft2", "fft_irfftn", "fft_hfft2", "fft_hfftn")
def real_spectra(a, x, s=None, dim=None, norm=None):
    """Along several axes: complex products with their matrices, of which the last one is real."""
    name, (rank, shape) = a.op.node.op_type, a.op.of(x)
    axes = [-2, -1] if dim is None and name.endswith("2") else list(dim) if dim is not None else list(range(-len(s) if s is not None else -rank, 0))
    back = x.dtype if is_float(x) else ir.DataType.FLOAT
    real, imaginary = cast(a.op, x, back), None
    inverse = name.startswith("fft_irfft")
    inner, last = (np.fft.ifft, np.fft.irfft) if inverse else (np.fft.fft, np.fft.hfft)
    for place, axis in enumerate(axes):
        count = shape[axis]
        if not isinstance(count, int):
            a.op.reject("a spectrum whose length only the run knows")
        final = place + 1 == len(axes)
        wanted = s[place] if s is not None and s[place] != -1 else 2 * (count - 1) if final else count
        parts = [(last if final else inner)(unit * np.eye(count), wanted, norm=norm) for unit in (1, 1j)]
        pair = [(value, matrix) for value, matrix in zip((real, imaginary), parts, strict=True) if value is not None]
        sides = [np.real] if final else [np.real, np.imag]
        moved = [(a.movedim(value, axis, -1), matrix) for value, matrix in pair]
        found = []
        for side in sides:
            products = [a.matmul(value, a.op.const(np.ascontiguousarray(side(matrix), back.numpy()))) for value, matrix in moved]
            found.append(a.movedim(products[0] if len(products) == 1 else a.add(*products), -1, axis))
        real, imaginary = found[0], found[1] if len(found) > 1 else None
    return real


@composed("_unsafe_masked_index")
def masked_index(a, x, mask, indices, fill):
    """Positions where the mask is false may lie anywhere: the first element stands in before it is replaced."""
    safe = [None if index is None else a.where(mask, index, 0) for index in indices]
    return a.where(mask, a.index(x, safe), fill)


@composed("_unsafe_masked_index_put_accumulate")
def masked_index_put(a, x, mask, indices, values):
    """The same for adding: what the mask leaves out adds nothing."""
    safe = [None if index is None else a.where(mask, index, 0) for index in indices]
    return a.index_put(x, safe, a.where(mask, values, 0), True)
