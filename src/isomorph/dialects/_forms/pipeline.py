"""The way from the hub to a target of the TensorFlow family, as far as the targets share it: the passes before their operators, and the model behind them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from isomorph.dialects._forms.common import last_axis_softmax
from isomorph.dialects._forms.rounds import to_kernel
from isomorph.dialects._forms.table import SHARED
from isomorph.dialects._lower import Mapping, Rewrite, rewrite
from isomorph.errors import Unsupported
from isomorph.model import Model, Signature
from isomorph.passes import captures, fuse, layout, shapes, types
from isomorph.passes.decompose import decompose
from isomorph.passes.fold import fold
from isomorph.passes.recurrent import recurrent
from isomorph.passes.resample import resample
from isomorph.passes.tidy import sweep, tidy
from isomorph.report import Finding

WANTS_LAST = {"Conv", "TransposedConv", "MaxPool", "AveragePool", "ResizeSpatial", "DepthToSpace", "SpaceToDepth"}
Kinds = Callable[[ir.Node], Collection[ir.DataType] | None]
settle = Mapping()
settle("Softmax", "LogSoftmax")(last_axis_softmax)


@dataclass(frozen=True)
class Target:
    """Which operators a runtime has (`kernel`, in its `domain`), what makes others into these (`simplify`), which types its kernels take, and how integers
    are computed where the graph says that they stand for floats."""

    dialect: str
    domain: str
    title: str
    kernel: Mapping
    simplify: Mapping
    kernel_types: Kinds
    quantize: Callable[[ir.Graph], Any] = lambda graph: None


def target(dialect: str, domain: str, title: str, kernel: Mapping, own: Mapping, kinds: Kinds, **more: Any) -> Target:
    """A target whose `own` forms come before the shared ones, and decompositions last."""
    simplify = Mapping().update(decompose).update(resample).update(recurrent)
    for key in kernel.rules:
        simplify.rules.pop(key, None)
    return Target(dialect, domain, title, kernel, simplify.update(SHARED).update(own), kinds, **more)


def to_operators(graph: ir.Graph, to: Target, findings: list[Finding], *, cleanings: int = 1) -> tuple[Rewrite, dict[str, str]]:
    """Brings a graph of the hub into the operators of a target, in place. Returns what rewrote it, and why forms refuse the nodes that are left, by node."""
    fold(graph)
    fuse.apply(graph, fuse.fuse)  # patterns of whole ONNX operators, before those are taken apart
    reasons = to_kernel(graph, to.simplify, to.kernel)
    sweep(graph)  # what patterns have left unread would count as a reader
    while fuse.apply(graph, fuse.scales):  # factors and offsets that taking apart has left behind layers
        fold(graph)
        sweep(graph)
    to.quantize(graph)
    types.legalize(graph, to.kernel_types, findings)
    fold(graph)
    tidy(graph)
    for each in (graph, *graph.subgraphs()):
        layout.wrap(each, lambda node: node.domain == "" and node.op_type in WANTS_LAST)
    for _ in range(cleanings):
        layout.clean(graph)
    tidy(graph)
    rewrite(graph, settle, keep=lambda node: True, infer=shapes.infer_node)
    captures.explicit(graph)
    if to.domain == "tf":  # bodies are functions there, which hold their constants themselves
        captures.own_constants(graph)
    return rewrite(graph, to.kernel, to.domain), reasons


def finished(
    whole: ir.Model, model: Model, to: Target, ports: Sequence[list[str | None]], done: Rewrite, reasons: dict[str, str], findings: list[Finding]
) -> Model:
    """The model of the target, with the names that inputs and outputs (`ports`) had. Raises `Unsupported` with every operator that has no form there."""
    blockers = [(operator, where, reasons.get(where, why)) for operator, where, why in done.blockers]
    if blockers:
        raise Unsupported(
            f"{len(blockers)} operators have no form in {to.title}: {', '.join(sorted({name for name, _, _ in blockers}))}",
            blockers=blockers,
            hint="run `isomorph plan` for each of them and where it stands",
        )
    whole.opset_imports.clear()
    whole.opset_imports[to.domain] = 1
    inputs, outputs = ({name: name for name in names if name} for names in ports)
    for each in (whole.graph, *whole.graph.subgraphs()):
        findings += each.meta.pop("findings", [])
    return Model(whole, to.dialect, model.signatures or [Signature("serving_default", inputs, outputs)], dict(model.metadata), [*findings, *done.findings])
