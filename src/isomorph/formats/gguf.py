"""GGUF, versions 1 to 3, of both byte orders, whole or in split parts. Written as version 3, little-endian."""
from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Missing, Unsafe, Unsupported, Usage
from isomorph.formats import Capabilities, Format, Match
from isomorph.progress import SILENT, Progress
from isomorph.quant.blocks import BLOCKS, BY_NUMBER, PLAIN, RETIRED, BlockType
from isomorph.report import Finding, Report, Severity
from isomorph.tensors import NAME, NUMBER, ComputedTensor, SliceTensor, dims_of, packed, type_of
from isomorph.wire import files, gguf
from isomorph.wire.gguf import Array, Header, Info, Keys

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Checkpoint

PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
MOST_PARTS = 10_000
HIGHEST_VERSION = 99                       # versions up to it are recognised, those of `wire.gguf.VERSIONS` are read

# general.file_type, llama.h LLAMA_FTYPE_*
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 4: "Q4_1 and F16", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S",
    27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
    38: "MXFP4_MOE", 39: "NVFP4",
}
KEPT = ("general.", "split.", "adapter.", "clip.", "imatrix.", "controlvector.", "tokenizer.ggml.model", "tokenizer.ggml.pre")
KINDS_KEY = "gguf.kinds"                   # in metadata that other formats carry: the types of the values, as JSON


# Recognising

def identify(artifact: Artifact) -> Match | None:
    """Recognises the magic number and reads the keys: version, byte order, architecture, what kind of file it is, parts."""
    if not artifact.head.startswith(gguf.MAGIC):
        return None
    header = _header(artifact)
    if not 1 <= header.version <= HIGHEST_VERSION:
        return None
    found = {name: list(value) if isinstance(value, Array) and len(value) < 64 else value for name, value in header.keys.items() if name.startswith(KEPT)}
    if any(name.startswith("tokenizer.") for name in header.keys):
        found["tokenizer"] = True
    detail: dict[str, Any] = {"byte_order": "big" if header.big else "little", "tensors": header.stated}
    if header.damage:
        detail["partly_read" if isinstance(header.damage, Unsafe) else "truncated"] = True
    detail |= _facts(found)
    detail |= _parts(artifact, found)
    return Match("gguf", str(header.version), _kind(found, detail), "weights", detail)


def _header(artifact: Artifact) -> Header:
    """Parsed once an artifact, whether to recognise or to read it."""
    if "gguf" not in artifact.parsed:
        artifact.parsed["gguf"] = gguf.parse(artifact.view, artifact.limits)
    return artifact.parsed["gguf"]


def _facts(found: dict[str, Any]) -> dict[str, Any]:
    names = {"architecture": "general.architecture", "name": "general.name", "quantization_version": "general.quantization_version",
             "tokenizer": "tokenizer.ggml.model", "license": "general.license"}
    facts = {name: found[key] for name, key in names.items() if key in found}
    if isinstance(kind := found.get("general.file_type"), int):
        facts["file_type"] = FILE_TYPES.get(kind, str(kind))
    return facts


def _parts(artifact: Artifact, found: dict[str, Any]) -> dict[str, Any]:
    name = PART.search(artifact.name)
    count = found.get("split.count") or (int(name[2]) if name else 0)
    if not isinstance(count, int) or count < 2:
        return {}
    number = found.get("split.no")
    part = number + 1 if isinstance(number, int) else int(name[1]) if name else 1
    parts: dict[str, Any] = {"part": part, "parts": count}
    if part == 1 and name and count <= MOST_PARTS:
        parts["companions"] = [f"{artifact.name[:name.start()]}-{index:05d}-of-{count:05d}.gguf" for index in range(2, count + 1)]
    return parts


