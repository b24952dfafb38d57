"""ONNX: one protobuf message, its weights inside or in files beside it."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.wire import protobuf_head
from isomorph.wire.protobuf_head import BYTES, VARINT, Outline

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

# Fields of onnx.proto3 by which a file is recognised: number -> wire type
MODEL = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES, 20: BYTES, 25: BYTES, 26: BYTES}
GRAPH = dict.fromkeys((1, 2, 5, 10, 11, 12, 13, 14, 15, 16), BYTES)
NODE = dict.fromkeys((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), BYTES)
IR_VERSION, PRODUCER, PRODUCER_VERSION, GRAPH_FIELD, OPSET_IMPORT, FUNCTIONS = 1, 2, 3, 7, 8, 25
NODES, INITIALIZERS = 1, 5
EXTERNAL_DATA, DATA_LOCATION = 13, 14
MOST_INITIALIZERS = 3_000                  # looked at for external data; a file that has it nearly always has it in its first large tensor
NEWEST_IR = 64                             # far above any IR version there is; a larger first varint belongs to another format


def identify(artifact: Artifact) -> Match | None:
    """Recognises a ModelProto by its fields: IR version, opset imports, producer, and whether tensors lie in other files."""
    if artifact.is_folder:
        return None
    view = artifact.view
    message = protobuf_head.outline(view)
    version = message.first(IR_VERSION)
    graph = message.first(GRAPH_FIELD)
    if not message.valid or not message.fits(MODEL) or (version and version.value > NEWEST_IR):
        return None
    if graph is None:
        return _cut_off(view, message)
    if not (version or message.first(OPSET_IMPORT)) or not _is_graph(view, protobuf_head.outline(view, graph.start, graph.stop, 8)):
        return None
    opsets = _opsets(view, message)
    detail: dict[str, Any] = _head(view, message) | {"opset": opsets.get("ai.onnx"), "domains": opsets, "functions": len(message.all(FUNCTIONS))}
    locations = _external_files(view, graph)
    detail["external_data"] = bool(locations)
    if locations:
        detail["companions"] = locations
    if message.cut:
        detail["truncated"] = True
    return Match("onnx", str(version.value if version else ""), "external data" if locations else "", "graph", detail)


def _head(view: memoryview, message: Outline) -> dict[str, Any]:
    version = message.first(IR_VERSION)
    producer = [protobuf_head.text(view, message.first(number)) for number in (PRODUCER, PRODUCER_VERSION)]
    return {"ir_version": version.value if version else None, "producer": " ".join(text for text in producer if text)}


def _cut_off(view: memoryview, message: Outline) -> Match | None:
    """A model whose graph runs over the end of the file. Only a graph that begins like one counts: other formats have a field 7, too."""
    if message.cut != GRAPH_FIELD or not message.first(IR_VERSION):
        return None
    last = message.fields[-1].stop
    _, begin = protobuf_head.varint(view, last + 1, len(view))
    if begin < 0 or not _is_graph(view, protobuf_head.outline(view, begin, None, 8)):
        return None
    return Match("onnx", str(message.fields[0].value), "", "graph", _head(view, message) | {"truncated": True},
                 "the file ends inside the graph: download or copy it again")


def _is_graph(view: memoryview, graph: Outline) -> bool:
    if not graph.valid or not graph.fits(GRAPH) or not (graph.fields or graph.cut in GRAPH):
        return False
    node = graph.first(NODES)
    return node is None or protobuf_head.outline(view, node.start, node.stop, 64).fits(NODE)


def _opsets(view: memoryview, message: Outline) -> dict[str, int]:
    """Domain -> version of every opset import; the default domain is written out as ai.onnx."""
    opsets = {}
    for item in message.all(OPSET_IMPORT):
        opset = protobuf_head.outline(view, item.start, item.stop, 8)
        version = opset.first(2)
        opsets[protobuf_head.text(view, opset.first(1)) or "ai.onnx"] = version.value if version else 0
    return opsets


def _external_files(view: memoryview, graph: protobuf_head.Field) -> list[str]:
    """The files that hold initializers, in order of appearance."""
    files: dict[str, None] = {}
    tensors = protobuf_head.outline(view, graph.start, graph.stop).all(INITIALIZERS)
    for tensor in tensors[:MOST_INITIALIZERS]:
        fields = protobuf_head.outline(view, tensor.start, tensor.stop, 64)
        where = fields.first(DATA_LOCATION)
        if where is None or where.value != 1:
            continue
        for entry in fields.all(EXTERNAL_DATA):
            pair = protobuf_head.outline(view, entry.start, entry.stop, 4)
            if protobuf_head.text(view, pair.first(1)) == "location":
                files[protobuf_head.text(view, pair.first(2))] = None
    return list(files)[:64]


FORMAT = Format(
    name="onnx", title="ONNX", extensions=(".onnx",), holds="graph", spec="https://github.com/onnx/onnx/blob/main/docs/IR.md",
    identify=identify, dialect="onnx",
)
