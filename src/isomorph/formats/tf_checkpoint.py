"""TensorFlow checkpoint: an index that is a sorted table, data shards beside it, and in TensorFlow 1 a MetaGraph with the graph."""
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.formats.saved_model import META_GRAPH, facts, is_meta_graph
from isomorph.progress import SILENT, Progress
from isomorph.wire import protobuf_head
from isomorph.wire.protobuf_head import BYTES, VARINT

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Checkpoint, Model

TABLE = (0xDB4775248B80FB57).to_bytes(8, "little")          # the last eight bytes, tensorflow/core/lib/io/table_format
HEADER = {1: VARINT, 2: VARINT, 3: BYTES}                   # BundleHeaderProto
SHARD = re.compile(r"(.*)\.data-(\d{5})-of-(\d{5})$")


def identify(artifact: Artifact) -> Match | None:
    """Recognises the index by its table, the graph by its MetaGraphDef, and shards, which have no structure, by their name beside an index."""
    if artifact.is_folder:
        return _identify_folder(artifact)
    if SHARD.match(artifact.name):
        return _identify_shard(artifact)
    if artifact.size > 48 and bytes(artifact.view[-8:]) == TABLE:
        return _identify_index(artifact)
    return _identify_graph(artifact)


def _identify_index(artifact: Artifact) -> Match | None:
    """The first entry of the table has the empty key. Its value is the header of a bundle, or in version 1 a SavedTensorSlices with the data itself."""
    view = artifact.view
    if bytes(view[:2]) != b"\0\0":
        return None
    length, start = protobuf_head.varint(view, 2, min(len(view), 12))
    if start < 0 or start + length > len(view):
        return None
    header = protobuf_head.outline(view, start, start + length, 16)
    if header.valid and header.fits(HEADER):
        shards, order = header.first(1), header.first(2)
        count = shards.value if shards else 1
        prefix = artifact.name.removesuffix(".index")
        companions = [f"{prefix}.data-{index:05d}-of-{count:05d}" for index in range(min(count, 10_000))] + [f"{prefix}.meta"]
        detail: dict[str, Any] = {"shards": count, "byte_order": "big" if order and order.value else "little", "companions": companions}
        return Match("tf_checkpoint", "2", "index", "weights", detail)
    if header.valid and header.first(1) and header.fits({1: BYTES, 2: BYTES}):
        return Match("tf_checkpoint", "1", "single file", "weights", {})
    return None


def _identify_graph(artifact: Artifact) -> Match | None:
    """A .meta file: one MetaGraphDef, whose first field names the version of TensorFlow."""
    view = artifact.view
    meta = protobuf_head.outline(view, most=4_000)
    if not meta.fits(META_GRAPH) or not meta.first(1) or not is_meta_graph(view, meta, len(view)):
        return None
    detail = facts(view, meta)
    if not detail["tensorflow_version"] and not meta.first(3):
        return None
    return Match("tf_checkpoint", "", "meta graph", "graph", detail)


def _identify_shard(artifact: Artifact) -> Match | None:
    name = SHARD.match(artifact.name)
    index = artifact.sibling(f"{name[1]}.index") if name else None
    if name is None or index is None:
        return None
    return Match("tf_checkpoint", "2", "data", "weights", {"shard": int(name[2]) + 1, "shards": int(name[3])},
                 f"the tensors are listed in {index.name}: give that file")


def _identify_folder(artifact: Artifact) -> Match | None:
    """A folder with indexes and nothing that belongs to another format."""
    indexes = [name for name in artifact.names if name.endswith(".index")]
    prefixes = tuple(name.removesuffix(".index") for name in indexes)
    if not indexes or not all(name == "checkpoint" or name.startswith(prefixes) for name in artifact.names):
        return None
    index = artifact.child(indexes[-1])
    match = _identify_index(index) if index and not index.is_folder and bytes(index.view[-8:]) == TABLE else None
    if match:
        match.detail.update(checkpoints=list(prefixes), graph=any(name.endswith(".meta") for name in artifact.names))
    return match


def read(artifact: Artifact, *, signature: str | None = None, progress: Progress = SILENT) -> Model | Checkpoint:
    """A .meta file is a graph with the variables of the checkpoint beside it; an index, or a folder with one, is the tensors by name."""
    from isomorph.formats import _saved_model
    if not artifact.is_folder and (match := _identify_graph(artifact)) is not None and match.holds == "graph":
        return _saved_model.read_checkpoint_graph(artifact, signature)
    return _saved_model.read_checkpoint(artifact)


FORMAT = Format(
    name="tf_checkpoint", title="TensorFlow checkpoint", extensions=(".index", ".ckpt", ".meta"), holds="both", dialect="tf",
    spec="https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto", identify=identify, read=read,
)
