"""ONNX -> isomorph -> ONNX over every node test that the onnx package generates, at the hub's opset and downgraded: equal results or a stated reason."""
from __future__ import annotations

import collections
import functools
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest

from isomorph.artifact import Artifact
from isomorph.errors import Unsupported
from isomorph.formats import onnx as onnx_format

RTOL, ATOL = 1e-3, 1e-5          # the tolerance of the issue: relative, and absolute in units of the output's scale
# opset -> (cases that must give the expected arrays in ONNX Runtime, cases that may be refused). The rest are operators that ONNX Runtime lacks.
BARS = {26: (1510, 1), 21: (1515, 75), 17: (1305, 412), 13: (1230, 493)}
# Cases whose source ONNX Runtime runs and whose result it does not: its kernel for Swish is inlined only at the opset that brought it.
RUNTIME_LACKS = {"test_swish"}


@functools.cache
def cases():
    from onnx.backend.test.case.node import collect_testcases
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return collect_testcases(None)


def matches(found, expected) -> bool:
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(matches, found, expected))
    if expected is None:
        return found is None
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind in "OSU":
        return bool((found.astype(str) == expected.astype(str)).all())
    if found.dtype != expected.dtype:
        return False
    if expected.dtype.kind not in "biufc":
        found, expected = found.astype(np.float32), expected.astype(np.float32)
    finite = expected[np.isfinite(expected)] if expected.dtype.kind in "fc" else np.zeros(0)
    return np.allclose(found, expected, rtol=RTOL, atol=ATOL * max(1.0, float(np.abs(finite).max(initial=0))), equal_nan=True)


def passes(data: bytes, case) -> bool:
    """Whether ONNX Runtime gives the expected arrays for every data set of a case; False also where it cannot load the model."""
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        return all(matches(session.run(None, {given.name: array for given, array in zip(session.get_inputs(), inputs, strict=False)}), list(outputs))
                   for inputs, outputs in case.data_sets)
    except Exception:
        return False


@pytest.mark.parametrize("opset", BARS)
def test_node_cases_keep_their_results(opset, tmp_path):
    onnxruntime.set_default_logger_severity(4)
    path = tmp_path / "case.onnx"
    outcome = collections.defaultdict(list)
    for case in cases():
        source = case.model.SerializeToString()
        try:
            onnx_format.write(onnx_format.read(Artifact.open(source)), path, opset=opset, force=True)
        except Unsupported as refusal:
            outcome["refused" if all(reason for _, _, reason in refusal.blockers) and refusal.blockers else "refused without a reason"].append(case.name)
            continue
        data = path.read_bytes()
        onnx.checker.check_model(data)
        outcome["passed" if passes(data, case) else "lost" if passes(source, case) else "neither"].append(case.name)
    least, most = BARS[opset]
    assert set(outcome["lost"]) <= RUNTIME_LACKS
    assert not outcome["refused without a reason"]
    assert len(outcome["passed"]) >= least
    assert len(outcome["refused"]) <= most
