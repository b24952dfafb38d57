"""The whole way from a TensorFlow graph to the hub."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import rewrite
from isomorph.dialects.tf.to_onnx import cells, control, detection, examples, lists, places, resources, spectra, windows  # noqa: F401    rules of the same table
from isomorph.dialects.tf.to_onnx.lowering import Lookup, Lowering
from isomorph.dialects.tf.to_onnx.operators import to_onnx
from isomorph.dialects.tf.to_onnx.raising import raise_control_flow
from isomorph.errors import Damaged, Unsafe, Unsupported
from isomorph.model import HUB_IR_VERSION, HUB_ML_OPSET, HUB_OPSET, Model, Signature
from isomorph.passes import layout, raising, shapes
from isomorph.passes.dropping import dropping
from isomorph.passes.fold import fold
from isomorph.passes.tidy import sweep, tidy
from isomorph.report import Finding, Severity

EXAMPLES = "tf.examples"            # metadata: input of messages -> what `Feature.described` says of each feature


def to_hub(model: Model) -> Model:
    """The same computation in ONNX operators. Variables that a run changes become inputs and outputs. Operators without an ONNX form stay, each with a
    finding; raises `Unsupported` with those that cannot even stay, `Damaged` for functions that call themselves."""
    functions = {function.name: function for function in model.ir.functions.values()}
    lowering = Lowering(model.graph.name or "main", to_onnx, functions, nodes=int(model.metadata.get("nodes", 0)))
    lowering.assets = model.metadata.get("assets", {})
    for name, (keys, values) in model.metadata.get("tables", {}).items():
        lowering.tables[name] = Lookup(name, keys=keys.reshape(-1), values=values.reshape(-1) if values.size == keys.size else values)
    try:
        with np.errstate(all="ignore"):
            graph, names = _lowered(model, lowering)
    except RecursionError:
        raise Unsafe("functions or bodies are nested too deeply", where=model.graph.name or "") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Damaged(f"its operators contradict their definitions ({type(error).__name__}: {error})", where=model.graph.name or "") from error
    if lowering.blockers:
        raise Unsupported(f"{len(lowering.blockers)} operators have no form in ONNX, the first is {lowering.blockers[0][0]}: {lowering.blockers[0][2]}",
                          blockers=lowering.blockers)
    sweep(graph)
    fold(graph)
    dropped = rewrite(graph, dropping, keep=lambda node: True, infer=shapes.infer_node)
    if dropped.changed:
        sweep(graph)
        fold(graph)
    raising.raise_recurrent(graph)
    layout.clean(graph, layout.to_first)
    tidy(graph)
    sweep(graph)
    parsed = _without_messages(graph, names, lowering)
    domains = {node.domain for each in (graph, *graph.subgraphs()) for node in each}
    graph.opset_imports.clear()
    graph.opset_imports.update({"": HUB_OPSET} | {domain: HUB_ML_OPSET if domain == "ai.onnx.ml" else 1 for domain in sorted(domains) if domain})
    findings = [*model.findings, *dict.fromkeys(lowering.findings), *dropped.findings, *parsed, *_kept(graph, lowering.kept)]
    made = ir.Model(graph, ir_version=HUB_IR_VERSION)
    metadata = {key: value for key, value in model.metadata.items() if key not in ("nodes", "init", "assets", "tables")}
    if lowering.features:
        metadata[EXAMPLES] = {message: [feature.described(key) for key, feature in features.items()] for message, features in lowering.features.items()}
    return Model(made, "onnx", names, metadata, findings)


def _lowered(model: Model, lowering: Lowering) -> tuple[ir.Graph, list[Signature]]:
    source = raise_control_flow(model.graph)
    signature = model.signatures[0] if model.signatures else Signature("", {}, {})
    public = {inner: outer for outer, inner in signature.inputs.items()}
    env: dict[ir.Value, ir.Value] = {}
    inputs: dict[str, str] = {}
    for value in source.inputs:
        if value.dtype is None:
            raise Unsupported(f"the input {value.name!r} is a {value.meta.get('tf_type')}", where=source.name or "")
        name = lowering.unique(public.get(value.name, value.name or "input"))
        fed = ir.Value(name=name, type=value.type, shape=_symbols(value, name))
        lowering.graph.inputs.append(fed)
        env[value] = fed
        inputs[public.get(value.name, name)] = name
    results = lowering.walk(source, env)
    outputs = list(zip(signature.outputs or [str(value.name) for value in source.outputs], results, strict=False))
    for name, value in outputs:
        if value.meta.get("blocked"):
            continue
        if "thing" in value.meta:
            raise Unsupported(f"the output {name!r} is no tensor", where=source.name or "")
    if lowering.blockers:
        return lowering.graph, []
    states = list(_states(lowering))
    graph = lowering.finish([*outputs, *states])
    given = {name: str(value.name) for (name, _), value in zip(outputs, graph.outputs, strict=False)}
    return graph, [Signature(signature.name, inputs, given)] if signature.name else []


def _without_messages(graph: ir.Graph, names: list[Signature], lowering: Lowering) -> list[Finding]:
    """Takes out the inputs of which only features were read, and says what became of them."""
    found = []
    for name, features in lowering.features.items():
        made = [value for feature in features.values() for value in (feature.value, feature.count) if value is not None]
        message = next(value for value in graph.inputs if value.name == name)
        for value in [message, *made]:
            if not value.uses() and not value.is_graph_output():
                graph.inputs.remove(value)
        left = {value.name for value in graph.inputs}
        own = {str(value.name): str(value.name) for value in made}
        names[:] = [Signature(item.name, {key: inner for key, inner in {**item.inputs, **own}.items() if inner in left}, item.outputs) for item in names]
        sentence = f"the tf.Example messages of the input {name!r} are not parsed: their features became the inputs {', '.join(map(repr, features))}"
        counted = any(feature.count is not None for feature in features.values())
        hint = "fill features of any length up to rows of one length, and say in NAME/count how many of a row are there" if counted else "feed the features"
        found.append(Finding("tf.example", Severity.MEDIUM, name, sentence, hint))
    return found


def _symbols(value: ir.Value, name: str) -> ir.Shape | None:
    """Unknown sizes get the name of the input that the user knows."""
    if value.shape is None:
        return None
    return ir.Shape([dim if isinstance(dim, int) else "batch" if axis == 0 else f"{name}_{axis}" for axis, dim in enumerate(value.shape)])


def _states(lowering: Lowering) -> Any:
    """A variable that a run changes is an input, with what the file holds as its default, and an output."""
    for name in lowering.assigned:
        start = lowering.stored.get(name)
        following = lowering.state[name]
        if start is None or following is start:
            continue
        lowering.graph.inputs.append(start)
        sentence = (f"a variable that keeps its value between runs became the input {start.name!r}, which starts as the file says, "
                    f"and the output '{start.name}/next'")
        lowering.findings.append(Finding("tf.state", Severity.LOW, str(start.name), sentence, "feed the output of one run to the input of the next"))
        yield f"{start.name}/next", following


def _kept(graph: ir.Graph, reasons: Mapping[str, str]) -> list[Finding]:
    found = []
    for each in (graph, *graph.subgraphs()):
        for node in each:
            if node.domain == "tf":
                sentence = f"tf::{node.op_type} stays a custom operator: {reasons.get(node.name or '', 'it has no ONNX form')}"
                found.append(Finding("operator.kept", Severity.MEDIUM, node.name or "", sentence, "a runtime needs an implementation of it"))
    return found
