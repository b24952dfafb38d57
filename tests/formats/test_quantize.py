"""Mixes of types against llama.cpp's published decisions, and files that are quantised."""
from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import isomorph
from isomorph.artifact import Artifact
from isomorph.errors import Unsupported, Usage
from isomorph.formats import gguf
from isomorph.model import Checkpoint
from isomorph.quant import mixes
from isomorph.quant.blocks import BLOCKS
from isomorph.quant.decode import dequantize
from isomorph.quant.encode import ENCODERS, quantize
from isomorph.tensors import array_tensor
from isomorph.verification import require, verify

GOLDEN = Path(__file__).parents[1] / "golden" / "llama_mixes.txt.gz"
NAMES = {name.lower(): name for name in BLOCKS}
# Columns that the headers of the snapshots do not say, from the models' configurations
COLUMNS = {
    "GLM-4.6V": {"ffn_down_exps": 1408, "ffn_down_shexp": 1408}, "gpt-oss-120b": {"attn_output": 4096}, "DeepSeek-V3.1": {"attn_k_b": 128},
    "Nemotron-Nano-3-30B-A3B": {"ssm_out": 4096, "ffn_down_exps": 1856, "ffn_down_shexp": 3712, "attn_output": 4096},
}


def snapshots() -> dict[str, tuple[dict[str, int], dict[str, dict[str, str]]]]:
    """Model -> (what the header says, scheme -> name -> type of every tensor that does not have the scheme's own)."""
    found: dict[str, tuple[dict[str, int], dict[str, dict[str, str]]]] = {}
    for text in re.split(r"^# Model: ", gzip.decompress(GOLDEN.read_bytes()).decode(), flags=re.M)[1:]:
        name, header, *lines = text.splitlines()
        schemes: dict[str, dict[str, str]] = {}
        for line in lines:
            if section := re.match(r"\[(\w+)\] ", line):
                rows = schemes[section[1]] = {}
            elif line:
                tensor, kind = line.split()
                rows[tensor] = NAMES[kind.lower()]
        found[name] = ({key: int(value) for key, value in re.findall(r"n_(\w+)=(\d+)", header)}, schemes)
    return found


