"""Proof that two model files compute the same: both are run on the same inputs, in their own runtimes where these exist."""
from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from isomorph import runtime
from isomorph.errors import Crashed, Mismatch, Unsupported
from isomorph.model import NEXT
from isomorph.progress import SILENT, Progress
from isomorph.report import Report, Severity
from isomorph.runtime.pipe import element_dtype
from isomorph.runtime.session import Port, Session
from isomorph.verification import inputs as inputs_module
from isomorph.verification.compare import Comparison, Tolerance, compare
from isomorph.verification.inputs import Feeds, Given
from isomorph.verification.subject import Subject, is_bounded, quantum_of
from isomorph.verification.tolerances import for_output, tolerance

MOST_REFUSALS = 4                   # sizes that the first model takes and the second does not, before it counts as a mismatch
MOST_ATTEMPTS = 6                   # sets of random inputs
SHAKES = (1 + 1e-5, 1 - 1e-5, 1 + 3e-6, 1 - 3e-6)        # changes of their last digits: a tenth of what sums in another order may differ by, and less

__all__ = ["Comparison", "Feeds", "Given", "Subject", "Tolerance", "compare", "require", "verify"]


def verify(first: Any, second: Any, *, inputs: Mapping[str, Given] | None = None, sizes: Mapping[str, int] | None = None, atol: float | None = None,
           rtol: float | None = None, seed: int = 0, timeout: float = 300.0, bisect: bool = False, input_shapes: Mapping[str, Sequence[int]] | None = None,
           signature: str = "", progress: Progress = SILENT) -> Report:
    """Compares two model files, given as paths. Facts: `passed`, `outputs` (see `Comparison`), `inputs`, `first`, `second`; with `bisect` also `bisection`.

    Graphs are run; where one file holds weights only, weights are compared tensor by tensor. `inputs` gives arrays, shapes or values by the names of
    `first`, the rest is random from `seed`.
    `sizes` fixes symbolic dimensions by name. `input_shapes` (with -1 for open sizes) is for reading `first` where the file does not say them.
    `atol` and `rtol` replace the tolerance that follows from types and operators. `signature` is the entry point of `first`, where it has several.
    """
    stated = {name: item.array.shape if item.array is not None else item.shape for name, item in (inputs or {}).items()}
    shapes = {name: shape for name, shape in stated.items() if shape is not None} | dict(input_shapes or {})
    one, other = Subject(first, input_shapes=shapes, signature=signature), Subject(second)
    report = Report(f"{one.where} and {other.where}")
    built = one.network if other.holds_graph and not one.holds_graph else None
    if built is not None and "isomorph.words" in built.metadata:
        from isomorph.architectures.networks import samples
        inputs = {name: Given(array=array) for name, array in samples(built, seed).items()} | dict(inputs or {})
    elif built is None and not (one.holds_graph and other.holds_graph):
        from isomorph.verification import weights
        return weights.verify(one, other, report, _explicit(atol, rtol))
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
        sides = _without_states(source, result, report)
        names = _corresponding(sides[0][0], sides[1][0], "inputs", report)
        fixed = {mine: port.shape for mine, theirs in names.items() for port in result.inputs() if port.name == theirs and port.shape is not None}
        options = {"given": _first_states(source, sides[0][0]) | dict(given), "sizes": sizes, "fixed": fixed, "seed": seed}
        states = {name: item.array for name, item in _first_states(result, sides[1][0]).items()}
        outputs = _corresponding(sides[0][1], sides[1][1], "outputs", report)
        base = explicit or tolerance(one.traits, other.traits, lambda: _hub_operators(one))

        def compared(want: Mapping[str, Any], have: Mapping[str, Any]) -> list[Comparison]:
            bounds = {mine: explicit or for_output(base, want[mine], *_nature(one, source, mine, base.quantised)) for mine in outputs}
            return [compare(mine, want[mine], have[mine], bound, runtime=f"{result.runtime.title} {result.version}", proof=result_proof)
                    for mine, bound in bounds.items()]
        attempts: list[tuple[Feeds, list[Comparison]]] = []
        for attempt in range(MOST_ATTEMPTS):
            feeds, want, have = _both_run(one, source, result, names, options | {"seed": seed + attempt}, states, report)
            attempts.append((feeds, compared(want, {mine: have[theirs] for mine, theirs in outputs.items()})))
            if not _at_a_step(source, attempts[-1], functools.partial(compared, want)):
                break
        else:
            attempts = attempts[:1]
        feeds, comparisons = attempts[-1]
        if len(attempts) > 1:
            report.add("verify.step", Severity.INFO, attempts[0][1][0].name, f"on {len(attempts) - 1} sets of random inputs the first model itself gives other "
                       "results when their last digits change; compared on the next")
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


