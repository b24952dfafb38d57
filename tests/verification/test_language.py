"""Two language models side by side on one text: divergence, favourites, perplexity."""
from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import isomorph
from isomorph import divergence
from isomorph.errors import Usage
from isomorph.formats import gguf
from isomorph.generation import Generation
from isomorph.model import Checkpoint
from isomorph.quantization import quantize
from isomorph.tensors import array_tensor

pytest.importorskip("tokenizers", reason="the extra [text] is not installed")
WORDS = [*map(chr, range(97, 123)), " ", ".", "th"]
WIDTH, WINDOW = 32, 16
TEXT = "the cat sat on the mat and the dog sat by the door. a bird sang in a tree until the sun went down. " * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random llama over single letters, and the same in blocks of 8 and of 4 bits."""
    folder, random = tmp_path_factory.mktemp("llama"), np.random.default_rng(4)
    shapes = {"token_embd.weight": (len(WORDS), WIDTH), "output.weight": (len(WORDS), WIDTH)} | {
        f"blk.{layer}.{name}.weight": (64, WIDTH) if "gate" in name or "up" in name else (WIDTH, 64) if "down" in name else (WIDTH, WIDTH)
        for layer in range(2) for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    weights = {name: random.normal(size=shape).astype(np.float32) * 0.4 for name, shape in shapes.items()}
    weights |= {name: np.ones(WIDTH, np.float32) for name in ("output_norm.weight", *(f"blk.{layer}.{part}_norm.weight" for layer in range(2)
                                                                                     for part in ("attn", "ffn")))}
    keys = {"general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": WIDTH, "llama.attention.head_count": 4,
            "llama.attention.layer_norm_rms_epsilon": 1e-5, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": [word.replace(" ", "\u0120") for word in WORDS], "tokenizer.ggml.merges": ["t h"]}
    gguf.write(Checkpoint({name: array_tensor(array, name) for name, array in weights.items()}, keys), folder / "whole.gguf")
    for scheme in ("q8_0", "q4_0"):
        quantize(folder / "whole.gguf", folder / f"{scheme}.gguf", scheme=scheme)
    return folder


def test_the_sums_are_those_of_whole_logits(model):
    """Against the definition, from logits that are kept whole."""
    facts = divergence.verify(model / "whole.gguf", model / "q4_0.gguf", TEXT, window=WINDOW).facts
    rows = []
    with Generation(model / "whole.gguf", runtime="onnxruntime") as one, Generation(model / "q4_0.gguf", runtime="onnxruntime") as other:
        tokens = one.prompt(TEXT, chat=False)
        for place in range(len(tokens) // WINDOW):
            window = tokens[place * WINDOW:(place + 1) * WINDOW]
            p, q = (np.exp(np.concatenate(list(divergence.pieces(side, window))).astype(np.float64)) for side in (one, other))
            p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
            rows += [((p[at] * np.log(p[at] / q[at])).sum(), p[at].argmax() == q[at].argmax(), p[at, window[at + 1]], q[at, window[at + 1]])
                     for at in range(WINDOW // 2, WINDOW - 1)]
    apart, same, one_next, other_next = map(np.array, zip(*rows, strict=True))
    assert facts["tokens"] == len(rows) > 100
    assert facts["divergence"]["mean"] == pytest.approx(apart.mean(), rel=1e-9)
    assert facts["same_top"] == same.mean()
    assert facts["perplexity"]["first"] == pytest.approx(np.exp(-np.log(one_next).mean()), rel=1e-9)
    assert facts["perplexity"]["ratio"] == pytest.approx(np.exp(np.log(one_next / other_next).mean()), rel=1e-9)


def test_fewer_bits_are_further_away(model):
    found = [divergence.verify(model / "whole.gguf", model / f"{name}.gguf", TEXT, window=WINDOW).facts for name in ("whole", "q8_0", "q4_0")]
    means = [facts["divergence"]["mean"] for facts in found]
    assert means[0] < 1e-12 < means[1] < 1e-2 < means[2]
    assert found[0]["same_top"] == 1
    assert found[0]["perplexity"]["ratio"] == pytest.approx(1, abs=1e-9)
    assert found[2]["same_top"] < 1


def test_a_bound_decides(model):
    command = [sys.executable, "-m", "isomorph", "verify", str(model / "whole.gguf"), str(model / "q4_0.gguf"), "--text", str(model / "text.txt"), "--window",
               str(WINDOW), "--windows", "2", "--most-divergence"]
    (model / "text.txt").write_text(TEXT)
    for bound, status, word in (("1e-6", 1, "different"), ("5", 0, "same")):
        done = subprocess.run([*command, bound], capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stdout.split()[-1]) == (status, word), done.stdout + done.stderr


def test_texts_that_are_too_short_are_said(model):
    with pytest.raises(Usage, match="less than one window"):
        divergence.verify(model / "whole.gguf", model / "q8_0.gguf", "short", window=WINDOW)


def test_a_diff_of_two_quantisations_says_how_far_each_is(model):
    changes = {change["name"]: change for change in isomorph.diff(model / "q8_0.gguf", model / "q4_0.gguf").facts["tensors"] if "max_abs" in change}
    assert "blk.0.ffn_up.weight" in changes
    assert 10 < changes["blk.0.ffn_up.weight"]["snr_db"] < 35
