"""What is asked of the numbers, judged. A bar that falls short says so; nothing here is asserted by a test."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks import keras_networks
from benchmarks.conversions import INTEGERS

FLOAT_SHARE, LARGEST_SIZE, WITHIN_ONE = 1e-4, 1.02, 0.999
USABLE = 1e-3                                       # of the range; a result further off is wrong, and how fast it is means nothing
MEGABYTE = 1e6


@dataclass(frozen=True)
class Bar:
    """One requirement: what is asked, what was measured, and whether it is met; None where it was not measured."""

    what: str
    asked: str
    measured: str
    met: bool | None


def judged(found: dict[str, Any]) -> list[dict[str, Any]]:
    """All bars over the results."""
    conversions = found.get("conversions", {})
    bars = [*_to_tflite(list(conversions.get("onnx", {}).values())), *_to_onnx(list(conversions.get("tflite", {}).values())),
            *_tensorflow(found.get("tensorflow", {})), *_memory(found.get("memory", {})), *_checkpoint(found.get("checkpoint", {})),
            *_nodes(found.get("nodes", {})), *_keras(found.get("keras", []))]
    return [asdict(bar) for bar in bars]


def _to_tflite(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    failed = [row["model"] for row in rows if row["tools"]["isomorph"]["failure"]]
    yield Bar("ONNX models converted to TFLite that run", "all", f"{len(rows) - len(failed)} of {len(rows)}", not failed and bool(rows))
    differences = _differences(rows, "of_range")
    yield Bar("greatest difference, LiteRT against ONNX Runtime, of the range", f"≤ {FLOAT_SHARE:g}", _most(differences, "{:.1e}"),
              _at_most(differences, FLOAT_SHARE))
    latency = ratios(rows, "isomorph", "onnx2tf", "latency")
    yield Bar("latency in LiteRT, of onnx2tf's result, on every model", "≤ 1.00 ×", _most(latency, "{:.2f} ×"), _at_most(latency, 1.0))
    yield Bar("the same, median", "≤ 0.85 ×", _median(latency), _median_at_most(latency, 0.85))
    sizes = [(row["model"], row["tools"]["isomorph"]["bytes"] / row["tools"]["isomorph"]["weights"]) for row in rows if row["tools"]["isomorph"]["weights"]]
    yield Bar("size of the result, of the weights it holds", f"≤ {LARGEST_SIZE} ×", _most(sizes, "{:.3f} ×"), _at_most(sizes, LARGEST_SIZE))
    large = [(row["model"], ratio) for row in rows for name, ratio in sizes if name == row["model"] and row["tools"]["isomorph"]["weights"] >= MEGABYTE]
    yield Bar("the same, models of 1 MB and more; less leaves no room for the structure of the file", f"≤ {LARGEST_SIZE} ×", _most(large, "{:.3f} ×"),
              _at_most(large, LARGEST_SIZE))
    yield from _costs(rows, "onnx2tf", 0.6)
    changed = [row["model"] for row in rows if any(tool["source_rewritten"] for name, tool in row["tools"].items() if name.startswith("isomorph"))]
    yield Bar("source files written to", "0", str(len(changed)), not changed)


def _to_onnx(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    failed = [row["model"] for row in rows if row["tools"]["isomorph"]["failure"]]
    yield Bar("TFLite models converted to ONNX that run", "all", f"{len(rows) - len(failed)} of {len(rows)}", not failed and bool(rows))
    apart = {row["model"]: row["kernels"]["of_range"] for row in rows if row.get("kernels") and row["kernels"]["within_one"] is None}
    floats = [(name, value) for name, value in _differences(rows, "of_range") if name not in dict(_differences(rows, "within_one"))]
    whole, hybrid = [item for item in floats if item[0] not in apart], [item for item in floats if item[0] in apart]
    yield Bar("greatest difference of float models, of the range", "≤ 1e-05", _most(whole, "{:.1e}"), _at_most(whole, 1e-5))
    yield Bar("the same where only weights are integers, from the reference kernels", f"≤ {_most(list(apart.items()), '{:.1e}')} of LiteRT's default kernels",
              _most(hybrid, "{:.1e}"), all(value <= apart[name] for name, value in hybrid) if hybrid else None)
    within = _differences(rows, "within_one")
    least = min(within, key=lambda item: item[1], default=None)
    yield Bar("elements of int8 models within one quantum of the reference kernels", "≥ 99.9 %", f"{least[1]:.2%} ({least[0]})" if least else "-",
              least[1] >= WITHIN_ONE if least else None)
    exact = [(row["model"], row["tools"][INTEGERS]["difference"]["within_one"]) for row in rows if (row["tools"].get(INTEGERS) or {}).get("difference")]
    least = min(((name, value) for name, value in exact if value is not None), key=lambda item: item[1], default=None)
    yield Bar("the same, converted with `--integers`", "≥ 99.9 %", f"{least[1]:.2%} ({least[0]})" if least else "-",
              least[1] >= WITHIN_ONE if least else None)
    anchors = {row["model"]: row["kernels"]["within_one"] for row in rows if row.get("kernels")}
    lost = [(name, anchors[name] - value) for name, value in within if name in anchors]
    yield Bar("the same, fewer than LiteRT's own default kernels", "≤ 0.1 %", _most(lost, "{:.2%}"), _at_most(lost, 1 - WITHIN_ONE))
    yield from _costs(rows, "tf2onnx", 1 / 3)


def _costs(rows: list[dict[str, Any]], peer: str, most: float) -> Iterator[Bar]:
    for title, tool, limits in (("verification off", "isomorph", (most, most)), ("verification on", "isomorph verified", (1.2, 1.0))):
        for what, key, limit in (("CPU seconds", "cpu", limits[0]), ("peak memory", "rss", limits[1])):
            found = ratios(rows, tool, peer, key)
            yield Bar(f"conversion, {title}: {what}, of {peer}'s, median", f"≤ {limit:.2f} ×", _median(found), _median_at_most(found, limit))


def _tensorflow(rows: dict[str, Any]) -> Iterator[Bar]:
    """TensorFlow's graphs to ONNX: what the dearest of them costs."""
    if not rows:
        return
    named = [{"model": name, "tools": row["tools"]} for name, row in rows.items()]
    failed = [row["model"] for row in named if row["tools"]["isomorph"]["failure"]]
    yield Bar("graphs of TensorFlow converted to ONNX", "all", f"{len(named) - len(failed)} of {len(named)}", not failed)
    for what, key in (("CPU seconds", "cpu"), ("peak memory", "rss")):
        found = ratios(named, "isomorph", "tf2onnx", key)
        yield Bar(f"the same: {what}, of tf2onnx's, on every model", f"≤ {1 / 3:.2f} ×", _most(found, "{:.2f} ×"), _at_most(found, 1 / 3))


