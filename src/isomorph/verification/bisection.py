"""The first value of one model that the other computes differently."""
from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isomorph import runtime
from isomorph.passes import shapes
from isomorph.verification.compare import Comparison, compare
from isomorph.verification.inputs import Feeds
from isomorph.verification.subject import Subject, rewritten_session
from isomorph.verification.tolerances import tolerance

if TYPE_CHECKING:
    from isomorph.model import Model
    from isomorph.runtime.session import Session
    from isomorph.verification.compare import Tolerance

MOST_AXES = 5                                   # up to which a result in another layout is looked for among all permutations


def bisect(one: Subject, other: Subject, feeds: Feeds, explicit: Tolerance | None, timeout: float) -> dict[str, Any]:
    """Exposes the intermediate values of both models that go by the same name and compares them in the order in which the first computes them.

    The tolerance is that of the outputs, or `explicit`.
    Answers `first` (name, node, operator, reason, max_abs; None where no common value differs), `compared` and `how`.
    """
    graph = one.hub.graph
    base = explicit or tolerance(one.traits, other.traits, lambda: frozenset(node.op_type for node in graph))
    order = {value.name: node for node in graph for value in node.outputs if value.name}
    wanted = _values(one, feeds.arrays, timeout, set(order))
    found, how = _of_second(one, other, feeds, timeout, set(wanted))
    compared = 0
    for name, node in order.items():
        if name not in wanted or name not in found:
            continue
        compared += 1
        comparison = _in_any_layout(name, wanted[name], found[name], base)
        if not comparison.passed:
            culprit = {"name": name, "node": node.name or "", "operator": node.op_type, "reason": comparison.reason, "max_abs": comparison.max_abs}
            return {"first": culprit, "compared": compared, "how": how}
    return {"first": None, "compared": compared, "how": how}


def _of_second(one: Subject, other: Subject, feeds: Feeds, timeout: float, names: set[str]) -> tuple[dict[str, Any], str]:
    """The values of the second model, out of its own runtime where that shows them."""
    if other.format.name == "tflite" and runtime.has_native("tflite"):
        with other.session(timeout=timeout, expose=True) as (session, _):
            return session.run(_by_order(one, session, feeds)), f"in {session.runtime.title}"
    with _exposed(other.hub, names, timeout) as session:
        return session.run(_by_order(one, session, feeds)), f"rewritten as ONNX in {session.runtime.title}"


def _values(subject: Subject, arrays: Mapping[str, Any], timeout: float, names: set[str]) -> dict[str, Any]:
    with _exposed(subject.hub, names, timeout) as session:
        ports = session.inputs()
        return session.run(dict(zip((port.name for port in ports), arrays.values(), strict=True)))


def _by_order(one: Subject, session: Session, feeds: Feeds) -> dict[str, Any]:
    """The inputs under the names of the second model, by name where these are the same, else in order."""
    ports = session.inputs()
    if {port.name for port in ports} == feeds.arrays.keys():
        return dict(feeds.arrays)
    return dict(zip((port.name for port in ports), feeds.arrays.values(), strict=True))


@contextlib.contextmanager
def _exposed(hub: Model, names: set[str], timeout: float) -> Iterator[Session]:
    """The model with these values as further outputs, which also keeps the runtime from fusing across them."""
    graph = hub.graph
    for node in graph:
        if any(value.dtype is None for value in node.outputs):
            shapes.infer_node(node)
    kept = list(graph.outputs)
    fresh = [value for node in graph for value in node.outputs if value.name in names and value.dtype is not None and not value.is_graph_output()]
    graph.outputs.extend(fresh)
    try:
        with tempfile.TemporaryDirectory() as folder, rewritten_session(hub, Path(folder), timeout) as session:
            yield session
    finally:
        del graph.outputs[len(kept):]


def _in_any_layout(name: str, want: Any, have: Any, base: Tolerance) -> Comparison:
    """The comparison, after putting a channels-last result in the order of the first model where only that makes the shapes agree."""
    if not (isinstance(want, np.ndarray) and isinstance(have, np.ndarray)) or want.ndim != have.ndim or want.ndim > MOST_AXES:
        return compare(name, want, have, base)
    candidates = [axes for axes in itertools.permutations(range(want.ndim)) if tuple(have.shape[axis] for axis in axes) == want.shape]
    results = [compare(name, want, have.transpose(axes), base) for axes in candidates] or [compare(name, want, have, base)]
    return min(results, key=lambda result: (not result.passed, result.max_abs or 0.0))
