"""TensorFlow Lite recurrent operators -> ONNX: the plain LSTM and RNN as ONNX has them, every other variant as a Scan over one step.

The rules return the operator's outputs, then the next values of its states in the order of `unfold.STATES`.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder
from isomorph.dialects._scan import scanned
from isomorph.dialects.tflite.to_onnx.common import activation, constant_value, permuted, to_onnx
from isomorph.tensors import lazily

Value = ir.Value
ONNX_ACTIVATION = {"TANH": "Tanh", "RELU": "Relu"}
RARELY = 10.0                       # the limit that Keras sets on the cells of every LSTM; each step changes a cell by less than one


def stacked(op: Builder, *parts: Value) -> Value:
    """Parts one below the other, with a leading axis for the direction: lazily where they are stored."""
    if all(constant_value(part) for part in parts):
        dims = (1, sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        return op.const(lazily(lambda *arrays: np.concatenate(arrays)[None], *(part.const_value for part in parts), dims=dims), name=parts[0].name)
    return op.Concat(*(led(op, part) for part in parts), axis=1)


def led(op: Builder, part: Value) -> Value:
    """A weight with a leading axis, under its DequantizeLinear where it has one, so that nothing moves data between that and the LSTM (see `settle`)."""
    node = part.producer()
    stored = node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" and constant_value(node.inputs[0]) else part
    if not constant_value(stored):
        return op.Unsqueeze(part, [0])
    lifted = op.const(lazily(lambda array: array[None], stored.const_value, dims=(1, *stored.const_value.shape)), name=stored.name)
    if stored is part or node is None:
        return lifted
    axis = node.attributes["axis"].value + 1 if "axis" in node.attributes else None
    return op.DequantizeLinear(lifted, *node.inputs[1:], axis=axis)


def clipped(op: Builder, x: Value, limit: float) -> Value:
    return op.Clip(x, -limit, limit) if limit > 0 else x


class Cell:
    """One direction of a TFLite LSTM: its inputs in the order of the kernels, gates input, forget, cell, output; an absent input gate is 1 - forget."""

    def __init__(self, op: Builder, inputs: Sequence[Value | None], norms: Sequence[Value | None] = (), *, function: str = "TANH", cell_clip: float = 0.0,
                 proj_clip: float = 0.0, auxiliary: Sequence[Value | None] = ()):
        self.op, self.function, self.cell_clip, self.proj_clip = op, function, cell_clip, proj_clip
        self.weights, self.recurrent, self.peepholes = inputs[0:4], inputs[4:8], (inputs[8], inputs[9], None, inputs[10])
        self.biases, self.projection, self.projection_bias = inputs[11:15], inputs[15], inputs[16]
        self.norms = list(norms) + [None] * (4 - len(norms))
        self.auxiliary = list(auxiliary) + [None] * (4 - len(auxiliary))
        if not self.plain:                      # turned once, outside the body of the Scan
            groups = (self.weights, self.recurrent, self.auxiliary, [self.projection])
            turned = ([w if w is None else permuted(op, w, (1, 0)) for w in group] for group in groups)
            self.weights, self.recurrent, self.auxiliary, (self.projection,) = turned

    @property
    def plain(self) -> bool:
        """Whether ONNX's LSTM is the same."""
        special = (self.projection, *self.norms, *self.auxiliary)
        limited = 0 < self.cell_clip < RARELY
        return self.weights[0] is not None and self.function in ONNX_ACTIVATION and not limited and not any(value is not None for value in special)

    def gate(self, number: int, x: Value, h: Value, c: Value | None, extra: Value | None) -> Value:
        """What goes into the activation of one gate."""
        op = self.op
        y = op.Add(op.MatMul(x, self.weights[number]), op.MatMul(h, self.recurrent[number]))
        if extra is not None and self.auxiliary[number] is not None:
            y = op.Add(y, op.MatMul(extra, self.auxiliary[number]))
        if c is not None and self.peepholes[number] is not None:
            y = op.Add(y, op.Mul(c, self.peepholes[number]))
        if self.norms[number] is not None:
            y = self.normalized(y, self.norms[number])
        return y if self.biases[number] is None else op.Add(y, self.biases[number])

    def normalized(self, y: Value, scale: Value) -> Value:
        """Mean 0 and variance 1 over the cells, times the coefficients."""
        op = self.op
        centred = op.Sub(y, op.ReduceMean(y, [-1]))
        deviation = op.Sqrt(op.Add(op.ReduceMean(op.Mul(centred, centred), [-1]), 1e-8))
        return op.Mul(op.Div(centred, deviation), scale)

    def once(self, x: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        """One step that stands in the graph itself."""
        if self.plain:
            self.weights, self.recurrent = ([permuted(self.op, w, (1, 0)) for w in group] for group in (self.weights, self.recurrent))
        return self.step(x, states)

    def step(self, x: Value, states: list[Value], extra: Value | None = None) -> tuple[Value, list[Value]]:
        op, (h, c) = self.op, states
        forget = op.Sigmoid(self.gate(1, x, h, c, extra))
        enter = op.Sub(1.0, forget) if self.weights[0] is None else op.Sigmoid(self.gate(0, x, h, c, extra))
        new = activation(op, self.gate(2, x, h, None, extra), self.function)
        c = clipped(op, op.Add(op.Mul(forget, c), op.Mul(enter, new)), self.cell_clip)
        y = op.Mul(op.Sigmoid(self.gate(3, x, h, c, extra)), activation(op, c, self.function))
        if self.projection is not None:
            y = op.MatMul(y, self.projection)
            y = clipped(op, y if self.projection_bias is None else op.Add(y, self.projection_bias), self.proj_clip)
        return y, [y, c]

    def run(self, x: Value, states: list[Value], *, time_major: bool, backwards: bool = False) -> tuple[Value, list[Value]]:
        if not self.plain:
            return scanned(self.op, x, states, self.step, axis=0 if time_major else 1, backwards=backwards)
        op = self.op
        if self.cell_clip:
            op.lose("tflite.clip", f"the limit of {self.cell_clip:g} on the cells is left out; no cell reaches it in fewer steps than that")
        order = (0, 3, 1, 2)                                            # ONNX: input, output, forget, cell
        cells = self.weights[0].shape[0]
        nothing = op.const(np.zeros(cells, np.float32))
        biases = stacked(op, *(self.biases[gate] or nothing for gate in order), *[nothing] * 4)
        peepholes = [self.peepholes[gate] for gate in (0, 3, 1)]
        p = stacked(op, *(value or nothing for value in peepholes)) if any(value is not None for value in peepholes) else None
        name = ONNX_ACTIVATION[self.function]
        h, c = (op.Unsqueeze(state, [0]) for state in states)
        y, h, c = op.LSTM(x if time_major else op.Transpose(x, perm=[1, 0, 2]), stacked(op, *(self.weights[gate] for gate in order)),
                          stacked(op, *(self.recurrent[gate] for gate in order)), biases, None, h, c, p, hidden_size=cells, activations=["Sigmoid", name, name],
                          direction="reverse" if backwards else "forward", _outputs=3)
        y = op.Squeeze(y, [1])
        return y if time_major else op.Transpose(y, perm=[1, 0, 2]), [op.Squeeze(h, [0]), op.Squeeze(c, [0])]


def filled(inputs: Sequence[Value | None], count: int) -> list[Value | None]:
    return [*inputs, *[None] * (count - len(inputs))]


@to_onnx("UNIDIRECTIONAL_SEQUENCE_LSTM")
def unidirectional_sequence_lstm(op, x, *inputs, time_major=0, fused_activation_function="NONE", cell_clip=0.0, proj_clip=0.0, asymmetric_quantize_inputs=0,
                                 diagonal_recurrent_tensors=0):
    if diagonal_recurrent_tensors:
        op.reject("diagonal recurrent weights")
    rest = filled(inputs, 23)
    cell = Cell(op, rest[:17], rest[19:23], function=fused_activation_function, cell_clip=cell_clip, proj_clip=proj_clip)
    y, states = cell.run(x, [rest[17], rest[18]], time_major=bool(time_major))
    return y, *states


@to_onnx("LSTM")
def lstm(op, x, *inputs, fused_activation_function="NONE", cell_clip=0.0, proj_clip=0.0, kernel_type="FULL", asymmetric_quantize_inputs=0):
    """One step. The basic kernel has one matrix for all gates and returns its states, and its scratch values, as outputs."""
    if kernel_type == "BASIC":
        h, w, b, c = inputs
        joined = op.Concat(x, h, axis=1)
        gates = op.Gemm(joined, w, b, transB=1)
        enter, new, forget, out = op.Split(gates, axis=1, num_outputs=4, _outputs=4)
        c = op.Add(op.Mul(op.Sigmoid(enter), op.Tanh(new)), op.Mul(op.Sigmoid(forget), c))
        return op.Mul(op.Sigmoid(out), op.Tanh(c)), c, joined, gates
    rest = filled(inputs, 23)
    cell = Cell(op, rest[:17], rest[19:23], function=fused_activation_function, cell_clip=cell_clip, proj_clip=proj_clip)
    y, states = cell.once(x, [rest[17], rest[18]])
    return op.Identity(y), *states


@to_onnx("BIDIRECTIONAL_SEQUENCE_LSTM")
def bidirectional_sequence_lstm(op, x, *inputs, merge_outputs=0, time_major=1, fused_activation_function="NONE", cell_clip=0.0, proj_clip=0.0,
                                asymmetric_quantize_inputs=0):
    """Two directions; the auxiliary input, where there is one, is the backward direction's or goes into both."""
    rest = filled(inputs, 47)
    extra, weights = rest[38], rest[39:47]
    if extra is not None and any(weight is not None for weight in weights):
        op.reject("an auxiliary input with weights of its own")
    options = dict(function=fused_activation_function, cell_clip=cell_clip, proj_clip=proj_clip)
    forward, forward_states = Cell(op, rest[:17], **options).run(x, rest[34:36], time_major=bool(time_major))
    backward, backward_states = Cell(op, rest[17:34], **options).run(x if extra is None else extra, rest[36:38], time_major=bool(time_major), backwards=True)
    outputs = [op.Concat(forward, backward, axis=2)] if merge_outputs else [forward, backward]
    return *outputs, *forward_states, *backward_states


def rnn_run(op: Builder, x: Value, w: Value, r: Value, b: Value | None, h: Value, function: str, *, time_major: bool,
            backwards: bool = False) -> tuple[Value, Value]:
    if function not in ONNX_ACTIVATION:
        turned, turned_r = permuted(op, w, (1, 0)), permuted(op, r, (1, 0))

        def step(part: Value, states: list[Value]) -> tuple[Value, list[Value]]:
            y = op.Add(op.MatMul(part, turned), op.MatMul(states[0], turned_r))
            y = activation(op, y if b is None else op.Add(y, b), function)
            return y, [y]
        y, (last,) = scanned(op, x, [h], step, axis=0 if time_major else 1, backwards=backwards)
        return y, last
    units = w.shape[0]
    nothing = op.const(np.zeros(units, np.float32))
    y, last = op.RNN(x if time_major else op.Transpose(x, perm=[1, 0, 2]), stacked(op, w), stacked(op, r), stacked(op, b or nothing, nothing), None,
                     op.Unsqueeze(h, [0]), hidden_size=units, activations=[ONNX_ACTIVATION[function]], direction="reverse" if backwards else "forward",
                     _outputs=2)
    y = op.Squeeze(y, [1])
    return y if time_major else op.Transpose(y, perm=[1, 0, 2]), op.Squeeze(last, [0])


@to_onnx("RNN")
def rnn(op, x, w, r, b, h, *, fused_activation_function="NONE", asymmetric_quantize_inputs=0):
    y = activation(op, op.Add(op.Gemm(x, w, b, transB=1), op.Gemm(h, r, transB=1)), fused_activation_function)
    return op.Identity(y), y


@to_onnx("UNIDIRECTIONAL_SEQUENCE_RNN")
def unidirectional_sequence_rnn(op, x, w, r, b, h, *, time_major=0, fused_activation_function="NONE", asymmetric_quantize_inputs=0):
    return rnn_run(op, x, w, r, b, h, fused_activation_function, time_major=bool(time_major))


@to_onnx("BIDIRECTIONAL_SEQUENCE_RNN")
def bidirectional_sequence_rnn(op, x, fw, fr, fb, fh, bw, br, bb, bh, extra=None, forward_extra=None, backward_extra=None, *, time_major=0, merge_outputs=0,
                               fused_activation_function="NONE", asymmetric_quantize_inputs=0):
    if extra is not None and (forward_extra is not None or backward_extra is not None):
        op.reject("an auxiliary input with weights of its own")
    forward, forward_last = rnn_run(op, x, fw, fr, fb, fh, fused_activation_function, time_major=bool(time_major))
    backward, backward_last = rnn_run(op, x if extra is None else extra, bw, br, bb, bh, fused_activation_function, time_major=bool(time_major), backwards=True)
    outputs: list[Any] = [op.Concat(forward, backward, axis=2)] if merge_outputs else [forward, backward]
    return *outputs, forward_last, backward_last


@to_onnx("SVDF")
def svdf(op, x, feature, time, b, state, *, rank, fused_activation_function="NONE", asymmetric_quantize_inputs=0):
    """Each filter keeps the last products with its feature weights; the sum of these, weighed by time, over `rank` filters is a unit."""
    filters, memory = op.static(time)
    newest = op.Gemm(x, feature, transB=1)
    kept = op.Reshape(state, [-1, filters, memory])
    kept = op.Concat(op.Slice(kept, [1], [memory], [2]), op.Unsqueeze(newest, [2]), axis=2)
    weighed = op.ReduceSum(op.Mul(kept, time), [2], keepdims=0)
    y = op.ReduceSum(op.Reshape(weighed, [-1, filters // rank, rank]), [2], keepdims=0)
    return activation(op, y if b is None else op.Add(y, b), fused_activation_function), op.Reshape(kept, [-1, filters * memory])
