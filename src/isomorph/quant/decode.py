"""Blocks of ggml as float32, with the bits of the reference (ggml/src/ggml-quants.c): the same operations in the same order, none contracted.

Every decoder takes n blocks as a structured array (see `layout`) and answers `Grouped` or, where a block is no scale times codes, float32 [n, elements].
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isomorph.quant.blocks import BLOCKS, BlockType

Array = np.ndarray
CODES = {"u8": "u1", "i8": "i1", "u16": "<u2", "i16": "<i2", "f16": "<f2", "f32": "<f4"}
GRIDS = Path(__file__).parent.parent / "data" / "ggml_grids.npz"

IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)          # twice the value of E2M1
# The powers of two of E8M0, halved because FP4 is doubled. The two least are subnormal.
E8M0 = np.where(np.arange(256) < 2, 0x00200000 << np.minimum(np.arange(256), 1), (np.arange(256) - 1) << 23).astype(np.uint32).view(np.float32)
DELTA = np.float32(0.125)                    # what IQ1 adds to its grid


def _ue4m3() -> Array:
    """Unsigned E4M3, halved because FP4 is doubled; 0x7F counts as zero."""
    x = np.arange(256)
    exponent, mantissa = x >> 3 & 15, x & 7
    values = np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(1 + mantissa / 8, exponent - 7)) / 2
    return np.where((x == 0) | (x == 0x7F), 0, values).astype(np.float32)


UE4M3 = _ue4m3()
DECODERS: dict[str, Callable[[Array], Any]] = {}


@cache
def layout(name: str) -> np.dtype:
    """The fields of a block type as NumPy sees them."""
    return np.dtype([(field, CODES[kind], (count,)) if count else (field, CODES[kind]) for field, kind, count in _known(name).fields])


def _known(name: str) -> BlockType:
    if name in BLOCKS:
        return BLOCKS[name]
    from isomorph.quant.legacy import LEGACY
    return LEGACY[name]


@cache
def grid(name: str) -> Array:
    """The codebook of an IQ type as float32 [entries, 8 or 4]."""
    from isomorph.artifact import Artifact
    from isomorph.formats import npz
    return npz.read(Artifact.open(GRIDS))[name].numpy().astype(np.float32)


def dequantize(name: str, data: Any) -> Array:
    """The elements of the blocks in `data`, a buffer of whole blocks, as float32 [elements]."""
    with np.errstate(all="ignore"):            # a scale may be infinite or no number: then so are the elements, as in the reference
        found = DECODERS[name](np.frombuffer(data, layout(name)))
        return (found.values() if isinstance(found, Grouped) else found).reshape(-1)


def codes_of(name: str, data: Any) -> Grouped | None:
    """The blocks in `data` as scales and codes, None for a type whose blocks are something else."""
    found = DECODERS[name](np.frombuffer(data, layout(name)))
    return found if isinstance(found, Grouped) else None


def decoder(name: str) -> Callable[[Callable[[Array], Any]], Callable[[Array], Any]]:
    def register(function: Callable[[Array], Any]) -> Callable[[Array], Any]:
        DECODERS[name] = function
        return function
    return register


def f32(halves: Array) -> Array:
    """[n] of a field of halves as float32 [n, 1]."""
    return halves.astype(np.float32)[:, None]


def nibbles(bytes_: Array, group: int) -> Array:
    """Low nibbles of `group` bytes, then their high nibbles, and so on: [n, bytes] -> [n, 2 * bytes]."""
    parts = bytes_.reshape(len(bytes_), -1, 1, group)
    return (parts >> np.array([0, 4], np.uint8)[:, None] & np.uint8(15)).reshape(len(bytes_), -1)


def pairs(bytes_: Array, group: int) -> Array:
    """The two lowest bits of `group` bytes, then the next two, and so on: [n, bytes] -> [n, 4 * bytes]."""
    parts = bytes_.reshape(len(bytes_), -1, 1, group)
    return (parts >> np.array([0, 2, 4, 6], np.uint8)[:, None] & np.uint8(3)).reshape(len(bytes_), -1)


def bits(bytes_: Array) -> Array:
    """[n, bytes] -> [n, 8 * bytes], lowest bit first."""
    return np.unpackbits(bytes_, axis=-1, bitorder="little")


class Grouped(NamedTuple):
    """scale * code - offset: `scale` and `offset` are [n, groups], `codes` are [n, elements], whole numbers but for IQ1."""

    scale: Array
    codes: Array
    offset: Array | None = None

    def values(self) -> Array:
        """float32 [n, elements]."""
        codes = self.codes.reshape(*self.scale.shape, -1).astype(np.float32)
        codes *= self.scale[..., None]
        if self.offset is not None:
            codes -= self.offset[..., None]
        return codes.reshape(len(self.scale), -1)


# ---- one scale a block of 32, or fewer bits

@decoder("Q4_0")
def q4_0(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), nibbles(b["qs"], 16).view(np.int8) - np.int8(8))


@decoder("Q4_1")
def q4_1(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), nibbles(b["qs"], 16), -f32(b["m"]))


def five_bits(b: Array) -> Array:
    return nibbles(b["qs"], 16) | bits(b["qh"]) << np.uint8(4)


@decoder("Q5_0")
def q5_0(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), five_bits(b).view(np.int8) - np.int8(16))


@decoder("Q5_1")
def q5_1(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), five_bits(b), -f32(b["m"]))


@decoder("Q8_0")
@decoder("Q8_1")
def q8_0(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), b["qs"])


@decoder("Q8_K")
def q8_k(b: Array) -> Grouped:
    return Grouped(b["d"][:, None], b["qs"])


@decoder("Q1_0")
def q1_0(b: Array) -> Array:
    return np.where(bits(b["qs"]), f32(b["d"]), -f32(b["d"]))


@decoder("Q2_0")
def q2_0(b: Array) -> Grouped:
    codes = (b["qs"][..., None] >> np.array([0, 2, 4, 6], np.uint8) & np.uint8(3)).reshape(len(b), -1)
    return Grouped(f32(b["d"]), codes.view(np.int8) - np.int8(1))


@decoder("MXFP4")
def mxfp4(b: Array) -> Grouped:
    return Grouped(E8M0[b["e"]][:, None], FP4[nibbles(b["qs"], 16)])


@decoder("NVFP4")
def nvfp4(b: Array) -> Grouped:
    return Grouped(UE4M3[b["d"]], FP4[nibbles(b["qs"], 8)])


# ---- super-blocks of 256

@decoder("Q2_K")
def q2_k(b: Array) -> Grouped:
    return Grouped(f32(b["d"]) * (b["scales"] & 15), pairs(b["qs"], 32), f32(b["dmin"]) * (b["scales"] >> 4))


def q3_k_scales(packed: Array) -> Array:
    """16 scales of 6 bits in 12 bytes: four low bits in the first 8 bytes, two high bits in the last 4."""
    low = nibbles(packed[:, :8], 8)
    high = pairs(packed[:, 8:], 4)
    return (low | high << np.uint8(4)).view(np.int8) - np.int8(32)


@decoder("Q3_K")
def q3_k(b: Array) -> Grouped:
    mask = b["hmask"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    codes = pairs(b["qs"], 32).view(np.int8) - ((mask ^ np.uint8(1)) << np.uint8(2)).reshape(len(b), -1).view(np.int8)
    return Grouped(f32(b["d"]) * q3_k_scales(b["scales"]), codes)


def scales_and_mins(packed: Array) -> tuple[Array, Array]:
    """8 scales and 8 minima of 6 bits each in 12 bytes, as Q4_K and Q5_K store them."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    return scales, np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)


