"""GraphModels of TensorFlow.js read and written: a GraphDef as JSON, whose constants lie in the weights."""
from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsupported
from isomorph.formats import _tfjs, _tfjs_initializer
from isomorph.formats._frozen import Frozen
from isomorph.formats._graphdef import Decoder, split_reference
from isomorph.formats._graphdef_writer import Encoder, type_of_value
from isomorph.formats._tf_tensors import ELEMENT, schema, shape_of, type_name
from isomorph.model import Model, Signature
from isomorph.report import Finding
from isomorph.tensors import array_tensor
from isomorph.wire import protobuf_json, tfjs_weights
from isomorph.wire.protobuf import Record
from isomorph.wire.tf_operators import REFERENCE, TYPES, operator

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

NUMBERS = {f"DT_{name.upper()}": number for name, number in TYPES.items()} | {f"DT_{name.upper()}_REF": number + REFERENCE for name, number in TYPES.items()}
ENUMS = {(message, field): NUMBERS for message, field in (("AttrValue", "type"), ("ListValue", "type"), ("TensorProto", "dtype"), ("ArgDef", "type"),
                                                          ("TensorInfo", "dtype"))}


# ---- reading

def read(artifact: Artifact) -> Model:
    """The graph between the inputs and outputs of the signature; without one, between placeholders and what nobody reads."""
    file = artifact.child("model.json") if artifact.is_folder else artifact
    if file is None:
        raise Damaged("there is no model.json", where=artifact.where)
    document = _tfjs.document(file)
    graph_def = protobuf_json.read(document.get("modelTopology"), schema()["GraphDef"], f"{file.where}, modelTopology", file.limits, ENUMS)
    targets = _tfjs_initializer.joined(graph_def, document, file.where, file.limits, ENUMS)
    stored = tfjs_weights.read(document.get("weightsManifest"), file.path.parent if file.path is not None else None, file.where, file.limits)
    decoder = Decoder(graph_def, file.where, file.limits, content=lambda node: _content(node, stored, file.where))
    signature = _signature(document)
    read_by = {split_reference(name.removeprefix("^"))[0] for node in graph_def.node for name in node.input}
    inputs = {name: str(info["name"]).removesuffix(":0") for name, info in signature["inputs"].items()}
    outputs = {name: str(info["name"]) for name, info in signature["outputs"].items()}
    if not outputs:
        outputs = {node.name: node.name for node in graph_def.node if node.name not in read_by and node.op not in SILENT}
    if not inputs:
        inputs = {node.name: node.name for node in graph_def.node if node.op in ("Placeholder", "PlaceholderV2")}
    graph = decoder.model(list(inputs.values()), list(outputs.values()), targets=targets)
    for values in (graph.graph.initializers, *(function.graph.initializers for function in graph.functions.values())):
        for name, value in values.items():
            if name in stored and stored[name].stored != stored[name].dtype:
                value.meta["stored"] = stored[name].stored.upper()
    for name, value in zip(inputs, graph.graph.inputs, strict=True):
        _know_shape(value, signature["inputs"].get(name, {}))
        _restated(graph.graph, value, signature["inputs"].get(name, {}))
    for place, name in enumerate(outputs):
        _restated(graph.graph, graph.graph.outputs[place], signature["outputs"].get(name, {}), place)
    names = Signature("serving_default", {name: str(value.name) for name, value in zip(inputs, graph.graph.inputs, strict=True)},
                      {name: str(value.name) for name, value in zip(outputs, graph.graph.outputs, strict=True)})
    metadata = {key: document[key] for key in ("generatedBy", "convertedBy", "userDefinedMetadata") if document.get(key) is not None}
    metadata["nodes"] = len(graph_def.node)
    return Model(graph, "tfjs", [names], metadata, [])


SILENT = (*_tfjs_initializer.FILLS[:4], "NoOp", "Const", "Placeholder", "PlaceholderV2", "Assert", "Print", "NextIteration")