def _kind(found: dict[str, Any], detail: dict[str, Any]) -> str:
    """What the file is for. general.type says it in newer files, the architecture or the keys in older ones."""
    kind, architecture = found.get("general.type"), found.get("general.architecture")
    if kind == "adapter" or "adapter.type" in found:
        return "lora adapter" if found.get("adapter.type", "lora") == "lora" else "adapter"
    if kind == "mmproj" or architecture == "clip":
        return "mmproj"
    if kind == "imatrix" or architecture == "imatrix":
        return "imatrix"
    if architecture == "controlvector":
        return "control vector"
    if detail.get("tensors") == 0 and ("tokenizer" in found or "tokenizer.ggml.model" in found):
        return "vocabulary only" if detail.get("parts", 0) < 2 else "llm"
    return "llm" if "tokenizer" in found or "tokenizer.ggml.model" in found else "weights"


# Reading

def read(artifact: Artifact, *, progress: Progress = SILENT) -> Checkpoint:
    """The tensors of a file, or of all parts of a split set whichever of them is named, as slices of the mapped files; its keys as metadata.

    Quantised tensors are `quant.tensor.QuantizedTensor`: float32 to whoever reads them, blocks to whoever asks. Long arrays of the metadata are
    `wire.gguf.Array` and stay in the file. Raises `Damaged` where the header contradicts the bytes, `Unsafe` where it exceeds a limit, `Missing` where a
    part is absent, `Unsupported` with every tensor of a type that no longer exists.
    """
    from isomorph.model import Checkpoint
    header = _whole(_header(artifact), artifact.where)
    parts = _part_names(artifact, header)
    if not parts:
        return Checkpoint(_tensors(header, artifact.view, artifact.where, findings := _findings(header, artifact)), _copied(header.keys), findings)
    result = Checkpoint()
    for number, name in enumerate(parts):
        view = artifact.view if name == artifact.name else _part_view(artifact, name)
        part = header if name == artifact.name else _whole(gguf.parse(view, artifact.limits), str(name))
        if part.keys.get("split.no", number) != number or part.keys.get("split.count", len(parts)) != len(parts):
            raise Damaged(f"it says that it is part {part.keys.get('split.no')} of {part.keys.get('split.count')}", where=name)
        if number == 0:
            result.metadata = Keys({key: value for key, value in part.keys.items() if not key.startswith("split.")}, part.keys.kinds)
            announced = part.keys.get("split.tensors.count")
        tensors = _tensors(part, view, name, result.findings)
        if twice := set(tensors) & set(result.tensors):
            raise Damaged(f"the tensor {min(twice)!r} stands in two parts", where=name)
        result.tensors |= tensors
    if announced is not None and announced != len(result.tensors):
        raise Damaged(f"{len(result.tensors)} tensors in all parts, the first says {announced}", where=artifact.where)
    return result


def _whole(header: Header, where: str) -> Header:
    try:
        return gguf.read_infos(header)
    except (Damaged, Unsafe) as error:
        raise type(error)(error.what, where=f"{where}, {error.where}" if error.where else where, hint=error.hint) from None


def _copied(keys: Keys) -> Keys:
    """A map of its own, so that whoever changes the metadata of a checkpoint leaves the parsed header as it is."""
    return Keys(keys, keys.kinds)


