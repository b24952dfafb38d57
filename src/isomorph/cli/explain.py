"""`isomorph explain`."""
from __future__ import annotations

import click

from isomorph.cli._output import Output, verb
from isomorph.errors import Usage


@verb("explain")
@click.argument("code", required=False)
def command(out: Output, code: str | None) -> None:
    """Explain the code of an error or finding.

    Without CODE, list them all.
    """
    from isomorph.explanations import explanations
    known = explanations()
    if code is None:
        if out.as_json:
            out.document({"codes": known})
        else:
            out.table(("code", "meaning"), [(name, text.partition(". ")[0].rstrip(".")) for name, text in known.items()])
        return
    if code not in known:
        from difflib import get_close_matches
        near = get_close_matches(code, known, 1)
        raise Usage(f"there is no code {code!r}", hint=f"isomorph explain {near[0]}" if near else "`isomorph explain` lists them")
    if out.as_json:
        out.document({"code": code, "explanation": known[code]})
    else:
        out.line(f"{code}: {known[code]}")
