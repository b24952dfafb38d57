"""TensorFlow Lite: a FlatBuffer of subgraphs, tensors and buffers <-> a graph in the dialect "tflite".

Nodes are the operators of the file, in the domain "tflite" (custom operators in "tflite.custom"); attributes are the fields of the option table that differ
from the schema's default, enumerations by name. Bodies of control flow are graph attributes with inputs and outputs of their own. Constants stay slices of
the mapping. What has no place in an ONNX graph stands in `Value.meta`:

    quantization   model.Quantization of an integer tensor         variable   True for a tensor that keeps its value between runs
    blockwise      (scales, zero points or None, block size)       tflite_type  "RESOURCE" or "VARIANT"
    range          (min, max) lists that some converters leave     intermediates (in Node.meta)  values that carry only quantization, of integer LSTMs

Specification: https://github.com/google-ai-edge/LiteRT, `tflite/converter/schema/schema.fbs`.
"""
from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Unsafe, Unsupported
from isomorph.formats import Capabilities, Format
from isomorph.formats._tflite_head import identify
from isomorph.model import unused
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity
from isomorph.tensors import BITS, NUMBER, ComputedTensor, SliceTensor, packed, unpacked
from isomorph.wire import files, flatbuffers, flexbuffers
from isomorph.wire.flatbuffers import Record

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from isomorph.model import Model, Quantization

