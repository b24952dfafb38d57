"""TensorFlow.js: TensorFlow's graphs with fewer operators and types, and with layers that are one operator together with what follows."""
from __future__ import annotations

from isomorph.model import Model


def to_hub(model: Model) -> Model:
    """The same computation in ONNX operators; takes over the graph of `model`."""
    from isomorph import dialects
    from isomorph.dialects.tfjs import fused
    for graph in (model.graph, *(function.graph for function in model.ir.functions.values())):
        fused.take_apart(graph)
        fused.told_apart(graph)
    model.dialect = "tf"
    return dialects.to_hub(model)


def from_hub(model: Model) -> Model:
    """The same computation in the operators of TensorFlow.js. Raises `Unsupported` with every operator that has no form there."""
    from isomorph.dialects.tf.from_onnx import pipeline
    from isomorph.dialects.tfjs import fused
    from isomorph.dialects.tfjs.from_onnx import TENSORFLOW_JS
    made = pipeline.from_hub(model, TENSORFLOW_JS)
    fused.put_together(made.graph)
    return made
