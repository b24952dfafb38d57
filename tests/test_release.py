"""Large weights go through without staying in memory: pages of the mapping are given back."""
from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import isomorph
from isomorph.formats import safetensors
from isomorph.model import Checkpoint
from isomorph.tensors import array_tensor

MEGABYTE = 1 << 20
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[3])
import isomorph
report = isomorph.convert(sys.argv[1], sys.argv[2])
assert report.facts["verified"] == "re-read"
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024)
"""


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED") or not Path("/proc/self/status").exists(), reason="the system cannot be told, or does not tell")
def test_a_conversion_of_weights_holds_a_piece_at_a_time(tmp_path):
    """320 MB to and fro, with the comparison of what was written."""
    tensors = {f"w{place}": array_tensor(np.full((8 * MEGABYTE,), place, np.float32), f"w{place}") for place in range(10)}
    safetensors.write(Checkpoint(tensors), tmp_path / "first.safetensors")
    source = str(Path(isomorph.__file__).parents[1])
    for one, other in (("first.safetensors", "second.pt"), ("second.pt", "third.safetensors")):
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / one), str(tmp_path / other), source], capture_output=True, text=True, check=True,
                              timeout=120)
        assert int(done.stdout) < 200 * MEGABYTE, f"{one} to {other}"
