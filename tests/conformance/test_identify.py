"""Every format and flavour as itself, under a wrong name, cut off, damaged, and by no other format."""
from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from golden.make_identify import CASES, Case, write

from isomorph.artifact import Artifact
from isomorph.errors import Damaged, NotRecognised, Unsafe
from isomorph.formats import _table
from isomorph.identification import identify

FILES = [case for case in CASES if isinstance(case.make(), bytes) and not case.named]
OURS = (NotRecognised, Damaged, Unsafe)
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
each_file = pytest.mark.parametrize("case", FILES, ids=lambda case: case.id)


@each
def test_as_itself(case: Case, tmp_path: Path) -> None:
    (row,) = identify([write(case, tmp_path)])
    assert "error" not in row
    assert row["format"] == case.format
    assert case.flavour in (None, row["flavour"])
    assert case.version in (None, row["version"])
    assert row["detail"] | case.detail == row["detail"]
    assert "truncated" not in row["detail"]
    assert row["bytes"] > 0 or case.format == "empty"


@each_file
@pytest.mark.parametrize("name", ["x", "x.bin", "x.onnx", "x.json", "x.pt", "x.tflite", "x.zip"])
def test_under_a_wrong_name(case: Case, name: str, tmp_path: Path) -> None:
    (row,) = identify([write(case, tmp_path, name)])
    assert row["format"] == case.format


@each
def test_by_no_other_format(case: Case, tmp_path: Path) -> None:
    artifact = Artifact.open(write(case, tmp_path))
    claims = []
    for row in _table.ROWS:
        try:
            claims += [row.name] if not row.last and row.identify(artifact) else []
        except OURS:
            continue
    assert claims in ([case.format], [] if _table.FORMATS[case.format].last else [case.format])


@each_file
def test_cut_off_anywhere(case: Case) -> None:
    data = case.make()
    assert isinstance(data, bytes)
    steps = sorted({*range(0, min(len(data), 200)), *range(0, len(data), max(1, len(data) // 150))})
    start = time.process_time()
    for length in steps:
        looked_at(data[:length])
    assert time.process_time() - start < 0.02 * len(steps) + 1


def looked_at(data: bytes) -> str:
    """What identification says of some bytes; only errors of ours count as an answer."""
    try:
        return _table.identify(Artifact.open(data)).format
    except OURS as error:
        return error.code


def test_mutated_files_raise_only_our_errors() -> None:
    chance = random.Random(20261123)
    seen = set()
    slowest = 0.0
    for case in FILES:
        data = case.make()
        assert isinstance(data, bytes)
        for _ in range(60):
            start = time.process_time()
            seen.add(looked_at(mutated(bytearray(data), chance)))
            slowest = max(slowest, time.process_time() - start)
    assert {case.format for case in FILES} <= seen
    assert "not-recognised" in seen
    assert slowest < 1


def mutated(data: bytearray, chance: random.Random) -> bytes:
    """One to four edits: odd numbers, flips, cuts, repeats; most near the head, where the structure is."""
    for _ in range(chance.randint(1, 4)):
        reach = len(data) if chance.random() < 0.4 else min(64, len(data))
        at = chance.randrange(reach) if reach else 0
        edit = chance.randrange(5)
        if edit == 0:
            data[at:at + 8] = chance.choice([b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f", (1 << 63).to_bytes(8, "little"), (10**9).to_bytes(4, "little")])
        elif edit == 1 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif edit == 2:
            del data[at:at + chance.randint(1, 16)]
        elif edit == 3:
            data[at:at] = data[at:at + chance.randint(1, 40)]
        else:
            data[at:at + 1] = chance.randbytes(chance.randint(0, 3))
    return bytes(data)


def test_nothing_is_recognised_in_other_files(tmp_path: Path) -> None:
    others = {"a.txt": b"Just a few words.\n" * 20, "b.png": b"\x89PNG\r\n\x1a\n" + bytes(100), "c.py": b"import os\nprint(1)\n" * 9,
              "d.bin": random.Random(5).randbytes(3000), "e.onnx": b"\0" * 1000, "f.json": b'{"a": [1, 2, {"b": null}]}'}
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
        (row,) = identify([tmp_path / name])
        assert row["format"] == "", name
        assert row["error"]["code"] == "not-recognised"
    (row,) = identify([tmp_path])
    assert row["error"]["code"] == "not-recognised"


def test_a_missing_file_is_a_row_too(tmp_path: Path) -> None:
    (row,) = identify([tmp_path / "absent"])
    assert row["error"]["exit_code"] == 3


def test_every_row_is_covered_by_a_case() -> None:
    assert {case.format for case in CASES} == set(_table.FORMATS)
