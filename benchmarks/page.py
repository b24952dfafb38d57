"""docs/benchmarks.md, and the block between markers in README.md, from the results."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.bars import agrees, ratios
from benchmarks.cases import ROOT
from benchmarks.conversions import INTEGERS
from benchmarks.keras_networks import FORMATS, LARGEST, shares

PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
BEGIN, END = "<!-- benchmarks, made by `python -m benchmarks` -->", "<!-- end of benchmarks -->"
PEERS = {"onnx": "onnx2tf", "tflite": "tf2onnx"}
TITLES = {"onnx": "ONNX → TFLite", "tflite": "TFLite → ONNX"}
RUNTIMES = {"onnx": ("LiteRT", "ONNX Runtime"), "tflite": ("ONNX Runtime", "LiteRT")}
MARKS = {True: "met", False: "**missed**", None: "not measured"}

HEAD = "Made by `python -m benchmarks`, which installs the peers in environments of their own, fetches the models and runs everything in turns."
COSTS = """Cost of a conversion: CPU seconds of the whole process with its children, and peak memory of the largest process.
*Verified* includes running the source and the result."""
RESULTS = """Results: the greatest difference from the source on the same inputs, in parts of the output's range (for quantised results in quanta, with
the share of elements within one), the size, and the size over the weights that the file holds."""
MEMORY = """Anonymous memory (mapped files do not count), sampled every 5 ms. The baseline is the same command on a model of 56 kB."""
NODES = """Rows marked *quoted* are not run by this program: they were measured by nearly the same count (an absolute tolerance of 1e-7 instead of 1e-5 of the
output's scale) on onnx 1.23.2, where 1,296 cases counted as float32."""
KERNELS = """LiteRT has two sets of integer kernels, which round differently. Both are shown beside each other on the quantised models, over 100 inputs: the
greatest difference in quanta, and the share of elements within one. The plain result rounds once where the reference kernels round twice; `--integers`
computes as they do."""
METHOD = """## How this is measured

* Each tool converts a copy of each model in an empty folder, in turns, several times; medians count. Every process runs under a small launcher of its
  own, so that the memory of this program is not counted as theirs.
* Both converters are told the same input shapes where a model leaves them open (`--input-shape`, `-ois`); otherwise each runs with its defaults, in its
  activated environment.
* Results run in the same LiteRT and ONNX Runtime, on the same seeded inputs of a realistic range, fed in the layout that each result wants and compared
  in the layout that is nearest.
* Models with quantised weights are compared with LiteRT's reference kernels; in brackets, with the kernels that LiteRT chooses by itself.
* A failure is shown with its reason. What a failed conversion cost is still counted; the latency of a result that is wrong (by more than 1e-3 of the
  range) is not."""


def write(found: dict[str, Any]) -> None:
    """Writes the page, and the block in the README where its markers stand."""
    PAGE.write_text(text(found))
    readme = README.read_text()
    if BEGIN in readme and END in readme:
        README.write_text(readme[:readme.index(BEGIN) + len(BEGIN)] + "\n" + short(found) + readme[readme.index(END):])


def text(found: dict[str, Any]) -> str:
    """The whole page."""
    parts = [_head(found), _bars(found), _conversions(found), _tensorflow(found.get("tensorflow", {})), _memory(found.get("memory", {})),
             _checkpoint(found.get("checkpoint", {})), _quantization(found.get("quantization", {})), _vocabulary(found.get("vocabulary", {})),
             _nodes(found.get("nodes", {})), _operators(found.get("operators", {})), _keras(found.get("keras", []))]
    return "\n".join([*(line for part in parts for line in part), METHOD]) + "\n"


def summary(row: dict[str, Any]) -> str:
    """One line of progress."""
    return "; ".join(f"{name} {tool['cpu']:.2f} s, {tool['rss'] / 1e6:.0f} MB" + (f", {tool['latency'] * 1e3:.3f} ms" if tool["latency"] else "")
                     + (f", {tool['failure']}" if tool["failure"] else "") for name, tool in row["tools"].items())


def short(found: dict[str, Any]) -> str:
    """The block of the README: medians over the models."""
    lines = ["| ours / theirs, median over real models | CPU seconds | peak memory | latency of the result | models carried |", "|---|---|---|---|---|"]
    for source, table in found.get("conversions", {}).items():
        rows, peer = list(table.values()), PEERS[source]
        cells = [_ratio(ratios(rows, "isomorph", peer, key)) for key in ("cpu", "rss", "latency")]
        lines.append(f"| {TITLES[source]}, beside {peer} | {' | '.join(cells)} | {_carried(rows, 'isomorph')} / {_carried(rows, peer)} of {len(rows)} |")
    graphs = [{"model": name, "tools": row["tools"]} for name, row in found.get("tensorflow", {}).items()]
    if graphs:
        carried = (f"{sum(not row['tools'][tool]['failure'] for row in graphs if tool in row['tools'])}" for tool in ("isomorph", "tf2onnx"))
        cells = [_ratio(ratios(graphs, "isomorph", "tf2onnx", key)) for key in ("cpu", "rss")]
        lines.append(f"| TensorFlow's graphs → ONNX, beside tf2onnx | {' | '.join(cells)} | - | {' / '.join(carried)} of {len(graphs)} |")
    return "\n".join([*lines, "", "How this was measured, model by model: [docs/benchmarks.md](docs/benchmarks.md).", ""])


def _carried(rows: Sequence[dict[str, Any]], tool: str) -> int:
    return sum(agrees(row["tools"].get(tool, {})) for row in rows)


def _ratio(found: Sequence[tuple[str, float]]) -> str:
    return f"{median(value for _, value in found):.2f} ×" if found else "-"


def _head(found: dict[str, Any]) -> Iterator[str]:
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in (machine["versions"] | found.get("versions", {})).items())
    yield from ("# Benchmarks", "", HEAD, "", f"{machine['date']}, {machine['cores']} cores of {machine['cpu']}, Python {machine['python']}; {versions}.", "")
    for name, reason in found.get("absent", {}).items():
        yield from (f"{name} was not measured: {reason}.", "")


