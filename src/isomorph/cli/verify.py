"""`isomorph verify`."""
from __future__ import annotations

from typing import Any

import click

from isomorph.cli._options import feeding, feeding_options
from isomorph.cli._output import Output, number, verb

MOST_ROWS = 40


@verb("verify")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--atol", type=float, help="Absolute tolerance, instead of the one that follows from types and operators.")
@click.option("--rtol", type=float, help="Relative tolerance.")
@click.option("--bisect", is_flag=True, help="Where they differ, find the first value that does.")
@click.option("--text", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="Compare what two language models expect next in a text.")
@click.option("--window", type=click.IntRange(4), default=512, show_default=True, help="Tokens of the text that are read at once.")
@click.option("--windows", type=click.IntRange(1), help="How many of them are read; all where it is not given.")
@click.option("--most-divergence", type=click.FloatRange(0), help="The mean divergence in nats that still counts as the same.")
@feeding
def command(out: Output, first: str, second: str, atol: float | None, rtol: float | None, bisect: bool, text: str | None, window: int, windows: int | None,
            most_divergence: float | None, **arguments: Any) -> int:
    """Prove that two files compute the same.

    Both get the same inputs. Each runs in its own runtime where that is installed ("native"), else rewritten as ONNX ("re-read").
    Files of weights are compared tensor by tensor; two language models with --text by their divergence, perplexity and favourites.
    Exits with 1 where results differ.
    """
    if text is not None:
        return _language(out, first, second, text, window, windows or 0, most_divergence, feeding_options(arguments)["timeout"])
    import isomorph
    report = isomorph.verify(first, second, atol=atol, rtol=rtol, bisect=bisect, progress=out.progress(), **feeding_options(arguments))
    facts = report.facts
    if out.as_json:
        out.document(report.to_json())
        return 0 if facts["passed"] else 1
    for side in ("first", "second"):
        kernels = f", {facts[side]['kernels']} kernels" if "kernels" in facts[side] else ""
        out.line(f"{side}: {facts[side]['path']} in {facts[side]['runtime']} ({facts[side]['proof']}{kernels})")
    for value in facts["inputs"]:
        out.note(f"input {value['name']}: {value['dtype']}{value['shape']}, {value['origin']}")
    show_outputs(out, facts["outputs"])
    out.findings(report.findings)
    if "bisection" in facts:
        _show_bisection(out, facts["bisection"])
    out.line("same" if facts["passed"] else "different")
    return 0 if facts["passed"] else 1


def _language(out: Output, first: str, second: str, text: str, window: int, windows: int, most: float | None, timeout: float) -> int:
    from pathlib import Path

    from isomorph.divergence import verify as compared
    words = Path(text).read_text("utf-8", "replace")
    report = compared(first, second, words, window=window, most_windows=windows, most_divergence=most, timeout=timeout, progress=out.progress())
    facts = report.facts
    if out.as_json:
        out.document(report.to_json())
        return 0 if facts["passed"] else 1
    divergence, perplexity = facts["divergence"], facts["perplexity"]
    out.line(f"{facts['tokens']:,} tokens in {facts['windows']:,} windows of {facts['window']}")
    out.table(("", "value", "+-"), [
        ("divergence, nats", number(divergence["mean"]), number(divergence["error"])), ("  median", number(divergence["median"]), ""),
        ("  99 %", number(divergence["p99"]), ""), ("  greatest", number(divergence["max"]), ""),
        ("same favourite", f"{facts['same_top']:.2%}", ""), ("perplexity of the first", number(perplexity["first"]), number(perplexity["error"][0])),
        ("perplexity of the second", number(perplexity["second"]), number(perplexity["error"][1])),
        ("second / first", number(perplexity["ratio"]), number(perplexity["ratio_error"]))], right=("value", "+-"))
    out.findings(report.findings)
    out.line(("same" if facts["passed"] else "different") if most is not None else "measured")
    return 0 if facts["passed"] else 1


def show_outputs(out: Output, outputs: list[dict[str, Any]]) -> None:
    """One row an output; of many, those that differ most."""
    rows = sorted(outputs, key=lambda row: (row["passed"], -(row["max_abs"] or 0)))[:MOST_ROWS] if len(outputs) > MOST_ROWS else outputs
    out.table(("output", "max abs", "max rel", "range", "SNR dB", "top-1", "proof", "result"),
              [(row["name"], number(row["max_abs"]), number(row["max_rel"]), number(row["range"]), _snr(row), number(row["top1"]), row["proof"],
                "same" if row["passed"] else "DIFFERENT") for row in rows], right=("max abs", "max rel", "range", "SNR dB", "top-1"))
    if len(rows) < len(outputs):
        out.line(f"... and {len(outputs) - len(rows):,} more")
    for tolerance in dict.fromkeys(row["tolerance"] for row in outputs):
        out.line(f"tolerance: {tolerance}")


def _snr(row: dict[str, Any]) -> str:
    return "equal" if row["max_abs"] == 0 else number(row["snr_db"])


def _show_bisection(out: Output, bisection: dict[str, Any]) -> None:
    out.line(f"compared {bisection['compared']:,} values by name, {bisection['how']}")
    culprit = bisection["first"]
    if culprit is None:
        out.line("no value that both graphs name differs")
    else:
        out.line(f"first to differ: {culprit['name']}, made by {culprit['operator']} {culprit['node']}: {culprit['reason']}")
