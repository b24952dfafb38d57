"""`isomorph bench`."""
from __future__ import annotations

from typing import Any

import click

from isomorph.cli._options import feeding, feeding_options
from isomorph.cli._output import Output, size, verb


@verb("bench")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
@click.option("--runs", type=click.IntRange(min=1), default=30, show_default=True, help="Runs that are timed.")
@click.option("--warm-up", type=click.IntRange(min=0), default=3, show_default=True, help="Runs before them.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@feeding
def command(out: Output, paths: tuple[str, ...], runs: int, warm_up: int, threads: int, **arguments: Any) -> None:
    """Time models, each in its own runtime.

    The runtime works in a child process, on one thread unless told otherwise. Inputs that are not given are made up.
    """
    import isomorph
    reports = [isomorph.bench(path, runs=runs, warm_up=warm_up, threads=threads, **feeding_options(arguments)) for path in paths]
    if out.as_json:
        out.document({"files": [{key: value for key, value in report.to_json().items() if key != "schema_version"} for report in reports]})
        return
    out.table(("file", "runtime", "proof", "median ms", "p90 ms", "load ms", "memory"),
              [(report.subject, report.facts["runtime"], report.facts["proof"], f"{report.facts['median_ms']:.3f}", f"{report.facts['p90_ms']:.3f}",
                f"{report.facts['load_ms']:.1f}", size(report.facts["rss_bytes"])) for report in reports], right=("median ms", "p90 ms", "load ms", "memory"))
