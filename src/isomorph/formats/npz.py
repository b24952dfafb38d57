"""NumPy arrays: .npz, a zip of .npy files, and a single .npy.

Headers are parsed by patterns and never evaluated, and pickled objects are refused: the data of `allow_pickle` is a program.
"""
from __future__ import annotations

import math
import os
import re
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsafe, Unsupported, Usage
from isomorph.formats import Capabilities, Format, Match
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity
from isomorph.tensors import BITS, NAME, NUMBER, ComputedTensor, SliceTensor, Tensor, dims_of, lazily, packed, type_of
from isomorph.wire import files

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Checkpoint
    from isomorph.wire.limits import Limits

MAGIC = b"\x93NUMPY"
MOST_HEADERS = 200
DTYPE = re.compile(rb"'descr': *(?:'([^']{1,40})'|(\[))")
SHAPE = re.compile(rb"'shape': *\(((?: *[0-9]{1,19}L? *,)* *(?:[0-9]{1,19}L? *)?)\)")          # Python 2 wrote an L


def identify(artifact: Artifact) -> Match | None:
    """Recognises `\\x93NUMPY`, and a zip whose members all are such files: how many arrays, their dtypes, whether any holds pickled objects."""
    if artifact.is_folder:
        return None
    if artifact.head.startswith(MAGIC):
        dtype, shape = _header(artifact.head)
        flavour = "npy, pickled objects" if dtype == "objects" else "npy"
        return Match("npz", ".".join(str(byte) for byte in artifact.head[6:8]), flavour, "weights", {"dtype": dtype, "shape": shape})
    if not artifact.head.startswith(b"PK\3\4"):
        return None
    archive = artifact.archive
    if archive is None or archive.kind != "zip" or not archive.names or not all(name.endswith(".npy") for name in archive.names):
        return None
    heads = [archive.head(name, 512) for name in archive.names[:MOST_HEADERS]]
    if not all(head.startswith(MAGIC) for head in heads):
        return None
    dtypes = sorted({_header(head)[0] for head in heads})
    packed = any(not member.stored for member in archive.members.values())
    detail: dict[str, Any] = {"arrays": len(archive.names), "dtypes": dtypes, "compressed": packed}
    return Match("npz", "", "npz, pickled objects" if "objects" in dtypes else "npz", "weights", detail)


def _header(head: bytes) -> tuple[str, list[int] | None]:
    """dtype and shape of the header of one .npy file. Format: numpy.lib.format, "Format Version 1.0"; the text is matched, never evaluated."""
    dtype, shape = DTYPE.search(head[:4096]), SHAPE.search(head[:4096])
    text = "unknown" if dtype is None else "structured" if dtype[2] else dtype[1].decode("latin1")
    return "objects" if "O" in text else text, [int(part.strip(b" L")) for part in shape[1].split(b",") if part.strip(b" L")] if shape else None


# One entry of the header: a Python dict display of exactly these three keys
ENTRY = re.compile(r"\s*'(descr|fortran_order|shape)'\s*:\s*"
                   r"('[^'\\]*'|\"[^\"\\]*\"|True|False|\((?:\s*\d{1,19}L?\s*,)*\s*(?:\d{1,19}L?)?\s*\)|\[.*\])"
                   r"\s*(,|(?=\}))", re.S)
LONGEST_HEADER = 10_000                    # as numpy.lib.format
KINDS = {"f2": "FLOAT16", "f4": "FLOAT", "f8": "DOUBLE", "i1": "INT8", "i2": "INT16", "i4": "INT32", "i8": "INT64", "u1": "UINT8", "u2": "UINT16",
         "u4": "UINT32", "u8": "UINT64", "b1": "BOOL", "c8": "COMPLEX64", "c16": "COMPLEX128"}
DESCR = {name: ("|" if BITS[NUMBER[name]] == 8 else "<") + kind for kind, name in KINDS.items()}
EARLIEST = (1980, 1, 1, 0, 0, 0)           # every member has this time, so that equal arrays make equal files
LAST_CHARACTER = 0x10FFFF
ALIGNMENT = 64                             # bytes to which numpy.lib.format fills a header


# Reading

