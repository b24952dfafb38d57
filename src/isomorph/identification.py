"""What is it: the rows that `isomorph identify` prints."""
from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isomorph.artifact import Artifact
from isomorph.errors import IsomorphError, NotRecognised
from isomorph.formats import Match, _table

DEEPEST = 16
MOST_FILES = 20_000
LONGEST_TEXT = 300


def identify(paths: Iterable[str | os.PathLike]) -> list[dict[str, Any]]:
    """One row a model, `{"path", "format", "version", "flavour", "holds", "bytes", "detail", "hint"}`. Reads headers only and executes nothing.

    A folder that is a model is one row; of any other folder, every model inside is one, and companions (shards, weights beside a graph) belong to the
    row that names them. A path that is not recognised, damaged or refused gives a row with an empty `format` and the error as `"error"` (see
    `IsomorphError.to_json`), so that one bad file does not hide the others.
    """
    return [row for path in paths for row in _identify(Path(path))]


def _identify(path: Path) -> list[dict[str, Any]]:
    try:
        artifact = Artifact.open(path)
        return [_row(artifact, _table.identify(artifact))]
    except NotRecognised as error:
        if not path.is_dir() or path.is_symlink():
            return [_failed(path, error)]
        return _inside(path, DEEPEST) or [_failed(path, NotRecognised("no file inside is a model", where=str(path)))]
    except IsomorphError as error:
        return [_failed(path, error)]


def _inside(folder: Path, depth: int) -> list[dict[str, Any]]:
    """The rows of all models inside a folder. Links are not followed, and files that no format claims are passed over."""
    rows: list[dict[str, Any]] = []
    companions: set[Path] = set()
    for entry in sorted(folder.iterdir())[:MOST_FILES]:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            continue
        try:
            artifact = Artifact.open(entry)
            match = _table.identify(artifact)
            if match.format in ("empty", "html") and _table.by_extension(entry) is None:
                continue
            rows.append(_row(artifact, match))
            companions |= {folder / name for name in match.detail.get("companions", [])}
        except NotRecognised:
            if entry.is_dir() and depth:
                rows += _inside(entry, depth - 1)
        except IsomorphError as error:
            rows.append(_failed(entry, error))
    return [row for row in rows if Path(row["path"]) not in companions]


def _row(artifact: Artifact, match: Match) -> dict[str, Any]:
    return {"path": artifact.where, "format": match.format, "version": shown(match.version), "flavour": shown(match.flavour), "holds": match.holds,
            "bytes": artifact.size, "detail": shown(match.detail), "hint": match.hint}


def shown(value: Any) -> Any:
    """A value read from a file, fit to be printed: text is cut to 300 characters, and characters that steer a terminal or reorder text are escaped."""
    if isinstance(value, str):
        text = value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "..."
        return text if text.isprintable() else "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    if isinstance(value, dict):
        return {shown(key) if isinstance(key, str) else key: shown(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(inner) for inner in value]
    return value


def _failed(path: Path, error: IsomorphError) -> dict[str, Any]:
    size = path.stat().st_size if path.is_file() else 0
    return {"path": str(path), "format": "", "version": "", "flavour": "", "holds": "", "bytes": size, "detail": {}, "hint": error.hint,
            "error": error.to_json()}
