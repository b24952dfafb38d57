"""`isomorph demo`."""
from __future__ import annotations

import dataclasses

import click

from isomorph.cli._output import Output, number, size, verb


@verb("demo")
@click.option("--keep", metavar="FOLDER", help="Keep the converted files there.")
def command(out: Output, keep: str | None) -> int:
    """Convert a small network to every format.

    Each result is run and compared with the original.

    The network reads handwritten digits; it and 360 digits that it was not trained on are part of isomorph.
    """
    from isomorph import demonstration
    shown = demonstration.demonstrate(keep, progress=out.progress())
    if out.as_json:
        out.document({"source": shown.source, "results": [dataclasses.asdict(row) for row in shown.rows]})
        return 0 if shown.passed else 1
    out.line(f"digits.{shown.source['format']}: {shown.source['title']}, {size(shown.source['bytes'])}, {shown.source['parameters']:,} parameters, "
             f"{shown.source['operators']} operators")
    out.line(f"container: {shown.source['container']}")
    out.line()
    out.table(("format", "size", "accuracy", "max diff", "proven", "runtime", "seconds"),
              [(row.format, size(row.bytes) if row.bytes else "-", f"{row.accuracy:.2%}" if row.accuracy is not None else "-", number(row.max_abs, 2),
                row.proof or row.problem, row.runtime, f"{row.seconds:.2f}") for row in shown.rows], right=("size", "accuracy", "max diff", "seconds"))
    out.line()
    right = sum(not row.problem for row in shown.rows)
    out.line(f"{right} of {len(shown.rows)} formats are right; accuracy is on {shown.source['digits']} digits that the network was not trained on"
             + (f"; files are in {keep}" if keep else ""))
    return 0 if shown.passed else 1
