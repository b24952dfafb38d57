"""What a converted file is worth: does it run, how far is it from its source on the same inputs, how fast is it, how much of it is weights."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.processes import shortened
from isomorph.artifact import Artifact
from isomorph.errors import IsomorphError
from isomorph.formats import _table
from isomorph.model import NEXT, Checkpoint, weights
from isomorph.runtime.session import Port, Session

ROUNDS = 3                                          # of each file, one after the other; the least median counts
ROUND_SECONDS = 1.0
RUNS = (10, 200)                                    # of one round, at least and at most
WARM_UP = 5
QUANTISED_TURNS = 100                               # inputs on which quantised results are compared, whose outputs often are ten numbers


class Wrong(Exception):
    """A result that cannot be compared with its source, with the reason."""


@dataclass(frozen=True)
class Difference:
    """The greatest difference of any output: in parts of that output's range, and in quanta for whole numbers with the share within one quantum."""

    of_range: float
    quanta: float | None = None
    within_one: float | None = None


def fitted(array: np.ndarray, port: Port) -> np.ndarray:
    """An array in the layout and type that a port wants: as it is, else with its axes moved so that its shape fits. Raises `Wrong`."""
    for order in _orders(array.ndim):
        moved = array.transpose(order)
        if _fits(moved.shape, port.shape or ()):
            return moved.astype(np.dtype(port.dtype), order="C")
    if array.size == 1 and all(dim in (1, None) for dim in port.shape or ()):
        return array.reshape([1] * len(port.shape or ())).astype(np.dtype(port.dtype))
    raise Wrong(f"its input {port} takes no array of the shape {list(array.shape)} in any layout")


def _orders(rank: int) -> list[tuple[int, ...]]:
    """Orders of axes, those first that layouts use: as it is, channels moved to the end, channels moved to the front."""
    usual = [tuple(range(rank))]
    if rank >= 3:
        usual += [(0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))]
    return list(dict.fromkeys([*usual, *permutations(range(rank))]))


def _fits(shape: Sequence[int], wanted: Sequence[Any]) -> bool:
    return len(shape) == len(wanted) and all(not isinstance(want, int) or want == have for want, have in zip(wanted, shape, strict=True))


def matched(mine: Sequence[Port], theirs: Sequence[Port]) -> dict[str, Port]:
    """For each name of the source, the port of the result: by name without the signs that tools replace, else in order. Raises `Wrong`."""
    if len(mine) != len(theirs):
        raise Wrong(f"it has {len(theirs)} inputs or outputs instead of {len(mine)}")
    plain = {_plain(port.name): port for port in theirs}
    names = [_plain(port.name) for port in mine]
    if set(names) == set(plain):
        return {port.name: plain[name] for port, name in zip(mine, names, strict=True)}
    return {port.name: other for port, other in zip(mine, theirs, strict=True)}


def _plain(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())


def ports(session: Session, *, outputs: bool = False) -> list[Port]:
    """The inputs or outputs of a result, without the variables that isomorph makes inputs `x` and outputs `x/next`."""
    states = {port.name.removesuffix(NEXT) for port in session.outputs() if port.name.endswith(NEXT)}
    return [port for port in (session.outputs() if outputs else session.inputs()) if port.name.removesuffix(NEXT) not in states]


def fed(case: Case, source: Session, result: Session, turn: int = 0) -> dict[str, np.ndarray]:
    """The inputs of a case as a result wants them; variables start at zero."""
    mine = ports(result)
    states = {port.name: np.zeros([dim if isinstance(dim, int) else 1 for dim in port.shape or ()], port.dtype) for port in result.inputs() if port not in mine}
    wanted = matched(source.inputs(), mine)
    return {wanted[name].name: fitted(array, wanted[name]) for name, array in case.feeds(source.inputs(), turn).items()} | states


def difference(case: Case, path: Path, result: Path, *, reference: bool = False, turns: int = 1) -> Difference:
    """How far a result is from its source over several inputs; the source may run on LiteRT's reference kernels. A stateful source starts anew each time.

    Raises `Wrong` or an error of isomorph.
    """
    each: list[Difference] = []
    while len(each) < turns:
        with _session(path, reference=reference) as source, _session(result) as other:
            states = any(port.name.endswith(NEXT) for port in other.outputs())
            for turn in range(len(each), len(each) + 1 if states else turns):
                want = source.run(case.feeds(source.inputs(), turn))
                have = other.run(fed(case, source, other, turn))
                places = matched(source.outputs(), ports(other, outputs=True))
                each.append(_worst(_apart(name, array, have[places[name].name]) for name, array in want.items()))
    shares = [item.within_one for item in each if item.within_one is not None]
    return replace(_worst(each), within_one=fmean(shares) if shares else None)


