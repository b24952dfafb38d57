"""The environments of the peers, and of the runtimes that tests compare with, each made once from its requirements file in a cache outside the clone."""
from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "peers"
# What their wheels and those of their requirements exist for. An environment that is not named here is made with this interpreter.
INTERPRETERS = {"onnx2tf": ("3.12",), "tf2onnx": ("3.11", "3.12")}
PACKAGES = {"tensorflow": "tensorflow-cpu", "genai": "onnxruntime-genai"}           # whose version is told, where it is not the environment's name
ALONE = ".alone.txt"
READY = "ready"                                                         # written last into a complete environment
INSTALL_SECONDS = 1800


class Absent(Exception):
    """A tool that cannot be measured here, with the reason."""


@dataclass(frozen=True)
class Environment:
    """An interpreter with a tool installed. `variables` make it the active environment: onnx2tf runs other programs of its environment by name."""

    python: Path
    version: str
    variables: dict[str, str] = field(default_factory=dict)

    def program(self, name: str) -> str:
        return str(self.python.parent / name)


def ours() -> Environment:
    """The interpreter that runs the benchmarks, which must have isomorph. Its modules are compiled once, as pip does it for the peers."""
    import isomorph
    source = str(Path(isomorph.__file__).parents[1])
    return Environment(Path(sys.executable), isomorph.__version__, {"PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": ""})


def peer(name: str) -> Environment:
    """The environment of a peer, made where it is not there yet. Raises `Absent` where its interpreter or the registry is missing."""
    return made(name, REQUIREMENTS / f"{name}.txt", "peers")


def kept(name: str, requirements: Path, shelf: str) -> Path:
    """The folder of an environment, which has a file `ready` when it is complete. Other requirements make it another folder."""
    key = hashlib.sha256(b"".join(path.read_bytes() for path in (requirements, requirements.with_suffix(ALONE)) if path.exists())).hexdigest()[:12]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isomorph" / shelf / f"{name}-{key}"


def made(name: str, requirements: Path, shelf: str) -> Environment:
    """An environment with what a file asks for, on a shelf of the cache. What stands in the file beside it that ends in `.alone.txt` is installed without
    what it needs in turn. Raises `Absent` where its interpreter or the registry is missing."""
    folder = kept(name, requirements, shelf)
    if not (folder / READY).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / READY).exists():
                _make(name, folder, requirements)
    binaries = folder / "bin"
    variables = {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}", "VIRTUAL_ENV": str(folder), "PYTHONPATH": ""}
    return Environment(binaries / "python", _version(binaries / "python", name), variables)


def _make(name: str, folder: Path, requirements: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _install([_interpreter(name), "-m", "venv", str(folder)], name)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _install([*pip, "-r", str(requirements)], name)
    alone = requirements.with_suffix(ALONE)
    if alone.exists():
        _install([*pip, "--no-deps", "-r", str(alone)], name)
    (folder / READY).touch()


def _install(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Absent(f"{name} was not installed within {INSTALL_SECONDS} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise Absent(f"{name} was not installed: {said}")


def _interpreter(name: str) -> str:
    """The first interpreter that runs."""
    if name not in INTERPRETERS:
        return sys.executable
    for version in INTERPRETERS[name]:
        for found in _found(version):
            if subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
                return found
    wanted = " or ".join(f"Python {version}" for version in INTERPRETERS[name])
    raise Absent(f"{name} needs {wanted}, and there is none on the PATH or under pyenv")


def _found(version: str) -> list[str]:
    """What may be an interpreter of that version. The one on the PATH may be pyenv's launcher, which refuses while another version is chosen."""
    on_path = shutil.which(f"python{version}")
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    return [*([on_path] if on_path else []), *(str(folder / "bin" / "python") for folder in sorted(versions.glob(f"{version}.*"), reverse=True))]


def _version(python: Path, package: str) -> str:
    look = f"from importlib.metadata import version; print(version({PACKAGES.get(package, package)!r}))"
    return subprocess.run([str(python), "-c", look], capture_output=True, text=True, check=True).stdout.strip()