SNAPSHOTS = snapshots()


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_every_scheme_gives_every_tensor_the_type_that_llama_cpp_gives_it(name):
    header, schemes = SNAPSHOTS[name]
    names = {tensor for rows in schemes.values() for tensor in rows} | {"token_embd.weight"}

    def dims(tensor: str) -> tuple[int, ...]:
        columns = next((columns for part, columns in COLUMNS.get(name, {}).items() if part in tensor), 0)
        columns = columns or (header["ff"] if "ffn_down." in tensor and header["ff"] else header["embd"])
        return (128, 8, columns) if "_exps" in tensor or "attn_k_b" in tensor else (8, columns)
    shared = header["head_kv"]
    model = mixes.Model("", header["layer"], header["head"] // shared if shared else 0, header.get("expert", 0))
    shapes = {tensor: dims(tensor) for tensor in names}
    compared = 0
    for scheme, rows in schemes.items():
        have = mixes.types(scheme, shapes, model)
        want = {tensor: rows.get(tensor, mixes.SCHEMES[scheme].base) for tensor in names}
        assert {tensor: (have[tensor], want[tensor]) for tensor in names if have[tensor] != want[tensor]} == {}, scheme
        compared += len(names)
    assert set(schemes) == set(mixes.SCHEMES) - {"Q1_0", "Q2_0"}
    assert compared > 4_000


def test_what_is_left_alone():
    model = mixes.Model("bert", 1, 1, 0)
    shapes = {"a_norm.weight": (32, 32), "x.bias": (32, 32), "v.weight": (32,), "one.weight": (1, 32), "position_embd.weight": (8, 32), "w.weight": (2, 32)}
    assert mixes.types("Q8_0", shapes, model) == {"w.weight": "Q8_0"}
    assert mixes.fitting("Q4_K", 96) == "Q5_0"
    assert mixes.fitting("Q4_K", 33) == mixes.fitting("Q8_0", 33) == "F16"


def model(dtype: object = np.float32) -> Checkpoint:
    """A llama of one layer, small, with a value of each kind that is treated differently."""
    random = np.random.default_rng(0)
    shapes = {"output_norm.weight": (256,), "token_embd.weight": (64, 256), "blk.0.attn_q.weight": (256, 256), "blk.0.attn_v.weight": (64, 256),
              "blk.0.ffn_down.weight": (256, 512), "blk.0.ffn_up.weight": (512, 256), "blk.0.odd.weight": (4, 33)}
    metadata = {"general.architecture": "llama", "general.file_type": 0, "llama.block_count": 1, "llama.attention.head_count": 4,
                "llama.attention.head_count_kv": 1}
    arrays = {name: (random.standard_normal(dims) * 0.02).astype(np.float32 if len(dims) < 2 else dtype) for name, dims in shapes.items()}
    return Checkpoint({name: array_tensor(array, name) for name, array in arrays.items()}, metadata)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_file_is_quantised_tensor_by_tensor(tmp_path, dtype):
    source = model(dtype)
    gguf.write(source, tmp_path / "f.gguf")
    report = isomorph.quantize(tmp_path / "f.gguf", tmp_path / "q.gguf", scheme="q4_k_m")
    assert report.facts["types"] == {"Q6_K": 3, "Q4_K": 2, "F32": 1, "F16": 1}         # a layer alone is in the first and the last eighth
    result = gguf.read(Artifact.open(tmp_path / "q.gguf"))
    assert list(result) == mixes.in_order(list(source))
    for name, tensor in result.items():
        if hasattr(tensor, "kind"):
            assert bytes(tensor.blocks) == quantize(tensor.kind.name, source[name].numpy().astype(np.float32)).tobytes()
    assert list(result.metadata)[-2:] == ["general.quantization_version", "general.file_type"]
    assert result.metadata["general.file_type"] == 15
    snr = {row["name"]: row["snr_db"] for row in report.facts["tensors"]}
    assert snr["output_norm.weight"] is None
    assert 19 < snr["blk.0.attn_q.weight"] < 25 < snr["blk.0.attn_v.weight"] < 36
    proof = require(verify(tmp_path / "f.gguf", tmp_path / "q.gguf"))
    assert "a signal 29 dB above the difference (stored as Q6_K)" in {row["tolerance"] for row in proof.facts["outputs"]}


def test_blocks_become_floats_again(tmp_path):
    gguf.write(model(), tmp_path / "f.gguf")
    isomorph.quantize(tmp_path / "f.gguf", tmp_path / "q.gguf", scheme="q4_0", pure=True)
    blocks = gguf.read(Artifact.open(tmp_path / "q.gguf"))["blk.0.ffn_up.weight"]
    want = dequantize("Q4_0", blocks.blocks).reshape(blocks.dims)
    for target, dtype in (("x.safetensors", "fp32"), ("x.npz", None), ("y.safetensors", "bf16"), ("x.gguf", "fp32")):
        report = isomorph.convert(tmp_path / "q.gguf", tmp_path / target, dtype=dtype)
        assert report.facts["verified"] == "re-read"
        have = isomorph.open(tmp_path / target)["blk.0.ffn_up.weight"]
        assert not hasattr(have, "kind")
        np.testing.assert_array_equal(have.numpy().astype(np.float32), want.astype(ml_dtypes.bfloat16).astype(np.float32) if dtype == "bf16" else want)
    # And back: what was written as float is encoded to the very same blocks, because they hold it without loss.
    isomorph.quantize(tmp_path / "x.safetensors", tmp_path / "again.gguf", scheme="q4_0", pure=True)
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "q.gguf").read_bytes()


def test_a_second_quantisation_is_a_finding_and_copies_what_stays(tmp_path):
    gguf.write(model(), tmp_path / "f.gguf")
    isomorph.quantize(tmp_path / "f.gguf", tmp_path / "a.gguf", scheme="q8_0")
    report = isomorph.quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", scheme="q4_0", shard_bytes=100_000)
    assert [finding.code for finding in report.findings] == ["quantize.twice"]
    assert len(report.facts["destination"]["files"]) > 1
    assert isomorph.quantize(tmp_path / "a.gguf", tmp_path / "c.gguf", scheme="q8_0").findings == []
    assert (tmp_path / "c.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


def test_what_cannot_be_quantised_is_said(tmp_path):
    bad = model()
    bad.tensors["blk.0.ffn_up.weight"] = array_tensor(np.full((512, 256), np.inf, np.float32), "blk.0.ffn_up.weight")
    gguf.write(bad, tmp_path / "f.gguf")
    with pytest.raises(Unsupported, match="infinite"):
        isomorph.quantize(tmp_path / "f.gguf", tmp_path / "q.gguf", scheme="q8_0")
    with pytest.raises(Unsupported, match="does not encode") as caught:
        isomorph.quantize(tmp_path / "f.gguf", tmp_path / "q.gguf", scheme="iq2_xxs")
    assert caught.value.blockers
    with pytest.raises(Usage, match="no scheme"):
        isomorph.quantize(tmp_path / "f.gguf", tmp_path / "q.gguf", scheme="q9")
    assert not (tmp_path / "q.gguf").exists()


def test_schemes_that_can_be_written():
    assert len(ENCODERS) == 18
    assert json.dumps(sorted(mixes.SCHEMES))
