"""The tables of architectures: names against llama.cpp's own, changes against the mathematics they serve, every file there and back."""
from __future__ import annotations

import json
import re

import ml_dtypes
import numpy as np
import pytest
from ggml_files import file

import isomorph
from isomorph import architectures
from isomorph.architectures import words
from isomorph.architectures._table import FAMILIES
from isomorph.errors import Damaged, Missing, Unsupported, Usage
from isomorph.formats import safetensors
from isomorph.model import Checkpoint
from isomorph.tensors import array_tensor

HEADS, KEY_HEADS, WIDTH, EXPERTS = 4, 2, 8, 3


def config(name: str) -> dict:
    family = FAMILIES[name]
    sizes = {"hidden_size": 32, "num_attention_heads": HEADS, "num_hidden_layers": 2, "num_key_value_heads": KEY_HEADS, "rms_norm_eps": 1e-5,
             "intermediate_size": 48, "vocab_size": 16, "max_position_embeddings": 64, "num_local_experts": EXPERTS}
    falcon = {"num_kv_heads": KEY_HEADS, "new_decoder_architecture": True} if name.startswith("falcon") else {}
    return {"architectures": [family.classes[0]], **{family.spelled(key) or key: value for key, value in sizes.items()}, **falcon}


def key_heads(name: str) -> int:
    return HEADS if name == "gptneox" else KEY_HEADS


SHAPES = {"row": (1, 32), "line": (1, 1, 32), "channel": (48, 1, 4), "decay": (48, 8)}


def weights(name: str, dtype: object = np.float32) -> Checkpoint:
    """A tensor for every row of the table, two layers, told apart by their values."""
    random = np.random.default_rng(3)
    tensors = {}
    rows = {gguf: (hf, change) for hf, gguf, change in reversed(FAMILIES[name].rows)}
    for gguf, (hf, change) in rows.items():
        dims = (32,) if "norm" in gguf or gguf.endswith("bias") else (48, 32) if "ffn_down" not in gguf else (32, 48)
        if ".attn_q." in gguf or ".attn_k." in gguf:
            dims = ((HEADS if "attn_q" in gguf else KEY_HEADS) * WIDTH, *dims[1:])
        dims = ((HEADS + 2 * key_heads(name)) * WIDTH, *dims[1:]) if change == "grouped" else SHAPES.get(change, dims)
        for layer in range(2 if "{}" in hf else 1):
            for expert in range(EXPERTS if hf.count("{}") == 2 else 1):
                array = random.standard_normal(dims)
                array = np.abs(array) if change == "decay" else array
                tensors[hf.format(layer, expert)] = array_tensor(array.astype(dtype), hf.format(layer, expert))
    return Checkpoint(tensors)


