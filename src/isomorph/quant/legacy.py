"""Blocks that ggml wrote before May 2023 and no longer knows: other orders of nibbles, scales of 32 bits, groups of 16.

Generations: 1 until llama.cpp's pull request #1405 (GGJT v1 and older), 2 until #1508 (GGJT v2), from 3 on the blocks of today.
In generation 1 byte j holds elements 2 j and 2 j + 1, afterwards j and j + half a block.
"""
from __future__ import annotations

import numpy as np

from isomorph.quant.blocks import BLOCKS, BY_NUMBER, BlockType, row
from isomorph.quant.decode import Grouped, bits, decoder, f32, nibbles

Array = np.ndarray
ROWS = """
Q4_0.1   -1  32   f32 d, u8 qs[16]
Q4_1.1   -1  32   f32 d, f32 m, u8 qs[16]
Q4_2.1   -1  16   f16 d, u8 qs[8]
Q4_3.1   -1  16   f16 d, f16 m, u8 qs[8]
Q5_0.1   -1  32   f16 d, u8 qh[4], u8 qs[16]
Q5_1.1   -1  32   f16 d, f16 m, u8 qh[4], u8 qs[16]
Q8_0.1   -1  32   f32 d, i8 qs[32]
Q4_0.2   -1  32   f32 d, u8 qs[16]
Q4_1.2   -1  32   f32 d, f32 m, u8 qs[16]
Q8_0.2   -1  32   f32 d, i8 qs[32]
"""
LEGACY: dict[str, BlockType] = {kind.name: kind for kind in map(row, ROWS.strip().splitlines())}
NAMES = {number: kind.name for number, kind in BY_NUMBER.items()} | {4: "Q4_2", 5: "Q4_3"}


def block_type(number: int, generation: int) -> BlockType | None:
    """The type that a number of a tensor means in files of that generation. None where there was none."""
    name = NAMES.get(number, "")
    return LEGACY.get(f"{name}.{generation}") or BLOCKS.get(name)


def pairs_of(bytes_: Array) -> Array:
    """Low and high nibble of every byte in turn."""
    return nibbles(bytes_, 1)


@decoder("Q4_0.1")
@decoder("Q4_2.1")
def q4_0_first(b: Array) -> Grouped:
    return Grouped(b["d"].astype(np.float32)[:, None], pairs_of(b["qs"]).view(np.int8) - np.int8(8))


@decoder("Q4_1.1")
@decoder("Q4_3.1")
def q4_1_first(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), pairs_of(b["qs"]), -f32(b["m"]))


@decoder("Q5_0.1")
def q5_0_first(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), (pairs_of(b["qs"]) | bits(b["qh"]) << np.uint8(4)).view(np.int8) - np.int8(16))


@decoder("Q5_1.1")
def q5_1_first(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), pairs_of(b["qs"]) | bits(b["qh"]) << np.uint8(4), -f32(b["m"]))


@decoder("Q8_0.1")
@decoder("Q8_0.2")
def q8_0_wide(b: Array) -> Grouped:
    return Grouped(b["d"][:, None], b["qs"])


@decoder("Q4_0.2")
def q4_0_second(b: Array) -> Grouped:
    return Grouped(b["d"][:, None], nibbles(b["qs"], 16).view(np.int8) - np.int8(8))


@decoder("Q4_1.2")
def q4_1_second(b: Array) -> Grouped:
    return Grouped(f32(b["d"]), nibbles(b["qs"], 16), -f32(b["m"]))