def _worst(each: Iterable[Difference]) -> Difference:
    return max(each, key=lambda item: (item.quanta or 0, item.of_range))


def _apart(name: str, want: np.ndarray, have: np.ndarray) -> Difference:
    """In the layout that is nearest."""
    moved = least_distant(want, have)
    if moved.shape != want.shape:
        raise Wrong(f"its output {name} has the shape {list(have.shape)} instead of {list(want.shape)}")
    return _distance(want, moved)


def least_distant(want: np.ndarray, have: np.ndarray) -> np.ndarray:
    """A result with its axes moved so that it has the shape of another and differs least; as it is where no order gives that shape."""
    candidates = [array for array in (have.transpose(order) for order in _orders(have.ndim)) if array.shape == want.shape]
    if not candidates:
        return have.reshape(want.shape) if have.size == want.size == 1 else have
    return min(candidates, key=lambda array: float(np.nan_to_num(np.abs(want.astype(np.float64) - array.astype(np.float64)), nan=np.inf).max(initial=0)))


def _distance(want: np.ndarray, have: np.ndarray) -> Difference:
    a, b = want.astype(np.float64), have.astype(np.float64)
    if not np.isfinite(b).all() and np.isfinite(a).all():
        raise Wrong("it gives NaN or infinity")
    apart = np.abs(a - b)
    scale = max(float(a.max(initial=0) - a.min(initial=0)), float(np.abs(a).max(initial=0)), np.finfo(np.float32).tiny)
    if want.dtype.kind not in "iu" or have.dtype.kind not in "iu":
        return Difference(float(apart.max(initial=0)) / scale)
    return Difference(float(apart.max(initial=0)) / scale, float(apart.max(initial=0)), float((apart <= 1).mean()))


def latencies(case: Case, path: Path, results: Mapping[str, Path]) -> dict[str, float]:
    """Seconds of one run on one thread of the source ("source") and of each result that runs, each the least of interleaved medians."""
    least: dict[str, float] = {}
    with ExitStack() as stack:
        source = stack.enter_context(_session(path))
        ready = {"source": (source, case.feeds(source.inputs()))}
        for name, result in results.items():
            try:
                session = stack.enter_context(_session(result))
                ready[name] = (session, fed(case, source, session))
                session.run(ready[name][1])
            except (IsomorphError, Wrong):
                ready.pop(name, None)
        for _ in range(ROUNDS):
            for name, (session, feeds) in ready.items():
                once = median(session.bench(feeds, runs=3, warm_up=WARM_UP).seconds)
                runs = int(min(max(ROUND_SECONDS / max(once, 1e-6), RUNS[0]), RUNS[1]))
                least[name] = min(least.get(name, float("inf")), session.bench(feeds, runs=runs, warm_up=WARM_UP).median)
    return least


def _session(path: Path, *, reference: bool = False) -> Session:
    format = path.suffix[1:]
    return Session(path, format, threads=1, options={"kernels": "reference"} if reference and format == "tflite" else {})


def weight_bytes(path: Path) -> int:
    """Bytes of the weights that a file holds; equal data counts once, as it needs to be stored once."""
    content = _table.get(path.suffix[1:]).reader(Artifact.open(path))
    tensors = (content if isinstance(content, Checkpoint) else weights(content, used=True)).values()
    return sum({(hashlib.sha256(data).digest(), len(data)): len(data) for data in (tensor.tobytes() for tensor in tensors)}.values())


def is_quantised(path: Path) -> bool:
    """Whether a TensorFlow Lite file computes in whole numbers: it holds quantised weights."""
    content = _table.get(path.suffix[1:]).reader(Artifact.open(path)) if path.suffix == ".tflite" else None
    return content is not None and any("quantization" in value.meta for value in content.graph.initializers.values())


def kernels_apart(case: Case, path: Path) -> dict[str, Any] | None:
    """How far the kernels that LiteRT chooses by itself are from its reference kernels on a quantised source: what any result can be asked for."""
    return asdict(difference(case, path, path, reference=True, turns=QUANTISED_TURNS)) if is_quantised(path) else None


def checked(case: Case, path: Path, result: Path) -> tuple[dict[str, Any], str]:
    """The difference of a result, for quantised sources also from the kernels that LiteRT chooses by itself; or why it has none."""
    quantised = is_quantised(path)
    turns = QUANTISED_TURNS if quantised else 1
    try:
        found = {"difference": asdict(difference(case, path, result, reference=quantised, turns=turns))}
        return found | ({"difference_default": asdict(difference(case, path, result, turns=turns))} if quantised else {}), ""
    except Wrong as reason:
        return {}, str(reason)
    except IsomorphError as error:
        return {}, shortened(error.what)
