"""Whether two arrays are the same result, and how far apart they are."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ENOUGH = 0.999                      # share of elements of a quantised or discrete result that must agree
SMALL = 1e-3                        # relative differences count where the reference is at least this share of its greatest value
QUANTA_ALWAYS_FINE = 2.0


@dataclass(frozen=True)
class Tolerance:
    """What counts as equal: |difference| <= absolute + relative * |reference| + share * range of the reference.

    `discrete` is the share of whole-number or text elements that may disagree. `quantum` is the step of a quantised result, judged in quanta;
    `quantised` says that the model computes in quantised arithmetic.
    """

    share: float = 0.0
    absolute: float = 0.0
    relative: float = 0.0
    discrete: float = 0.0
    quantum: float | None = None
    quantised: bool = False
    least_snr: float | None = None          # decibels: instead of a bound on each element
    reason: str = ""

    def __str__(self) -> str:
        if self.quantum is not None:
            bound = f"{ENOUGH:.1%} of the elements within one quantum of {self.quantum:.3g}, or all within {QUANTA_ALWAYS_FINE:g}"
        elif self.least_snr is not None:
            bound = f"a signal {self.least_snr:g} dB above the difference"
        else:
            parts = [f"{self.share:g} of the range" if self.share else "", f"{self.absolute:g} absolute" if self.absolute else "",
                     f"{self.relative:g} relative" if self.relative else ""]
            bound = " + ".join(part for part in parts if part) or "exact"
        return f"{bound} ({self.reason})" if self.reason else bound


@dataclass(frozen=True)
class Comparison:
    """One output of two runs. Numbers are of the second against the first, over the elements that are finite in both; None where they mean nothing."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    passed: bool
    tolerance: str
    max_abs: float | None = None
    max_rel: float | None = None
    range: float | None = None
    snr_db: float | None = None             # infinite where the results are equal
    top1: float | None = None               # share of rows whose greatest element stands in the same place
    runtime: str = ""
    proof: str = ""
    reason: str = ""                        # why it did not pass
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON knows no infinity: an SNR of equal results is null, and `max_abs` 0 says so."""
        snr = self.snr_db if self.snr_db is None or math.isfinite(self.snr_db) else None
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "max_abs": self.max_abs, "max_rel": self.max_rel, "range": self.range,
                "snr_db": snr, "top1": self.top1, "runtime": self.runtime, "proof": self.proof, "passed": self.passed, "tolerance": self.tolerance,
                "reason": self.reason, **self.extra}


def compare(name: str, want: Any, have: Any, tolerance: Tolerance, **about: Any) -> Comparison:
    """Compares a result (array, sequence of arrays, or None) with what was wanted. `about` fills further fields of the `Comparison`."""
    if isinstance(want, np.ndarray) and isinstance(have, np.ndarray):
        return _compare_arrays(name, want, have, tolerance, about)
    want_parts, have_parts = _leaves(want), _leaves(have)
    if len(want_parts) != len(have_parts):
        return Comparison(name, "sequence", (len(want_parts),), False, str(tolerance), reason=f"{len(have_parts)} parts instead of {len(want_parts)}", **about)
    parts = [_compare_arrays(name, np.asarray(a), np.asarray(b), tolerance, about) for a, b in zip(want_parts, have_parts, strict=True)]
    worst = min(parts, key=lambda part: (part.passed, -(part.max_abs or 0)), default=None)
    return worst or Comparison(name, "sequence", (0,), True, str(tolerance), **about)


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=str) for leaf in [key, *_leaves(value[key])]]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [] if value is None else [value]


def _compare_arrays(name: str, want: np.ndarray, have: np.ndarray, tolerance: Tolerance, about: dict[str, Any]) -> Comparison:
    dtype, shape = "string" if want.dtype.kind in "OSU" else want.dtype.name, want.shape
    if want.shape != have.shape:
        return Comparison(name, dtype, shape, False, str(tolerance), reason=f"its shape is {list(have.shape)} instead of {list(want.shape)}", **about)
    if (want.dtype.kind in "OSU") != (have.dtype.kind in "OSU"):
        return Comparison(name, dtype, shape, False, str(tolerance), reason=f"its type is {have.dtype.name} instead of {want.dtype.name}", **about)
    if want.dtype.kind in "OSUb":
        return _compare_discrete(name, dtype, want, have, tolerance, about)
    return _compare_numbers(name, dtype, want, have, tolerance, about)


def _compare_discrete(name: str, dtype: str, want: np.ndarray, have: np.ndarray, tolerance: Tolerance, about: dict[str, Any]) -> Comparison:
    wrong = int((want != have).sum())
    passed = wrong <= tolerance.discrete * want.size
    reason = "" if passed else f"{wrong:,} of {want.size:,} elements differ"
    return Comparison(name, dtype, want.shape, passed, str(tolerance), max_abs=float(wrong > 0), reason=reason, **about)


def _compare_numbers(name: str, dtype: str, want: np.ndarray, have: np.ndarray, tolerance: Tolerance, about: dict[str, Any]) -> Comparison:
    whole = want.dtype.kind in "iu" and have.dtype.kind in "iu"
    a, b = _wide(want), _wide(have)
    finite = np.isfinite(a) & np.isfinite(b)
    stray = int((~finite & ~((a == b) | (np.isnan(a) & np.isnan(b)))).sum())
    a, b = a[finite], b[finite]
    difference = np.abs(b - a)
    size = np.abs(a)
    greatest = float(size.max(initial=0.0))
    reach = float(np.real(a).max() - np.real(a).min()) if a.size else 0.0
    scale = max(reach, greatest)                    # a constant output has no range of its own
    max_abs = float(difference.max(initial=0.0))
    counted = size > SMALL * greatest
    max_rel = float((difference[counted] / size[counted]).max(initial=0.0))
    extra: dict[str, Any] = {}
    bound = tolerance.absolute + tolerance.share * scale + tolerance.relative * size
    wrong = int((difference > bound).sum())
    passed = wrong == 0
    if tolerance.quantum is not None:
        quanta = difference / tolerance.quantum
        within = float((quanta <= 1 + SMALL).mean()) if quanta.size else 1.0
        extra = {"max_quanta": float(quanta.max(initial=0.0)), "within_one_quantum": within}
        passed = within >= ENOUGH or extra["max_quanta"] <= QUANTA_ALWAYS_FINE + SMALL
    elif whole and tolerance.discrete:
        passed = wrong <= tolerance.discrete * want.size
    snr = _snr(a, difference)
    reason = "" if passed else f"{wrong:,} of {want.size:,} elements differ, by up to {max_abs:.3g} in a range of {reach:.3g}"
    if tolerance.least_snr is not None:
        passed = max_abs == 0 or (snr is not None and snr >= tolerance.least_snr)
        reason = "" if passed else f"the signal is {snr or 0:.1f} dB above the difference"
    if stray:
        passed, reason = False, f"{stray:,} of {want.size:,} elements are NaN or infinite in one result only"
    return Comparison(name, dtype, want.shape, passed, str(tolerance), max_abs, max_rel, reach, snr, _top1(want, have), reason=reason,
                      extra=extra, **about)


def _wide(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind == "c" else array.astype(np.float64)


def _snr(signal: np.ndarray, noise: np.ndarray) -> float | None:
    """Decibels of the power of the reference over that of the difference."""
    if not signal.size:
        return None
    power, lost = float((np.abs(signal) ** 2).sum()), float((noise ** 2).sum())
    if lost == 0:
        return math.inf
    return 10 * math.log10(power / lost) if power else None


def _top1(want: np.ndarray, have: np.ndarray) -> float | None:
    """Share of rows along the last axis whose greatest element stands in the same place. A tie with the reference's choice counts as agreement."""
    if want.ndim == 0 or want.shape[-1] < 2 or not want.size or want.dtype.kind == "c":
        return None
    a, b = (np.nan_to_num(array.astype(np.float64)).reshape(-1, want.shape[-1]) for array in (want, have))
    place = a.argmax(1)
    return float((b[np.arange(len(b)), place] == b.max(1)).mean())
