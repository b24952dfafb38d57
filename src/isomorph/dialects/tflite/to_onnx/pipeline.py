"""The whole way from a TFLite graph to the hub: states and quantisation first, then the rules, then what is left over."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import rewrite
from isomorph.dialects.tflite.to_onnx import (  # noqa: F401    their rules stand in one table
    control,
    detection,
    matrices,
    operators,
    places,
    recurrent,
    spectra,
    stablehlo,
    windows,
)
from isomorph.dialects.tflite.to_onnx.common import to_onnx
from isomorph.dialects.tflite.to_onnx.integers import integers as integer_rules
from isomorph.dialects.tflite.to_onnx.integers import whole
from isomorph.dialects.tflite.to_onnx.settle import settle
from isomorph.dialects.tflite.to_onnx.unfold import Resources, lift_states, unfold_quantization, values_of
from isomorph.errors import Damaged
from isomorph.model import HUB_IR_VERSION, HUB_ML_OPSET, HUB_OPSET, Model
from isomorph.passes import layout
from isomorph.passes.fold import fold
from isomorph.passes.tidy import sweep, tidy
from isomorph.report import Finding, Severity

BOOLEAN = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "IsNaN", "IsInf"}
COUNTING = {"Shape", "Size", "NonZero", "ArgMax", "ArgMin", "NonMaxSuppression"}
TYPED_BY = {"DequantizeLinear": 1, "QuantizeLinear": 2, "Where": 1, "OneHot": 2}
SHAPED_ALIKE = {"Cast", "DequantizeLinear", "QuantizeLinear", "Identity", "Relu", "Clip", "Sigmoid", "Tanh", "Sqrt", "Reciprocal", "Neg", "Abs", "Exp", "Floor",
                "Softmax", "Sin", "Cos", "BitCast", "CumSum"}


def to_hub(model: Model, *, integers: bool = False) -> Model:
    """The same computation in ONNX operators; takes over the graph of `model`. Operators without an ONNX form stay, each with a finding.

    Quantised tensors become QuantizeLinear and DequantizeLinear around every operator, weights stay integers. States become inputs and outputs.
    With `integers` quantised operators become arithmetic of integers where there is a rule for it, with the bits of the reference kernels.
    """
    graph, findings = model.graph, list(model.findings)
    try:
        lift_states(graph, findings)
        Resources(graph, findings).lift()
        spectra.split_complex(graph, findings)
        if integers:
            rewrite(graph, integer_rules, keep=lambda node: True, infer=infer)
        elif rounded := [node for each in (graph, *graph.subgraphs()) for node in each if node in integer_rules and whole(node.inputs[0], node.outputs[0])]:
            sentence = f"{len(rounded)} quantised operators round once, where LiteRT's reference kernels round twice: single elements may be a quantum apart"
            findings.append(Finding("tflite.rounding", Severity.LOW, rounded[0].name or rounded[0].op_type, sentence, "--integers computes with their bits"))
        unfold_quantization(graph, lambda node: node in to_onnx, findings)
        with np.errstate(all="ignore"):                     # constants of a damaged file may not fit their new type
            result = rewrite(graph, to_onnx, keep=lambda node: node not in to_onnx, infer=infer)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Damaged(f"its operators contradict their definitions ({type(error).__name__}: {error})", where=graph.name or "") from error
    findings += result.findings
    reasons = {where: reason for _, where, reason in result.blockers}
    fold(graph)
    layout.clean(graph, layout.to_first)
    tidy(graph)
    settle(graph)
    clean(graph)
    for each in (graph, *graph.subgraphs()):
        for node in each:
            if node.domain in ("tflite", "tflite.custom"):
                reason = reasons.get(result.label(node), "it has no ONNX form")
                sentence = f"{node.domain}::{node.op_type} stays a custom operator: {reason}"
                findings.append(Finding("operator.kept", Severity.MEDIUM, result.label(node), sentence, "a runtime needs an implementation of it"))
    domains = {node.domain for each in (graph, *graph.subgraphs()) for node in each}
    graph.opset_imports.clear()
    graph.opset_imports.update({"": HUB_OPSET} | {domain: HUB_ML_OPSET if domain == "ai.onnx.ml" else 1 for domain in sorted(domains) if domain})
    model.ir.ir_version = HUB_IR_VERSION
    return Model(model.ir, "onnx", model.signatures, {key: value for key, value in model.metadata.items() if key != "subgraphs"}, findings)


def clean(graph: ir.Graph) -> None:
    """Removes nodes and constants that nothing reads, and what only TFLite has: types without an ONNX name, scales that now stand in the graph."""
    sweep(graph)
    for each in (*graph.subgraphs(), graph):
        for value in values_of(each):
            for key in [key for key in value.meta if isinstance(key, tuple) or key in ("quantization", "blockwise", "range", "tflite_type", "variable")]:
                del value.meta[key]


def infer(node: ir.Node) -> None:
    """Types, and shapes as far as the rules ask for them: the file itself states those of everything else."""
    first = node.inputs[0] if node.inputs else None
    kind = first.dtype if first is not None else None
    if node.op_type in BOOLEAN:
        kind = ir.DataType.BOOL
    elif node.op_type in COUNTING:
        kind = ir.DataType.INT64
    elif node.op_type == "Cast" or node.op_type == "BitCast":
        kind = ir.DataType(node.attributes["to"].value)
    elif node.op_type in TYPED_BY and len(node.inputs) > TYPED_BY[node.op_type]:
        kind = node.inputs[TYPED_BY[node.op_type]].dtype
    elif node.op_type == "Multinomial":
        kind = ir.DataType.INT32
    elif node.op_type == "ConstantOfShape":
        kind = node.attributes["value"].value.dtype if "value" in node.attributes else ir.DataType.FLOAT
    for place, value in enumerate(node.outputs):
        value.dtype = ir.DataType.INT64 if place and node.op_type in ("TopK", "Unique") else kind
        value.shape = SHAPES.get(node.op_type, lambda node: None)(node) if first is not None and first.shape is not None else None


def _alike(node: ir.Node) -> ir.Shape:
    return ir.Shape(list(node.inputs[0].shape))


def _transposed(node: ir.Node) -> ir.Shape:
    dims = list(node.inputs[0].shape)
    return ir.Shape([dims[axis] for axis in node.attributes["perm"].value])


def _reshaped(node: ir.Node) -> ir.Shape | None:
    wanted = node.inputs[1].const_value
    return ir.Shape([int(dim) if dim > 0 else None for dim in wanted.numpy().tolist()]) if wanted is not None and wanted.size else None


def _unsqueezed(node: ir.Node) -> ir.Shape | None:
    axes = node.inputs[1].const_value
    if axes is None:
        return None
    dims = list(node.inputs[0].shape)
    rank = len(dims) + axes.size
    for axis in sorted(int(axis) % rank for axis in axes.numpy().reshape(-1)):
        dims.insert(axis, 1)
    return ir.Shape(dims)


def _broadcast(node: ir.Node) -> ir.Shape | None:
    """Of two shapes: known where one side is one, or both are equal."""
    shapes: Any = [list(value.shape) if value is not None and value.shape is not None else None for value in node.inputs]
    if any(shape is None for shape in shapes):
        return None
    rank = max(map(len, shapes))
    columns = zip(*([1] * (rank - len(shape)) + shape for shape in shapes), strict=True)
    return ir.Shape([next((dim for dim in column if dim != 1), 1) if len({str(dim) for dim in column if dim != 1}) <= 1 else None for column in columns])


SHAPES: dict[str, Callable[[ir.Node], ir.Shape | None]] = {
    **dict.fromkeys(SHAPED_ALIKE, _alike), **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), _broadcast),
    "Transpose": _transposed, "Reshape": _reshaped, "Unsqueeze": _unsqueezed,
}
