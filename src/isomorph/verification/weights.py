"""Comparison of files that hold weights only: tensor by tensor, one at a time in memory."""
from __future__ import annotations

import math
from typing import Any

from isomorph import model
from isomorph.model import Checkpoint
from isomorph.report import Report, Severity
from isomorph.tensors import NAME, SliceTensor, dims_of, numpy_type, type_of
from isomorph.verification.compare import Comparison, Tolerance, compare
from isomorph.verification.subject import Subject

# Share of the range that is lost by the narrower of two types.
NARROWING = {"FLOAT16": 1e-3, "BFLOAT16": 1e-2, "FLOAT8E4M3FN": 0.1, "FLOAT8E5M2": 0.2}

# Decibels of a signal over the error of its blocks that weights keep: 3 below what Student's t of 3 degrees has. Coarser types have no more than their power.
LEAST_SNR = {"Q8_0": 38.0, "Q6_K": 29.0, "Q5_K": 23.0, "Q5_1": 22.0, "Q5_0": 20.0, "Q4_K": 17.0, "Q4_1": 16.0, "IQ4_NL": 16.0, "IQ4_XS": 16.0, "NVFP4": 16.0,
             "Q4_0": 14.0, "MXFP4": 13.0, "Q3_K": 11.0, "Q2_K": 6.0}
ROUGHEST = -1.0


def verify(one: Subject, other: Subject, report: Report, explicit: Tolerance | None) -> Report:
    """Adds the facts `passed` and `outputs` to the report: one row a tensor. Of a graph, its weights count."""
    first, second = tensors(one), tensors(other)
    rows = [_compared(name, first, second, explicit) for name in first]
    rows += [Comparison(name, NAME[type_of(second[name])].lower(), dims_of(second[name]), False, "exact", reason="only the second file has it")
             for name in second if name not in first]
    for row in rows:
        if not row.passed:
            report.add("verify.mismatch", Severity.HIGH, row.name, row.reason)
    report.facts |= {
        "passed": all(row.passed for row in rows),
        **{side: {"path": subject.where, "format": subject.format.name, "runtime": "isomorph", "proof": "re-read", "bytes": subject.artifact.size}
           for side, subject in (("first", one), ("second", other))},
        "inputs": [], "sizes": {}, "outputs": [row.to_json() for row in rows]}
    return report


def tensors(subject: Subject) -> Checkpoint:
    """The weights of a file, of a graph those that stand in it as initializers."""
    content = subject.content
    return content if isinstance(content, Checkpoint) else model.weights(content)


def _compared(name: str, first: Checkpoint, second: Checkpoint, explicit: Tolerance | None) -> Comparison:
    want = first[name]
    if name not in second:
        return Comparison(name, NAME[type_of(want)].lower(), dims_of(want), False, "exact", reason="only the first file has it")
    have = second[name]
    if blocks := _blocks(want, have):
        return compare(name, want.numpy(), have.numpy(), explicit or blocks, runtime="isomorph", proof="re-read")
    types = {NAME[type_of(want)], NAME[type_of(have)]}
    if len(types) == 1 and isinstance(want, SliceTensor) and isinstance(have, SliceTensor) and dims_of(want) == dims_of(have) and _same_bytes(want, have):
        return Comparison(name, numpy_type(type_of(want)).name, dims_of(want), True, str(explicit or Tolerance()), 0.0, 0.0, snr_db=math.inf,
                          runtime="isomorph", proof="re-read")
    narrowed = Tolerance(share=max((NARROWING.get(kind, 0.0) for kind in types), default=0.0), reason=f"stored as {NAME[type_of(have)].lower()}")
    return compare(name, want.numpy(), have.numpy(), explicit or (narrowed if len(types) > 1 else Tolerance()), runtime="isomorph", proof="re-read")


def _same_bytes(want: SliceTensor, have: SliceTensor) -> bool:
    """Whether two tensors of one type and shape are stored as the same bytes, piece by piece and without a copy: then nothing needs to be computed."""
    import numpy as np
    for one, other in zip(want.pieces(), have.pieces(), strict=True):
        word = np.uint64 if one.nbytes % 8 == 0 else np.uint8
        if not np.array_equal(np.frombuffer(one, word), np.frombuffer(other, word)):
            return False
    return True


def _blocks(want: Any, have: Any) -> Tolerance | None:
    """Where the second is stored in blocks of its own: the least signal-to-noise ratio that these have of weights as they come."""
    kind = getattr(have, "kind", None)
    if kind is None or kind == getattr(want, "kind", None):
        return None
    return Tolerance(least_snr=LEAST_SNR.get(kind.name, ROUGHEST), reason=f"stored as {kind.name}")


def read_back(wanted: Checkpoint, path: object) -> list[dict[str, Any]]:
    """One row a tensor: what stands in the file at `path` against what was to be written there."""
    found = tensors(Subject(path))
    return [_compared(name, wanted, found, None).to_json() for name in wanted]


def differences(one: Subject, other: Subject) -> float:
    """The greatest absolute difference between the weights of two files. Infinite where one is absent."""
    first, second = tensors(one), tensors(other)
    rows = [_compared(name, first, second, None) for name in first]
    return max((math.inf if row.max_abs is None else row.max_abs for row in rows), default=0.0)
