"""TensorFlow.js GraphModel: a TensorFlow graph in model.json, weights in shards."""
from __future__ import annotations

from typing import TYPE_CHECKING

from isomorph.formats import Format, Match, _tfjs

if TYPE_CHECKING:
    from isomorph.artifact import Artifact


def identify(artifact: Artifact) -> Match | None:
    """Recognises a model.json whose topology is a graph of nodes."""
    return _tfjs.identify(artifact, "tfjs_graph", "graph-model")


FORMAT = Format(
    name="tfjs_graph", title="TensorFlow.js GraphModel", extensions=("model.json",), holds="graph",
    spec="https://github.com/tensorflow/tfjs/blob/master/tfjs-core/src/io/types.ts", identify=identify, dialect="tf",
)
