"""A PyTorch checkpoint of a gigabyte: `inspect`, and `convert` to safetensors beside `cp`, in turns on one file system. The file is generated, and deleted."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import ROOT
from benchmarks.environments import Environment
from benchmarks.processes import run

ROWS, COLUMNS = 4096, 4096                          # of a matrix of float32: 64 MiB
ROUNDS = 5


def measure(ours: Environment, gigabytes: float = 1.0, rounds: int = ROUNDS) -> dict[str, Any]:
    """Medians of wall seconds, CPU seconds and the greatest resident memory of each command. `cp and fsync` is a copy that is on the disk when it ends, as
    ours are."""
    with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks", prefix=".checkpoint-") as scratch:
        folder = Path(scratch)
        generate(folder / "big.pt", gigabytes)
        isomorph = [str(ours.python), "-m", "isomorph"]
        convert = [*isomorph, "convert", "big.pt", "out", "--to", "safetensors", "--quiet"]
        flushed = [sys.executable, "-S", "-c", "import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDONLY))", "out"]
        commands = {"cp": [[str(shutil.which("cp")), "big.pt", "out"]], "cp and fsync": [[str(shutil.which("cp")), "big.pt", "out"], flushed],
                    "convert --no-verify": [[*convert, "--no-verify"]], "convert": [convert], "inspect": [[*isomorph, "inspect", "big.pt", "--quiet"]]}
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        rss, cpu = dict.fromkeys(commands, 0), dict.fromkeys(commands, 0.0)
        for _ in range(rounds):
            for name, parts in commands.items():
                (folder / "out").unlink(missing_ok=True)
                os.sync()                           # nobody waits for what others have left to write
                seconds[name].append(sum(_wall(part, folder, ours.variables) for part in parts))
        for name, parts in commands.items():
            (folder / "out").unlink(missing_ok=True)
            costs = [run(part, folder, ours.variables) for part in parts]
            rss[name], cpu[name] = max(cost.rss for cost in costs), sum(cost.cpu for cost in costs)
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
