"""The containers of torch.save: a zip, five pickles and raw data, or a tar. Each gives one value of our records whose storages are slices of the mapping.

Layouts: torch/serialization.py, `_save`, `_legacy_save`, `_legacy_load`, and for the tar `legacy_load`.
"""
from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsafe
from isomorph.formats import _torch
from isomorph.formats._torch_values import CONSTANTS, RULES_TORCH, STORAGE_MODULES, STORAGES, DType, Storage, TensorRecord, is_sizes, made_tensor
from isomorph.wire import pickle
from isomorph.wire.archive import Note
from isomorph.wire.pickle import Machine
from isomorph.wire.pickle_records import Dict, Name, Stream

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.wire.archive import Archive
    from isomorph.wire.limits import Limits

MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_HEAD = b"\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."          # behind the two bytes of PROTO
PROTOCOL = 1001
LONGEST_PICKLE = 1 << 28                   # bytes of data.pkl
MOST_STORAGES = 1_000_000
MEMBER, INFLATED = 16, 64                  # operations that a member of an archive costs, and bytes that are inflated in the time of one


@dataclass
class Loaded:
    """What a file holds: the value, the storages by key, and the notes of all its pickles."""

    value: Any
    storages: dict[str, Storage] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    container: str = ""
    opcodes: int = 0                       # what reading it took, counted in operations of a pickle
    bytes: int = 0                         # what its values take in memory, by estimate


def storage_type(machine_where: str, name: Any) -> DType | None:
    """The element type of a storage class, None for the untyped one. Raises `Damaged` for a name that is no storage class."""
    if isinstance(name, Name) and name.module in STORAGE_MODULES and name.qualname in STORAGES:
        kind = STORAGES[name.qualname]
        return DType(kind) if kind else None
    if isinstance(name, Name) and name.module in STORAGE_MODULES and name.qualname == "TypedStorage":
        return None
    raise Damaged(f"{str(name)[:60]!r} is no class of a storage", where=machine_where)


def load_pickle(view: memoryview, start: int, persistent: Callable[[Any], Any], limits: Limits, where: str, depth: int = 0,
                rules: dict[Name, Any] | None = None) -> Stream:
    """One pickle with PyTorch's names."""
    rules = RULES_TORCH if rules is None else rules
    return pickle.load(view, start, rules=rules, constants=CONSTANTS, persistent=persistent, limits=limits, where=where, depth=depth)


def reader_of(limits: Limits, where: str, find: Callable[[str, DType | None, int], Storage], storages: dict[str, Storage]) -> Callable[[Any], Any]:
    """What persistent ids stand for: ('storage', class, key, location, elements[, view]) and, in old files, ('module', class, file, source)."""
    def persistent(given: Any) -> Any:
        if isinstance(given, tuple) and len(given) == 4 and given[0] == "module" and isinstance(given[1], Name):
            return given[1]
        if not isinstance(given, tuple) or len(given) not in (5, 6) or given[0] != "storage" or not isinstance(given[2], str) or type(given[4]) is not int:
            raise Damaged("a persistent id that is no storage", where=where)
        _, kind, key, location, count, *view = given
        dtype = storage_type(where, kind)
        if count < 0:
            raise Damaged(f"storage {key[:40]!r} of {count} elements", where=where)
        if key not in storages:
            if len(storages) >= MOST_STORAGES:
                raise Unsafe(f"more than {MOST_STORAGES} storages", where=where)
            storages[key] = find(key, dtype, count)
            storages[key].location = location if isinstance(location, str) else "cpu"
        found = storages[key]
        if view and view[0] is not None:
            return _view(found, view[0], where)
        if found.dtype != dtype:
            return Storage(found.key, dtype, found.bytes, found.location, found.big_endian, found.stored, lambda: found.view(), found)
        return found
    return persistent


def _view(root: Storage, view: Any, where: str) -> Storage:
    """(key, offset, size) of a storage inside another one, as files before 1.6 have them."""
    if not isinstance(view, tuple) or len(view) != 3 or not is_sizes(view[1:]) or root.dtype is None:
        raise Damaged("a view of a storage that is no (key, offset, size)", where=where)
    item = root.dtype.bytes
    start, size = view[1] * item, view[2] * item
    if start + size > root.bytes:
        raise Damaged("a view that reaches over the end of its storage", where=where)
    return Storage(str(view[0]), root.dtype, size, root.location, root.big_endian, root.stored, lambda: root.data()[start:start + size])


# ---- zip

