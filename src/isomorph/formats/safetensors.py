"""safetensors: a JSON header and raw tensors, single or in shards that an index lists.

Reading validates what the reference validates (safetensors/src/tensor.rs): no hole, no overlap, no byte that the header does not cover, no key twice.
"""
from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Missing, Unsafe, Unsupported, Usage
from isomorph.formats import Capabilities, Format, Match
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity
from isomorph.tensors import BITS, NAME, NUMBER, SliceTensor, dims_of, packed, type_of
from isomorph.wire import files, json_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Checkpoint
    from isomorph.wire.limits import Limits

# safetensors dtype -> ONNX element type, in the order of the reference implementation, which sorts tensors by it (safetensors/src/tensor.rs)
DTYPES = {
    "BOOL": "BOOL", "F4": "FLOAT4E2M1", "F6_E2M3": "FLOAT6E2M3", "F6_E3M2": "FLOAT6E3M2", "U8": "UINT8", "I8": "INT8", "F8_E5M2": "FLOAT8E5M2",
    "F8_E4M3": "FLOAT8E4M3FN", "F8_E8M0": "FLOAT8E8M0", "F8_E4M3FNUZ": "FLOAT8E4M3FNUZ", "F8_E5M2FNUZ": "FLOAT8E5M2FNUZ", "I16": "INT16", "U16": "UINT16",
    "F16": "FLOAT16", "BF16": "BFLOAT16", "I32": "INT32", "U32": "UINT32", "F32": "FLOAT", "C64": "COMPLEX64", "F64": "DOUBLE", "I64": "INT64",
    "U64": "UINT64",
}
ORDER = {element: place for place, element in enumerate(DTYPES.values())}
DTYPE_OF = {element: dtype for dtype, element in DTYPES.items()}
METADATA = "__metadata__"
# What a header of `Limits.tensors` tensors cannot exceed: colons and commas are counted before the JSON parser makes objects of them.
COLONS_PER_TENSOR, COMMAS_PER_TENSOR = 5, 16
LONGEST_HEADER_READ = 4 << 20              # a longer header is counted by a search instead of parsed, which would cost more than 0.1 s
MOST_DIMENSIONS = 64
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")
INDEX = ".safetensors.index.json"


def identify(artifact: Artifact) -> Match | None:
    """Recognises the header (its length, then a JSON object of tensors) or an index file: tensors, dtypes, metadata, shards, LoRA adapters."""
    if artifact.is_folder:
        return _identify_folder(artifact)
    if json_head.begins_json(artifact.head):
        return _identify_index(artifact)
    length = int.from_bytes(artifact.head[:8], "little")
    if artifact.head[8:9] != b"{" or not 2 <= length <= artifact.limits.json_bytes:
        return None
    if length > LONGEST_HEADER_READ or 8 + length > artifact.size:
        return _from_long_header(artifact, length)
    try:
        header = json.loads(bytes(artifact.view[8:8 + length]))
    except (ValueError, RecursionError):
        return None
    return _from_header(artifact, header, 8 + length) if isinstance(header, dict) else None


def _from_header(artifact: Artifact, header: dict[str, Any], data: int) -> Match | None:
    metadata = header.pop("__metadata__", {})
    dtypes: Counter[str] = Counter()
    parameters = end = 0
    for entry in header.values():
        if not isinstance(entry, dict) or str(entry.get("dtype")) not in DTYPES:
            return None
        if not _is_counts(entry.get("shape")) or not _is_counts(entry.get("data_offsets")):
            return None
        dtypes[entry["dtype"]] += 1
        parameters += math.prod(entry["shape"])
        end = max([end, *entry["data_offsets"]])
    detail: dict[str, Any] = {"tensors": len(header), "parameters": parameters, "dtypes": dict(dtypes), "metadata": metadata}
    if data + end > artifact.size:
        detail["truncated"] = True
    if shard := SHARD.search(artifact.name):
        detail["shard"], detail["shards"] = int(shard[1]), int(shard[2])
    return Match("safetensors", "", _flavour(artifact, header), "weights", detail)


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST_DIMENSIONS and all(type(number) is int and number >= 0 for number in value)


def _flavour(artifact: Artifact, header: dict[str, Any]) -> str:
    if any(".lora_A." in name or "lora_down" in name or ".lora.down." in name for name in header):
        return "lora adapter"
    return "shard" if SHARD.search(artifact.name) else "single"


