"""From an `onnx_ir.Model` to the records of an ONNX file. Tensors stay objects whose bytes are asked for when the file has come to their place."""
from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from isomorph import tensors
from isomorph.errors import Unsupported
from isomorph.formats._onnx_reader import DEVICES_KEY, EXTERNAL, QUANTIZATION_KEY, TYPE_KEY
from isomorph.tensors import NUMBER
from isomorph.wire import protobuf
from isomorph.wire.protobuf import Record

SCHEMA = protobuf.schema("onnx")
EXTERNAL_FLOOR = 1024              # bytes; smaller tensors stay in the graph, where shape inference needs them
PAGE, LINE = 4096, 64              # alignment of large and of small external tensors
PAGE_FLOOR = 1 << 20               # bytes from which a tensor begins on a page, so that it can be mapped by itself

# opset of ai.onnx -> least IR version of the release that brought it (onnx/docs/Versioning.md)
IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13, 27: 13, 28: 14}
# element type -> least IR version that knows it
TYPE_IR_VERSIONS = {"FLOAT8E4M3FN": 9, "FLOAT8E4M3FNUZ": 9, "FLOAT8E5M2": 9, "FLOAT8E5M2FNUZ": 9, "UINT4": 10, "INT4": 10, "FLOAT4E2M1": 11,
                    "FLOAT8E8M0": 12, "UINT2": 13, "INT2": 13, "FLOAT6E2M3": 14, "FLOAT6E3M2": 14}


class Payload:
    """The bytes of any tensor as the protobuf writer takes them, with progress."""

    def __init__(self, tensor: Any, progress: Any):
        self.tensor, self.progress, self.name, self.nbytes = tensor, progress, tensor.name, tensor.nbytes

    def chunks(self) -> Iterator[Any]:
        pieces = self.tensor.chunks() if isinstance(self.tensor, tensors.Tensor) else [tensors.packed(self.tensor.numpy())]
        for piece in pieces:
            yield piece
            self.progress.advance(memoryview(piece).nbytes)


