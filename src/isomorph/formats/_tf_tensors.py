"""TensorProto of TensorFlow as a lazy tensor, and back. What its fields hold: tensorflow/core/framework/tensor.proto."""
from __future__ import annotations

import math
from typing import Any

from isomorph.errors import Damaged, Unsafe, Unsupported
from isomorph.tensors import BITS, NAME, NUMBER, ComputedTensor, SliceTensor, Tensor, dims_of, numpy_type, type_of
from isomorph.wire import protobuf
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.protobuf import Record
from isomorph.wire.tf_operators import REFERENCE, TYPE_NAMES, TYPES

# TensorFlow's name of an element type -> the number of ONNX. Quantised types keep their integers.
ELEMENT: dict[str, int] = {
    "float": NUMBER["FLOAT"], "double": NUMBER["DOUBLE"], "half": NUMBER["FLOAT16"], "qint8": NUMBER["INT8"], "quint8": NUMBER["UINT8"],
    "qint32": NUMBER["INT32"], "qint16": NUMBER["INT16"], "quint16": NUMBER["UINT16"], "float8_e4m3fn": NUMBER["FLOAT8E4M3FN"],
    "float8_e4m3fnuz": NUMBER["FLOAT8E4M3FNUZ"], "float8_e5m2": NUMBER["FLOAT8E5M2"], "float8_e5m2fnuz": NUMBER["FLOAT8E5M2FNUZ"],
    "float4_e2m1fn": NUMBER["FLOAT4E2M1"],
    **{name: NUMBER[name.upper()] for name in TYPES if name.upper() in NUMBER},
}
TYPE_OF_ELEMENT = {number: name for name, number in reversed(ELEMENT.items()) if not name.startswith("q")}
# ONNX type -> the field of TensorProto that lists its values one by one
FIELDS = {"FLOAT": "float_val", "DOUBLE": "double_val", "INT32": "int_val", "UINT8": "int_val", "INT16": "int_val", "INT8": "int_val", "UINT16": "int_val",
          "INT64": "int64_val", "BOOL": "bool_val", "FLOAT16": "half_val", "BFLOAT16": "half_val", "COMPLEX64": "scomplex_val", "COMPLEX128": "dcomplex_val",
          "UINT32": "uint32_val", "UINT64": "uint64_val"}


def schema() -> dict[str, type[Record]]:
    return protobuf.schema("tensorflow")


def type_name(number: int) -> str:
    """The name of an element type, "" for one that is not known here. A reference counts as what it refers to."""
    return TYPE_NAMES.get(number - REFERENCE if number > REFERENCE else number, "")


def shape_of(record: Record | None, limits: Limits = DEFAULT, where: str = "") -> tuple[int, ...] | None:
    """The dimensions of a TensorShapeProto, -1 where unknown; None where even the rank is."""
    if record is None or record.unknown_rank:
        return None
    if len(record.dim) > limits.dimensions:
        raise Unsafe(f"{len(record.dim)} dimensions (limit dimensions)", where=where)
    return tuple(max(int(dim.size), -1) for dim in record.dim)


def shape_record(dims: Any) -> Record:
    """A TensorShapeProto; whatever is no number becomes an unknown dimension."""
    kinds = schema()
    if dims is None:
        return kinds["TensorShapeProto"](unknown_rank=True)
    return kinds["TensorShapeProto"](dim=[kinds["Dim"](size=int(dim) if isinstance(dim, int) else -1) for dim in dims])


def decode(record: Record, name: str, where: str, limits: Limits = DEFAULT) -> Any:
    """A TensorProto as a tensor: a slice of the file where its bytes lie there in one piece, else its values, of which the last is repeated.

    Raises `Damaged` where values and shape contradict each other, `Unsafe` for repetition beyond `limits.fold_bytes`, `Unsupported` for handles.
    """
    kind = type_name(record.dtype)
    dims = shape_of(record.tensor_shape, limits, where) if record.tensor_shape is not None else ()
    if dims is None or any(dim < 0 for dim in dims):
        raise Damaged("a constant without a complete shape", where=where)
    if kind not in ELEMENT:
        raise Unsupported(f"a constant of the type {kind or record.dtype}", where=where)
    element = ELEMENT[kind]
    if element == NUMBER["STRING"]:
        return _strings(record, name, dims, where, limits)
    content = record.tensor_content
    if len(content) and BITS[element] >= 8:
        try:
            return SliceTensor(name, element, dims, content)
        except Damaged as error:
            raise Damaged(error.what, where=where) from None
    if len(content):                                            # TensorFlow gives every element of 4 bits or less a byte of its own
        return _of_bytes(name, element, dims, content, where)
    if "float8_val" in record:
        return _of_bytes(name, element, dims, record.float8_val, where)
    values = getattr(record, FIELDS.get(NAME[element], "int_val"))
    count = len(values) // (2 if NAME[element].startswith("COMPLEX") else 1)
    size = math.prod(dims)
    if count > size:
        raise Damaged(f"{count} values where the shape {list(dims)} takes {size}", where=where)
    if size > count + 1 and size * BITS[element] // 8 > limits.fold_bytes:
        raise Unsafe(f"one value repeated for {size} elements (limit fold_bytes)", where=where)
    return ComputedTensor(name, element, dims, lambda: _filled(values, element, dims), ())


