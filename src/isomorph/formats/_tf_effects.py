"""Operators of a TensorFlow graph that would touch files, processes, the network or Python. They are named in findings and never run.

The walk goes through the graph, every function of its library, and texts inside constants that are graphs themselves.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from isomorph.errors import IsomorphError
from isomorph.formats._tf_tensors import schema
from isomorph.report import Finding, Severity
from isomorph.wire import protobuf, tf_operators
from isomorph.wire.limits import Limits
from isomorph.wire.protobuf import Record

RUNS = "runs code of its own"
READS = "reads files"
WRITES = "writes files"
NETWORK = "talks to the network"
HIDES = "runs a graph that is hidden in its input"
EFFECTS: dict[str, tuple[str, Severity]] = {
    **dict.fromkeys(("PyFunc", "PyFuncStateless", "EagerPyFunc", "LoadLibrary", "RemoteCall", "RemoteFusedGraphExecute"), (RUNS, Severity.CRITICAL)),
    **dict.fromkeys(("WriteFile", "Save", "SaveSlices", "SaveDataset", "SaveDatasetV2", "SnapshotDataset", "SnapshotDatasetV2",
                     "WriteSummary", "WriteScalarSummary", "WriteImageSummary", "WriteAudioSummary", "WriteHistogramSummary", "WriteGraphSummary",
                     "WriteRawProtoSummary", "CreateSummaryFileWriter", "ImportEvent"), (WRITES, Severity.CRITICAL)),
    **dict.fromkeys(("ReadFile", "MatchingFiles", "WholeFileReader", "WholeFileReaderV2", "TextLineReader", "TextLineReaderV2", "TFRecordReader",
                     "TFRecordReaderV2", "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2",
                     "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "MatchingFilesDataset", "CSVDataset", "CSVDatasetV2", "SqlDataset",
                     "LoadDataset", "ImmutableConst", "Restore", "RestoreSlice", "LoadAndRemapMatrix", "GenerateVocabRemapping"), (READS, Severity.HIGH)),
    **dict.fromkeys(("DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3", "DataServiceDatasetV4", "RpcClient", "RpcServer", "RpcCall"),
                    (NETWORK, Severity.HIGH)),
    **dict.fromkeys(("DatasetFromGraph",), (HIDES, Severity.HIGH)),
}
CHECKPOINTS = {"RestoreV2": READS, "SaveV2": WRITES, "MergeV2Checkpoints": WRITES}
DEPTH = 4
SMALLEST = 16                       # bytes of a text that could be a graph with an operator of interest
MOST = 200                          # findings of one file


def findings(graph_def: Record, where: str) -> list[Finding]:
    """One finding for every operator with an effect."""
    found = []
    for node, place, effect, severity in _walk(graph_def, where, 0):
        found.append(Finding("tf.effect", severity, f"{place}/{node}", f"{effect}; isomorph never runs it", "do not run this file where it can do harm"))
        if len(found) >= MOST:
            break
    return found


def _walk(graph_def: Record, place: str, depth: int) -> Iterator[tuple[str, str, str, Severity]]:
    yield from _nodes(graph_def.node, place, depth, {})
    for function in graph_def.library.function if graph_def.library is not None else ():
        name = function.signature.name if function.signature is not None else ""
        arguments = {argument.name: argument for argument in (function.signature.input_arg if function.signature is not None else ())}
        yield from _nodes(function.node_def, f"{place}, function {name}", depth, arguments)


def _nodes(nodes: Iterable[Record], place: str, depth: int, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Severity]]:
    nodes = list(nodes)
    listed = {node.name: node for node in nodes}
    for node in nodes:                                  # not `listed`: of two nodes with one name both are looked at
        if node.op in EFFECTS:
            yield (node.name, place, f"the operator {node.op} {EFFECTS[node.op][0]}", EFFECTS[node.op][1])
        elif node.op in CHECKPOINTS and _decided(node, listed, arguments):
            yield (node.name, place, f"the operator {node.op} {CHECKPOINTS[node.op]} at a place that the graph itself decides", Severity.HIGH)
        elif node.op == "PrintV2" and "output_stream" in node.attr and bytes(node.attr["output_stream"].s).startswith(b"file:"):
            yield (node.name, place, f"the operator PrintV2 {WRITES}", Severity.CRITICAL)
        elif tf_operators.operator(node.op) is None and node.op.startswith(("Py", "Shell", "Exec")):
            yield (node.name, place, f"the operator {node.op}, which TensorFlow does not have, may run code", Severity.HIGH)
        for label, attr in node.attr.items():
            for text in _texts(attr):
                yield from _hidden(text, f"{place}, {node.name}, {label}", depth)


def _decided(node: Record, nodes: Mapping[str, Record], arguments: Mapping[str, Any]) -> bool:
    """Whether the path comes from the graph: a saver's comes from its placeholder or, in functions, from an argument."""
    waiting, seen = list(node.input[:2] if node.op == "MergeV2Checkpoints" else node.input[:1]), set()
    while waiting:
        name = waiting.pop().removeprefix("^").partition(":")[0]
        if name in seen:
            continue
        seen.add(name)
        source = nodes.get(name)
        if name in arguments or source is None or source.op.startswith("Placeholder"):
            return False
        waiting += source.input
    return True


def _texts(attr: Record) -> Iterator[Any]:
    if "s" in attr:
        yield attr.s
    if attr.tensor is not None:
        yield from attr.tensor.string_val
        if attr.tensor.dtype in (tf_operators.TYPES["string"], tf_operators.TYPES["uint8"]) and len(attr.tensor.tensor_content):
            yield attr.tensor.tensor_content
    if attr.list is not None:
        yield from attr.list.s


def _hidden(text: Any, place: str, depth: int) -> Iterator[tuple[str, str, str, Severity]]:
    """A text that is a GraphDef, a SavedModel or a FunctionDef."""
    if len(text) < SMALLEST or depth >= DEPTH or bytes(text[:1]) not in (b"\x0a", b"\x08", b"\x12", b"\x1a"):
        return
    graph = _graph_in(text)
    if graph is None:
        return
    yield ("", place, "a constant holds a graph", Severity.MEDIUM)
    yield from _walk(graph, f"{place} (hidden graph)", depth + 1)


def _graph_in(text: Any) -> Record | None:
    kinds = schema()
    for message in ("GraphDef", "SavedModel", "FunctionDef"):
        try:
            record = protobuf.read(memoryview(bytes(text)), kinds[message], Limits(recursion=50))
        except (IsomorphError, ValueError):
            continue
        if message == "SavedModel":
            graphs = [meta.graph_def for meta in record.meta_graphs if meta.graph_def is not None]
            record = graphs[0] if graphs and record.saved_model_schema_version < 16 else kinds["GraphDef"]()
        if message == "FunctionDef":
            record = kinds["GraphDef"](node=list(record.node_def))
        nodes = list(record.node) or [node for function in (record.library.function if record.library is not None else ()) for node in function.node_def]
        if nodes and all((node.name and node.op[:1].isupper()) or node.op[:1] == "_" for node in nodes) and not record.unknown_fields:
            return record
    return None
