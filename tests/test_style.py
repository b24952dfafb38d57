"""The linter and the type checker pass, as part of the tests so that one command checks everything."""
from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def checked(*command: str) -> None:
    environment = os.environ | {"MYPYPATH": str(ROOT / "src"), "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff():
    checked("ruff", "check", "--output-format", "concise", ".")


def test_mypy():
    checked("mypy", "--no-incremental", "-p", "isomorph")


def test_no_two_test_files_have_one_name():
    """They are imported by their names, so the second of two would stop the whole collection."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
