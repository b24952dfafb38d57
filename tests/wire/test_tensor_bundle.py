"""TensorBundle written and read back: shards, pieces, strings, compressed blocks, and everything that a damaged index may say."""
from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from isomorph.errors import Damaged, IsomorphError, Missing, Unsafe, Unsupported
from isomorph.wire import protobuf, sstable, tensor_bundle
from isomorph.wire.crc32c import crc32c, masked
from isomorph.wire.snappy import decompress
from isomorph.wire.tensor_bundle import Bundle, Entry, Stored, open_bundle, slice_key

MESSAGES = protobuf.schema("tensor_bundle")


def written(folder: Path, tensors: list[Stored], prefix: str = "variables") -> Path:
    with (folder / f"{prefix}.index").open("wb") as index, (folder / f"{prefix}.data-00000-of-00001").open("wb") as shard:
        tensor_bundle.write(index, shard, tensors)
    return folder


def floats(name: str, *dims: int) -> Stored:
    array = np.random.default_rng(len(name)).normal(size=dims).astype(np.float32)
    return Stored(name, 1, dims, array.tobytes())


def record(**fields: object) -> bytes:
    dims = fields.pop("dims", ())
    shape = MESSAGES["TensorShapeProto"](dim=[MESSAGES["Dim"](size=size) for size in dims])
    slices = [MESSAGES["TensorSliceProto"](extent=[MESSAGES["Extent"](start=start, **({} if length < 0 else {"length": length})) for start, length in each])
              for each in fields.pop("slices", ())]
    return protobuf.dumps(MESSAGES["BundleEntryProto"](shape=shape, slices=slices, **fields))


def table(header: dict, entries: dict[bytes, bytes]) -> memoryview:
    file = io.BytesIO()
    sstable.write(file, [(b"", protobuf.dumps(MESSAGES["BundleHeaderProto"](**header))), *sorted(entries.items())])
    return memoryview(file.getvalue())


def test_tensors_come_back_in_any_order_of_writing(tmp_path: Path) -> None:
    tensors = [floats(f"layer_{number:04d}/kernel", number % 5, 3) for number in random.Random(0).sample(range(3000), 3000)]
    bundle = open_bundle(written(tmp_path, tensors), "variables")
    assert list(bundle) == sorted(tensor.key for tensor in tensors)
    for tensor in tensors:
        entry = bundle[tensor.key]
        assert (entry.dtype, entry.dims, bytes(bundle.data(entry))) == (1, tensor.dims, tensor.data)
        assert entry.offset % tensor_bundle.ALIGNMENT == 0
        bundle.verify(entry)


def test_strings_come_back(tmp_path: Path) -> None:
    elements = [b"", b"a", "é".encode(), b"\0" * 300]
    bundle = open_bundle(written(tmp_path, [Stored("words", 7, (2, 2), elements)]), "variables")
    assert [bytes(word) for word in bundle.strings(bundle["words"])[0]] == elements
    bundle.verify(bundle["words"])


def test_a_flipped_bit_is_seen_by_the_checksum(tmp_path: Path) -> None:
    folder = written(tmp_path, [floats("w", 4), Stored("s", 7, (1,), [b"word"])])
    data = folder / "variables.data-00000-of-00001"
    for place in (0, len(data.read_bytes()) - 1):
        before = data.read_bytes()
        data.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1:])
        bundle = open_bundle(folder, "variables")
        with pytest.raises(Damaged, match="checksum"):
            list(map(bundle.verify, bundle.values()))
        data.write_bytes(before)


def sliced(tmp_path: Path, **changes: object) -> tuple[Bundle, np.ndarray]:
    """A variable of [5, 3] in two pieces, in two shards."""
    whole = np.arange(15, dtype=np.float32).reshape(5, 3)
    (tmp_path / "v.data-00000-of-00002").write_bytes(whole[:2].tobytes())
    (tmp_path / "v.data-00001-of-00002").write_bytes(whole[2:].tobytes())
    extents = [((0, 2), (0, -1)), ((2, 3), (0, -1))]
    entries = {b"w": record(**{"dtype": 1, "dims": (5, 3), "slices": extents} | changes)}
    for number, (extent, dims) in enumerate(zip(extents, [(2, 3), (3, 3)], strict=True)):
        entries[slice_key(b"w", extent)] = record(dtype=1, dims=dims, shard_id=number, size=4 * dims[0] * dims[1])
    (tmp_path / "v.index").write_bytes(table({"num_shards": 2}, entries))
    return open_bundle(tmp_path, "v"), whole


def test_pieces_of_a_variable_lie_where_they_belong(tmp_path: Path) -> None:
    bundle, whole = sliced(tmp_path)
    assert list(bundle) == ["w"]
    array = np.zeros_like(whole)
    for where, part in bundle.pieces(bundle["w"]):
        array[where] = np.frombuffer(bundle.data(part), np.float32).reshape(part.dims)
    assert (array == whole).all()


@pytest.mark.parametrize("slices", [[((0, 2), (0, -1))], [((0, 2), (0, -1)), ((2, 9), (0, -1))], [((0, 2), (0, -1)), ((3, 2), (0, -1))], [((0, 5),)]])
def test_pieces_that_leave_holes_or_the_tensor_are_refused(tmp_path: Path, slices: list) -> None:
    bundle, _ = sliced(tmp_path, slices=slices)
    with pytest.raises(Damaged):
        bundle.pieces(bundle["w"])


