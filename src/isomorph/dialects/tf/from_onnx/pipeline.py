"""The order of the passes that bring a hub graph into TensorFlow's operators."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx_ir as ir

from isomorph.dialects._forms.common import last_axis_softmax
from isomorph.dialects._forms.rounds import to_kernel
from isomorph.dialects._forms.table import SHARED
from isomorph.dialects._lower import Mapping, rewrite
from isomorph.dialects.tf.from_onnx.kernels import kernel_types
from isomorph.dialects.tf.from_onnx.legalize import legalize
from isomorph.dialects.tf.from_onnx.operators import from_onnx
from isomorph.errors import Unsupported
from isomorph.model import Model, Signature
from isomorph.passes import captures, functions, fuse, layout, shapes, types
from isomorph.passes.decompose import decompose
from isomorph.passes.fold import fold
from isomorph.passes.recurrent import recurrent
from isomorph.passes.resample import resample
from isomorph.passes.tidy import share_equal, sweep, tidy

MOST_COMPARED = 1 << 16         # elements up to which equal weights are found and become one
WANTS_LAST = {"Conv", "TransposedConv", "MaxPool", "AveragePool", "ResizeSpatial", "DepthToSpace", "SpaceToDepth"}


@dataclass(frozen=True)
class Target:
    """Which operators a runtime has (`kernel`), what makes others into these (`simplify`), and which types its kernels take."""

    dialect: str
    title: str
    kernel: Mapping
    simplify: Mapping
    kernel_types: Callable[[ir.Node], Collection[ir.DataType] | None]


def target(dialect: str, title: str, kernel: Mapping, own: Mapping, types: Callable[[ir.Node], Collection[ir.DataType] | None]) -> Target:
    """A target whose `own` forms come before the shared ones, and decompositions last."""
    simplify = Mapping().update(decompose).update(resample).update(recurrent)
    for key in kernel.rules:
        simplify.rules.pop(key, None)
    return Target(dialect, title, kernel, simplify.update(SHARED).update(own), types)


TENSORFLOW = target("tf", "TensorFlow", from_onnx, legalize, kernel_types)
settle = Mapping()
settle("Softmax", "LogSoftmax")(last_axis_softmax)


def from_hub(model: Model, to: Target = TENSORFLOW) -> Model:
    """The model in TensorFlow's operators, as far as `to` has them. Raises `Unsupported` with every operator that has no form there."""
    whole, findings = functions.own_copy(model, "a signature of TensorFlow has none, so it becomes a constant and is no input any more")
    graph = whole.graph
    inputs, outputs = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
    fold(graph)
    fuse.apply(graph, fuse.fuse)
    reasons = to_kernel(graph, to.simplify, to.kernel)
    sweep(graph)
    while fuse.apply(graph, fuse.scales):
        fold(graph)
        sweep(graph)
    types.legalize(graph, to.kernel_types, findings)
    fold(graph)
    tidy(graph)
    for each in (graph, *graph.subgraphs()):
        layout.wrap(each, lambda node: node.domain == "" and node.op_type in WANTS_LAST)
    layout.clean(graph)
    tidy(graph)
    rewrite(graph, settle, keep=lambda node: True, infer=shapes.infer_node)
    captures.explicit(graph)
    captures.own_constants(graph)
    done = rewrite(graph, to.kernel, "tf")
    sweep(graph)
    for each in (graph, *graph.subgraphs()):
        share_equal(each, MOST_COMPARED)
    own_outputs(graph)
    blockers = [(operator, where, reasons.get(where, why)) for operator, where, why in done.blockers]
    if blockers:
        raise Unsupported(
            f"{len(blockers)} operators have no form in {to.title}: {', '.join(sorted({name for name, _, _ in blockers}))}",
            blockers=blockers,
            hint="run `isomorph plan` for each of them and where it stands",
        )
    whole.opset_imports.clear()
    whole.opset_imports["tf"] = 1
    signature = Signature("serving_default", {name: name for name in inputs if name}, {name: name for name in outputs if name})
    for each in (graph, *graph.subgraphs()):
        findings += each.meta.pop("findings", [])
    return Model(whole, to.dialect, model.signatures or [signature], dict(model.metadata), [*findings, *done.findings])


def own_outputs(graph: ir.Graph) -> None:
    """Every output of the main graph is the only output of a node that no other reads, because that is how outputs of frozen graphs are known, and a node
    has a name, while what else it makes has only a number. These nodes stand in the order of the outputs, which nothing else tells."""
    outputs = list(graph.outputs)
    order = {node: number for number, node in enumerate(graph)}
    last = -1
    for place, value in enumerate(outputs):
        node = value.producer()
        alone = node is not None and not any(other.uses() or (other is not value and other in outputs) for other in node.outputs)
        if alone and not value.index() and value not in outputs[:place] and order[node] > last:
            last = order[node]
            continue
        last = len(order)
        copy = ir.node("Identity", [value], domain="tf")
        out = copy.outputs[0]
        out.type, out.shape, out.name = value.type, value.shape, value.name
        if node is None or value in outputs[:place]:
            out.name = f"{value.name}/out_{place}"
        else:
            value.name = f"{value.name}/value"
        graph.append(copy)
        graph.outputs[place] = out
