"""LSTMs that stand between integers, with states that are kept from run to run, become the integer kernel of UNIDIRECTIONAL_SEQUENCE_LSTM again.

That kernel has its states as variables, the hidden one in 8 bits and the cells in 16 bits of a power of two, so a model has to come with both: as an
input with a default and an output of the same name with `NEXT` behind it, which is how a TensorFlow Lite file with variables is read.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.dialects.tflite.from_onnx.operators import from_onnx
from isomorph.dialects.tflite.from_onnx.quantized import parameters
from isomorph.model import NEXT, Quantization
from isomorph.tensors import array_tensor, lazily

T = ir.DataType
MOVES = {"Reshape", "Squeeze", "Unsqueeze", "Identity"}
GATES = (0, 2, 3, 1)                        # of ONNX (input, output, forget, cell) in the kernel's order (input, forget, cell, output)
PLAIN = {"direction": ("forward",), "layout": (0,), "input_forget": (0,), "activations": (("Sigmoid", "Tanh", "Tanh"),)}
INTERMEDIATES = 5                           # of which the last has the scale of the hidden state before a projection


def integer_lstms(graph: ir.Graph) -> list[str]:
    """Puts IntegerLstm in the place of every LSTM that the integer kernel computes, and returns the names of the states that are variables now."""
    restored = []
    for node in list(graph):
        if node.op_type == "LSTM" and node.domain == "":
            found = _Match.of(node)
            if found is not None:
                _replace(node, found)
                restored += [found.hidden.name, found.cells.name]
    return restored


@dataclass(frozen=True)
class _State:
    """A state: its name, its scale, and the nodes that bring its next value to the graph output."""

    name: str
    quantization: Quantization
    chain: tuple[ir.Node, ...]


@dataclass(frozen=True)
class _Match:
    """What the integer kernel needs of an LSTM."""

    x: ir.Value
    x_scale: Quantization
    weights: list[tuple[Any, Quantization]]
    recurrent: list[tuple[Any, Quantization]]
    bias: np.ndarray
    hidden: _State
    cells: _State

    @classmethod
    def of(cls, node: ir.Node) -> _Match | None:
        x, w, r, b, lengths, h, c, peepholes = (*node.inputs, *[None] * 8)[:8]
        source = _dequantized(x, T.INT8)
        plain = all(_attribute(node, name) in (None, *allowed) for name, allowed in PLAIN.items()) and "clip" not in node.attributes
        if not plain or source is None or lengths is not None or peepholes is not None or None in (h, c) or len(node.outputs) < 3:
            return None
        weights, recurrent, bias = _gates(w), _gates(r), np.zeros((1, 8 * _attribute(node, "hidden_size"))) if b is None else constant(b)
        hidden, cells = _state(h, node.outputs[1], T.INT8), _state(c, node.outputs[2], T.INT16)
        if weights is None or recurrent is None or bias is None or hidden is None or cells is None or np.log2(cells.quantization.scale).item() % 1:
            return None
        return cls(source.inputs[0], parameters(source), weights, recurrent, bias.reshape(2, 4, -1).sum(0), hidden, cells)


def _attribute(node: ir.Node, name: str) -> Any:
    if name not in node.attributes:
        return None
    value = node.attributes[name].value
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _dequantized(value: ir.Value, kind: ir.DataType) -> ir.Node | None:
    """The DequantizeLinear with one scale that makes `value` from integers of a type."""
    node = value.producer()
    known = node is not None and node.op_type == "DequantizeLinear" and node.inputs[0].dtype == kind
    found = parameters(node) if known else None
    return node if found is not None and not found.per_axis else None


def _gates(value: ir.Value) -> list[tuple[Any, Quantization]] | None:
    """The matrices of the four gates, each of int8 with a scale of its own, in the kernel's order; None where they are anything else."""
    node = value.producer()
    parts = list(node.inputs) if node is not None and node.op_type == "Concat" and node.attributes["axis"].value in (1, -2) else [value]
    sources = [_dequantized(part, T.INT8) for part in parts]
    if any(source is None or not source.inputs[0].is_initializer() or parameters(source).zero_point.any() for source in sources):
        return None
    if len(parts) == 4:
        found = [(source.inputs[0].const_value, parameters(source)) for source in sources]
        return [(lazily(lambda array: array[0], tensor, dims=tuple(tensor.shape[1:])), scale) for tensor, scale in (found[gate] for gate in GATES)]
    if len(parts) != 1:
        return None
    whole, scale = sources[0].inputs[0].const_value, parameters(sources[0])
    _, four, columns = (int(str(size)) for size in whole.shape)
    rows = four // 4
    return [(lazily(lambda array, gate=gate: array[0, gate * rows:(gate + 1) * rows], whole, dims=(rows, columns)), scale) for gate in GATES]


def _origin(value: ir.Value) -> ir.Value:
    """What a value is before operators that only change its shape."""
    while value.producer() is not None and value.producer().op_type in MOVES:
        value = value.producer().inputs[0]
    return value