@pytest.mark.parametrize("name", FAMILIES)
def test_names_are_those_of_llama_cpp(name):
    reference = pytest.importorskip("gguf", reason="the reference is not installed: pip install gguf")
    arch = next((key for key, value in reference.MODEL_ARCH_NAMES.items() if value == FAMILIES[name].name), None)
    if arch is None:
        assert name == "rwkv"                               # only its later versions are known there
        return
    table = reference.get_tensor_name_map(arch, 2)
    for hf, gguf, _ in FAMILIES[name].rows:
        hf, gguf = hf.replace("experts.{}.", "experts."), re.sub(r"(ffn_(gate|up|down))\.\{\}", r"\1_exps", gguf)
        if "pooler" not in hf:                              # which gguf-py knows under other names
            assert table.get_name(hf.format(1).removeprefix("bert."), try_suffixes=(".weight", ".bias")) == gguf.format(1), hf


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_comes_back_byte_for_byte(tmp_path, name, dtype):
    source = weights(name, dtype)
    safetensors.write(source, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config(name)))
    report = isomorph.convert(tmp_path / "model.safetensors", tmp_path / "x.gguf", names="gguf")
    assert report.facts["verified"] == "re-read"
    there = isomorph.open(tmp_path / "x.gguf")
    assert there.metadata["general.architecture"] == FAMILIES[name].name
    assert all(tensor.numpy().dtype == np.float32 for tensor in there.values() if len(tensor.dims) == 1)
    assert ("blk.1.ffn_up_exps.weight" in there) == any("experts.{}" in hf for hf, _, _ in FAMILIES[name].rows)
    kept = {np.float32: None, np.float16: "fp16", ml_dtypes.bfloat16: "bf16"}[dtype]
    isomorph.convert(tmp_path / "x.gguf", tmp_path / "back.safetensors", names="huggingface", dtype=kept)
    back = isomorph.open(tmp_path / "back.safetensors")
    kept_names = {key for key in source if not FAMILIES[name].ignored(key)}
    assert set(back) == kept_names
    for key in kept_names:
        assert back[key].tobytes() == source[key].tobytes(), key
    # And once more: a file that was GGUF keeps its keys.
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_text(json.dumps(config(name)))
    (tmp_path / "back.safetensors").rename(again / "model.safetensors")
    isomorph.convert(again / "model.safetensors", again / "x.gguf", names="gguf")
    assert set(isomorph.open(again / "x.gguf").metadata) == set(there.metadata)


def test_rotated_heads_attend_as_before():
    """transformers rotates the halves of a head against each other, ggml neighbours: with the rows reordered both get the same scores."""
    random = np.random.default_rng(0)
    name = "model.layers.0.self_attn.{}_proj.weight"
    q, k = random.standard_normal((HEADS * WIDTH, 32)), random.standard_normal((KEY_HEADS * WIDTH, 32))
    source = Checkpoint({name.format("q"): array_tensor(q.astype(np.float32)), name.format("k"): array_tensor(k.astype(np.float32))})
    moved = architectures.to_gguf(source, config("llama"))
    positions, x = np.arange(5), random.standard_normal((5, 32)).astype(np.float32)
    angles = positions[:, None] * 10_000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)

    def heads(matrix: np.ndarray) -> np.ndarray:
        return (x @ matrix.T).reshape(5, -1, WIDTH)

    def halves(values: np.ndarray) -> np.ndarray:
        one, two = values[..., :WIDTH // 2], values[..., WIDTH // 2:]
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        return np.concatenate([one * cos - two * sin, two * cos + one * sin], -1)

    def neighbours(values: np.ndarray) -> np.ndarray:
        one, two = values[..., ::2], values[..., 1::2]
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        return np.stack([one * cos - two * sin, two * cos + one * sin], -1).reshape(values.shape)
    want = np.einsum("ahd,bhd->hab", halves(heads(q))[:, ::2], halves(heads(k)))
    have = np.einsum("ahd,bhd->hab", neighbours(heads(moved["blk.0.attn_q.weight"].numpy()))[:, ::2], neighbours(heads(moved["blk.0.attn_k.weight"].numpy())))
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)
    unmoved = np.einsum("ahd,bhd->hab", neighbours(heads(q))[:, ::2], neighbours(heads(k)))
    assert np.abs(unmoved - want).max() > 1


