"""Operators that choose: suppression of boxes and distinct elements, which aten lacks or gives without what ONNX wants to know."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._forms.common import common
from isomorph.dialects._lower import Builder, Float, Int, Mapping
from isomorph.passes.decompose import interval, shape_of

selection = Mapping()
for _key in (("ai.onnx.ml", "Binarizer"), ("ai.onnx.ml", "ArrayFeatureExtractor"), ("", "TensorScatter")):
    selection.rules[_key] = common.rules[_key]
INT64, BOOL = ir.DataType.INT64, ir.DataType.BOOL


@selection("NonMaxSuppression")
def non_max_suppression(op, boxes, scores, count: Int | None = None, iou: Float | None = None, threshold: Float | None = None, *, center_point_box=0):
    """Rounds in which every batch and class takes the best of its boxes that are left, and loses those that overlap with it; over when nobody has one."""
    _, (batches, classes, total) = op.of(scores)
    most = min(count or 0, total if isinstance(total, int) else count or 0)
    if not most:
        return op.const(np.zeros((0, 3), np.int64))
    least = op.const(-np.inf, like=scores.dtype)
    live = scores if threshold is None else op.Where(op.Greater(scores, op.const(threshold, like=scores.dtype)), scores, least)
    low, high = _corners(op, boxes, center_point_box)
    none = op.Sub(op.Mul(op.Unsqueeze(op.ArgMax(scores, axis=2, keepdims=0), [2]), np.int64(0)), op.const(np.ones(most, np.int64)))
    state = [live, none]
    given = [ir.Value(name=op.context.unique(name), type=ir.TensorType(kind), shape=ir.Shape(shape)) for name, kind, shape in (
        ("round", INT64, []), ("go", BOOL, []), ("live", scores.dtype, scores.shape), ("chosen", INT64, [batches, classes, most]))]
    with op.body() as nodes:
        results = _round(op, given[0], given[2], given[3], low, high, least, float(iou or 0.0))
    body = ir.Graph(given, results, nodes=nodes, name="suppression", opset_imports={"": 26})
    _, chosen = op.make("Loop", [op.const(np.int64(most)), op.const(np.bool_(True)), *state], {"body": body}, outputs=2, dtype=INT64,
                        shape=[batches, classes, most])
    places = op.Transpose(op.NonZero(op.GreaterOrEqual(chosen, op.const(np.int64(0)))), perm=[1, 0])
    return op.Concat(interval(op, places, 1, 0, 2), op.Unsqueeze(op.GatherND(chosen, places), [1]), axis=1)


def _round(op: Builder, number: ir.Value, live: ir.Value, chosen: ir.Value, low: ir.Value, high: ir.Value, least: ir.Value, iou: float) -> list[ir.Value]:
    """[go on, scores that are left, choices with those of this round]."""
    best = op.ArgMax(live, axis=2, keepdims=0)
    there = op.Greater(op.ReduceMax(live, [2], keepdims=0), least)
    mine = op.Unsqueeze(op.Where(there, best, op.const(np.int64(-1))), [2])
    order = op.const(np.arange(op.of(chosen)[1][2]))
    following = op.Where(op.Equal(order, number), mine, chosen)
    one = op.Unsqueeze(best, [2])
    corners = [op.Unsqueeze(op.GatherND(corner, one, batch_dims=1), [2]) for corner in (low, high)]
    others = [op.Unsqueeze(corner, [1]) for corner in (low, high)]
    shared = op.Max(op.Sub(op.Min(corners[1], others[1]), op.Max(corners[0], others[0])), op.const(0.0, like=low.dtype))
    common_area = _area(op, shared)
    whole = op.Sub(op.Add(_area(op, op.Sub(corners[1], corners[0])), _area(op, op.Sub(others[1], others[0]))), common_area)
    positions = op.Range(np.int64(0), op.Squeeze(shape_of(op, live, 2), [0]), np.int64(1))
    gone = op.Or(op.Greater(op.Div(common_area, whole), op.const(iou, like=low.dtype)), op.Equal(positions, one))
    return [op.Cast(op.ReduceMax(op.Cast(there, to=int(INT64)), keepdims=0), to=int(BOOL)), op.Where(gone, least, live), following]


def _corners(op: Builder, boxes: ir.Value, centred: int) -> tuple[ir.Value, ir.Value]:
    """The lower and the upper corner of every box, [batch, box, 2]; two corners may be given either way around."""
    first, second = (interval(op, boxes, 2, start, start + 2) for start in (0, 2))
    if centred:
        half = op.Div(second, op.const(2.0, like=boxes.dtype))
        return op.Sub(first, half), op.Add(first, half)
    return op.Min(first, second), op.Max(first, second)


def _area(op: Builder, sides: ir.Value) -> ir.Value:
    return op.ReduceProd(sides, [-1], keepdims=0)


@selection("Unique")
def unique(op, x, *, axis=None, sorted=1):
    """aten's distinct elements are in order; which of the equal ones came first is the least of their places, and the order of appearance follows from it."""
    data, along = (op.Reshape(x, [-1]), 0) if axis is None else (x, axis % op.of(x)[0])
    shape: list[Any] = [None if place == along else size for place, size in enumerate(op.of(data)[1])]
    y, places, counts = op.SortedDistinct(data, axis=along, _outputs=3, _dtype=x.dtype, _shape=shape)
    size = shape_of(op, data, along)
    for value, length in ((places, op.of(data)[1][along]), (counts, None)):
        value.dtype, value.shape = INT64, ir.Shape([length])
    places.meta["positive"] = True
    number = op.Squeeze(size, [0])
    first = op.ScatterElements(op.Add(op.Mul(counts, np.int64(0)), size), places, op.Range(np.int64(0), number, np.int64(1)), axis=0, reduction="min")
    if sorted:
        return [y, first, places, counts][:len(op.outputs)]
    distinct = shape_of(op, counts)
    appeared, order = op.TopK(first, distinct, largest=0, _outputs=2)
    order.meta["positive"] = True
    ranks = op.ScatterElements(op.Mul(order, np.int64(0)), order, op.Range(np.int64(0), op.Squeeze(distinct, [0]), np.int64(1)), axis=0)
    return [op.Gather(y, order, axis=along), appeared, op.Gather(ranks, places), op.Gather(counts, order)][:len(op.outputs)]
