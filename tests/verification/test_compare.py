"""Comparison of results: each property that a comparison must see, shown by results that differ in just that."""
from __future__ import annotations

import json
import math

import numpy as np
import pytest

from isomorph.verification.compare import Tolerance, compare

A = np.linspace(-1, 1, 2001, dtype=np.float32)


def test_equal_results():
    comparison = compare("y", A, A.copy(), Tolerance(), runtime="R", proof="native")
    assert comparison.passed
    assert (comparison.max_abs, comparison.max_rel, comparison.range, comparison.snr_db) == (0, 0, 2, math.inf)
    assert comparison.to_json()["snr_db"] is None
    assert (comparison.runtime, comparison.proof) == ("R", "native")
    json.dumps(comparison.to_json(), allow_nan=False)


@pytest.mark.parametrize(("tolerance", "passed"), [
    (Tolerance(), False), (Tolerance(share=1e-4), True), (Tolerance(share=1e-6), False),
    (Tolerance(absolute=2e-4), True), (Tolerance(absolute=1e-6), False), (Tolerance(relative=1e-4), False),
])
def test_the_bound_decides(tolerance, passed):
    b = A + np.float32(1e-4)
    comparison = compare("y", A, b, tolerance)
    assert comparison.passed is passed
    assert comparison.max_abs == pytest.approx(1e-4, rel=1e-2)
    assert comparison.snr_db == pytest.approx(75.2, abs=0.2)
    assert ("differ" in comparison.reason) is not comparison.passed


def test_a_relative_bound_follows_the_reference():
    assert compare("y", A, A * np.float32(1.0001), Tolerance(relative=2e-4)).passed
    assert not compare("y", A, A * np.float32(1.001), Tolerance(relative=2e-4)).passed


@pytest.mark.parametrize("where", [np.nan, np.inf, -np.inf])
def test_strays_must_stand_in_the_same_places(where):
    a, b = A.copy(), A.copy()
    a[7] = where
    assert compare("y", a, a.copy(), Tolerance()).passed
    assert "NaN or infinite" in compare("y", a, b, Tolerance(share=1)).reason
    b[8] = where
    assert "2 of 2,001" in compare("y", a, b, Tolerance(share=1)).reason


def test_opposite_infinities_differ():
    a, b = np.array([np.inf, 1.0]), np.array([-np.inf, 1.0])
    assert not compare("y", a, b, Tolerance(share=1)).passed


def test_shapes_and_kinds_are_named():
    assert "shape is [2001, 1]" in compare("y", A, A[:, None], Tolerance(share=1)).reason
    assert "type is object" in compare("y", A, A.astype(object), Tolerance(share=1)).reason


def test_top1_counts_rows_and_forgives_ties():
    a = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], np.float32)
    b = np.array([[0, 1], [0, 1], [1, 1], [1, 0]], np.float32)
    assert compare("y", a, b, Tolerance(share=2)).top1 == 0.75


def test_quantised_results_are_judged_in_quanta():
    a = np.arange(4000).reshape(4, 1000) % 256
    off = a.copy()
    off[0, :4] += 5
    assert compare("y", a, a + 1, Tolerance(quantum=1.0)).passed
    assert compare("y", a, off, Tolerance(quantum=1.0)).passed                     # 99.9 % are right
    off[0, 4:9] += 5
    comparison = compare("y", a, off, Tolerance(quantum=1.0))
    assert not comparison.passed
    assert comparison.to_json()["max_quanta"] == 5
    assert comparison.to_json()["within_one_quantum"] == pytest.approx(1 - 9 / 4000)


def test_whole_numbers_are_exact_unless_a_share_may_differ():
    a = np.arange(10_000)
    b = a.copy()
    b[3] = 77
    assert not compare("y", a, b, Tolerance()).passed
    assert compare("y", a, b, Tolerance(discrete=1e-3)).passed
    assert not compare("y", a[:100], b[:100], Tolerance(discrete=1e-3)).passed


def test_text_truth_and_sequences():
    a = np.array(["x", "y"], object)
    assert compare("y", a, a.copy(), Tolerance()).passed
    assert "1 of 2 elements" in compare("y", a, a[::-1][[0, 0]], Tolerance()).reason
    assert not compare("y", np.array([True, False]), np.array([True, True]), Tolerance()).passed
    assert compare("y", [A, {1: A}], [A, {1: A}], Tolerance()).passed
    assert "2 parts instead of 1" in compare("y", [A], [A, A], Tolerance()).reason
    assert not compare("y", [A, A], [A, A + 1], Tolerance()).passed


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_nothing(shape):
    array = np.zeros(shape, np.float32)
    assert compare("y", array, array, Tolerance()).passed


def test_low_precision_types_are_compared_as_numbers():
    import ml_dtypes
    a = np.arange(8).astype(ml_dtypes.bfloat16)
    assert compare("y", a, a.astype(np.float32), Tolerance()).max_abs == 0
