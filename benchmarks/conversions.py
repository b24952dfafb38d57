"""Both tools on one model, in turns: what each conversion costs and what its result is worth."""
from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import processes, results
from benchmarks.cases import Case
from benchmarks.environments import Environment

OTHER = {"onnx": "tflite", "tflite": "onnx"}
INTEGERS = "isomorph in integers"
PEERS = {"onnx": "onnx2tf", "tflite": "tf2onnx"}    # who is compared, by the format of the source


@dataclass(frozen=True)
class Tool:
    """A converter: its command for a copy of the source in an empty folder, and where in that folder its result stands."""

    name: str
    environment: Environment
    command: Callable[[Environment, Case, str], list[str]]
    result: str


def isomorph(environment: Environment, case: Case, source: str, *, verify: bool = False) -> list[str]:
    shapes = [part for name, shape in case.shapes.items() for part in ("--input-shape", f"{name}={'x'.join(map(str, shape))}")]
    command = [str(environment.python), "-m", "isomorph", "convert", source, f"result.{OTHER[case.source]}", "--quiet", *shapes]
    return command if verify else [*command, "--no-verify"]


def isomorph_verified(environment: Environment, case: Case, source: str) -> list[str]:
    return isomorph(environment, case, source, verify=True)


def isomorph_integers(environment: Environment, case: Case, source: str) -> list[str]:
    return [*isomorph(environment, case, source), "--integers"]


def onnx2tf(environment: Environment, case: Case, source: str) -> list[str]:
    shapes = [f"{name}:{','.join(map(str, shape))}" for name, shape in case.shapes.items()]
    return [environment.program("onnx2tf"), "-i", source, "-o", "result", "-n", *(["-ois", *shapes] if shapes else [])]


def tf2onnx(environment: Environment, case: Case, source: str) -> list[str]:
    return [str(environment.python), "-m", "tf2onnx.convert", "--tflite", source, "--output", "result.onnx"]


def tools(case: Case, ours: Environment, peers: Mapping[str, Environment]) -> list[Tool]:
    """Those that convert this case, ours first."""
    result = f"result.{OTHER[case.source]}"
    found = [Tool("isomorph", ours, isomorph, result), Tool("isomorph verified", ours, isomorph_verified, result)]
    if results.is_quantised(case.path()):
        found.append(Tool(INTEGERS, ours, isomorph_integers, result))
    name = PEERS[case.source]
    if name in peers:
        found.append(Tool(name, peers[name], *{"onnx2tf": (onnx2tf, "result/source_float32.tflite"), "tf2onnx": (tf2onnx, "result.onnx")}[name]))
    return found


def measure(case: Case, compared: list[Tool], repeats: int, *, timed: bool = True) -> dict[str, Any]:
    """One row: what each tool took (medians of `repeats` turns) and what its result is worth."""
    path = case.path()
    with tempfile.TemporaryDirectory() as scratch:
        costs: dict[str, list[processes.Cost]] = {tool.name: [] for tool in compared}
        rewritten: dict[str, bool] = {}
        made: dict[str, Path] = {}
        for turn in range(repeats):
            for tool in compared:
                folder = Path(scratch) / f"{tool.name}-{turn}"
                cost, rewritten[tool.name] = _convert(tool, case, path, folder)
                costs[tool.name].append(cost)
                if (folder / tool.result).exists():
                    made[tool.name] = folder / tool.result
        rows = {tool.name: _row(case, path, costs[tool.name], made.get(tool.name), rewritten[tool.name]) for tool in compared}
        seconds = results.latencies(case, path, {name: result for name, result in made.items() if not rows[name]["failure"]}) if timed else {}
        for name, row in rows.items():
            row["latency"] = seconds.get(name)
        return {"model": case.name, "bytes": path.stat().st_size, "weights": results.weight_bytes(path), "kernels": results.kernels_apart(case, path),
                "latency": seconds.get("source"), "tools": rows}


def _convert(tool: Tool, case: Case, path: Path, folder: Path) -> tuple[processes.Cost, bool]:
    """The cost of one conversion, and whether the tool wrote into its source, which is a copy here."""
    folder.mkdir()
    source = folder / f"source.{case.source}"
    shutil.copyfile(path, source)
    before = _hash(source)
    cost = processes.run(tool.command(tool.environment, case, source.name), folder, tool.environment.variables)
    return cost, _hash(source) != before


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "gone"


def _row(case: Case, path: Path, costs: list[processes.Cost], result: Path | None, rewritten: bool) -> dict[str, Any]:
    failure = costs[-1].failure or ("" if result else "it wrote no result")
    row: dict[str, Any] = {"cpu": median(cost.cpu for cost in costs), "rss": median(cost.rss for cost in costs), "source_rewritten": rewritten,
                           "failure": failure, "bytes": None, "weights": None, "difference": None}
    if result is None or costs[-1].failure:
        return row
    apart, failure = results.checked(case, path, result)
    row |= {"bytes": result.stat().st_size, "failure": failure} | apart
    if not failure:
        row["weights"] = results.weight_bytes(result)
    return row
