"""Blocks against ggml's own code, bit for bit."""
from __future__ import annotations

import numpy as np
import pytest
import reference_ggml

from isomorph.quant.blocks import BLOCKS
from isomorph.quant.decode import DECODERS, dequantize

QUANTISED = [name for name, kind in BLOCKS.items() if kind.fields]


def test_every_block_type_has_a_decoder():
    assert set(DECODERS) == set(QUANTISED)


@pytest.mark.parametrize("name", [name for name in QUANTISED if name != "Q8_1"])       # the reference never decodes Q8_1
def test_decoding_gives_the_bits_of_the_reference(name):
    """Any bytes are blocks: infinite and undefined scales, subnormal ones and all codes come up among 4,096 random ones."""
    blocks = np.random.default_rng(BLOCKS[name].number).integers(0, 256, (4096, BLOCKS[name].bytes), np.uint8)
    want, have = reference_ggml.decoded(name, blocks), dequantize(name, blocks.tobytes())
    same = (want.view(np.uint32) == have.view(np.uint32)) | (np.isnan(want) & np.isnan(have))
    assert same.all(), f"{(~same).sum()} of {same.size} elements differ"


def test_q8_1_is_a_scale_and_codes():
    blocks = np.zeros((1, 36), np.uint8)
    blocks[0, :2] = np.float16(0.5).reshape(1).view(np.uint8)
    blocks[0, 4:] = np.arange(-16, 16, dtype=np.int8).view(np.uint8)
    np.testing.assert_array_equal(dequantize("Q8_1", blocks.tobytes()), np.arange(-16, 16) / np.float32(2))
