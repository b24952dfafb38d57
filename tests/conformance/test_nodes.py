"""The 1,884 ONNX node tests through TensorFlow Lite: run by LiteRT, and read back into ONNX and run by ONNX Runtime.

What cannot be carried stands in `cannot.toml`, each row with a category and a reason. A case that passes although it is listed fails here too,
so that the list, and the public matrix made from it, stay true.
"""

from __future__ import annotations

import runpy
import tomllib
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import node_cases
import pytest

from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.formats import onnx, tflite

# Refusals are answers of ours; the other two are seen when the file runs.
REFUSALS, RUNTIME = {"no-equivalent", "not-yet", "undecidable"}, {"runtime-bug", "undecidable", "precision"}


@cache
def rows() -> list[dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / "cannot.toml").read_text())["cannot"]


def listed(name: str, route: str) -> dict[str, Any] | None:
    """The row of `cannot.toml` for a case on a route ("tflite" or "tflite-onnx"); rows of the first hold for the second unless they say otherwise."""
    for row in rows():
        if route in row["routes"] and any(fnmatchcase(name, pattern) for pattern in row["cases"]):
            return row
    return None


@pytest.fixture(scope="session")
def litert():
    pytest.importorskip("ai_edge_litert", reason="the extra [litert] is not installed")
    return node_cases.Runner("isomorph.runtime.litert")


@pytest.fixture(scope="session")
def ort():
    return node_cases.Runner("isomorph.runtime.onnxruntime")


def judge(name: str, route: str, verdict: tuple[str, str]) -> None:
    row = listed(name, route)
    kind, why = verdict
    if kind == "pass":
        assert row is None, f"passes now: take it out of cannot.toml ({row})"
        return
    assert row is not None, f"{kind}: {why}"
    assert row["why"] in (REFUSALS if kind == "refused" else RUNTIME), f"{kind}, listed as {row['why']}: {why}"


@pytest.mark.parametrize("name", sorted(node_cases.cases()))
def test_runs_in_litert(name, litert, tmp_path):
    def convert(proto):
        model = from_hub(onnx.read(Artifact.open(proto.SerializeToString())), "tflite")
        tflite.write(model, tmp_path / "model.tflite", force=True)
        return tmp_path / "model.tflite"

    judge(name, "tflite", node_cases.attempt(node_cases.cases()[name], convert, litert))


@pytest.mark.parametrize("name", sorted(node_cases.cases()))
def test_comes_back_to_onnx(name, ort, tmp_path):
    def convert(proto):
        model = from_hub(onnx.read(Artifact.open(proto.SerializeToString())), "tflite")
        tflite.write(model, tmp_path / "model.tflite", force=True)
        onnx.write(to_hub(tflite.read(Artifact.open(tmp_path / "model.tflite"))), tmp_path / "back.onnx", force=True)
        return tmp_path / "back.onnx"

    judge(name, "tflite-onnx", node_cases.attempt(node_cases.cases()[name], convert, ort))


def test_every_row_has_a_reason():
    for row in rows():
        assert row["why"] in REFUSALS | RUNTIME
        assert len(row["reason"]) > 20
        names = [name for name in node_cases.cases() if any(fnmatchcase(name, pattern) for pattern in row["cases"])]
        assert names, f"no case matches {row['cases']}"


def test_bars():
    """At least 1,300 of all cases and 1,150 of the float32 ones, counted from the list that the tests above keep true."""
    done = [case for name, case in node_cases.cases().items() if listed(name, "tflite") is None]
    assert len(done) >= 1300
    assert sum(case.kind == "float32" for case in done) >= 1150


def test_support_matrix_is_current():
    """docs/support.md is what `python tools/make_support_matrix.py` writes."""
    root = Path(__file__).resolve().parents[2]
    made = runpy.run_path(str(root / "tools" / "make_support_matrix.py"))["page"]()
    assert (root / "docs" / "support.md").read_text() == made
