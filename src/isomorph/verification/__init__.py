"""Proof that two model files compute the same: both are run on the same inputs, in their own runtimes where these exist."""
from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from isomorph import runtime
from isomorph.errors import Crashed, Mismatch, Unsupported, Usage
from isomorph.progress import SILENT, Progress
from isomorph.report import Report, Severity
from isomorph.runtime.session import Port, Session
from isomorph.verification import inputs as inputs_module
from isomorph.verification.compare import Comparison, Tolerance, compare
from isomorph.verification.inputs import Feeds, Given
from isomorph.verification.subject import Subject, quantum_of
from isomorph.verification.tolerances import for_output, tolerance

__all__ = ["Comparison", "Feeds", "Given", "Subject", "Tolerance", "compare", "require", "verify"]


def verify(first: Any, second: Any, *, inputs: Mapping[str, Given] | None = None, sizes: Mapping[str, int] | None = None, atol: float | None = None,
           rtol: float | None = None, seed: int = 0, timeout: float = 300.0, bisect: bool = False, progress: Progress = SILENT) -> Report:
    """Compares two model files, given as paths. Facts: `passed`, `outputs` (see `Comparison`), `inputs`, `first`, `second`; with `bisect` also `bisection`.

    Graphs are run; weights are compared tensor by tensor. `inputs` gives arrays, shapes or values by the names of `first`, the rest is random from `seed`.
    `sizes` fixes symbolic dimensions by name. `atol` and `rtol` replace the tolerance that follows from types and operators.
    """
    one, other = Subject(first), Subject(second)
    report = Report(f"{one.where} and {other.where}")
    if not one.holds_graph and not other.holds_graph:
        from isomorph.verification import weights
        return weights.verify(one, other, report, _explicit(atol, rtol))
    if not (one.holds_graph and other.holds_graph):
        raise Usage(f"{one.format.title} and {other.format.title} cannot be compared: one holds a graph, the other only weights", where=report.subject)
    _verify_graphs(one, other, report, inputs or {}, sizes or {}, _explicit(atol, rtol), seed, timeout, progress)
    if bisect and not report.facts["passed"]:
        from isomorph.verification.bisection import bisect as first_difference
        report.facts["bisection"] = first_difference(one, other, report.facts.pop("_feeds"), _explicit(atol, rtol), timeout)
    report.facts.pop("_feeds", None)
    return report


def require(report: Report) -> Report:
    """The report of `verify`, when the results agree. Raises `Mismatch` otherwise, which carries the report."""
    wrong = [output for output in report.facts["outputs"] if not output["passed"]]
    if not wrong:
        return report
    first = wrong[0]
    error = Mismatch(f"{len(wrong)} of {len(report.facts['outputs'])} results differ; {first['name']}: {first['reason']}; tolerance {first['tolerance']}",
                     where=report.subject, hint="find the first value that differs with `isomorph verify A B --bisect`")
    error.report = report
    raise error


def _explicit(atol: float | None, rtol: float | None) -> Tolerance | None:
    if atol is None and rtol is None:
        return None
    return Tolerance(absolute=atol or 0.0, relative=rtol or 0.0, reason="given")


def _verify_graphs(one: Subject, other: Subject, report: Report, given: Mapping[str, Given], sizes: Mapping[str, int], explicit: Tolerance | None, seed: int,
                   timeout: float, progress: Progress) -> None:
    progress.start("verify")
    quantised = one.traits.quantised_values or other.traits.quantised_values
    with contextlib.ExitStack() as stack:
        source, source_proof = stack.enter_context(one.session(reference=quantised, timeout=timeout))
        result, result_proof = _opened_second(other, quantised, timeout, stack)
        names = _corresponding(source.inputs(), result.inputs(), "inputs", report)
        fixed = {mine: port.shape for mine, theirs in names.items() for port in result.inputs() if port.name == theirs and port.shape is not None}
        feeds, want = first_that_runs(one, source, given, sizes, fixed, seed)
        have = _run_second(result, _translated(feeds, names, result.inputs(), report))
        outputs = _corresponding(source.outputs(), result.outputs(), "outputs", report)
        base = explicit or tolerance(one.traits, other.traits, lambda: _hub_operators(one))
        comparisons = []
        for mine, theirs in outputs.items():
            bound = base if explicit or not base.quantised else for_output(base, want[mine], _quantum(one, source, mine))
            comparisons.append(compare(mine, want[mine], have[theirs], bound, runtime=f"{result.runtime.title} {result.version}", proof=result_proof))
    progress.finish()
    report.facts |= {
        "passed": all(comparison.passed for comparison in comparisons),
        "first": _described(one, source, source_proof), "second": _described(other, result, result_proof),
        "inputs": feeds.to_json(), "sizes": feeds.sizes, "outputs": [comparison.to_json() for comparison in comparisons],
        "_feeds": feeds,
    }
    for comparison in comparisons:
        if not comparison.passed:
            report.add("verify.mismatch", Severity.HIGH, comparison.name, f"{comparison.reason}; tolerance {comparison.tolerance}",
                       "find the first value that differs with --bisect")