def _part_names(artifact: Artifact, header: Header) -> list[str]:
    name, count = PART.search(artifact.name), header.keys.get("split.count", 0)
    if not isinstance(count, int) or count < 2:
        return []
    if count > MOST_PARTS:
        raise Damaged(f"a set of {count} parts", where=artifact.where)
    if artifact.path is None or name is None or int(name[2]) != count:
        raise Missing(f"it is one of {count} parts, and its name does not say what the others are called", where=artifact.where,
                      hint=f"name the parts model-00001-of-{count:05d}.gguf and so on, in one folder")
    return [f"{artifact.name[:name.start()]}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]


def _part_view(artifact: Artifact, name: str) -> memoryview:
    assert artifact.path is not None
    view = files.map_contained(artifact.path.parent, name)
    if view is None:
        raise Missing(f"the part {name!r} is not there", where=artifact.where, hint="download every part into one folder")
    return view


def _findings(header: Header, artifact: Artifact) -> list[Finding]:
    return [Finding("gguf.nul-in-key", Severity.MEDIUM, artifact.where, f"the key {name[:80]!r} holds a NUL byte: programs in C read another name")
            for name in header.keys if "\0" in name]


def _tensors(header: Header, view: memoryview, where: str, findings: list[Finding]) -> dict[str, Any]:
    """Offsets must be those that the reference asks for: one tensor after another, each filled up to the alignment."""
    blockers, tensors, next_offset, rest = [], {}, 0, len(view) - header.data
    for info in header.tensors:
        kind = BY_NUMBER.get(info.type)
        if kind is None:
            if info.type not in RETIRED:
                raise Damaged(f"tensor {info.name!r} has the unknown type {info.type}", where=where)
            blockers.append((info.name, where, f"{RETIRED[info.type]} is no longer a type of ggml"))
            continue
        dims = info.sizes[::-1]
        if kind.elements > 1 and (not dims or dims[-1] % kind.elements):
            raise Damaged(f"tensor {info.name!r} has rows of {dims[-1] if dims else 1} elements, and {kind.name} has blocks of {kind.elements}", where=where)
        elements = 1
        for dim in dims:
            elements *= dim
        size = elements // kind.elements * kind.bytes
        if not blockers and info.offset != next_offset:
            raise Damaged(f"tensor {info.name!r} is at {info.offset} of the data where {next_offset} comes next", where=where)
        if info.offset + size > rest:
            raise Damaged(f"tensor {info.name!r} of {size} bytes at {info.offset} of {max(rest, 0)} bytes of data", where=where)
        start = header.data + info.offset
        tensors[info.name] = _tensor(info.name, kind, dims, view[start:start + size], header.big)
        next_offset = info.offset + -(-size // header.alignment) * header.alignment
    if blockers:
        raise Unsupported(f"{len(blockers)} tensors have types that ggml has given up", where=where, blockers=blockers,
                          hint="quantise the original weights again")
    if header.tensors and next_offset > rest:
        findings.append(Finding("gguf.unpadded", Severity.LOW, where, f"the file ends {next_offset - rest} bytes before the end of its last padding"))
    return tensors


def _tensor(name: str, kind: BlockType, dims: Sequence[int], data: memoryview, big: bool) -> Any:
    if not kind.element_type:
        from isomorph.quant.tensor import QuantizedTensor
        return QuantizedTensor(name, kind, dims, data, swapped=big)
    tensor = SliceTensor(name, NUMBER[kind.element_type], dims, data)
    if big and kind.bytes > 1:
        return ComputedTensor(name, tensor.element_type, dims, _swapped, (tensor,))
    return tensor


def _swapped(array: Any) -> Any:
    return array.view(f"u{array.dtype.itemsize}").byteswap().view(array.dtype)


# Metadata in formats that carry only text

def texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The metadata as a map from text to text that `keys_of` reads again without loss: texts as they are, all else as JSON, and the types under one key."""
    kinds = {name: f"array {value.kind}" if isinstance(value, Array) else getattr(metadata, "kinds", {}).get(name) or gguf.kind_of(value)
             for name, value in metadata.items()}
    result = {}
    for name, value in metadata.items():
        plain = (isinstance(value, str) and value.isascii()) or (isinstance(value, str) and not any("\udc80" <= letter <= "\udcff" for letter in value))
        result[name] = value if plain else json.dumps(value, default=list)
        kinds[name] += "" if plain or not isinstance(value, str) else " json"
    return result | ({KINDS_KEY: json.dumps(kinds)} if kinds else {})


def keys_of(metadata: Mapping[str, Any]) -> Keys:
    """The keys to write: as they were read from a GGUF file, or from what `texts` made of them. Raises `Unsupported` for values that GGUF cannot hold."""
    if isinstance(metadata, Keys):
        return metadata
    if isinstance(stated := metadata.get(KINDS_KEY), str):
        try:
            return _keys_from_texts(metadata, json.loads(stated))
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
            pass                             # somebody else's key of that name
    return Keys({name: _writable(name, value) for name, value in metadata.items() if name})


def _keys_from_texts(metadata: Mapping[str, Any], kinds: Mapping[str, str]) -> Keys:
    keys = Keys()
    for name, text in metadata.items():
        if name == KINDS_KEY:
            continue
        kind, _, rest = kinds.get(name, "string").partition(" ")
        value = text if kind == "string" and rest != "json" else json.loads(text)
        if kind == "array":
            keys[name] = Typed(rest, value)
        else:
            keys[name], keys.kinds[name] = value, kind
        gguf.emit(Keys({name: keys[name]}, keys.kinds), [], 1)
    return keys


class Typed(list):
    """A list whose elements are stored as `kind`."""

    def __init__(self, kind: str, values: Sequence[Any]):
        super().__init__(values)
        self.kind = kind


def _writable(name: str, value: Any) -> Any:
    if isinstance(value, (bool, int, float, str, Array)):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (bool, int, float, str)) for item in value):
        return value
    return json.dumps(value, default=str)


# Writing

def write(model: Checkpoint, path: str | os.PathLike, *, force: bool = False, progress: Progress = SILENT, shard_bytes: int | None = None) -> Report:
    """Writes keys, infos and tensors in the order of the checkpoint, one tensor after another and without a temporary copy. Blocks are written as they are.

    With `shard_bytes`, more than that many bytes of data go into parts `<name>-00001-of-0000N.gguf`, the first of which holds the keys.
    Raises `Unsupported` with every tensor that GGUF cannot hold, `Usage` where an output exists.
    """
    path = Path(path)
    if not hasattr(model, "tensors"):
        raise Usage("GGUF holds weights and not a graph", where=str(path), hint="hand over a Checkpoint, such as isomorph.model.weights(model)")
    keys = keys_of(model.metadata)
    alignment = keys.get("general.alignment", gguf.ALIGNMENT)
    rows = _rows(model.tensors)
    shards = _shards(rows, shard_bytes)
    names = [path.name] if len(shards) == 1 else [f"{path.name.removesuffix('.gguf')}-{number:05}-of-{len(shards):05}.gguf"
                                                  for number in range(1, len(shards) + 1)]
    progress.start("write", sum(size for _, _, size in rows), "bytes")
    with files.replacing_all([path.with_name(name) for name in names], force=force) as outputs:
        for number, (shard, output) in enumerate(zip(shards, outputs, strict=True)):
            _write_file(keys if len(shards) == 1 else _part_keys(keys, number, len(shards), len(rows)), shard, alignment, output, progress)
    progress.finish()
    first = path.with_name(names[0])
    return Report(str(first), [], {"bytes": sum(path.with_name(name).stat().st_size for name in names), "tensors": len(rows), "files": names})


Row = tuple[Any, BlockType, int]             # a tensor, the type it is stored as, its bytes


def _rows(tensors: Mapping[str, Any]) -> list[Row]:
    rows, blockers = [], []
    for name, tensor in tensors.items():
        kind = getattr(tensor, "kind", None) or PLAIN.get(NAME[type_of(tensor)])
        dims = dims_of(tensor)
        if len(name.encode()) > gguf.LONGEST_NAME:
            blockers.append((name, name, f"its name is longer than {gguf.LONGEST_NAME} bytes"))
        elif len(dims) > gguf.MOST_DIMENSIONS:
            blockers.append((name, name, f"it has {len(dims)} dimensions, GGUF holds {gguf.MOST_DIMENSIONS}"))
        elif kind is not None and kind.number < 0:
            blockers.append((name, name, f"{kind.name.partition('.')[0]} had other blocks before May 2023, which GGUF does not hold"))
        elif kind is None:
            blockers.append((name, name, f"GGUF has no type for {NAME[type_of(tensor)]}"))
        else:
            rows.append((tensor, kind, stored_size(tensor)))
    if blockers:
        old = any(kind is not None and kind.number < 0 for kind in (getattr(tensor, "kind", None) for tensor in tensors.values()))
        raise Unsupported(f"{len(blockers)} tensors cannot be stored: {', '.join(name for name, _, _ in blockers[:5])}", blockers=blockers,
                          hint="store them as floats with --dtype fp16, or encode them with `isomorph quantize`" if old else "")
    return [(_Named(name, tensor), kind, size) for name, (tensor, kind, size) in zip(tensors, rows, strict=True)]


class _Named:
    """A tensor under the name that the checkpoint gives it."""

    def __init__(self, name: str, tensor: Any):
        self.name, self.tensor = name, tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        return dims_of(self.tensor)[::-1]



def stored_size(tensor: Any) -> int:
    """Bytes of a tensor in a file of ggml: those of its blocks, where it has blocks."""
    return tensor.stored_bytes if hasattr(tensor, "stored_bytes") else tensor.nbytes


def write_data(tensor: Any, name: str, size: int, output: Any, progress: Progress) -> None:
    """Writes blocks as they are and anything else as numbers, piece by piece. Raises `Damaged` for a tensor that gives another number of bytes."""
    written = 0
    for piece in _pieces(tensor):
        files.put(output, piece)
        written += memoryview(piece).nbytes
        progress.advance(memoryview(piece).nbytes)
    if written != size:
        raise Damaged(f"gave {written} bytes where {size} were announced", where=name)


def _pieces(tensor: Any) -> Iterator[Any]:
    if hasattr(tensor, "stored"):
        return tensor.stored()
    return tensor.chunks() if hasattr(tensor, "chunks") else iter([packed(tensor.numpy())])


def _shards(rows: list[Row], most: int | None) -> list[list[Row]]:
    """Cuts the list where the next tensor would exceed `most` bytes; a larger tensor has a part of its own."""
    shards: list[list[Row]] = [[]]
    size = 0
    for row in rows:
        if most is not None and shards[-1] and size + row[2] > most:
            shards.append([])
            size = 0
        shards[-1].append(row)
        size += row[2]
    return shards


def _part_keys(keys: Keys, number: int, count: int, tensors: int) -> Keys:
    """split.* as llama-gguf-split writes them (tools/gguf-split); the other keys stand in the first part only."""
    part = Keys(keys, keys.kinds) if number == 0 else Keys()
    if "general.alignment" in keys:
        part["general.alignment"], part.kinds["general.alignment"] = keys["general.alignment"], "u32"
    for name, value, kind in (("split.no", number, "u16"), ("split.count", count, "u16"), ("split.tensors.count", tensors, "i32")):
        part[name], part.kinds[name] = value, kind
    return part


def _write_file(keys: Keys, rows: list[Row], alignment: int, output: Any, progress: Progress) -> None:
    infos, at = [], 0
    for tensor, kind, size in rows:
        infos.append(Info(tensor.name, tensor.sizes, kind.number, at))
        at += -(-size // alignment) * alignment
    output.write(gguf.emit(keys, infos, alignment))
    for tensor, _, size in rows:
        write_data(tensor.tensor, tensor.name, size, output, progress)
        output.write(bytes(-size % alignment))


FORMAT = Format(
    name="gguf", title="GGUF", extensions=(".gguf",), holds="weights", spec="https://github.com/ggml-org/ggml/blob/master/docs/gguf.md",
    identify=identify, read=read, write=write,
    can=Capabilities(dtypes=frozenset(PLAIN) | frozenset(BLOCKS), quantised=True, versions=(1, 3)),
)
