"""A GGUF with a vocabulary of 262,144 tokens, opened by isomorph and by gguf-py. The file is generated, and deleted afterwards."""
from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import ROOT
from benchmarks.environments import Environment

TOKENS, BYTES = 262_144, 253_000_000
ROUNDS = 5
# What each opens, in a process that has everything imported: CPU seconds, and how much more memory is resident afterwards, at its greatest
OPENED = """
import json, sys, time
{imports}
def resident():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before, start = resident(), time.process_time()
opened = {open}
print(json.dumps([time.process_time() - start, resident() - before]))
"""
OURS = OPENED.format(imports="import isomorph, numpy, onnx\nfrom isomorph.formats import gguf\nisomorph.open(sys.argv[2])", open="isomorph.open(sys.argv[1])")
THEIRS = OPENED.format(imports="from gguf import GGUFReader", open="GGUFReader(sys.argv[1])")


def measure(ours: Environment, peer: Environment | None, rounds: int = ROUNDS) -> dict[str, Any]:
    """Median CPU seconds and greatest growth of the resident memory in bytes, for each tool."""
    with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks", prefix=".vocabulary-") as scratch:
        large, small = Path(scratch) / "large.gguf", Path(scratch) / "small.gguf"
        generate(large, TOKENS, BYTES)
        generate(small, 8, 1 << 16)
        rows = {"isomorph": _opened(ours, OURS, [large, small], rounds)}
        if peer:
            rows["gguf-py"] = _opened(peer, THEIRS, [large], 1)
        return {"bytes": large.stat().st_size, "tokens": TOKENS, "rows": rows}


def _opened(environment: Environment, program: str, paths: list[Path], rounds: int) -> dict[str, float]:
    command = [str(environment.python), "-c", program, *map(str, paths)]
    found = [json.loads(subprocess.run(command, env=os.environ | environment.variables, check=True, capture_output=True, text=True).stdout)
             for _ in range(rounds)]
    return {"cpu": median(cpu for cpu, _ in found), "rss": max(rss for _, rss in found)}


def generate(path: Path, tokens: int, size: int) -> None:
    """Tokens with their scores and types, and tensors of about `size` bytes."""
    import numpy as np

    from isomorph.formats import gguf
    from isomorph.model import Checkpoint
    from isomorph.tensors import array_tensor
    from isomorph.wire.gguf import Keys
    words = [f"▁token{number}" for number in range(tokens)]
    values = {"general.architecture": "llama", "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": words,
              "tokenizer.ggml.scores": [-float(number) for number in range(tokens)], "tokenizer.ggml.token_type": [1] * tokens}
    matrix = np.zeros((1024, 4096 if size > 1 << 23 else 32), np.float16)
    tensors = {f"blk.{place}.ffn_up.weight": array_tensor(matrix, f"blk.{place}.ffn_up.weight") for place in range(max(1, size // matrix.nbytes))}
    gguf.write(Checkpoint(tensors, Keys(values, {"general.architecture": "string", "tokenizer.ggml.model": "string"})), path)
