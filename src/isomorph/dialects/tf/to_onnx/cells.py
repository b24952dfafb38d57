"""TensorFlow -> ONNX: the fused cells of `tf.contrib.rnn` and of the kernels behind them (tensorflow/core/ops/rnn_ops.cc)."""
from __future__ import annotations

import numpy as np

from isomorph.dialects._lower import Builder
from isomorph.dialects.tf.to_onnx.operators import Value, number, to_onnx


@to_onnx("LSTMBlockCell")
def lstm_block_cell(op, x, c, h, w, wci, wcf, wco, b, *, forget_bias=1.0, cell_clip=3.0, use_peephole=0):
    """One step: gates are input, cell, forget, output in the columns of w. It hands out everything it computes."""
    gates = op.Add(op.MatMul(op.Concat(x, h, axis=1), w), b)
    i, new, f, o = op.Split(gates, axis=1, num_outputs=4, _outputs=4)
    if use_peephole:
        i, f = op.Add(i, op.Mul(c, wci)), op.Add(f, op.Mul(c, wcf))
    i, f, new = op.Sigmoid(i), op.Sigmoid(op.Add(f, number(f, forget_bias))), op.Tanh(new)
    following = _clipped(op, op.Add(op.Mul(new, i), op.Mul(c, f)), cell_clip)
    o = op.Sigmoid(op.Add(o, op.Mul(following, wco)) if use_peephole else o)
    squashed = op.Tanh(following)
    return i, following, f, o, new, squashed, op.Mul(squashed, o)


def _clipped(op: Builder, x: Value, limit: float) -> Value:
    return op.Clip(x, number(x, -limit), number(x, limit)) if limit > 0 else x


@to_onnx("GRUBlockCell")
def gru_block_cell(op, x, h, w_ru, w_c, b_ru, b_c):
    """One step: reset and update gate, then the candidate over the state that was reset."""
    gates = op.Sigmoid(op.Add(op.MatMul(op.Concat(x, h, axis=1), w_ru), b_ru))
    r, u = op.Split(gates, axis=1, num_outputs=2, _outputs=2)
    candidate = op.Tanh(op.Add(op.MatMul(op.Concat(x, op.Mul(r, h), axis=1), w_c), b_c))
    return r, u, candidate, op.Add(op.Mul(u, h), op.Mul(op.Sub(op.const(np.ones((), u.dtype.numpy())), u), candidate))
