"""`isomorph formats`."""
from __future__ import annotations

from typing import Any

import click

from isomorph.cli._output import Output, verb


@verb("formats")
@click.argument("pair", metavar="[FROM TO]", nargs=-1)
def command(out: Output, pair: tuple[str, ...]) -> int:
    """List the formats and what each can do.

    With FROM and TO, say whether the one can become the other.
    """
    if len(pair) not in (0, 2):
        raise click.UsageError("give both FROM and TO, or neither")
    rows = described()
    if pair:
        return _answer(out, rows, *pair)
    if out.as_json:
        out.document({"formats": rows})
        return 0
    yes = {True: "yes", False: "-"}
    out.table(("format", "title", "extensions", "holds", "read", "write", "runtime"),
              [(row["name"], row["title"], " ".join(row["extensions"]), row["holds"] or "-", yes[row["read"]], yes[row["write"]], row["runtime"] or "-")
               for row in rows if row["read"] or row["write"] or out.verbose])
    known = [row["name"] for row in rows if not row["read"] and not row["write"]]
    if known and not out.verbose:
        out.line(f"identified only: {', '.join(known)}")
    return 0


def described() -> list[dict[str, Any]]:
    """Every row of the registry as plain values."""
    from isomorph import runtime
    from isomorph.formats import _table
    rows = []
    for name, row in _table.FORMATS.items():
        form = row.load() if row.module else None
        native = next((driver.title for driver in runtime.RUNTIMES if name in driver.formats), "")
        rows.append({"name": name, "title": row.title, "extensions": list(row.extensions), "holds": form.holds if form else "", "hint": row.hint,
                     "read": bool(form and form.read), "write": bool(form and form.write), "spec": form.spec if form else "", "runtime": native})
    return rows


def _answer(out: Output, rows: list[dict[str, Any]], source: str, target: str) -> int:
    from isomorph.formats import _table
    _table.get(source), _table.get(target)              # an unknown name is a usage error, with the nearest known one
    known = {row["name"]: row for row in rows}
    reasons = []
    if not known[source]["read"]:
        reasons.append(f"{source} is not read")
    if not known[target]["write"]:
        reasons.append(f"{target} is not written")
    if known[source]["holds"] == "weights" and known[target]["holds"] == "graph":
        reasons.append(f"{source} holds weights without a graph, and {target} needs one")
    loss = "the graph is dropped, weights are kept" if known[source]["holds"] == "graph" and known[target]["holds"] == "weights" else ""
    if out.as_json:
        out.document({"from": source, "to": target, "possible": not reasons, "reasons": reasons, "loss": loss})
    else:
        out.line(f"no: {'; '.join(reasons)}" if reasons else f"yes{f', but {loss}' if loss else ''}; for a file, ask `isomorph plan FILE --to {target}`")
    return 3 if reasons else 0