def _bars(found: dict[str, Any]) -> Iterator[str]:
    yield from ("## What is asked, and what was measured", "", "| | asked | measured | |", "|---|---|---|---|")
    for bar in found.get("bars", []):
        yield f"| {bar['what']} | {bar['asked']} | {bar['measured']} | {MARKS[bar['met']]} |"
    yield ""


def _conversions(found: dict[str, Any]) -> Iterator[str]:
    for source, table in found.get("conversions", {}).items():
        rows, peer = list(table.values()), PEERS[source]
        result, native = RUNTIMES[source]
        columns = f"isomorph | verified | {peer}"
        yield from (f"## {TITLES[source]}", "", COSTS, "", f"| model | {columns} | CPU ratio | {columns} | memory ratio |", "|---" * 9 + "|")
        for row in rows:
            cells = [cell for key, form in (("cpu", "{:.2f} s"), ("rss", "{:.0f} MB")) for cell in _three(row, peer, key, form)]
            yield f"| {row['model']} | {' | '.join(cells)} |"
        yield from ("", RESULTS, "", f"| model | isomorph | {peer} | source kB | isomorph kB | × weights | {peer} kB | × weights |", "|---" * 8 + "|")
        for row in rows:
            ours, theirs = row["tools"]["isomorph"], row["tools"].get(peer)
            yield f"| {row['model']} | {_difference(ours)} | {_difference(theirs)} | {row['bytes'] / 1e3:.0f} | {_size(ours)} | {_size(theirs)} |"
        yield from _kernels(rows)
        yield from ("", f"Latency on one thread, the least of three interleaved medians: the source in {native}, the results in {result}.", "",
                    f"| model | source, ms | isomorph, ms | {peer}, ms | of {peer}'s | of the source's |", "|---|---|---|---|---|---|")
        yield from (_latency(row, peer) for row in rows)
        rewritten = [row["model"] for row in rows if row["tools"].get(peer, {}).get("source_rewritten")]
        yield from ("", f"{peer} wrote into its source file in {len(rewritten)} of {len(rows)} conversions.", "")