def _signature(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Inputs and outputs by name, in the order of the file; empty where the file says nothing, or nothing that can be used."""
    stated = next((item for item in (document.get("signature"), (document.get("userDefinedMetadata") or {}).get("signature")
                                     if isinstance(document.get("userDefinedMetadata"), dict) else None) if isinstance(item, dict)), {})
    found = {}
    for side in ("inputs", "outputs"):
        entries = stated.get(side)
        good = isinstance(entries, dict) and all(isinstance(info, dict) and isinstance(info.get("name"), str) for info in entries.values())
        found[side] = {name: info for name, info in entries.items() if "resourceId" not in info} if good and isinstance(entries, dict) else {}
    return found


def _know_shape(value: Any, info: dict[str, Any]) -> None:
    import onnx_ir as ir
    shape = info.get("tensorShape")
    dims = shape.get("dim") if isinstance(shape, dict) else None
    if value.shape is None and isinstance(dims, list):
        sizes = [int(dim.get("size", -1)) if isinstance(dim, dict) and str(dim.get("size", "-1")).lstrip("-").isdigit() else -1 for dim in dims]
        value.shape = ir.Shape([size if size >= 0 else f"{value.name}_{axis}" for axis, size in enumerate(sizes)])


def _restated(graph: Any, value: Any, info: dict[str, Any], place: int | None = None) -> None:
    """An input, or the output at a place, in the type that the signature states, where nodes compute in another because TensorFlow.js does not know it."""
    import onnx_ir as ir
    stated = NUMBERS.get(str(info.get("dtype")))
    inside = TYPES.get(type_of_value(value), 0) if value.dtype is not None else 0
    if stated is None or stated == inside or UNKNOWN.get(stated) != inside:
        return
    names = {number: name for name, number in TYPES.items()}
    given, wanted = (stated, inside) if place is None else (inside, stated)
    cast = ir.node("Cast", [value], {"SrcT": names[given], "DstT": names[wanted]}, domain="tf", name=f"{value.name}/as_{names[wanted]}")
    (made,) = cast.outputs
    made.name, made.type, made.shape = cast.name, ir.TensorType(ir.DataType(ELEMENT[names[wanted]])), value.shape
    if place is None:
        value.type = ir.TensorType(ir.DataType(ELEMENT[names[given]]))
        value.replace_all_uses_with(made, replace_graph_outputs=True)
        cast.replace_input_with(0, value)
        if len(graph):
            graph.insert_before(graph[0], cast)
        else:
            graph.append(cast)
    else:
        graph.append(cast)
        graph.outputs[place] = made


def _content(node: Record, stored: dict[str, tfjs_weights.Weight], where: str) -> Any:
    """The tensor of a constant, in the type that the graph states; None where the node has its value itself."""
    weight = stored.get(node.name)
    if node.op != "Const" or weight is None:
        return None
    stated = node.attr["value"].tensor
    kind, dims = type_name(stated.dtype), shape_of(stated.tensor_shape) if stated.tensor_shape is not None else None
    if dims is not None and dims != weight.shape and -1 not in dims:
        raise Damaged(f"the graph says that {node.name!r} is {list(dims)}, the weights {list(weight.shape)}", where=where)
    return _tfjs.tensor(weight, ELEMENT.get(kind))


# ---- writing

def topology(model: Model) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """What model.json says of the graph, and (name, tensor) of every constant. The signature keeps the names that nodes may not have."""
    encoder = Frozen(model)
    record, _ = encoder.record()
    constants = _emptied(record.node)
    for function in record.library.function:
        _rename_constants(function)
        constants += _emptied(function.node_def)
    for node in (*record.node, *(node for function in record.library.function for node in function.node_def)):
        _with_defaults(node, encoder.encoder)
        for attr in node.attr.values():
            _known_types(attr)
    if record.library is not None and not record.library.function:
        record.library = schema()["FunctionDefLibrary"]()
    stated = (model.signatures or [Signature("serving_default", {}, {})])[0]
    values = {value.name: value for value in (*model.graph.inputs, *model.graph.outputs)}
    sides = {}
    for side, names, found in (("inputs", stated.inputs, model.graph.inputs), ("outputs", stated.outputs, model.graph.outputs)):
        pairs = names or {str(value.name): str(value.name) for value in found}
        sides[side] = {name: _info(encoder.names[values[value]], values[value]) for name, value in pairs.items() if value in values}
    document: dict[str, Any] = {"signature": sides}
    _tfjs_initializer.split(record, document, ENUMS)
    document["modelTopology"] = protobuf_json.write(record, ENUMS)
    return document, constants


# Types that TensorFlow.js does not know by name -> what it computes them in
UNKNOWN = {TYPES["bfloat16"]: TYPES["float"], **{TYPES[name]: TYPES["int32"] for name in ("int16", "uint16", "uint32", "uint64", "int4", "uint4")}}


def _known_types(attr: Record) -> None:
    """The signature keeps the types of inputs and outputs; nodes say what they compute in."""
    if "type" in attr:
        attr.type = UNKNOWN.get(attr.type, attr.type)
    if attr.list is not None and "type" in attr.list:
        attr.list.type = [UNKNOWN.get(kind, kind) for kind in attr.list.type]
    if attr.tensor is not None:
        attr.tensor.dtype = UNKNOWN.get(attr.tensor.dtype, attr.tensor.dtype)


def _with_defaults(node: Record, encoder: Encoder) -> None:
    """TensorFlow.js reads some attributes without knowing what stands for one that is left out."""
    known = operator(node.op)
    if known is not None and node.op != "Const":
        missing = {name: value for name, value in known.defaults.items() if name not in node.attr and value not in (None, "") and not name.startswith("_")}
        node.attr = {**{name: encoder.attribute(value, known.attributes.get(name, "")) for name, value in missing.items()}, **node.attr}


def _info(name: str, value: Any) -> dict[str, Any]:
    info: dict[str, Any] = {"name": name if ":" in name else f"{name}:0", "dtype": f"DT_{type_of_value(value).upper()}"}
    if value.shape is not None:
        info["tensorShape"] = {"dim": [{"size": str(dim if isinstance(dim, int) else -1)} for dim in value.shape]}
    return info


class _Empty:
    """What stands for the bytes of a constant in the topology: nothing."""

    nbytes = 0

    def chunks(self) -> Iterable[bytes]:
        return ()


def _emptied(nodes: Sequence[Record]) -> list[tuple[str, Any]]:
    """Takes the data out of the constants of a graph, and returns it with their names."""
    found = []
    for node in nodes:
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            data = tensor.__dict__.pop("tensor_content", None)
            words = tensor.__dict__.pop("string_val", None)
            found.append((node.name, _texts(node.name, words, shape_of(tensor.tensor_shape)) if data is None else data.tensor))
    return found


def _texts(name: str, words: Sequence[bytes], dims: Sequence[int] | None) -> Any:
    """A constant of texts."""
    import numpy as np
    texts = np.empty(len(words), object)
    texts[:] = words
    return array_tensor(texts.reshape(dims or ()), name)


def _rename_constants(function: Record) -> None:
    """TensorFlow.js looks for constants of all functions in one list, so they are called after their function."""
    names = {node.name: f"{function.signature.name}/{node.name}" for node in function.node_def if node.op == "Const"}

    def renamed(reference: str) -> str:
        name, _, place = reference.partition(":")
        return f"{names[name]}:{place}" if name in names else reference
    for node in function.node_def:
        node.name = names.get(node.name, node.name)
        node.input = [renamed(reference) for reference in node.input]
    function.ret = {label: renamed(reference) for label, reference in function.ret.items()}


def write(model: Model, path: Path, dtype: str | None, force: bool, advance: Any) -> tuple[dict[str, Any], list[Finding]]:
    """Writes model.json and its shards; the JSON appears last."""
    from isomorph.wire import files
    if model.dialect != "tfjs":
        raise Unsupported(f"a graph of the dialect {model.dialect!r} is not one of TensorFlow.js", hint="convert it first: isomorph convert --to tfjs_graph")
    file = path if path.suffix == ".json" else path / "model.json"
    about, constants = topology(model)
    stored, findings = _tfjs.stored(constants, dtype)
    manifest, shards, size = tfjs_weights.manifest_of(stored)
    document = {"format": "graph-model", "generatedBy": "isomorph", "convertedBy": f"isomorph {_version()}", **about, "weightsManifest": manifest}
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    with files.inside_new_folders([file.parent]), files.replacing_all([*(file.parent / name for name in shards), file], force=force) as opened:
        tfjs_weights.write(_counted(stored, advance), opened[:-1], size)
        opened[-1].write(text)
    total = sum(weight.nbytes for weight in stored)
    return {"format": "tfjs_graph", "bytes": len(text) + total, "weights": total, "shards": len(shards)}, findings


def _counted(stored: Iterable[tfjs_weights.Stored], advance: Any) -> Iterable[tfjs_weights.Stored]:
    for weight in stored:
        yield weight
        advance(weight.nbytes)


def _version() -> str:
    from isomorph import __version__
    return __version__


