"""Boxes of detectors: which of those that overlap stay."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, constant
from isomorph.dialects._scan import scanned
from isomorph.dialects.tf.to_onnx.operators import FLOAT, INT64, Value, to_onnx
from isomorph.dialects.tflite.to_onnx.common import vector

NOTHING = float("-inf")             # the score of a box that is taken already


def suppressed(op: Builder, boxes: Value, scores: Value, most: Value, overlap: Value, least: Value | None) -> Value:
    """Indices of the boxes that stay."""
    arguments = [op.Unsqueeze(boxes, [0]), op.Unsqueeze(scores, [0, 1]), vector(op, most), op.Reshape(overlap, [1])]
    chosen = op.NonMaxSuppression(*arguments, *([] if least is None else [op.Reshape(least, [1])]))
    return op.Squeeze(op.Slice(chosen, [2], [3], [1]), [1])


@to_onnx("NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3")
def non_max_suppression(op, boxes, scores, most, overlap=None, least=None, *, iou_threshold=0.5):
    return suppressed(op, boxes, scores, most, op.const(np.float32(iou_threshold)) if overlap is None else overlap, least)


@to_onnx("NonMaxSuppressionV4")
def non_max_suppression_v4(op, boxes, scores, most, overlap, least, *, pad_to_max_output_size=0):
    index = suppressed(op, boxes, scores, most, overlap, least)
    count = op.Shape(index)
    padded = op.Pad(index, op.Concat(op.const([0]), op.Sub(vector(op, most), count), axis=0)) if pad_to_max_output_size else index
    return padded, op.Squeeze(count, [0])


@to_onnx("NonMaxSuppressionV5")
def non_max_suppression_v5(op, boxes, scores, most, overlap, least, sigma: ir.Value, *, pad_to_max_output_size=0, hard=0):
    known = constant(sigma)
    if known is None:
        op.reject("whether suppression is soft is decided at run time")
    if known.any():
        index, kept = softly_suppressed(op, boxes, scores, most, overlap if hard else None, least, float(known.reshape(-1)[0]))
    else:
        index = suppressed(op, boxes, scores, most, overlap, least)
        kept = op.Gather(scores, index, axis=0)
    count = op.Shape(index)
    if pad_to_max_output_size:
        pads = op.Concat(op.const([0]), op.Sub(vector(op, most), count), axis=0)
        index, kept = op.Pad(index, pads), op.Pad(kept, pads)
    return index, kept, op.Squeeze(count, [0])


def softly_suppressed(op: Builder, boxes: Value, scores: Value, most: Value, overlap: Value | None, least: Value, sigma: float) -> tuple[Value, Value]:
    """Indices of the boxes that stay, and the scores that are left of them.

    Every round takes the best box and lessens the others' scores by exp(-overlap^2 / (2 sigma)). TensorFlow keeps a queue and lessens scores when they come
    to its head, which takes the same boxes, and does not look at the greatest overlap; TensorFlow.js (`overlap`) leaves out what reaches it.
    Rounds in which nothing is left above the least score are cut off.
    """
    low, high = op.Min(*_corners(op, boxes)), op.Max(*_corners(op, boxes))                        # [boxes, 2] each, whichever corners are given
    area = op.ReduceProd(op.Sub(high, low), [1], keepdims=0)
    places = op.Range(op.const(np.int64(0)), op.Squeeze(op.Shape(scores), [0]), op.const(np.int64(1)))
    rounds = op.Expand(op.const(np.zeros(1, np.float32)), vector(op, most))

    def step(_: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        (left,) = states
        best = op.ArgMax(left, axis=0, keepdims=1)
        inside = op.Max(op.Sub(op.Min(high, op.Gather(high, best, axis=0)), op.Max(low, op.Gather(low, best, axis=0))), op.const(np.float32(0)))
        common = op.ReduceProd(inside, [1], keepdims=0)
        own = op.Gather(area, best, axis=0)
        real = op.And(op.Greater(area, op.const(np.float32(0))), op.Greater(own, op.const(np.float32(0))))
        union = op.Where(real, op.Sub(op.Add(area, own), common), op.const(np.float32(1)))
        share = op.Where(real, op.Div(common, union), op.const(np.float32(0)))
        weight = op.Exp(op.Mul(op.Mul(share, share), op.const(np.float32(-0.5 / sigma))))
        weight = weight if overlap is None else op.Where(op.Less(share, op.Reshape(overlap, [1])), weight, op.const(np.float32(0)))
        taken = op.Or(op.Equal(places, best), op.Equal(left, op.const(np.float32(NOTHING))))
        following = op.Where(taken, op.const(np.float32(NOTHING)), op.Mul(left, weight))
        return op.Concat(op.Cast(best, to=FLOAT), op.Gather(left, best, axis=0), axis=0), [following]

    start = op.Where(op.Greater(scores, op.Reshape(least, [1])), scores, op.const(np.float32(NOTHING)))
    taken, _ = scanned(op, rounds, [start], step, axis=0)                                         # [rounds, 2]: a place, exact as float, and its score
    place, score = op.Split(taken, axis=1, num_outputs=2, _outputs=2)
    good = op.Greater(op.Reshape(score, [-1]), op.Reshape(least, [1]))
    return op.Cast(op.Compress(op.Reshape(place, [-1]), good, axis=0), to=INT64), op.Compress(op.Reshape(score, [-1]), good, axis=0)


def _corners(op: Builder, boxes: Value) -> tuple[Value, Value]:
    return op.Split(boxes, axis=1, num_outputs=2, _outputs=2)
