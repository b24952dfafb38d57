"""`isomorph run`."""
from __future__ import annotations

from typing import Any

import click

from isomorph.cli._options import feeding, feeding_options
from isomorph.cli._output import Output, number, shape, verb

SHOWN = 8


@verb("run")
@click.argument("path", metavar="FILE")
@click.option("-o", "--output", metavar="FILE.npz", help="Save the outputs.")
@click.option("--reference", is_flag=True, help="Use plain kernels where the runtime has them.")
@feeding
def command(out: Output, path: str, output: str | None, reference: bool, **arguments: Any) -> None:
    """Run a model in its own runtime.

    The runtime works in a child process. Inputs that are not given are made up.
    """
    import numpy as np

    import isomorph
    answers = isomorph.run(path, reference=reference, **feeding_options(arguments))
    if output:
        _save(output, answers)
    described = [_described(name, value) for name, value in answers.items()]
    if out.as_json:
        out.document({"path": path, "outputs": described})
        return
    out.table(("output", "dtype", "shape", "min", "mean", "max"),
              [(row["name"], row["dtype"], shape(row["shape"]), number(row["min"]), number(row["mean"]), number(row["max"])) for row in described],
              right=("min", "mean", "max"))
    for name, value in answers.items():
        if isinstance(value, np.ndarray):
            out.note(f"{name}: {value.reshape(-1)[:SHOWN].tolist()}{' ...' if value.size > SHOWN else ''}")


def _described(name: str, value: Any) -> dict[str, Any]:
    import numpy as np
    if not isinstance(value, np.ndarray):
        return {"name": name, "dtype": type(value).__name__, "shape": None, "min": None, "mean": None, "max": None}
    about: dict[str, Any] = {"name": name, "dtype": "string" if value.dtype.kind in "OSU" else value.dtype.name, "shape": list(value.shape)}
    if value.dtype.kind in "OSUc" or not value.size:
        return about | {"min": None, "mean": None, "max": None}
    wide = value.astype(np.float64)
    return about | {kind: float(result) if np.isfinite(result) else None for kind, result in (("min", wide.min()), ("mean", wide.mean()), ("max", wide.max()))}


def _save(output: str, answers: dict[str, Any]) -> None:
    from pathlib import Path

    import numpy as np

    from isomorph.wire import files
    arrays: dict[str, Any] = {name: value for name, value in answers.items() if isinstance(value, np.ndarray) and value.dtype.kind != "O"}
    with files.replacing(Path(output), force=True) as file:
        np.savez(file, **arrays)
