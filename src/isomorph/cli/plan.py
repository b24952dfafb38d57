"""`isomorph plan`."""
from __future__ import annotations

from typing import Any

import click

from isomorph.cli._options import conversion, conversion_options
from isomorph.cli._output import Output, size, verb
from isomorph.formats import _table


@verb("plan")
@click.argument("path", metavar="FILE")
@click.option("--to", required=True, metavar="FORMAT", help="The format to convert to.")
@conversion
def command(out: Output, path: str, to: str, **arguments: Any) -> int:
    """Show what a conversion would do.

    The plan is the conversion itself without the writing.

    Lists every operator, every obstacle and every loss. Exits with 3 where the conversion cannot be done.
    """
    import isomorph
    made = isomorph.plan(path, to=to, progress=out.progress(), **conversion_options(arguments))
    status = 0 if made.possible else 3
    if out.as_json:
        out.document(made.to_json())
        return status
    for step in made.steps:
        out.line(f"{step.name}: {step.detail}")
    out.line()
    out.table(("operator", "count"), made.operators.most_common(), right=("count",))
    if made.result_operators:
        out.line()
        out.table((f"{made.target.name} operator", "count"), made.result_operators.most_common(), right=("count",))
    out.findings(made.findings)
    if made.blockers:
        out.line()
        out.table(("obstacle", "where", "why"), made.blockers)
        out.line(f"{len(made.blockers)} obstacles: {path} cannot be converted to {made.target.title}")
    else:
        out.line(f"possible, about {size(made.bytes)}: isomorph convert {path} {_table.output_name(made.target.name, 'OUT')}")
    return status
