"""The whole way from layers to the hub: rules in the order of the graph, then the transposes between layouts taken out by the cut."""
from __future__ import annotations

import onnx_ir as ir

from isomorph.dialects.keras.lowering import KerasRewrite
from isomorph.dialects.keras.to_onnx import (  # noqa: F401    their rules stand in the same table
    activations,
    algebra,
    attention,
    contrast,
    convolution,
    core,
    functions,
    images,
    lookup,
    normalization,
    operations,
    pictures,
    places,
    pooling,
    recurrent,
    signals,
)
from isomorph.dialects.keras.to_onnx.table import to_onnx
from isomorph.errors import Unsupported
from isomorph.model import HUB_IR_VERSION, HUB_ML_OPSET, HUB_OPSET, Model
from isomorph.passes import layout
from isomorph.passes.fold import fold
from isomorph.passes.shapes import infer_node
from isomorph.passes.tidy import sweep, tidy

# Layers whose result has the mask of their first argument.
PASSING = frozenset((
    "Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax", "ThresholdedReLU", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization", "Identity", "Dense", "EinsumDense", "BatchNormalization",
    "LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization", "TimeDistributed", "Lambda", "Highway", "Masking",
    "LocallyConnected1D", "LocallyConnected2D", "Rescaling", "SpectralNormalization",
))


def to_hub(model: Model) -> Model:
    """The same computation in ONNX operators; takes over the graph of `model`. Raises `Unsupported` with every layer that has none."""
    graph, metadata = model.graph, dict(model.metadata)
    rewrite = KerasRewrite(graph, to_onnx, "", infer_node=infer_node)
    rewrite.passing = PASSING
    rewrite.generation = generation(metadata)
    rewrite.run()
    blockers = [*metadata.pop("blockers", []), *rewrite.blockers]
    if blockers:
        raise Unsupported(f"{len(blockers)} parts of the model cannot be mapped, the first is {blockers[0][0]} at {blockers[0][1]}: {blockers[0][2]}",
                          blockers=blockers)
    fold(graph)
    layout.clean(graph, layout.to_first)
    tidy(graph)
    for value in (value for node in graph for value in node.outputs):
        value.meta.pop("mask", None)
    sweep(graph)
    graph.opset_imports.clear()
    domains = {node.domain for each in (graph, *graph.subgraphs()) for node in each if node.domain}
    graph.opset_imports.update({"": HUB_OPSET} | {domain: HUB_ML_OPSET for domain in sorted(domains)})
    model.ir.ir_version = HUB_IR_VERSION
    return Model(model.ir, "onnx", model.signatures, metadata, [*model.findings, *rewrite.findings])


def generation(metadata: dict) -> int:
    """The major version of Keras that wrote a file: what `hard_sigmoid` means depends on it. TensorFlow.js means Keras 2."""
    version = str(metadata.get("keras_version") or "2")
    first = version.removeprefix("tfjs-layers ").split(".")[0]
    return int(first) if first.isdigit() else 2


def is_known(node: ir.Node) -> bool:
    """Whether a node is no raw function of TensorFlow, or one that is mapped: those only compute, while others touch files or run what they are given."""
    return node.domain != "keras.tf" or any(("keras.tf", name) in to_onnx.rules for name in (node.op_type, node.op_type.removeprefix("compat.v1.")))
