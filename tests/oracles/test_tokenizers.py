"""Tokenizers rebuilt from GGUF: the published vocabularies with their texts and tokens, and how text comes out of a model."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from zoo import catalogue, zoo

from isomorph import architectures
from isomorph.architectures import vocabulary
from isomorph.architectures.tokenizer import cuts, tokenizer
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Missing, TimedOut, Unsupported
from isomorph.formats import gguf, safetensors
from isomorph.generation import Generation, rendered
from isomorph.model import Checkpoint
from isomorph.tensors import array_tensor

pytest.importorskip("tokenizers", reason="the extra [text] is not installed")
VOCABULARIES = [name for name in catalogue()["model"] if name.startswith("vocabulary_")]
BETWEEN = "\n__ggml_vocab_test__\n"


@pytest.mark.parametrize("name", VOCABULARIES)
def test_tokens_are_those_that_were_published(name):
    path = zoo(name)
    made, findings = tokenizer(gguf.read(Artifact.open(path)).metadata)
    assert not findings
    texts = Path(f"{path}.inp").read_bytes().decode().split(BETWEEN)
    lines = Path(f"{path}.out").read_text().split("\n")
    assert len(texts) >= 40
    for text, line in zip(texts, lines, strict=False):
        assert made.encode(text, add_special_tokens=False).ids == [int(number) for number in line.split()], text


@pytest.mark.parametrize("name", VOCABULARIES)
def test_tokens_are_the_same_after_tokenizer_json_and_back(name):
    """From the keys to tokenizer.json, from that to keys, from these to a tokenizer: the published tokens, and nothing of the published keys is used."""
    path = zoo(name)
    made, _ = tokenizer(gguf.read(Artifact.open(path)).metadata)
    keys, findings = vocabulary.keys(json.loads(made.to_str()), {})
    assert not findings
    again, findings = tokenizer(keys)
    assert not findings
    lines = Path(f"{path}.out").read_text().split("\n")
    for text, line in zip(Path(f"{path}.inp").read_bytes().decode().split(BETWEEN), lines, strict=False):
        assert again.encode(text, add_special_tokens=False).ids == [int(number) for number in line.split()], text


def test_a_cut_without_a_name_comes_along():
    """No list of known tokenizers is asked, so none is unknown."""
    made, _ = tokenizer(gguf.read(Artifact.open(zoo("smollm2"))).metadata)
    document = json.loads(made.to_str())
    document["pre_tokenizer"]["pretokenizers"][:-1] = [{"type": "Split", "pattern": {"Regex": "[aeiou]+|[^aeiou]+"}, "behavior": "Isolated", "invert": False}]
    keys, findings = vocabulary.keys(document, {"eos_token": "<|im_end|>", "chat_template": "{{ x }}", "add_bos_token": False}, 49160)
    assert [finding.code for finding in findings] == ["tokenizer.cut"]
    assert (keys["tokenizer.ggml.pre"], keys["tokenizer.ggml.eos_token_id"], keys["tokenizer.chat_template"]) == ("default", 2, "{{ x }}")
    assert (keys["tokenizer.ggml.tokens"][49159], keys["tokenizer.ggml.token_type"][49159], keys["tokenizer.ggml.add_bos_token"]) == ("[PAD49159]", 5, False)
    again, _ = tokenizer(keys)
    wanted = type(made).from_str(json.dumps(document))
    text = "The quick brown fox, 1234 times"
    assert again.encode(text, add_special_tokens=False).ids == wanted.encode(text, add_special_tokens=False).ids
    assert again.encode(text, add_special_tokens=False).ids != made.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("document", [{}, {"model": 3}, {"model": {"type": "BPE"}}, {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
                                      {"model": {"type": "BPE", "vocab": {"a": 1 << 40}, "merges": []}}, {"model": {"type": "Frob", "vocab": {}}},
                                      {"model": {"type": "Unigram", "vocab": [3]}}, {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [3]}}])
def test_what_is_no_tokenizer_is_damaged(document):
    with pytest.raises(Damaged):
        vocabulary.keys(document, {})


@pytest.mark.parametrize("keys", [{"tokenizer.ggml.merges": ["a b"]}, {"tokenizer.ggml.model": "llama", "tokenizer.ggml.unknown_token_id": 9},
                                  {"tokenizer.ggml.model": "bert", "tokenizer.ggml.unknown_token_id": "x"}, {"tokenizer.ggml.merges": 3}])
def test_keys_that_contradict_each_other_are_damaged(keys):
    with pytest.raises(Damaged):
        tokenizer({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "b"]} | keys)


def test_text_comes_back():
    made, _ = tokenizer(gguf.read(Artifact.open(zoo("smollm2"))).metadata)
    for text in ("Hello, world!", " two  blanks", "ünïcode 🦙 漢字", "line\nline\n\n", "1234567"):
        assert made.decode(made.encode(text, add_special_tokens=False).ids) == text


def test_an_unknown_cut_is_said_and_not_fatal():
    metadata = dict(gguf.read(Artifact.open(zoo("smollm2"))).metadata) | {"tokenizer.ggml.pre": "of tomorrow"}
    made, findings = tokenizer(metadata)
    assert [finding.code for finding in findings] == ["tokenizer.cut"]
    assert made.encode("Hello 12", add_special_tokens=False).ids
    with pytest.raises(Unsupported, match="rwkv"):
        tokenizer(metadata | {"tokenizer.ggml.model": "rwkv"})
    with pytest.raises(Unsupported, match="holds no tokenizer"):
        tokenizer({})


def test_every_expression_is_one_that_the_package_takes():
    from tokenizers import Regex
    assert len(cuts()) > 40
    for expressions in cuts().values():
        for expression in expressions:
            Regex(expression)


def test_a_published_model_answers():
    with Generation(zoo("smollm2"), timeout=120, runtime="onnxruntime") as model:
        prompt = model.prompt("What is the capital of France?")
        assert "".join(model.text(prompt, most=24)) == "The capital of France is Paris."
        assert not model.findings


def test_the_command_prints_the_answer():
    command = [sys.executable, "-m", "isomorph", "run", str(zoo("smollm2")), "--prompt", "The sky is", "--no-template", "--max-tokens", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert len(done.stdout) < 80


def test_a_folder_of_hugging_face_answers_as_the_file_it_was_made_from(tmp_path):
    """The same words with the tokenizer that stands beside the weights."""
    source = zoo("smollm2")
    content = gguf.read(Artifact.open(source))
    made, _ = tokenizer(content.metadata)
    renamed = architectures.to_hugging_face(content)
    safetensors.write(Checkpoint({name: getattr(tensor, "decoded", lambda tensor=tensor: tensor)() for name, tensor in renamed.items()}),
                      tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_text(made.to_str())
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, '
                                          '"num_hidden_layers": 30, "rope_theta": 100000.0, "rms_norm_eps": 1e-05, "vocab_size": 49152}')
    with Generation(tmp_path / "model.safetensors", timeout=120) as model:
        answer = "".join(model.text(model.prompt("The capital of France is", chat=False), most=5))
    assert "Paris" in answer
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(Missing, match=r"tokenizer\.json"), Generation(tmp_path / "model.safetensors"):
        pass


@pytest.mark.parametrize(("template", "reason"), [
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    ("{{ raise_exception('no system role') }}", "no system role"),
    ("{% for i in range(10**12) %}x{% endfor %}", "Range too big"),
    ("{{ 'x' * 10**10 }}", "fails"),
    ("{% include 'x' %}", "fails"),
    ("{{ unfinished", "fails"),
])
def test_a_hostile_template_reaches_nothing(template, reason):
    with pytest.raises(Unsupported, match=reason):
        rendered(template, {"messages": []})


def test_a_template_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr("isomorph.generation.TEMPLATE_SECONDS", 2)
    with pytest.raises(TimedOut, match="does not end"):
        rendered("{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}", {"messages": []})


@pytest.mark.parametrize("pooling", [1, 2])
def test_a_network_that_reads_gives_an_embedding(pooling, tmp_path):
    """The mean of the tokens, or the first, of a random BERT; the words around the text are put there."""
    random, width, words = np.random.default_rng(2), 16, ["[UNK]", "[CLS]", "[SEP]", "\u2581the", "\u2581cat", "s"]
    shapes = {"token_embd.weight": (len(words), width), "token_types.weight": (2, width), "position_embd.weight": (12, width)}
    shapes |= {f"blk.0.{name}.weight": (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")}
    shapes |= {f"{name}.{part}": (width,) for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm") for part in ("weight", "bias")}
    keys = {"general.architecture": "bert", "bert.block_count": 1, "bert.attention.head_count": 2, "bert.embedding_length": width, "bert.pooling_type": pooling,
            "tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": gguf.Typed("i32", [2, 3, 3, 1, 1, 1]),
            "tokenizer.ggml.cls_token_id": 1, "tokenizer.ggml.seperator_token_id": 2}
    gguf.write(Checkpoint({name: array_tensor(random.normal(size=shape).astype(np.float32), name) for name, shape in shapes.items()}, keys),
               tmp_path / "bert.gguf")
    with Generation(tmp_path / "bert.gguf") as model:
        found = model.embedding("The cats")
        ids = np.array([[1, 3, 4, 5, 2]])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        hidden = model.session.run(feeds)["last_hidden_state"][0]
    wanted = hidden[0] if pooling == 2 else hidden.mean(axis=0)
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), rtol=1e-5)
    command = [sys.executable, "-m", "isomorph", "run", str(tmp_path / "bert.gguf"), "--prompt", "The cats", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    np.testing.assert_allclose(json.loads(done.stdout)["embedding"], found, rtol=1e-6)
