"""aten -> ONNX: recurrent layers and cells."""
from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.dialects._lower import constant
from isomorph.dialects.torch.to_onnx.common import to_onnx
from isomorph.dialects.torch.to_onnx.layers import linear
from isomorph.dialects.torch.to_onnx.shapes import sections


@to_onnx("lstm_cell")
def lstm_cell(op, x, hidden, w_ih, w_hh, b_ih=None, b_hh=None):
    """Gates i, f, g, o side by side."""
    gates = op.Add(linear(op, x, w_ih, b_ih), linear(op, hidden[0], w_hh, b_hh))
    i, f, g, o = sections(op, gates, [w_ih.shape[0] // 4] * 4, 1)
    cell = op.Add(op.Mul(op.Sigmoid(f), hidden[1]), op.Mul(op.Sigmoid(i), op.Tanh(g)))
    return [op.Mul(op.Sigmoid(o), op.Tanh(cell)), cell]


@to_onnx("gru_cell")
def gru_cell(op, x, hidden, w_ih, w_hh, b_ih=None, b_hh=None):
    size = w_ih.shape[0] // 3
    r, z, n = sections(op, linear(op, x, w_ih, b_ih), [size] * 3, 1)
    hr, hz, hn = sections(op, linear(op, hidden, w_hh, b_hh), [size] * 3, 1)
    reset, update = op.Sigmoid(op.Add(r, hr)), op.Sigmoid(op.Add(z, hz))
    new = op.Tanh(op.Add(n, op.Mul(reset, hn)))
    return op.Add(new, op.Mul(update, op.Sub(hidden, new)))


def _recurrent(op: Any, target: str, order: list[int], x: Any, states: list[Any], params: list[Any], has_biases: bool, layers: int, bidirectional: bool,
               batch_first: bool, activation: str = "") -> tuple[Any, list[Any]]:
    """Layers one after the other; ONNX wants its own order of gates, directions first, and both biases in one."""
    directions = 2 if bidirectional else 1
    per = 4 if has_biases else 2
    if len(params) != layers * directions * per:
        op.reject("recurrent layers with projections")
    y = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
    finals: list[list[Any]] = [[] for _ in states]
    for layer in range(layers):
        rows = [params[(layer * directions + d) * per:(layer * directions + d + 1) * per] for d in range(directions)]
        arrays = [[constant(value) for value in row] for row in rows]
        if any(array is None for row in arrays for array in row):
            op.reject("recurrent weights that are computed")
        hidden = arrays[0][1].shape[1]

        def gates(array: np.ndarray, hidden: int = hidden) -> np.ndarray:
            parts = [array[place * hidden:(place + 1) * hidden] for place in range(len(order))]
            return np.concatenate([parts[place] for place in order])
        w, r = (np.stack([gates(row[place]) for row in arrays]) for place in (0, 1))
        b = np.stack([np.concatenate([gates(row[2]), gates(row[3])]) for row in arrays]) if has_biases else None
        initial = [op.Slice(state, [layer * directions], [(layer + 1) * directions], [0]) if layers > 1 else state for state in states]
        more: dict[str, Any] = {"linear_before_reset": 1} if target == "GRU" else {"activations": [activation] * directions} if activation else {}
        outputs = op.make(target, [y, op.const(w), op.const(r), None if b is None else op.const(b), None, *initial],
                          {"hidden_size": hidden, "direction": "bidirectional" if bidirectional else "forward", **more}, outputs=1 + len(states))
        y = op.Reshape(op.Transpose(outputs[0], perm=[0, 2, 1, 3]), [0, 0, directions * hidden])
        for final, output in zip(finals, outputs[1:], strict=True):
            final.append(output)
    joined = [final[0] if layers == 1 else op.Concat(*final, axis=0) for final in finals]
    return op.Transpose(y, perm=[1, 0, 2]) if batch_first else y, joined


@to_onnx("lstm")
def lstm(op, x, hidden, params, has_biases, num_layers, dropout, train, bidirectional, batch_first):
    y, states = _recurrent(op, "LSTM", [0, 3, 1, 2], x, list(hidden), list(params), has_biases, num_layers, bidirectional, batch_first)
    return [y, *states]


@to_onnx("gru")
def gru(op, x, hidden, params, has_biases, num_layers, dropout, train, bidirectional, batch_first):
    y, states = _recurrent(op, "GRU", [1, 0, 2], x, [hidden], list(params), has_biases, num_layers, bidirectional, batch_first)
    return [y, *states]


@to_onnx("rnn_tanh", "rnn_relu")
def rnn(op, x, hidden, params, has_biases, num_layers, dropout, train, bidirectional, batch_first):
    activation = "Tanh" if op.node.op_type == "rnn_tanh" else "Relu"
    y, states = _recurrent(op, "RNN", [0], x, [hidden], list(params), has_biases, num_layers, bidirectional, batch_first, activation)
    return [y, *states]
