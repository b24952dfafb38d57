"""Sigmoid and tanh of 16-bit fixed-point numbers as gemmlowp computes them (fixedpoint/fixedpoint.h), for every argument at once: tables for Gather.

Numbers are arrays of what is stored; a number with n bits before the point has 15 - n behind it.
"""
from __future__ import annotations

from functools import cache

import numpy as np

Array = np.ndarray
LEAST, MOST = -(1 << 15), (1 << 15) - 1
ONE = MOST                                   # of a number without bits before the point
ARGUMENTS = np.arange(LEAST, MOST + 1)
# exp(-2^n) from n = -2 on, in 31 bits behind the point
POWERS = {-2: 1672461947, -1: 1302514674, 0: 790015084, 1: 290630308, 2: 39332535, 3: 720401, 4: 242}


@cache
def sigmoid() -> Array:
    """int16 [65,536]: of numbers with 3 bits before the point, from the least on; the results have none."""
    positive = _one_over_one_plus(_exp(-np.abs(ARGUMENTS), 3))
    return np.where(ARGUMENTS == 0, _constant(1 << 30), np.where(ARGUMENTS > 0, positive, ONE - positive)).astype(np.int16)


@cache
def tanh(bits: int) -> Array:
    """The same of numbers with `bits` before the point."""
    found = _one_minus_over_one_plus(_exp(-np.abs(ARGUMENTS), bits + 1))
    return (np.sign(ARGUMENTS) * found).astype(np.int16)


def _saturated(values: Array) -> Array:
    return np.clip(values, LEAST, MOST)


def _constant(value: int) -> int:
    """A number of 31 bits in 15."""
    return int(_shifted(np.array(value), -16))


def _shifted(values: Array, exponent: int) -> Array:
    """Times a power of two, saturating; rounded to the nearest, halves away from zero."""
    if exponent >= 0:
        return _saturated(values << exponent)
    return np.sign(values) * ((np.abs(values) + (1 << (-exponent - 1))) >> -exponent)


def _product(a: Array, b: Array | int) -> Array:
    return _saturated((a * b + (1 << 14)) >> 15)


def _exp(values: Array, bits: int) -> Array:
    """Of numbers at or below zero: of what is left modulo a quarter by a polynomial, times the powers that the rest is made of."""
    fraction = 15 - bits
    quarter = 1 << (fraction - 2)
    modulo = (values & (quarter - 1)) - quarter
    result, rest = _exp_near_zero(_shifted(modulo, bits)), modulo - values
    for power, factor in POWERS.items():
        if bits > power:
            result = np.where(rest & 1 << (fraction + power), _product(result, _constant(factor)), result)
    return np.where(values == 0, ONE, result)


def _exp_near_zero(values: Array) -> Array:
    """Between a quarter below zero and zero, around an eighth below, to the fourth power."""
    start, third = _constant(1895147668), _constant(715827883)
    x = values + (1 << 12)
    square = _product(x, x)
    higher = _shifted(_product(_shifted(_product(square, square), -2) + _product(square, x), third) + square, -1)
    return _saturated(start + _product(x + higher, start))


def _reciprocal(values: Array) -> tuple[Array, int]:
    """2 / (1 + value) with 2 bits before the point, by three steps of Newton's method from 48/17 - 32/17 d; and what one is there."""
    half, one = (values + ONE + 1) >> 1, 1 << 13
    x = _constant(1515870810) + _product(half, _constant(-1010580540))
    for _ in range(3):
        x = x + _shifted(_product(x, one - _product(half, x)), 2)
    return x, one


def _one_over_one_plus(values: Array) -> Array:
    return _shifted(_reciprocal(values)[0], 1)


def _one_minus_over_one_plus(values: Array) -> Array:
    x, one = _reciprocal(values)
    return _shifted(x - one, 2)
