"""The order of the passes that bring a hub graph into calls of aten."""

from __future__ import annotations

import onnx_ir as ir

from isomorph.dialects._forms.rounds import to_kernel
from isomorph.dialects._lower import Mapping, rewrite
from isomorph.dialects.torch.calls import DOMAIN, Calls
from isomorph.dialects.torch.from_onnx import layers
from isomorph.dialects.torch.from_onnx.forms import bare_layers, biased_layers, forms
from isomorph.dialects.torch.from_onnx.kernels import kernel_types
from isomorph.dialects.torch.from_onnx.operators import from_onnx
from isomorph.dialects.torch.from_onnx.selection import selection
from isomorph.dialects.torch.from_onnx.windows import windows
from isomorph.errors import Unsupported
from isomorph.model import Model
from isomorph.passes import functions, fuse, shapes, types
from isomorph.passes.decompose import decompose
from isomorph.passes.fold import fold
from isomorph.passes.recurrent import recurrent
from isomorph.passes.resample import resample
from isomorph.passes.tidy import sweep, tidy

assert layers                                  # importing it has filled the table
CONTROL = ("If", "Loop")
simplify = Mapping().update(decompose).update(resample).update(recurrent)
for _key in from_onnx.rules:
    simplify.rules.pop(_key, None)
simplify.update(forms).update(windows).update(selection)


def from_hub(model: Model) -> Model:
    """The model in calls of aten. Raises `Unsupported` with every operator that has none."""
    whole, findings = functions.own_copy(model, "the forward of a module gets a constant, and it is no input any more")
    graph = whole.graph
    fold(graph)
    fuse.apply(graph, fuse.fuse)
    reasons = to_kernel(graph, simplify, from_onnx)
    sweep(graph)
    types.legalize(graph, kernel_types, findings)
    fold(graph)
    tidy(graph)
    for layers_of_weights in (biased_layers, bare_layers):
        rewrite(graph, layers_of_weights, keep=lambda node: True, infer=shapes.infer_node)
        sweep(graph)
    calls = Calls(graph, from_onnx, DOMAIN, keep=lambda node: node.op_type in CONTROL and not node.domain, infer_node=shapes.infer_node)
    calls.refused = reasons
    done = calls.run()
    sweep(graph)
    _hoist(graph)
    blockers = done.blockers + _without_type(graph)
    if blockers:
        raise Unsupported(f"{len(blockers)} operators have no form in PyTorch: {', '.join(sorted({name for name, _, _ in blockers}))}", blockers=blockers,
                          hint="run `isomorph plan` for each of them and where it stands")
    whole.opset_imports.clear()
    whole.opset_imports.update({DOMAIN: 1, "": 1})
    return Model(whole, "torch", list(model.signatures), dict(model.metadata), [*findings, *done.findings])


def _hoist(graph: ir.Graph) -> None:
    """Constants of bodies move to the main graph: a module has one tree of weights."""
    for body in graph.subgraphs():
        for name, value in list(body.initializers.items()):
            del body.initializers[name]
            while value.name in graph.initializers:
                value.name = f"{value.name}_"
            graph.register_initializer(value)


def _without_type(graph: ir.Graph) -> list[tuple[str, str, str]]:
    """Inputs and outputs that are no tensors, or of element types that PyTorch lacks."""
    from isomorph.dialects.torch.from_onnx.kernels import MOVED
    found = []
    for value in (*graph.inputs, *graph.outputs):
        if not isinstance(value.type, ir.TensorType):
            found.append(("graph", value.name or "", f"it is a {type(value.type).__name__.removesuffix('Type').lower()}, which a call cannot take or give"))
        elif value.dtype not in MOVED:
            found.append(("graph", value.name or "", f"PyTorch has no element type {value.dtype.name if value.dtype is not None else 'without a name'}"))
    return found