def _from_long_header(artifact: Artifact, length: int) -> Match | None:
    """A header that is too long to parse here, or cut off: judged by its first tensor."""
    head = json_head.read(artifact.head[8:])
    entries = [value for key, value in head.value.items() if key != "__metadata__"] if isinstance(head.value, dict) else []
    if not entries or not isinstance(entries[0], dict) or str(entries[0].get("dtype")) not in DTYPES:
        return None
    if 8 + length > artifact.size:
        return Match("safetensors", "", "single", "weights", {"truncated": True}, "the file ends inside its header: download or copy it again")
    count = bytes(artifact.view[8:8 + length]).count(b'"data_offsets"')
    return Match("safetensors", "", "single", "weights", {"tensors": count, "metadata": head.value.get("__metadata__", {})})


def _identify_index(artifact: Artifact) -> Match | None:
    head = json_head.read(artifact.view)
    document = head.value if isinstance(head.value, dict) else {}
    shards = document.get("weight_map")
    if not isinstance(shards, dict) or not any(isinstance(name, str) and name.endswith(".safetensors") for name in shards.values()):
        return None
    files = sorted({name for name in shards.values() if isinstance(name, str)})
    metadata = document.get("metadata")
    detail: dict[str, Any] = {"shards": len(files), "companions": files, "metadata": metadata if isinstance(metadata, dict) else {}}
    if head.complete:
        detail["tensors"] = len(shards)
    return Match("safetensors", "", "indexed", "weights", detail)


def _identify_folder(artifact: Artifact) -> Match | None:
    """A folder that holds only shards and their index; one with a config.json beside them is a Hugging Face folder."""
    indexes = [name for name in artifact.names if name.endswith(INDEX)]
    if len(indexes) != 1 or "config.json" in artifact.names:
        return None
    index = artifact.child(indexes[0])
    match = _identify_index(index) if index and not index.is_folder else None
    if match is None or set(artifact.names) - set(match.detail["companions"]) - set(indexes):
        return None
    return match


# Reading

def read(artifact: Artifact, *, progress: Progress = SILENT) -> Checkpoint:
    """The tensors of a file, or of the shards that an index or a folder names, as slices of the mapped files. No array is made.

    Raises `Damaged` where the header contradicts the bytes, `Unsafe` where it exceeds a limit or a shard lies outside the folder, `Missing` where a
    shard is absent.
    """
    from isomorph.model import Checkpoint
    if artifact.is_folder:
        index = next((artifact.child(name) for name in artifact.names if name.endswith(INDEX)), None)
        if index is None:
            raise Missing("the folder holds no index of shards", where=artifact.where, hint=f"name a .safetensors file, or add the *{INDEX}")
        artifact = index
    if json_head.begins_json(artifact.head):
        return _read_shards(artifact)
    entries, metadata = parse(artifact.view, artifact.limits, artifact.where)
    return Checkpoint(entries, dict(metadata))


def parse(view: memoryview, limits: Limits, where: str) -> tuple[dict[str, SliceTensor], dict[str, str]]:
    """The tensors of one file in the order of their data, and its metadata."""
    data, header = _header(view, limits, where)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Damaged(f"{METADATA} is not a map from text to text", where=where)
    if len(header) > limits.tensors:
        raise Unsafe(f"{len(header)} tensors, at most {limits.tensors} are read", where=where, hint="raise Limits.tensors if the file is trusted")
    rows = sorted(((*_offsets(name, entry, where), name) for name, entry in header.items()), key=lambda row: row[:2])
    end, tensors = 0, {}
    for start, stop, name in rows:
        if start != end or stop < start:
            raise Damaged(f"the data of tensor {name[:120]!r} is at {start} to {stop} where byte {end} comes next", where=where, offset=data + end)
        tensors[name] = _tensor(name, header[name], view, data + start, data + stop, limits, where)
        end = stop
    if data + end != len(view):
        raise Damaged(f"the header covers {end} bytes of data and the file has {len(view) - data}", where=where, offset=data + end)
    return tensors, metadata


