"""The command line: a thin face over the public interface. Commands stand in one file each and are imported when they are asked for."""
from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from isomorph import __version__
from isomorph.errors import IsomorphError

COMMANDS = ("identify", "inspect", "plan", "convert", "quantize", "imatrix", "verify", "diff", "run", "bench", "formats", "doctor", "explain", "demo")
INTERRUPTED, BROKEN_PIPE, USAGE, INTERNAL = 130, 141, 4, 2


class LazyGroup(click.Group):
    """Commands by the names of their modules, in the order of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return importlib.import_module(f"isomorph.cli.{cmd_name}").command if cmd_name in COMMANDS else None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, "--version", message="isomorph %(version)s")
def group() -> None:
    """Identify, inspect, convert, prove and run AI model files of any common format."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 fine, 1 results differ, 2 internal, 3 not supported, 4 usage, 5 missing, 6 unsafe, 7 damaged, 8 too slow."""
    arguments = sys.argv[1:] if arguments is None else arguments
    status = INTERNAL
    try:
        status = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more when it exits; what it flushes into must exist.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """The exit status of these arguments. Errors are told on standard error, with `--json` as a document on standard output."""
    from isomorph.cli import _errors
    if not {"-v", "--verbose"}.intersection(arguments):
        logging.disable(logging.WARNING)        # what libraries below us log is for whoever looks for a defect
    try:
        answer: Any = group.main(arguments, prog_name="isomorph", standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        _errors.show_usage(error, "--json" in arguments)
        return USAGE
    except BrokenPipeError:
        raise
    except IsomorphError as error:
        _errors.trace(arguments)
        _errors.show(error, "--json" in arguments)
        return error.exit_code
    except Exception as error:                  # a defect of ours, or the machine's: never a traceback unless it is asked for
        _errors.trace(arguments)
        _errors.show(_errors.translated(error), "--json" in arguments)
        return INTERNAL
