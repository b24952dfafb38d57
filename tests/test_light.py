"""What must not be imported to say what a file is, and what that may cost."""
from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from golden.make_identify import CASES, Case, write

import isomorph

HEAVY = {"onnx", "onnx_ir", "onnxruntime", "sympy", "numpy", "h5py", "google.protobuf", "flatbuffers", "rich", "ml_dtypes", "asyncio", "email"}
LOOK = """
import json, resource, sys
from isomorph.identification import identify
rows = identify(sys.argv[1:])
print(json.dumps([[row["format"] for row in rows], sorted(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_utime]))
"""
ONE_EACH = list({case.format: case for case in CASES}.values())


def looked(path: Path) -> tuple[list[str], set[str], float]:
    source = {"PYTHONPATH": str(Path(isomorph.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", LOOK, str(path)], capture_output=True, text=True, check=True, timeout=60, env=os.environ | source)
    names, modules, seconds = json.loads(done.stdout)
    return names, set(modules), seconds


@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.format)
def test_identify_imports_nothing_heavy(case: Case, tmp_path: Path) -> None:
    names, modules, seconds = looked(write(case, tmp_path))
    assert names == [case.format]
    assert not modules & HEAVY
    assert seconds < 0.25


def test_the_measure_sees_heavy_imports() -> None:
    """The check above would be worth nothing if it could not fail."""
    done = subprocess.run([sys.executable, "-c", "import numpy, sys; print('numpy' in sys.modules)"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0