SPEC = "https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs"
DOMAIN, CUSTOM_DOMAIN = "tflite", "tflite.custom"
ELEMENT = {                                     # TensorType -> ONNX element type; RESOURCE and VARIANT have none
    "FLOAT32": "FLOAT", "FLOAT16": "FLOAT16", "INT32": "INT32", "UINT8": "UINT8", "INT64": "INT64", "STRING": "STRING", "BOOL": "BOOL", "INT16": "INT16",
    "COMPLEX64": "COMPLEX64", "INT8": "INT8", "FLOAT64": "DOUBLE", "COMPLEX128": "COMPLEX128", "UINT64": "UINT64", "UINT32": "UINT32", "UINT16": "UINT16",
    "INT4": "INT4", "BFLOAT16": "BFLOAT16", "INT2": "INT2", "UINT4": "UINT4", "FLOAT8_E4M3FN": "FLOAT8E4M3FN", "FLOAT8_E5M2": "FLOAT8E5M2",
}
TENSOR_TYPE = {NUMBER[name]: tflite for tflite, name in ELEMENT.items()}
OPTIONS = {                                     # operator -> option table, where it is not the operator's own name
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"), "Pool2DOptions"),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ANY", "REDUCE_ALL"), "ReducerOptions"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimumOptions"),
    **dict.fromkeys(("RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "MULTINOMIAL"), "RandomOptions"),
    "L2_NORMALIZATION": "L2NormOptions", "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNNOptions", "CONV_3D_TRANSPOSE": "Conv3DOptions",
}
LEAST_INPUTS = {name: count for count, names in (
    (0, "VAR_HANDLE HASHTABLE CALL_ONCE CALL WHILE CUSTOM CONCATENATION PACK ADD_N STABLEHLO_COMPOSITE STABLEHLO_CUSTOM_CALL"),
    (2, "ADD SUB MUL DIV MAXIMUM MINIMUM POW SQUARED_DIFFERENCE FLOOR_DIV FLOOR_MOD EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND "
        "LOGICAL_OR ATAN2 BITWISE_XOR RIGHT_SHIFT PRELU CONV_2D CONV_3D DEPTHWISE_CONV_2D FULLY_CONNECTED BATCH_MATMUL TRANSPOSE EXPAND_DIMS SPLIT TILE "
        "BROADCAST_TO "
        "BROADCAST_ARGS FILL PAD MIRROR_PAD REVERSE_V2 REVERSE_SEQUENCE GATHER GATHER_ND ARG_MAX ARG_MIN TOPK_V2 MEAN SUM REDUCE_PROD REDUCE_MAX REDUCE_MIN "
        "REDUCE_ANY REDUCE_ALL EMBEDDING_LOOKUP RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR CUMSUM MATRIX_SET_DIAG SEGMENT_SUM ASSIGN_VARIABLE MULTINOMIAL RFFT2D "
        "STABLEHLO_ADD STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_MINIMUM STABLEHLO_SHIFT_LEFT STABLEHLO_AND STABLEHLO_PAD STABLEHLO_GATHER"),
    (3, "RANGE SELECT SELECT_V2 SLICE SPLIT_V PADV2 SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND TRANSPOSE_CONV CONV_3D_TRANSPOSE SCATTER_ND DYNAMIC_UPDATE_SLICE "
        "UNSORTED_SEGMENT_SUM UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_LOOKUP DILATE "
        "STABLEHLO_SCATTER"),
    (4, "STRIDED_SLICE ONE_HOT SPARSE_TO_DENSE"), (5, "SVDF RNN UNIDIRECTIONAL_SEQUENCE_RNN LSTM NON_MAX_SUPPRESSION_V4 EMBEDDING_LOOKUP_SPARSE"),
    (6, "NON_MAX_SUPPRESSION_V5"), (9, "BIDIRECTIONAL_SEQUENCE_RNN"), (20, "UNIDIRECTIONAL_SEQUENCE_LSTM"), (39, "BIDIRECTIONAL_SEQUENCE_LSTM"),
) for name in names.split()}                    # every other operator has at least one
NO_OUTPUT = {"CALL_ONCE", "CALL", "ASSIGN_VARIABLE", "HASHTABLE_IMPORT", "WHILE", "IF", "STABLEHLO_COMPOSITE", "STABLEHLO_CASE", "STABLEHLO_CUSTOM_CALL"}
BODIES = {"then_subgraph_index": "then_branch", "else_subgraph_index": "else_branch", "cond_subgraph_index": "cond", "body_subgraph_index": "body",
          "init_subgraph_index": "init", "subgraph": "body", "decomposition_subgraph_index": "decomposition",
          "update_computation_subgraph_index": "update_computation", "comparator_subgraph_index": "comparator", "branch_subgraph_indices": "branches"}
EXPANSION = 16                                  # a body that several operators call is copied for each, up to so many times the size of the file
MOST_OPTIONS = 1 << 16
LARGE = 1900 << 20                              # above this, data goes behind the FlatBuffer, whose offsets end at 2 GiB


def schema() -> flatbuffers.Schema:
    return flatbuffers.schema("tflite")


def options_of(operator: str) -> str:
    """The name of the option table of an operator, "" where it has none."""
    if not _OPTIONS:
        tables = {name.removesuffix("Options").lower(): name for name in schema().definitions if name.endswith("Options")}
        names = schema().enum("BuiltinOperator").numbers
        _OPTIONS.update({name: OPTIONS.get(name) or tables.get(name.replace("_", "").lower(), "") for name in names})
    return _OPTIONS.get(operator, "")


_OPTIONS: dict[str, str] = {}


class SparseTensor(ComputedTensor):
    """A tensor that the file stores sparse; dense when asked for, and written back as it was. Layout: the comment on SparsityParameters in the schema."""

    def __init__(self, name: str, element_type: int, dims: Sequence[int], data: memoryview, sparsity: Record):
        self.data, self.sparsity = data, sparsity
        count = data.nbytes * 8 // BITS[element_type]
        levels = _levels(sparsity, dims, count, name)
        super().__init__(name, element_type, dims, lambda: _dense(unpacked(data, element_type, (count,)), dims, levels, sparsity), ())


def _levels(sparsity: Record, dims: Sequence[int], count: int, name: str) -> list[tuple[int, Any, Any]]:
    """(dense size, segments, indices) of each traversed dimension, checked against each other and against the number of stored values."""
    order, block_map, metadata = list(sparsity.traversal_order), list(sparsity.block_map), sparsity.dim_metadata
    rank = len(dims)
    sound = (len(metadata) == len(order) == rank + len(block_map) and sorted(order) == list(range(len(order))) and all(0 <= axis < rank for axis in block_map)
             and sorted(order[:rank]) == list(range(rank)))
    levels: list[tuple[int, Any, Any]] = []
    segments: Any
    indices: Any
    stored = 1
    for level in metadata if sound else ():
        if level.format == "DENSE":
            levels.append((level.dense_size, None, None))
            stored *= level.dense_size
        else:
            segments, indices = (getattr(union, "values", ()) for union in (level.array_segments, level.array_indices))
            sound = sound and len(segments) == stored + 1 and segments[0] == 0 and segments[-1] == len(indices) \
                and all(a <= b for a, b in itertools.pairwise(segments))
            levels.append((0, segments, indices))
            stored = len(indices)
        sound = sound and stored <= count
    if not sound or stored != count:
        raise Damaged("its sparsity does not describe its values", where=name)
    return levels


def _dense(values: np.ndarray, dims: Sequence[int], levels: list[tuple[int, Any, Any]], sparsity: Record) -> np.ndarray:
    """Walks the levels outermost first, keeping the coordinates of every stored entry, and scatters the values."""
    import numpy as np
    order, block_map, rank = list(sparsity.traversal_order), list(sparsity.block_map), len(dims)
    coordinates: list[np.ndarray] = []
    entries = 1
    for size, segments, indices in levels:
        if segments is None:
            coordinates = [np.repeat(axis, size) for axis in coordinates] + [np.tile(np.arange(size), entries)]
            entries *= size
        else:
            counts: Any = np.diff(np.asarray(segments, np.int64))
            coordinates = [np.repeat(axis, counts) for axis in coordinates] + [np.asarray(indices, np.int64)]
            entries = len(indices)
    sizes = {order[place]: size for place, (size, segments, _) in enumerate(levels) if segments is None}
    place_of = dict(zip(order, coordinates, strict=True))
    full = [place_of[axis] for axis in range(rank)]
    for block, axis in enumerate(block_map):
        full[axis] = full[axis] * sizes.get(rank + block, 1) + place_of[rank + block]
    out = np.zeros(dims, values.dtype)
    for axis, places in enumerate(full):
        if len(places) and (places.min() < 0 or places.max() >= dims[axis]):
            raise Damaged("its sparsity points outside its shape")
    out[tuple(full)] = values
    return out


def decode_strings(data: memoryview, name: str) -> list[bytes]:
    """The texts of a STRING buffer: int32 count, count + 1 int32 offsets, bytes (`tflite/string_util.h`)."""
    count = struct.unpack_from("<i", data)[0] if data.nbytes >= 8 else -1
    if not 0 <= count <= data.nbytes // 4 - 2:
        raise Damaged(f"{data.nbytes} bytes cannot hold {count} texts", where=name)
    offsets = struct.unpack_from(f"<{count + 1}i", data, 4)
    if offsets[0] != 4 * count + 8 or offsets[-1] > data.nbytes or any(a > b for a, b in itertools.pairwise(offsets)):
        raise Damaged("the offsets of its texts do not rise inside its data", where=name)
    return [bytes(data[begin:end]) for begin, end in itertools.pairwise(offsets)]


def encode_strings(texts: Sequence[bytes]) -> bytes:
    offsets = [4 * len(texts) + 8]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    return struct.pack(f"<{len(texts) + 2}i", len(texts), *offsets) + b"".join(texts)


def read(artifact: Artifact, *, progress: Progress = SILENT) -> Model:
    """The main subgraph as a graph of the dialect "tflite"; other subgraphs as bodies of the operators that call them.

    Raises `Damaged` for indices, sizes or orders that contradict the format, `Unsafe` for what exceeds a limit, `Unsupported` for data in other files.
    """
    return _Reader(artifact).model()


class _Reader:
    """The records of one file, and what has been made of them so far."""

    def __init__(self, artifact: Artifact):
        self.view, self.where, self.limits = artifact.view, artifact.where, artifact.limits
        self.notes: list[tuple[str, int]] = []
        self.root = flatbuffers.read(artifact.view, schema(), "Model", artifact.limits, where=artifact.where, notes=self.notes)
        self.findings = [Finding("tflite.odd", Severity.LOW, f"{artifact.where}, byte {offset}", sentence) for sentence, offset in self.notes]
        self.names: set[str] = set()
        self.used: set[int] = set()
        self.built = 0
        self.most = 1000 + EXPANSION * sum(len(item.tensors) + len(item.operators) + 1 for item in self.root.subgraphs)

    def damaged(self, what: str, place: str) -> Damaged:
        return Damaged(what, where=f"{self.where}, {place}" if place else self.where)

    def pick(self, items: Sequence[Any], index: int, what: str, place: str) -> Any:
        if not 0 <= index < len(items):
            raise self.damaged(f"{what} {index} does not exist, there are {len(items)}", place)
        return items[index]

    def model(self) -> Model:
        import onnx_ir as ir

        from isomorph.model import Model
        if self.root.version != 3:
            raise Unsupported(f"schema version {self.root.version}; only version 3 is in use", where=self.where)
        if len(self.root.external_buffers):
            self.findings.append(Finding("tflite.external", Severity.MEDIUM, self.where, "the file names data in other files, which is not followed"))
        self.codes = [self.code(code) for code in self.root.operator_codes]
        graph, values = self.graph(0, ())
        signatures: dict[int, list[Record]] = {index: [] for index in range(len(self.root.subgraphs))}
        for signature in self.root.signature_defs:
            self.pick(self.root.subgraphs, signature.subgraph_index, "subgraph", f"signature {signature.signature_key!r}")
            signatures[signature.subgraph_index].append(signature)
        rest = []
        for index in range(1, len(self.root.subgraphs)):
            if index not in self.used:
                extra, extra_values = self.graph(index, ())
                rest.append((extra, [self.signature(item, extra_values) for item in signatures[index]]))
        metadata: dict[str, Any] = {"description": self.root.description or "", "metadata": self.metadata()}
        if rest:
            metadata["subgraphs"] = rest
            sentence = f"{len(rest)} subgraphs that the main one does not call are only carried"
            self.findings.append(Finding("tflite.subgraphs", Severity.LOW, self.where, sentence))
        graph.opset_imports.update({DOMAIN: 3} | ({CUSTOM_DOMAIN: 1} if any(domain == CUSTOM_DOMAIN for domain, *_ in self.codes) else {}))
        return Model(ir.Model(graph, ir_version=10), "tflite", [self.signature(item, values) for item in signatures[0]], metadata, self.findings)

    def code(self, record: Record) -> tuple[str, str, int]:
        """(domain, operator, version). The byte came first; codes above 127 need the int."""
        numbers = schema().enum("BuiltinOperator").numbers
        builtin = record.builtin_code
        number = max(record.deprecated_builtin_code, numbers[builtin] if isinstance(builtin, str) else builtin)
        name = schema().enum("BuiltinOperator").names.get(number)
        if name is None:
            raise Unsupported(f"operator code {number}, which is newer than the schema known here", where=self.where)
        return (CUSTOM_DOMAIN, record.custom_code or "", record.version) if name == "CUSTOM" else (DOMAIN, name, record.version)

    def metadata(self) -> dict[str, memoryview]:
        return {item.name or "": self.data(item.buffer, f"metadata {item.name!r}") for item in self.root.metadata}

    def signature(self, record: Record, values: Sequence[ir.Value | None]) -> Any:
        from isomorph.model import Signature
        place = f"signature {record.signature_key!r}"
        def names(items: Sequence[Record]) -> dict[str, str]:
            return {item.name or "": self.pick(values, item.tensor_index, "tensor", place).name for item in items}
        return Signature(record.signature_key or "", names(record.inputs), names(record.outputs))

    def data(self, index: int, place: str) -> memoryview:
        """The bytes of a buffer, inside the FlatBuffer or behind it."""
        record = self.pick(self.root.buffers, index, "buffer", place)
        if record.offset > 1:
            if record.offset + record.size > len(self.view):
                raise self.damaged(f"{record.size} bytes at byte {record.offset} lie outside the file of {len(self.view)}", f"buffer {index}")
            return self.view[record.offset:record.offset + record.size]
        return memoryview(record.data) if len(record.data) else memoryview(b"")

    def unique(self, name: str) -> str:
        return unused(name, self.names)

    def graph(self, index: int, path: tuple[int, ...]) -> tuple[ir.Graph, list[ir.Value]]:
        """Subgraph `index` as a new graph (each caller gets its own), and its values by tensor index. `path` are the subgraphs being built around it."""
        import onnx_ir as ir
        record = self.pick(self.root.subgraphs, index, "subgraph", "")
        self.used.add(index)
        self.built += len(record.tensors) + len(record.operators) + 1
        if index in path:
            raise self.damaged(f"subgraph {index} calls itself", "")
        if self.built > self.most or len(path) > self.limits.flatbuffer_depth:
            raise Unsafe(f"subgraphs that call each other make more than {EXPANSION} times what the file holds", where=self.where)
        produced = {tensor for operator in record.operators for tensor in operator.outputs} | set(record.inputs)
        values = [self.value(tensor, f"subgraph {index}, tensor {place}", place in produced) for place, tensor in enumerate(record.tensors)]
        for tensor, value in zip(record.tensors, values, strict=True):
            self.blockwise(tensor, value, values)
        place = f"subgraph {index}"
        current: list[ir.Value] = list(values)              # a tensor written twice gets a new value each time
        inputs = [self.pick(values, tensor, "tensor", place + ", inputs") for tensor in record.inputs]
        if len(set(inputs)) != len(inputs):
            raise self.damaged("a tensor is an input twice", place)
        ready = {value for value in values if value.const_value is not None or value.meta.get("variable")} | set(inputs)
        nodes = [self.node(operator, current, ready, (*path, index), f"{place}, operator {number}") for number, operator in enumerate(record.operators)]
        outputs = [self.pick(current, tensor, "tensor", place + ", outputs") for tensor in record.outputs]
        if not all(value in ready for value in outputs):
            raise self.damaged("an output is computed by nothing", place)
        constants = [value for value in values if value.const_value is not None and value not in inputs]
        name = record.name or ("main" if index == 0 else f"subgraph_{index}")
        return ir.Graph(inputs, outputs, nodes=nodes, initializers=constants, name=name), current

    def value(self, record: Record, place: str, produced: bool) -> ir.Value:
        import onnx_ir as ir
        if record.external_buffer:
            raise Unsupported("its data lies in another file (external_buffer), which is not followed", where=f"{self.where}, {place}")
        shape, signature = list(record.shape), list(record.shape_signature)
        if len(shape) > self.limits.dimensions:
            raise Unsafe(f"{len(shape)} dimensions (limit dimensions)", where=f"{self.where}, {place}")
        name = self.unique(record.name or f"tensor_{place.rsplit(' ', 1)[1]}")
        element = NUMBER.get(ELEMENT.get(record.type, ""))
        if element is None and record.type not in ("RESOURCE", "VARIANT"):
            raise Unsupported(f"element type {record.type}, which is newer than the schema known here", where=f"{self.where}, {place}")
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType(element)) if element else None)
        if element is None:
            value.meta["tflite_type"] = record.type
        data = self.data(record.buffer, place)
        if data.nbytes or (element and math.prod(shape) == 0 and not produced and not record.is_variable and element != NUMBER["STRING"]):
            if element is None or record.is_variable:
                raise self.damaged("a variable or resource has data", place)
            if any(dim < 0 for dim in shape):
                raise self.damaged(f"a constant of the shape {shape}", place)
            value.const_value = self.constant(name, element, shape, data, record, place)
            value.shape = ir.Shape(shape)
        else:
            self.shape(value, record, shape, signature)
        if record.is_variable:
            value.meta["variable"] = True
        self.quantization(value, record, shape, place)
        return value

    def shape(self, value: ir.Value, record: Record, shape: list[int], signature: list[int]) -> None:
        """Dimensions that change between runs are symbols; an empty shape without `has_rank` is unknown."""
        import onnx_ir as ir
        dynamic = signature if len(signature) == len(shape) else shape
        if shape or record.has_rank:
            value.shape = ir.Shape([f"{value.name}_{axis}" if dim < 0 else int(shape[axis]) for axis, dim in enumerate(dynamic)])

    def constant(self, name: str, element: int, shape: list[int], data: memoryview, record: Record, place: str) -> Any:
        if element == NUMBER["STRING"]:
            import onnx_ir as ir
            texts = decode_strings(data, f"{self.where}, {place}")
            if math.prod(shape) != len(texts):
                raise self.damaged(f"{len(texts)} texts where its shape {shape} takes {math.prod(shape)}", place)
            return ir.StringTensor(texts, shape=ir.Shape(shape), name=name)
        if record.sparsity is not None:
            if math.prod(shape) * BITS[element] > 8 * 64 * max(self.limits.fold_bytes, len(self.view)):
                raise Unsafe(f"a sparse tensor of {math.prod(shape)} elements", where=f"{self.where}, {place}")
            return SparseTensor(name, element, shape, data, record.sparsity)
        try:
            return SliceTensor(name, element, shape, data)
        except Damaged as error:
            raise self.damaged(error.what, place) from None

    def quantization(self, value: ir.Value, record: Record, shape: list[int], place: str) -> None:
        import numpy as np

        from isomorph.model import Quantization
        found = record.quantization
        if found is None:
            return
        if len(found.min) or len(found.max):
            value.meta["range"] = (list(found.min), list(found.max))
        if not len(found.scale):
            return
        scale = np.array(found.scale, np.float32)
        zero = np.array(found.zero_point, np.int64) if len(found.zero_point) else np.zeros(1, np.int64)
        axis = found.quantized_dimension
        if len(zero) == 1:
            zero = np.repeat(zero, len(scale))
        if len(zero) != len(scale):
            raise self.damaged(f"{len(scale)} scales and {len(zero)} zero points", place)
        if len(scale) > 1 and (not 0 <= axis < len(shape) or shape[axis] != len(scale)):
            raise self.damaged(f"{len(scale)} scales along axis {axis} of the shape {shape}", place)
        value.meta["quantization"] = Quantization(scale, zero, axis) if len(scale) > 1 else Quantization(scale.reshape(()), zero.reshape(()), 0)

    def blockwise(self, record: Record, value: ir.Value, values: list[ir.Value]) -> None:
        """Scales of blocks are a tensor of their own."""
        details = record.quantization.details if record.quantization is not None else None
        if details is None or details._kind.name == "CustomQuantization":
            return
        if details._kind.name != "BlockwiseQuantization" or details.block_size <= 0:
            raise Unsupported(f"quantisation by {details._kind.name}", where=f"{self.where}, {value.name}")
        scales = self.pick(values, details.scales, "tensor", f"the scales of {value.name}")
        value.meta["blockwise"] = (scales, values[details.zero_points] if 0 < details.zero_points < len(values) else None, details.block_size)

    def node(self, record: Record, current: list[ir.Value], ready: set[ir.Value], path: tuple[int, ...], place: str) -> ir.Node:
        import onnx_ir as ir
        domain, operator, version = self.pick(self.codes, record.opcode_index, "operator code", place)
        inputs = [None if tensor == -1 else self.pick(current, tensor, "tensor", place) for tensor in record.inputs]
        for value in inputs:
            if value is not None and value not in ready:
                raise self.damaged(f"{operator} reads {value.name!r} before anything has written it", place)
        least = (LEAST_INPUTS.get(operator, 1), int(operator not in NO_OUTPUT)) if domain == DOMAIN else (0, 0)
        if len(inputs) < least[0] or len(record.outputs) < least[1]:
            raise self.damaged(f"{operator} has {len(inputs)} inputs and {len(record.outputs)} outputs, at least {least[0]} and {least[1]} are needed", place)
        outputs = [self.output(current, ready, tensor, place) for tensor in record.outputs]
        attributes = self.attributes(record, operator if domain == DOMAIN else "", path, place)
        name = next((value.name or "" for value in outputs), place).partition(";")[0]           # converters join the names of what they have fused
        node = ir.Node(domain, operator, inputs, [attribute for attribute in attributes if attribute is not None], outputs=outputs, version=version, name=name)
        if len(record.intermediates):
            node.meta["intermediates"] = [self.pick(current, tensor, "tensor", place) for tensor in record.intermediates]
        if len(record.mutating_variable_inputs):
            node.meta["mutating_variable_inputs"] = [bool(flag) for flag in record.mutating_variable_inputs]
        return node

    def output(self, current: list[ir.Value], ready: set[ir.Value], tensor: int, place: str) -> ir.Value:
        import onnx_ir as ir
        value = self.pick(current, tensor, "tensor", place)
        if value in ready or value.producer() is not None:
            again = ir.Value(name=self.unique(value.name), type=value.type, shape=value.shape)
            again.meta.update({key: item for key, item in value.meta.items() if key != "variable"})
            current[tensor] = value = again
        ready.add(value)
        return value

    def attributes(self, record: Record, operator: str, path: tuple[int, ...], place: str) -> Iterator[ir.Attr]:
        import onnx_ir as ir
        options = record.builtin_options or record.builtin_options_2
        expected = options_of(operator) if operator else ""
        if options is not None and options._kind.name != expected:
            sentence = f"{options._kind.name} do not belong to {operator or 'a custom operator'}; they are ignored"
            self.findings.append(Finding("tflite.options", Severity.LOW, f"{self.where}, {place}", sentence))
            options = None
        if options is not None:
            for field in options._kind.fields.values():
                value = getattr(options, field.name)
                if field.name in BODIES:
                    yield self.body(BODIES[field.name], value, path, place)
                elif field.name in options._fields and (field.kind != "scalar" or value != field.default):
                    yield _attribute(field, value)
        custom = record.custom_options
        if record.large_custom_options_offset > 1:
            begin, end = record.large_custom_options_offset, record.large_custom_options_offset + record.large_custom_options_size
            if end > len(self.view):
                raise self.damaged("its custom options lie outside the file", place)
            custom = self.view[begin:end]
        if len(custom):
            yield ir.Attr("custom_options", ir.AttributeType.STRING, bytes(custom))
            yield from _decoded(custom)

    def body(self, name: str, index: Any, path: tuple[int, ...], place: str) -> ir.Attr:
        import onnx_ir as ir
        if isinstance(index, (memoryview, tuple)):
            return ir.AttrGraphs(name, [self.graph(each, path)[0] for each in index])
        if index < 0:
            return ir.AttrGraphs(name, [])
        return ir.AttrGraph(name, self.graph(index, path)[0])


