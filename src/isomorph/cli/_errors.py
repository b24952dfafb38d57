"""How an error is told: one line of what and where, then why, and what to try."""
from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import click

from isomorph.errors import Damaged, IsomorphError, Usage

MOST_BLOCKERS = 20


def show(error: IsomorphError, as_json: bool) -> None:
    """One line, the reasons, a hint, and where to read more. With `as_json`, a document on standard output instead."""
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "error": error.to_json()}, indent=2))
    else:
        show_described(error.to_json())


def show_described(error: dict[str, Any]) -> None:
    """The same for an error as `IsomorphError.to_json` describes it."""
    where = f" - at {error['where']}" if error["where"] else ""
    click.echo(f"{_marked(error['code'])}: {error['what']}{where}", err=True)
    blockers = error.get("blockers", [])
    for blocker in blockers[:MOST_BLOCKERS]:
        place = f" at {blocker['where']}" if blocker["where"] else ""
        click.echo(f"  {blocker['subject']}{place}{': ' if blocker['reason'] else ''}{blocker['reason']}", err=True)
    if len(blockers) > MOST_BLOCKERS:
        click.echo(f"  ... and {len(blockers) - MOST_BLOCKERS:,} more; --json lists them all", err=True)
    if error["hint"]:
        click.echo(f"  try: {error['hint']}", err=True)
    click.echo(f"  more: isomorph explain {error['code']}", err=True)


def _marked(code: str) -> str:
    return f"error[{code}]" if os.environ.get("NO_COLOR") else click.style(f"error[{code}]", fg="red", bold=True)


def show_usage(error: click.ClickException, as_json: bool) -> None:
    """A mistake in the command itself."""
    context = getattr(error, "ctx", None)
    if as_json:
        show(Usage(error.format_message()), True)
        return
    click.echo(f"{_marked('usage')}: {error.format_message()}", err=True)
    if context is not None:
        click.echo(f"  try: {context.command_path} --help", err=True)


def translated(error: Exception) -> IsomorphError:
    """What is not ours as an error of ours: the machine's refusals by name, all else as a defect."""
    if isinstance(error, OSError):
        return Machine(error.strerror or str(error), where=str(error.filename or ""))
    if isinstance(error, (MemoryError, RecursionError)):
        return Damaged("the file asks for more memory or depth than there is")
    return IsomorphError(f"a defect of isomorph: {type(error).__name__}: {error}",
                         hint="run it again with --trace and report that together with the output of `isomorph doctor`")


class Machine(IsomorphError):
    """The machine refuses: disk full, no permission."""

    code = "machine"


def trace(arguments: list[str]) -> None:
    """The traceback, where `--trace` asks for it."""
    if "--trace" in arguments:
        traceback.print_exc(file=sys.stderr)
