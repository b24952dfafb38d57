"""Importance matrices: both kinds of file, what is done with them, and what is no importance matrix."""
from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import isomorph
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, IsomorphError, Unsupported
from isomorph.formats import gguf, safetensors
from isomorph.model import Checkpoint
from isomorph.quant import importance, mixes
from isomorph.quant.decode import dequantize
from isomorph.quant.encode import quantize
from isomorph.tensors import array_tensor

COLUMNS, ROWS = 256, 8
NAME = "blk.0.ffn_down.weight"
RANDOM = np.random.default_rng(1)
WEIGHT = RANDOM.standard_normal((ROWS, COLUMNS)).astype(np.float32)
MEAN = RANDOM.uniform(0, 5, COLUMNS).astype(np.float32)


def listed(path: Path, values: np.ndarray = MEAN, calls: int = 4, *, tail: bytes = struct.pack("<ii4s", 7, 4, b"text")) -> Path:
    """The file of the time before GGUF."""
    name = NAME.encode()
    path.write_bytes(struct.pack(f"<ii{len(name)}sii", 1, len(name), name, calls, values.size) + (values * calls).astype("<f4").tobytes() + tail)
    return path


def measured(path: Path, values: np.ndarray = MEAN, count: int = 512) -> Path:
    gguf.write(importance.checkpoint({NAME: values * count}, {NAME: count}, chunks=1, chunk=512, texts=["text"]), path)
    return path


def source(path: Path) -> Path:
    safetensors.write(Checkpoint({NAME: array_tensor(WEIGHT, NAME)}), path)
    return path


@pytest.mark.parametrize("make", [listed, measured])
def test_both_files_are_read(make, tmp_path):
    found = importance.read(make(tmp_path / "matrix"))
    np.testing.assert_allclose(found.weights[NAME].reshape(-1), MEAN, rtol=1e-6)
    assert found.texts == ["text"]
    assert found.chunks == {listed: 7, measured: 1}[make]


def test_a_list_may_end_behind_its_entries(tmp_path):
    assert importance.read(listed(tmp_path / "matrix", tail=b"")).chunks == 0


@pytest.mark.parametrize("scheme", ["q4_k", "q2_k", "q6_k"])
def test_what_is_written_is_weighed(scheme, tmp_path):
    written = tmp_path / "out.gguf"
    name = {"q4_k": "q4_k_s", "q2_k": "q2_k_s", "q6_k": "q6_k"}[scheme]
    report = isomorph.quantize(source(tmp_path / "in.safetensors"), written, scheme=name, pure=True, importance=measured(tmp_path / "matrix"))
    have = gguf.read(Artifact.open(written))
    weighed = quantize(scheme.upper(), WEIGHT, MEAN)
    np.testing.assert_array_equal(have[NAME].numpy(), dequantize(scheme.upper(), weighed.tobytes()).reshape(ROWS, COLUMNS))
    assert have.metadata["quantize.imatrix.entries_count"] == 1
    assert have.metadata["quantize.imatrix.dataset"] == "text"
    assert [finding.code for finding in report.findings] == []
    errors = [(np.square(dequantize(scheme.upper(), blocks.tobytes()).reshape(ROWS, COLUMNS) - WEIGHT) * MEAN).sum()
              for blocks in (weighed, quantize(scheme.upper(), WEIGHT))]
    assert errors[0] < errors[1], "the weighted error is not less than without the matrix"


def test_each_expert_has_its_own(tmp_path):
    name, each = "blk.0.ffn_up_exps.weight", np.stack([MEAN, MEAN[::-1]])
    stacked = np.stack([WEIGHT, WEIGHT])
    safetensors.write(Checkpoint({name: array_tensor(stacked, name)}), tmp_path / "in.safetensors")
    sums = Checkpoint({f"{name}.in_sum2": array_tensor(each, f"{name}.in_sum2"), f"{name}.counts": array_tensor(np.ones((2, 1), np.float32), f"{name}.counts")})
    gguf.write(sums, tmp_path / "matrix")
    isomorph.quantize(tmp_path / "in.safetensors", tmp_path / "out.gguf", scheme="q4_k_s", pure=True, importance=tmp_path / "matrix", threads=2)
    have = gguf.read(Artifact.open(tmp_path / "out.gguf"))[name].numpy()
    for expert in range(2):
        np.testing.assert_array_equal(have[expert].reshape(-1), dequantize("Q4_K", quantize("Q4_K", WEIGHT, each[expert]).tobytes()))


def test_a_matrix_changes_the_mix():
    shapes, model = {f"blk.{layer}.ffn_down.weight": (ROWS, COLUMNS) for layer in range(8)}, mixes.Model("llama", 8, 1, 0)
    weighed = mixes.Model("llama", 8, 1, 0, weighed=True)
    first = "blk.0.ffn_down.weight"
    assert (mixes.types("Q4_0", shapes, model)[first], mixes.types("Q4_0", shapes, weighed)[first]) == ("Q4_0", "Q4_1")
    assert (mixes.types("IQ4_XS", shapes, model)[first], mixes.types("IQ4_XS", shapes, weighed)[first]) == ("Q5_K", "IQ4_XS")


def test_a_matrix_of_another_model_is_refused(tmp_path):
    with pytest.raises(Unsupported, match="255 values"):
        isomorph.quantize(source(tmp_path / "in.safetensors"), tmp_path / "out.gguf", scheme="q4_k_s", pure=True,
                          importance=measured(tmp_path / "matrix", MEAN[:-1]))
    assert not (tmp_path / "out.gguf").exists()


def test_what_is_no_importance_matrix(tmp_path):
    good = listed(tmp_path / "good").read_bytes()
    bad = {"empty": b"", "cut": good[:100], "negative": good[:4] + struct.pack("<i", -5) + good[8:], "many": struct.pack("<i", 1 << 30) + good[4:],
           "long": good[:4] + struct.pack("<i", 1 << 30) + good[8:]}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(Damaged):
            importance.read(tmp_path / name)
    for values in (np.full(COLUMNS, np.nan, np.float32), -MEAN):
        with pytest.raises(Damaged, match="negative, infinite or no numbers"):
            importance.read(listed(tmp_path / "odd", values))
    gguf.write(Checkpoint({NAME: array_tensor(WEIGHT, NAME)}), tmp_path / "weights.gguf")
    with pytest.raises(Damaged, match="no importance matrix"):
        importance.read(tmp_path / "weights.gguf")


def test_every_cut_is_an_error_of_ours(tmp_path):
    for make in (listed, measured):
        whole = make(tmp_path / make.__name__).read_bytes()
        for end in range(0, len(whole), 37):
            (tmp_path / "cut").write_bytes(whole[:end])
            try:
                importance.read(tmp_path / "cut")
            except IsomorphError:
                continue
            assert end >= len(whole) - 32, "only the padding of GGUF, or the words behind a list, may be missing"
