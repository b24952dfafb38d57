"""`isomorph imatrix`."""
from __future__ import annotations

import click

from isomorph.cli._output import Output, verb


@verb("imatrix")
@click.argument("source", metavar="SRC")
@click.argument("text", metavar="TEXT")
@click.argument("destination", metavar="DST")
@click.option("--chunk", type=click.IntRange(2), default=512, show_default=True, metavar="N", help="Tokens that are read at once.")
@click.option("--chunks", type=click.IntRange(1), metavar="N", help="Stop after so many chunks.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads; as many as there are processors if not given.")
@click.option("--force", is_flag=True, help="Replace DST where it exists.")
def command(out: Output, source: str, text: str, destination: str, chunk: int, chunks: int | None, threads: int | None, force: bool) -> None:
    """Measure over a text which weights matter.

    SRC is a language model as GGUF or Hugging Face weights, TEXT a file. DST is GGUF, for `isomorph quantize --imatrix` and llama-quantize.
    """
    import isomorph
    report = isomorph.measure_importance(source, text, destination, chunk=chunk, chunks=chunks, threads=threads or 0, force=force, progress=out.progress())
    if out.as_json:
        out.document(report.to_json())
        return
    out.findings(report.findings)
    facts = report.facts
    out.line(f"{destination}: {facts['weights']} weights over {facts['tokens']:,} tokens in {facts['chunks']} chunks")
