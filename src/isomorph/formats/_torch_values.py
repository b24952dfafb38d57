"""What PyTorch's pickles construct, built by us: storages, tensors of every generation of rebuilders, dtypes, devices, and NumPy's arrays.

One rule a name, each checks its arguments. The names: torch/_utils.py, torch/_tensor.py, torch/_weights_only_unpickler.py, torch/jit/_pickle.py, and
numpy/_core/multiarray.py. Tensors stay views of storages, which are read when somebody asks for an array.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsafe, Unsupported
from isomorph.tensors import BITS, NUMBER, ComputedTensor, SliceTensor, Tensor, numpy_type
from isomorph.wire.pickle import Machine
from isomorph.wire.pickle_records import Call, Dict, Name
from isomorph.wire.pickle_rules import RULES, Rule, arguments, data_of

if TYPE_CHECKING:
    import numpy as np

# c10/core/ScalarType.h: the name in Python -> our element type. Quantised integers are stored as what they are.
DTYPES: dict[str, str] = {
    "float32": "FLOAT", "float": "FLOAT", "float64": "DOUBLE", "double": "DOUBLE", "float16": "FLOAT16", "half": "FLOAT16", "bfloat16": "BFLOAT16",
    "uint8": "UINT8", "int8": "INT8", "int16": "INT16", "short": "INT16", "int32": "INT32", "int": "INT32", "int64": "INT64", "long": "INT64", "bool": "BOOL",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "complex64": "COMPLEX64", "cfloat": "COMPLEX64", "complex128": "COMPLEX128",
    "cdouble": "COMPLEX128", "float8_e4m3fn": "FLOAT8E4M3FN", "float8_e4m3fnuz": "FLOAT8E4M3FNUZ", "float8_e5m2": "FLOAT8E5M2",
    "float8_e5m2fnuz": "FLOAT8E5M2FNUZ", "float8_e8m0fnu": "FLOAT8E8M0", "qint8": "INT8", "quint8": "UINT8", "qint32": "INT32", "bits8": "UINT8",
    "float4_e2m1fn_x2": "UINT8", "quint4x2": "UINT8", "quint2x4": "UINT8", "bits1x8": "UINT8", "bits2x4": "UINT8", "bits4x2": "UINT8", "bits16": "UINT16",
}
PACKED = ("float4_e2m1fn_x2", "quint4x2", "quint2x4", "bits1x8", "bits2x4", "bits4x2")     # several numbers in a byte, kept as bytes
HALF_COMPLEX = ("complex32", "chalf")                                                     # kept as pairs of float16
STORAGES: dict[str, str | None] = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16", "ByteStorage": "uint8",
    "CharStorage": "int8", "ShortStorage": "int16", "IntStorage": "int32", "LongStorage": "int64", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4", "UntypedStorage": None,
}
STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage", "torch.sparse", "torch.cuda.sparse")
LAYOUTS = ("torch.strided", "torch.sparse_coo", "torch.sparse_csr", "torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc", "torch._mkldnn", "torch.jagged")
SCHEMES = ("per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric", "per_channel_affine_float_qparams")


@dataclass(frozen=True, slots=True)
class DType:
    """A dtype of PyTorch by its name."""

    name: str

    @property
    def element_type(self) -> int:
        return NUMBER["FLOAT16" if self.name in HALF_COMPLEX else DTYPES[self.name]]

    @property
    def bytes(self) -> int:
        return BITS[self.element_type] // 8 * (2 if self.name in HALF_COMPLEX else 1)


@dataclass(eq=False, slots=True)
class Storage:
    """Bytes that tensors look into. `bytes` is their number; `view` gives them once the file has said where they are."""

    key: str
    dtype: DType | None
    bytes: int
    location: str = "cpu"
    big_endian: bool = False
    stored: bool = True
    view: Callable[[], memoryview] = lambda: memoryview(b"")
    root: Storage | None = None             # the storage that this one is a retyped look at

    def data(self) -> memoryview:
        """All bytes. Raises `Damaged` where there are not as many as the pickle says."""
        view = self.view()
        if len(view) != self.bytes:
            raise Damaged(f"storage {self.key[:40]!r} has {len(view)} bytes where the pickle says {self.bytes}")
        return view


@dataclass(eq=False, slots=True)
class TensorRecord:
    """A strided view of a storage; offset and strides count elements. `storage` is None for a tensor of the meta device."""

    storage: Storage | None
    dtype: DType
    offset: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    parameter: bool = False
    quantizer: tuple = ()                   # (scale, zero point) or (scale tensor, zero point tensor, axis)
    parts: dict[str, Any] = field(default_factory=dict)       # of a sparse or nested tensor
    layout: str = "torch.strided"

    def build(self, machine: Machine, state: Any) -> None:
        """Attributes that Python code gave to a tensor; no weights."""

    @property
    def contiguous(self) -> bool:
        expected = 1
        for dim, stride in zip(reversed(self.dims), reversed(self.strides), strict=True):
            if dim != 1 and stride != expected:
                return False
            expected *= dim
        return True

    def place(self) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
        """What tensors have in common that are one tensor under two names."""
        return id(self.storage), self.offset, self.dims, self.strides

    def tensor(self, name: str) -> Tensor:
        """The lazy tensor of a strided record."""
        assert self.storage is not None
        storage, item, number = self.storage, self.dtype.bytes, self.dtype.element_type
        dims, strides, offset = self.dims, self.strides, self.offset
        if self.dtype.name in HALF_COMPLEX:
            dims, strides, offset = (*dims, 2), (*(stride * 2 for stride in strides), 1), offset * 2
            item //= 2
        count = math.prod(dims)
        made: Tensor
        if storage.stored and self.contiguous and (not storage.big_endian or item == 1):
            made = SliceTensor(name, number, dims, storage.data()[offset * item:(offset + count) * item] if count else b"")
        else:
            made = ComputedTensor(name, number, dims, lambda: _strided(storage, number, offset, dims, strides), ())
        made.meta["storage"] = (storage, self.offset, self.dims, self.strides, self.dtype.name)
        return made


def _strided(storage: Storage, number: int, offset: int, dims: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    import numpy as np
    dtype = numpy_type(number)
    if not math.prod(dims):
        return np.zeros(dims, dtype)
    reach = offset + sum((dim - 1) * stride for dim, stride in zip(dims, strides, strict=True)) + 1
    flat = np.frombuffer(storage.data()[:reach * dtype.itemsize], dtype)[offset:]
    if storage.big_endian:
        flat = flat.byteswap()
    return np.lib.stride_tricks.as_strided(flat, dims, [stride * dtype.itemsize for stride in strides], writeable=False)


@dataclass(eq=False, slots=True)
class ArrayRecord:
    """A NumPy array: what `_reconstruct` makes and BUILD fills."""

    dtype: NumpyDType | None = None
    dims: tuple[int, ...] = ()
    fortran: bool = False
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    def build(self, machine: Machine, state: Any) -> None:
        """(version, shape, dtype, Fortran order, bytes), numpy/_core/src/multiarray/methods.c."""
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Damaged("the state of an array is no tuple of five", where=machine.where)
        dims, dtype, fortran, data = state[-4:]
        self.fill(machine, dims, dtype, fortran, data)

    def fill(self, machine: Machine, dims: Any, dtype: Any, fortran: Any, data: Any) -> ArrayRecord:
        if not is_sizes(dims) or not isinstance(dtype, NumpyDType) or not isinstance(fortran, (bool, int)):
            raise Damaged("the state of an array has no shape, dtype or order", where=machine.where)
        self.dims, self.dtype, self.fortran = tuple(dims), dtype, bool(fortran)
        if dtype.objects:
            machine.note("pickle.object-array", 2, "an array of Python objects is no weight and is left out")
            return self
        view = data_of(machine, data)
        if view is None or len(view) != math.prod(dims) * dtype.bytes:
            raise Damaged("an array whose bytes are not those of its shape", where=machine.where)
        self.data = view
        return self

    def tensor(self, name: str) -> Tensor | None:
        """The lazy tensor, None where the elements are no numbers."""
        number = self.dtype.element_type if self.dtype else None
        if number is None or self.dtype is None:
            return None
        dims = self.dims[::-1] if self.fortran else self.dims
        made: Tensor = SliceTensor(name, number, dims, self.data)
        if self.dtype.order == ">" and BITS[number] > 8:
            swapped = made
            made = ComputedTensor(name, number, dims, lambda array: array.byteswap(), [swapped])
        if self.fortran and len(dims) > 1:
            straight = made
            made = ComputedTensor(name, number, self.dims, lambda array: array.transpose(), [straight])
        return made


@dataclass(eq=False, slots=True)
class NumpyDType:
    """A dtype of NumPy: what `numpy.dtype("f8", ...)` makes and BUILD completes with the byte order."""

    code: str
    order: str = "|"
    plain: bool = True

    def build(self, machine: Machine, state: Any) -> None:
        """(version, byte order, subdtype, names, fields, size, alignment, flags): only plain types stay plain."""
        if not isinstance(state, tuple) or len(state) < 3 or state[1] not in ("<", ">", "|", "="):
            raise Damaged("the state of a dtype is no tuple with a byte order", where=machine.where)
        self.order = state[1]
        self.plain = all(part is None for part in state[2:5])

    @property
    def objects(self) -> bool:
        return "O" in self.code or not self.plain

    @property
    def bytes(self) -> int:
        return int(self.code[1:]) * (4 if self.code[0] == "U" else 1)

    @property
    def element_type(self) -> int | None:
        return NUMPY_TYPES.get(self.code) if self.plain else None


NUMPY_TYPES = {code: NUMBER[name] for code, name in (
    ("f2", "FLOAT16"), ("f4", "FLOAT"), ("f8", "DOUBLE"), ("i1", "INT8"), ("i2", "INT16"), ("i4", "INT32"), ("i8", "INT64"), ("u1", "UINT8"),
    ("u2", "UINT16"), ("u4", "UINT32"), ("u8", "UINT64"), ("b1", "BOOL"), ("c8", "COMPLEX64"), ("c16", "COMPLEX128"))}
ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")


# ---- rules

def is_sizes(value: Any) -> bool:
    """Whether a value is a list or tuple of numbers that are 0 or more."""
    return isinstance(value, (list, tuple)) and len(value) <= 64 and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def dtype_of(machine: Machine, value: Any) -> DType:
    if not isinstance(value, DType):
        raise Damaged("a dtype was expected", where=machine.where)
    return value


def made_tensor(machine: Machine, storage: Any, offset: Any, dims: Any, strides: Any, dtype: DType | None) -> TensorRecord:
    """A view of a storage, checked to lie inside of it."""
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0 or not is_sizes(dims) or not is_sizes(strides) or len(dims) != len(strides):
        raise Damaged("a tensor without a storage, or whose sizes and strides are none", where=machine.where)
    dtype = dtype or storage.dtype
    if dtype is None:
        raise Damaged("a tensor whose type is not told", where=machine.where)
    record = TensorRecord(storage, dtype, offset, tuple(dims), tuple(strides))
    if not math.prod(dims):
        return record
    reach = offset + sum((dim - 1) * stride for dim, stride in zip(dims, strides, strict=True)) + 1
    if reach * dtype.bytes > storage.bytes:
        raise Damaged(f"a tensor of {list(dims)} reaches over the end of its storage {storage.key[:40]!r}", where=machine.where)
    size = math.prod(dims) * dtype.bytes
    if size > machine.limits.expansion_floor and size > machine.limits.expansion * storage.bytes:
        raise Unsafe(f"a tensor of {size:,} bytes that repeats a storage of {storage.bytes:,}", where=machine.where)
    return record


def _rebuild_tensor(machine: Machine, args: tuple) -> TensorRecord:
    if not 4 <= len(args) <= 7:
        raise Damaged("a tensor with other arguments than a rebuilder takes", where=machine.where)
    return made_tensor(machine, args[0], args[1], args[2], args[3], None)


def _rebuild_tensor_v3(machine: Machine, args: tuple) -> TensorRecord:
    if not 7 <= len(args) <= 8:
        raise Damaged("a tensor with other arguments than a rebuilder takes", where=machine.where)
    return made_tensor(machine, args[0], args[1], args[2], args[3], dtype_of(machine, args[6]))


def _rebuild_parameter(machine: Machine, args: tuple) -> Any:
    """(data, requires_grad, hooks[, state]); the data may also be one of our other records."""
    if not args or not isinstance(args[0], (TensorRecord, Call)):
        raise Damaged("a parameter without a tensor", where=machine.where)
    if isinstance(args[0], TensorRecord):
        args[0].parameter = True
    return args[0]


def _rebuild_qtensor(machine: Machine, args: tuple) -> TensorRecord:
    """(storage, offset, size, stride, (scheme, scale, zero point[, axis]), requires_grad, hooks)."""
    if not 5 <= len(args) <= 7 or not isinstance(args[4], tuple) or len(args[4]) not in (3, 4) or not isinstance(args[4][0], Name):
        raise Damaged("a quantised tensor without its scale", where=machine.where)
    record = made_tensor(machine, args[0], args[1], args[2], args[3], None)
    kinds = (int, float) if len(args[4]) == 3 else TensorRecord
    if args[4][0].qualname not in SCHEMES or not all(isinstance(part, kinds) for part in args[4][1:3]):
        raise Damaged("a quantised tensor with a scale of another kind", where=machine.where)
    record.quantizer = args[4][1:]
    return record


def _rebuild_sparse(machine: Machine, args: tuple) -> TensorRecord:
    """(layout, (indices, values, size[, coalesced])), or (layout, (pointers, indices, values, size)) for compressed rows and columns."""
    layout, data = arguments(machine, "a sparse tensor", args, str, tuple)
    names = ("indices", "values") if layout == "torch.sparse_coo" else ("pointers", "indices", "values")
    if len(data) <= len(names) or not all(isinstance(part, TensorRecord) for part in data[:len(names)]) or not is_sizes(data[len(names)]):
        raise Damaged("a sparse tensor without indices, values and size", where=machine.where)
    dims = tuple(data[len(names)])
    return TensorRecord(None, data[len(names) - 1].dtype, 0, dims, (0,) * len(dims), parts=dict(zip(names, data, strict=False)), layout=layout)


def _rebuild_meta(machine: Machine, args: tuple) -> TensorRecord:
    dtype, dims, strides, _ = arguments(machine, "a meta tensor", args, DType, (list, tuple), (list, tuple), object)
    if not is_sizes(dims) or not is_sizes(strides):
        raise Damaged("a meta tensor whose sizes are none", where=machine.where)
    return TensorRecord(None, dtype, 0, tuple(dims), tuple(strides), layout="meta")


def _rebuild_nested(machine: Machine, args: tuple) -> TensorRecord:
    parts = arguments(machine, "a nested tensor", args, TensorRecord, TensorRecord, TensorRecord, TensorRecord)
    return TensorRecord(None, parts[0].dtype, 0, (), (), parts=dict(zip(("values", "sizes", "strides", "offsets"), parts, strict=True)), layout="nested")


def _rebuild_jagged(machine: Machine, args: tuple) -> TensorRecord:
    """Rows of several lengths one behind the other, and where each begins."""
    (state,) = arguments(machine, "a jagged tensor", args, Dict)
    parts = {name: part for name in ("values", "offsets", "lengths") if isinstance(part := state.get(name), TensorRecord)}
    if not {"values", "offsets"} <= set(parts):
        raise Damaged("a jagged tensor without values and offsets", where=machine.where)
    return TensorRecord(None, parts["values"].dtype, 0, (), (), parts=parts, layout="torch.jagged")


def _rebuild_from_numpy(machine: Machine, args: tuple) -> ArrayRecord:
    return arguments(machine, "a tensor from an array", args, ArrayRecord, DType, object, object)[0]


def _rebuild_from_tensor(machine: Machine, args: tuple) -> TensorRecord:
    return arguments(machine, "a tensor of a device", args, TensorRecord, object, object, object)[0]


def _rebuild_from_type(machine: Machine, args: tuple) -> Any:
    """(function, class, arguments, state): the function again from this table; a subclass of Tensor stays a note."""
    function, kind, inner, _ = arguments(machine, "a tensor subclass", args, Name, (Name, DType), tuple, object)
    rule = RULES_TORCH.get(function)
    if rule is None or function == Name("torch._tensor", "_rebuild_from_type_v2"):
        machine.opaque[function] = None
        return Call(function, inner)
    if isinstance(kind, Name) and kind not in TENSOR_CLASSES:
        machine.opaque[kind] = None
    return rule(machine, inner)


def _load_from_bytes(machine: Machine, args: tuple) -> Any:
    """A whole torch file inside a pickle: read by the reader of such files, one level deeper."""
    data = data_of(machine, args[0]) if len(args) == 1 else None
    if data is None:
        raise Damaged("_load_from_bytes without bytes", where=machine.where)
    from isomorph.formats import _torch_files
    return _torch_files.load_bytes(data, machine)


def _tensor_of(machine: Machine, args: tuple) -> Any:
    """Parameter(tensor), Tensor(): what protocol 0 and old versions write."""
    return args[0] if args and isinstance(args[0], TensorRecord) else Call(Name("torch", "Tensor"), args)


def _size(machine: Machine, args: tuple) -> tuple:
    values = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    if not is_sizes(values):
        raise Damaged("torch.Size of what are no sizes", where=machine.where)
    return tuple(values)


def _device(machine: Machine, args: tuple) -> str:
    arguments(machine, "torch.device", args, str, int, least=1)
    return ":".join(str(part) for part in args)


def _layout(machine: Machine, args: tuple) -> str:
    (name,) = arguments(machine, "a layout", args, str)
    if name not in LAYOUTS:
        raise Damaged(f"there is no layout {name[:40]!r}", where=machine.where)
    return name


def _list(machine: Machine, args: tuple) -> list:
    """What TorchScript writes lists of one type with: build_intlist([1, 2]) and kin."""
    return list(arguments(machine, "a typed list", args, (list, tuple))[0])


def _restore_type_tag(machine: Machine, args: tuple) -> Any:
    return arguments(machine, "restore_type_tag", args, object, str)[0]


def _reconstruct(machine: Machine, args: tuple) -> ArrayRecord:
    if len(args) != 3 or not isinstance(args[0], Name) or args[0].qualname not in ("ndarray", "memmap", "matrix", "recarray"):
        raise Damaged("_reconstruct of another class than an array", where=machine.where)
    return ArrayRecord()


def _frombuffer(machine: Machine, args: tuple) -> ArrayRecord:
    data, dtype, dims, order = arguments(machine, "_frombuffer", args, object, NumpyDType, (list, tuple), str)
    return ArrayRecord().fill(machine, dims, dtype, order == "F", data)


def _scalar(machine: Machine, args: tuple) -> Any:
    """A NumPy number, as Python's where it is of a plain type."""
    import numpy as np
    dtype, raw = arguments(machine, "a NumPy scalar", args, NumpyDType, object)
    data = data_of(machine, raw)
    if data is None or dtype.element_type is None or len(data) != dtype.bytes:
        return Call(Name("numpy", "generic"), args)
    return np.frombuffer(data, np.dtype(("<" if dtype.order == "|" else dtype.order) + dtype.code)).item()


