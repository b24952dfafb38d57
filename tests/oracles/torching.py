"""Runs scripts of this folder in the environment that has PyTorch (`environments`)."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path

import environments
import numpy as np
import pytest

needs_torch = pytest.mark.usefixtures("torch_environment")


def call(script: str, *arguments: object) -> str:
    """What a script of this folder prints in the Python that has PyTorch."""
    command = [str(environments.python("torch")), "-W", "ignore", str(Path(__file__).parent / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def loaded(file: Path, out: Path) -> tuple[dict[str, bytes], dict[str, list]]:
    """(bytes, [dtype, shape, address]) of every tensor that PyTorch loads from a file."""
    call("torch_child.py", "load", file, out)
    with np.load(out) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files if name != "__facts__"}, json.loads(str(arrays["__facts__"]))