def read(artifact: Artifact, *, progress: Progress = SILENT) -> Checkpoint:
    """The arrays of a file. Stored members are slices of the mapping, packed ones are unpacked whenever they are asked for.

    Raises `Damaged`, `Unsafe` for pickled objects, and `Unsupported` with every array whose type has no equivalent.
    """
    from isomorph.model import Checkpoint
    if artifact.head.startswith(MAGIC):
        name = artifact.name.removesuffix(".npy")
        return Checkpoint({name: _array(name, artifact.view, artifact.limits, artifact.where)})
    archive = artifact.archive
    if archive is None or archive.kind != "zip":
        raise Damaged("neither an .npy file nor a zip of them", where=artifact.where, offset=0)
    result, blockers = Checkpoint(), []
    for member in archive.names:
        where = f"{artifact.where}, {member[:120]}"
        if not member.endswith(".npy"):
            result.findings.append(Finding("npz.not-an-array", Severity.LOW, where, "a member that is no array is left out"))
            continue
        name = member.removesuffix(".npy")
        try:
            result.tensors[name] = (_array(name, archive.read(member), artifact.limits, where) if archive.members[member].stored
                                    else _packed_array(name, member, archive, artifact.limits, where))
        except Unsupported as reason:
            blockers.append((name, where, reason.what))
    if blockers:
        raise Unsupported(f"{len(blockers)} arrays have types without an equivalent: {blockers[0][2]}", where=artifact.where, blockers=blockers)
    result.findings += [Finding(note.code, Severity(note.severity), note.where, note.message) for note in archive.findings]
    return result


def _array(name: str, view: memoryview, limits: Limits, where: str) -> Any:
    start, descr, fortran, dims = _parse_header(view, limits, where)
    return _tensor(name, descr, fortran, dims, view[start:], where)


def _packed_array(name: str, member: str, archive: Any, limits: Limits, where: str) -> Any:
    start, descr, fortran, dims = _parse_header(memoryview(archive.head(member, LONGEST_HEADER + 12)), limits, where)
    size = archive.members[member].size - start
    if descr[1:2] in ("U", "S"):
        return _tensor(name, descr, fortran, dims, archive.read(member)[start:], where)
    number = _element_type(descr, where)
    if size < math.prod(dims) * BITS[number] // 8:
        raise Damaged(f"{size} bytes of data where its shape {list(dims)} of {descr!r} takes {math.prod(dims) * BITS[number] // 8}", where=where)
    return ComputedTensor(name, number, dims, lambda: _tensor(name, descr, fortran, dims, archive.read(member)[start:], where).numpy(), ())


def _parse_header(view: memoryview, limits: Limits, where: str) -> tuple[int, str, bool, tuple[int, ...]]:
    """The offset of the data, the dtype, whether columns come first, and the shape."""
    major = view[6] if len(view) > 10 and bytes(view[:6]) == MAGIC else 0
    if major not in (1, 2, 3):
        raise Damaged(f"no .npy header of version 1 to 3 (version {major})", where=where, offset=0)
    at, length = (10, int.from_bytes(view[8:10], "little")) if major == 1 else (12, int.from_bytes(view[8:12], "little"))
    if length > LONGEST_HEADER:
        raise Unsafe(f"a header of {length} bytes, at most {LONGEST_HEADER} are read", where=where)
    if at + length > len(view):
        raise Damaged(f"a header of {length} bytes in {len(view)}", where=where, offset=8)
    text = str(view[at:at + length], "latin1" if major < 3 else "utf-8", "replace").strip()
    entries: dict[str, str] = {}
    place = 1
    while entry := ENTRY.match(text, place):
        if entry[1] in entries:
            raise Damaged(f"{entry[1]!r} stands twice in the header", where=where, offset=at)
        entries[entry[1]] = entry[2]
        place = entry.end()
    if not text.startswith("{") or text[place:].strip() != "}" or len(entries) != 3:
        raise Damaged(f"the header {text[:80]!r} is not a dict of descr, fortran_order and shape", where=where, offset=at)
    dims = tuple(int(part) for part in re.findall(r"\d+", entries["shape"])) if entries["shape"].startswith("(") else None
    if dims is None or len(dims) > limits.dimensions or entries["fortran_order"] not in ("True", "False"):
        raise Damaged(f"the header {text[:80]!r} has no shape or order", where=where, offset=at)
    return at + length, entries["descr"].strip("'\""), entries["fortran_order"] == "True", dims


def _element_type(descr: str, where: str) -> int:
    if "O" in descr:
        raise Unsafe("it holds pickled Python objects, which could run code when they are loaded", where=where,
                     hint="save it with allow_pickle=False from a program you trust")
    if descr[:1] not in ("<", ">", "|", "=") or descr[1:] not in KINDS:
        raise Unsupported(f"the dtype {descr[:60]!r}", where=where, hint="types that NumPy does not know, such as bfloat16, lose their name in .npy files")
    return NUMBER[KINDS[descr[1:]]]


