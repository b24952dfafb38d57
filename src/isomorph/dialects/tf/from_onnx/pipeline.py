"""The order of the passes that bring a hub graph into TensorFlow's operators."""

from __future__ import annotations

import onnx_ir as ir

from isomorph.dialects._forms.pipeline import Target, finished, target, to_operators
from isomorph.dialects.tf.from_onnx.kernels import kernel_types
from isomorph.dialects.tf.from_onnx.legalize import legalize
from isomorph.dialects.tf.from_onnx.operators import from_onnx
from isomorph.model import Model
from isomorph.passes import functions
from isomorph.passes.tidy import share_equal, sweep

MOST_COMPARED = 1 << 16         # elements up to which equal weights are found and become one
TENSORFLOW = target("tf", "tf", "TensorFlow", from_onnx, legalize, kernel_types)


def from_hub(model: Model, to: Target = TENSORFLOW) -> Model:
    """The model in TensorFlow's operators, as far as `to` has them. Raises `Unsupported` with every operator that has no form there."""
    whole, findings = functions.own_copy(model, "a signature of TensorFlow has none, so it becomes a constant and is no input any more")
    graph = whole.graph
    ports = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
    done, reasons = to_operators(graph, to, findings)
    sweep(graph)
    for each in (graph, *graph.subgraphs()):
        share_equal(each, MOST_COMPARED)
    own_outputs(graph)
    return finished(whole, model, to, ports, done, reasons, findings)


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