def _header(view: memoryview, limits: Limits, where: str) -> tuple[int, dict[str, Any]]:
    """The offset of the data and the parsed header. Its cost is bounded before it is parsed."""
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or 8 + length > len(view):
        raise Damaged(f"a header of {length} bytes in a file of {len(view)}", where=where, offset=0)
    if length > limits.json_bytes:
        raise Unsafe(f"a header of {length} bytes, at most {limits.json_bytes} are read", where=where)
    text = bytes(view[8:8 + length])
    if text[:1] != b"{":
        raise Damaged("the header does not begin with {", where=where, offset=8)
    if text.count(b":") > COLONS_PER_TENSOR * limits.tensors or text.count(b",") > COMMAS_PER_TENSOR * limits.tensors:
        raise Unsafe(f"a header of more than {limits.tensors} tensors", where=where, hint="raise Limits.tensors if the file is trusted")
    return 8 + length, _parse_json(text, where)


def _parse_json(text: bytes, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Damaged(f"the key {next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)[:120]!r} stands twice", where=where)
        return found

    def no_number(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_number)
        "".join(document).encode("utf-8")          # a name with half a surrogate pair could never be written again
    except (ValueError, RecursionError) as error:
        raise Damaged(f"the header is not valid JSON ({str(error)[:120]})", where=where, offset=8) from None
    if not isinstance(document, dict):
        raise Damaged("the header is not a JSON object", where=where, offset=8)
    return document


def _offsets(name: str, entry: Any, where: str) -> tuple[int, int]:
    if not isinstance(entry, dict) or not _is_counts(entry.get("data_offsets")) or len(entry["data_offsets"]) != 2:
        raise Damaged(f"tensor {name[:120]!r} has no pair of data_offsets", where=where)
    return entry["data_offsets"][0], entry["data_offsets"][1]


def _tensor(name: str, entry: dict[str, Any], view: memoryview, start: int, stop: int, limits: Limits, where: str) -> SliceTensor:
    dtype, shape = entry.get("dtype"), entry.get("shape", ())
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise Damaged(f"tensor {name[:120]!r} has the unknown dtype {str(dtype)[:40]!r}", where=where)
    if not _is_counts(shape):
        raise Damaged(f"tensor {name[:120]!r} has no shape of at most {MOST_DIMENSIONS} sizes", where=where)
    number = NUMBER[DTYPES[dtype]]
    if math.prod(shape) * BITS[number] % 8:
        raise Damaged(f"tensor {name[:120]!r} of {dtype} ends inside a byte", where=where)
    if stop > len(view):
        raise Damaged(f"tensor {name[:120]!r} ends at byte {stop} of a file of {len(view)}", where=where, offset=start)
    if math.prod(shape) * BITS[number] // 8 != stop - start:
        raise Damaged(f"tensor {name[:120]!r} of {dtype} {shape[:8]} has {stop - start} bytes", where=where, offset=start)
    return SliceTensor(name, number, shape, view[start:stop])


def _read_shards(artifact: Artifact) -> Checkpoint:
    from isomorph.model import Checkpoint
    if artifact.size > artifact.limits.json_bytes:
        raise Unsafe(f"an index of {artifact.size} bytes, at most {artifact.limits.json_bytes} are read", where=artifact.where)
    document = _parse_json(bytes(artifact.view), artifact.where)
    places = document.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise Damaged("weight_map is not a map from tensors to files", where=artifact.where)
    if artifact.path is None:
        raise Missing("the shards stand beside the index, which was opened from bytes", where=artifact.where, hint="open the index by its path")
    result = Checkpoint(metadata=document["metadata"] if isinstance(document.get("metadata"), dict) else {})
    for file in dict.fromkeys(places.values()):
        view = files.map_contained(artifact.path.parent, file)
        if view is None:
            raise Missing(f"the shard {file[:120]!r} is not there", where=artifact.where, hint="download every shard into the folder of the index")
        tensors, metadata = parse(view, artifact.limits, str(artifact.path.parent / file))
        result.metadata = dict(metadata) | result.metadata
        for name, tensor in tensors.items():
            if places.get(name) == file:
                result.tensors[name] = tensor
            else:
                result.findings.append(Finding("safetensors.unlisted", Severity.LOW, file, f"tensor {name[:120]!r} is not listed in the index and is left out"))
    absent = [name for name in places if name not in result.tensors]
    if absent:
        raise Damaged(f"{len(absent)} tensors of the index are in none of its shards, the first is {absent[0][:120]!r}", where=artifact.where)
    return result


# Writing

def write(model: Checkpoint, path: str | os.PathLike, *, force: bool = False, progress: Progress = SILENT, shard_bytes: int | None = None) -> Report:
    """Writes tensors one after another, in the order and with the padding of the reference. With `shard_bytes`, more than that many bytes of data go into
    shards `<name>-00001-of-0000N.safetensors` and an index beside `path`.

    Raises `Unsupported` with every tensor whose type the format lacks, `Usage` where an output exists.
    """
    path = Path(path)
    tensors = _ordered(model)
    metadata = _texts(model.metadata)
    shards = _shards(tensors, shard_bytes)
    total = sum(tensor.nbytes for tensor in model.tensors.values())
    progress.start("write", total, "bytes")
    stem = path.name.removesuffix(".safetensors")
    names = [path.name] if len(shards) == 1 else [f"{stem}-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    paths = [path.with_name(name) for name in names]
    index = path.with_name(stem + INDEX) if len(shards) > 1 else None
    with files.replacing_all([*paths, *([index] if index else [])], force=force) as outputs:
        for shard, output in zip(shards, outputs, strict=False):
            _write_file(shard, metadata if index is None else metadata | {"format": metadata.get("format", "pt")}, output, progress)
        if index:
            places = {name: file for shard, file in zip(shards, names, strict=True) for name, _ in shard}
            outputs[-1].write(json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2, sort_keys=True).encode())
    progress.finish()
    return Report(str(index or path), [], {"bytes": sum(file.stat().st_size for file in paths), "tensors": len(tensors), "files": names})


def _texts(metadata: Any) -> dict[str, str]:
    """Metadata as text; what a GGUF file says keeps its types."""
    if hasattr(metadata, "kinds"):
        from isomorph.formats.gguf import texts
        return texts(metadata)
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


def _ordered(model: Checkpoint) -> list[tuple[str, Any]]:
    """Tensors by dtype, the widest first, then by name: so every one is aligned."""
    if not hasattr(model, "tensors"):
        raise Usage("safetensors holds weights and not a graph", hint="hand over a Checkpoint, such as isomorph.model.weights(model)")
    blockers = [(name, name, f"safetensors has no type for {NAME[type_of(tensor)]}") for name, tensor in model.tensors.items()
                if NAME[type_of(tensor)] not in DTYPE_OF]
    blockers += [(name, name, "its elements do not fill whole bytes") for name, tensor in model.tensors.items()
                 if BITS[type_of(tensor)] % 8 and tensor.size * BITS[type_of(tensor)] % 8]
    if METADATA in model.tensors:
        blockers.append((METADATA, METADATA, "the name is taken by the metadata"))
    if blockers:
        raise Unsupported(f"{len(blockers)} tensors cannot be stored: {', '.join(name for name, _, _ in blockers[:5])}", blockers=blockers)
    return sorted(model.tensors.items(), key=lambda item: (-ORDER[NAME[type_of(item[1])]], item[0].encode("utf-8", "surrogateescape")))


def _shards(tensors: list[tuple[str, Any]], most: int | None) -> list[list[tuple[str, Any]]]:
    """Cuts the list where the next tensor would exceed `most` bytes; a larger tensor has a shard of its own."""
    shards: list[list[tuple[str, Any]]] = [[]]
    size = 0
    for item in tensors:
        if most is not None and shards[-1] and size + item[1].nbytes > most:
            shards.append([])
            size = 0
        shards[-1].append(item)
        size += item[1].nbytes
    return shards


def _write_file(tensors: list[tuple[str, Any]], metadata: dict[str, str], output: Any, progress: Progress) -> None:
    header: dict[str, Any] = {METADATA: metadata} if metadata else {}
    at = 0
    for name, tensor in tensors:
        header[name] = {"dtype": DTYPE_OF[NAME[type_of(tensor)]], "shape": list(dims_of(tensor)), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    output.write(len(text).to_bytes(8, "little") + text)
    for _, tensor in tensors:
        written = 0
        for chunk in tensor.chunks() if hasattr(tensor, "chunks") else [packed(tensor.numpy())]:
            files.put(output, chunk)
            written += memoryview(chunk).nbytes
            progress.advance(memoryview(chunk).nbytes)
        if written != tensor.nbytes:
            raise Damaged(f"gave {written} bytes where {tensor.nbytes} were announced", where=str(tensor.name))


FORMAT = Format(
    name="safetensors", title="safetensors", extensions=(".safetensors",), holds="weights",
    spec="https://github.com/huggingface/safetensors#format", identify=identify, read=read, write=write,
    can=Capabilities(dtypes=frozenset(DTYPE_OF)),
)
