"""The sessions of the Markdown files beside this one: each command is run, each output compared. `--accept` writes down what was seen.

A session is a fenced block that begins with `$ command`; what follows until the next `$` or the end of the block is its output, of both streams.
`...` in an expected line stands for anything, because times and versions change. All commands of a file share a folder, in which the network of the demo
lies as `digits.onnx`. A line `[exits with N]` follows where the status is not 0.
"""
from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from commandline import SOURCE

from isomorph.cli import COMMANDS

HERE = Path(__file__).parent
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Run:
    """One command and what it should print."""

    command: str
    expected: str


def runs(block: str) -> list[Run]:
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        found.append(Run(command, expected))
    return found


def execute(command: str, folder: Path) -> str:
    """What the command prints, with its status where that is not 0. `isomorph` is this isomorph."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")])), "COLUMNS": "120"}
    words = f"isomorph() {{ {shlex.quote(sys.executable)} -m isomorph \"$@\"; }}; {command}"
    done = subprocess.run(["bash", "-c", words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment)
    return done.stdout + (f"[exits with {done.returncode}]\n" if done.returncode else "")


def matches(expected: str, seen: str) -> bool:
    pattern = ".*".join(re.escape(piece) for piece in expected.split("..."))
    return re.fullmatch(pattern, seen, re.DOTALL if "\n...\n" in expected else 0) is not None


@pytest.mark.parametrize("page", sorted(HERE.glob("*.md")), ids=lambda page: page.stem)
def test_session(page, digits, request):
    text = page.read_text(encoding="utf-8")
    different = []

    def replay(match: re.Match[str]) -> str:
        lines = []
        for run in runs(match[1]):
            seen = execute(run.command, digits)
            same = matches(run.expected, seen)
            different.extend([] if same else [f"$ {run.command}\nexpected\n{run.expected}seen\n{seen}"])
            lines.append(f"$ {run.command}\n{run.expected if same else seen}")
        return "```console\n" + "".join(lines) + "```"
    rewritten = BLOCK.sub(replay, text)
    if request.config.getoption("--accept"):
        page.write_text(rewritten, encoding="utf-8")
        return
    assert not different, "\n".join(different)


def test_a_difference_is_seen():
    assert matches("a ... b\n", "a 17 b\n")
    assert not matches("a ... b\n", "a 17 c\n")
    assert not matches("a ... b\n", "a 17\nx b\n")
    assert matches("a\n...\nb\n", "a\n1\n2\nb\n")
    assert [run.command for run in runs("$ one\nout\n$ two\n")] == ["one", "two"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_shown(name):
    assert any(run.command.startswith(f"isomorph {name}") for page in HERE.glob("*.md") for block in BLOCK.findall(page.read_text()) for run in runs(block))
    assert f"`isomorph {name}" in (HERE.parents[1] / "README.md").read_text(encoding="utf-8")
