"""`isomorph inspect`."""
from __future__ import annotations

from typing import Any

import click

from isomorph.cli._output import Output, shape, size, verb

MOST_MODULES = 40


@verb("inspect")
@click.argument("path", metavar="FILE")
@click.option("--graph", is_flag=True, help="List the nodes of the graph.")
@click.option("--tensors", is_flag=True, help="List the weights.")
@click.option("--metadata", is_flag=True, help="List the metadata.")
@click.option("--ops", is_flag=True, help="Count the operators.")
def command(out: Output, path: str, graph: bool, tensors: bool, metadata: bool, ops: bool) -> None:
    """Show what stands in a file.

    Inputs, outputs, counts and sizes; with options also every operator, node, tensor and metadata entry.
    """
    import isomorph
    report = isomorph.inspect(path, graph=graph)
    facts = report.facts
    if out.as_json:
        out.document(report.to_json())
        return
    out.pairs([("file", path), ("format", " ".join(filter(None, (facts["format"], facts["version"], facts["flavour"])))), ("holds", facts["holds"]),
               ("size", size(facts["bytes"])), ("parameters", f"{facts['parameters']:,}" if "parameters" in facts else ""),
               ("tensors", f"{len(facts['tensors']):,}" if "tensors" in facts else ""), ("operators", _count(facts)),
               ("opsets", ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in facts.get("opsets", {}).items())), ("note", facts.get("hint"))])
    for kind in ("inputs", "outputs"):
        for value in facts.get(kind, []):
            out.line(f"{kind[:-1]:<10}  {value['name']}: {value['dtype']}{shape(value['shape'])}")
    modules = list((facts.get("metadata", {}).get("modules") or {}).items()) if facts["format"] == "torch" else []
    if modules:
        out.line()
        shown = modules if metadata else modules[:MOST_MODULES]
        out.table(("module", "class"), [(name, str(made)) for name, made in shown])
        out.line(f"... and {len(modules) - len(shown):,} modules more, with --metadata" if len(shown) < len(modules) else "")
    if ops:
        out.line()
        out.table(("operator", "count"), list(facts.get("operators", {}).items()), right=("count",))
    if tensors:
        out.line()
        out.table(("tensor", "dtype", "shape", "size"), [(tensor["name"], tensor["dtype"], shape(tensor["shape"]), size(tensor["bytes"]))
                                                         for tensor in facts.get("tensors", [])], right=("size",))
    if metadata:
        out.line()
        out.pairs([(name, str(value)) for name, value in facts.get("metadata", {}).items() if not modules or name != "modules"])
    if graph:
        out.line()
        out.table(("node", "operator", "inputs", "outputs"), [(node["name"], node["operator"], ", ".join(node["inputs"]), ", ".join(node["outputs"]))
                                                              for node in facts.get("nodes", [])])
    out.findings(report.findings)


def _count(facts: dict[str, Any]) -> str:
    operators = facts.get("operators")
    return f"{sum(operators.values()):,} of {len(operators)} kinds" if operators else ""
