"""From the records of an ONNX file to an `onnx_ir.Model`. Weights stay where they are: slices of the mapped file or of its external data."""
from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from isomorph import tensors
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Missing, Unsafe, Unsupported
from isomorph.report import Finding, Severity
from isomorph.tensors import BITS, NAME, NUMBER, ComputedTensor, SliceTensor
from isomorph.wire import files
from isomorph.wire.protobuf import Record

EXTERNAL = 1
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}
QUANTIZATION_KEY = "quant_parameter_tensor_names"          # where onnx_ir keeps a quantisation annotation in Value.meta
TYPE_KEY = "onnx.type"                                     # Value.meta of a type that onnx_ir has no class for: the TypeProto record
DEVICES_KEY = "onnx.device_configurations"                 # Node.meta: the records, carried as they are
FRAGMENT = 120                                             # characters of a name that a message shows

PACKED_BITS = (2, 4)               # types of which int32_data holds whole packed bytes; 6-bit ones stand alone there

# typed data fields of a TensorProto: element types they may hold
TYPED = {
    "float_data": {"FLOAT", "COMPLEX64"}, "double_data": {"DOUBLE", "COMPLEX128"}, "int64_data": {"INT64"}, "uint64_data": {"UINT64", "UINT32"},
    "int32_data": {"INT32", "UINT8", "INT8", "UINT16", "INT16", "BOOL", "FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2",
                   "FLOAT8E5M2FNUZ", "FLOAT8E8M0", "UINT4", "INT4", "FLOAT4E2M1", "UINT2", "INT2", "FLOAT6E2M3", "FLOAT6E3M2"},
}


@dataclass
class Scope:
    """The names a graph defines. `pending` are outputs of its nodes that are not built yet; using one shows that nodes are out of order."""

    values: dict[str, ir.Value]
    pending: set[str] = field(default_factory=set)
    unsorted: bool = False