def _of_bytes(name: str, element: int, dims: tuple[int, ...], content: Any, where: str) -> Tensor:
    if len(content) != math.prod(dims):
        raise Damaged(f"{len(content)} bytes where the shape {list(dims)} takes {math.prod(dims)}", where=where)

    def unpacked() -> Any:
        import numpy as np
        raw = np.frombuffer(content, np.uint8)
        dtype = numpy_type(element)
        return (raw.view(dtype) if BITS[element] == 8 else raw.astype(np.int8).astype(dtype)).reshape(dims)
    return ComputedTensor(name, element, dims, unpacked, ())


def _filled(values: Any, element: int, dims: tuple[int, ...]) -> Any:
    """The listed values in their own type, the last one repeated to the end; zeros where there is none."""
    import numpy as np
    dtype = numpy_type(element)
    listed = values.array() if hasattr(values, "array") else np.asarray(values)
    if dtype.kind == "c":
        listed = listed.view(dtype) if len(listed) else listed
    elif NAME[element] in ("FLOAT16", "BFLOAT16"):
        listed = listed.astype(np.uint16).view(dtype)
    listed = listed.astype(dtype)
    out = np.empty(math.prod(dims), dtype)
    out[:len(listed)] = listed
    out[len(listed):] = listed[-1] if len(listed) else np.zeros((), dtype)
    return out.reshape(dims)


def _strings(record: Record, name: str, dims: tuple[int, ...], where: str, limits: Limits) -> Any:
    import onnx_ir as ir
    texts = [bytes(text) for text in record.string_val]
    size = math.prod(dims)
    if len(texts) > size:
        raise Damaged(f"{len(texts)} texts where the shape {list(dims)} takes {size}", where=where)
    if (size - len(texts)) * max(len(texts[-1]) if texts else 0, 8) > limits.fold_bytes:
        raise Unsafe(f"one text repeated for {size} elements (limit fold_bytes)", where=where)
    texts += [texts[-1] if texts else b""] * (size - len(texts))
    return ir.StringTensor(texts, shape=ir.Shape(dims), name=name)


class _Content:
    """The bytes of a tensor as TensorFlow lays them out, asked for while they are written."""

    def __init__(self, tensor: Any):
        self.tensor = tensor
        self.narrow = BITS[type_of(tensor)] < 8
        self.nbytes = math.prod(dims_of(tensor)) if self.narrow else tensor.nbytes
        self.name = getattr(tensor, "name", "")

    def __len__(self) -> int:
        return self.nbytes

    def chunks(self) -> Any:
        import numpy as np
        if self.narrow:
            yield np.ascontiguousarray(self.tensor.numpy()).astype(np.int8).tobytes()
        elif isinstance(self.tensor, Tensor):
            yield from self.tensor.chunks()
        else:
            yield self.tensor.tobytes()


def encode(tensor: Any, kind: str = "") -> Record:
    """A tensor as a TensorProto whose bytes are asked for when they are written. `kind` names the type where it is not the tensor's own (qint8)."""
    kinds = schema()
    element = type_of(tensor)
    kind = kind or TYPE_OF_ELEMENT.get(element, "")
    if not kind:
        raise Unsupported(f"TensorFlow has no element type for {NAME.get(element, element)}", where=str(getattr(tensor, "name", "")))
    record = kinds["TensorProto"](dtype=TYPES[kind], tensor_shape=shape_record(dims_of(tensor)))
    if element == NUMBER["STRING"]:
        record.string_val = [item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape") for item in _texts(tensor)]
    else:
        record.tensor_content = _Content(tensor)
    return record


def _texts(tensor: Any) -> Any:
    return tensor.string_data() if hasattr(tensor, "string_data") else tensor.numpy().reshape(-1)
