"""TensorFlow Lite's complex numbers -> ONNX: a complex tensor is a float tensor with a last dimension of two, as ONNX's own DFT has it."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Ints
from isomorph.dialects.tflite.to_onnx.common import to_onnx
from isomorph.dialects.tflite.to_onnx.unfold import values_of
from isomorph.report import Finding, Severity
from isomorph.tensors import array_tensor

KNOWN = {"RFFT2D", "REAL", "IMAG", "COMPLEX_ABS"}


def split_complex(graph: ir.Graph, findings: list[Finding]) -> None:
    """Retypes every complex64 value, where only operators that know of it touch one. Others keep their type and are reported when they are mapped."""
    values = [value for value in values_of(graph) if value.dtype == ir.DataType.COMPLEX64]
    touching = {node for value in values for node in (value.producer(), *value.consumers()) if node is not None}
    if not values or any(node.op_type not in KNOWN for node in touching):
        return
    for value in values:
        value.dtype = ir.DataType.FLOAT
        value.shape = None if value.shape is None else ir.Shape([*value.shape, 2])
        if value.const_value is not None:
            value.const_value = array_tensor(np.stack([value.const_value.numpy().real, value.const_value.numpy().imag], -1), value.name)
        if value.is_graph_input() or value.is_graph_output():
            sentence = f"the complex tensor {value.name!r} became floats with a last dimension of two"
            findings.append(Finding("tflite.complex", Severity.LOW, value.name or "", sentence))


@to_onnx("RFFT2D")
def rfft2d(op, x, lengths: Ints):
    """The real transform along the last axis, the whole one along that before; each axis is cut or filled up to its length."""
    rank, _ = op.of(x)
    y = op.Unsqueeze(x, [-1])
    y = op.DFT(y, op.const(np.int64(lengths[1])), op.const(np.int64(rank - 1)), onesided=1)
    return op.DFT(y, op.const(np.int64(lengths[0])), op.const(np.int64(rank - 2)))


@to_onnx("REAL")
def real(op, x):
    return op.Squeeze(op.Slice(x, [0], [1], [-1]), [-1])


@to_onnx("IMAG")
def imag(op, x):
    return op.Squeeze(op.Slice(x, [1], [2], [-1]), [-1])


@to_onnx("COMPLEX_ABS")
def complex_abs(op, x):
    return op.ReduceL2(x, [-1], keepdims=0)