def _memory(memory: dict[str, Any]) -> Iterator[Bar]:
    for route, row in memory.get("routes", {}).items():
        measured = "failed" if row["code"] else f"{row['above'] / MEGABYTE:.0f} MB"
        yield Bar(f"anonymous memory for {memory['bytes'] / 1e9:.1f} GB, {route}", "≤ 400 MB", measured, not row["code"] and row["above"] <= 400 * MEGABYTE)


def _checkpoint(checkpoint: dict[str, Any]) -> Iterator[Bar]:
    rows = checkpoint.get("rows")
    if not rows:
        return
    size = f"a checkpoint of {checkpoint['bytes'] / 1e9:.1f} GB"
    copy = 1.3 * rows["cp"]["seconds"]
    for name, limit, memory in (("inspect", 0.35, 60), ("convert --no-verify", copy, 200), ("convert", copy, 200)):
        seconds, megabytes = rows[name]["seconds"], rows[name]["rss"] / MEGABYTE
        shares = "" if name == "inspect" else f" ({seconds / rows['cp']['seconds']:.2f} × cp)"
        yield Bar(f"{size}: {name}", f"≤ {limit:.2f} s, {memory} MB", f"{seconds:.2f} s{shares}, {megabytes:.0f} MB", seconds <= limit and megabytes <= memory)


def _nodes(nodes: dict[str, Any]) -> Iterator[Bar]:
    for row in nodes.get("rows", [])[:1]:
        measured = f"{row['all']:,}, float32 {row['float32']:,}"
        yield Bar("node tests through LiteRT", "≥ 1,300, float32 ≥ 1,150", measured, row["all"] >= 1300 and row["float32"] >= 1150)


def _keras(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    for format in keras_networks.FORMATS if rows else ():
        for what, key in (("CPU seconds", "cpu"), ("peak memory", "rss")):
            found = keras_networks.shares(rows, format, key)
            yield Bar(f"keras.applications to {format}: {what}, of Keras' export, each", "≤ 0.33 ×", _most(found, "{:.2f} ×"), _at_most(found, 1 / 3))


def ratios(rows: list[dict[str, Any]], tool: str, peer: str, key: str) -> list[tuple[str, float]]:
    """(model, ours over theirs) where both have a number. Every conversion counts for what it cost, only right results for how fast they are."""
    pairs = [(row["model"], row["tools"].get(tool, {}).get(key), row["tools"].get(peer, {}).get(key)) for row in rows
             if key != "latency" or agrees(row["tools"].get(peer, {}))]
    return [(name, mine / theirs) for name, mine, theirs in pairs if mine and theirs]


def agrees(tool: dict[str, Any]) -> bool:
    """Whether a result runs and is what its source computes: within 1e-3 of the range, or nearly all elements within one quantum."""
    item = tool.get("difference")
    return bool(item) and (item["of_range"] <= USABLE or (item["within_one"] or 0) >= WITHIN_ONE)


def _differences(rows: list[dict[str, Any]], key: str) -> list[tuple[str, float]]:
    found = [(row["model"], (row["tools"]["isomorph"]["difference"] or {}).get(key)) for row in rows]
    return [(name, value) for name, value in found if value is not None]


def _most(found: list[tuple[str, float]], form: str) -> str:
    name, value = max(found, key=lambda item: item[1], default=("", None))
    return "-" if value is None else f"{form.format(value)} ({name})"


def _at_most(found: list[tuple[str, float]], limit: float) -> bool | None:
    return max(value for _, value in found) <= limit if found else None


def _median(found: list[tuple[str, float]]) -> str:
    return f"{median(value for _, value in found):.2f} × (of {len(found)})" if found else "-"


def _median_at_most(found: list[tuple[str, float]], limit: float) -> bool | None:
    return median(value for _, value in found) <= limit if found else None