def _numpy_dtype(machine: Machine, args: tuple) -> NumpyDType:
    code = arguments(machine, "numpy.dtype", args, (str, Name), object, object, least=1)[0]
    code = (code.qualname if isinstance(code, Name) else code).lstrip("<>|=")
    if isinstance(args[0], str) and code[:1] in "fiubcUSVOMm" and (code == "O" or code[1:].isdigit()) and len(code) < 12:
        return NumpyDType(code if code != "O" else "O8")
    return NumpyDType("O8", plain=False)


JAGGED = "torch.nested._internal.nested_tensor"
TENSOR_CLASSES = {Name("torch", "Tensor"), Name("torch.nn.parameter", "Parameter"), Name("torch.nn.parameter", "Buffer"),
                  Name(JAGGED, "NestedTensor")}
CONSTANTS: dict[Name, Any] = {Name("torch", name): DType(name) for name in (*DTYPES, *HALF_COMPLEX)}
RULES_TORCH: dict[Name, Rule] = {
    **RULES,
    **{Name("torch._utils", name): rule for name, rule in (
        ("_rebuild_tensor", _rebuild_tensor), ("_rebuild_tensor_v2", _rebuild_tensor), ("_rebuild_tensor_v3", _rebuild_tensor_v3),
        ("_rebuild_parameter", _rebuild_parameter), ("_rebuild_parameter_with_state", _rebuild_parameter), ("_rebuild_qtensor", _rebuild_qtensor),
        ("_rebuild_sparse_tensor", _rebuild_sparse), ("_rebuild_meta_tensor_no_storage", _rebuild_meta), ("_rebuild_nested_tensor", _rebuild_nested),
        ("_rebuild_device_tensor_from_numpy", _rebuild_from_numpy), ("_rebuild_device_tensor_from_cpu_tensor", _rebuild_from_tensor))},
    Name(JAGGED, "_rebuild_njt"): _rebuild_jagged, Name("torch._dynamo.decorators", "_DimRange"): lambda machine, args: Call(Name("torch", "range"), args),
    Name("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type, Name("torch.storage", "_load_from_bytes"): _load_from_bytes,
    Name("torch", "Size"): _size, Name("torch", "device"): _device, Name("torch.serialization", "_get_layout"): _layout,
    **dict.fromkeys(TENSOR_CLASSES, _tensor_of),
    **{Name("torch.jit._pickle", name): _list for name in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")},
    Name("torch.jit._pickle", "restore_type_tag"): _restore_type_tag,
    **{Name(module, "_reconstruct"): _reconstruct for module in ARRAY_MODULES}, **{Name(module, "scalar"): _scalar for module in ARRAY_MODULES},
    **{Name(module, "_frombuffer"): _frombuffer for module in ARRAY_MODULES}, Name("numpy", "dtype"): _numpy_dtype,
}


# ---- from records to names

@dataclass(eq=False)
class Flat:
    """Tensors by dotted name, what is plain JSON beside them, and what could not be named."""

    tensors: dict[str, TensorRecord | ArrayRecord] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, Any] = field(default_factory=dict)     # path -> (class name, hyperparameters)
    visited: int = 0


MODULE_PARTS = ("_parameters", "_buffers", "_modules")
CONTENT = (TensorRecord, ArrayRecord, Dict, list, tuple, Call)       # what of a module may hold tensors
MOST_VISITED = 1_000_000
MOST_PLAIN, LONGEST_PLAIN = 10_000, 1 << 16


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """What a record contains, by key. The parts of a module stand under the module itself, as in its state_dict."""
    if isinstance(value, Dict):
        yield from ((key if isinstance(key, str) else str(key)[:80], item) for key, item in value.items)
    elif isinstance(value, (list, tuple)):
        yield from ((str(place), item) for place, item in enumerate(value))
    elif isinstance(value, Call):
        state = value.state
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], Dict):        # (__dict__, __slots__)
            state = Dict([*(state[0].items if isinstance(state[0], Dict) else []), *state[1].items])
        pairs = [*(state.items if isinstance(state, Dict) else []), *(item for item in value.items if isinstance(item, tuple) and len(item) == 2)]
        for key, item in pairs:
            if key in MODULE_PARTS and isinstance(item, Dict):
                yield from children(item)
            elif isinstance(key, str):
                yield key, item
        for place, item in enumerate(item for item in value.items if not (isinstance(item, tuple) and len(item) == 2)):
            yield str(place), item
        if not pairs:
            yield from ((str(place), item) for place, item in enumerate(value.args))