def _at_a_step(source: Session, attempt: tuple[Feeds, list[Comparison]], compared: Callable[[Mapping[str, Any]], Sequence[Comparison]]) -> bool:
    """Whether the first model differs from itself in all the outputs that did not pass when the last digits of its random inputs change: what is chosen there,
    by TopK for example, hangs on roundings, so that a comparison on these inputs says nothing."""
    feeds, comparisons = attempt
    shaken = [name for name, array in feeds.arrays.items() if feeds.origin[name] == "random" and array.dtype.kind == "f" and array.size]
    left = {comparison.name for comparison in comparisons if not comparison.passed} if shaken else set()
    if not left:
        return False
    for factor in SHAKES:                           # all elements alike: changes of single ones cancel in sums
        moved = {name: (array * factor).astype(array.dtype) if name in shaken else array for name, array in feeds.arrays.items()}
        left -= {comparison.name for comparison in compared(source.run(moved)) if not comparison.passed}
        if not left:
            return True
    return False


def _opened_second(other: Subject, quantised: bool, timeout: float, stack: contextlib.ExitStack) -> tuple[Session, str]:
    """The session of the second model. Raises `Mismatch` where the runtime that its format is made for does not take it."""
    try:
        return stack.enter_context(other.session(reference=quantised, timeout=timeout))
    except Unsupported as error:
        if other.format.name == "onnx" or not runtime.has_native(other.format.name):
            raise
        raise Mismatch(error.what, where=error.where, hint="the file holds what its runtime does not take") from None


def _both_run(one: Subject, source: Session, result: Session, names: Mapping[str, str], options: dict[str, Any], states: dict[str, Any],
              report: Report) -> tuple[Feeds, dict[str, Any], dict[str, Any]]:
    """Inputs that both models take, and what each makes of them. Raises `Mismatch` where the second takes none of the sizes that the first takes."""
    refusals: list[tuple[Feeds, Crashed]] = []
    for feeds, want in runs(one, source, **options):
        try:
            have = result.run(_translated(feeds, names, result.inputs(), report) | states)
        except Crashed as error:
            if error.died:
                raise
            refusals.append((feeds, error))
            if len(refusals) == MOST_REFUSALS:
                break
            continue
        if refusals:
            report.add("verify.sizes", Severity.MEDIUM, str(result.path), f"the first model takes {_shapes(refusals[0][0])}, the second does not: "
                       f"{refusals[0][1].what}", f"compared with {_shapes(feeds)} instead")
        return feeds, want, have
    raise Mismatch(f"the first model takes {_shapes(refusals[0][0])}, the second does not: {refusals[0][1].what}", where=str(result.path))


def _shapes(feeds: Feeds) -> str:
    return ", ".join(f"{name}{list(array.shape)}" for name, array in feeds.arrays.items())


def _without_states(one: Session, other: Session, report: Report) -> list[tuple[list[Port], list[Port]]]:
    """Inputs and outputs of both models to be compared. Where only one has its variables as inputs `x`
    (which may have a default and be none) and outputs `x/next`, these are left out."""
    sides = []
    counts = [len(session.outputs()) for session in (one, other)]
    for session, more in ((one, counts[0] > counts[1]), (other, counts[1] > counts[0])):
        states = {port.name.removesuffix(NEXT) for port in session.outputs() if more and port.name.endswith(NEXT)}
        if states:
            report.add("verify.state", Severity.INFO, str(session.path), f"variables start at 0 and are not compared: {', '.join(sorted(states))}")
        sides.append(([port for port in session.inputs() if port.name not in states],
                      [port for port in session.outputs() if port.name.removesuffix(NEXT) not in states]))
    return sides


def _first_states(session: Session, compared: Sequence[Port]) -> dict[str, Given]:
    """Zeros for the inputs that are variables."""
    names = {port.name for port in compared}
    return {port.name: Given(array=np.zeros([dim if isinstance(dim, int) else 1 for dim in port.shape or ()], element_dtype(port.dtype)))
            for port in session.inputs() if port.name not in names}


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