def _decoded(custom: memoryview) -> Iterator[ir.Attr]:
    """The options of a custom operator as attributes, where they are a map of numbers and texts. They are for reading; `custom_options` is what is written."""
    import onnx_ir as ir
    try:
        options = flexbuffers.loads(custom) if custom.nbytes <= MOST_OPTIONS else None
    except flexbuffers.NotFlex:
        return
    for name, value in options.items() if isinstance(options, dict) else ():
        if isinstance(value, (bool, int, float, str)) and name != "custom_options":
            make: Any = {str: ir.AttrString, float: ir.AttrFloat32}.get(type(value), ir.AttrInt64)
            yield make(name, value)


def _attribute(field: flatbuffers.Field, value: Any) -> ir.Attr:
    import onnx_ir as ir
    if field.kind == "string" or isinstance(value, str):
        return ir.AttrString(field.name, value)
    if field.kind == "numbers" and field.scalar == "ubyte":
        return ir.Attr(field.name, ir.AttributeType.STRING, bytes(value))
    if field.kind == "numbers":
        return ir.AttrFloat32s(field.name, list(value)) if field.scalar in ("float", "double") else ir.AttrInt64s(field.name, [int(item) for item in value])
    return ir.AttrFloat32(field.name, value) if isinstance(value, float) else ir.AttrInt64(field.name, int(value))


