"""`isomorph identify`."""
from __future__ import annotations

import click

from isomorph.cli._output import Output, size, verb


@verb("identify")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
def command(out: Output, paths: tuple[str, ...]) -> int:
    """Say what files are, by their content.

    Reads headers only and executes nothing. A folder that is a model (SavedModel, Core ML package, Hugging Face) counts as one; of any other folder,
    every model inside is listed.
    """
    from isomorph.cli import _errors
    from isomorph.identification import identify
    rows = identify(paths)
    failed = [row for row in rows if "error" in row]
    status = failed[0]["error"]["exit_code"] if failed else 0
    if out.as_json:
        out.document({"files": rows})
        return status
    known = [row for row in rows if "error" not in row]
    out.table(("file", "format", "version", "flavour", "holds", "size"),
              [(row["path"], row["format"], row["version"], row["flavour"], row["holds"] or "-", size(row["bytes"])) for row in known], right=("size",))
    for row in known:
        if row["hint"]:
            out.line(f"{row['path']}: {row['hint']}")
        out.note(f"{row['path']}: {row['detail']}")
    for row in failed:
        _errors.show_described(row["error"])
    return status
