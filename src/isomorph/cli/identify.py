"""`isomorph identify`."""
from __future__ import annotations

from typing import Any

import click

from isomorph.cli._output import Output, size, verb


@verb("identify")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
def command(out: Output, paths: tuple[str, ...]) -> int:
    """Say what files are, by their content.

    Reads headers only and executes nothing. Folders that are models (SavedModel, Core ML package, Hugging Face) count as one.
    """
    from isomorph.artifact import Artifact
    from isomorph.cli import _errors
    from isomorph.errors import IsomorphError
    from isomorph.formats import _table
    rows: list[dict[str, Any]] = []
    status = 0
    for path in paths:
        try:
            artifact = Artifact.open(path)
            match = _table.identify(artifact)
        except IsomorphError as error:
            status = status or error.exit_code
            rows.append({"path": path, "format": None, "error": error.to_json()})
            if not out.as_json:
                _errors.show(error, False)
            continue
        rows.append({"path": path, "format": match.format, "version": match.version, "flavour": match.flavour, "holds": match.holds, "bytes": artifact.size,
                     "detail": match.detail, "hint": match.hint})
    if out.as_json:
        out.document({"files": rows})
        return status
    known = [row for row in rows if row["format"]]
    out.table(("file", "format", "version", "flavour", "holds", "size"),
              [(row["path"], row["format"], row["version"], row["flavour"], row["holds"] or "-", size(row["bytes"])) for row in known], right=("size",))
    for row in known:
        if row["hint"]:
            out.line(f"{row['path']}: {row['hint']}")
        out.note(f"{row['path']}: {row['detail']}")
    return status
