"""Lazy tensors: bytes of a mapping, or a computation over other tensors. All satisfy `onnx_ir.TensorProtocol` without importing onnx_ir.

Element types are the numbers of ONNX `TensorProto.DataType`, so that weights can be read and written without the graph library.
Sub-byte types are packed little-end first, as ONNX and safetensors store them, and unpacked to one element each by `numpy()`.
"""
from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from isomorph.errors import Damaged
from isomorph.wire import files

if TYPE_CHECKING:
    import numpy as np

# ONNX TensorProto.DataType: name -> (number, bits of an element, numpy or ml_dtypes name)
TYPES: dict[str, tuple[int, int, str]] = {
    "FLOAT": (1, 32, "float32"), "UINT8": (2, 8, "uint8"), "INT8": (3, 8, "int8"), "UINT16": (4, 16, "uint16"), "INT16": (5, 16, "int16"),
    "INT32": (6, 32, "int32"), "INT64": (7, 64, "int64"), "STRING": (8, 0, "object"), "BOOL": (9, 8, "bool"), "FLOAT16": (10, 16, "float16"),
    "DOUBLE": (11, 64, "float64"), "UINT32": (12, 32, "uint32"), "UINT64": (13, 64, "uint64"), "COMPLEX64": (14, 64, "complex64"),
    "COMPLEX128": (15, 128, "complex128"), "BFLOAT16": (16, 16, "bfloat16"), "FLOAT8E4M3FN": (17, 8, "float8_e4m3fn"),
    "FLOAT8E4M3FNUZ": (18, 8, "float8_e4m3fnuz"), "FLOAT8E5M2": (19, 8, "float8_e5m2"), "FLOAT8E5M2FNUZ": (20, 8, "float8_e5m2fnuz"),
    "UINT4": (21, 4, "uint4"), "INT4": (22, 4, "int4"), "FLOAT4E2M1": (23, 4, "float4_e2m1fn"), "FLOAT8E8M0": (24, 8, "float8_e8m0fnu"),
    "UINT2": (25, 2, "uint2"), "INT2": (26, 2, "int2"), "FLOAT6E2M3": (27, 6, "float6_e2m3fn"), "FLOAT6E3M2": (28, 6, "float6_e3m2fn"),
}
NUMBER = {name: number for name, (number, _, _) in TYPES.items()}
NAME = {number: name for name, number in NUMBER.items()}
BITS = {number: bits for number, bits, _ in TYPES.values()}
CHUNK = 1 << 22


def numpy_type(number: int) -> np.dtype:
    """The NumPy dtype of an element type; types NumPy does not know come from ml_dtypes."""
    import numpy as np
    name = TYPES[NAME[number]][2]
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes
        return np.dtype(getattr(ml_dtypes, name))


def number_of(dtype: np.dtype) -> int:
    """The element type of a NumPy or ml_dtypes dtype. Text of any width counts as STRING."""
    if dtype.kind in "OSU":
        return NUMBER["STRING"]
    for number, _, name in TYPES.values():
        if name == dtype.name:
            return number
    raise TypeError(f"no element type for {dtype}")


