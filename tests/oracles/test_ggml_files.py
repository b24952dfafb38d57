"""GGML files that isomorph writes, in the programs of their time (ctransformers, which kept them), and files of kinds that are only read, in both."""
from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import environments
import ggml_files
import numpy as np
import onnxruntime
import pytest
from test_tokenizers import BETWEEN
from zoo import zoo

import isomorph
from isomorph.architectures import words
from isomorph.artifact import Artifact
from isomorph.errors import Unsupported
from isomorph.formats import ggml, gguf
from isomorph.model import Checkpoint
from isomorph.tensors import array_tensor

CHILD = Path(__file__).with_name("ggml_child.py")
WRITTEN = {"llama": "llama", "llama-70b": "llama", "gpt2": "gpt2"}            # the program reads from "70b" in a name that heads share keys
READ = {"gptj": "gptj", "gpt_neox": "gptneox", "gpt_neox_serial": "gptneox"}
FLOATS, BLOCKS = ("fp32", "fp16"), ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k")
HALVES = 2e-3                                # of the range: these programs keep keys and values as halves, and look exponents up in tables of halves


def child(*arguments: object) -> str:
    done = subprocess.run([environments.python("torch"), "-W", "ignore", CHILD, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    child("make", folder)
    return folder


def apart(path: Path, expected: np.ndarray) -> float:
    return float(np.abs(np.load(path) - expected).max() / np.abs(expected).max())


def test_programs_of_then_compute_what_transformers_does(made, tmp_path):
    """Every type of block that they know, and floats; what blocks round is compared with the network of the decoded weights in ONNX Runtime."""
    asked: list[object] = []
    for name, kind in WRITTEN.items():
        isomorph.convert(made / name / "model.safetensors", made / name / "whole.gguf", names="gguf", force=True)
        for dtype in FLOATS:
            report = isomorph.convert(made / name / "model.safetensors", tmp_path / f"{name}.{dtype}.ggml", dtype=dtype)
            assert report.facts["verified"] == "re-read"
        for scheme in BLOCKS:
            isomorph.quantize(made / name / "whole.gguf", tmp_path / f"{name}.{scheme}.gguf", scheme=scheme, pure=kind == "gpt2", verify=False)
            assert isomorph.convert(tmp_path / f"{name}.{scheme}.gguf", tmp_path / f"{name}.{scheme}.ggml").facts["verified"] == "re-read"
        for form in (*FLOATS, *BLOCKS):
            asked += [kind, tmp_path / f"{name}.{form}.ggml", made / name / "expected.npz", tmp_path / f"{name}.{form}.npy"]
    child("logits", *asked)
    for name in WRITTEN:
        expected = np.load(made / name / "expected.npz")
        assert apart(tmp_path / f"{name}.fp32.npy", expected["logits"]) < HALVES
        assert apart(tmp_path / f"{name}.fp16.npy", expected["logits"]) < 2 * HALVES
        for scheme in BLOCKS:
            isomorph.convert(tmp_path / f"{name}.{scheme}.gguf", tmp_path / "decoded.onnx", dtype="fp32", force=True, verify=False)
            wanted = run(tmp_path / "decoded.onnx", expected["ids"])
            # They round what they multiply with to 8 bits.
            assert np.corrcoef(np.load(tmp_path / f"{name}.{scheme}.npy").ravel(), wanted.ravel())[0, 1] > 0.9995, (name, scheme)


def run(path: Path, ids: np.ndarray) -> np.ndarray:
    """Logits of a network that begins without keys and values."""
    session = onnxruntime.InferenceSession(path)
    count = len(ids)
    feeds = {"input_ids": ids[None], "attention_mask": np.ones((1, count), np.int64), "position_ids": np.arange(count)[None]}
    feeds |= {value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32) for value in session.get_inputs() if value.name.startswith("past")}
    return session.run(["logits"], feeds)[0][0]


NUMBERS = {"gptj": (97, 64, 256, 4, 2, 32), "gpt_neox": (97, 64, 256, 8, 2, 16, 1), "gpt_neox_serial": (97, 64, 256, 8, 2, 16, 0)}


def test_kinds_that_are_only_read_compute_the_same_too(made, tmp_path):
    """A file made by hand of transformers' weights, in the program of its time, as a graph, and by way of GGUF."""
    asked: list[object] = []
    for name, kind in READ.items():
        content = isomorph.open(made / name / "model.safetensors")
        rows = [(tensor, content[tensor].dims, ggml_files.F32, content[tensor].numpy().tobytes()) for tensor in content if "rotary" not in tensor]
        spelled = [bytes([place]) for place in range(97)]
        head = b"lmgg" + struct.pack(f"<{len(NUMBERS[name]) + 1}I", *NUMBERS[name], 0) + (struct.pack("<I", 97) if kind == "gptj" else b"")
        head += b"".join(struct.pack("<I", len(word)) + word for word in spelled)
        (tmp_path / f"{name}.ggml").write_bytes(head + ggml_files.tensors(rows, 0, aligned=False))
        asked += [kind, tmp_path / f"{name}.ggml", made / name / "expected.npz", tmp_path / f"{name}.npy"]
    child("logits", *asked)
    for name in READ:
        expected = np.load(made / name / "expected.npz")
        assert apart(tmp_path / f"{name}.npy", expected["logits"]) < HALVES
        isomorph.convert(tmp_path / f"{name}.ggml", tmp_path / f"{name}.gguf", names="gguf")
        for path in (tmp_path / f"{name}.ggml", tmp_path / f"{name}.gguf"):
            isomorph.convert(path, tmp_path / "x.onnx", force=True, verify=False)
            assert np.abs(run(tmp_path / "x.onnx", expected["ids"]) - expected["logits"]).max() < 1e-4 * np.abs(expected["logits"]).max(), path


def tiny_llama(keys: dict, count: int) -> Checkpoint:
    """A network of one layer around the words of a published vocabulary."""
    random, width, inner = np.random.default_rng(0), 32, 96
    dims = {"token_embd.weight": (count, width), "output_norm.weight": (width,), "output.weight": (count, width), "blk.0.attn_norm.weight": (width,),
            "blk.0.ffn_norm.weight": (width,), **{f"blk.0.{name}.weight": (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output")},
            "blk.0.ffn_gate.weight": (inner, width), "blk.0.ffn_up.weight": (inner, width), "blk.0.ffn_down.weight": (width, inner)}
    numbers = {"general.architecture": "llama", "llama.block_count": 1, "llama.attention.head_count": 2, "llama.embedding_length": width}
    words_ = {key: value for key, value in keys.items() if key.startswith("tokenizer.")}
    return Checkpoint({name: array_tensor(random.normal(size=shape).astype(np.float32), name) for name, shape in dims.items()}, numbers | words_)


def test_the_words_of_a_published_vocabulary_cut_texts_as_published(tmp_path):
    """The program puts no blank before a text by itself, as llama.cpp did not then, and reads its score from the file."""
    keys = gguf.read(Artifact.open(zoo("vocabulary_llama_spm"))).metadata
    count = len(keys["tokenizer.ggml.tokens"])
    gguf.write(tiny_llama(keys, count), tmp_path / "x.gguf")
    isomorph.convert(tmp_path / "x.gguf", tmp_path / "x.ggml")
    texts = Path(f"{zoo('vocabulary_llama_spm')}.inp").read_bytes().decode().split(BETWEEN)
    wanted = Path(f"{zoo('vocabulary_llama_spm')}.out").read_text().split("\n")
    (tmp_path / "texts.json").write_text(json.dumps([" " + text for text in texts]))
    found = child("words", "llama", tmp_path / "x.ggml", tmp_path / "texts.json").split("\n")
    for text, have, want in zip(texts, found, wanted, strict=False):
        if text and "\0" not in text:
            assert have.split() == want.split(), text
    back, _ = words.keys_of_pieces(ggml.read(Artifact.open(tmp_path / "x.ggml")).metadata["ggml.tokens"], []), 0
    assert list(back["tokenizer.ggml.tokens"]) == list(keys["tokenizer.ggml.tokens"])
    assert list(back["tokenizer.ggml.token_type"]) == list(keys["tokenizer.ggml.token_type"])


def test_merges_are_found_again():
    """GPT-2's own vocabulary, through the words of a GGML file: its tokens, types and 50,000 merges."""
    keys = gguf.read(Artifact.open(zoo("vocabulary_gpt_2"))).metadata
    spelled, _, known = words.as_bytes(keys, len(keys["tokenizer.ggml.tokens"]))
    assert known
    back, lost = words.keys_of_bytes(spelled)
    assert lost == 0
    for name in ("tokens", "token_type", "merges"):
        assert list(back[f"tokenizer.ggml.{name}"]) == list(keys[f"tokenizer.ggml.{name}"]), name


def test_what_programs_of_then_would_compute_otherwise_is_refused(made, tmp_path):
    gguf_file = tmp_path / "x.gguf"
    base = tiny_llama({}, 8)
    for change, reason in (({"llama.rope.dimension_count": 8}, "not rotated whole"), ({"llama.rope.scaling.type": "yarn"}, "scaled"),
                           ({"llama.expert_count": 4}, "experts"), ({"general.architecture": "qwen2"}, "no GGML file is written")):
        gguf.write(Checkpoint(base.tensors, base.metadata | change), gguf_file, force=True)
        assert any(reason in " ".join(row) for row in isomorph.plan(gguf_file, to="ggml").blockers)
    isomorph.quantize(made / "gpt2" / "model.safetensors", gguf_file, scheme="q4_k_m", force=True, verify=False)
    with pytest.raises(Unsupported, match="cannot be stored") as caught:
        isomorph.convert(gguf_file, tmp_path / "x.ggml")
    assert any("in files of this kind it has to be" in reason for _, _, reason in caught.value.blockers)
    assert not (tmp_path / "x.ggml").exists()
