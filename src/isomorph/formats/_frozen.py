"""A graph of the dialect "tf" as one GraphDef whose inputs and outputs have their own names: frozen graphs and TensorFlow.js."""
from __future__ import annotations

import onnx_ir as ir

from isomorph.formats._graphdef_writer import Encoder
from isomorph.model import Model
from isomorph.report import Finding, Severity
from isomorph.wire.protobuf import Record


def frozen(model: Model) -> tuple[Record, list[Finding]]:
    """The GraphDef, and a finding for each input or output whose name TensorFlow does not take."""
    return Frozen(model).record()


class Frozen:
    """The encoding of a model whose weights are constants. `names` has the name of every input and output in the GraphDef, with its port."""

    def __init__(self, model: Model):
        self.model, self.encoder = model, Encoder()
        self.names: dict[ir.Value, str] = {}

    def record(self) -> tuple[Record, list[Finding]]:
        """Inputs and outputs take their names first, so that no other node has them."""
        graph, encoder = self.model.graph, self.encoder
        findings = []
        for value in (*graph.inputs, *graph.outputs):
            if value in self.names:
                continue
            node = value.producer()
            owner = value if node is None else node
            if id(owner) not in encoder.names and not value.index():
                encoder.names[id(owner)] = encoder.unique((value.name or "value").removesuffix(":0"))
            name = encoder.names.get(id(owner)) or encoder.name_of(value)
            self.names[value] = f"{name}:{value.index()}" if value.index() else name
            if self.names[value] != value.name:
                findings.append(Finding("names.changed", Severity.INFO, str(value.name), f"{value.name!r} is called {self.names[value]!r}"))
        return encoder.graph_def(graph, self.model.ir.functions.values()), findings


