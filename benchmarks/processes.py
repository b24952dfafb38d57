"""Whole processes and what they cost: CPU seconds of the process and its children, peak memory of the largest of them."""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("_launch.py")
PATHS = re.compile(r"(?<![\w:/])(?:/[\w.+-]+)+/([\w.+-]+)")
LONGEST = 240


@dataclass(frozen=True)
class Cost:
    """CPU seconds (user and system) of a process with all its children; the greatest resident memory of one of them in bytes; why it failed, or nothing."""

    cpu: float
    rss: int
    failure: str = ""


def run(command: Sequence[str], folder: Path, variables: Mapping[str, str], *, seconds: int = 600) -> Cost:
    """Runs a command in a folder to its end, or for so many seconds."""
    with tempfile.TemporaryDirectory() as reports:
        report, log = Path(reports) / "report", Path(reports) / "log"
        launched = [sys.executable, "-S", "-E", str(LAUNCHER), str(report), str(log), str(seconds), *command]
        subprocess.run(launched, cwd=folder, env=os.environ | variables, check=True)
        took = json.loads(report.read_text())
        failure = f"not done within {seconds} s" if took["late"] else last_words(log.read_text(errors="replace")) if took["code"] else ""
    return Cost(took["cpu"], took["rss"], failure)


def last_words(log: str) -> str:
    """The last line of a log that says something, without the folders of this machine."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", log) if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b|error\[", line)]
    return shortened((errors or lines or ["it said nothing"])[-1])


def shortened(text: str) -> str:
    text = PATHS.sub(r"\1", " ".join(text.split()))
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def anonymous_peak(command: Sequence[str], variables: Mapping[str, str], *, every: float = 0.005) -> tuple[int, int]:
    """The greatest anonymous memory in bytes that a process held, sampled while it ran, and its exit status. Mapped files do not count."""
    process = subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _anonymous(process.pid))
        time.sleep(every)
    return peak, process.returncode


def _anonymous(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:                                 # it has just ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")), 0)
