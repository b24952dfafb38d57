"""`isomorph diff`."""
from __future__ import annotations

import json
from typing import Any

import click

from isomorph.cli._output import Output, verb

MOST = 30


@verb("diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--no-values", is_flag=True, help="Compare names, types and shapes of tensors only.")
def command(out: Output, first: str, second: str, no_values: bool) -> int:
    """Show how two files differ.

    Compares operators, nodes, tensors with their values, and metadata. Exits with 1 where something differs.
    """
    import isomorph
    report = isomorph.diff(first, second, values=not no_values)
    facts = report.facts
    if out.as_json:
        out.document(report.to_json())
        return 0 if facts["same"] else 1
    for kind in ("format", "inputs", "outputs", "operators", "nodes", "tensors", "metadata"):
        if not facts[kind]:
            continue
        out.line(f"{kind}: {len(facts[kind]):,} differ")
        out.table((kind, "A", "B"), [(change["name"], _short(change["first"]), _short(change["second"])) for change in facts[kind][:MOST]])
        if len(facts[kind]) > MOST:
            out.line(f"... and {len(facts[kind]) - MOST:,} more; --json lists them all")
    out.line("same" if facts["same"] else "different")
    return 0 if facts["same"] else 1


def _short(value: Any) -> str:
    if isinstance(value, dict):
        said = [(name, f"{item:.4g}" if isinstance(item, float) else json.dumps(item)) for name, item in value.items() if item not in ({}, [])]
        text = ", ".join(f"{name} {item}" for name, item in said)
    else:
        text = "-" if value is None else str(value)
    return text if len(text) <= 100 else text[:100] + "..."
