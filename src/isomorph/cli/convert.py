"""`isomorph convert`."""
from __future__ import annotations

from typing import Any

import click

from isomorph.cli._options import conversion, conversion_options
from isomorph.cli._output import Output, size, verb
from isomorph.cli.verify import show_outputs


@verb("convert")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("--to", metavar="FORMAT", help="The format to write, where the name of DST does not say it.")
@click.option("--force", is_flag=True, help="Replace DST where it exists.")
@click.option("--verify/--no-verify", default=True, help="Run source and result on the same inputs.", show_default=True)
@click.option("--provenance", is_flag=True, help="Write DST.provenance.json: hashes, options, differences.")
@click.option("--timeout", type=float, default=300.0, metavar="SECONDS", show_default=True, help="Give up on a runtime after this long.")
@conversion
def command(out: Output, source: str, destination: str, to: str | None, force: bool, verify: bool, provenance: bool, timeout: float, **arguments: Any) -> None:
    """Convert a model, and prove the result.

    The format comes from the suffix of DST. SRC is never written to, and DST appears whole or not at all.
    Exits with 1 where the results differ; DST is kept then, so that the cause can be found.
    """
    import isomorph
    report = isomorph.convert(source, destination, to=to, force=force, verify=verify, provenance=provenance, timeout=timeout, progress=out.progress(),
                              **conversion_options(arguments))
    if out.as_json:
        out.document(report.to_json())
        return
    facts = report.facts
    show_outputs(out, facts["outputs"])
    out.findings(report.findings)
    how = {"native": f"verified in {facts.get('runtime')}", "re-read": "read back and compared, not run in its own runtime", "no": "not verified"}
    sizes = f"{size(facts['destination']['bytes'])} from {size(facts['source']['bytes'])}"
    out.line(f"{destination}: {facts['destination']['format']}, {sizes}, {how[facts['verified']]}")
