"""The demo: a small real network, converted to every format that can hold it, each result run on digits that it was not trained on."""
from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.artifact import Artifact
from isomorph.errors import IsomorphError
from isomorph.formats import _table
from isomorph.inspection import inspect
from isomorph.planning import plan
from isomorph.progress import SILENT, Progress
from isomorph.runtime import has_native
from isomorph.verification import Given, Subject, first_that_runs
from isomorph.verification.weights import differences

DATA = Path(__file__).parent / "data"
NETWORK, DIGITS = DATA / "digits.onnx", DATA / "digits.npz"


@dataclass(frozen=True)
class Row:
    """One format: what was written, how well it reads digits, how far its results lie from the original's, and how that is known."""

    format: str
    bytes: int = 0
    accuracy: float | None = None
    max_abs: float | None = None
    proof: str = ""
    runtime: str = ""
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Demonstration:
    """What the demo found: facts of the source, one row a format."""

    source: dict[str, Any]
    rows: list[Row]

    @property
    def passed(self) -> bool:
        return not any(row.problem for row in self.rows)


def demonstrate(folder: str | Path | None = None, *, progress: Progress = SILENT) -> Demonstration:
    """Identifies the network, looks into its container, converts it to every format of the registry that can be written and is not for
    another kind of network, runs each result.

    Files go to `folder` where one is given, replacing older ones, else to a temporary folder.
    """
    with np.load(DIGITS) as archive:
        images, labels = archive["images"].astype(np.float32) / 16, archive["labels"]
    report = inspect(NETWORK)
    container = Artifact.open(NETWORK).archive
    source = {"format": report.facts["format"], "title": _table.get(report.facts["format"]).title, "bytes": report.facts["bytes"],
              "parameters": report.facts["parameters"], "operators": sum(report.facts["operators"].values()), "digits": len(labels),
              "container": f"{container.kind} of {len(container.names)} files" if container else "a single file, no archive, nothing beside it"}
    wanted = _probabilities(NETWORK, images)[0]
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(folder or scratch)
        target.mkdir(parents=True, exist_ok=True)
        rows = [_row(name, target, images, labels, wanted, progress) for name in _table.writable() if not _table.get(name).of]
    return Demonstration(source, rows)


def _row(name: str, folder: Path, images: np.ndarray, labels: np.ndarray, wanted: np.ndarray, progress: Progress) -> Row:
    start = time.perf_counter()
    form = _table.get(name)
    path = folder / _table.output_name(name, "digits")
    try:
        made = plan(NETWORK, to=name, progress=progress)
        size = made.run(path, force=True, verify=False, progress=progress).facts["destination"]["bytes"]
        if form.holds == "weights":
            greatest = differences(Subject(NETWORK), Subject(path))
            return Row(name, size, None, greatest, "re-read", "weights only", time.perf_counter() - start, "" if greatest == 0 else "weights differ")
        if form.read is None and not has_native(name):
            return Row(name, size, None, None, "written", "not run here", time.perf_counter() - start)
        probabilities, proof, runtime = _probabilities(path, images)
    except Exception as error:                  # one format that fails must not hide the others
        code, what = (error.code, error.what) if isinstance(error, IsomorphError) else ("internal", f"{type(error).__name__}: {error}")
        return Row(name, seconds=time.perf_counter() - start, problem=f"{code}: {what}")
    accuracy, greatest = float((probabilities.argmax(1) == labels).mean()), float(np.abs(probabilities - wanted).max())
    return Row(name, size, accuracy, greatest, proof, runtime, time.perf_counter() - start, "" if greatest < 1e-4 else "results differ")


def _probabilities(path: Path, images: np.ndarray) -> tuple[np.ndarray, str, str]:
    """What the network at `path` says of the images, how it was run, and in what."""
    subject = Subject(path)
    with subject.session() as (session, proof):
        ports = session.inputs()
        _, outputs = first_that_runs(subject, session, {ports[0].name: Given(array=images)}, {}, 0)
        return next(iter(outputs.values())), proof, f"{session.runtime.title} {session.version}"
