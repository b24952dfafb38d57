"""Runs the command line as a person in a pipe would: a process of its own."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"


def isomorph(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run([sys.executable, "-m", "isomorph", *arguments], cwd=folder, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": paths} | environment)

