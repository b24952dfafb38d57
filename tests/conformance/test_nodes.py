"""The 1,884 ONNX node tests through every format that is written: by each way of `routes.py`, run by the runtime at its end.

What cannot be carried stands in `cannot.toml`, each row with a category and a reason. A case that passes although it is listed fails here too,
so that the list, and the public matrix made from it, stay true.
"""

from __future__ import annotations

import runpy
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import environments
import node_cases
import pytest
from routes import ROUTES

from isomorph import runtime

# Refusals are answers of ours; the other two are seen when the file runs.
REFUSALS, RUNTIME = {"no-equivalent", "not-yet", "undecidable"}, {"runtime-bug", "undecidable", "precision"}


@cache
def rows() -> list[dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / "cannot.toml").read_text())["cannot"]


def listed(name: str, route: str) -> dict[str, Any] | None:
    """The first row of `cannot.toml` for a case on a route."""
    for row in rows():
        if route in row["routes"] and any(fnmatchcase(name, pattern) for pattern in row["cases"]):
            return row
    return None


@pytest.fixture(scope="module")
def runner() -> Iterator[Callable[[str], node_cases.Runner]]:
    """The child process of a route, one for all its cases."""
    running: dict[str, node_cases.Runner] = {}

    def of(name: str) -> node_cases.Runner:
        if name not in running:
            route = ROUTES[name]
            if route.environment:
                environments.use(route.environment)
            row = runtime.get(route.runtime)
            if not row.available():
                pytest.skip(f"{row.title} is not installed: {row.install}")
            running[name] = node_cases.Runner(row)
        return running[name]

    yield of
    for child in running.values():
        child.close()


def judge(name: str, route: str, verdict: tuple[str, str]) -> None:
    row = listed(name, route)
    kind, why = verdict
    if kind == "pass":
        assert row is None, f"passes now: take it out of cannot.toml ({row})"
        return
    assert row is not None, f"{kind}: {why}"
    assert row["why"] in (REFUSALS if kind == "refused" else RUNTIME), f"{kind}, listed as {row['why']}: {why}"


def chosen() -> list[Any]:
    """Every case on every route; what a route leaves out of the default run is marked slow."""
    return [pytest.param(route.name, name, id=f"{route.name}-{name}", marks=[pytest.mark.slow] if route.is_slow(name) else [])
            for route in ROUTES.values() for name in sorted(node_cases.cases())]


@pytest.mark.parametrize(("route", "name"), chosen())
def test_gives_the_expected_result(route, name, runner, tmp_path):
    run = runner(route)
    judge(name, route, node_cases.attempt(node_cases.cases()[name], lambda proto: ROUTES[route].convert(proto, tmp_path), run))


def test_every_row_has_a_reason():
    for row in rows():
        assert row["why"] in REFUSALS | RUNTIME
        assert len(row["reason"]) > 20
        assert set(row["routes"]) <= set(ROUTES)
        names = [name for name in node_cases.cases() if any(fnmatchcase(name, pattern) for pattern in row["cases"])]
        assert names, f"no case matches {row['cases']}"


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_bars(route):
    """What a route promises, of all cases and of the float32 ones, counted from the list that the tests above keep true."""
    done = [case for name, case in node_cases.cases().items() if listed(name, route.name) is None]
    assert len(done) >= route.bars[0]
    assert sum(case.kind == "float32" for case in done) >= route.bars[1]


def test_support_matrix_is_current():
    """docs/support.md is what `python tools/make_support_matrix.py` writes."""
    root = Path(__file__).resolve().parents[2]
    made = runpy.run_path(str(root / "tools" / "make_support_matrix.py"))["page"]()
    assert (root / "docs" / "support.md").read_text() == made
