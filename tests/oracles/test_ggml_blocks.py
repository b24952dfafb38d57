"""Blocks against ggml's own code, bit for bit."""
from __future__ import annotations

import numpy as np
import pytest
import reference_ggml
from distributions import DISTRIBUTIONS, rows

from isomorph.quant import native
from isomorph.quant.blocks import BLOCKS
from isomorph.quant.decode import DECODERS, dequantize
from isomorph.quant.encode import ENCODERS, WEIGHTED, quantize
from isomorph.quant.legacy import LEGACY

QUANTISED = [name for name, kind in BLOCKS.items() if kind.fields]


IMPORTANCE = {
    "even": lambda random, columns: random.uniform(0, 1, columns),
    "squares": lambda random, columns: 10 * random.standard_normal(columns) ** 2,
    "few": lambda random, columns: np.where(random.uniform(size=columns) < 0.2, random.uniform(0, 100, columns), 1e-9),
}


@pytest.fixture(params=["compiled", "numpy"])
def kernels(request, monkeypatch):
    """Both ways of encoding; the compiled one only where the installation has built it."""
    if request.param == "compiled" and native.library() is None:
        pytest.skip("the compiled encoders are not built: no C compiler, or run from the source folder without installation")
    if request.param == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    return request.param


def test_every_block_type_has_a_decoder():
    assert set(DECODERS) == set(QUANTISED) | set(LEGACY)


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


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("name", ENCODERS)
def test_encoding_gives_the_bytes_of_the_reference(name, distribution, kernels):
    """`benchmarks/ggml_blocks.py` does the same with a million blocks of each type."""
    source = rows(distribution, 1, 64, 8 * BLOCKS[name].elements)
    wrong = (reference_ggml.encoded(name, source) != quantize(name, source)).any(1)
    assert not wrong.any(), f"{wrong.sum()} of {len(wrong)} blocks differ"


@pytest.mark.parametrize("name", ENCODERS)
def test_one_block_is_encoded_as_among_others(name):
    source = rows("normal", 2, 5, BLOCKS[name].elements)
    np.testing.assert_array_equal(quantize(name, source[:1]), quantize(name, source)[:1])
    assert quantize(name, source[:0]).shape == (0, BLOCKS[name].bytes)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("name", sorted(WEIGHTED))
def test_importance_gives_the_bytes_of_the_reference(name, distribution, kernels):
    source = rows(distribution, 3, 24, 4 * 256)
    for place, made in enumerate(IMPORTANCE.values()):
        importance = made(np.random.default_rng(place), source.shape[1]).astype(np.float32)
        wrong = (reference_ggml.encoded(name, source, importance) != quantize(name, source, importance)).any(1)
        assert not wrong.any(), f"{wrong.sum()} of {len(wrong)} blocks differ"


@pytest.mark.parametrize("name", sorted(WEIGHTED))
def test_importance_changes_what_is_kept(name):
    """Otherwise the test above would say nothing of it."""
    source = rows("normal", 3, 24, 4 * 256)
    assert (quantize(name, source, np.linspace(0, 1, 1024, dtype=np.float32)) != quantize(name, source)).any()


@pytest.mark.parametrize("name", ENCODERS)
def test_compiled_encoders_give_the_bytes_of_numpy(name, monkeypatch):
    """Also where the last groups do not fill the lanes."""
    if native.library() is None:
        pytest.skip("the compiled encoders are not built: no C compiler, or run from the source folder without installation")
    source = rows("student", 6, 7, 3 * BLOCKS[name].elements)
    for importance in (None, np.linspace(0, 3, source.shape[1], dtype=np.float32)):
        compiled = quantize(name, source, importance)
        with monkeypatch.context() as patch:
            patch.setattr(native, "library", lambda: None)
            np.testing.assert_array_equal(compiled, quantize(name, source, importance))
