"""The order of the passes that bring a hub graph into Keras' layers and operations."""
from __future__ import annotations

import onnx_ir as ir

from isomorph.dialects._forms.common import common
from isomorph.dialects._forms.resizing import resizing
from isomorph.dialects._forms.rounds import to_kernel
from isomorph.dialects._forms.windows import windows
from isomorph.dialects._lower import Mapping, rewrite
from isomorph.dialects.keras.from_onnx import layers, operators  # noqa: F401    their rules stand in the same table
from isomorph.dialects.keras.from_onnx.heads import heads
from isomorph.dialects.keras.from_onnx.legalize import legalize, settle
from isomorph.dialects.keras.from_onnx.preferred import as_layers
from isomorph.dialects.keras.from_onnx.writing import LayerRewrite, from_onnx
from isomorph.dialects.tf.from_onnx.kernels import kernel_types
from isomorph.errors import Unsupported
from isomorph.model import Model
from isomorph.passes import functions, fuse, layout, shapes, types
from isomorph.passes.decompose import decompose
from isomorph.passes.fold import fold
from isomorph.passes.recurrent import recurrent
from isomorph.passes.resample import resample
from isomorph.passes.tidy import sweep, tidy

WANTS_LAST = {"Conv", "TransposedConv", "MaxPool", "AveragePool", "ResizeSpatial", "WholeUpsampling", "DepthToSpace", "SpaceToDepth"}
NOT_OURS = {"MatMul", "RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike", "TopK", "LabelEncoder"}     # forms of other targets


def simplify() -> Mapping:
    """Decompositions, then the forms that several targets share, then Keras' own."""
    table = Mapping().update(decompose).update(resample).update(recurrent)
    shared = Mapping().update(common).update(resizing).update(windows)
    for key in [key for key in shared.rules if key[1] in NOT_OURS]:
        del shared.rules[key]
    for key in from_onnx.rules:
        table.rules.pop(key, None)
    return table.update(shared).update(legalize)


def from_hub(model: Model) -> Model:
    """The model in Keras' layers and operations. Raises `Unsupported` with every operator that has no form there."""
    whole, findings = functions.own_copy(model, "it becomes a constant and is no input any more")
    graph = whole.graph
    inputs, outputs = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
    if not inputs:
        raise Unsupported("a model of Keras has at least one input", blockers=[("graph", "", "it has no input")])
    fold(graph)
    fuse.apply(graph, fuse.fuse)
    sweep(graph)                               # shapes that became constants were read from the values between the parts of attention
    rewrite(graph, heads, keep=lambda node: True, infer=shapes.infer_node)
    sweep(graph)
    reasons = to_kernel(graph, simplify(), from_onnx)
    sweep(graph)
    types.legalize(graph, kernel_types, findings)
    fold(graph)
    tidy(graph)
    for each in (graph, *graph.subgraphs()):
        layout.wrap(each, lambda node: (node.domain == "" and node.op_type in WANTS_LAST) or (node.op_type == "BatchNormalization"
            and node.inputs[0].shape is not None
                                                                                           and node.inputs[0].shape.rank() > 2))
    layout.clean(graph)
    tidy(graph)
    rewrite(graph, settle, keep=lambda node: True, infer=shapes.infer_node)
    LayerRewrite(graph, as_layers, "keras", keep=lambda node: True).run()
    done = LayerRewrite(graph, from_onnx, "keras", keep=lambda node: node.domain.startswith("keras")).run()
    sweep(graph)
    blockers = [(operator, where, reasons.get(where, why)) for operator, where, why in done.blockers]
    constants = [value.name for value in graph.outputs if not _reaches_input(value)]
    blockers += [("graph", name or "", "this output does not depend on any input") for name in constants]
    if blockers:
        raise Unsupported(f"{len(blockers)} operators have no form in Keras: {', '.join(sorted({name for name, _, _ in blockers}))}", blockers=blockers,
                          hint="run `isomorph plan` for each of them and where it stands")
    whole.opset_imports.clear()
    whole.opset_imports["keras"] = 1
    metadata = {**model.metadata, "inputs": inputs, "outputs": outputs}
    return Model(whole, "keras", [], metadata, [*findings, *done.findings])




def _reaches_input(value: ir.Value) -> bool:
    """Whether an output depends on an input: Keras has no other outputs."""
    pending, seen = [value], set()
    while pending:
        each = pending.pop()
        if each.is_graph_input():
            return True
        node = each.producer()
        if node is not None and node not in seen:
            seen.add(node)
            pending += [other for other in node.inputs if other is not None]
    return False
