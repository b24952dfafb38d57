"""What it costs to turn the networks of keras.applications into ONNX and SavedModels, beside `Model.export` of Keras, which writes ONNX through tf2onnx."""
from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.environments import Environment

WORKER = Path(__file__).with_name("_keras_worker.py")
# what Keras calls them -> what the file or folder is called
FORMATS = {"onnx": ("onnx", "model.onnx"), "saved_model": ("tf_saved_model", "model")}
SECONDS = 1200
LARGEST = 250e6                                  # bytes of a .keras file that Keras is asked to export to ONNX: it took 11 GB of memory for one of 355 MB


def names(keras: Environment) -> list[str]:
    """Every network that Keras exports."""
    done = subprocess.run([str(keras.python), str(WORKER), "names"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def measure(ours: Environment, keras: Environment, chosen: list[str]) -> Iterator[dict[str, Any]]:
    """A row a network with random weights, at the size of picture that it is made for: CPU seconds and peak memory of both tools, by format."""
    for name in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            made = processes.run([str(keras.python), str(WORKER), "make", name, "model.keras"], folder, keras.variables, seconds=SECONDS)
            if made.failure:
                print(f"{name}: left out, {made.failure}", file=sys.stderr)
                continue
            row: dict[str, Any] = {"model": name, "bytes": (folder / "model.keras").stat().st_size}
            for format, (theirs, target) in FORMATS.items():
                commands = {"isomorph": (ours, ["-m", "isomorph", "convert", "model.keras", f"ours/{target}", "--to", format, "--quiet", "--no-verify"]),
                            "keras": (keras, [str(WORKER), "export", "model.keras", f"theirs/{target}", theirs])}
                for side in ("ours", "theirs"):
                    (folder / side).mkdir(exist_ok=True)
                row[format] = {}
                if format == "onnx" and row["bytes"] > LARGEST:
                    row[format]["keras"] = {"cpu": 0.0, "rss": 0, "failure": "not asked, too large"}
                    del commands["keras"]
                for tool, (environment, command) in commands.items():
                    cost = processes.run([str(environment.python), *command], folder, environment.variables, seconds=SECONDS)
                    row[format][tool] = {"cpu": cost.cpu, "rss": cost.rss, "failure": cost.failure}
            yield row


def shares(rows: list[dict[str, Any]], format: str, key: str) -> list[tuple[str, float]]:
    """(network, ours over theirs), where both tools came to an end without a failure."""
    pairs = [(row["model"], row[format]["isomorph"], row[format]["keras"]) for row in rows]
    return [(name, mine[key] / theirs[key]) for name, mine, theirs in pairs if not mine["failure"] and not theirs["failure"]]
