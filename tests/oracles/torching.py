"""Finds a Python with PyTorch for the tests of this folder: this one, or the one that the variable ISOMORPH_TORCH_PYTHON names."""
from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PYTHON = os.environ.get("ISOMORPH_TORCH_PYTHON") or (sys.executable if importlib.util.find_spec("torch") else "")
needs_torch = pytest.mark.skipif(not PYTHON, reason="PyTorch is not installed: name a Python that has it in ISOMORPH_TORCH_PYTHON")


def call(script: str, *arguments: object) -> str:
    """What a script of this folder prints in the Python that has PyTorch."""
    command = [PYTHON, "-W", "ignore", str(Path(__file__).parent / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def loaded(file: Path, out: Path) -> tuple[dict[str, bytes], dict[str, list]]:
    """(bytes, [dtype, shape, address]) of every tensor that PyTorch loads from a file."""
    call("torch_child.py", "load", file, out)
    with np.load(out) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files if name != "__facts__"}, json.loads(str(arrays["__facts__"]))