def is_plain(value: Any) -> bool:
    """Whether a value is a list of plain values, which is kept as one."""
    return isinstance(value, (list, tuple)) and all(isinstance(item, (bool, int, float, str, type(None))) for item in value)


def is_module(value: Any) -> bool:
    """Whether a record is a pickled torch.nn.Module, of whichever class."""
    return isinstance(value, Call) and isinstance(value.callee, Name) and isinstance(value.state, Dict) and isinstance(value.state.get("_modules"), Dict)


def flatten(value: Any, machine_limits: Any, where: str) -> Flat:
    """Every tensor of a nested value under its dotted name. Raises `Unsafe` where shared parts would expand without end."""
    flat = Flat()
    open_values: set[int] = set()

    def visit(value: Any, name: str, depth: int) -> None:
        flat.visited += 1
        if flat.visited > MOST_VISITED or len(flat.tensors) > machine_limits.tensors:
            raise Unsafe("nested values that expand to more than a checkpoint has", where=where)
        if isinstance(value, (TensorRecord, ArrayRecord)):
            flat.tensors[_free(name or "tensor", flat.tensors)] = value
            return
        if isinstance(value, Storage):
            if value.dtype is not None:
                flat.tensors[_free(name or "storage", flat.tensors)] = TensorRecord(value, value.dtype, 0, (value.bytes // value.dtype.bytes,), (1,))
            return
        if isinstance(value, (Dict, list, tuple, Call)):
            if depth > machine_limits.pickle_depth:
                raise Unsafe(f"values nested more than {machine_limits.pickle_depth} deep", where=where)
            if id(value) in open_values:
                return
            open_values.add(id(value))
            if is_module(value):
                flat.modules[name] = value
            if isinstance(value, (list, tuple)) and is_plain(value):
                leave(list(value), name)
            else:
                inside = is_module(value)
                for key, item in children(value):
                    if not inside or (isinstance(item, CONTENT) and not is_plain(item)):
                        visit(item, f"{name}.{key}" if name else key, depth + 1)
            open_values.discard(id(value))
            return
        leave(value, name)

    def leave(value: Any, name: str) -> None:
        if isinstance(value, DType):
            value = "torch." + value.name
        if isinstance(value, (bool, int, float, str, type(None), list)) and len(flat.plain) < MOST_PLAIN and (
                not isinstance(value, (str, list)) or len(value) < LONGEST_PLAIN):
            flat.plain[name] = value

    visit(value, "", 0)
    return flat


def _free(name: str, taken: dict[str, Any]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}#{count}"
    return candidate


def rejected(blockers: Sequence[tuple[str, str, str]], where: str) -> Unsupported:
    return Unsupported(f"{len(blockers)} tensors have types without an equivalent: {blockers[0][2]}", where=where, blockers=list(blockers))