def load_zip(archive: Archive, root: str, limits: Limits, where: str, *, member: str = "data.pkl", folder: str = "data/",
             rules: dict[Name, Any] | None = None, depth: int = 0, data: bool = True) -> Loaded:
    """`<root>data.pkl` with its storages `<root>data/<key>`, stored or packed, in either byte order; without `data`, only what describes them."""
    storages: dict[str, Storage] = {}
    order = archive.head(root + "byteorder", 8).strip() if root + "byteorder" in archive.members else b"little"
    if order not in (b"little", b"big"):
        raise Damaged(f"the byte order {order!r}", where=where)

    def find(key: str, dtype: DType | None, count: int) -> Storage:
        name = f"{root}{folder}{key}"
        if not data:
            return Storage(key, dtype, count * (dtype.bytes if dtype else 1))
        if name not in archive.members:
            raise Damaged(f"the archive has no storage {key[:40]!r}", where=where)
        size = count * (dtype.bytes if dtype else 1)
        if archive.members[name].size != size:
            raise Damaged(f"storage {key[:40]!r} has {archive.members[name].size} bytes where the pickle says {size}", where=where)
        return Storage(key, dtype, size, big_endian=order == b"big", stored=archive.members[name].stored, view=lambda: archive.read(name))

    view = archive.read(root + member, LONGEST_PICKLE)
    stream = load_pickle(view, 0, reader_of(limits, where, find, storages), limits, f"{where}, {root}{member}", depth, rules)
    notes = list(stream.notes)
    if stream.stop != len(view):
        notes.append(Note("pickle.tail", 2, f"{where}, {root}{member}", f"{len(view) - stream.stop} bytes stand behind the pickle, which nobody reads"))
    inflated = 0 if archive.members[root + member].stored else len(view) // INFLATED
    return Loaded(stream.value, storages, [*notes, *archive.findings], "zip", stream.opcodes + MEMBER * len(archive.members) + inflated,
                  stream.bytes)


# ---- five pickles, then the data

def load_legacy(view: memoryview, limits: Limits, where: str, depth: int = 0) -> Loaded:
    """Magic number, protocol, system, object, keys: five pickles; then for each key a count of elements and so many."""
    storages: dict[str, Storage] = {}
    roots: list[tuple[str, Storage]] = []
    order = {"big": False}

    def find(key: str, dtype: DType | None, count: int) -> Storage:
        made = Storage(key, dtype, count * (dtype.bytes if dtype else 1), big_endian=order["big"])
        roots.append((key, made))
        return made

    streams, at = [], 0
    for place in range(5):
        stream = load_pickle(view, at, reader_of(limits, where, find, storages), limits, where, depth)
        streams.append(stream)
        at = stream.stop
        if place == 2 and isinstance(stream.value, Dict):
            order["big"] = stream.value.get("little_endian") is False
    magic, protocol, _, value, keys = (stream.value for stream in streams)
    if magic != MAGIC or protocol != PROTOCOL or not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Damaged("the pickles of an old torch file are magic number, protocol, system, object and keys", where=where)
    known = dict(roots)
    for key in keys:
        if key not in known:
            raise Damaged(f"storage {key[:40]!r} is listed and not used, so that its size is not known", where=where)
        storage = known.pop(key)
        item = storage.dtype.bytes if storage.dtype else 1
        if at + 8 > len(view):
            raise Damaged("the data ends before all storages", where=where, offset=at)
        count = int.from_bytes(view[at:at + 8], "little" if not order["big"] else "big", signed=True)
        if count * item != storage.bytes:
            raise Damaged(f"storage {key[:40]!r} has {count} elements where the pickle says {storage.bytes // item}", where=where, offset=at)
        at = _place(storage, view, at + 8, where)
    if known:
        raise Damaged(f"storage {next(iter(known))[:40]!r} is used and its data is not there", where=where)
    notes = [note for stream in streams for note in stream.notes]
    if at != len(view):
        notes.append(Note("pickle.tail", 2, where, f"{len(view) - at} bytes stand behind the last storage, which nobody reads"))
    return Loaded(value, storages, notes, "legacy", sum(stream.opcodes for stream in streams), sum(stream.bytes for stream in streams))


def _place(storage: Storage, view: memoryview, start: int, where: str) -> int:
    stop = start + storage.bytes
    if stop > len(view):
        raise Damaged(f"storage {storage.key[:40]!r} runs over the end", where=where, offset=start)
    storage.view = lambda: view[start:stop]
    return stop


# ---- tar