def _state(start: ir.Value, end: ir.Value, kind: ir.DataType) -> _State | None:
    """The state that begins as `start` and is kept as `end`: a default of zeros and a graph output of the same name, both with one scale."""
    source = _dequantized(_origin(start), kind)
    if source is None:
        return None
    stored, scale, chain = _origin(source.inputs[0]), parameters(source), tuple(_chain(end))
    zeros = stored.is_initializer() and bool((stored.const_value.numpy() == scale.zero_point.item()).all())
    if not zeros or not chain or chain[-1].op_type != "QuantizeLinear" or chain[-1].outputs[0].name != f"{stored.name}{NEXT}":
        return None
    kept = parameters(chain[-1])
    return _State(stored.name, scale, chain) if kept is not None and (kept.scale, kept.zero_point) == (scale.scale, scale.zero_point) else None


def _chain(value: ir.Value) -> Iterator[ir.Node]:
    """The only readers of a value, one behind the other, up to a graph output; nothing where there are others."""
    found = []
    while not value.is_graph_output():
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type not in (*MOVES, "QuantizeLinear"):
            return
        found.append(uses[0].node)
        value = found[-1].outputs[0]
    yield from found


def _replace(node: ir.Node, found: _Match) -> None:
    graph, base = node.graph, node.name or node.outputs[0].name

    def stored(tensor: Any, name: str, quantization: Quantization | None = None) -> ir.Value:
        value = ir.Value(name=f"{base}/{name}", type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
        if quantization is not None:
            value.meta["quantization"] = quantization
        graph.register_initializer(value)
        return value

    weights = [stored(tensor, f"{kind}{gate}", scale) for kind, group in (("weights", found.weights), ("recurrent", found.recurrent))
               for gate, (tensor, scale) in enumerate(group)]
    biases = []
    for gate, place in enumerate(GATES):
        scale = (found.x_scale.scale * found.weights[gate][1].scale).astype(np.float32)
        rounded = np.clip(np.round(found.bias[place] / scale.astype(np.float64)), -1 << 31, (1 << 31) - 1).astype(np.int32)
        biases.append(stored(array_tensor(rounded), f"bias{gate}", Quantization(scale, np.zeros(1, np.int64))))
    found.x.meta.setdefault("quantization", found.x_scale)
    lstm = ir.node("IntegerLstm", [found.x, *weights, *biases], {"hidden": found.hidden.name, "cells": found.cells.name}, name=node.name)
    lstm.meta.update({"quantized": True, "states": (found.hidden.quantization, found.cells.quantization)})
    y = node.outputs[0]
    steps, batch = node.inputs[0].shape[0], node.inputs[0].shape[1]
    out = lstm.outputs[0]
    out.name, out.type, out.shape = f"{base}/integers", ir.TensorType(T.INT8), ir.Shape([steps, batch, len(found.bias[0])])
    out.meta["quantization"] = found.hidden.quantization
    lifted = ir.node("Unsqueeze", [out, stored(array_tensor(np.asarray([1])), "axis")])
    lifted.outputs[0].name, lifted.outputs[0].type, lifted.outputs[0].shape = f"{base}/lifted", out.type, y.shape
    scale = stored(array_tensor(found.hidden.quantization.scale.reshape(())), "scale")
    zero = stored(array_tensor(found.hidden.quantization.zero_point.reshape(()).astype(np.int8)), "zero")
    back = ir.node("DequantizeLinear", [lifted.outputs[0], scale, zero])
    back.outputs[0].type, back.outputs[0].shape = y.type, y.shape
    graph.insert_before(node, [lstm, lifted, back])
    back.outputs[0].name, y.name = y.name, f"{y.name}/old"
    y.replace_all_uses_with(back.outputs[0], replace_graph_outputs=True)
    for state in (found.hidden, found.cells):
        graph.outputs.remove(state.chain[-1].outputs[0])
        for each in reversed(state.chain):
            graph.remove(each, safe=True)
    graph.remove(node, safe=True)


@from_onnx("IntegerLstm")
def integer_lstm(op, x, *constants, hidden, cells):
    """The states are tensors of their own that keep their values; of the five scratch tensors only the last says something: the hidden state's scale."""
    scales = op.node.meta["states"]
    batch, size = x.shape[1], op.node.outputs[0].shape[2]
    states = [ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape([batch, size])) for name, kind in ((hidden, T.INT8), (cells, T.INT16))]
    for state, scale in zip(states, scales, strict=True):
        state.meta.update({"variable": True, "quantization": scale})
    y = op.UNIDIRECTIONAL_SEQUENCE_LSTM(x, *constants[:8], None, None, None, *constants[8:], None, None, *states, None, None, None, None,
                                        fused_activation_function="TANH", time_major=1)
    scratch = [ir.Value(name=f"{hidden}/scratch{place}", type=ir.TensorType(T.FLOAT), shape=ir.Shape([0])) for place in range(INTERMEDIATES)]
    scratch[-1].dtype, scratch[-1].meta["quantization"] = T.INT8, scales[0]
    y.producer().meta["intermediates"] = scratch
    return y
