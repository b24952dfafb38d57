"""The order of the passes that bring a hub graph into TensorFlow Lite's operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

from isomorph.dialects._lower import Mapping, Rewrite, rewrite
from isomorph.dialects.tflite.from_onnx import legalize, loops, peephole, positions, resizing, windows
from isomorph.dialects.tflite.from_onnx.kernels import kernel_types
from isomorph.dialects.tflite.from_onnx.legalize import last_axis_softmax
from isomorph.dialects.tflite.from_onnx.operators import from_onnx
from isomorph.dialects.tflite.from_onnx.quantized import quantize
from isomorph.dialects.tflite.from_onnx.rules import legalize as forms
from isomorph.errors import Unsupported, Usage
from isomorph.model import Model, Signature
from isomorph.passes import captures, functions, fuse, layout, shapes, types
from isomorph.passes.decompose import decompose
from isomorph.passes.fold import fold
from isomorph.passes.recurrent import recurrent
from isomorph.passes.resample import resample
from isomorph.passes.tidy import sweep, tidy
from isomorph.report import Finding, Severity
from isomorph.tensors import lazily

ROUNDS = 24  # decompositions nest: Attention -> Softmax -> ... ; more rounds than this mean a rule that feeds itself
WANTS_LAST = {"Conv", "TransposedConv", "MaxPool", "AveragePool", "ResizeSpatial", "DepthToSpace", "SpaceToDepth"}

simplify = Mapping().update(decompose).update(resample).update(recurrent)
for _key in from_onnx.rules:
    simplify.rules.pop(_key, None)
FORMS = (legalize, loops, positions, resizing, windows)  # importing them has filled the table
simplify.update(forms)


def from_hub(model: Model, *, dtype: str | None = None) -> Model:
    """The model in TensorFlow Lite operators. Raises `Unsupported` with every operator that has no form there."""
    whole = model.ir.clone()
    findings: list[Finding] = list(model.findings)
    for value in whole.graph.inputs:
        if value.is_initializer():
            why = f"{value.name} has a default value; TensorFlow Lite has none, so it becomes a constant and is no input any more"
            findings.append(Finding("input.fixed", Severity.MEDIUM, value.name or "", why))
    RemoveInitializersFromInputsPass()(whole)
    functions.inline(whole)
    graph = whole.graph
    inputs, outputs = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
    fold(graph)
    fuse.apply(graph, fuse.fuse)  # patterns of whole ONNX operators, before those are taken apart
    reasons = to_kernel(graph)
    sweep(graph)  # what patterns have left unread would count as a reader
    while fuse.apply(graph, fuse.scales):  # factors and offsets that taking apart has left behind layers
        fold(graph)
        sweep(graph)
    quantize(graph)
    types.legalize(graph, kernel_types, findings)
    fold(graph)
    tidy(graph)
    for each in (graph, *graph.subgraphs()):
        layout.wrap(each, lambda node: node.domain == "" and node.op_type in WANTS_LAST)
    layout.clean(graph)
    tidy(graph)
    settle = Mapping()
    settle("Softmax", "LogSoftmax")(last_axis_softmax)
    rewrite(graph, settle, keep=lambda node: True, infer=shapes.infer_node)
    explicit_captures(graph)
    done = rewrite(graph, from_onnx, "tflite")
    for each in (graph, *graph.subgraphs()):
        peephole.improve(each)
        fuse_activations(each)
    sweep(graph)
    if dtype is not None:
        store_weights(graph, dtype, findings)
    blockers = [(operator, where, reasons.get(where, why)) for operator, where, why in done.blockers]
    if blockers:
        raise Unsupported(
            f"{len(blockers)} operators have no form in TensorFlow Lite: {', '.join(sorted({name for name, _, _ in blockers}))}",
            blockers=blockers,
            hint="run `isomorph plan` for each of them and where it stands",
        )
    whole.opset_imports.clear()
    whole.opset_imports["tflite"] = 1
    signature = Signature("serving_default", {name: name for name in inputs if name}, {name: name for name in outputs if name})
    for each in (graph, *graph.subgraphs()):
        findings += each.meta.pop("findings", [])
    return Model(whole, "tflite", model.signatures or [signature], dict(model.metadata), [*findings, *done.findings])


def to_kernel(graph: ir.Graph) -> dict[str, str]:
    """Rewrites until only operators of the kernel are left; returns why a rule refused, by node."""
    reasons: dict[str, str] = {}
    for _ in range(ROUNDS):
        mapping = Mapping().update(simplify)
        for node in (*graph.all_nodes(),):
            key = (node.domain, node.op_type)
            if key not in mapping.rules and key not in from_onnx.rules and functions.has_function(node):
                mapping.rules[key] = functions.EXPAND
        done = Rewrite(graph, mapping, "", keep=lambda node: True, infer_node=shapes.infer_node).run()
        reasons.update((where, why) for _, where, why in done.blockers)
        if not done.changed:
            break
        fold(graph)
    return reasons


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


def explicit_captures(graph: ir.Graph) -> None:
    """Both branches of an If take the same inputs: everything that either reads from around it. Inner bodies first."""
    for body in graph.subgraphs():
        for node in list(body):
            _lift_if(node)
    for node in list(graph):
        _lift_if(node)


def _lift_if(node: ir.Node) -> None:
    if node.op_type != "If" or node.domain:
        return
    branches = [node.attributes["then_branch"].value, node.attributes["else_branch"].value]
    wanted: dict[ir.Value, None] = {}
    for branch in branches:
        wanted.update(dict.fromkeys(captures.captured(branch)))
    for branch in branches:
        captures.lift(branch, list(wanted))
        _own_outputs(branch)
    given = [value for value in wanted if captures.is_dynamic(value)]
    node.resize_inputs(1 + len(given))
    for index, value in enumerate(given, 1):
        node.replace_input_with(index, value)


def _own_outputs(graph: ir.Graph) -> None:
    """Every output of a body is made by a node of it, and only once."""
    seen: set[ir.Value] = set()
    for index, value in enumerate(list(graph.outputs)):
        if value.producer() is None or value in seen:
            copy = ir.node("Identity", [value])
            copy.outputs[0].name, copy.outputs[0].type, copy.outputs[0].shape = f"{value.name}/out_{index}", value.type, value.shape
            graph.append(copy)
            graph.outputs[index] = copy.outputs[0]
        seen.add(graph.outputs[index])