def write(model: Model, path: str | Path, *, force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes a graph of the dialect "tflite" so that LiteRT loads it; tensors are streamed, whatever their size.

    Raises `Unsupported` for a node, attribute or type that TFLite does not have, and `Usage` where `path` exists and `force` is not set.
    """
    if model.dialect != "tflite":
        raise Unsupported(f"a graph of the dialect {model.dialect!r} is not one of TFLite", hint="convert it first: isomorph convert SRC DST.tflite")
    path = Path(path)
    writer = _Writer(model)
    with files.replacing(path, force=force) as file:
        size = writer.write(file, progress)
    operators: dict[str, int] = {}
    for domain, name, _ in writer.nodes:
        name = name if domain == DOMAIN else f"custom {name}"
        operators[name] = operators.get(name, 0) + 1
    facts = {"format": "tflite", "bytes": size, "weights": writer.weights, "operators": dict(sorted(operators.items()))}
    return Report(str(path), list(writer.findings), facts)


COMPARED = 1 << 18                  # bytes of a computed tensor that is computed once more to find its equals


class _Payload:
    """The data of one tensor as `nbytes` and `chunks()`."""

    def __init__(self, tensor: Any, sparse: bool, progress: Progress):
        self.tensor, self.sparse, self.progress = tensor, sparse, progress
        self.nbytes = len(tensor.data) if sparse else tensor.nbytes

    def chunks(self) -> Iterator[Any]:
        if self.sparse:
            yield self.tensor.data
            return
        for chunk in self.tensor.chunks() if hasattr(self.tensor, "chunks") else (packed(self.tensor.numpy()),):
            yield chunk
            self.progress.advance(len(chunk))

    def digest(self) -> bytes:
        found = hashlib.blake2b(digest_size=16)
        for chunk in self.chunks():
            found.update(chunk)
        return found.digest()


class _Writer:
    """One model on its way into records: subgraphs, operator codes and buffers get their numbers in the order they are met."""

    def __init__(self, model: Model):
        self.model = model
        self.findings: list[Finding] = []
        self.graphs: list[ir.Graph] = []
        self.codes: dict[tuple[str, str, int], int] = {}
        self.nodes: list[tuple[str, str, int]] = []
        self.payloads: list[Any] = [None]                       # of each buffer; buffer 0 is empty, for tensors without data
        self.places: dict[Any, int] = {}
        self.weights = 0

    def write(self, file: Any, progress: Progress) -> int:
        self.progress = progress
        extra = self.model.metadata.get("subgraphs", [])
        self.graphs = [self.model.graph, *(graph for graph, _ in extra)]
        subgraphs: list[Record] = []
        signatures = list(self.signatures(0, self.model.graph, self.model.signatures))
        while len(subgraphs) < len(self.graphs):                # bodies are appended while their owners are written
            subgraphs.append(self.subgraph(self.graphs[len(subgraphs)]))
        for number, (graph, items) in enumerate(extra, 1):
            signatures += self.signatures(number, graph, items)
        metadata = [schema().record("Metadata", name=name, buffer=self.buffer(bytes(data))) for name, data in self.model.metadata.get("metadata", {}).items()]
        root = schema().record("Model", version=3, operator_codes=[self.operator_code(*code) for code in self.codes], subgraphs=subgraphs,
                               description=self.model.metadata.get("description") or "isomorph", metadata=metadata or None, signature_defs=signatures)
        self.weights = sum(payload.nbytes if hasattr(payload, "nbytes") else len(payload) for payload in self.payloads if payload is not None)
        progress.start("write", self.weights, "bytes")
        size = self.inline(root, file) if self.weights < LARGE else self.behind(root, file)
        progress.finish()
        return size

    def inline(self, root: Record, file: Any) -> int:
        root._fields["buffers"] = [schema().record("Buffer", data=payload) for payload in self.payloads]
        return flatbuffers.write(root, schema(), file)

    def behind(self, root: Record, file: Any) -> int:
        """Data behind the FlatBuffer, whose size does not depend on the offsets as long as every one is present (0 would be left out)."""
        def buffers(start: int) -> list[Record]:
            records, position = [], start
            for payload in self.payloads:
                if payload is None:
                    records.append(schema().record("Buffer"))
                    continue
                size = payload.nbytes if hasattr(payload, "nbytes") else len(payload)
                records.append(schema().record("Buffer", offset=position, size=size))
                position += size + -size % 16
            return records
        root._fields["buffers"] = buffers(1 << 40)
        root._fields["buffers"] = buffers(flatbuffers.measure(root, schema()))
        size = flatbuffers.write(root, schema(), file)
        for payload in self.payloads[1:]:
            written = 0
            for chunk in payload.chunks() if hasattr(payload, "chunks") else (payload,):
                file.write(chunk)
                written += len(chunk)
            file.write(bytes(-written % 16))
            size += written + -written % 16
        file.write(bytes(16))                                   # XNNPACK reads a little past the last weight
        return size + 16

    def signatures(self, number: int, graph: ir.Graph, signatures: Sequence[Any]) -> Iterator[Record]:
        from isomorph.model import Signature
        if number == 0 and not signatures:
            signatures = [Signature("serving_default", {str(value.name): str(value.name) for value in graph.inputs},
                                    {str(value.name): str(value.name) for value in graph.outputs})]
        for signature in signatures:
            places = {value.name: place for place, value in enumerate(_values(graph))}
            maps = []
            for names in (signature.inputs, signature.outputs):
                missing = [name for name in names.values() if name not in places]
                if missing:
                    raise Unsupported(f"the signature {signature.name!r} names {missing[0]!r}, which is no value of its graph")
                maps.append([schema().record("TensorMap", name=public, tensor_index=places[name]) for public, name in names.items()])
            yield schema().record("SignatureDef", inputs=maps[0], outputs=maps[1], signature_key=signature.name, subgraph_index=number)

    def operator_code(self, domain: str, operator: str, version: int) -> Record:
        if domain == CUSTOM_DOMAIN:
            return schema().record("OperatorCode", deprecated_builtin_code=32, builtin_code="CUSTOM", custom_code=operator, version=version)
        number = schema().enum("BuiltinOperator").numbers[operator]
        return schema().record("OperatorCode", deprecated_builtin_code=min(number, 127), builtin_code=number, version=version)

    def subgraph(self, graph: ir.Graph) -> Record:
        values = _values(graph)
        places = {value: place for place, value in enumerate(values)}
        blockers = [("captured value", graph.name or "", f"{value.name!r} has no value in its subgraph") for value in values if not _has_value(graph, value)]
        operators = []
        for node in graph:
            try:
                operators.append(self.operator(node, places))
            except Unsupported as error:
                blockers.append((f"{node.domain}::{node.op_type}", node.name or "", error.what))
        if blockers:
            raise Unsupported("; ".join(sorted({f"{subject}: {reason}" for subject, _, reason in blockers})), blockers=blockers)
        return schema().record("SubGraph", tensors=[self.tensor(value, places) for value in values], inputs=[places[value] for value in graph.inputs],
                               outputs=[places[value] for value in graph.outputs], operators=operators, name=graph.name or "main")

    def tensor(self, value: ir.Value, places: dict[ir.Value, int]) -> Record:
        constant: Any = value.const_value
        element = value.meta.get("tflite_type") or TENSOR_TYPE.get(int(constant.dtype if constant is not None else value.dtype or 0))
        if element is None:
            raise Unsupported(f"the element type {value.dtype} of {value.name!r}, which TFLite does not have")
        dims = list(constant.shape) if constant is not None else None if value.shape is None else list(value.shape)
        fixed = [dim if isinstance(dim, int) else 1 for dim in dims or ()]
        return schema().record(
            "Tensor", shape=[int(dim) for dim in fixed], type=element,
            name="" if value.meta.get("unnamed") else value.name or "",
            buffer=0 if constant is None else self.buffer(constant, _stays_sparse(value)), quantization=self.quantization(value, places),
            is_variable=bool(value.meta.get("variable")), has_rank=dims is not None,
            shape_signature=[dim if isinstance(dim, int) else -1 for dim in dims] if dims and any(not isinstance(dim, int) for dim in dims) else None,
            sparsity=constant.sparsity if _stays_sparse(value) else None)

    def quantization(self, value: ir.Value, places: dict[ir.Value, int]) -> Record | None:
        found: Quantization | None = value.meta.get("quantization")
        low, high = value.meta.get("range", (None, None))
        if "blockwise" in value.meta:
            scales, zeros, size = value.meta["blockwise"]
            details = schema().record("BlockwiseQuantization", scales=places[scales], zero_points=-1 if zeros is None else places[zeros], block_size=size)
            return schema().record("QuantizationParameters", details=details)
        if found is None:
            return schema().record("QuantizationParameters", min=low, max=high) if low or high else None
        return schema().record("QuantizationParameters", min=low, max=high, scale=[float(x) for x in found.scale.reshape(-1)],
                               zero_point=[int(x) for x in found.zero_point.reshape(-1)], quantized_dimension=int(found.axis))

    def buffer(self, data: Any, sparse: bool = False) -> int:
        """The number of the buffer that holds `data`; equal data is stored once. Large computed tensors are not compared: that would compute
        them twice."""
        key: tuple[Any, ...]
        payload: Any
        if isinstance(data, bytes):
            key, payload = (len(data), data), data
        elif int(data.dtype) == NUMBER["STRING"]:
            payload = encode_strings([x if isinstance(x, bytes) else str(x).encode() for x in _texts(data)])
            key = (len(payload), payload)
        else:
            payload = _Payload(data, sparse, self.progress)
            if not payload.nbytes:
                return 0
            if payload.nbytes <= 1024:
                payload = b"".join(bytes(chunk) for chunk in payload.chunks())
                key = (len(payload), payload)
            elif isinstance(data, SliceTensor):
                key = self.compared(data.data, payload)
            elif payload.nbytes <= COMPARED and not sparse:
                key = ("digest", payload.nbytes, payload.digest())
            else:
                key = ("computed", id(data), sparse)
        if key not in self.places:
            self.places[key] = len(self.payloads)
            self.payloads.append(payload)
        return self.places[key]

    def compared(self, view: memoryview, payload: _Payload) -> tuple:
        """A key of large data: its length and beginning, and a digest only when those are met a second time."""
        rough = ("rough", view.nbytes, bytes(view[:64]), bytes(view[-64:]))
        if rough not in self.places:
            return rough
        first = self.payloads[self.places[rough]]
        digest = payload.digest()
        return rough if first.digest() == digest else (*rough, digest)

    def operator(self, node: ir.Node, places: dict[ir.Value, int]) -> Record:
        from isomorph.formats import tflite_versions as versions
        if node.domain not in (DOMAIN, CUSTOM_DOMAIN) or (node.domain == DOMAIN and node.op_type not in schema().enum("BuiltinOperator").numbers):
            raise Unsupported("no operator of TFLite")
        options, custom, values = self.options(node)
        if node.domain == DOMAIN:
            use = versions.Use([_operand(value) for value in node.inputs], [_operand(value) for value in node.outputs], values)
            version = versions.version(node.op_type, use)
        else:
            version = node.version or 1
        code = (node.domain, node.op_type, version)
        self.nodes.append(code)
        union = "builtin_options_2" if options is not None and options._kind.name in schema().enum("BuiltinOptions2").numbers else "builtin_options"
        intermediates = [places[value] for value in node.meta.get("intermediates", ())]
        return schema().record(
            "Operator", opcode_index=self.codes.setdefault(code, len(self.codes)), inputs=[-1 if value is None else places[value] for value in node.inputs],
            outputs=[places[value] for value in node.outputs], custom_options=custom, intermediates=intermediates or None,
            mutating_variable_inputs=node.meta.get("mutating_variable_inputs"), **{union: options})

    def options(self, node: ir.Node) -> tuple[Record | None, bytes | None, dict[str, Any]]:
        """The option table, the custom options, and the plain values of a node's attributes."""
        table = options_of(node.op_type) if node.domain == DOMAIN else ""
        fields, custom = schema().kind(table).fields if table else {}, None
        values: dict[str, Any] = {}
        for name, attribute in node.attributes.items():
            field = next((field for field in fields if BODIES.get(field) == name), name)
            if name == "custom_options":
                custom = attribute.value.encode() if isinstance(attribute.value, str) else bytes(attribute.value)      # bytes, or a list of them
            elif field in fields:
                values[field] = self.option(fields[field], attribute.value)
            elif node.domain == DOMAIN:
                raise Unsupported(f"{table or 'an operator without options'} has no field {name!r}")
        return (schema().record(table, **values) if table else None), custom, values

    def option(self, field: flatbuffers.Field, value: Any) -> Any:
        import onnx_ir as ir
        if isinstance(value, ir.Graph):
            self.graphs.append(value)
            return len(self.graphs) - 1
        if field.name in BODIES:
            self.graphs += value
            return list(range(len(self.graphs) - len(value), len(self.graphs)))
        if field.enum and value not in field.enum.numbers and not isinstance(value, int):
            raise Unsupported(f"{field.name} has no value {value!r}")
        if isinstance(value, bytes) and field.kind == "string":
            return value.decode()
        return bool(value) if field.scalar == "bool" and field.kind == "scalar" else value


def _texts(tensor: Any) -> Iterable[Any]:
    return tensor.string_data() if hasattr(tensor, "string_data") else tensor.numpy().reshape(-1)


def _values(graph: ir.Graph) -> list[ir.Value]:
    """Every value of a subgraph once, inputs first; constants that nothing reads are left out."""
    values: dict[ir.Value, None] = dict.fromkeys(graph.inputs)
    for node in graph:
        for value in (*node.inputs, *node.outputs, *node.meta.get("intermediates", ())):
            if value is not None:
                values.setdefault(value)
                scales, zeros, _ = value.meta.get("blockwise", (None, None, 0))
                values.update(dict.fromkeys(part for part in (scales, zeros) if part is not None))
    values.update(dict.fromkeys(graph.outputs))
    return list(values)


def _has_value(graph: ir.Graph, value: ir.Value) -> bool:
    producer = value.producer()
    if producer is not None:
        return producer.graph is graph
    return value.const_value is not None or bool(value.meta.get("variable")) or value.is_graph_input() or not value.uses()


def _stays_sparse(value: ir.Value) -> bool:
    """Whether everything that reads a tensor takes it sparse: DENSIFY, and a matrix product that the file had so (its version says it)."""
    users = list(value.consumers())
    return isinstance(value.const_value, SparseTensor) and bool(users) and all(
        user.domain == DOMAIN and (user.op_type == "DENSIFY" or (user.op_type == "FULLY_CONNECTED" and user.version == 8)) for user in users)


def _operand(value: ir.Value | None) -> Any:
    from isomorph.formats import tflite_versions as versions
    if value is None:
        return versions.Operand()
    quantization = value.meta.get("quantization")
    shape = tuple(dim if isinstance(dim, int) else 1 for dim in value.shape) if value.shape is not None else ()
    element = value.meta.get("tflite_type") or TENSOR_TYPE.get(int(value.dtype or 0), "")
    scales = quantization.scale.reshape(-1) if quantization is not None else ()
    return versions.Operand(element, shape, scales, quantization.axis if quantization is not None else 0, _stays_sparse(value))


FORMAT = Format(
    name="tflite", title="TensorFlow Lite", extensions=(".tflite", ".lite"), holds="graph", spec=SPEC, identify=identify, read=read, write=write,
    dialect="tflite",
    can=Capabilities(dtypes=frozenset(ELEMENT.values()), dynamic_shapes=True, control_flow=True, quantised=True, max_bytes=None, versions=(3, 3)),
)
