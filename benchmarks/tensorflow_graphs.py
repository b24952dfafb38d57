"""What it costs to turn TensorFlow's graphs into ONNX, beside tf2onnx: a SavedModel, frozen graphs, and models of TensorFlow.js."""
from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import cases, processes
from benchmarks.environments import Environment

# What is converted: a name of the zoo of the tests, or a file of the shared data.
MODELS = {"basic_pitch_saved_model": "SavedModel", "frozen-graphdef/ae0.pb": "frozen graph", "frozen-graphdef/lstm.pb": "frozen graph",
          "basic_pitch_tfjs": "TensorFlow.js", "human_facemesh": "TensorFlow.js", "human_movenet_lightning": "TensorFlow.js"}


def measure(ours: Environment, peer: Environment | None, repeats: int, said: Callable[[str], None]) -> dict[str, Any]:
    """CPU seconds and peak memory of both tools, in turns: medians, by the name of the model."""
    found: dict[str, Any] = {}
    for name, kind in MODELS.items():
        try:
            source = _source(name)
        except cases.Unavailable as reason:
            said(f"{name}: left out, {reason}")
            continue
        commands = {"isomorph": (ours, _ours(ours, source))} | ({"tf2onnx": (peer, _theirs(peer, source))} if peer is not None else {})
        found[name] = {"kind": kind, "tools": _turns(source, commands, repeats)}
        said(f"{name}: " + "; ".join(f"{tool} {row['cpu']:.2f} s, {row['rss'] / 1e6:.0f} MB {row['failure']}" for tool, row in found[name]["tools"].items()))
    return found


def _source(name: str) -> Path:
    """The file, or the folder of a SavedModel."""
    if name.endswith(".pb"):
        if not (cases.DATA / name).exists():
            raise cases.Unavailable("the folder of shared data is not there")
        return cases.DATA / name
    path = cases._published(name)
    return path.parent if path.name == "saved_model.pb" else path


def _ours(environment: Environment, source: Path) -> list[str]:
    return [str(environment.python), "-m", "isomorph", "convert", source.name, "result.onnx", "--quiet", "--no-verify"]


# tf2onnx reads TensorFlow.js with a function that NumPy 2 does not have any more.
START = "import numpy, runpy, sys; numpy.product = numpy.prod; sys.argv[0] = 'convert'; runpy.run_module('tf2onnx.convert', run_name='__main__')"


def _theirs(environment: Environment, source: Path) -> list[str]:
    """tf2onnx wants to be told what goes into a frozen graph and what comes out."""
    command = [str(environment.python), "-c", START, "--output", "result.onnx"]
    if source.is_dir():
        return [*command, "--saved-model", source.name]
    if source.suffix == ".json":
        return [*command, "--tfjs", source.name]
    from isomorph.artifact import Artifact
    from isomorph.formats import graphdef
    signature = graphdef.read(Artifact.open(source)).signatures[0]
    inputs, outputs = (",".join(f"{name}:0" for name in side.values()) for side in (signature.inputs, signature.outputs))
    return [*command, "--graphdef", source.name, "--inputs", inputs, "--outputs", outputs]


def _turns(source: Path, commands: Mapping[str, tuple[Environment, list[str]]], repeats: int) -> dict[str, Any]:
    costs: dict[str, list[processes.Cost]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, (environment, command) in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                _copied(source, Path(folder))
                costs[name].append(processes.run(command, Path(folder), environment.variables))
    return {name: {"cpu": median(cost.cpu for cost in kept), "rss": median(cost.rss for cost in kept), "failure": kept[-1].failure}
            for name, kept in costs.items()}


def _copied(source: Path, folder: Path) -> None:
    """The model with the files that belong beside it."""
    if source.is_dir():
        shutil.copytree(source, folder / source.name)
        return
    for part in source.parent.iterdir() if source.suffix == ".json" else (source,):
        shutil.copyfile(part, folder / part.name)