def test_keys_of_pieces_are_those_of_tensorflow() -> None:
    """Taken from checkpoints that TensorFlow wrote with names and sizes that need every form of the code."""
    assert slice_key("wÿ".encode(), [(40, 30), (0, -1)]) == b"\x00w\xc3\xbf\x00\x01\x01\x02\xa8\x9e\x80\x7f"
    assert slice_key(b"a", [(64, 8191)]) == b"\x00a\x00\x01\x01\x01\xc0\x40\xdf\xff"
    assert slice_key(b"a", [(2_100_000, 8192)]) == b"\x00a\x00\x01\x01\x01\xf0\x20\x0b\x20\xe0\x20\x00"


@pytest.mark.parametrize(("header", "error"), [({"num_shards": 1, "endianness": 1}, Unsupported), ({"num_shards": 0}, Damaged), ({"num_shards": -1}, Damaged),
                                               ({"num_shards": 1 << 30}, Damaged),
                                               ({"num_shards": 1, "version": MESSAGES["VersionDef"](min_consumer=2)}, Unsupported)])
def test_headers_that_cannot_be_read(header: dict, error: type[IsomorphError], tmp_path: Path) -> None:
    with pytest.raises(error):
        Bundle(tmp_path, "v", table(header, {}))


@pytest.mark.parametrize("fields", [{"dims": (1 << 40, 1 << 40), "size": 4}, {"dims": (-1,), "size": 4}, {"dims": (1,), "size": 8}, {"dims": (1,), "size": -4},
                                    {"dims": (1,), "size": 4, "offset": -4}, {"dims": (1,), "size": 4, "shard_id": 1},
                                    {"dims": (1,), "size": 4, "shard_id": -1}])
def test_entries_that_contradict_themselves(fields: dict, tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        Bundle(tmp_path, "v", table({"num_shards": 1}, {b"w": record(dtype=1, **fields)}))


def test_data_that_is_not_there(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, "v", table({"num_shards": 1}, {b"w": record(dtype=1, dims=(4,), size=16), b"s": record(dtype=7, dims=(1 << 40,), size=8)}))
    with pytest.raises(Missing):
        bundle.data(bundle["w"])
    (tmp_path / "v.data-00000-of-00001").write_bytes(bytes(8))
    bundle.shards.clear()
    with pytest.raises(Damaged, match="8 bytes"):
        bundle.data(bundle["w"])
    with pytest.raises(Damaged, match="strings"):
        bundle.strings(bundle["s"])


def test_a_prefix_never_leaves_its_folder(tmp_path: Path) -> None:
    written(tmp_path, [floats("w", 1)])
    (tmp_path / "inside").mkdir()
    with pytest.raises(Unsafe):
        open_bundle(tmp_path / "inside", "../variables")


def test_every_cut_and_many_changes_of_an_index_are_errors_of_ours(tmp_path: Path) -> None:
    whole = bytes((written(tmp_path, [floats(f"layer/{number}", 2, 2) for number in range(40)]) / "variables.index").read_bytes())
    changed = random.Random(1)
    candidates = [whole[:length] for length in range(0, len(whole), 3)]
    for _ in range(400):
        place = changed.randrange(len(whole))
        candidates.append(whole[:place] + bytes([changed.randrange(256)]) + whole[place + 1:])
    accepted = 0
    for candidate in candidates:
        try:
            Bundle(tmp_path, "variables", memoryview(candidate))
            accepted += candidate != whole
        except IsomorphError:
            pass
    assert accepted <= 60, "only the padding of the footer and the place of the empty metaindex are under no checksum"


def test_compressed_blocks(tmp_path: Path) -> None:
    """An index of one snappy block: a literal that holds the whole block. Then elements of every kind, and what they must not do."""
    entries = [(b"", protobuf.dumps(MESSAGES["BundleHeaderProto"](num_shards=1))), (b"w", record(dtype=1, dims=(1,), size=4))]
    block = sstable._packed(entries, 16)
    packed = sstable.number(len(block)) + bytes([60 << 2, len(block) - 1]) + block
    out = bytearray(packed + b"\1" + struct.pack("<I", masked(crc32c(packed + b"\1"))))
    index = sstable._packed([(b"w", sstable.number(0) + sstable.number(len(packed)))], 1) + b"\0"
    start = len(out)
    out += index + struct.pack("<I", masked(crc32c(index)))
    handles = b"".join(map(sstable.number, (start, 0, start, len(index) - 1)))
    out += handles.ljust(40, b"\0") + struct.pack("<Q", sstable.MAGIC)
    assert Bundle(tmp_path, "v", memoryview(bytes(out)))["w"] == Entry(b"w", 1, (1,), size=4)


def test_snappy_elements() -> None:
    literal = b"\x08abc"
    assert decompress(memoryview(b"\x03" + literal)) == b"abc"
    assert decompress(memoryview(b"\x07" + literal + b"\x01\x03")) == b"abcabca"
    assert decompress(memoryview(b"\x05" + literal + b"\x06\x01\x00")) == b"abccc"
    assert decompress(memoryview(b"\x05" + literal + b"\x07\x02\x00\x00\x00")) == b"abcbc"


@pytest.mark.parametrize("block", [b"", b"\x80", b"\x04\x08abc", b"\x02\x08abc", b"\x07\x08abc\x01\x04", b"\x07\x08abc\x01\x00", b"\x03\x08ab", b"\x05\xf0",
                                   b"\x05\xfc\xff\xff\xff\xff", b"\x05\x07\x01"])
def test_snappy_blocks_that_lie(block: bytes) -> None:
    with pytest.raises(Damaged):
        decompress(memoryview(block))


def test_a_snappy_bomb_is_refused() -> None:
    with pytest.raises(Unsafe):
        decompress(memoryview(sstable.number(1 << 40) + b"\x08abc"))