def load_tar(archive: Archive, limits: Limits, where: str) -> Loaded:
    """Members `storages`, `tensors` and `pickle`. Storages and tensors are counted lists of pickles with raw data between them."""
    members = {name.removeprefix("./"): archive.read(name) for name in archive.names}
    notes: list[Note] = []

    def next_pickle(view: memoryview, at: int) -> tuple[Any, int]:
        stream = load_pickle(view, at, lambda given: given, limits, where)
        notes.extend(stream.notes)
        return stream.value, stream.stop

    storages: dict[str, Storage] = {}
    view = members["storages"]
    count, at = next_pickle(view, 0)
    for _ in range(_counted(count, where)):
        (key, location, kind), at = _parts(next_pickle(view, at), 3, where)
        dtype = storage_type(where, kind)
        item = dtype.bytes if dtype else 1
        size = int.from_bytes(view[at:at + 8], "little", signed=True) * item
        if size < 0 or at + 8 > len(view):
            raise Damaged(f"storage {str(key)[:40]!r} of {size} bytes", where=where, offset=at)
        storages[str(key)] = Storage(str(key), dtype, size, str(location))
        at = _place(storages[str(key)], view, at + 8, where)
    views, at = next_pickle(view, at)
    for entry in views if isinstance(views, list) else []:
        (target, root, offset, size), _ = _parts((entry, 0), 4, where)
        if str(root) not in storages:
            raise Damaged(f"a view of storage {str(root)[:40]!r}, which is not there", where=where)
        storages[str(target)] = _view(storages[str(root)], (str(target), offset, size), where)
    tensors = _tar_tensors(members["tensors"], storages, next_pickle, where, limits)

    def persistent(given: Any) -> Any:
        key = given[0] if isinstance(given, tuple) and given else given
        if str(key) in tensors:
            return tensors[str(key)]
        if str(key) in storages:
            return storages[str(key)]
        raise Damaged(f"tensor {str(key)[:40]!r} is not there", where=where)

    stream = load_pickle(members["pickle"], 0, persistent, limits, where)
    return Loaded(stream.value, storages, [*notes, *stream.notes, *archive.findings], "tar")


def _tar_tensors(view: memoryview, storages: dict[str, Storage], next_pickle: Callable[[memoryview, int], tuple[Any, int]], where: str,
                 limits: Limits) -> dict[str, TensorRecord]:
    machine = Machine(view, limits=limits, where=where)
    tensors: dict[str, TensorRecord] = {}
    count, at = next_pickle(view, 0)
    for _ in range(_counted(count, where)):
        (key, storage, _), at = _parts(next_pickle(view, at), 3, where)
        try:
            (rank,) = struct.unpack_from("<i4x", view, at)
            numbers = struct.unpack_from(f"<{2 * _counted(rank, where) + 1}q", view, at + 8)
        except struct.error:
            raise Damaged("the tensors end inside a shape", where=where, offset=at) from None
        at += 8 + 8 * len(numbers)
        if str(storage) not in storages:
            raise Damaged(f"tensor {str(key)[:40]!r} uses a storage that is not there", where=where)
        tensors[str(key)] = made_tensor(machine, storages[str(storage)], numbers[-1], numbers[:rank], numbers[rank:2 * rank], None)
    return tensors


def _counted(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= MOST_STORAGES:
        raise Damaged(f"a count of {str(value)[:40]}", where=where)
    return value


def _parts(read: tuple[Any, int], count: int, where: str) -> tuple[tuple, int]:
    if not isinstance(read[0], tuple) or len(read[0]) != count:
        raise Damaged(f"a list whose entries are not of {count} parts", where=where)
    return read  # type: ignore[return-value]


# ---- any

def load(artifact: Artifact) -> Loaded:
    """The value of a file of either container. Raises `Damaged` or `Unsafe`."""
    if artifact.head[2:15] == LEGACY_HEAD:
        return load_legacy(artifact.view, artifact.limits, artifact.where)
    archive = artifact.archive
    if archive is None:
        raise Damaged("neither a zip, nor a tar, nor the pickles of an old torch file", where=artifact.where, offset=0)
    if archive.kind == "tar":
        return load_tar(archive, artifact.limits, artifact.where)
    root = _torch.root_of(archive, "data.pkl")
    if root is None:
        raise Damaged("the zip has no data.pkl", where=artifact.where)
    return load_zip(archive, root, artifact.limits, artifact.where)


def load_bytes(data: memoryview, machine: Machine) -> Any:
    """A torch file inside a pickle, one level deeper. The archive's limits hold for it as well."""
    from isomorph.wire.archive import open_archive
    if machine.depth + 1 > machine.limits.pickle_nesting:
        raise Unsafe(f"files inside pickles, more than {machine.limits.pickle_nesting} deep", where=machine.where)
    if bytes(data[2:15]) == LEGACY_HEAD:
        loaded = load_legacy(data, machine.limits, machine.where, machine.depth + 1)
    else:
        archive = open_archive(data, machine.where, machine.limits)
        root = _torch.root_of(archive, "data.pkl") if archive else None
        if archive is None or root is None:
            raise Damaged("_load_from_bytes of bytes that are no torch file", where=machine.where)
        loaded = load_zip(archive, root, machine.limits, machine.where, depth=machine.depth + 1)
    machine.stream.notes.extend(loaded.notes)
    machine.stream.opcodes += loaded.opcodes           # one budget for all, because the same bytes can be loaded any number of times
    machine.inside += loaded.bytes
    return loaded.value


