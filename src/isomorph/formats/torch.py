"""PyTorch .pt and .pth: a state_dict or a pickled object, in a zip (since 1.6), as bare pickles, or in a tar (before 0.1.10).

Read without PyTorch and without running anything: the pickle is interpreted into records (`wire.pickle`), tensors are views of the mapped storages.
"""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Missing, Unsafe, Usage
from isomorph.formats import Capabilities, Format, Match, _torch, _torch_zip
from isomorph.formats._torch_values import HALF_COMPLEX, PACKED, ArrayRecord, Flat, TensorRecord, flatten, rejected
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity
from isomorph.tensors import NAME, Tensor, array_tensor, dims_of, type_of
from isomorph.wire import files, json_head, pickle

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.model import Checkpoint, Model
    from isomorph.wire.archive import Archive

MAGIC = b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."          # behind the two bytes of PROTO, torch/serialization.py
PACKAGE_HINT = "it is a torch.package with code inside: load it where you trust it, and save its weights as .safetensors"
TAR_MEMBERS = {"storages", "tensors", "pickle"}
INDEX = (".bin.index.json", ".pt.index.json", ".pth.index.json")
# Keys under which training scripts keep the model, where nothing else beside it has tensors
WRAPPERS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "params", "params_ema", "weights", "module", "ema", "generator")


def identify(artifact: Artifact) -> Match | None:
    """Recognises the three containers by their members or magic number, and reads the pickle's outline: state_dict, checkpoint, or which class."""
    if artifact.is_folder:
        return _identify_folder(artifact)
    if json_head.begins_json(artifact.head):
        return _identify_index(artifact)
    if artifact.head[2:15] == MAGIC:
        return _identify_legacy(artifact)
    if archive := _torch.zip_of(artifact):
        return _identify_zip(archive)
    archive = artifact.archive if artifact.head[257:262] == b"ustar" or artifact.head[:9] in (b"storages\0", b"tensors\0\0", b"pickle\0\0\0") else None
    if archive and archive.kind == "tar" and {name.removeprefix("./") for name in archive.names} >= TAR_MEMBERS:
        return _match("tar", _torch.describe(_torch.walk(archive, next(name for name in archive.names if name.removeprefix("./") == "pickle"))), {})
    return None


def _identify_zip(archive: Archive) -> Match | None:
    package = _torch.root_of(archive, ".data/extern_modules")
    if package is not None:
        modules = archive.head(package + ".data/extern_modules", 4096).decode("utf-8", "replace").split()
        return Match("torch", "", "package", "weights", {"container": "zip", "extern_modules": modules}, PACKAGE_HINT)
    root = _torch.root_of(archive, "data.pkl")
    if root is None or root + "constants.pkl" in archive.members:          # with constants it is TorchScript
        return None
    storages = sum(name.startswith(root + "data/") for name in archive.names)
    more: dict[str, Any] = {"storages": storages}
    if root + "byteorder" in archive.members:
        more["byte_order"] = archive.head(root + "byteorder", 8).decode("latin1").strip()
    return _match("zip", _torch.describe(_torch.walk(archive, root + "data.pkl")), more)


def _identify_legacy(artifact: Artifact) -> Match:
    """Magic number, protocol, system information, then the object: each a pickle of its own."""
    at = 0
    for _ in range(4):
        stream = pickle.walk(artifact.view, at)
        if stream.stop < 0:
            break
        at = stream.stop
    else:
        return _match("legacy", _torch.describe(stream), {})
    described = _torch.describe(stream)
    return _match("legacy", described, {"truncated": True} if stream.problem else {})


def _match(container: str, described: tuple[str, dict[str, Any]], more: dict[str, Any]) -> Match:
    kind, detail = described
    return Match("torch", "", f"{kind}, {container}", "weights", {"container": container} | detail | more)


def _identify_index(artifact: Artifact) -> Match | None:
    """The list of which tensor is in which shard, as Hugging Face writes it."""
    document = json_head.read(artifact.view).value
    shards = document.get("weight_map") if isinstance(document, dict) else None
    files = sorted({name for name in shards.values() if isinstance(name, str)}) if isinstance(shards, dict) else []
    if not files or not all(name.endswith((".bin", ".pt", ".pth")) for name in files):
        return None
    return Match("torch", "", "indexed", "weights", {"shards": len(files), "companions": files})