def _with_minima(b: Array, codes: Array) -> Grouped:
    scales, mins = scales_and_mins(b["scales"])
    return Grouped(f32(b["d"]) * scales, codes, f32(b["dmin"]) * mins)


@decoder("Q4_K")
def q4_k(b: Array) -> Grouped:
    return _with_minima(b, nibbles(b["qs"], 32))


@decoder("Q5_K")
def q5_k(b: Array) -> Grouped:
    high = b["qh"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    return _with_minima(b, nibbles(b["qs"], 32) | (high << np.uint8(4)).reshape(len(b), -1))


@decoder("Q6_K")
def q6_k(b: Array) -> Grouped:
    low = nibbles(b["ql"], 64)
    codes = (low | pairs(b["qh"], 32) << np.uint8(4)).view(np.int8) - np.int8(32)
    return Grouped(f32(b["d"]) * b["scales"], codes)


@decoder("TQ1_0")
def tq1_0(b: Array) -> Grouped:
    powers = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]
    parts = [b["qs"][:, None, :32] * powers, b["qs"][:, None, 32:] * powers, b["qh"][:, None, :] * powers[:4]]
    trits = np.concatenate([part.reshape(len(b), -1) for part in parts], axis=1).astype(np.uint16) * np.uint16(3) >> 8
    return Grouped(f32(b["d"]), trits.astype(np.int8) - np.int8(1))


@decoder("TQ2_0")
def tq2_0(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), pairs(b["qs"], 32).view(np.int8) - np.int8(1))


# ---- codebooks

@decoder("IQ4_NL")
def iq4_nl(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), IQ4[nibbles(b["qs"], 16)])


def iq4_xs_scales(b: Array) -> Array:
    low = nibbles(b["scales_l"][..., None], 1).reshape(len(b), 8)
    high = (b["scales_h"] >> np.arange(0, 16, 2, dtype=np.uint16) & np.uint16(3)).astype(np.uint8)
    return (low | high << np.uint8(4)).view(np.int8) - np.int8(32)


