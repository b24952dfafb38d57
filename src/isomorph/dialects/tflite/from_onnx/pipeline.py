"""The order of the passes that bring a hub graph into TensorFlow Lite's operators."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from isomorph.dialects._forms.pipeline import finished, target, to_operators
from isomorph.dialects.tflite.from_onnx import peephole, states
from isomorph.dialects.tflite.from_onnx.kernels import kernel_types
from isomorph.dialects.tflite.from_onnx.legalize import legalize
from isomorph.dialects.tflite.from_onnx.operators import from_onnx
from isomorph.dialects.tflite.from_onnx.quantized import quantize
from isomorph.errors import Usage
from isomorph.model import Model
from isomorph.passes import functions, types
from isomorph.passes.tidy import sweep
from isomorph.report import Finding, Severity
from isomorph.tensors import lazily

LITE = target("tflite", "tflite", "TensorFlow Lite", from_onnx, legalize, kernel_types, quantize=quantize)


def from_hub(model: Model, *, dtype: str | None = None) -> Model:
    """The model in TensorFlow Lite operators. Raises `Unsupported` with every operator that has no form there."""
    whole, findings = functions.own_copy(model, "TensorFlow Lite has none, so it becomes a constant and is no input any more")
    graph = whole.graph
    restored = states.integer_lstms(graph)
    findings = [finding for finding in findings if finding.code != "input.fixed" or finding.where not in restored]
    findings += [Finding("tflite.variable", Severity.LOW, name, f"{name} is a variable again, which keeps its value between runs") for name in restored]
    ports = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
    known = {value.name for each in (graph, *graph.subgraphs()) for value in _values(each)}
    done, reasons = to_operators(graph, LITE, findings, cleanings=2)
    for each in (graph, *graph.subgraphs()):
        peephole.improve(each)
        fuse_activations(each)
    sweep(graph)
    for each in (graph, *graph.subgraphs()):
        for value in _values(each):
            if value.name not in known and (value.const_value is None or value.const_value.nbytes < NAMED_BYTES):
                value.meta["unnamed"] = True
    if dtype is not None:
        store_weights(graph, dtype, findings)
    return finished(whole, model, LITE, ports, done, reasons, findings)


NAMED_BYTES = 1024  # of a constant that keeps the name which it was given on the way here


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value that a graph itself names."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


LARGEST_HALF = 65504.0


def store_weights(graph: ir.Graph, dtype: str, findings: list[Finding]) -> None:
    """Stores float weights as float16, each behind a DEQUANTIZE, which runtimes do once when they load the file. A weight that float16 cannot hold stays."""
    if dtype not in ("fp16", "fp32"):
        raise Usage(f"TensorFlow Lite stores no weights as {dtype}", hint="--dtype fp16")
    narrowed = 0
    for each in (graph, *graph.subgraphs()) if dtype == "fp16" else ():
        for value in list(each.initializers.values()):
            tensor = value.const_value
            if value.dtype != ir.DataType.FLOAT or tensor is None or tensor.nbytes < types.COMPACT or not value.uses() or value.is_graph_output():
                continue
            if float(np.abs(tensor.numpy()).max(initial=0)) > LARGEST_HALF:
                continue
            half = lazily(lambda array: array.astype(np.float16), tensor, element_type=int(ir.DataType.FLOAT16), name=f"{value.name}/float16")
            stored = ir.Value(name=half.name, type=ir.TensorType(ir.DataType.FLOAT16), shape=value.shape, const_value=half)
            widen = ir.node("DEQUANTIZE", [stored], domain="tflite", name=f"{value.name}/widened")
            out = widen.outputs[0]
            del each.initializers[value.name]
            out.name, value.name = value.name, None
            out.type, out.shape = value.type, value.shape
            value.replace_all_uses_with(out)
            each.register_initializer(stored)
            each.insert_before(each[0], widen)
            narrowed += 1
    if narrowed:
        findings.append(Finding("weights.narrowed", Severity.LOW, graph.name or "graph", f"{narrowed} tensors are stored as fp16"))


FUSED = {"RELU": "RELU", "RELU6": "RELU6", "RELU_N1_TO_1": "RELU_N1_TO_1"}
FUSES = {"ADD", "SUB", "MUL", "DIV", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "AVERAGE_POOL_2D"}


def fuse_activations(graph: ir.Graph) -> None:
    """An activation behind an operator that can do it itself."""
    for node in list(graph):
        before = node.inputs[0].producer() if node.op_type in FUSED and node.inputs else None
        if (
            before is None
            or before.op_type not in FUSES
            or len(before.outputs[0].uses()) != 1
            or before.outputs[0].is_graph_output()
            or before.graph is not graph
        ):
            continue
        if ("fused_activation_function" in before.attributes and before.attributes["fused_activation_function"].value != "NONE") or node.outputs[
            0
        ].dtype != ir.DataType.FLOAT:
            continue
        before.attributes["fused_activation_function"] = ir.AttrString("fused_activation_function", FUSED[node.op_type])
        out, old = before.outputs[0], node.outputs[0]
        out.name, old.name = old.name, None
        old.replace_all_uses_with(out, replace_graph_outputs=True)
        graph.remove(node, safe=True)
