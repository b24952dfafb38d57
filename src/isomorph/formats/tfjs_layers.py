"""TensorFlow.js LayersModel: a Keras topology in model.json, weights in shards."""
from __future__ import annotations

from typing import TYPE_CHECKING

from isomorph.formats import Format, Match, _tfjs

if TYPE_CHECKING:
    from isomorph.artifact import Artifact


def identify(artifact: Artifact) -> Match | None:
    """Recognises a model.json whose topology is made of layers."""
    return _tfjs.identify(artifact, "tfjs_layers", "layers-model")


FORMAT = Format(
    name="tfjs_layers", title="TensorFlow.js LayersModel", extensions=("model.json",), holds="graph",
    spec="https://github.com/tensorflow/tfjs/blob/master/tfjs-core/src/io/types.ts", identify=identify, dialect="keras",
)
