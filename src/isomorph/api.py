"""The short verbs of the public interface: open, identify, run, bench. The long ones have modules of their own."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isomorph.artifact import Artifact
from isomorph.errors import Unsupported
from isomorph.formats import Match, _table
from isomorph.report import Report

if TYPE_CHECKING:
    from isomorph.model import Checkpoint, Model
    from isomorph.runtime.session import Session
    from isomorph.verification import Feeds, Given, Subject


def open(source: Any) -> Model | Checkpoint:
    """Reads a model file, given as a path or as bytes: its header now, its weights when they are asked for.

    Raises `NotRecognised`, `Unsupported`, `Damaged` or `Unsafe`.
    """
    artifact = Artifact.open(source)
    match = _table.identify(artifact)
    reader = _table.get(match.format).read
    if reader is None:
        raise Unsupported(f"isomorph recognises {match.format} but does not read it", where=artifact.where, hint=match.hint)
    return reader(artifact)


def identify(source: Any) -> Match:
    """What a file or folder is, by its content. Reads headers only. Raises `NotRecognised` where no format claims it."""
    return _table.identify(Artifact.open(source))


def run(source: Any, inputs: Mapping[str, Given] | None = None, *, sizes: Mapping[str, int] | None = None, seed: int = 0, reference: bool = False,
        timeout: float = 300.0, signature: str = "") -> dict[str, Any]:
    """The outputs of a model by name, run in its own runtime where that is installed, else rewritten as ONNX.

    Inputs that are not given are random from `seed`. `reference` asks for plain kernels where the runtime has them. `signature` is the entry point
    of a file that has several. Raises what `Session` raises.
    """
    with _ready(source, inputs, sizes, seed, reference, timeout, signature=signature) as (_, _, _, outputs):
        return outputs


def bench(source: Any, inputs: Mapping[str, Given] | None = None, *, sizes: Mapping[str, int] | None = None, runs: int = 30, warm_up: int = 3, threads: int = 1,
          seed: int = 0, timeout: float = 300.0) -> Report:
    """Times a model in its own runtime. Facts: `median_ms`, `p90_ms`, `load_ms`, `rss_bytes`, `runs`, `threads`, `runtime`, `proof`, `inputs`."""
    with _ready(source, inputs, sizes, seed, False, timeout, threads) as (subject, session, feeds, _):
        timing = session.bench(feeds.arrays, runs=runs, warm_up=warm_up)
        return Report(subject.where, facts={
            "format": subject.format.name, "bytes": subject.artifact.size, "runtime": f"{session.runtime.title} {session.version}",
            "proof": "native" if subject.format.name in session.runtime.formats else "re-read", "threads": threads, "runs": runs,
            "median_ms": round(timing.median * 1e3, 4), "p90_ms": round(timing.p90 * 1e3, 4), "load_ms": round(timing.load_seconds * 1e3, 3),
            "rss_bytes": timing.rss, "inputs": feeds.to_json()})


@contextlib.contextmanager
def _ready(source: Any, inputs: Mapping[str, Given] | None, sizes: Mapping[str, int] | None, seed: int, reference: bool, timeout: float,
           threads: int = 1, signature: str = "") -> Iterator[tuple[Subject, Session, Feeds, dict[str, Any]]]:
    """A model that has run once: the file, its session, the inputs that it took and what it answered."""
    from isomorph.verification import Subject, first_that_runs
    subject = Subject(source, signature=signature)
    if not subject.holds_graph:
        raise Unsupported("the file holds weights without a graph, so there is nothing to run", where=subject.where,
                          hint="for a language model, add --prompt TEXT")
    subject.content                                  # noqa: B018  read by us first: a damaged or hostile file never reaches a runtime
    with subject.session(reference=reference, timeout=timeout, threads=threads) as (session, _):
        feeds, outputs = first_that_runs(subject, session, inputs or {}, sizes or {}, seed)
        yield subject, session, feeds, outputs


