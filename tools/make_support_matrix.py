"""Writes docs/support.md: which ONNX operators each graph format carries, counted from the node tests and `tests/conformance/cannot.toml`.

python tools/make_support_matrix.py            writes the page
"""

from __future__ import annotations

import sys
import tomllib
from collections import Counter, defaultdict
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "conformance"))


def operator_of(case) -> str:
    """The operator that a case is about: its only node, else the one its expanded form was made from."""
    nodes = case.model.graph.node
    if "_expanded" in case.name:
        import node_cases

        original = node_cases.cases().get(case.name.split("_expanded")[0])
        return operator_of(original) if original is not None and original is not case else "several"
    return nodes[0].op_type if len({node.op_type for node in nodes}) == 1 else "several"


def page() -> str:
    """The whole page as Markdown."""
    import node_cases
    from routes import ROUTES

    rows = tomllib.loads((ROOT / "tests" / "conformance" / "cannot.toml").read_text())["cannot"]
    cases = node_cases.cases()
    missing = {
        route: {name: row for row in rows if route in row["routes"] for name in cases if any(fnmatchcase(name, pattern) for pattern in row["cases"])}
        for route in ROUTES
    }
    total, kinds = Counter(), {route: Counter() for route in ROUTES}
    by_operator: dict[str, dict[str, Counter]] = defaultdict(lambda: {route: Counter() for route in ROUTES})
    for name, case in cases.items():
        total[case.kind] += 1
        for route in ROUTES:
            done = name not in missing[route]
            kinds[route][case.kind] += done
            by_operator[operator_of(case)][route]["passed" if done else "not"] += 1
    lines = [
        "# What each format carries",
        "",
        "Made by `python tools/make_support_matrix.py` from the ONNX node tests; every other case has a row in `tests/conformance/cannot.toml`.",
        "A case counts when its result equals the expected one to 1e-3 (and 1e-5 of the output's scale), as it is or with its auxiliary inputs as constants.",
        "",
        "| element type of the result | cases | " + " | ".join(route.title for route in ROUTES.values()) + " |",
        "|---|---|" + "---|" * len(ROUTES),
    ]
    for kind, count in total.most_common():
        lines.append(f"| {kind} | {count} | " + " | ".join(str(kinds[route][kind]) for route in ROUTES) + " |")
    lines.append(f"| **all** | **{len(cases)}** | " + " | ".join(f"**{sum(kinds[route].values())}**" for route in ROUTES) + " |")
    lines += ["", "## By operator", "", "| operator | cases | " + " | ".join(ROUTES) + " | what is missing |", "|---|---|" + "---|" * len(ROUTES) + "---|"]
    for operator in sorted(by_operator):
        counts = by_operator[operator]
        reasons = {missing[route][name]["reason"] for route in ROUTES for name in missing[route] if operator_of(cases[name]) == operator}
        lines.append(
            f"| {operator} | {sum(counts['tflite'].values())} | "
            + " | ".join(str(counts[route]["passed"]) for route in ROUTES)
            + f" | {' '.join(sorted(reasons))} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "support.md").write_text(page())
