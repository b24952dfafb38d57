"""TensorFlow GraphDef: a frozen graph, as a protobuf message or as its text."""
from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsupported
from isomorph.formats import Format, Match
from isomorph.progress import SILENT, Progress
from isomorph.report import Report
from isomorph.wire import protobuf_head, prototext_head
from isomorph.wire.protobuf_head import BYTES, VARINT, Field

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Model

# Fields of graph.proto and node_def.proto: number -> wire type
GRAPH = {1: BYTES, 2: BYTES, 3: VARINT, 4: BYTES, 5: BYTES}
NODE = dict.fromkeys(range(1, 8), BYTES)
NODES, LIBRARY, OLD_VERSION, VERSIONS = 1, 2, 3, 4
OPERATOR = re.compile(r"[A-Z_>][\w.>/-]*\Z", re.ASCII)
MOST_NODES = 3_000
MOST_BYTES = (1 << 31) - (1 << 20)          # of constants: a message has less than 2 GB
VARIABLES = {"Variable", "VariableV2", "VarHandleOp"}


def identify(artifact: Artifact) -> Match | None:
    """Recognises a message of nodes that have a name and an operator, binary or text: producer version, nodes, whether it is frozen."""
    if artifact.is_folder:
        return None
    if artifact.head[:1].isalpha() or artifact.head[:1] in b"#":
        return _identify_text(artifact)
    view = artifact.view
    message = protobuf_head.outline(view, most=MOST_NODES)
    nodes = message.all(NODES)
    if not message.valid or not message.fits(GRAPH) or not nodes:
        return None
    operators = [_operator(view, node) for node in nodes]
    if not all(operators):
        return None
    producer = _producer(view, message.first(VERSIONS))
    detail: dict[str, Any] = {"nodes": len(nodes), "functions": message.first(LIBRARY) is not None, "operators": sorted(set(operators))[:64]}
    if message.cut:
        detail["truncated"] = True
    elif not message.complete:
        detail["nodes"], detail["partly_read"] = f"more than {MOST_NODES}", True
    return Match("graphdef", producer, "not frozen" if VARIABLES & set(operators) else "frozen", "graph", detail)


def _operator(view: memoryview, item: Field) -> str:
    """The operator of a node, empty where the message is no node."""
    node = protobuf_head.outline(view, item.start, item.stop, 16)
    if not node.valid or not node.fits(NODE) or node.cut:
        return ""
    operator = protobuf_head.text(view, node.first(2))
    return operator if OPERATOR.match(operator) and protobuf_head.text(view, node.first(1)).isprintable() and node.first(1) else ""


def _producer(view: memoryview, item: Field | None) -> str:
    producer = protobuf_head.outline(view, item.start, item.stop, 8).first(1) if item else None
    return str(producer.value) if producer else ""


def _identify_text(artifact: Artifact) -> Match | None:
    head = prototext_head.read(artifact.head)
    fields = head.fields
    outermost = {key.split(".")[0] for key in fields}
    if not head.sound or not {"node.name", "node.op"} <= fields.keys() or not outermost <= {"node", "library", "versions", "version"}:
        return None
    return Match("graphdef", fields.get("versions.producer", ""), "text", "graph", {"functions": "library" in fields})


def read(artifact: Artifact, *, progress: Progress = SILENT) -> Model:
    """The graph in the dialect "tf": placeholders are its inputs, values that nobody reads its outputs."""
    from isomorph.formats import _saved_model
    return _saved_model.read_graph_def(artifact)


def write(model: Model, path: str | Path, *, force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes the graph as one message with its weights as constants, as sessions import it. Inputs become placeholders; outputs have their own names.

    Raises `Unsupported` for a graph of another dialect or one larger than a message may be, `Usage` where `path` exists and `force` is not set.
    """
    from isomorph.formats._frozen import frozen
    from isomorph.model import operators
    from isomorph.wire import files, protobuf
    if model.dialect != "tf":
        raise Unsupported(f"a graph of the dialect {model.dialect!r} is not one of TensorFlow", hint="convert it first: isomorph convert SRC DST.pb")
    path = Path(path)
    record, findings = frozen(model)
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if weights >= MOST_BYTES:
        raise Unsupported(f"{weights} bytes of weights in one message, which holds 2 GB", where=str(path), hint="write a SavedModel: --to saved_model")
    with files.replacing(path, force=force) as file:
        progress.start("write", weights, "bytes")
        size = protobuf.write(record, file)
        progress.finish()
    facts = {"format": "graphdef", "bytes": size, "operators": dict(sorted(operators(model).items()))}
    return Report(str(path), findings, facts)


FORMAT = Format(
    name="graphdef", title="TensorFlow GraphDef", extensions=(".pb", ".pbtxt"), holds="graph",
    spec="https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/framework/graph.proto", identify=identify, read=read, write=write,
    dialect="tf",
)
