"""What all writers of PyTorch's archives share: aligned stored members of a zip, and pickles of protocol 2 written opcode by opcode."""
from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from isomorph.errors import Damaged
from isomorph.progress import Progress
from isomorph.tensors import NAME, dims_of, packed, type_of
from isomorph.wire import files

STORAGE_OF = {"FLOAT": "FloatStorage", "DOUBLE": "DoubleStorage", "FLOAT16": "HalfStorage", "BFLOAT16": "BFloat16Storage", "UINT8": "ByteStorage",
              "INT8": "CharStorage", "INT16": "ShortStorage", "INT32": "IntStorage", "INT64": "LongStorage", "BOOL": "BoolStorage",
              "COMPLEX64": "ComplexFloatStorage", "COMPLEX128": "ComplexDoubleStorage"}
# Types that have no storage class: an untyped storage, and the type with the tensor
UNTYPED = {"UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FLOAT8E4M3FN": "float8_e4m3fn", "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
           "FLOAT8E5M2": "float8_e5m2", "FLOAT8E5M2FNUZ": "float8_e5m2fnuz", "FLOAT8E8M0": "float8_e8m0fnu"}
ALIGNMENT = 64
EARLIEST = (1980, 1, 1, 0, 0, 0)           # every member has this time, so that equal tensors make equal files
HEADER_BYTES, ZIP64_BYTES = 30, 20
ORDERED = b"ccollections\nOrderedDict\n)R"


class Writer:
    """A zip under one folder, member after member."""

    def __init__(self, archive: zipfile.ZipFile, file: Any, folder: str, progress: Progress):
        self.archive, self.file, self.folder, self.progress = archive, file, folder, progress

    def member(self, name: str, chunks: Iterable[Any]) -> int:
        """One stored member whose data begins at a multiple of 64, so that PyTorch can map it. Returns its bytes."""
        info = zipfile.ZipInfo(f"{self.folder}/{name}", EARLIEST)
        padding = -(self.file.tell() + HEADER_BYTES + len(info.filename.encode()) + ZIP64_BYTES + 4) % ALIGNMENT
        info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
        written = 0
        with self.archive.open(info, "w", force_zip64=True) as member:
            for chunk in chunks:
                member.write(chunk)
                written += memoryview(chunk).nbytes
                self.progress.advance(memoryview(chunk).nbytes)
        return written

    def text(self, name: str, text: str) -> None:
        self.member(name, [text.encode()])

    def tensor(self, name: str, tensor: Any) -> None:
        """The packed bytes of a tensor. Raises `Damaged` where they are not as many as its shape says."""
        chunks = tensor.chunks() if hasattr(tensor, "chunks") else [packed(tensor.numpy())]
        written = self.member(name, chunks)
        if written != tensor.nbytes:
            raise Damaged(f"gave {written} bytes where {tensor.nbytes} were announced", where=str(tensor.name))


@contextlib.contextmanager
def writing(path: Path, folder: str, *, force: bool, progress: Progress) -> Iterator[Writer]:
    """An archive that appears under `path` whole or not at all."""
    with files.replacing(path, force=force) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        yield Writer(archive, file, folder, progress)


def strides_of(dims: Sequence[int]) -> tuple[int, ...]:
    """In elements, of a tensor whose last axis is contiguous."""
    result, step = [], 1
    for dim in reversed(dims):
        result.append(step)
        step *= max(dim, 1)
    return tuple(reversed(result))


# Opcodes

def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(items: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(number, items)) + b"t"


def rebuilt(kind: str, key: int, count: int, nbytes: int, offset: int, dims: Sequence[int], strides: Sequence[int], *, trained: bool = False) -> bytes:
    """`torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, OrderedDict())`, or _v3 with a dtype, of the element type `kind`."""
    typed = kind in STORAGE_OF
    name = f"torch{'' if typed else '.storage'}\n{STORAGE_OF.get(kind, 'UntypedStorage')}\n"
    storage = b"(" + text("storage") + b"c" + name.encode() + text(str(key)) + text("cpu") + number(count if typed else nbytes) + b"tQ"
    rest = number(offset) + tuple_of(dims) + tuple_of(strides) + (b"\x88" if trained else b"\x89") + ORDERED
    return b"ctorch._utils\n_rebuild_tensor_" + (b"v2" if typed else b"v3") + b"\n(" + storage + rest + \
        (b"tR" if typed else b"ctorch\n" + UNTYPED[kind].encode() + b"\ntR")


def rebuilt_whole(tensor: Any, key: int, *, trained: bool = False) -> bytes:
    """A tensor that is the whole of its storage."""
    dims = dims_of(tensor)
    return rebuilt(NAME[type_of(tensor)], key, tensor.size, tensor.nbytes, 0, dims, strides_of(dims), trained=trained)