class Tensor:
    """A tensor whose data is read or computed when it is asked for. `dims` are ints, `element_type` is an ONNX DataType number."""

    def __init__(self, name: str | None, element_type: int, dims: Sequence[int]):
        self.name, self.element_type, self.dims = name, element_type, tuple(dims)
        self.doc_string: str | None = None
        self.metadata_props: dict[str, str] = {}
        self.meta: dict[str, Any] = {}

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int:
        return (self.size * BITS[self.element_type] + 7) // 8

    @property
    def dtype(self) -> Any:
        """`onnx_ir.DataType`, for the graph library."""
        import onnx_ir
        return onnx_ir.DataType(self.element_type)

    @property
    def shape(self) -> Any:
        """`onnx_ir.Shape`, for the graph library."""
        import onnx_ir
        return onnx_ir.Shape(self.dims)

    @property
    def raw(self) -> Any:
        return self

    def numpy(self) -> np.ndarray:
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self.numpy().__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.numpy().__dlpack_device__()

    def chunks(self) -> Iterator[Any]:
        """The packed little-endian bytes, piece by piece: of an array that lies in another order only some rows are copied at a time."""
        array = self.numpy()
        if array.ndim == 0 or array.flags.c_contiguous or array.nbytes <= CHUNK or BITS[self.element_type] < 8:
            yield packed(array)
            return
        rows = max(1, CHUNK * len(array) // array.nbytes)
        for start in range(0, len(array), rows):
            yield packed(array[start:start + rows])

    def let_go(self) -> None:
        """Gives the pages of mappings back that its data was read from."""

    def tobytes(self) -> bytes:
        return b"".join(self.chunks())

    def tofile(self, file: BinaryIO) -> None:
        for chunk in self.chunks():
            file.write(chunk)

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{NAME[self.element_type]},{list(self.dims)}>({self.name!r})"


def type_of(tensor: Any) -> int:
    """The number of the element type of a tensor of ours or of onnx-ir, without importing onnx-ir for ours."""
    return tensor.element_type if isinstance(tensor, Tensor) else int(tensor.dtype)


def dims_of(tensor: Any) -> tuple[int, ...]:
    """The dimensions of a tensor of ours or of onnx-ir, likewise."""
    return tensor.dims if isinstance(tensor, Tensor) else tuple(int(dim) for dim in tensor.shape)


class SliceTensor(Tensor):
    """Packed little-endian data inside a mapping. Raises `Damaged` where the bytes are not exactly those of the shape."""

    def __init__(self, name: str | None, element_type: int, dims: Sequence[int], data: memoryview | bytes):
        super().__init__(name, element_type, dims)
        self.data = memoryview(data)
        if self.data.nbytes != self.nbytes:
            raise Damaged(f"{self.data.nbytes} bytes of data where its shape {list(self.dims)} of {NAME[element_type]} takes {self.nbytes}", where=str(name))

    def numpy(self) -> np.ndarray:
        return unpacked(self.data, self.element_type, self.dims)

    def chunks(self) -> Iterator[memoryview]:
        """Pages of a mapping are given back piece by piece, once whoever asked for a piece has asked for the next."""
        for start in range(0, self.data.nbytes, CHUNK):
            piece = self.data[start:start + CHUNK]
            yield piece
            release(piece)

    def let_go(self) -> None:
        release(self.data)

    def pieces(self) -> Iterator[memoryview]:
        """The same in pieces of `wire.files.COPIED` bytes, of which only one is there at a time: for whoever looks at each once."""
        return files.pieces(self.data)


def release(view: memoryview) -> None:
    """Tells the system that the pages under a slice of a mapping are not needed for now: they are read again from the file where somebody looks.

    Without it every page that was ever read counts as memory of this process. Does nothing for bytes of other owners and systems without madvise.
    """
    owner = view.obj
    if not isinstance(owner, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED") or not view.nbytes:
        return
    first = files.place_of(view)
    start = first - first % mmap.PAGESIZE
    owner.madvise(mmap.MADV_DONTNEED, start, first + view.nbytes - start)


class ComputedTensor(Tensor):
    """`function(*arrays of sources)`, computed anew whenever it is asked for and never kept."""

    def __init__(self, name: str | None, element_type: int, dims: Sequence[int], function: Callable[..., np.ndarray], sources: Sequence[Any]):
        super().__init__(name, element_type, dims)
        self.function, self.sources = function, tuple(sources)

    def numpy(self) -> np.ndarray:
        import numpy as np
        arrays = [source.numpy() for source in self.sources]
        array = self.function(*arrays)
        if array.shape != self.dims:
            raise AssertionError(f"{self.name}: computed {array.shape}, declared {self.dims}")
        for source, given in zip(self.sources, arrays, strict=True):
            if isinstance(source, Tensor) and not np.may_share_memory(array, given):
                source.let_go()
        return array

    def chunks(self) -> Iterator[Any]:
        yield from super().chunks()
        self.let_go()

    def let_go(self) -> None:
        for source in self.sources:
            if isinstance(source, Tensor):
                source.let_go()


class StackedTensor(Tensor):
    """Tensors of one type and shape along a new first axis, read one after the other."""

    def __init__(self, name: str | None, parts: Sequence[Any]):
        super().__init__(name, type_of(parts[0]), (len(parts), *dims_of(parts[0])))
        self.parts = tuple(parts)

    def numpy(self) -> np.ndarray:
        import numpy as np
        return np.stack([part.numpy() for part in self.parts])

    def chunks(self) -> Iterator[Any]:
        for part in self.parts:
            yield from part.chunks() if isinstance(part, Tensor) else (packed(part.numpy()),)


def array_tensor(array: Any, name: str | None = None) -> Any:
    """A tensor over an array that is in memory."""
    import numpy as np
    array = np.asarray(array)
    if array.dtype.kind in "OSU":
        import onnx_ir
        return onnx_ir.StringTensor([x if isinstance(x, bytes) else str(x).encode() for x in array.ravel()], shape=onnx_ir.Shape(array.shape), name=name)
    return ComputedTensor(name, number_of(array.dtype), array.shape, lambda: array, ())


def lazily(function: Callable[..., np.ndarray] | Sequence[int], *sources: Any, dims: Sequence[Any] | None = None, element_type: int | None = None,
           name: str | None = None) -> Any:
    """A `ComputedTensor`: computed from `sources` when it is needed. A sequence of ints instead of a function is a permutation of axes.

    `dims` and `element_type` of the result default to those of the first source.
    """
    first = sources[0]
    shape = tuple(int(dim) for dim in first.shape)
    if not callable(function):
        axes = tuple(function)
        dims = tuple(shape[axis] for axis in axes)
        return ComputedTensor(name, int(first.dtype), dims, lambda array: array.transpose(axes), sources)
    return ComputedTensor(name, int(first.dtype) if element_type is None else element_type, shape if dims is None else dims, function, sources)


def unpacked(data: memoryview | bytes, element_type: int, dims: Sequence[int]) -> np.ndarray:
    """An array over packed little-endian bytes, without a copy where the type has whole bytes."""
    import numpy as np
    bits = BITS[element_type]
    if bits >= 8:
        return np.frombuffer(data, numpy_type(element_type)).reshape(dims)
    raw = np.frombuffer(data, np.uint8)
    if 8 % bits:
        rows = np.unpackbits(raw, bitorder="little")[:math.prod(dims) * bits].reshape(-1, bits)
        return np.packbits(rows, axis=-1, bitorder="little").reshape(dims).view(numpy_type(element_type))
    parts = [(raw >> shift) & (1 << bits) - 1 for shift in range(0, 8, bits)]
    values = np.stack(parts, axis=-1).reshape(-1)[:math.prod(dims)]
    if NAME[element_type].startswith("INT"):
        values = ((values ^ (1 << bits - 1)).astype(np.int8) - (1 << bits - 1)).astype(np.int8)
        return values.astype(numpy_type(element_type)).reshape(dims)
    return values.view(numpy_type(element_type)).reshape(dims)


def packed(array: np.ndarray) -> Any:
    """The packed little-endian bytes of an array, as an object that a file takes."""
    import numpy as np
    bits = BITS[number_of(array.dtype)]
    if bits >= 8:
        array = np.ascontiguousarray(array)
        return array.reshape(-1).view(np.uint8).data if array.size else b""
    values = array.reshape(-1).astype(np.int8).view(np.uint8) if array.dtype.name.startswith(("int", "uint")) else array.reshape(-1).view(np.uint8)
    if 8 % bits:
        return np.packbits(np.unpackbits(values[:, None], axis=-1, bitorder="little")[:, :bits], bitorder="little").data
    per_byte = 8 // bits
    places = np.pad(values & (1 << bits) - 1, (0, -len(values) % per_byte)).reshape(-1, per_byte)
    out = np.zeros(len(places), np.uint8)
    for place in range(per_byte):
        out |= places[:, place] << np.uint8(place * bits)
    return out.data
