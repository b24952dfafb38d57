"""float32 as blocks of ggml, with the bits of the reference (ggml/src/ggml-quants.c, built without contraction of multiplications and additions).

The reference searches scales in float32, and what it finds depends on the order of its operations. So each group of elements has a column here: arrays are
[elements of a group, groups], every operation is one of the reference's for all groups at once, and sums run down the columns one element after another.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isomorph.quant import native
from isomorph.quant.blocks import BLOCKS
from isomorph.quant.decode import E8M0, FP4, IQ4, UE4M3, layout, scales_and_mins

Array = np.ndarray
F = np.float32
ENCODERS: dict[str, Callable[..., None]] = {}
WEIGHTED: set[str] = set()                   # the types whose encoder takes a weight for each element
NEGLIGIBLE = F(1e-15)                        # a group whose greatest magnitude is below is all zero
AT_ONCE = 1 << 18                            # elements that are encoded at once: so much stays in the processor's cache
FAR_BELOW = F(-4e6)                         # from about here on the reference's rounding wraps
ROUNDER = F(12582912)                        # 1.5 * 2^23: adding it rounds to the nearest integer, ties to even


def quantize(name: str, elements: Array, importance: Array | None = None) -> Array:
    """float32 [rows, columns], or any shape whose last axis is whole blocks, as uint8 [blocks, bytes of a block]. Values must be finite.

    `importance` is float32 [columns] or [rows, columns]: how much the square of an error in each place matters. Types that cannot use it ignore it.
    Raises `KeyError` for a type without an encoder.
    """
    encode, kind = ENCODERS[name], BLOCKS[name]
    rows = np.ascontiguousarray(elements, F)
    groups = rows.reshape(-1, kind.elements)
    weights = None
    with np.errstate(all="ignore"):           # groups of zeros divide by zero, and what comes of it is thrown away
        if importance is not None and name in WEIGHTED:
            weights = weighed(name, rows.reshape(-1, rows.shape[-1]), importance)
        blocks = np.zeros(len(groups), layout(name))
        if native.encode(name, groups, weights, blocks):
            return blocks.view(np.uint8).reshape(-1, kind.bytes)
        step = max(2, AT_ONCE // kind.elements)
        for start in range(0, len(groups), step):
            given = [groups[start:start + step]] if weights is None else [groups[start:start + step], weights[start:start + step]]
            out = blocks[start:start + step]
            if len(out) > 1:
                encode(given[0], out, *given[1:])
            else:                             # NumPy sums a single column in another order
                twice = np.zeros(2, out.dtype)
                doubled = [np.repeat(piece, 2, axis=0) for piece in given]
                encode(doubled[0], twice, *doubled[1:])
                out[:] = twice[:1]
    return blocks.view(np.uint8).reshape(-1, kind.bytes)


def encoder(name: str, *, weighted: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(function: Callable[..., None]) -> Callable[..., None]:
        ENCODERS[name] = function
        if weighted:
            WEIGHTED.add(name)
        return function
    return register


# What the mean square, over which elements an error counts, is multiplied with: of a block, or of a whole row
SPREAD = {"Q2_K": 1, "Q3_K": 2, "Q4_K": 2, "Q5_K": 2, "IQ4_NL": 2, "IQ4_XS": 2}
OF_ROW = {"Q4_0", "Q4_1", "Q5_0", "Q5_1"}


def weighed(name: str, rows: Array, importance: Array) -> Array:
    """The weights of the search, [blocks, elements]: importance times the root of (mean square + square of the element); for Q6_K the importance alone."""
    groups = rows.reshape(-1, BLOCKS[name].elements)
    spread = np.broadcast_to(importance.astype(F, copy=False), rows.shape).reshape(groups.shape)
    if name not in SPREAD and name not in OF_ROW:
        return spread
    over = rows if name in OF_ROW else groups
    columns = down(over if len(over) > 1 else np.repeat(over, 2, axis=0))
    mean = (total(columns * columns) * F(SPREAD.get(name, 1)) / F(over.shape[1]))[:len(over)]
    mean = np.repeat(mean, len(groups) // len(over))
    return spread * np.sqrt(mean[:, None] + groups * groups)


# ---- what the encoders share

def down(groups: Array) -> Array:
    """[groups, elements] -> [elements, groups], contiguous."""
    return np.ascontiguousarray(groups.T)


def total(terms: Array) -> Array:
    """Sums down the columns, one element after another from zero, as a loop does."""
    return np.add.reduce(terms, axis=0, initial=F(0))


def nearest(values: Array) -> Array:
    """int32, rounded as the reference does: what exceeds 22 bits wraps."""
    whole = (values + ROUNDER).view(np.int32)
    whole &= 0x007FFFFF
    whole -= 0x00400000
    return whole


def rounded(values: Array) -> Array:
    """float32, rounded to the nearest integer, ties away from zero."""
    whole = np.trunc(values)
    return whole + np.where(np.abs(values - whole) >= F(0.5), np.copysign(F(1), values), F(0))


def narrowed(values: Array, dtype: type) -> Array:
    """A float as a small integer, cut off and wrapped as the processor does."""
    return values.astype(np.int32).astype(dtype)


def greatest(groups: Array) -> Array:
    """The element of greatest magnitude, the first of several, with its sign; +0 where all are zero."""
    high, low = groups.max(0), groups.min(0)
    found = np.where(high >= -low, high, low) + F(0)
    tied = np.flatnonzero(high == -low)
    found[tied] = np.take_along_axis(groups[:, tied], np.abs(groups[:, tied]).argmax(0)[None], 0)[0] + F(0)
    return found


def lowest(groups: Array) -> Array:
    """The least element, the first of several: zero has two signs."""
    found = groups.min(0)
    zeros = np.flatnonzero(found == 0)
    found[zeros] = np.take_along_axis(groups[:, zeros], groups[:, zeros].argmin(0)[None], 0)[0]
    return found


def inverse(values: Array) -> Array:
    """1 / value, 0 for 0."""
    return np.where(values != 0, F(1) / values, F(0))


def pack_nibbles(codes: Array, group: int) -> Array:
    """The inverse of `decode.nibbles`: [n, elements] -> [n, elements / 2]."""
    parts = codes.astype(np.uint8).reshape(len(codes), -1, 2, group)
    return (parts[:, :, 0] | parts[:, :, 1] << np.uint8(4)).reshape(len(codes), -1)


def pack_pairs(codes: Array, group: int) -> Array:
    """The inverse of `decode.pairs`: [n, elements] -> [n, elements / 4]."""
    parts = codes.astype(np.uint8).reshape(len(codes), -1, 4, group)
    return (parts[:, :, 0] | parts[:, :, 1] << np.uint8(2) | parts[:, :, 2] << np.uint8(4) | parts[:, :, 3] << np.uint8(6)).reshape(len(codes), -1)


def pack_bits(bits: Array) -> Array:
    return np.packbits(bits, axis=-1, bitorder="little")


# ---- one scale a block

def symmetric(groups: Array, most: int) -> tuple[Array, Array]:
    """Codes 0 to 2 * most - 1 around zero, and the scale: the element of greatest magnitude becomes code 0."""
    d = greatest(groups.T) / F(-most)
    codes = narrowed(groups * inverse(d)[:, None] + F(most + 0.5), np.int8)
    return np.minimum(codes, np.int8(2 * most - 1)).view(np.uint8), d


def ranged(groups: Array, most: int) -> tuple[Array, Array, Array]:
    """Codes 0 to `most` from the least element to the greatest, the scale and the least element."""
    low = np.take_along_axis(groups, groups.argmin(1)[:, None], 1)[:, 0]
    d = (groups.max(1) - low + F(0)) / F(most)               # adding zero makes -0 of a group of zeros what the reference has
    codes = narrowed((groups - low[:, None]) * inverse(d)[:, None] + F(0.5), np.int8)
    return np.minimum(codes, np.int8(most)).view(np.uint8), d, low


def searched(groups: Array, weights: Array, most: int) -> tuple[Array, Array]:
    """As `symmetric`, with the scale of least weighted error."""
    scale, codes = around_zero(down(groups), most, down(weights))
    return codes.T.astype(np.uint8), scale


def searched_range(groups: Array, weights: Array, most: int) -> tuple[Array, Array, Array]:
    """As `ranged`, with the scale and the minimum of least weighted error."""
    scale, minimum, codes = scale_and_minimum(down(groups), down(weights), most, *IMPORTANT)
    return codes.T.astype(np.uint8), scale, -minimum


@encoder("Q4_0", weighted=True)
def q4_0(groups: Array, out: Array, weights: Array | None = None) -> None:
    codes, out["d"] = symmetric(groups, 8) if weights is None else searched(groups, weights, 8)
    out["qs"] = pack_nibbles(codes, 16)


@encoder("Q4_1", weighted=True)
def q4_1(groups: Array, out: Array, weights: Array | None = None) -> None:
    codes, out["d"], out["m"] = ranged(groups, 15) if weights is None else searched_range(groups, weights, 15)
    out["qs"] = pack_nibbles(codes, 16)


@encoder("Q5_0", weighted=True)
def q5_0(groups: Array, out: Array, weights: Array | None = None) -> None:
    codes, out["d"] = symmetric(groups, 16) if weights is None else searched(groups, weights, 16)
    out["qs"], out["qh"] = pack_nibbles(codes & 15, 16), pack_bits(codes >> 4)


@encoder("Q5_1", weighted=True)
def q5_1(groups: Array, out: Array, weights: Array | None = None) -> None:
    codes, out["d"], out["m"] = ranged(groups, 31) if weights is None else searched_range(groups, weights, 31)
    out["qs"], out["qh"] = pack_nibbles(codes & 15, 16), pack_bits(codes >> 4)


@encoder("Q8_0")
def q8_0(groups: Array, out: Array) -> None:
    d = np.abs(groups).max(1) / F(127)
    out["d"], out["qs"] = d, narrowed(rounded(groups * inverse(d)[:, None]), np.int8)


@encoder("Q1_0")
def q1_0(groups: Array, out: Array) -> None:
    out["d"], out["qs"] = total(np.abs(down(groups))) / F(128), pack_bits(groups >= 0)


@encoder("Q2_0")
def q2_0(groups: Array, out: Array) -> None:
    d = np.abs(groups).max(1)
    codes = np.clip(narrowed(rounded(groups * inverse(d)[:, None]), np.int32) + 1, 0, 3)
    out["d"], out["qs"] = d, pack_pairs(codes.reshape(len(groups), -1, 4).swapaxes(1, 2).reshape(len(groups), -1), 16)


def trits(groups: Array, out: Array) -> Array:
    """Codes 0, 1, 2 for -d, 0 and d."""
    d = np.abs(groups).max(1)
    out["d"] = d
    return narrowed(rounded(groups * inverse(d)[:, None]), np.int8) + np.int8(1)


@encoder("TQ1_0")
def tq1_0(groups: Array, out: Array) -> None:
    """Five trits a byte, the first one highest, as the fraction byte / 256 of 3^5 values; the last bytes hold four."""
    codes = trits(groups, out).view(np.uint8)
    for field, start, stop, bytes_ in (("qs", 0, 160, slice(0, 32)), ("qs", 160, 240, slice(32, 48)), ("qh", 240, 256, slice(0, 4))):
        width = bytes_.stop - bytes_.start
        value = np.zeros((len(groups), width), np.uint16)
        for part in codes[:, start:stop].reshape(len(groups), -1, width).swapaxes(0, 1):
            value = value * 3 + part
        value = value * 3 if field == "qh" else value
        out[field][:, bytes_] = ((value & 255) * np.uint16(256) + np.uint16(242)) // np.uint16(243)


@encoder("TQ2_0")
def tq2_0(groups: Array, out: Array) -> None:
    out["qs"] = pack_pairs(trits(groups, out).view(np.uint8) & 3, 32)


def nearest_fp4(values: Array, scale: Array) -> Array:
    """The code of least error, the first of several. `scale` broadcasts against `values`."""
    codes = np.zeros(values.shape, np.uint8)
    least = np.abs(FP4[0] * scale - values)
    for code in range(1, 16):
        error = np.abs(FP4[code] * scale - values)
        better = error < least
        codes[better] = code
        np.copyto(least, error, where=better)
    return codes


@encoder("MXFP4")
def mxfp4(groups: Array, out: Array) -> None:
    most = np.abs(groups).max(1)
    exponent = np.floor(np.log2(most.astype(np.float64)).astype(F)) - F(2) + F(127)
    out["e"] = np.where(most > 0, narrowed(exponent, np.uint8), 0)
    out["qs"] = pack_nibbles(nearest_fp4(groups, E8M0[out["e"]][:, None]), 16)


def to_ue4m3(values: Array) -> Array:
    """The nearest unsigned E4M3, ties up; below the least 0, above 448 the greatest."""
    bits = np.minimum(values, F(448)).view(np.int32)
    exponent = (bits >> 23 & 255) - 120
    code = (exponent << 3) + (bits >> 20 & 7) + (bits >> 19 & 1)
    small = np.minimum((values * F(512) + F(0.5)).astype(np.int32), 7)
    return np.where(values > 0, np.where(exponent <= 0, small, np.where(code < 0x78, code, 0x7E)), 0).astype(np.uint8)


@encoder("NVFP4")
def nvfp4(groups: Array, out: Array) -> None:
    parts = groups.reshape(len(groups), 4, 16)
    out["d"] = to_ue4m3(np.abs(parts).max(2) / F(6))
    out["qs"] = pack_nibbles(nearest_fp4(parts, UE4M3[out["d"]][..., None]).reshape(len(groups), -1), 8)


# ---- super-blocks with scales and minima

IMPORTANT = (-0.9, 0.05, 36)                 # first, step and steps of `scale_and_minimum` where there is an importance


def scale_and_minimum(x: Array, weights: Array, most: int, first: float, step: float, steps: int, *, absolute: bool = False) -> tuple[Array, Array, Array]:
    """For each column the scale, the negated minimum and the codes 0 to `most` of least weighted error; tries `steps` + 1 scales by least squares.

    The reference's make_qkx2_quants. Codes are float32 [elements, columns].
    """
    low, high = lowest(x), x.max(0)
    sum_w, sum_x = np.add.reduce(weights, axis=0), np.add.reduce(weights * x, axis=0)
    low = np.where(low > 0, F(0), low)
    flat = high == low
    factor = F(most) / (high - low)
    scale, minimum, best_factor, best_minimum = F(1) / factor, low.copy(), factor.copy(), low.copy()     # the last two make the best codes again
    weighted, scratch, tried = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    best = _error(x, weights, _codes(x, factor, low, most, low, tried), scale, minimum, absolute)
    for trial in range(steps + 1):
        # The reference goes on from the minimum that it has found, so later trials differ once one was better.
        factor = (F(first) + F(step) * F(trial) + F(most)) / (high - minimum)
        _codes(x, factor, minimum, most, low, tried)
        np.multiply(weights, tried, out=weighted)
        sum_l, sum_xl, sum_l2 = total(weighted), total(np.multiply(weighted, x, out=scratch)), total(np.multiply(weighted, tried, out=weighted))
        determinant = sum_w * sum_l2 - sum_l * sum_l
        this_scale, this_minimum = (sum_w * sum_xl - sum_x * sum_l) / determinant, (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        positive = np.flatnonzero(this_minimum > 0)
        this_scale[positive], this_minimum[positive] = sum_xl[positive] / sum_l2[positive], 0
        error = _error(x, weights, tried, this_scale, this_minimum, absolute)
        better = np.flatnonzero((determinant > 0) & (error < best))
        best_factor[better], best_minimum[better] = factor[better], minimum[better]
        best[better], scale[better], minimum[better] = error[better], this_scale[better], this_minimum[better]
    codes = _codes(x, best_factor, best_minimum, most, low, tried)
    codes[:, flat] = 0
    return np.where(flat, F(0), scale), -minimum, codes


def _codes(x: Array, factor: Array, minimum: Array, most: int, low: Array, out: Array) -> Array:
    """(x - minimum) * factor, rounded and held in 0 to `most`; `low` is the least x of each column.

    What the reference's rounding makes of an infinite factor ends as code 0. What is far below zero wraps in it, which only a minimum brings about
    that was found far above the least element.
    """
    np.subtract(x, minimum, out=out)
    infinite = np.isinf(factor)
    finite = np.where(infinite, F(0), factor) if infinite.any() else factor
    out *= finite
    if ((low - minimum) * finite < FAR_BELOW).any():
        out[:] = nearest(out)
    else:
        np.rint(out, out=out)
    return np.clip(out, F(0), F(most), out=out)


def _error(x: Array, weights: Array, codes: Array, scale: Array, minimum: Array, absolute: bool) -> Array:
    """The weighted error of each column. What it computes takes the place of the codes."""
    codes *= scale
    codes += minimum
    codes -= x
    np.abs(codes, out=codes) if absolute else np.multiply(codes, codes, out=codes)
    codes *= weights
    return total(codes)


def blockwise(values: Array, groups: int) -> Array:
    """One value a group -> [blocks, groups of a block]."""
    return values.reshape(-1, groups)


def recoded(x: Array, codes: Array, d: Array, least: int, most: int) -> Array:
    """Codes for the scales as they are stored; a group whose scale became 0 keeps those of the search. `x` is [elements, groups], `d` [groups]."""
    again = nearest(x / d)
    np.clip(again, least, most, out=again)
    again -= least
    kept = np.flatnonzero(d == 0)
    again[:, kept] = codes[:, kept]
    return again.astype(np.uint8).T


@encoder("Q2_K", weighted=True)
def q2_k(groups: Array, out: Array, weights: Array | None = None) -> None:
    x = down(groups.reshape(-1, 16))
    packed = np.zeros((len(groups), 16), np.uint8)
    if weights is None:
        scales, minima, codes = scale_and_minimum(x, np.abs(x), 3, -0.5, 0.1, 15, absolute=True)
        for field, values, shift in (("d", blockwise(scales, 16), 0), ("dmin", blockwise(minima, 16), 4)):
            highest = np.maximum(values.max(1), F(0))
            stored = (nearest((F(15) / highest)[:, None] * values) << shift).astype(np.uint8)
            packed |= np.where(highest[:, None] > 0, stored, np.uint8(0))
            out[field] = np.where(highest > 0, highest / F(15), F(0))
    else:
        w = down(weights.reshape(-1, 16))
        scales, minima, codes = scale_and_minimum(x, w, 3, *IMPORTANT)
        for field, values, shift in (("d", scales, 0), ("dmin", minima, 4)):
            out[field], stored = above_zero(blockwise(values, 16), blockwise(total(w), 16), 15)
            packed |= stored << np.uint8(shift)
    out["scales"] = packed
    d = (out["d"].astype(F)[:, None] * (packed & 15)).astype(F).reshape(-1)
    offset = (out["dmin"].astype(F)[:, None] * (packed >> 4)).astype(F).reshape(-1)
    out["qs"] = pack_pairs(recoded(x + offset, codes, d, 0, 3).reshape(len(groups), -1), 32)


def above_zero(values: Array, weights: Array, most: int) -> tuple[Array, Array]:
    """The scale of values at or above zero, [blocks, groups of a block], and their codes up to `most`, of least weighted error. make_qp_quants."""
    x, w = down(values), down(weights)
    highest = np.maximum(x.max(0), F(0))
    best_factor = F(most) / highest
    codes = nearest(best_factor * x).astype(np.uint8)
    difference = x - F(1) / best_factor * codes
    least = total(w * difference * difference)
    for step in (-4, -3, -2, -1, 1, 2, 3, 4):
        factor = (F(0.1) * F(step) + F(most)) / highest
        difference = x - F(1) / factor * np.minimum(nearest(factor * x), most).astype(F)
        error = total(w * difference * difference)
        better = error < least
        least, best_factor = np.where(better, error, least), np.where(better, factor, best_factor)
    whole = np.minimum(nearest(best_factor * x), most)
    sum_lx, sum_l2 = total(w * x * whole.astype(F)), total(w * whole.astype(F) * whole.astype(F))
    codes = whole.astype(np.uint8)
    going = np.ones(len(highest), bool)
    for _ in range(5):
        changed = np.zeros(len(highest), bool)
        for place, (element, weight) in enumerate(zip(x, w, strict=True)):
            code = codes[place].astype(F)
            rest_lx, rest_l2 = sum_lx - weight * element * code, sum_l2 - weight * code * code
            tried = np.minimum(nearest(element * rest_l2 / rest_lx), most)
            new_lx, new_l2 = rest_lx + weight * element * tried.astype(F), rest_l2 + weight * tried.astype(F) * tried.astype(F)
            better = going & (rest_lx > 0) & (rest_l2 > 0) & (tried != codes[place]) & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
            codes[place] = np.where(better, tried.astype(np.uint8), codes[place])
            sum_lx, sum_l2 = np.where(better, new_lx, sum_lx), np.where(better, new_l2, sum_l2)
            changed |= better
        going &= changed
        if not going.any():
            break
    zero = highest < NEGLIGIBLE
    codes[:, zero] = 0
    return np.where(zero | ~(sum_l2 > 0), F(0), sum_lx / sum_l2), codes.T


def with_minima(groups: Array, out: Array, most: int, first: float, steps: int, given: Array | None) -> Array:
    """Scales and minima of Q4_K and Q5_K; answers the codes [blocks, 256]."""
    x = down(groups.reshape(-1, 32))
    weights = np.sqrt(total(x * x) / F(32)) + np.abs(x) if given is None else down(given.reshape(-1, 32))
    scales, minima, codes = scale_and_minimum(x, weights, most, *((first, 0.1, steps) if given is None else IMPORTANT))
    stored = []
    for field, values in (("d", blockwise(scales, 8)), ("dmin", blockwise(minima, 8))):
        if given is not None:
            out[field], found = above_zero(values, blockwise(total(weights), 8), 63)
            stored.append(np.minimum(found, np.uint8(63)) if most == 31 else found)
            continue
        highest = np.maximum(values.max(1), F(0))
        factor = np.where(highest > 0, F(63) / highest, F(0))
        stored.append(np.minimum(nearest(factor[:, None] * values).astype(np.uint8), np.uint8(63)))
        out[field] = highest / F(63)
    out["scales"] = pack_scales_and_mins(*stored)
    scale_codes, minimum_codes = scales_and_mins(out["scales"])
    d = (out["d"].astype(F)[:, None] * scale_codes).astype(F).reshape(-1)
    offset = (out["dmin"].astype(F)[:, None] * minimum_codes).astype(F).reshape(-1)
    return recoded(x + offset, codes, d, 0, most).reshape(len(groups), -1)


def pack_scales_and_mins(scales: Array, minima: Array) -> Array:
    """The inverse of `decode.scales_and_mins`."""
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = minima[:, :4] | minima[:, 4:] >> 4 << 6
    return np.concatenate([first, second, scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4], axis=1)


@encoder("Q4_K", weighted=True)
def q4_k(groups: Array, out: Array, weights: Array | None = None) -> None:
    out["qs"] = pack_nibbles(with_minima(groups, out, 15, -1.0, 20, weights), 32)


@encoder("Q5_K", weighted=True)
def q5_k(groups: Array, out: Array, weights: Array | None = None) -> None:
    codes = with_minima(groups, out, 31, -0.5, 15, weights)
    out["qs"] = pack_nibbles(codes & 15, 32)
    out["qh"] = pack_bits((codes >> 4).astype(np.uint8).reshape(len(groups), 8, 32).swapaxes(1, 2))[..., 0]


# ---- super-blocks around zero

def q3_search(x: Array) -> tuple[Array, Array]:
    """Scale and codes 0 to 7 of 16 elements: least squares, then five rounds in which each element in turn may change its code. make_q3_quants."""
    most = greatest(x)
    codes = np.clip(nearest(F(-4) / most * x), -4, 3).astype(F)
    weights = x * x
    pulls = weights * x
    sum_lx, sum_l2 = total(pulls * codes), total(weights * codes * codes)
    for _ in range(5):
        for place in range(len(x)):
            code, weight, pull = codes[place], weights[place], pulls[place]
            rest_lx, rest_l2 = sum_lx - pull * code, sum_l2 - weight * code * code
            tried = np.clip(nearest(x[place] * rest_l2 / rest_lx), -4, 3).astype(F)
            new_lx, new_l2 = rest_lx + pull * tried, rest_l2 + weight * tried * tried
            better = (rest_lx > 0) & (tried != code) & (new_l2 > 0) & (new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
            codes[place] = np.where(better, tried, code)
            sum_lx, sum_l2 = np.where(better, new_lx, sum_lx), np.where(better, new_l2, sum_l2)
    zero = np.abs(most) < NEGLIGIBLE
    codes += F(4)
    codes[:, zero] = 0
    return np.where(zero | ~(sum_l2 > 0), F(0), sum_lx / sum_l2), codes


@encoder("Q3_K", weighted=True)
def q3_k(groups: Array, out: Array, weights: Array | None = None) -> None:
    x = down(groups.reshape(-1, 16))
    if weights is None:
        scales, codes = q3_search(x)
        values = blockwise(scales, 16)
        most = greatest(values.T)
        factor = F(-32) / most
        stored = np.where(most[:, None] != 0, np.clip(nearest(factor[:, None] * values).astype(np.int8), -32, 31) + 32, 0).astype(np.uint8)
        out["d"] = np.where(most != 0, F(1) / factor, F(0))
    else:
        w = down(weights.reshape(-1, 16))
        scales, codes = around_zero(x, 4, w)
        out["d"], found = around_zero(down(blockwise(scales, 16)), 32, down(blockwise(total(w), 16)))
        stored = found.T.astype(np.uint8)
    out["scales"] = np.concatenate([pack_nibbles(stored & 15, 8), pack_pairs(stored >> 4, 4)], axis=1)
    d = (out["d"].astype(F)[:, None] * (stored.astype(F) - F(32))).reshape(-1)
    final = recoded(x, codes, d, -4, 3).reshape(len(groups), -1)
    out["hmask"] = pack_bits((final > 3).astype(np.uint8).reshape(len(groups), 8, 32).swapaxes(1, 2))[..., 0]
    out["qs"] = pack_pairs(final & 3, 32)


def around_zero(x: Array, most_code: int, weights: Array | None = None) -> tuple[Array, Array]:
    """Scale and codes 0 to 2 * most_code - 1 around zero of least weighted error; tries 19 scales. The reference's make_qx_quants.

    Without weights the square of each element is its weight (rmse_type 1).
    """
    most = greatest(x)
    weights = x * x if weights is None else weights
    pulls = weights * x

    scratch = np.empty_like(x)

    def coded(factor: Array) -> Array:
        return np.clip(np.rint(np.multiply(factor, x, out=codes), out=codes), F(-most_code), F(most_code - 1), out=codes)

    def tried(factor: Array) -> tuple[Array, Array]:
        coded(factor)
        sum_lx = total(np.multiply(pulls, codes, out=scratch))
        return sum_lx, total(np.multiply(np.multiply(weights, codes, out=scratch), codes, out=scratch))
    codes = np.empty_like(x)
    found = F(-most_code) / most
    sum_lx, sum_l2 = tried(found)
    scale = np.where(sum_l2 != 0, sum_lx / sum_l2, F(0))
    best = scale * sum_lx
    for step in (*range(-9, 0), *range(1, 10)):
        factor = -(F(most_code) + F(0.1) * F(step)) / most
        sum_lx, sum_l2 = tried(factor)
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        found = np.where(better, factor, found)
        scale = np.where(better, sum_lx / sum_l2, scale)
        best = np.where(better, scale * sum_lx, best)
    zero = np.abs(most) < NEGLIGIBLE
    coded(found)
    codes += F(most_code)
    codes[:, zero] = 0
    return np.where(zero, F(0), scale), codes


@encoder("Q6_K", weighted=True)
def q6_k(groups: Array, out: Array, weights: Array | None = None) -> None:
    x = down(groups.reshape(-1, 16))
    scales, codes = around_zero(x, 32, None if weights is None else down(weights.reshape(-1, 16)))
    values = blockwise(scales, 16)
    most = greatest(values.T)
    factor = F(-128) / most
    out["d"] = F(1) / factor
    out["scales"] = np.minimum(nearest(factor[:, None] * values), 127).astype(np.int8)
    d = (out["d"].astype(F)[:, None] * out["scales"]).astype(F).reshape(-1)
    final = recoded(x, codes, d, -32, 31).reshape(len(groups), -1)
    out["ql"], out["qh"] = pack_nibbles(final & 15, 64), pack_pairs(final >> 4, 32)
    out[np.abs(most) < NEGLIGIBLE] = np.zeros(1, out.dtype)


# ---- codebooks

HALFWAY = np.searchsorted((IQ4[1:] + IQ4[:-1]).astype(np.int32), np.arange(-256, 256), side="right").astype(np.uint8)


def nearest_iq4(values: Array) -> Array:
    """The code of the nearest value of the table. Values halfway between two, which are multiples of a half, go to the upper one."""
    doubled = np.floor(np.minimum(np.maximum(values * F(2), F(-256)), F(255)))
    return HALFWAY[np.nan_to_num(doubled, nan=255.0).astype(np.int32) + 256]


def iq4_search(x: Array, given: Array | None) -> Array:
    """The scale of each column of 32: least squares over 16 trials, weighted by the square of each element if not otherwise. quantize_row_iq4_nl_impl."""
    most = greatest(x)
    weights = x * x if given is None else down(given.reshape(-1, 32))

    def tried(factor: Array) -> tuple[Array, Array]:
        points = IQ4[nearest_iq4(factor * x)]
        weighted = weights * points
        return total(weighted * x), total(weighted * points)
    sum_qx, sum_q2 = tried(F(1) / (-most / IQ4[0]))
    scale = np.where(sum_q2 > 0, sum_qx / sum_q2, F(0))
    best = scale * sum_qx
    for step in range(-7, 8):
        sum_qx, sum_q2 = tried((F(step) + IQ4[0]) / most)
        better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        scale = np.where(better, sum_qx / sum_q2, scale)
        best = np.where(better, scale * sum_qx, best)
    return np.where(np.abs(most) < NEGLIGIBLE, F(0), scale)


@encoder("IQ4_NL", weighted=True)
def iq4_nl(groups: Array, out: Array, weights: Array | None = None) -> None:
    scales = iq4_search(down(groups), weights)
    out["d"], out["qs"] = scales, pack_nibbles(nearest_iq4(groups * inverse(scales)[:, None]), 16)


@encoder("IQ4_XS", weighted=True)
def iq4_xs(groups: Array, out: Array, weights: Array | None = None) -> None:
    values = blockwise(iq4_search(down(groups.reshape(-1, 32)), weights), 8)
    d = -greatest(values.T) / F(32)
    out["d"] = d
    stored = np.clip(nearest(inverse(d)[:, None] * values), -32, 31)
    factors = inverse(d[:, None] * stored.astype(F))
    out["qs"] = pack_nibbles(nearest_iq4(factors[..., None] * groups.reshape(len(groups), 8, 32)).reshape(len(groups), -1), 16)
    stored += 32
    out["scales_l"] = (stored & 15)[:, ::2] | (stored & 15)[:, 1::2] << 4
    out["scales_h"] = ((stored >> 4) << np.arange(0, 16, 2)).sum(1)[:, None]