@decoder("IQ4_XS")
def iq4_xs(b: Array) -> Grouped:
    return Grouped(f32(b["d"]) * iq4_xs_scales(b), IQ4[nibbles(b["qs"], 16)])


# 7 bits of signs, the eighth makes their number even
SIGNS = np.array([value | (value.bit_count() & 1) << 7 for value in range(128)], np.uint8)


def signed(bytes_: Array) -> Array:
    """[n, k] bytes -> [n, 8 k] factors, -1 where a bit is set."""
    return np.float32(1) - bits(bytes_) * np.float32(2)


def words(bytes_: Array, dtype: str) -> Array:
    return np.ascontiguousarray(bytes_).view(dtype)


@decoder("IQ2_XXS")
def iq2_xxs(b: Array) -> Grouped:
    parts = words(b["qs"], "<u4").reshape(len(b), 8, 2)
    scale = f32(b["d"]) * (np.float32(0.5) + (parts[..., 1] >> 28).astype(np.float32)) * np.float32(0.25)
    points = grid("iq2xxs")[words(parts[..., 0], "u1")].reshape(len(b), -1)
    signs = SIGNS[parts[..., 1, None] >> np.array([0, 7, 14, 21], np.uint32) & np.uint32(127)]
    return Grouped(scale, points * signed(signs.reshape(len(b), -1)))


def halves_and_quarter(b: Array) -> Array:
    """d * (0.5 + scale) / 4 for 16 scales of 4 bits."""
    scales = nibbles(b["scales"][..., None], 1).reshape(len(b), 16)
    return f32(b["d"]) * (np.float32(0.5) + scales) * np.float32(0.25)


@decoder("IQ2_XS")
def iq2_xs(b: Array) -> Grouped:
    points = grid("iq2xs")[b["qs"] & 511].reshape(len(b), -1)
    return Grouped(halves_and_quarter(b), points * signed(SIGNS[b["qs"] >> 9]))


@decoder("IQ2_S")
def iq2_s(b: Array) -> Grouped:
    high = pairs(b["qh"][..., None], 1).reshape(len(b), 32).astype(np.uint16) << 8
    points = grid("iq2s")[b["qs"][:, :32] | high].reshape(len(b), -1)
    return Grouped(halves_and_quarter(b), points * signed(b["qs"][:, 32:]))


@decoder("IQ3_XXS")
def iq3_xxs(b: Array) -> Grouped:
    parts = words(b["qs"][:, 64:], "<u4")
    scale = f32(b["d"]) * (np.float32(0.5) + (parts >> 28).astype(np.float32)) * np.float32(0.5)
    signs = SIGNS[parts[..., None] >> np.array([0, 7, 14, 21], np.uint32) & np.uint32(127)]
    return Grouped(scale, grid("iq3xxs")[b["qs"][:, :64]].reshape(len(b), -1) * signed(signs.reshape(len(b), -1)))


@decoder("IQ3_S")
def iq3_s(b: Array) -> Grouped:
    scale = f32(b["d"]) * (1 + 2 * nibbles(b["scales"][..., None], 1).reshape(len(b), 8))
    points = grid("iq3s")[b["qs"] | bits(b["qh"]).astype(np.uint16) << 8].reshape(len(b), -1)
    return Grouped(scale, points * signed(b["signs"]))


def shifted(points: Array, negative: Array) -> Array:
    """Points of the grid of IQ1, [n, 32, 8], moved by an eighth; `negative` is [n, 32]."""
    return (points + np.where(negative, -DELTA, DELTA)[..., None]).reshape(len(points), -1)


@decoder("IQ1_S")
def iq1_s(b: Array) -> Grouped:
    scale = f32(b["d"]) * (2 * (b["qh"] >> 12 & 7) + 1)
    high = (b["qh"][..., None] >> np.array([0, 3, 6, 9], np.uint16) & np.uint16(7)).reshape(len(b), 32) << 8
    return Grouped(scale, shifted(grid("iq1s")[b["qs"] | high], np.repeat(b["qh"] & 0x8000 > 0, 4, axis=1)))


@decoder("IQ1_M")
def iq1_m(b: Array) -> Grouped:
    """The scale of the block is spread over the highest nibbles of the four words of scales."""
    scales = words(b["scales"], "<u2")
    d = (scales[:, 0] >> 12 | scales[:, 1] >> 8 & 0xF0 | scales[:, 2] >> 4 & 0xF00 | scales[:, 3] & 0xF000).view(np.float16)
    scale = f32(d) * (2 * (scales[..., None] >> np.array([0, 3, 6, 9], np.uint16) & np.uint16(7)).reshape(len(b), 16) + 1)
    high = nibbles(b["qh"][..., None], 1).reshape(len(b), 32)
    return Grouped(scale, shifted(grid("iq1s")[b["qs"] | (high & 7).astype(np.uint16) << 8], high & 8 > 0))
