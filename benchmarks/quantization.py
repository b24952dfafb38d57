"""A language model of 0.3 billion parameters in fewer bits: isomorph compiled and with NumPy alone, beside llama-quantize, on one thread, in turns.

llama-quantize has no package of its own: the variable ISOMORPH_LLAMA_QUANTIZE names it where it is not on the path. Without it isomorph is measured alone.
"""
from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import ROOT
from benchmarks.environments import Environment
from benchmarks.processes import run

SCHEMES = ("Q4_K_M", "Q6_K", "Q8_0")
ROUNDS = 3
WIDTH, INNER, WORDS, LAYERS = 2048, 5632, 32000, 4
PEER = "llama-quantize"


def measure(ours: Environment, rounds: int = ROUNDS) -> dict[str, Any]:
    """For each scheme and tool: median CPU seconds, greatest resident memory, and whether the file is the same as llama-quantize's."""
    program = os.environ.get("ISOMORPH_LLAMA_QUANTIZE") or shutil.which(PEER)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks", prefix=".quantization-") as scratch:
        folder = Path(scratch)
        parameters = generate(folder / "source.gguf")
        for scheme in SCHEMES:
            command = [str(ours.python), "-m", "isomorph", "quantize", "source.gguf", "out.gguf", "--scheme", scheme, "--threads", "1", "--no-verify",
                       "--quiet", "--force"]
            tools = {"isomorph": (command, {}), "isomorph, NumPy alone": (command, {"ISOMORPH_NATIVE": "0"})}
            if program:
                tools[PEER] = ([program, "source.gguf", "peer.gguf", scheme, "1"], {"LD_LIBRARY_PATH": str(Path(program).parent)})
            costs: dict[str, list[Any]] = {name: [] for name in tools}
            same: dict[str, bool | None] = {}
            for _ in range(rounds):
                for name, (words, variables) in reversed(tools.items()):
                    costs[name].append(run(words, folder, {**ours.variables, **variables}))
                    theirs = folder / "peer.gguf"
                    same[name] = filecmp.cmp(folder / "out.gguf", theirs, shallow=False) if program and name != PEER else None
            rows[scheme] = {name: {"cpu": median(cost.cpu for cost in found), "rss": max(cost.rss for cost in found), "same": same[name],
                                   "failure": found[-1].failure} for name, found in costs.items()}
        size = (folder / "source.gguf").stat().st_size
    return {"bytes": size, "parameters": parameters, "compiled": compiled(ours), "rows": rows}


def compiled(ours: Environment) -> bool:
    """Whether the environment has the encoders in C."""
    command = [str(ours.python), "-c", "from isomorph.quant import native; raise SystemExit(native.library() is None)"]
    return not run(command, ROOT, ours.variables).failure


def generate(path: Path) -> int:
    """A llama of random weights in float16, as GGUF; answers how many parameters it has."""
    import numpy as np

    from isomorph.formats import gguf
    from isomorph.model import Checkpoint
    from isomorph.tensors import array_tensor
    from isomorph.wire.gguf import Keys
    random, tensors = np.random.default_rng(0), {}

    def add(name: str, *dims: int) -> None:
        array = (0.02 * random.standard_normal(dims, np.float32)).astype(np.float16) if len(dims) > 1 else np.ones(dims, np.float32)
        tensors[name] = array_tensor(array, name)
    for name in ("token_embd", "output"):
        add(f"{name}.weight", WORDS, WIDTH)
    add("output_norm.weight", WIDTH)
    matrices = {"attn_q": (WIDTH, WIDTH), "attn_k": (256, WIDTH), "attn_v": (256, WIDTH), "attn_output": (WIDTH, WIDTH), "ffn_gate": (INNER, WIDTH),
                "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
    for layer in range(LAYERS):
        for name, dims in matrices.items():
            add(f"blk.{layer}.{name}.weight", *dims)
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{name}.weight", WIDTH)
    numbers = {"block_count": LAYERS, "context_length": 2048, "embedding_length": WIDTH, "feed_forward_length": INNER, "attention.head_count": 32,
               "attention.head_count_kv": 4, "rope.dimension_count": 64, "vocab_size": WORDS}
    values = {"general.architecture": "llama", "general.file_type": 1, **{f"llama.{name}": value for name, value in numbers.items()},
              "llama.attention.layer_norm_rms_epsilon": 1e-5}
    kinds = {"general.file_type": "u32", **{f"llama.{name}": "u32" for name in numbers}, "llama.attention.layer_norm_rms_epsilon": "f32"}
    gguf.write(Checkpoint(tensors, Keys(values, kinds)), path)
    return sum(tensor.size for tensor in tensors.values())