def _identify_folder(artifact: Artifact) -> Match | None:
    """A folder that holds only shards and their index; one with a config.json beside them is a Hugging Face folder."""
    indexes = [name for name in artifact.names if name.endswith(INDEX)]
    index = artifact.child(indexes[0]) if len(indexes) == 1 and "config.json" not in artifact.names else None
    match = _identify_index(index) if index and not index.is_folder else None
    return match if match and not set(artifact.names) - set(match.detail["companions"]) - set(indexes) else None


# Reading

def read(artifact: Artifact, *, progress: Progress = SILENT) -> Checkpoint:
    """Every tensor by its dotted name; what is plain beside them is metadata. A lone wrapper such as `state_dict` is left out of the names.

    Tensors that share memory stay views of one storage. Raises `Damaged`, `Unsafe`, `Missing` for an absent shard, and `Unsupported` with every tensor
    whose type has no equivalent.
    """
    if artifact.is_folder:
        index = next((artifact.child(name) for name in artifact.names if name.endswith(INDEX)), None)
        if index is None:
            raise Missing("the folder holds no index of shards", where=artifact.where, hint="name a .pt or .bin file")
        artifact = index
    if json_head.begins_json(artifact.head):
        return _read_shards(artifact)
    return _read_file(artifact)


def network(artifact: Artifact, *, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model | None:
    """The graph of a whole module whose tree says what it computes, as `_torch_modules.network`."""
    from isomorph.formats import _torch_modules
    return _torch_modules.network(artifact, input_shapes)


def _read_file(artifact: Artifact) -> Checkpoint:
    from isomorph.formats import _torch_files
    from isomorph.model import Checkpoint
    loaded = _torch_files.load(artifact)
    flat = flatten(loaded.value, artifact.limits, artifact.where)
    findings = [Finding(note.code, Severity(note.severity), note.where, note.message) for note in loaded.notes]
    prefix = _wrapper(flat)
    result = Checkpoint(metadata={name: value for name, value in flat.plain.items()}, findings=findings)
    if prefix:
        findings.append(Finding("torch.unwrapped", Severity.INFO, artifact.where, f"the names are those inside {prefix[:-1]!r}, where all tensors are"))
    blockers: list[tuple[str, str, str]] = []
    for name, record in flat.tensors.items():
        _add(result, name.removeprefix(prefix), record, artifact, blockers)
    if blockers:
        raise rejected(blockers, artifact.where)
    if flat.modules:
        from isomorph.formats import _torch_modules
        result.metadata |= _torch_modules.describe(flat.modules)
        findings += _torch_modules.findings(flat.modules, artifact.where)
    _tell_sharing(result, artifact.where)
    return result


def _wrapper(flat: Flat) -> str:
    """The key, with its dot, under which all tensors stand, where it is one that scripts wrap a state_dict in."""
    first = next(iter(flat.tensors), "").partition(".")[0]
    return f"{first}." if first in WRAPPERS and all(name.startswith(f"{first}.") for name in flat.tensors) and "" not in flat.modules else ""


def _add(result: Checkpoint, name: str, record: TensorRecord | ArrayRecord, artifact: Artifact, blockers: list[tuple[str, str, str]]) -> None:
    """One record as one tensor, or as its parts where it is sparse or quantised."""
    def tell(code: str, severity: Severity, message: str) -> None:
        result.findings.append(Finding(code, severity, name, message))

    if isinstance(record, ArrayRecord):
        tensor = record.tensor(name)
        if tensor is None:
            tell("torch.no-tensor", Severity.LOW, "an array whose elements are no numbers is left out")
        else:
            result.tensors[name] = tensor
        return
    if record.layout == "meta":
        tell("torch.meta", Severity.MEDIUM, f"a tensor of {list(record.dims)} without data, of the meta device, is left out")
        return
    if record.parts:
        tell("torch.parts", Severity.LOW, f"a {record.layout} tensor of {list(record.dims)} is kept as {', '.join(record.parts)}")
        for part, inner in record.parts.items():
            _add(result, f"{name}.{part}", inner, artifact, blockers)
        result.metadata[f"{name}.size"] = list(record.dims)
        return
    if record.dtype.name in HALF_COMPLEX:
        tell("torch.complex-half", Severity.LOW, "complex numbers of float16 are kept as pairs, in a last axis of 2")
    if record.dtype.name in PACKED:
        tell("torch.packed", Severity.LOW, f"{record.dtype.name} is kept as bytes of several numbers")
    result.tensors[name] = record.tensor(name)
    if record.quantizer:
        _add_quantizer(result, name, record, artifact, blockers)
        tell("torch.quantised", Severity.LOW, f"{record.dtype.name} is kept as its integers, with scale and zero_point beside them")


def _add_quantizer(result: Checkpoint, name: str, record: TensorRecord, artifact: Artifact, blockers: list[tuple[str, str, str]]) -> None:
    import numpy as np
    for part, value, dtype in zip(("scale", "zero_point"), record.quantizer, (np.float64, np.int64), strict=False):
        if isinstance(value, TensorRecord):
            _add(result, f"{name}.{part}", value, artifact, blockers)
        else:
            result.tensors[f"{name}.{part}"] = array_tensor(np.asarray(value, dtype), f"{name}.{part}")
    if len(record.quantizer) > 2:
        result.metadata[f"{name}.axis"] = record.quantizer[2]


def _tell_sharing(result: Checkpoint, where: str) -> None:
    """Tensors that look at the same bytes, said once for each group."""
    groups: dict[int, list[str]] = {}
    for name, tensor in result.tensors.items():
        if "storage" in tensor.meta and tensor.size:
            groups.setdefault(_storage_of(tensor), []).append(name)
    for names in groups.values():
        if len(names) > 1:
            same = len({result.tensors[name].meta["storage"][1:4] for name in names}) == 1
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            result.findings.append(Finding("weights.tied", Severity.INFO, names[0], f"{shown} {'are one tensor' if same else 'share memory'}",
                                           "a .pt keeps that; formats without shared memory hold each of them"))


def _storage_of(tensor: Any) -> int:
    """What two tensors have in common that share memory."""
    storage = tensor.meta["storage"][0]
    return id(storage.root or storage)


def _read_shards(artifact: Artifact) -> Checkpoint:
    from isomorph.artifact import Artifact as Opened
    from isomorph.model import Checkpoint
    if artifact.size > artifact.limits.json_bytes:
        raise Unsafe(f"an index of {artifact.size} bytes, at most {artifact.limits.json_bytes} are read", where=artifact.where)
    try:
        document = json.loads(bytes(artifact.view).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"the index is not valid JSON ({str(error)[:120]})", where=artifact.where) from None
    places = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise Damaged("weight_map is not a map from tensors to files", where=artifact.where)
    if artifact.path is None:
        raise Missing("the shards stand beside the index, which was opened from bytes", where=artifact.where, hint="open the index by its path")
    metadata = document.get("metadata")
    result = Checkpoint(metadata=metadata if isinstance(metadata, dict) else {})
    for file in dict.fromkeys(places.values()):
        view = files.map_contained(artifact.path.parent, file)
        if view is None:
            raise Missing(f"the shard {file[:120]!r} is not there", where=artifact.where, hint="download every shard into the folder of the index")
        shard = _read_file(Opened(None, view, name=file, limits=artifact.limits))
        result.findings += shard.findings
        for name, tensor in shard.tensors.items():
            if places.get(name) == file:
                result.tensors[name] = tensor
            else:
                result.findings.append(Finding("torch.unlisted", Severity.LOW, file, f"tensor {name[:120]!r} is not listed in the index and is left out"))
    absent = [name for name in places if name not in result.tensors]
    if absent:
        raise Damaged(f"{len(absent)} tensors of the index are in none of its shards, the first is {absent[0][:120]!r}", where=artifact.where)
    return result


# Writing

def write(model: Checkpoint, path: str | os.PathLike, *, force: bool = False, progress: Progress = SILENT) -> Report:
    """A zip with a state_dict of protocol 2, as torch.load(weights_only=True) takes it; tensors are asked for one after another.

    Tensors that share a storage of the file they come from share one here. Raises `Unsupported` with every tensor whose type PyTorch lacks, `Usage` where
    the output exists.
    """
    path = Path(path)
    if not hasattr(model, "tensors"):
        raise Usage("a .pt holds weights and not a graph", where=str(path), hint="hand over a Checkpoint, such as isomorph.model.weights(model)")
    blockers = [(name, name, f"PyTorch has no type for {NAME[type_of(tensor)]}") for name, tensor in model.tensors.items()
                if NAME[type_of(tensor)] not in _torch_zip.STORAGE_OF and NAME[type_of(tensor)] not in _torch_zip.UNTYPED]
    if blockers:
        raise rejected(blockers, str(path))
    entries, storages = _lay_out(model)
    report = Report(str(path))
    if model.metadata:
        report.add("metadata.dropped", Severity.INFO, str(path), f"{len(model.metadata)} entries of metadata are not written: the file is a plain state_dict")
    progress.start("write", sum(storage.nbytes for storage in storages), "bytes")
    with _torch_zip.writing(path, "archive", force=force, progress=progress) as archive:
        archive.member("data.pkl", [_pickled(entries)])
        archive.text("byteorder", "little")
        for key, storage in enumerate(storages):
            archive.tensor(f"data/{key}", storage)
        archive.text("version", "3\n")
    progress.finish()
    report.facts |= {"bytes": path.stat().st_size, "tensors": len(model.tensors), "storages": len(storages)}
    return report


class _Whole(Tensor):
    """All elements of a storage that several tensors look into."""

    def __init__(self, storage: Any, element_type: int, count: int):
        super().__init__(storage.key, element_type, (count,))
        self.storage = storage

    def chunks(self) -> Any:
        if self.storage.big_endian:
            import numpy as np

            from isomorph.tensors import numpy_type
            yield np.frombuffer(self.storage.data(), numpy_type(self.element_type)).byteswap().tobytes()
        else:
            yield self.storage.data()


def _lay_out(model: Checkpoint) -> tuple[list[tuple], list[Any]]:
    """(name, type, storage number, offset, sizes, strides) of each tensor, and what the storages hold."""
    users: dict[int, list[str]] = {}
    for name, tensor in model.tensors.items():
        if "storage" in tensor.meta and tensor.meta["storage"][4] not in HALF_COMPLEX:
            users.setdefault(_storage_of(tensor), []).append(name)
    shared = {name: names for names in users.values() if len(names) > 1 and len({type_of(model.tensors[name]) for name in names}) == 1 for name in names}
    entries: list[tuple] = []
    storages: list[Any] = []
    number_of_group: dict[int, int] = {}
    for name, tensor in model.tensors.items():
        dims = dims_of(tensor)
        number = type_of(tensor)
        if name in shared:
            storage, offset, _, strides, _ = tensor.meta["storage"]
            group = _storage_of(tensor)
            if group not in number_of_group:
                number_of_group[group] = len(storages)
                item = max(tensor.nbytes // max(tensor.size, 1), 1) if tensor.size else _item(number)
                storages.append(_Whole(storage, number, storage.bytes // item))
            entries.append((name, number, number_of_group[group], offset, dims, strides))
        else:
            strides = _torch_zip.strides_of(dims)
            entries.append((name, number, len(storages), 0, dims, strides))
            storages.append(tensor)
    return [(*entry, storages[entry[2]].size, storages[entry[2]].nbytes) for entry in entries], storages


def _item(number: int) -> int:
    from isomorph.tensors import BITS
    return BITS[number] // 8


def _pickled(entries: list[tuple]) -> bytes:
    """An OrderedDict of tensors in protocol 2."""
    out = [b"\x80\x02", _torch_zip.ORDERED, b"("]
    for name, number, key, offset, dims, strides, count, size in entries:
        out += [_torch_zip.text(name), _torch_zip.rebuilt(NAME[number], key, count, size, offset, dims, strides)]
    return b"".join([*out, b"u."])


FORMAT = Format(
    name="torch", title="PyTorch", extensions=(".pt", ".pth", ".bin", ".ckpt"), holds="weights",
    spec="https://github.com/pytorch/pytorch/blob/main/torch/serialization.py", identify=identify, read=read, write=write,
    network=network, can=Capabilities(dtypes=frozenset(_torch_zip.STORAGE_OF) | frozenset(_torch_zip.UNTYPED)),
)