def _tensor(name: str, descr: str, fortran: bool, dims: tuple[int, ...], data: memoryview, where: str) -> Any:
    if re.fullmatch(r"[<>|=][US]\d{1,9}", descr):
        return _text(name, descr, fortran, dims, data, where)
    number = _element_type(descr, where)
    size = math.prod(dims) * BITS[number] // 8
    if len(data) < size:
        raise Damaged(f"{len(data)} bytes of data where its shape {list(dims)} of {descr!r} takes {size}", where=where)
    tensor: Any = SliceTensor(name, number, dims[::-1] if fortran else dims, data[:size])
    if descr[0] == ">" and BITS[number] > 8:
        tensor = lazily(lambda array: array.byteswap(), tensor, name=name)
    return lazily(range(len(dims) - 1, -1, -1), tensor, name=name) if fortran and len(dims) > 1 else tensor


def _text(name: str, descr: str, fortran: bool, dims: tuple[int, ...], data: memoryview, where: str) -> Any:
    """Text of one width becomes text of any width, in memory: ONNX has no other."""
    import numpy as np

    from isomorph.tensors import array_tensor
    dtype = np.dtype(descr)
    size = dtype.itemsize * math.prod(dims)
    if len(data) < size:
        raise Damaged(f"{len(data)} bytes of data where its shape {list(dims)} of {descr!r} takes {size}", where=where)
    if not dtype.itemsize and math.prod(dims) > LONGEST_HEADER:
        raise Unsafe(f"{math.prod(dims)} texts of no length", where=where)
    if dtype.kind == "U" and (np.frombuffer(data[:size], dtype.byteorder + "u4") > LAST_CHARACTER).any():
        raise Damaged("text that is none: a character beyond the last of Unicode", where=where)
    try:
        flat = np.frombuffer(data[:size], dtype) if dtype.itemsize else np.zeros(math.prod(dims), dtype)
        return array_tensor(flat.reshape(dims, order="F" if fortran else "C"), name)
    except (UnicodeError, ValueError) as error:
        raise Damaged(f"text that is none ({error})", where=where) from None


# Writing

def write(model: Checkpoint, path: str | os.PathLike, *, force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes a zip of stored .npy members, or one .npy where the path says so and there is one tensor. Tensors are asked for one after another.

    Raises `Unsupported` with every tensor whose type NumPy has no name for, `Usage` where the output exists or an .npy is to hold several.
    """
    path = Path(path)
    if not hasattr(model, "tensors"):
        raise Usage("npz holds weights and not a graph", where=str(path), hint="hand over a Checkpoint, such as isomorph.model.weights(model)")
    blockers = [(name, name, f"NumPy has no type for {NAME[type_of(tensor)]}") for name, tensor in model.tensors.items()
                if NAME[type_of(tensor)] not in DESCR and type_of(tensor) != NUMBER["STRING"]]
    if blockers:
        raise Unsupported(f"{len(blockers)} tensors cannot be stored: {', '.join(name for name, _, _ in blockers[:5])}", where=str(path), blockers=blockers)
    single = path.suffix == ".npy"
    if single and len(model.tensors) != 1:
        raise Usage(f"{len(model.tensors)} tensors do not fit into one .npy", where=str(path), hint="write an .npz")
    progress.start("write", sum(tensor.nbytes for tensor in model.tensors.values()), "bytes")
    with files.replacing(path, force=force) as file:
        if single:
            _write_array(next(iter(model.tensors.values())), file, progress)
        else:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for name, tensor in model.tensors.items():
                    with archive.open(zipfile.ZipInfo(f"{name}.npy", EARLIEST), "w", force_zip64=True) as member:
                        _write_array(tensor, member, progress)
    progress.finish()
    return Report(str(path), [], {"bytes": path.stat().st_size, "tensors": len(model.tensors)})


def _write_array(tensor: Any, file: Any, progress: Progress) -> None:
    chunks, descr = _content(tensor)
    dims = dims_of(tensor)
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {dims!r}, }}".encode("latin1")
    text += b" " * (-(len(text) + 11) % ALIGNMENT) + b"\n"
    file.write(MAGIC + b"\1\0" + struct.pack("<H", len(text)) + text)
    for chunk in chunks:
        file.write(chunk)
        progress.advance(memoryview(chunk).nbytes)


def _content(tensor: Any) -> tuple[Any, str]:
    """The bytes of a tensor and the dtype that describes them; text gets the width of its longest."""
    if type_of(tensor) == NUMBER["STRING"]:
        import numpy as np
        array = np.array([item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in tensor.numpy().ravel()] or [""])
        return [array[:tensor.size].astype(array.dtype.newbyteorder("<")).tobytes()], array.dtype.newbyteorder("<").str
    return tensor.chunks() if isinstance(tensor, Tensor) else [packed(tensor.numpy())], DESCR[NAME[type_of(tensor)]]


FORMAT = Format(
    name="npz", title="NumPy arrays", extensions=(".npz", ".npy"), holds="weights",
    spec="https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html", identify=identify, read=read, write=write,
    can=Capabilities(dtypes=frozenset(DESCR) | {"STRING"}),
)
