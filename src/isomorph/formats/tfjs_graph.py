"""TensorFlow.js GraphModel: a TensorFlow graph in model.json, weights in shards."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isomorph.formats import Format, Match, _tfjs
from isomorph.progress import SILENT, Progress
from isomorph.report import Report

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Model


def identify(artifact: Artifact) -> Match | None:
    """Recognises a model.json whose topology is a graph of nodes."""
    return _tfjs.identify(artifact, "tfjs_graph", "graph-model")


def read(artifact: Artifact, *, progress: Progress = SILENT) -> Model:
    """The graph of a model.json in the dialect "tfjs", with weights that stay in their shards.

    Raises `Damaged` where topology, manifest and shards contradict each other, `Missing` where a shard is absent, `Unsafe` beyond limits or its folder.
    """
    from isomorph.formats import _tfjs_graph
    return _tfjs_graph.read(artifact)


def write(model: Model, path: str | Path, *, dtype: str | None = None, force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes model.json and shards of 4 MB beside it; `path` is that file or its folder. With `dtype` fp16, uint8 or uint16, large weights are stored in
    fewer bits. Raises `Unsupported` for a graph of another dialect or a type without equivalent, `Usage` where a file exists and `force` is not set."""
    from isomorph.formats import _tfjs_graph
    from isomorph.model import operators
    from isomorph.model import weights as weights_of
    progress.start("write", sum(tensor.nbytes for tensor in weights_of(model).values()), "bytes")
    facts, findings = _tfjs_graph.write(model, Path(path), dtype, force, progress.advance)
    progress.finish()
    return Report(str(path), findings, facts | {"operators": dict(sorted(operators(model).items()))})


FORMAT = Format(
    name="tfjs_graph", title="TensorFlow.js GraphModel", extensions=("model.json",), holds="graph",
    spec="https://github.com/tensorflow/tfjs/blob/master/tfjs-core/src/io/types.ts", identify=identify, read=read, write=write,
    dialect="tfjs",
)
