"""ONNX: one protobuf message, its weights inside or in files beside it.

Reading keeps every weight where it is, upgrades the graph to the hub's operator set and reports operators that ONNX does not define. Writing streams
tensor by tensor. Specification: https://github.com/onnx/onnx/blob/main/docs/IR.md
"""
from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import IsomorphError, Unsupported, Usage
from isomorph.formats import Capabilities, Format, Match
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity
from isomorph.tensors import TYPES
from isomorph.wire import files, protobuf, protobuf_head
from isomorph.wire.protobuf_head import BYTES, VARINT, Outline

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Model

# Fields of onnx.proto3 by which a file is recognised: number -> wire type
MODEL = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES, 20: BYTES, 25: BYTES, 26: BYTES}
GRAPH = dict.fromkeys((1, 2, 5, 10, 11, 12, 13, 14, 15, 16), BYTES)
NODE = dict.fromkeys((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), BYTES)
IR_VERSION, PRODUCER, PRODUCER_VERSION, GRAPH_FIELD, OPSET_IMPORT, FUNCTIONS = 1, 2, 3, 7, 8, 25
NODES, INITIALIZERS = 1, 5
EXTERNAL_DATA, DATA_LOCATION = 13, 14
MOST_INITIALIZERS = 2_000                  # looked at for external data; a file that has it nearly always has it in its first large tensor
OLDEST_WRITTEN = 13
# ONNX Runtime 1.31 has these only as they were before opset 22.
RANDOM = frozenset({"RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike", "Multinomial", "Bernoulli"})
RANDOM_OPSET = 21
EXTERNAL_ABOVE = 1_900_000_000             # bytes of weights; protobuf ends at 2 GiB
STANDARD_DOMAINS = {"", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"}
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
    if message.cut != GRAPH_FIELD or message.rest < 0 or not message.first(IR_VERSION):
        return None
    if not _is_graph(view, protobuf_head.outline(view, message.rest, None, 8)):
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
        fields = protobuf_head.outline(view, tensor.start, tensor.stop, 24)
        where = fields.first(DATA_LOCATION)
        if where is None or where.value != 1:
            continue
        for entry in fields.all(EXTERNAL_DATA):
            pair = protobuf_head.outline(view, entry.start, entry.stop, 4)
            if protobuf_head.text(view, pair.first(1)) == "location":
                files[protobuf_head.text(view, pair.first(2))] = None
    return list(files)[:64]


def read(artifact: Artifact, *, progress: Progress = SILENT, upgrade: bool = True) -> Model:
    """The model at the hub's operator set, or as the file has it with `upgrade=False`. `metadata` keeps the versions the file states.

    Raises `Damaged`, `Unsafe` (a companion outside the folder, nesting, sizes), `Missing` (a companion that is not there) and `Unsupported` (every
    node that has no equivalent at the hub's operator set).
    """
    from isomorph.formats._onnx_reader import Reader
    from isomorph.model import Model
    progress.start("read")
    schema = protobuf.schema("onnx")
    odd_text: list[int] = []
    record = protobuf.read(artifact.view, schema["ModelProto"], artifact.limits, artifact.where, odd_text=odd_text)
    reader = Reader(artifact)
    if odd_text:
        reader.findings.append(Finding("onnx.odd-text", Severity.LOW, f"{artifact.where}, byte {odd_text[0]}",
                                       f"{len(odd_text)} names or texts are not UTF-8; what cannot be decoded is spelled with backslashes"))
    graph = reader.model(record)
    imports = dict(graph.graph.opset_imports)
    metadata = {"ir_version": graph.ir_version, "opsets": imports, "producer": graph.producer_name or ""}
    metadata |= {field: list(getattr(record, field)) for field in ("training_info", "configuration") if field in record}
    model = Model(graph, "onnx", metadata=metadata, findings=reader.findings)
    model.findings += custom_operators(model, artifact.where)
    if upgrade:
        from isomorph.passes.upgrade import overridable
        from isomorph.passes.upgrade import upgrade as to_hub
        from isomorph.passes.well_formed import refuse_malformed
        model.findings += to_hub(graph, artifact.where) + overridable(graph, artifact.where)
        refuse_malformed(graph, artifact.where)
    progress.finish()
    return model


def custom_operators(model: Model, where: str) -> list[Finding]:
    """One finding for each operator that ONNX does not define and the model brings no function for."""
    from onnx import defs
    seen: dict[tuple[str, str], list[Any]] = {}
    for graph in [model.ir.graph, *(function.graph for function in model.ir.functions.values())]:
        for node in graph.all_nodes():
            if node.op_identifier() not in model.ir.functions and (node.domain not in STANDARD_DOMAINS or not defs.has(node.op_type, node.domain)):
                seen.setdefault((node.domain, node.op_type), []).append(node)
    return [Finding("operator.custom", Severity.INFO if domain == "com.microsoft" else Severity.LOW, f"{where}, {nodes[0].name or name}",
                    f"{domain or 'ai.onnx'}::{name} is not an ONNX operator and is kept as it is ({len(nodes)} of them)")
            for (domain, name), nodes in seen.items()]


def write(model: Model, path: str | os.PathLike, *, force: bool = False, progress: Progress = SILENT, opset: int | None = None,
          external_data: bool | str = "auto", genai: bool = False) -> Report:
    """Writes the graph at `opset` (13 up, the hub's unless given). `external_data` puts weights into `<name>.data` beside it: True, False or "auto",
    which does so above 1.9 GB. Both files appear at the end or not at all. Peak memory is the graph and one tensor. With `genai`, what onnxruntime-genai asks
    for stands beside the graph of a language model.

    Raises `Usage` (the output exists, the opset is out of range, a single file would exceed 2 GB) and `Unsupported` (nodes without an equivalent).
    """
    from isomorph.formats._onnx_writer import ExternalFile, Writer, weights
    from isomorph.model import HUB_OPSET
    path = Path(path)
    graph, findings = _at_opset(model, _usual_opset(model, HUB_OPSET) if opset is None else opset)
    total = sum(tensor.nbytes for tensor in weights(graph))
    apart = total > EXTERNAL_ABOVE if external_data == "auto" else bool(external_data)
    if not apart and total > EXTERNAL_ABOVE:
        raise Usage(f"{total} bytes of weights do not fit into one file, which ends at 2 GiB", where=str(path), hint="use external data")
    external = ExternalFile(_data_name(path)) if apart else None
    texts, said = _for_generators(model, path) if genai else ({}, [])
    writer = Writer(progress, external)
    record = writer.model(graph, model.metadata)
    progress.start("write", total, "bytes")
    if external is None or not external.payloads:
        with files.replacing(path, force=force) as file:
            protobuf.write(record, file)
    else:
        with files.replacing_all([path.with_name(external.name), path], force=force) as (data, file):
            external.write(data)
            protobuf.write(record, file)
    for name in _data_names(path):
        # What an overwritten model had beside it is part of what was overwritten.
        if force and (external is None or name != external.name):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(name).unlink()
    with files.replacing_all([path.with_name(name) for name in texts], force=force) as outputs:
        for text, output in zip(texts.values(), outputs, strict=True):
            output.write(text.encode("utf-8", "surrogateescape"))
    progress.finish()
    facts = {"bytes": path.stat().st_size + (external.size if external else 0), "opset": graph.graph.opset_imports.get("", 0),
             "ir_version": record.ir_version, "external_data": external.name if external and external.payloads else None}
    return Report(str(path), [*findings, *said], facts | ({"files": [path.name, *texts]} if texts else {}))


def _for_generators(model: Model, path: Path) -> tuple[dict[str, str], list[Finding]]:
    from isomorph.architectures import generators
    return generators.beside(model, path.name)


def _usual_opset(model: Model, newest: int) -> int:
    """The newest opset, but for a graph with random numbers one that ONNX Runtime has kernels for; where it cannot be lowered, the newest after all."""
    graphs = (model.ir.graph, *model.ir.graph.subgraphs())
    random = any(node.op_type in RANDOM for graph in graphs for node in graph)
    if model.dialect != "onnx" or model.ir.graph.opset_imports.get("", newest) != newest or not random:
        return newest
    from isomorph.passes.downgrade import downgrade
    try:
        downgrade(model.ir.clone(), RANDOM_OPSET)
    except Unsupported:
        return newest
    return RANDOM_OPSET


def _data_names(path: Path) -> tuple[str, str]:
    """The names a data file may have. Two, so that overwriting a model never touches the data that the old one still needs."""
    return f"{path.name}.data", f"{path.name}.1.data"


def _data_name(path: Path) -> str:
    return next((name for name in _data_names(path) if not os.path.lexists(path.with_name(name))), _data_names(path)[0])


def _at_opset(model: Model, opset: int) -> tuple[Any, list[Finding]]:
    """The graph at `opset`: the model's own, untouched, or a downgraded copy that shares its tensors."""
    if model.dialect != "onnx":
        raise IsomorphError(f"a graph of dialect {model.dialect} was handed to the ONNX writer", where=str(model.graph.name))
    from isomorph.model import HUB_OPSET
    if not OLDEST_WRITTEN <= opset <= HUB_OPSET:
        raise Usage(f"opset {opset} cannot be written", hint=f"choose {OLDEST_WRITTEN} to {HUB_OPSET}")
    model.ir.graph.opset_imports.setdefault("", HUB_OPSET)
    if opset == model.ir.graph.opset_imports[""]:
        return model.ir, []
    from isomorph.passes.downgrade import downgrade
    copy = model.ir.clone()
    return copy, downgrade(copy, opset)


FORMAT = Format(
    name="onnx", title="ONNX", extensions=(".onnx",), holds="graph", spec="https://github.com/onnx/onnx/blob/main/docs/IR.md",
    identify=identify, read=read, write=write, dialect="onnx",
    can=Capabilities(dtypes=frozenset(TYPES), dynamic_shapes=True, control_flow=True, quantised=True, versions=(1, 28)),
)