class Reader:
    """Builds one model. `findings` collects what is worth knowing."""

    def __init__(self, artifact: Artifact):
        self.artifact, self.limits, self.where = artifact, artifact.limits, artifact.where
        self.findings: list[Finding] = []
        self.companions: dict[str, memoryview] = {}
        self.tensor_count = 0

    def damaged(self, what: str, place: str = "") -> Damaged:
        return Damaged(what, where=f"{self.where}, {place}" if place else self.where)

    def model(self, record: Record) -> ir.Model:
        if "graph" not in record:
            raise self.damaged("the model holds no graph")
        functions = [self.function(function) for function in record.functions]
        model = ir.Model(
            self.graph(record.graph, []), ir_version=record.ir_version, producer_name=record.producer_name or None,
            producer_version=record.producer_version or None, domain=record.domain or None, model_version=record.model_version or None,
            doc_string=record.doc_string or None, functions=self.unique_functions(functions), metadata_props=self.pairs(record.metadata_props))
        model.graph.opset_imports.update(self.imports(record.opset_import))
        self.refuse_recursion(model)
        self.complete_calls(model)
        return model

    def complete_calls(self, model: ir.Model) -> None:
        """A call may leave the last outputs of a function out; here it has them all, without names, because inlining pairs them up."""
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            for node in graph.all_nodes():
                function = model.functions.get(node.op_identifier())
                given = len(node.outputs)
                if function is not None and given < len(function.outputs):
                    node.resize_outputs(len(function.outputs))
                    for value in node.outputs[given:]:
                        value.name = ""

    def imports(self, records: Iterable[Record]) -> dict[str, int]:
        versions: dict[str, int] = {}
        for record in records:
            domain = "" if record.domain == "ai.onnx" else record.domain
            if versions.get(domain, record.version) != record.version:
                raise self.damaged(f"versions {versions[domain]} and {record.version} of the operator set {domain or 'ai.onnx'!r} are imported at once")
            versions[domain] = record.version
        return versions

    def pairs(self, records: Iterable[Record]) -> dict[str, str]:
        return {record.key: record.value for record in records}

    # Graphs and functions

    def graph(self, record: Record, scopes: list[Scope]) -> ir.Graph:
        annotations = {item.tensor_name: self.pairs(item.quant_parameter_tensor_names) for item in record.quantization_annotation}
        infos = {info.name: info for info in record.value_info}
        inputs = [self.described(ir.Value(name=info.name), info) for info in record.input]
        scope = Scope({str(value.name): value for value in inputs})
        if len(scope.values) != len(inputs):
            raise self.damaged("two inputs have the same name", f"graph {record.name[:FRAGMENT]!r}")
        scopes = [*scopes, scope]
        initializers = [self.initializer(self.tensor(item), scope, infos) for item in record.initializer]
        initializers += [self.initializer(self.sparse(item), scope, infos) for item in record.sparse_initializer]
        nodes = self.nodes(record.node, scopes, infos)
        outputs = [self.output(info, scopes, nodes, record.name) for info in record.output]
        for name, annotation in annotations.items():
            if name in scope.values:
                scope.values[name].meta[QUANTIZATION_KEY] = annotation
        graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=[value for value in initializers if value is not None], name=record.name or None,
                         doc_string=record.doc_string or None, metadata_props=self.pairs(record.metadata_props))
        self.sort(graph, scope, record.name)
        return graph

    def initializer(self, tensor: Any, scope: Scope, infos: dict[str, Record]) -> ir.Value | None:
        name = tensor.name
        if not name:
            self.findings.append(Finding("onnx.unnamed-initializer", Severity.LOW, self.where, "an initializer without a name was left out"))
            return None
        value = scope.values.get(name)
        if value is None:
            value = scope.values[name] = ir.Value(name=name)
            if name in infos:
                self.described(value, infos[name])
        elif value.const_value is not None:
            raise self.damaged(f"two initializers are called {name[:FRAGMENT]!r}")
        value.const_value = tensor
        if value.type is None:
            value.type = ir.TensorType(tensor.dtype)
        if value.shape is None:
            value.shape = ir.Shape(tensor.shape)
        return value

    def nodes(self, records: Iterable[Record], scopes: list[Scope], infos: dict[str, Record]) -> list[ir.Node]:
        scope = scopes[-1]
        for record in records:
            for name in record.output:
                if not name:
                    continue
                if name in scope.values:
                    raise self.damaged(f"the value {name[:FRAGMENT]!r} is produced twice", self.place(record))
                value = scope.values[name] = ir.Value(name=name)
                scope.pending.add(name)
                if name in infos:
                    self.described(value, infos[name])
        return [self.node(record, scopes) for record in records]

    def place(self, record: Record) -> str:
        return f"{record.op_type[:FRAGMENT]} {record.name[:FRAGMENT]!r}"

    def node(self, record: Record, scopes: list[Scope]) -> ir.Node:
        inputs = [self.used(name, scopes, record) if name else None for name in record.input]
        attributes: dict[str, ir.Attr] = {}
        for item in record.attribute:
            if item.name in attributes:
                raise self.damaged(f"the attribute {item.name[:FRAGMENT]!r} is given twice", self.place(record))
            attributes[item.name] = self.attribute(item, scopes, record)
        outputs = [scopes[-1].values[name] if name else ir.Value(name="") for name in record.output]
        node = ir.Node("" if record.domain == "ai.onnx" else record.domain, record.op_type, inputs, attributes, outputs=outputs, name=record.name,
                       overload=record.overload, doc_string=record.doc_string or None, metadata_props=self.pairs(record.metadata_props))
        if record.device_configurations:
            node.meta[DEVICES_KEY] = record.device_configurations
        scopes[-1].pending.difference_update(record.output)
        return node

    def used(self, name: str, scopes: list[Scope], record: Record) -> ir.Value:
        for scope in reversed(scopes):
            if name in scope.values:
                scope.unsorted |= name in scope.pending
                return scope.values[name]
        raise self.damaged(f"the value {name[:FRAGMENT]!r} is used and nothing produces it", self.place(record))

    def output(self, info: Record, scopes: list[Scope], nodes: list[ir.Node], graph_name: str) -> ir.Value:
        """A graph's output. A subgraph may hand out a value of an outer graph; an Identity gives it one of its own, which onnx_ir demands."""
        for scope in reversed(scopes):
            if info.name not in scope.values:
                continue
            if scope is scopes[-1]:
                return self.described(scope.values[info.name], info)
            scope.unsorted |= info.name in scope.pending
            nodes.append(ir.node("Identity", [scope.values[info.name]], outputs=[ir.Value(name=f"{info.name}/output")]))
            return self.described(nodes[-1].outputs[0], info)
        raise self.damaged(f"the output {info.name[:FRAGMENT]!r} is produced by nothing", f"graph {graph_name[:FRAGMENT]!r}")

    def sort(self, graph: Any, scope: Scope, name: str) -> None:
        if scope.unsorted:
            try:
                graph.sort()
            except ValueError:
                raise self.damaged("its nodes form a cycle", f"graph {name[:FRAGMENT]!r}") from None

    def function(self, record: Record) -> ir.Function:
        inputs = [ir.Value(name=name) for name in record.input]
        scope = Scope({str(value.name): value for value in inputs})
        if len(scope.values) != len(inputs):
            raise self.damaged("two inputs have the same name", f"function {record.name[:FRAGMENT]!r}")
        infos = {info.name: info for info in record.value_info}
        for value in inputs:
            if value.name in infos:
                self.described(value, infos[value.name])
        nodes = self.nodes(record.node, [scope], infos)
        outputs = [self.used(name, [scope], record.node[-1] if record.node else Record(op_type="function", name=record.name)) for name in record.output]
        graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports=self.imports(record.opset_import), name=record.name,
                         doc_string=record.doc_string or None, metadata_props=self.pairs(record.metadata_props))
        self.sort(graph, scope, record.name)
        defaults = [self.attribute(item, [], record) for item in record.attribute_proto]
        required = [ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in record.attribute]
        return ir.Function(record.domain, record.name, record.overload, graph=graph, attributes=[*defaults, *required])

    def unique_functions(self, functions: list[ir.Function]) -> list[ir.Function]:
        if len({function.identifier() for function in functions}) != len(functions):
            raise self.damaged("two functions have the same name")
        return functions

    def refuse_recursion(self, model: ir.Model) -> None:
        """Functions may not call each other in a circle: nothing could ever inline or run them."""
        calls = {name: {node.op_identifier() for node in function.all_nodes()} & model.functions.keys() for name, function in model.functions.items()}
        while calls:
            leaves = {name for name, callees in calls.items() if not callees & calls.keys()}
            if not leaves:
                domain, name, _ = next(iter(calls))
                raise self.damaged("functions call each other in a circle", f"function {domain}::{name}"[:FRAGMENT])
            calls = {name: callees for name, callees in calls.items() if name not in leaves}

    # Types

    def described(self, value: ir.Value, info: Record) -> ir.Value:
        """Gives a value the type and shape that the file states for it."""
        if info.type is not None:
            value.type, value.shape = self.type_and_shape(info.type)
            if value.type is None and len(info.type.__dict__):
                value.meta[TYPE_KEY] = info.type
        value.doc_string = info.doc_string or None
        value.metadata_props.update(self.pairs(info.metadata_props))
        return value

    def type_and_shape(self, record: Record) -> tuple[Any, ir.Shape | None]:
        """The type, None for maps and opaque types, which onnx_ir has no class for; the shape is the one of the innermost tensor."""
        denotation = record.denotation or None
        for name, kind in (("tensor_type", ir.TensorType), ("sparse_tensor_type", ir.SparseTensorType)):
            inner = getattr(record, name)
            if inner is not None:
                return (kind(self.data_type(inner.elem_type), denotation=denotation) if inner.elem_type else None), self.shape(inner.shape)
        for name, wrapper in (("sequence_type", ir.SequenceType), ("optional_type", ir.OptionalType)):
            inner = getattr(record, name)
            if inner is not None and inner.elem_type is not None:
                element, shape = self.type_and_shape(inner.elem_type)
                return (wrapper(element, denotation=denotation) if element is not None else None), shape
        return None, None

    def data_type(self, number: int) -> ir.DataType:
        if number not in NAME:
            raise Unsupported(f"element type {number} is not one of ONNX's", where=self.where)
        return ir.DataType(number)

    def shape(self, record: Record | None) -> ir.Shape | None:
        if record is None:
            return None
        if len(record.dim) > self.limits.dimensions:
            raise Unsafe(f"a shape of {len(record.dim)} dimensions, at most {self.limits.dimensions} are read", where=self.where)
        # A negative size means "unknown" to several exporters; the specification has no such thing.
        dims = [dim.dim_param or None if "dim_param" in dim else dim.dim_value if "dim_value" in dim and dim.dim_value >= 0 else None for dim in record.dim]
        return ir.Shape(dims, denotations=[dim.denotation or None for dim in record.dim])

    # Attributes

    def attribute(self, record: Record, scopes: list[Scope], owner: Record) -> ir.Attr:
        kind, doc = record.type or self.guessed_type(record), record.doc_string or None
        if kind not in ATTRIBUTE_READERS:
            if kind:
                raise self.damaged(f"attribute {record.name[:FRAGMENT]!r} has type {kind}", self.place(owner))
            return ir.Attr(record.name, ir.AttributeType.UNDEFINED, None, doc_string=doc)
        if record.ref_attr_name:
            return ir.RefAttr(record.name, record.ref_attr_name, ir.AttributeType(kind), doc_string=doc)
        value = ATTRIBUTE_READERS[kind](self, record, scopes)
        # Sparse tensors have become dense ones, see `sparse`.
        dense = {ir.AttributeType.SPARSE_TENSOR: ir.AttributeType.TENSOR, ir.AttributeType.SPARSE_TENSORS: ir.AttributeType.TENSORS}
        final = dense.get(ir.AttributeType(kind), ir.AttributeType(kind))
        name = "value" if record.name == "sparse_value" and final == ir.AttributeType.TENSOR else record.name
        return ir.Attr(name, final, value, doc_string=doc)

    def guessed_type(self, record: Record) -> int:
        """Files of IR version 1 leave the type of an attribute out: the field that is present tells it."""
        return next((kind for name, kind in TYPE_OF_FIELD.items() if name in record), 0)

    def text(self, data: Any) -> str | bytes:
        """Text where it is UTF-8, as it should be; custom operators do keep bytes in strings."""
        raw = bytes(data)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw

    # Tensors

    def tensor(self, record: Record) -> Any:
        """A lazy tensor over the bytes of the file. Nothing is allocated before sizes agree."""
        self.tensor_count += 1
        if self.tensor_count > self.limits.tensors:
            raise Unsafe(f"more than {self.limits.tensors} tensors", where=self.where, hint="raise Limits.tensors if the file is trusted")
        place = f"tensor {record.name[:FRAGMENT]!r}"
        dims = tuple(record.dims)
        if len(dims) > self.limits.dimensions or any(dim < 0 for dim in dims):
            raise self.damaged(f"its shape {list(dims[:8])} has a negative or more than {self.limits.dimensions} dimensions", place)
        if record.segment is not None:
            raise Unsupported("a tensor in segments, which no known writer makes", where=f"{self.where}, {place}")
        self.data_type(record.data_type)
        tensor = self.tensor_data(record, dims, place)
        tensor.doc_string = record.doc_string or None
        tensor.metadata_props.update(self.pairs(record.metadata_props))
        return tensor

    def tensor_data(self, record: Record, dims: tuple[int, ...], place: str) -> Any:
        name, number = record.name or None, record.data_type
        if record.data_location == EXTERNAL:
            return SliceTensor(name, number, dims, self.external(record, dims, place))
        if number == NUMBER["STRING"]:
            if len(record.string_data) != math.prod(dims):
                raise self.damaged(f"{len(record.string_data)} strings where its shape {list(dims)} takes {math.prod(dims)}", place)
            return ir.StringTensor([bytes(item) for item in record.string_data], shape=ir.Shape(dims), name=name)
        field = next((field for field, kinds in TYPED.items() if NAME[number] in kinds and len(getattr(record, field))), "")
        if "raw_data" in record or not field:
            return SliceTensor(name, number, dims, record.raw_data)
        return self.typed(name, number, dims, getattr(record, field), field, place)

    def typed(self, name: str | None, number: int, dims: tuple[int, ...], values: Any, field: str, place: str) -> Any:
        """Data in a typed field: fixed-width ones are bytes already, varints are decoded whenever the tensor is asked for."""
        if field in ("float_data", "double_data"):
            return SliceTensor(name, number, dims, values.raw if values.raw is not None else b"".join(values.runs))
        bits = BITS[number]
        expected = (math.prod(dims) * bits + 7) // 8 if bits in PACKED_BITS else math.prod(dims)
        if len(values) != expected:
            raise self.damaged(f"{len(values)} values in {field} where its shape {list(dims)} takes {expected}", place)
        return ComputedTensor(name, number, dims, lambda: _narrowed(values.array(), number, dims), ())

    def external(self, record: Record, dims: tuple[int, ...], place: str) -> memoryview:
        """The bytes in a companion file. Only `location`, `offset` and `length` are used, and only inside the folder of the model."""
        entries = self.pairs(record.external_data)
        for key in entries.keys() - EXTERNAL_KEYS:
            self.findings.append(Finding("onnx.external-key", Severity.LOW, f"{self.where}, {place}", f"external data key {key[:FRAGMENT]!r} is ignored"))
        location = entries.get("location", "")
        if location not in self.companions:
            self.companions[location] = self.companion(location, place)
        data = self.companions[location]
        nbytes = (math.prod(dims) * BITS[record.data_type] + 7) // 8
        if record.data_type == NUMBER["STRING"]:
            raise Unsupported("text in external data", where=f"{self.where}, {place}")
        offset, length = self.number(entries, "offset", 0, place), self.number(entries, "length", nbytes, place)
        if length != nbytes:
            raise self.damaged(f"external data of {length} bytes where its shape {list(dims)} takes {nbytes}", place)
        if offset + length > len(data):
            raise self.damaged(f"external data ends at byte {offset + length} of {location[:FRAGMENT]!r}, which has {len(data)}", place)
        return data[offset:offset + length]

    def companion(self, location: str, place: str) -> memoryview:
        if self.artifact.path is None:
            raise Missing(f"the weights are in {location[:FRAGMENT]!r} beside the model, which was opened from bytes", where=place,
                          hint="open the model by its path")
        data = files.map_contained(self.artifact.path.parent, location)
        if data is None:
            raise Missing(f"the weights are in {location[:FRAGMENT]!r} and that file is not there", where=f"{self.where}, {place}",
                          hint="put it beside the model")
        return data

    def number(self, entries: dict[str, str], key: str, default: int, place: str) -> int:
        text = entries.get(key, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 20:
            raise self.damaged(f"external data {key} is {text[:FRAGMENT]!r}, not a number", place)
        return int(text)

    def sparse(self, record: Record) -> Any:
        """A sparse tensor as a dense one that is filled whenever it is asked for. The expansion is bounded like that of an archive."""
        if record.values is None or record.indices is None:
            raise self.damaged("a sparse tensor without values or indices")
        values, indices, dims = self.tensor(record.values), self.tensor(record.indices), tuple(record.dims)
        place = f"sparse tensor {str(values.name)[:FRAGMENT]!r}"
        count, total = math.prod(values.shape), math.prod(dims)
        if any(dim < 0 for dim in dims) or tuple(indices.shape) not in ((count,), (count, len(dims))) or len(values.shape) != 1:
            raise self.damaged(f"values {list(values.shape)} and indices {list(indices.shape)} do not fit its shape {list(dims)}", place)
        if indices.element_type != NUMBER["INT64"] or BITS[int(values.dtype)] < 8:
            raise Unsupported(f"a sparse tensor of {values.dtype} with indices of {indices.dtype}", where=f"{self.where}, {place}")
        size = total * BITS[int(values.dtype)] // 8
        if size > max(self.limits.expansion_floor, self.limits.expansion * (values.nbytes + indices.nbytes)):
            raise Unsafe(f"{size} dense bytes from {values.nbytes + indices.nbytes} sparse ones", where=f"{self.where}, {place}",
                         hint="raise Limits.expansion if the file is trusted")
        self.findings.append(Finding("tensor.densified", Severity.INFO, f"{self.where}, {place}", "a sparse tensor became a dense one"))
        return tensors.lazily(lambda kept, at: _dense(kept, at, dims, place), values, indices, dims=dims, name=values.name)


def _narrowed(values: Any, number: int, dims: tuple[int, ...]) -> Any:
    """What int32_data, int64_data and uint64_data mean: numbers, or the bits of the small floating point and packed types."""
    import numpy as np
    dtype = tensors.numpy_type(number)
    if BITS[number] in PACKED_BITS:
        return tensors.unpacked(values.astype(np.uint8), number, dims)
    if dtype.kind in "iub":
        return values.astype(dtype).reshape(dims)
    return values.astype(f"u{dtype.itemsize}").view(dtype).reshape(dims)


def _dense(values: Any, indices: Any, dims: tuple[int, ...], place: str) -> Any:
    import numpy as np
    out = np.zeros(dims, values.dtype)
    bounds = np.array(dims) if indices.ndim == 2 else out.size
    if indices.size and (indices.min() < 0 or (indices >= bounds).any()):
        raise Damaged("an index of a sparse tensor lies outside its shape", where=place)
    if indices.ndim == 2:
        out[tuple(indices.T)] = values
    else:
        out.reshape(-1)[indices] = values
    return out


def _type_attribute(reader: Reader, record: Record) -> ir.TypeAndShape:
    kind, shape = reader.type_and_shape(record)
    if kind is None:
        raise Unsupported("a type attribute of a map or opaque type", where=reader.where)
    return ir.TypeAndShape(kind, shape)


def _required(reader: Reader, record: Record, field: str) -> Record:
    if field not in record:
        raise reader.damaged(f"attribute {record.name[:FRAGMENT]!r} has no value")
    return getattr(record, field)


# AttributeProto.AttributeType -> the value of an attribute
ATTRIBUTE_READERS = {
    1: lambda reader, record, scopes: record.f,
    2: lambda reader, record, scopes: record.i,
    3: lambda reader, record, scopes: reader.text(record.s),
    4: lambda reader, record, scopes: reader.tensor(_required(reader, record, "t")),
    5: lambda reader, record, scopes: reader.graph(_required(reader, record, "g"), scopes),
    6: lambda reader, record, scopes: tuple(record.floats),
    7: lambda reader, record, scopes: tuple(record.ints),
    8: lambda reader, record, scopes: tuple(reader.text(item) for item in record.strings),
    9: lambda reader, record, scopes: tuple(reader.tensor(item) for item in record.tensors),
    10: lambda reader, record, scopes: tuple(reader.graph(item, scopes) for item in record.graphs),
    11: lambda reader, record, scopes: reader.sparse(_required(reader, record, "sparse_tensor")),
    12: lambda reader, record, scopes: tuple(reader.sparse(item) for item in record.sparse_tensors),
    13: lambda reader, record, scopes: _type_attribute(reader, _required(reader, record, "tp")),
    14: lambda reader, record, scopes: tuple(_type_attribute(reader, item) for item in record.type_protos),
}
TYPE_OF_FIELD = {"f": 1, "i": 2, "s": 3, "t": 4, "g": 5, "floats": 6, "ints": 7, "strings": 8, "tensors": 9, "graphs": 10, "sparse_tensor": 11,
                 "sparse_tensors": 12, "tp": 13, "type_protos": 14}
