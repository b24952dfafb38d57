"""The real runtimes that results are compared with and that are too large to install with the tests: TensorFlow and Keras, PyTorch, TensorFlow.js.

Each has an environment of its own, made from a file of `tests/runtimes` in a cache outside the clone, and kept there. Where it is not made yet it is made
only where ISOMORPH_RUNTIMES or CI is set, because these are downloads of hundreds of megabytes; else the test is skipped and says so.
"""
from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from benchmarks import environments

WANTED = Path(__file__).with_name("runtimes")
SHELF = "runtimes"
# The runtimes of isomorph that an environment is for.
DRIVES = {"tensorflow": ("tensorflow", "keras"), "torch": ("torch",), "tfjs": ("tfjs",)}


def use(name: str) -> Path:
    """The Python interpreter of an environment, or for TensorFlow.js the folder that holds `node_modules`; from now on isomorph runs files in it."""
    place = node(name) if name == "tfjs" else python(name)
    for runtime in DRIVES[name]:
        os.environ[f"ISOMORPH_{'NODE' if name == 'tfjs' else 'PYTHON'}_{runtime.upper()}"] = str(place)
    return place


@cache
def python(name: str) -> Path:
    """The interpreter of an environment: the one that ISOMORPH_PYTHON_ and its name say, else that of the cache."""
    named = os.environ.get(f"ISOMORPH_PYTHON_{name.upper()}")
    if named:
        return Path(named)
    _may_be_made(environments.kept(name, WANTED / f"{name}.txt", SHELF), name)
    try:
        return environments.made(name, WANTED / f"{name}.txt", SHELF).python
    except environments.Absent as reason:
        pytest.skip(str(reason))


@cache
def node(name: str) -> Path:
    """A folder with the packages of a `.json` file of `tests/runtimes` under `node_modules`."""
    named = os.environ.get(f"ISOMORPH_NODE_{name.upper()}")
    if named:
        return Path(named)
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    wanted = WANTED / f"{name}.json"
    folder = environments.kept(name, wanted, SHELF)
    _may_be_made(folder, name)
    if not (folder / environments.READY).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(wanted, folder / "package.json")
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            pytest.skip(f"npm could not install {wanted.name}: {done.stderr.strip().splitlines()[-1]}")
        (folder / environments.READY).touch()
    return folder


def _may_be_made(folder: Path, name: str) -> None:
    if not (folder / environments.READY).exists() and not (os.environ.get("CI") or os.environ.get("ISOMORPH_RUNTIMES")):
        pytest.skip(f"the environment of {name} is not there yet: set ISOMORPH_RUNTIMES=1 to have it made (hundreds of megabytes)")
