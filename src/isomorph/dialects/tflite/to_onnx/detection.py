"""Boxes without those that overlap a better one, and the custom operator TFLite_Detection_PostProcess (`tflite/kernels/detection_postprocess.cc`)."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Float
from isomorph.dialects.tflite.to_onnx.common import INT32, INT64, to_onnx, vector


def corners(op: Builder, boxes: ir.Value, anchors: ir.Value, scales: tuple[float, ...]) -> ir.Value:
    """Centres and sizes relative to anchors -> [boxes, (top, left, bottom, right)]."""
    def columns(x: ir.Value, begin: int) -> ir.Value:
        return op.Slice(x, [begin], [begin + 2], [1])
    y_scale, x_scale, h_scale, w_scale = scales
    centre = op.Add(op.Mul(op.Div(columns(boxes, 0), op.const(np.array([y_scale, x_scale], np.float32))), columns(anchors, 2)), columns(anchors, 0))
    half = op.Mul(op.Mul(op.Exp(op.Div(columns(boxes, 2), op.const(np.array([h_scale, w_scale], np.float32)))), columns(anchors, 2)), 0.5)
    return op.Concat(op.Sub(centre, half), op.Add(centre, half), axis=1)


def filled(op: Builder, x: ir.Value, count: int, rank: int) -> ir.Value:
    """[found, ...] -> [1, count, ...], zeros behind what was found."""
    rest = [0] * (rank - 1)
    missing = op.Sub(op.const([count]), op.Shape(x, start=0, end=1))
    return op.Unsqueeze(op.Pad(x, op.Concat(op.const([0, *rest]), missing, *([op.const(rest)] if rest else []), axis=0)), [0])


@to_onnx("tflite.custom::TFLite_Detection_PostProcess")
def detection_post_process(op, boxes, scores, anchors, *, max_detections, max_classes_per_detection, num_classes, nms_score_threshold, nms_iou_threshold,
                           y_scale, x_scale, h_scale, w_scale, detections_per_class=100, use_regular_nms=0, custom_options=b"", **rest):
    """Boxes, classes, scores and number of detections. Its kernel keeps a score equal to the threshold, ONNX one above it."""
    decoded = corners(op, op.Squeeze(boxes, [0]), anchors, (y_scale, x_scale, h_scale, w_scale))
    per_box = op.Slice(op.Squeeze(scores, [0]), [-num_classes], [np.iinfo(np.int64).max], [1])                    # without the background
    least = op.const(np.nextafter(np.array([nms_score_threshold], np.float32), np.float32(-np.inf)))
    overlap, count = op.const(np.array([nms_iou_threshold], np.float32)), max_detections * max_classes_per_detection
    if use_regular_nms:
        found, classes, values = regular(op, decoded, per_box, max_detections, detections_per_class, overlap, least)
        number = op.Shape(values)
    else:
        found, classes, values, number = fast(op, decoded, per_box, max_detections, min(max_classes_per_detection, num_classes), overlap, least)
    return filled(op, found, count, 2), filled(op, op.Cast(classes, to=1), count, 1), filled(op, values, count, 1), op.Cast(number, to=1)


def fast(op: Builder, boxes: ir.Value, scores: ir.Value, most: int, kinds: int, overlap: ir.Value, least: ir.Value) -> tuple[ir.Value, ...]:
    """Suppression by the best score of each box, then the best classes of each that stays."""
    best = op.ReduceMax(scores, [1], keepdims=0)
    chosen = op.NonMaxSuppression(op.Unsqueeze(boxes, [0]), op.Unsqueeze(best, [0, 1]), op.const([most]), overlap, least)
    index = op.Squeeze(op.Slice(chosen, [2], [3], [1]), [1])
    values, classes = op.TopK(op.Gather(scores, index, axis=0), op.const([kinds]), _outputs=2)
    repeated = op.Reshape(op.Tile(op.Unsqueeze(op.Gather(boxes, index, axis=0), [1]), op.const([1, kinds, 1])), [-1, 4])
    return repeated, op.Reshape(classes, [-1]), op.Reshape(values, [-1]), op.Shape(index)


def regular(op: Builder, boxes: ir.Value, scores: ir.Value, most: int, per_class: int, overlap: ir.Value, least: ir.Value) -> tuple[ir.Value, ...]:
    """Suppression in each class, then the best of all."""
    by_class = op.Unsqueeze(op.Transpose(scores, perm=[1, 0]), [0])
    chosen = op.NonMaxSuppression(op.Unsqueeze(boxes, [0]), by_class, op.const([min(per_class, most)]), overlap, least)
    kinds, index = (op.Slice(chosen, [place], [place + 1], [1]) for place in (1, 2))
    values = op.GatherND(scores, op.Concat(index, kinds, axis=1))
    kept = op.Min(op.Shape(values), op.const([most]), _dtype=INT64, _shape=[1])
    values, order = op.TopK(values, kept, axis=0, _outputs=2)
    pick = [op.Gather(op.Squeeze(part, [1]), order, axis=0) for part in (index, kinds)]
    return op.Gather(boxes, pick[0], axis=0), pick[1], values


# ---- suppression

def suppressed(op: Builder, boxes: ir.Value, scores: ir.Value, most: ir.Value, overlap: ir.Value, least: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Indices of the boxes that stay, [most], zeros behind them; how many they are, a vector of one; and `most` as such a vector."""
    limit = vector(op, most)
    chosen = op.NonMaxSuppression(op.Unsqueeze(boxes, [0]), op.Unsqueeze(scores, [0, 1]), limit, op.Reshape(overlap, [1]), op.Reshape(least, [1]))
    index = op.Squeeze(op.Slice(chosen, [2], [3], [1]), [1])
    count = op.Shape(index)
    return op.Pad(index, op.Concat(op.const([0]), op.Sub(limit, count), axis=0)), count, limit


@to_onnx("NON_MAX_SUPPRESSION_V4")
def non_max_suppression_v4(op, boxes, scores, most, overlap, least):
    index, count, _ = suppressed(op, boxes, scores, most, overlap, least)
    return op.Cast(index, to=INT32), op.Cast(op.Squeeze(count, [0]), to=INT32)


@to_onnx("NON_MAX_SUPPRESSION_V5")
def non_max_suppression_v5(op, boxes, scores, most, overlap, least, sigma: Float):
    """Without soft suppression; the scores behind the last box are zero."""
    if sigma:
        op.reject("soft suppression (a sigma that is not 0) has no equivalent")
    index, count, limit = suppressed(op, boxes, scores, most, overlap, least)
    inside = op.Less(op.Range(op.const(np.int64(0)), op.Squeeze(limit, [0]), op.const(np.int64(1))), count)
    kept = op.Where(inside, op.Gather(scores, index, axis=0), op.const(np.float32(0)))
    return op.Cast(index, to=INT32), kept, op.Cast(op.Squeeze(count, [0]), to=INT32)