def _nature(subject: Subject, session: Session, name: str, quantised: bool) -> tuple[float | None, bool]:
    """The quantum of an output, where the model is quantised and the output has one; and whether a function with bounds makes it."""
    place = [port.name for port in session.outputs()].index(name)
    stated = session.outputs()[place].scale
    try:
        output = subject.hub.graph.outputs[place]
    except (Unsupported, IndexError):
        return stated, False
    return (stated or quantum_of(output)) if quantised else None, is_bounded(output)


def _graph_for_inputs(subject: Subject, ports: Sequence[Port], given: Mapping[str, Given]) -> Any:
    """The graph that says what whole numbers, texts, scalars, inputs without a rank and the indices that Keras takes as floats may be; None where none is to
    be made up or the model has no form in ONNX."""
    plain = [port.name for port in ports if "int" not in port.dtype and port.dtype != "object" and port.shape and subject.format.dialect != "keras"]
    if all(port.name in given or port.name in plain for port in ports):
        return None
    try:
        return subject.hub.graph
    except Unsupported:
        return None


def runs(subject: Subject, session: Session, given: Mapping[str, Given], sizes: Mapping[str, int], fixed: Mapping[str, Sequence[Any]],
         seed: int) -> Iterator[tuple[Feeds, dict[str, Any]]]:
    """The sets of inputs that the model takes, each with what it makes of them. Sizes of free dimensions are found by trying. Raises `Crashed` for none."""
    graph = _graph_for_inputs(subject, session.inputs(), given)
    complaint: Crashed | None = None
    taken = False
    for feeds in inputs_module.candidates(session.inputs(), given, graph=graph, seed=seed, sizes=sizes, fixed=fixed):
        try:
            outputs = session.run(feeds.arrays)
        except Crashed as error:
            if error.died:
                raise
            complaint = complaint or error
            continue
        taken = True
        yield feeds, outputs
    if not taken:
        assert complaint is not None
        complaint.hint = "give shapes with --input name=1x3x224x224 or values with --input name=@file.npy"
        raise complaint


def first_that_runs(subject: Subject, session: Session, given: Mapping[str, Given], sizes: Mapping[str, int], seed: int) -> tuple[Feeds, dict[str, Any]]:
    """The likeliest of the sets of inputs that the model takes, and what it makes of them."""
    return next(runs(subject, session, given, sizes, {}, seed))


def _corresponding(mine: Sequence[Port], theirs: Sequence[Port], kind: str, report: Report) -> dict[str, str]:
    """Names of the first model -> names of the second: by name, else by name without decoration or with TensorFlow's for what
    Python could not call so, else by order. Raises `Mismatch` where the counts differ."""
    if len(mine) != len(theirs):
        raise Mismatch(f"one model has {len(mine)} {kind}, the other {len(theirs)}", where=report.subject,
                       hint=f"{', '.join(map(str, mine))} against {', '.join(map(str, theirs))}")
    for key in (lambda name: name, lambda name: name.rpartition("/")[2].partition(":")[0].lower(), lambda name: re.sub(r"\W", "_", name).lower()):
        left, right = {key(port.name): port.name for port in mine}, {key(port.name): port.name for port in theirs}
        if left.keys() == right.keys() and len(left) == len(mine):
            return {name: right[short] for short, name in left.items()}
    report.add("verify.order", Severity.INFO, kind, f"the names of the {kind} differ between the models: compared in their order")
    return {a.name: b.name for a, b in zip(mine, theirs, strict=True)}


def _translated(feeds: Feeds, names: Mapping[str, str], ports: Sequence[Port], report: Report) -> dict[str, Any]:
    """The inputs as the second model takes them: its names and, where they differ, its types."""
    wanted = {port.name: port for port in ports}
    arrays = {}
    for mine, theirs in names.items():
        array, port = feeds.arrays[mine], wanted[theirs]
        if port.shape is not None and port.dtype != "object" and array.dtype.name != port.dtype:
            report.add("verify.cast", Severity.INFO, mine, f"fed as {port.dtype} to the second model, the first takes {array.dtype.name}")
            if array.dtype.kind in "OSU":
                raise Mismatch(f"the first model takes texts as {mine!r}, the second numbers as {theirs!r}", where=report.subject)
            array = array.astype(element_dtype(port.dtype))
        arrays[theirs] = array
    return arrays
