"""What differs between two model files: operators, inputs and outputs, tensors, metadata."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isomorph.inspection import inspect
from isomorph.report import Report, Severity
from isomorph.tensors import dims_of, type_of

if TYPE_CHECKING:
    import numpy as np

SAMPLE = 1 << 22                                        # elements that are converted to float64 at once


def diff(first: Any, second: Any, *, values: bool = True) -> Report:
    """Compares two files, given as paths. Facts: `same`, `format`, `inputs`, `outputs`, `operators`, `metadata`, `nodes` and `tensors`, each as a list or
    mapping of what differs. With `values`, tensors of the same name, type and shape are compared element by element, one at a time in memory.
    """
    from isomorph import api
    one, other = inspect(first, graph=True), inspect(second, graph=True)
    facts = {
        "format": _changes({"format": one.facts["format"]}, {"format": other.facts["format"]}),
        "inputs": _changes(_by_name(one, "inputs"), _by_name(other, "inputs")), "outputs": _changes(_by_name(one, "outputs"), _by_name(other, "outputs")),
        "operators": _changes(one.facts.get("operators", {}), other.facts.get("operators", {})),
        "metadata": _changes(one.facts.get("metadata", {}), other.facts.get("metadata", {})),
        "nodes": _changes(_nodes(one), _nodes(other)), "tensors": _changes(_by_name(one, "tensors"), _by_name(other, "tensors"))}
    if values:
        facts["tensors"] += _value_changes(_tensors(api.open(first)), _tensors(api.open(second)))
    report = Report(f"{one.subject} and {other.subject}", facts={"same": not any(facts.values()), **facts})
    for kind, changes in facts.items():
        if changes:
            report.add(f"diff.{kind}", Severity.INFO, kind, f"{len(changes)} differ")
    return report


def _by_name(report: Report, kind: str) -> dict[str, Any]:
    return {entry["name"]: {key: value for key, value in entry.items() if key != "name"} for entry in report.facts.get(kind, [])}


def _nodes(report: Report) -> dict[str, Any]:
    """By what a node computes, which stays the same where nodes are renamed or reordered."""
    return {", ".join(node["outputs"]): {"operator": node["operator"], "inputs": node["inputs"], "attributes": node["attributes"]}
            for node in report.facts.get("nodes", [])}


def _changes(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = [*one, *(name for name in other if name not in one)]
    return [{"name": name, "first": one.get(name), "second": other.get(name)} for name in names if one.get(name) != other.get(name)]


def _tensors(content: Any) -> Mapping[str, Any]:
    if hasattr(content, "tensors"):
        return content
    from isomorph import model
    return model.weights(content)


def _value_changes(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    changes = []
    for name, tensor in one.items():
        twin = other.get(name)
        if twin is None or type_of(twin) != type_of(tensor) or dims_of(twin) != dims_of(tensor):
            continue
        a, b = tensor.numpy(), twin.numpy()
        if a.dtype.kind not in "OSU" and a.tobytes() != b.tobytes():
            changes.append({"name": name, "first": statistics(a), "second": statistics(b), "max_abs": _greatest_difference(a, b), "snr_db": _snr(a, b)})
        elif a.dtype.kind in "OSU" and (a != b).any():
            changes.append({"name": name, "first": "text", "second": "other text"})
    return changes


def _snr(a: np.ndarray, b: np.ndarray) -> float | None:
    """Decibels of the first over what the second differs by; None where they are no finite numbers."""
    import numpy as np
    if a.dtype.kind == "c" or not a.size:
        return None
    signal = noise = 0.0
    for start in range(0, a.size, SAMPLE):
        one, other = (each.reshape(-1)[start:start + SAMPLE].astype(np.float64) for each in (a, b))
        signal, noise = signal + float(np.square(one).sum()), noise + float(np.square(one - other).sum())
    ratio = signal / noise if noise else 0.0
    return float(10 * np.log10(ratio)) if np.isfinite(ratio) and ratio > 0 else None


def statistics(array: np.ndarray) -> dict[str, float]:
    """Least, mean, greatest and standard deviation."""
    import numpy as np
    if array.dtype.kind == "c" or not array.size:
        return {}
    flat = array.reshape(-1).astype(np.float64)
    return {"min": float(flat.min()), "mean": float(flat.mean()), "max": float(flat.max()), "std": float(flat.std())}


def _greatest_difference(a: np.ndarray, b: np.ndarray) -> float:
    import numpy as np
    a, b = a.reshape(-1), b.reshape(-1)
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    return max(float(np.nanmax(np.abs(a[start:start + SAMPLE].astype(wide) - b[start:start + SAMPLE].astype(wide)), initial=0.0))
               for start in range(0, len(a), SAMPLE))