class ExternalFile:
    """Where tensors come to stand in the data file: (offset, payload) in the order of the graph."""

    def __init__(self, name: str):
        self.name, self.size = name, 0
        self.payloads: list[tuple[int, Payload]] = []

    def place(self, payload: Payload) -> list[Record]:
        """Gives a payload its place and returns the `external_data` entries that say so."""
        alignment = PAGE if payload.nbytes >= PAGE_FLOOR else LINE
        offset = -(-self.size // alignment) * alignment
        self.payloads.append((offset, payload))
        self.size = offset + payload.nbytes
        return [SCHEMA["StringStringEntryProto"](key=key, value=str(value))
                for key, value in (("location", self.name), ("offset", offset), ("length", payload.nbytes))]

    def write(self, file: Any) -> None:
        at = 0
        for offset, payload in self.payloads:
            file.write(bytes(offset - at))
            protobuf.write_payload(payload, file)
            at = offset + payload.nbytes


class Writer:
    """Builds the records of one model. `external` is the data file where large initializers go, or None."""

    def __init__(self, progress: Any, external: ExternalFile | None = None):
        self.progress, self.external = progress, external
        self.names: dict[int, str] = {}
        self.functions_seen: set[Any] = set()
        self.least_ir_version = 3

    def model(self, model: ir.Model, metadata: dict[str, Any]) -> Record:
        self.name_values(model.graph, set())
        graph = self.graph(model.graph, lift=self.external is not None)
        functions = [self.function(function) for function in model.functions.values()]
        imports = self.imports(model.graph.opset_imports)
        if functions:
            self.need(8)
        record = SCHEMA["ModelProto"](
            producer_name=model.producer_name or "isomorph", graph=graph, opset_import=imports, metadata_props=self.pairs(model.metadata_props),
            functions=functions)
        for field in ("producer_version", "domain", "doc_string", "model_version"):
            if getattr(model, field):
                setattr(record, field, getattr(model, field))
        for field in ("training_info", "configuration"):
            if metadata.get(field):
                setattr(record, field, metadata[field])
        record.ir_version = max(self.least_ir_version, IR_VERSIONS.get(model.graph.opset_imports.get("", 13), 7))
        return record

    def need(self, ir_version: int) -> None:
        self.least_ir_version = max(self.least_ir_version, ir_version)

    def imports(self, versions: Any) -> list[Record]:
        return [SCHEMA["OperatorSetIdProto"](domain=domain, version=version) for domain, version in versions.items()]

    def pairs(self, entries: Any) -> list[Record]:
        return [SCHEMA["StringStringEntryProto"](key=str(key), value=str(value)) for key, value in entries.items()]

    # Names

    def name_values(self, graph: Any, outer: set[str]) -> None:
        """Gives every value of a graph a name that nothing visible from there has. Names of inputs, outputs and initializers come first and stay."""
        taken = set(outer)
        lasting = [*graph.inputs, *graph.outputs, *(graph.initializers.values() if isinstance(graph, ir.Graph) else ())]
        produced = [value for node in graph for value in node.outputs if value.name != "" or value.uses()]
        for value in (*lasting, *produced):
            if id(value) not in self.names:
                self.names[id(value)] = name = self.free_name(value.name or "value", taken)
                taken.add(name)
        for node in graph:
            for body in subgraphs(node):
                self.name_values(body, taken)

    def free_name(self, name: str, taken: set[str]) -> str:
        if name not in taken:
            return name
        number = 1
        while f"{name}_{number}" in taken:
            number += 1
        return f"{name}_{number}"

    def name(self, value: ir.Value | None) -> str:
        return "" if value is None else self.names.get(id(value), "")

    # Graphs and functions

    def graph(self, graph: ir.Graph, *, lift: bool = False) -> Record:
        """`lift` turns large Constant nodes into initializers, the only tensors that external data is sure to work for."""
        lifted = {node.outputs[0]: node.attributes["value"].value for node in graph if is_large_constant(node)} if lift else {}
        initializers = [(value, value.const_value) for value in graph.initializers.values()]
        missing = [value.name for value, tensor in initializers if tensor is None]
        if missing:
            raise Unsupported("initializers without data", where=", ".join(map(str, missing[:5])))
        written = [value for node in graph for value in node.outputs if self.name(value) and value not in graph.outputs]
        constants = [value for value, _ in initializers if value not in graph.inputs and value not in graph.outputs]
        record = SCHEMA["GraphProto"](
            name=graph.name or "main_graph",
            node=[self.node(node) for node in graph if not node.outputs or node.outputs[0] not in lifted],
            initializer=[self.tensor(tensor, self.name(value), external=True) for value, tensor in [*initializers, *lifted.items()]],
            input=[self.value_info(value) for value in graph.inputs], output=[self.value_info(value) for value in graph.outputs],
            # The tensor itself states the type and shape of a constant.
            value_info=[self.value_info(value) for value in constants if value.metadata_props or value.doc_string]
                       + [self.value_info(value) for value in written if self.tells_something(value)],
            quantization_annotation=[self.annotation(value) for value in [*graph.inputs, *constants, *written, *graph.outputs]
                                     if value.meta.get(QUANTIZATION_KEY)],
            metadata_props=self.graph_pairs(graph.metadata_props))
        if graph.doc_string:
            record.doc_string = graph.doc_string
        return record

    def graph_pairs(self, entries: Any) -> list[Record]:
        """Metadata of graphs, nodes, values and tensors, which came with IR version 10."""
        if entries:
            self.need(10)
        return self.pairs(entries)

    def annotation(self, value: ir.Value) -> Record:
        return SCHEMA["TensorAnnotation"](tensor_name=self.name(value), quant_parameter_tensor_names=self.pairs(value.meta[QUANTIZATION_KEY]))

    def node(self, node: ir.Node) -> Record:
        outputs = [self.name(value) for value in node.outputs]
        while outputs and not outputs[-1]:
            outputs.pop()
        record = SCHEMA["NodeProto"](input=[self.name(value) for value in node.inputs], output=outputs, op_type=node.op_type,
                                     attribute=[self.attribute(attribute) for attribute in node.attributes.values()],
                                     metadata_props=self.graph_pairs(node.metadata_props))
        for field in ("name", "domain", "overload", "doc_string"):
            if getattr(node, field):
                setattr(record, field, getattr(node, field))
        if node.overload:
            self.need(10)
        if node.meta.get(DEVICES_KEY):
            self.need(11)
            record.device_configurations = node.meta[DEVICES_KEY]
        return record

    def function(self, function: ir.Function) -> Record:
        self.name_values(function, set())
        values = [*function.inputs, *(value for node in function for value in node.outputs)]
        infos = [self.value_info(value) for value in values if self.name(value) and self.tells_something(value)]
        defaults = [attribute for attribute in function.attributes.values() if attribute.type != ir.AttributeType.UNDEFINED]
        record = SCHEMA["FunctionProto"](
            name=function.name, domain=function.domain, input=[self.name(value) for value in function.inputs],
            output=[self.name(value) for value in function.outputs], node=[self.node(node) for node in function],
            attribute=[attribute.name for attribute in function.attributes.values() if attribute.type == ir.AttributeType.UNDEFINED],
            attribute_proto=[self.attribute(attribute) for attribute in defaults], opset_import=self.imports(function.opset_imports),
            value_info=infos, metadata_props=self.graph_pairs(function.metadata_props))
        self.need(10 if infos or function.overload else 9 if defaults else 8)
        for field in ("overload", "doc_string"):
            if getattr(function, field):
                setattr(record, field, getattr(function, field))
        return record

    # Types

    def tells_something(self, value: ir.Value) -> bool:
        return value.type is not None or value.shape is not None or TYPE_KEY in value.meta or bool(value.metadata_props or value.doc_string)

    def value_info(self, value: ir.Value) -> Record:
        record = SCHEMA["ValueInfoProto"](name=self.name(value), metadata_props=self.graph_pairs(value.metadata_props))
        if value.type is not None:
            record.type = self.type(value.type, value.shape)
        elif TYPE_KEY in value.meta:
            record.type = value.meta[TYPE_KEY]
        elif value.shape is not None:
            record.type = SCHEMA["TypeProto"](tensor_type=SCHEMA["TensorType"](shape=self.shape(value.shape)))
        if value.doc_string:
            record.doc_string = value.doc_string
        return record

    def type(self, kind: Any, shape: Any) -> Record:
        if isinstance(kind, (ir.TensorType, ir.SparseTensorType)):
            self.need(TYPE_IR_VERSIONS.get(kind.dtype.name, 3))
            inner = SCHEMA["TensorType"](elem_type=int(kind.dtype))
            if shape is not None:
                inner.shape = self.shape(shape)
            record = SCHEMA["TypeProto"](**{"tensor_type" if isinstance(kind, ir.TensorType) else "sparse_tensor_type": inner})
        else:
            if isinstance(kind, ir.OptionalType):
                self.need(8)
            field = "sequence_type" if isinstance(kind, ir.SequenceType) else "optional_type"
            record = SCHEMA["TypeProto"](**{field: SCHEMA["SequenceType"](elem_type=self.type(kind.elem_type, shape))})
        if kind.denotation:
            record.denotation = kind.denotation
        return record

    def shape(self, shape: Any) -> Record:
        return SCHEMA["TensorShapeProto"](dim=[self.dimension(dim, shape.get_denotation(place)) for place, dim in enumerate(shape)])

    def dimension(self, dim: Any, denotation: str | None) -> Record:
        record = SCHEMA["Dimension"]()
        if isinstance(dim, int):
            record.dim_value = dim
        elif dim.value is not None:
            record.dim_param = str(dim.value)
        if denotation:
            record.denotation = denotation
        return record

    # Attributes and tensors

    def attribute(self, attribute: ir.Attr) -> Record:
        kind = attribute.type
        record = SCHEMA["AttributeProto"](name=attribute.name, type=int(kind))
        if attribute.doc_string:
            record.doc_string = attribute.doc_string
        if attribute.is_ref():
            record.ref_attr_name = attribute.ref_attr_name
        elif kind != ir.AttributeType.UNDEFINED:
            if kind not in ATTRIBUTE_WRITERS:
                raise Unsupported(f"an attribute of type {kind}", where=attribute.name)
            field, convert = ATTRIBUTE_WRITERS[kind]
            setattr(record, field, convert(self, attribute.value))
        return record

    def tensor(self, tensor: Any, name: str | None = None, *, external: bool = False) -> Record:
        number = int(tensor.dtype)
        self.need(TYPE_IR_VERSIONS.get(tensors.NAME[number], 3))
        record = SCHEMA["TensorProto"](dims=[int(dim) for dim in tensor.shape], data_type=number)
        label = tensor.name if name is None else name
        if label:
            record.name = label
        if tensor.doc_string:
            record.doc_string = tensor.doc_string
        record.metadata_props = self.graph_pairs(tensor.metadata_props)
        if number == NUMBER["STRING"]:
            record.string_data = string_data(tensor)
        elif external and self.external is not None and tensor.nbytes >= EXTERNAL_FLOOR:
            record.data_location = EXTERNAL
            record.external_data = self.external.place(Payload(tensor, self.progress))
        else:
            record.raw_data = Payload(tensor, self.progress)
        return record


def string_data(tensor: Any) -> list[bytes]:
    if isinstance(tensor, ir.StringTensor):
        return list(tensor.string_data())
    return [item if isinstance(item, bytes) else str(item).encode() for item in tensor.numpy().ravel()]


def is_large_constant(node: ir.Node) -> bool:
    if node.op_type != "Constant" or node.domain != "" or "value" not in node.attributes or node.attributes["value"].is_ref():
        return False
    return node.attributes["value"].value.nbytes >= EXTERNAL_FLOOR and int(node.attributes["value"].value.dtype) != NUMBER["STRING"]


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.value
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.value


def weights(model: ir.Model) -> Iterator[Any]:
    """Every tensor that a file of this model holds: initializers and attributes, also of subgraphs and functions."""
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        yield from _graph_weights(graph)


def _graph_weights(graph: Any) -> Iterator[Any]:
    yield from (value.const_value for value in graph.initializers.values() if value.const_value is not None)
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                yield attribute.value
            elif attribute.type == ir.AttributeType.TENSORS and not attribute.is_ref():
                yield from attribute.value
        for body in subgraphs(node):
            yield from _graph_weights(body)


def float32(value: float) -> float:
    """A double rounded to the float that the file can hold; beyond its range it becomes infinite."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


# type -> (field of AttributeProto, conversion of the value)
ATTRIBUTE_WRITERS: dict[Any, tuple[str, Any]] = {
    ir.AttributeType.FLOAT: ("f", lambda writer, value: float32(value)),
    ir.AttributeType.INT: ("i", lambda writer, value: int(value)),
    ir.AttributeType.STRING: ("s", lambda writer, value: _bytes(value)),
    ir.AttributeType.TENSOR: ("t", lambda writer, value: writer.tensor(value)),
    ir.AttributeType.GRAPH: ("g", lambda writer, value: writer.graph(value)),
    ir.AttributeType.FLOATS: ("floats", lambda writer, value: [float32(item) for item in value]),
    ir.AttributeType.INTS: ("ints", lambda writer, value: [int(item) for item in value]),
    ir.AttributeType.STRINGS: ("strings", lambda writer, value: [_bytes(item) for item in value]),
    ir.AttributeType.TENSORS: ("tensors", lambda writer, value: [writer.tensor(item) for item in value]),
    ir.AttributeType.GRAPHS: ("graphs", lambda writer, value: [writer.graph(item) for item in value]),
    ir.AttributeType.TYPE_PROTO: ("tp", lambda writer, value: writer.type(value.type, value.shape)),
    ir.AttributeType.TYPE_PROTOS: ("type_protos", lambda writer, value: [writer.type(item.type, item.shape) for item in value]),
}
