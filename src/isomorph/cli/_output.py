"""What a verb prints: tables and bars for a person, plain lines for a pipe, one JSON document for a program. Progress and notes go to standard error."""
from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from isomorph.progress import SILENT, Progress

if TYPE_CHECKING:
    from isomorph.report import Finding


class Output:
    """One invocation's way of printing."""

    def __init__(self, as_json: bool, verbose: bool, quiet: bool):
        self.as_json, self.verbose, self.quiet = as_json, verbose, quiet
        self.person = sys.stdout.isatty() and not as_json

    def document(self, content: dict[str, Any]) -> None:
        """The one JSON document."""
        click.echo(json.dumps({"schema_version": 1} | content, indent=2, default=str, allow_nan=False))

    def line(self, text: str = "") -> None:
        if not self.quiet:
            click.echo(text)

    def note(self, text: str) -> None:
        """On standard error, when asked to be talkative."""
        if self.verbose:
            click.echo(text, err=True)

    def pairs(self, rows: Iterable[tuple[str, Any]]) -> None:
        """Names and values, those without a value left out."""
        rows = [(name, value) for name, value in rows if value not in ("", None, [], {})]
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.line(f"{name:<{width}}  {value}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = ()) -> None:
        """A table; columns named in `right` are aligned to the right. Nothing where there are no rows."""
        if self.quiet or not rows:
            return
        texts = [[str(cell) for cell in row] for row in rows]
        if self.person:
            _rich_table(columns, texts, right)
            return
        widths = [max(len(text) for text in column) for column in zip(columns, *texts, strict=True)]
        for row in (columns, *texts):
            cells = [f"{cell:>{width}}" if name in right else f"{cell:<{width}}" for cell, width, name in zip(row, widths, columns, strict=True)]
            click.echo("  ".join(cells).rstrip())

    def findings(self, findings: Sequence[Finding]) -> None:
        """Those that matter; all of them when talkative."""
        shown = [finding for finding in findings if self.verbose or finding.severity > 0]
        self.table(("severity", "code", "where", "finding"),
                   [(finding.severity.name.lower(), finding.code, short(finding.where), finding.message + (f" ({finding.hint})" if finding.hint else ""))
                    for finding in shown])

    def progress(self) -> Progress:
        """A bar on a terminal, lines when talkative, else nothing."""
        if sys.stderr.isatty() and not self.quiet:
            from isomorph.cli._bar import Bar
            bar = Bar()
            click.get_current_context().call_on_close(bar.finish)         # an error leaves the cursor as it was
            return bar
        return Lines() if self.verbose else SILENT


class Lines(Progress):
    """Every step as a line on standard error."""

    def start(self, step: str, total: int = 0, unit: str = "") -> None:
        click.echo(step, err=True)


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def verb(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command whose function gets an `Output` first; adds the options that every verb has."""
    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def call(as_json: bool, verbose: bool, quiet: bool, trace: bool, **arguments: Any) -> Any:
            return function(Output(as_json, verbose, quiet), **arguments)
        for option in (click.option("--trace", is_flag=True, help="Show the traceback of an error."),
                       click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
                       click.option("-v", "--verbose", is_flag=True, help="Tell the steps, and findings that do not matter."),
                       click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")):
            call = option(call)
        return click.command(name, **settings)(call)
    return decorate


def short(text: str, most: int = 80) -> str:
    """A text without its middle where it is too long for a table."""
    return text if len(text) <= most else f"{text[:most // 2 - 2]}...{text[1 - most // 2:]}"


def size(count: int) -> str:
    """Bytes for a person, in powers of 1000."""
    if count < 10_000:
        return f"{count:,} B"
    power = min(int(math.log10(count) // 3), 4)
    return f"{count / 1000 ** power:.3g} {('kB', 'MB', 'GB', 'TB')[power - 1]}" if count / 1000 ** power < 999.5 else f"{count / 1000 ** power:,.0f} kB"


def shape(dims: Sequence[Any] | None) -> str:
    """[1, 3, height, ?]."""
    return "?" if dims is None else "[" + ", ".join("?" if dim is None else str(dim) for dim in dims) + "]"


def number(value: float | None, digits: int = 3) -> str:
    """A short number, a dash for none."""
    return "-" if value is None else f"{value:.{digits}g}"
