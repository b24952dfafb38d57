"""What it costs to turn TensorFlow's graphs into ONNX, beside tf2onnx.

    python -m benchmarks.tensorflow_graphs [--repeats 3] [MODEL ...]

Models are SavedModel folders and frozen graphs; without any it is the published SavedModel of the zoo. A line a model: CPU seconds and peak memory of both
(medians, in turns), and ours as parts of theirs. Exits with 1 where a conversion fails or a part is more than a third.
"""
from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import cases, environments, processes
from benchmarks.environments import Environment

MOST = 1 / 3


def theirs(environment: Environment, source: Path) -> list[str]:
    """tf2onnx wants to be told what goes into a frozen graph and what comes out."""
    command = [str(environment.python), "-m", "tf2onnx.convert", "--output", "result.onnx"]
    if source.is_dir():
        return [*command, "--saved-model", source.name]
    from isomorph.artifact import Artifact
    from isomorph.formats import graphdef
    signature = graphdef.read(Artifact.open(source)).signatures[0]
    ports = [",".join(f"{name}:0" for name in side.values()) for side in (signature.inputs, signature.outputs)]
    return [*command, "--graphdef", source.name, "--inputs", ports[0], "--outputs", ports[1]]


def ours(environment: Environment, source: Path) -> list[str]:
    return [str(environment.python), "-m", "isomorph", "convert", source.name, "result.onnx", "--quiet", "--no-verify"]


def measured(source: Path, tools: Sequence[tuple[Environment, list[str]]], repeats: int) -> list[tuple[float, float, str]]:
    """(CPU seconds, peak bytes, failure) of each tool."""
    costs: list[list[processes.Cost]] = [[] for _ in tools]
    for _ in range(repeats):
        for kept, (environment, command) in zip(costs, tools, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                (shutil.copytree if source.is_dir() else shutil.copyfile)(source, Path(folder) / source.name)
                kept.append(processes.run(command, Path(folder), environment.variables))
    return [(median(cost.cpu for cost in kept), median(cost.rss for cost in kept), kept[-1].failure) for kept in costs]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tensorflow_graphs")
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    peer, own = environments.peer("tf2onnx"), environments.ours()
    short = False
    for source in options.models or [cases._published("basic_pitch_saved_model").parent]:
        source = source.resolve()
        mine, other = measured(source, [(own, ours(own, source)), (peer, theirs(peer, source))], options.repeats)
        parts = mine[0] / other[0], mine[1] / other[1]
        short |= bool(mine[2]) or max(parts) > MOST
        print(f"{source.name}: {mine[0]:.2f} s and {mine[1] / 1e6:.0f} MB, tf2onnx {other[0]:.2f} s and {other[1] / 1e6:.0f} MB: "
              f"{parts[0]:.2f} of the CPU seconds, {parts[1]:.2f} of the memory{f', we failed: {mine[2]}' if mine[2] else ''}"
              f"{f', it failed: {other[2]}' if other[2] else ''}", flush=True)
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
