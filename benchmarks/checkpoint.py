"""A PyTorch checkpoint of a gigabyte: `inspect`, and `convert` to safetensors beside `cp`, in turns on one file system. The file is generated, and deleted."""
from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import ROOT
from benchmarks.environments import Environment
from benchmarks.processes import run

ROWS, COLUMNS = 4096, 4096                          # of a matrix of float32: 64 MiB
ROUNDS = 9


def measure(ours: Environment, gigabytes: float = 1.0, rounds: int = ROUNDS) -> dict[str, Any]:
    """Medians of wall seconds, CPU seconds and the greatest resident memory of each command."""
    with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks", prefix=".checkpoint-") as scratch:
        folder = Path(scratch)
        generate(folder / "big.pt", gigabytes)
        isomorph = [str(ours.python), "-m", "isomorph"]
        convert = [*isomorph, "convert", "big.pt", "out", "--to", "safetensors", "--quiet"]
        commands = {"cp": [str(shutil.which("cp")), "big.pt", "out"], "convert --no-verify": [*convert, "--no-verify"], "convert": convert,
                    "inspect": [*isomorph, "inspect", "big.pt", "--quiet"]}
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        rss, cpu = dict.fromkeys(commands, 0), dict.fromkeys(commands, 0.0)
        for _ in range(rounds):
            for name, command in commands.items():
                (folder / "out").unlink(missing_ok=True)
                os.sync()                           # nobody waits for what others have left to write
                seconds[name].append(_wall(command, folder, ours.variables))
        for name, command in commands.items():
            (folder / "out").unlink(missing_ok=True)
            cost = run(command, folder, ours.variables)
            rss[name], cpu[name] = cost.rss, cost.cpu
        return {"bytes": (folder / "big.pt").stat().st_size, "rounds": rounds,
                "rows": {name: {"seconds": median(taken), "least": min(taken), "cpu": cpu[name], "rss": rss[name]} for name, taken in seconds.items()}}


def _wall(command: list[str], folder: Path, variables: Any) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=os.environ | variables, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def generate(path: Path, gigabytes: float) -> None:
    """Random matrices and their biases, as `torch.save` writes a state dict."""
    import numpy as np

    from isomorph.formats import torch
    from isomorph.model import Checkpoint
    from isomorph.tensors import array_tensor
    count = max(1, round(gigabytes * 1e9 / (4 * ROWS * COLUMNS)))
    matrix = np.random.default_rng(0).standard_normal((ROWS, COLUMNS), np.float32)
    tensors = {f"layers.{place}.weight": array_tensor(matrix, f"layers.{place}.weight") for place in range(count)}
    tensors |= {f"layers.{place}.bias": array_tensor(matrix[place], f"layers.{place}.bias") for place in range(count)}
    torch.write(Checkpoint(tensors), path)