def _kernels(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What LiteRT's own two sets of kernels differ by, where a source is quantised."""
    quantised = [row for row in rows if row.get("kernels")]
    if quantised:
        yield from ("", KERNELS, "", "| model | isomorph from the reference kernels | with `--integers` | LiteRT's default kernels from them | "
                    "isomorph from the default kernels |", "|---" * 5 + "|")
    for row in quantised:
        ours = row["tools"]["isomorph"]
        known = [ours["difference"], row["tools"].get(INTEGERS, {}).get("difference"), row["kernels"], ours.get("difference_default")]
        yield f"| {row['model']} | {' | '.join(_amount(item) if item else '-' for item in known)} |"


def _three(row: dict[str, Any], peer: str, key: str, form: str) -> list[str]:
    scale = 1e6 if key == "rss" else 1
    values = [row["tools"].get(name, {}).get(key) for name in ("isomorph", "isomorph verified", peer)]
    cells = [form.format(value / scale) if value else "-" for value in values]
    return [*cells, f"{values[0] / values[2]:.2f}" if values[0] and values[2] else "-"]


def _difference(tool: dict[str, Any] | None) -> str:
    if tool is None:
        return "-"
    if not tool["difference"]:
        return f"failed: {tool['failure']}".replace("|", "\\|")
    default = tool.get("difference_default")
    return _amount(tool["difference"]) + (f" ({_amount(default)})" if default else "")


def _amount(item: dict[str, Any]) -> str:
    return f"{item['of_range']:.1e}" if item["quanta"] is None else f"{item['quanta']:g} quanta, {item['within_one']:.2%}"


def _size(tool: dict[str, Any] | None) -> str:
    if not tool or not tool["bytes"]:
        return "- | -"
    return f"{tool['bytes'] / 1e3:.0f} | " + (f"{tool['bytes'] / tool['weights']:.3f}" if tool["weights"] else "-")


def _latency(row: dict[str, Any], peer: str) -> str:
    source, ours, theirs = row["latency"], row["tools"]["isomorph"]["latency"], row["tools"].get(peer, {}).get("latency")
    cells = [f"{value * 1e3:.3f}" if value else "-" for value in (source, ours, theirs)]
    shares = [f"{ours / other:.2f}" if ours and other else "-" for other in (theirs, source)]
    return f"| {row['model']} | {' | '.join([*cells, *shares])} |"


def _tensorflow(rows: dict[str, Any]) -> Iterator[str]:
    if not rows:
        return
    yield from ("## TensorFlow's graphs → ONNX", "", "Cost of a conversion without verification: CPU seconds of the whole process, and its peak memory.", "",
                "| model | from | isomorph | tf2onnx | CPU ratio | isomorph | tf2onnx | memory ratio |", "|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        mine, theirs = row["tools"]["isomorph"], row["tools"].get("tf2onnx")
        cells = []
        for key, form, unit in (("cpu", "{:.2f} s", 1.0), ("rss", "{:.0f} MB", 1e6)):
            cells += [form.format(tool[key] / unit) if tool else "-" for tool in (mine, theirs)]
            cells.append(f"{mine[key] / theirs[key]:.2f}" if theirs else "-")
        yield f"| {name.rpartition('/')[2]} | {row['kind']} | {' | '.join(cells)} |"
    failed = [f"{name.rpartition('/')[2]} ({tool['failure'].partition(' from ')[0]})" for name, row in rows.items() for title, tool in row["tools"].items()
              if title == "tf2onnx" and tool["failure"]]
    yield from ("", *([f"tf2onnx fails, and what it took until then is counted: {', '.join(failed)}."] if failed else []), "")


def _memory(memory: dict[str, Any]) -> Iterator[str]:
    if not memory:
        return
    size, largest = memory["bytes"] / 1e9, memory["largest_tensor"] / 1e6
    what = f"A generated model of {size:.2f} GB with its weights in a file beside it; its largest tensor has {largest:.0f} MB."
    yield from ("## Memory", "", what, MEMORY, "", "| conversion | baseline MB | peak MB | above MB | result GB |", "|---|---|---|---|---|")
    for route, row in memory["routes"].items():
        yield f"| {route} | {row['baseline'] / 1e6:.0f} | {row['peak'] / 1e6:.0f} | {row['above'] / 1e6:.0f} | {row['bytes'] / 1e9:.2f} |"
    yield ""


def _checkpoint(checkpoint: dict[str, Any]) -> Iterator[str]:
    if not checkpoint:
        return
    what = f"Weights of {checkpoint['bytes'] / 1e9:.2f} GB as `torch.save` writes them, to safetensors, beside `cp`; {checkpoint['rounds']} rounds in turns."
    yield from ("## A large checkpoint", "", what, "No command waits for the disk, and the proof that `convert` ends with unless told not to reads both files "
                "again.", "", "| command | median s | least s | CPU s | memory MB |", "|---|---|---|---|---|")
    for name, row in checkpoint["rows"].items():
        yield f"| {name} | {row['seconds']:.2f} | {row['least']:.2f} | {row['cpu']:.2f} | {row['rss'] / 1e6:.0f} |"
    yield ""


def _quantization(found: dict[str, Any]) -> Iterator[str]:
    if not found:
        return
    made = "with the encoders in C" if found["compiled"] else "without the encoders in C, which were not built"
    what = (f"A llama of {found['parameters'] / 1e6:.0f} million random parameters in float16 ({found['bytes'] / 1e6:.0f} MB), one thread, whole process, "
            f"{made}; medians of CPU seconds. *Same* is every byte of the file.")
    yield from ("## Quantisation", "", what, "", "| scheme | tool | CPU s | of llama-quantize's speed | peak MB | same file |", "|---|---|---|---|---|---|")
    for scheme, tools in found["rows"].items():
        peer = tools.get("llama-quantize", {}).get("cpu")
        for name, row in tools.items():
            speed, same = f"{peer / row['cpu']:.1f} ×" if peer else "-", {True: "yes", False: "**no**", None: "-"}[row["same"]]
            yield f"| {scheme} | {name} | {row['cpu']:.2f} | {speed} | {row['rss'] / 1e6:.0f} | {row['failure'] or same} |"
    yield ""


def _vocabulary(found: dict[str, Any]) -> Iterator[str]:
    if not found:
        return
    what = (f"A GGUF of {found['bytes'] / 1e6:.0f} MB with {found['tokens']:,} tokens, opened in a process that has everything imported: CPU time, and how "
            "much the greatest resident memory grows.")
    yield from ("## A large vocabulary", "", what, "", "| tool | CPU ms | memory MB |", "|---|---|---|")
    for name, row in found["rows"].items():
        yield f"| {name} | {row['cpu'] * 1e3:.0f} | {row['rss'] / 1e6:.0f} |"
    yield ""


def _nodes(nodes: dict[str, Any]) -> Iterator[str]:
    if not nodes:
        return
    what = f"Of the {nodes['cases']:,} node tests of the installed onnx package, {nodes['float32_cases']:,} of them float32."
    yield from ("## Node tests", "", what, NODES, "", "| | all | float32 | |", "|---|---|---|---|")
    for row in nodes["rows"]:
        yield f"| {row['tool']} | {row['all']:,} | {row['float32']:,} | {row['from']} |"
    yield ""


def _operators(operators: dict[str, Any]) -> Iterator[str]:
    if not operators:
        return
    yield from ("## Operators of PyTorch", "", f"OpInfo of torch {operators['torch']}: up to five samples of each operator and element type (float32, "
                f"int64, bool), {operators['cases']:,} cases of `benchmarks/opinfo.txt`, to ONNX and run by ONNX Runtime.",
                f"Exported programs, and the exporter of PyTorch, are tried on {operators['shared']:,} of them, chosen by their names.", "",
                "| tool | passed of all | passed of those that all run |", "|---|---|---|")
    for row in operators["rows"]:
        whole = f"{row['all']:,} of {row['cases']:,}" if row["all"] is not None and row["cases"] > operators["shared"] else "-"
        yield f"| {row['tool']} | {whole} | {row['shared']} |"
    yield ""


def _keras(rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield from ("## Networks of keras.applications", "", f"{len(rows)} networks with random weights at their usual size of picture, from .keras, beside "
                "`Model.export` of Keras, which loads the file first and, for ONNX, has to call it once: CPU seconds, peak memory in MB, and ours as parts "
                f"of theirs. Keras is not asked for ONNX of files above {LARGEST / 1e6:.0f} MB: it takes {_largest(rows)} of memory for those below.", "",
                "| network | MB | to | isomorph | Keras | CPU ratio | isomorph MB | Keras MB | memory ratio |", "|---" * 9 + "|")
    for row in rows:
        yield from (f"| {' | '.join(cells)} |" for cells in _costs_of_network(row))
    for format in FORMATS:
        yield f"| median of {len(shares(rows, format, 'cpu'))} | | {format} | | | {_middle(rows, format, 'cpu')} | | | {_middle(rows, format, 'rss')} |"
    yield ""


def _largest(rows: list[dict[str, Any]]) -> str:
    return f"up to {max(row['onnx']['keras']['rss'] for row in rows) / 1e9:.1f} GB"


def _middle(rows: list[dict[str, Any]], format: str, key: str) -> str:
    found = [value for _, value in shares(rows, format, key)]
    return f"{median(found):.2f} (at most {max(found):.2f})" if found else "-"


def _costs_of_network(row: dict[str, Any]) -> Iterator[list[str]]:
    for format in FORMATS:
        cells = []
        for key, form, scale in (("cpu", "{:.1f}", 1.0), ("rss", "{:.0f}", 1e6)):
            ours, theirs = (row[format][tool] for tool in ("isomorph", "keras"))
            told = [_why(tool["failure"]) or form.format(tool[key] / scale) for tool in (ours, theirs)]
            cells += [*told, f"{ours[key] / theirs[key]:.2f}" if not ours["failure"] and not theirs["failure"] else "-"]
        yield [row["model"], f"{row['bytes'] / 1e6:.0f}", format, *cells]


def _why(failure: str) -> str:
    """Why there is no number: what was not asked has not failed."""
    return failure if failure.startswith("not ") or not failure else f"failed: {failure[:60]}"


def network(row: dict[str, Any]) -> str:
    """A line of progress."""
    return "; ".join(" ".join(cells) for cells in _costs_of_network(row))
