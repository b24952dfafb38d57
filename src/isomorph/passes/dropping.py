"""Dropout as TensorFlow 1 wrote it out, put together again, and Dropout in training as simpler operators.

`tf.nn.dropout(x, keep_prob)` became `x / keep_prob * floor(keep_prob + random)`, with random numbers from 0 up to 1. As ONNX's Dropout, whose ratio is a
scalar by definition, the graph has the rank that the network's author saw, also where the file tells nothing of the placeholder for the probability.
"""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping
from isomorph.passes.fuse import made_by
from isomorph.passes.tidy import scalar

dropping = Mapping()


@dropping("Mul")
def dropout(op, a, b):
    for quotient, mask in ((a, b), (b, a)):
        division, kept = made_by(quotient, "Div"), _kept(mask)
        if division is None or kept is None or division.inputs[1] is not kept:
            continue
        if kept.shape is None and kept.is_graph_input():
            kept.shape = ir.Shape(())
            op.lose("tf.dropout", f"the input {kept.name!r} is the share of values that dropout keeps, and so a scalar")
        if kept.shape is not None and len(kept.shape) == 0:
            return op.Dropout(division.inputs[0], op.Sub(op.const(np.ones((), kept.dtype.numpy())), kept), op.const(np.bool_(True)))
    return NotImplemented


def _kept(mask: ir.Value) -> ir.Value | None:
    """p of floor(p + random numbers of [0, 1))"""
    floor = made_by(mask, "Floor")
    total = made_by(floor.inputs[0], "Add") if floor is not None else None
    if total is None:
        return None
    return next((p for p, drawn in (total.inputs, total.inputs[::-1]) if _is_uniform(drawn)), None)


def _is_uniform(value: ir.Value | None) -> bool:
    """Random numbers of [0, 1), also with the factor 1 and the offset 0 that TensorFlow writes behind them."""
    node = made_by(value, "Add", "Mul", "RandomUniformLike")
    if node is None:
        return False
    if node.op_type == "RandomUniformLike":
        return (node.attributes.get_float("low", 0.0), node.attributes.get_float("high", 1.0)) == (0.0, 1.0)
    neutral = 0.0 if node.op_type == "Add" else 1.0
    return any(scalar(number) == neutral and _is_uniform(other) for other, number in (node.inputs, node.inputs[::-1]))


def dropped_at_random(op: Builder, x: ir.Value, ratio: ir.Value | None) -> tuple[ir.Value, ...]:
    """What Dropout does in training: x without the share `ratio` of its values, the others larger by as much; and the mask, where it is asked for."""
    share = op.const(np.float32(0.5)) if ratio is None else op.Cast(ratio, to=1)
    mask = op.GreaterOrEqual(op.RandomUniformLike(x, dtype=1), share)
    scale = op.Cast(op.Sub(op.const(np.float32(1)), share), to=int(x.dtype))                   # type: ignore[arg-type]
    return (op.Where(mask, op.Div(x, scale), op.const(np.zeros((), x.dtype.numpy()))), mask)[:len(op.outputs)]     # type: ignore[union-attr]
