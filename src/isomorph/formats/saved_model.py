"""TensorFlow SavedModel: a folder with saved_model.pb (or .pbtxt, or in chunks .cpb), its variables and its assets."""
from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsupported
from isomorph.formats import Format, Match
from isomorph.formats.graphdef import GRAPH
from isomorph.progress import SILENT, Progress
from isomorph.report import Report
from isomorph.wire import protobuf_head, prototext_head
from isomorph.wire.protobuf_head import BYTES, VARINT, Field, Outline
from isomorph.wire.riegeli import SIGNATURE

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Model

# Fields of saved_model.proto and meta_graph.proto: number -> wire type
MODEL = {1: VARINT, 2: BYTES}
META_GRAPH = dict.fromkeys(range(1, 8), BYTES)
META_INFO, GRAPH_DEF, SIGNATURES, OBJECT_GRAPH = 1, 2, 5, 7
TAGS, TENSORFLOW_VERSION = 4, 5
NAMES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")


def identify(artifact: Artifact) -> Match | None:
    """Recognises the folder, or the file alone: tags, TensorFlow version, signatures, generation (1 or 2), whether there are variables."""
    if not artifact.is_folder:
        return _identify_file(artifact)
    name = next((name for name in NAMES if name in artifact.names), None)
    if name is None:
        return None
    file = artifact.child(name)
    if file is None:
        return Match("saved_model", "", "chunked", "graph", {"variables": "variables" in artifact.names})
    match = _identify_file(file)
    if match is not None:
        match.detail["variables"] = "variables" in artifact.names
        match.detail["keras"] = "keras_metadata.pb" in artifact.names
    return match


def _identify_file(artifact: Artifact) -> Match | None:
    if artifact.suffix == ".cpb" and artifact.head[:len(SIGNATURE)] == SIGNATURE:
        return Match("saved_model", "", "chunked", "graph", {})
    text = prototext_head.read(artifact.head) if artifact.head[:1].isalpha() else None
    if text and text.sound and {"meta_graphs.graph_def", "meta_graphs.meta_info_def"} & text.fields.keys():
        return Match("saved_model", text.fields.get("saved_model_schema_version", ""), "text", "graph", {})
    view = artifact.view
    message = protobuf_head.outline(view, most=64)
    graphs = message.all(2) or [item for item in [message.first_or_cut(2, len(view))] if item]
    if not message.valid or not message.fits(MODEL) or not graphs:
        return None
    metas = [(item, protobuf_head.outline(view, item.start, item.stop, 4_000)) for item in graphs]
    if not all(is_meta_graph(view, meta, item.stop) for item, meta in metas):
        return None
    version = message.first(1)
    detail = facts(view, metas[0][1]) | {"meta_graphs": len(graphs)}
    if message.cut:
        detail["truncated"] = True
    flavour = "TensorFlow 2" if metas[0][1].first(OBJECT_GRAPH) else "TensorFlow 1"
    return Match("saved_model", str(version.value) if version else "", flavour, "graph", detail)


def is_meta_graph(view: memoryview, meta: Outline, end: int) -> bool:
    graph = meta.first_or_cut(GRAPH_DEF, end)
    if not meta.valid or not meta.fits(META_GRAPH) or graph is None:
        return False
    return protobuf_head.outline(view, graph.start, graph.stop, 8).fits(GRAPH)


def facts(view: memoryview, meta: Outline) -> dict[str, Any]:
    info = meta.first(META_INFO)
    fields = protobuf_head.outline(view, info.start, info.stop) if info else Outline()
    return {"tags": [protobuf_head.text(view, tag) for tag in fields.all(TAGS)],
            "tensorflow_version": protobuf_head.text(view, fields.first(TENSORFLOW_VERSION)),
            "signatures": [_key(view, entry) for entry in meta.all(SIGNATURES)]}


def _key(view: memoryview, entry: Field) -> str:
    """The key of an entry of a protobuf map."""
    return protobuf_head.text(view, protobuf_head.outline(view, entry.start, entry.stop, 4).first(1))


def read(artifact: Artifact, *, signature: str | None = None, progress: Progress = SILENT) -> Model:
    """The graph of one signature (`serving_default` where none is named) as a graph of the dialect "tf", with its variables from the checkpoint.

    Raises `Usage` for a signature that is not there, `Damaged`, `Unsafe` and `Missing` for what is wrong with the files.
    """
    from isomorph.formats import _saved_model
    return _saved_model.read_saved_model(artifact, signature)


def write(model: Model, path: str | Path, *, force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes a folder that TensorFlow loads with objects and in sessions, with the weights as variables. `path` is the folder or its saved_model.pb.

    The message appears last, so that a reader never finds half a model. Raises `Unsupported` for a graph of another dialect, `Usage` where a file exists
    and `force` is not set.
    """
    from isomorph.formats import _saved_model_writer as writing
    from isomorph.model import operators
    from isomorph.wire import files, protobuf, tensor_bundle
    if model.dialect != "tf":
        raise Unsupported(f"a graph of the dialect {model.dialect!r} is not one of TensorFlow", hint="convert it first: isomorph convert --to saved_model")
    path = Path(path)
    folder = path.parent if path.name == NAMES[0] else path
    writer = writing.Writer(model)
    record = writer.saved_model()
    stored = writer.checkpoint()
    variables = folder / "variables"
    names = [variables / tensor_bundle.shard_name("variables", 0, 1), variables / "variables.index", folder / "fingerprint.pb", folder / NAMES[0]]
    with files.inside_new_folders([folder, variables]), files.replacing_all(names, force=force) as (data, index, fingerprint, message):
        progress.start("write", sum(variable.nbytes for variable in writer.variables.values()), "bytes")
        listed = io.BytesIO()
        size = tensor_bundle.write(listed, data, stored, progress.advance)
        index.write(listed.getvalue())
        size += protobuf.write(record, message)
        fingerprint.write(writing.fingerprint(record, listed.getvalue()))
        progress.finish()
    facts = {"format": "saved_model", "bytes": size + listed.tell(), "variables": len(writer.variables),
             "signatures": [signature.name for signature in model.signatures], "operators": dict(sorted(operators(model).items()))}
    return Report(str(path), list(writer.findings), facts)


FORMAT = Format(
    name="saved_model", title="TensorFlow SavedModel", extensions=("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb"), holds="graph",
    spec="https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/saved_model.proto", identify=identify, read=read, write=write,
    dialect="tf",
)
