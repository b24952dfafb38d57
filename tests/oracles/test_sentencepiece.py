"""Folders whose only tokenizer is a model of SentencePiece: its tokens by way of GGUF's keys, and models made of such keys, in sentencepiece itself."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_tokenizers import BETWEEN
from zoo import zoo

import isomorph
from isomorph.architectures import sentencepiece
from isomorph.architectures.tokenizer import tokenizer
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, IsomorphError
from isomorph.formats import gguf, safetensors
from isomorph.model import Checkpoint
from isomorph.tensors import array_tensor

pytest.importorskip("tokenizers", reason="the extra [text] is not installed")
CHILD = Path(__file__).with_name("sentencepiece_child.py")
CORPUS = Path(__file__).parents[2] / "docs" / "architecture.md"
KINDS = ("bpe", "bpe-cleaned", "unigram", "unigram-bytes")
TEXTS = ("Hello, world!", "The weights of a language model", "graph", "1234 and 56.7", "caf\u00e9 \u2460 \ufb01ne", "\u4f60\u597d", "tabs\tand lines", "x")


@pytest.fixture(scope="module")
def trained(torch_environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentencepiece") / "models"
    subprocess.run([torch_environment, CHILD, "train", CORPUS, folder], check=True, capture_output=True, timeout=120)
    return folder


def encoded(python: Path, folder: Path, texts: list[str], *paths: Path) -> list[list[list[int]]]:
    (folder / "texts.json").write_text(json.dumps(texts))
    done = subprocess.run([python, CHILD, "encode", folder / "texts.json", *paths], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_tokens_are_those_of_sentencepiece_both_ways(trained, torch_environment, tmp_path):
    """The published model's own tokens; those of its keys in the package tokenizers; and those of a model that is made of these keys, in sentencepiece."""
    for kind in KINDS:
        keys = sentencepiece.keys((trained / kind / "tokenizer.model").read_bytes(), {})
        (tmp_path / f"{kind}.model").write_bytes(sentencepiece.model(keys))
    models = [*(trained / kind / "tokenizer.model" for kind in KINDS), *(tmp_path / f"{kind}.model" for kind in KINDS)]
    found = encoded(torch_environment, tmp_path, list(TEXTS), *models)
    for place, kind in enumerate(KINDS):
        made, findings = tokenizer(sentencepiece.keys((trained / kind / "tokenizer.model").read_bytes(), {}))
        assert not findings
        for text, wanted in zip(TEXTS, found[place], strict=True):
            assert made.encode(text, add_special_tokens=False).ids == wanted, (kind, text)
        assert found[len(KINDS) + place] == found[place], kind


def test_a_published_vocabulary_becomes_a_model_that_gives_the_published_tokens(torch_environment, tmp_path):
    """Llama 2's: texts and tokens are those that llama.cpp publishes."""
    texts = Path(f"{zoo('vocabulary_llama_spm')}.inp").read_bytes().decode().split(BETWEEN)
    (tmp_path / "x.model").write_bytes(sentencepiece.model(gguf.read(Artifact.open(zoo("vocabulary_llama_spm"))).metadata))
    texts = [text for text in texts if text and "\0" not in text]
    lines = Path(f"{zoo('vocabulary_llama_spm')}.out").read_text().split("\n")
    wanted = [[int(number) for number in line.split()] for text, line in zip(
        Path(f"{zoo('vocabulary_llama_spm')}.inp").read_bytes().decode().split(BETWEEN), lines, strict=False) if text and "\0" not in text]
    assert encoded(torch_environment, tmp_path, texts, tmp_path / "x.model")[0] == wanted


def test_a_folder_with_nothing_but_a_model_becomes_gguf_and_comes_back(trained, tmp_path):
    """With the words that tokenizer_config.json adds, and numbers up to the rows of the table."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes((trained / "bpe" / "tokenizer.model").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "added_tokens_decoder": {"600": {"content": "<|im|>", "special": True}}}))
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 0, "vocab_size": 608}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {"model.embed_tokens.weight": np.zeros((608, 8), np.float32), "model.norm.weight": np.ones(8, np.float32)}
    safetensors.write(Checkpoint({name: array_tensor(array, name) for name, array in weights.items()}), folder / "model.safetensors")
    isomorph.convert(folder, tmp_path / "x.gguf", names="gguf")
    keys = isomorph.open(tmp_path / "x.gguf").metadata
    assert (keys["tokenizer.ggml.model"], len(keys["tokenizer.ggml.tokens"]), keys["tokenizer.ggml.tokens"][600]) == ("llama", 608, "<|im|>")
    assert list(keys["tokenizer.ggml.token_type"][599:602]) == [1, 3, 5]
    assert (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.eos_token_id"], keys["tokenizer.ggml.add_bos_token"]) == (1, 2, True)
    isomorph.convert(tmp_path / "x.gguf", tmp_path / "back", to="hf")
    again = sentencepiece.keys((tmp_path / "back" / "tokenizer.model").read_bytes(), {})
    for name in ("tokens", "scores", "token_type"):
        assert list(again[f"tokenizer.ggml.{name}"]) == list(keys[f"tokenizer.ggml.{name}"])[:601]


@pytest.mark.parametrize("data", [b"", b"\x0a\x03\x0a\x01a\x12\x02\x18\x03", b"\xff\xff", b"\x0a\xff\xff\xff\x0f"])
def test_what_is_no_model_is_damaged(data):
    with pytest.raises(Damaged):
        sentencepiece.keys(data, {})


def test_mutated_models_leave_only_our_errors(trained):
    random = np.random.default_rng(3)
    data = (trained / "bpe" / "tokenizer.model").read_bytes()
    refused = 0
    for _ in range(100):
        mutant = bytearray(data[:random.integers(1, len(data))] if random.random() < 0.3 else data)
        for place in random.integers(0, len(mutant), random.choice([1, 3, 9])):
            mutant[place] = random.integers(0, 256)
        try:
            keys = sentencepiece.keys(bytes(mutant), {})
            tokenizer(keys)[0].encode("hello world")
            sentencepiece.model(keys)
        except IsomorphError:
            refused += 1
    assert 0 < refused < 100
