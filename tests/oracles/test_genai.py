"""Folders with genai_config.json in onnxruntime-genai itself, the generator that they are made for."""
from __future__ import annotations

import subprocess
from pathlib import Path

import environments
import pytest
from zoo import zoo

import isomorph
from isomorph.errors import Unsupported
from isomorph.generation import Generation

pytest.importorskip("tokenizers", reason="the extra [text] is not installed")
PROMPTS = ("The capital of France is", "Water boils at")


def test_it_loads_a_folder_and_takes_the_same_tokens(tmp_path):
    """A published model with its codes: the tokens of the prompts and the 16 that follow."""
    report = isomorph.convert(zoo("smollm2"), tmp_path / "model.onnx", genai=True, verify=False)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "genai_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert [finding.code for finding in report.findings] == ["weights.codes"]
    command = [environments.python("genai"), Path(__file__).with_name("genai_child.py"), tmp_path, "16", *PROMPTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    with Generation(zoo("smollm2"), timeout=300, runtime="onnxruntime") as model:
        for prompt, line in zip(PROMPTS, done.stdout.splitlines(), strict=True):
            tokens, following = ([int(number) for number in part.split()] for part in line.split("|"))
            assert tokens == model.prompt(prompt, chat=False)
            assert following == list(model.tokens(tokens, most=16))[:len(following)]
            assert len(following) >= 8


def test_what_it_does_not_run_is_said(tmp_path):
    """And no file is left where the graph would have been."""
    source = Path(__file__).parents[1] / "golden" / "rwkv" / "tiny-rwkv-4v0-660K-FP32.bin"
    with pytest.raises(Unsupported, match="keeps keys and values"):
        isomorph.convert(source, tmp_path / "model.onnx", genai=True, verify=False)
    assert not list(tmp_path.iterdir())
