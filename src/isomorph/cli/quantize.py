"""`isomorph quantize`."""
from __future__ import annotations

import click

from isomorph.cli._output import Output, number, size, verb

MOST_ROWS = 40


@verb("quantize")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("--scheme", required=True, metavar="NAME", help="q8_0, q6_k, q5_k_m, q4_k_m, q4_0, iq4_xs, f16 and so on.")
@click.option("--pure", is_flag=True, help="Store every tensor in the scheme's own type.")
@click.option("--imatrix", metavar="FILE", help="Weigh errors by this importance matrix.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads; as many as there are processors if not given.")
@click.option("--force", is_flag=True, help="Replace DST where it exists.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Read the result back and measure it.")
@click.option("--shard-bytes", type=int, metavar="N", help="Split DST into parts of at most N bytes of weights.")
def command(out: Output, source: str, destination: str, scheme: str, pure: bool, imatrix: str | None, threads: int | None, force: bool, verify: bool,
            shard_bytes: int | None) -> None:
    """Store weights in fewer bits, as GGUF.

    Blocks have the very bytes of ggml, and schemes mix types as llama.cpp does. SRC is GGUF or safetensors.
    """
    import isomorph
    report = isomorph.quantize(source, destination, scheme=scheme, pure=pure, importance=imatrix, threads=threads, force=force, verify=verify,
                               shard_bytes=shard_bytes, progress=out.progress())
    if out.as_json:
        out.document(report.to_json())
        return
    facts = report.facts
    if verify:
        worst = sorted((row for row in facts["tensors"] if row["snr_db"] is not None), key=lambda row: row["snr_db"])
        out.table(("tensor", "type", "SNR dB"), [(row["name"], row["type"], number(row["snr_db"])) for row in worst[:MOST_ROWS]], right=("SNR dB",))
        if len(worst) > MOST_ROWS:
            out.line(f"... and {len(worst) - MOST_ROWS:,} with less noise")
    out.findings(report.findings)
    types = ", ".join(f"{count} {kind}" for kind, count in facts["types"].items())
    out.line(f"{destination}: {facts['scheme']}, {types}; {size(facts['destination']['bytes'])} from {size(facts['source']['bytes'])}, "
             f"{facts['bits_per_weight']} bits a weight")