def test_what_no_table_names_is_said(tmp_path):
    with pytest.raises(Unsupported, match="FrobForCausalLM"):
        architectures.to_gguf(weights("llama"), {"architectures": ["FrobForCausalLM"]})
    with pytest.raises(Unsupported, match="no table for the architecture 'frob'"):
        architectures.to_hugging_face(Checkpoint({}, {"general.architecture": "frob"}))
    odd = Checkpoint({"model.layers.0.odd.weight": array_tensor(np.ones(3, np.float32)), "x.rotary_emb.inv_freq": array_tensor(np.ones(3, np.float32))})
    with pytest.raises(Unsupported) as caught:
        architectures.to_gguf(odd, config("llama"))
    assert [name for name, _, _ in caught.value.blockers] == ["model.layers.0.odd.weight"]
    wrong = Checkpoint({"model.layers.0.self_attn.q_proj.weight": array_tensor(np.ones((6, 4), np.float32))})
    with pytest.raises(Damaged, match="rows are not those"):
        architectures.to_gguf(wrong, config("llama"))["blk.0.attn_q.weight"].numpy()
    twice = Checkpoint({"transformer.wte.weight": array_tensor(np.ones((2, 2), np.float32)), "wte.weight": array_tensor(np.ones((2, 2), np.float32))})
    with pytest.raises(Damaged, match="two tensors"):
        architectures.to_gguf(twice, config("gpt2"))
    safetensors.write(weights("llama"), tmp_path / "m.safetensors")
    for text, error in ((None, Missing), ("{", Damaged), ("[]", Unsupported)):
        if text:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(error):
            isomorph.convert(tmp_path / "m.safetensors", tmp_path / "x.gguf", names="gguf")
    with pytest.raises(Usage):
        isomorph.convert(tmp_path / "m.safetensors", tmp_path / "x.gguf", names="frob")


def test_a_llama_of_the_time_before_gguf(tmp_path):
    """Names and keys as llama.cpp's own script gives them (convert_llama_ggml_to_gguf.py), which refuses the blocks of then."""
    rows = [("tok_embeddings.weight", (4, 32), 0, np.arange(128, dtype=np.float32).tobytes()), ("norm.weight", (32,), 0, bytes(128)),
            ("layers.1.attention.wq.weight", (32, 32), 2, 32 * (np.float32(0.5).tobytes() + bytes(range(16)))),
            ("layers.1.feed_forward.w1.weight", (48, 32), 0, bytes(4 * 48 * 32))]
    (tmp_path / "old.ggml").write_bytes(file("llama", rows, 1))
    report = isomorph.convert(tmp_path / "old.ggml", tmp_path / "x.gguf", names="gguf", dtype="fp16")
    assert "names.assumed" in [finding.code for finding in report.findings]
    there = isomorph.open(tmp_path / "x.gguf")
    assert list(there) == ["token_embd.weight", "output_norm.weight", "blk.1.attn_q.weight", "blk.1.ffn_gate.weight"]
    assert there["blk.1.attn_q.weight"].numpy()[0, :4].tolist() == [-4.0, -4.0, -3.5, -4.0]          # codes 0, 0, 1, 0 in the old order
    assert {name: tensor.numpy().dtype.name for name, tensor in there.items() if "attn" in name or "norm" in name} == {
        "output_norm.weight": "float32", "blk.1.attn_q.weight": "float16"}             # vectors stay what llama.cpp takes
    keys = there.metadata
    assert (keys["llama.feed_forward_length"], keys["llama.attention.head_count"], keys["llama.rope.dimension_count"]) == (48, 4, 16)
    assert list(keys["tokenizer.ggml.tokens"]) == ["<unk>", "<s>", "</s>", "word"]
    assert list(keys["tokenizer.ggml.token_type"]) == [2, 3, 3, 1]
    assert keys["tokenizer.ggml.token_type"].kind == "i32"
    made = words.keys_of_pieces(["", "", "", "\udcff", " a", ""], [])
    assert made["tokenizer.ggml.tokens"] == ["<unk>", "<s>", "</s>", "<0xFF>", "\u2581a", ""]
    assert made["tokenizer.ggml.token_type"] == [2, 3, 3, 6, 1, 3]
    (tmp_path / "speech.bin").write_bytes(file("whisper", rows[:1]))
    with pytest.raises(Unsupported, match="whisper"):
        isomorph.convert(tmp_path / "speech.bin", tmp_path / "y.gguf", names="gguf")


def test_what_has_no_place_is_said():
    source = Checkpoint({"embeddings.position_ids": array_tensor(np.ones((1, 3), np.int64))})
    assert [finding.code for finding in architectures.to_gguf(source, config("bert")).findings] == ["names.left-out"]