def _opened_second(other: Subject, quantised: bool, timeout: float, stack: contextlib.ExitStack) -> tuple[Session, str]:
    """The session of the second model. Raises `Mismatch` where the runtime that its format is made for does not take it."""
    try:
        return stack.enter_context(other.session(reference=quantised, timeout=timeout))
    except Unsupported as error:
        if other.format.name == "onnx" or not runtime.has_native(other.format.name):
            raise
        raise Mismatch(error.what, where=error.where, hint="the file holds what its runtime does not take") from None


def _run_second(session: Session, feeds: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return session.run(feeds)
    except Crashed as error:
        if error.died:
            raise
        raise Mismatch(f"the first model takes these inputs, the second does not: {error.what}", where=error.where) from None


def _described(subject: Subject, session: Session, proof: str) -> dict[str, Any]:
    kernels = session.options.get("kernels")
    return {"path": subject.where, "format": subject.format.name, "runtime": f"{session.runtime.title} {session.version}", "proof": proof,
            "bytes": subject.artifact.size} | ({"kernels": kernels} if kernels else {})


def _hub_operators(subject: Subject) -> frozenset[str]:
    """The ONNX operators of the first model; its own where it has no meaning in ONNX."""
    try:
        hub = subject.hub
    except Unsupported:
        return frozenset(subject.traits.operators)
    return frozenset(node.op_type for graph in (hub.graph, *hub.graph.subgraphs()) for node in graph)


def _quantum(subject: Subject, session: Session, name: str) -> float | None:
    for port in session.outputs():
        if port.name == name and port.scale:
            return port.scale
    try:
        return quantum_of(subject.hub.graph, name)
    except Unsupported:
        return None


def _graph_for_inputs(subject: Subject, ports: Sequence[Port], given: Mapping[str, Given]) -> Any:
    """The graph that says what whole-number inputs may be; None where none is to be made up or the model has no meaning in ONNX."""
    if all("int" not in port.dtype or port.name in given for port in ports):
        return None
    try:
        return subject.hub.graph
    except Unsupported:
        return None


def first_that_runs(subject: Subject, session: Session, given: Mapping[str, Given], sizes: Mapping[str, int], fixed: Mapping[str, Sequence[Any]],
                     seed: int) -> tuple[Feeds, dict[str, Any]]:
    """The first set of inputs that the model takes, and what it makes of them. Sizes of free dimensions are found by trying."""
    graph = _graph_for_inputs(subject, session.inputs(), given)
    complaint: Crashed | None = None
    for feeds in inputs_module.candidates(session.inputs(), given, graph=graph, seed=seed, sizes=sizes, fixed=fixed):
        try:
            return feeds, session.run(feeds.arrays)
        except Crashed as error:
            if error.died:
                raise
            complaint = complaint or error
    assert complaint is not None
    complaint.hint = "give shapes with --input name=1x3x224x224 or values with --input name=@file.npy"
    raise complaint


def _corresponding(mine: Sequence[Port], theirs: Sequence[Port], kind: str, report: Report) -> dict[str, str]:
    """Names of the first model -> names of the second: by name, else by name without decoration, else by order. Raises `Mismatch` where the counts differ."""
    if len(mine) != len(theirs):
        raise Mismatch(f"one model has {len(mine)} {kind}, the other {len(theirs)}", where=report.subject,
                       hint=f"{', '.join(map(str, mine))} against {', '.join(map(str, theirs))}")
    for key in (lambda name: name, lambda name: name.rpartition("/")[2].partition(":")[0].lower()):
        left, right = {key(port.name): port.name for port in mine}, {key(port.name): port.name for port in theirs}
        if left.keys() == right.keys() and len(left) == len(mine):
            return {name: right[short] for short, name in left.items()}
    report.add("verify.order", Severity.INFO, kind, f"the names of the {kind} differ between the models: compared in their order")
    return {a.name: b.name for a, b in zip(mine, theirs, strict=True)}


def _translated(feeds: Feeds, names: Mapping[str, str], ports: Sequence[Port], report: Report) -> dict[str, Any]:
    """The inputs as the second model takes them: its names and, where they differ, its types."""
    from isomorph.runtime.pipe import element_dtype
    wanted = {port.name: port for port in ports}
    arrays = {}
    for mine, theirs in names.items():
        array, port = feeds.arrays[mine], wanted[theirs]
        if port.shape is not None and port.dtype != "object" and array.dtype.name != port.dtype:
            report.add("verify.cast", Severity.INFO, mine, f"fed as {port.dtype} to the second model, the first takes {array.dtype.name}")
            array = array.astype(element_dtype(port.dtype))
        arrays[theirs] = array
    return arrays
