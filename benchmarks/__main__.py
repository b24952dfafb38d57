"""The command line of the benchmarks."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import (
    bars,
    checkpoint,
    conversions,
    environments,
    keras_networks,
    machine,
    memory,
    nodes,
    operators,
    page,
    quantization,
    tensorflow_graphs,
    vocabulary,
)
from benchmarks.cases import ROOT, Unavailable, cases

RESULTS = ROOT / "benchmarks" / "results.json"


def main(arguments: list[str] | None = None) -> int:
    """Measures what is asked for, keeps it in a file of results, and writes the pages that are made from it."""
    options = _parser().parse_args(arguments)
    found = json.loads(options.results.read_text()) if options.results.exists() and not options.fresh else {}
    found |= {"schema_version": 1, "machine": machine.description()}
    parts = options.parts or ["conversions", "tensorflow", "memory", "nodes"]
    if "conversions" in parts:
        _conversions(found, options)
    if "tensorflow" in parts:
        peer = {} if options.no_peers else _peers(["tf2onnx"], found)
        found["tensorflow"] = tensorflow_graphs.measure(environments.ours(), peer.get("tf2onnx"), options.repeats, lambda text: print(text, file=sys.stderr))
        _keep(found, options.results)
    if "memory" in parts:
        found["memory"] = memory.measure(environments.ours(), options.gigabytes)
    if "checkpoint" in parts:
        found["checkpoint"] = checkpoint.measure(environments.ours())
    if "quantization" in parts:
        found["quantization"] = quantization.measure(environments.ours())
    if "vocabulary" in parts:
        found["vocabulary"] = vocabulary.measure(environments.ours(), None if options.no_peers else _peers(["gguf"], found).get("gguf"))
    if "nodes" in parts:
        found["nodes"] = nodes.counted(_peers(["onnx2tf"], found) if options.nodes else {})
    if "operators" in parts:
        try:
            found["operators"] = operators.measure(operators.environment(), options.folder)
        except environments.Absent as reason:
            print(f"operators: left out, {reason}", file=sys.stderr)
    if "keras" in parts:
        _keras(found, options)
    _keep(found, options.results)
    if options.results == RESULTS:
        page.write(found)
    print(page.text(found))
    return 0


def _keep(found: dict[str, Any], path: Path) -> None:
    found["bars"] = bars.judged(found)
    path.write_text(json.dumps(found, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures isomorph beside onnx2tf and tf2onnx, in turns, in one run.")
    parser.add_argument("parts", nargs="*", metavar="PART",
                        help="conversions, tensorflow, memory, nodes; all of them where none is named; checkpoint, quantization, vocabulary; operators and "
                        "keras, which take half an hour each")
    parser.add_argument("--only", default="", metavar="TEXT", help="only models whose name holds this text; the others keep what was measured before")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="conversions of each model by each tool, of which the median counts")
    parser.add_argument("--no-peers", action="store_true", help="measure isomorph alone")
    parser.add_argument("--no-latency", action="store_true", help="do not time the results")
    parser.add_argument("--nodes", action="store_true", help="really run onnx2tf on the 1,884 node tests (slow) instead of quoting its count")
    parser.add_argument("--gigabytes", type=float, default=3.0, metavar="N", help="size of the model that memory is measured with")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="keep the files of the operators here, and use those of an earlier run again")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="where results are kept; the pages are written for the default only")
    return parser


def _conversions(found: dict[str, Any], options: argparse.Namespace) -> None:
    chosen = cases(options.only)
    peers = {} if options.no_peers else _peers(sorted({conversions.PEERS[case.source] for case in chosen}), found)
    ours = environments.ours()
    for case in chosen:
        rows = found.setdefault("conversions", {}).setdefault(case.source, {})
        try:
            rows[case.name] = conversions.measure(case, conversions.tools(case, ours, peers), options.repeats, timed=not options.no_latency)
        except Unavailable as reason:
            print(f"{case.name}: left out, {reason}", file=sys.stderr)
            continue
        print(f"{case.name}: {page.summary(rows[case.name])}", file=sys.stderr, flush=True)
        _keep(found, options.results)


def _keras(found: dict[str, Any], options: argparse.Namespace) -> None:
    """The networks of keras.applications; those that are not measured now keep what was measured before."""
    try:
        peer = environments.peer("tf2onnx")
    except environments.Absent as reason:
        print(f"keras: left out, {reason}", file=sys.stderr)
        return
    chosen = [name for name in keras_networks.names(peer) if options.only.lower() in name.lower()]
    rows = {row["model"]: row for row in found.get("keras", [])}
    for row in keras_networks.measure(environments.ours(), peer, chosen):
        rows[row["model"]] = row
        found["keras"] = [rows[name] for name in sorted(rows)]
        print(page.network(row), file=sys.stderr, flush=True)
        _keep(found, options.results)


def _peers(names: list[str], found: dict[str, Any]) -> dict[str, environments.Environment]:
    """The environments of those peers that can be had; why another cannot is kept with the results."""
    ready, absent = {}, {}
    for name in names:
        try:
            ready[name] = environments.peer(name)
        except environments.Absent as reason:
            absent[name] = str(reason)
            print(f"{name}: left out, {reason}", file=sys.stderr)
    found["absent"] = absent
    found.setdefault("versions", {}).update({name: environment.version for name, environment in ready.items()})
    return ready


if __name__ == "__main__":
    sys.exit(main())
