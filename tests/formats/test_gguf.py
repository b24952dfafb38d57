"""GGUF: every version and byte order, the verdicts of llama.cpp's tests on good and bad files, and bytes that come back as they were."""
from __future__ import annotations

import json
import struct
import time

import numpy as np
import pytest
from gguf_files import ARRAY, F32, I8, Q4_0, STRING, gguf, padded
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import zoo

import isomorph
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Missing, NotRecognised, Unsafe, Unsupported, Usage
from isomorph.formats import _table, safetensors
from isomorph.formats import gguf as format_
from isomorph.inspection import inspect
from isomorph.model import Checkpoint
from isomorph.quant.blocks import BLOCKS, RETIRED
from isomorph.quant.decode import dequantize, layout
from isomorph.quant.tensor import QuantizedTensor
from isomorph.tensors import NUMBER, SliceTensor, array_tensor
from isomorph.wire.gguf import Array
from isomorph.wire.limits import Limits

KEYS = [("general.architecture", STRING, "llama"), ("a.u8", 0, 255), ("a.i8", 1, -128), ("a.u16", 2, 65535), ("a.i16", 3, -5), ("a.u32", 4, 1 << 31),
        ("a.i32", 5, -7), ("a.f32", 6, 0.5), ("a.bool", 7, 1), ("a.u64", 10, 1 << 63), ("a.i64", 11, -1 << 63), ("a.f64", 12, 0.1),
        ("tokens", ARRAY, (STRING, ["a", "ä", b"\xff\xfe", ""])), ("scores", ARRAY, (6, [0.5, -1.0])), ("flags", ARRAY, (7, [1, 0])),
        ("nested", ARRAY, (ARRAY, [(4, [1, 2]), (STRING, ["x"])])), ("empty", ARRAY, (5, []))]
WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)
BLOCKS_OF_4 = struct.pack("<e16s", 0.5, bytes(range(16)))


def small(version: int = 3, order: str = "<") -> bytes:
    swap = order == ">"
    data = padded((WEIGHTS.byteswap() if swap else WEIGHTS).tobytes())
    block = struct.pack(order + "e16s", 0.5, bytes(range(16)))
    return gguf(version, KEYS, [("w", (3, 2), F32, 0), ("q", (32,), Q4_0, 32)], data + padded(block), order)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_version_and_byte_order_reads_the_same(version, order, tmp_path):
    checkpoint = format_.read(Artifact.open(small(version, order)))
    np.testing.assert_array_equal(checkpoint["w"].numpy(), WEIGHTS)
    expected = [0.5 * (code - 8) for code in (*(byte & 15 for byte in range(16)), *(byte >> 4 for byte in range(16)))]
    np.testing.assert_array_equal(checkpoint["q"].numpy(), np.float32(expected))
    assert {name: value for name, value in checkpoint.metadata.items() if not isinstance(value, Array)} == {
        "general.architecture": "llama", "a.u8": 255, "a.i8": -128, "a.u16": 65535, "a.i16": -5, "a.u32": 1 << 31, "a.i32": -7, "a.f32": 0.5,
        "a.bool": True, "a.u64": 1 << 63, "a.i64": -1 << 63, "a.f64": 0.1}
    assert list(checkpoint.metadata["tokens"]) == ["a", "ä", "\udcff\udcfe", ""]
    assert [list(inner) for inner in checkpoint.metadata["nested"]] == [[1, 2], ["x"]]
    assert list(checkpoint.metadata["flags"]) == [True, False]
    # Whatever is read is written as version 3, little-endian, with the very bytes that a canonical file has.
    format_.write(checkpoint, tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_bytes() == small()


good = [
    gguf(), gguf(keys=KEYS), gguf(tensors=[("w", (), F32, 0)], data=bytes(32)),
    gguf(tensors=[("w", (0,), F32, 0), ("v", (4, 1, 1, 2), F32, 0)], data=bytes(32)),
    gguf(keys=[("general.alignment", 4, 1)], tensors=[("a", (3,), I8, 0), ("b", (5,), I8, 3)], data=bytes(8), alignment=1),
    gguf(keys=[("general.alignment", 4, 64)], tensors=[("a", (3,), I8, 0), ("b", (5,), I8, 64)], data=bytes(128), alignment=64),
    gguf(tensors=[("a", (32, 2), Q4_0, 0), ("x" * 63, (1,), F32, 64)], data=bytes(96)),
]


@pytest.mark.parametrize("data", good, ids=range(len(good)))
def test_good_files_are_read(data):
    for tensor in format_.read(Artifact.open(data)).values():
        assert tensor.numpy().shape == tensor.dims


def one(name="w", sizes=(4,), kind=F32, offset=0, data=32, **more):
    return gguf(tensors=[(name, sizes, kind, offset)], data=bytes(data), **more)


HUGE = (1 << 64) - 1
bad = {
    "magic": (b"FUGG" + gguf()[4:], "does not begin"),
    "version 0": (gguf(0), "no version 0"), "version of the future": (gguf(4), "no version 4"),
    "tensor count": (gguf(n_tensors=HUGE), "tensors and"), "key count": (gguf(n_keys=HUGE), "keys in"),
    "cut in the header": (gguf()[:20], "inside a number"),
    "key length": (gguf(n_keys=1) + struct.pack("<Q", HUGE) + bytes(16), "a text of"),
    "long key": (gguf(keys=[("k" * 65536, 4, 1)]), "a text of 65536"),
    "empty key": (gguf(keys=[("", 4, 1)]), "without a name"),
    "key that is no text": (gguf(keys=[(b"\xff", 4, 1)]), "not UTF-8"),
    "value type": (gguf(keys=[("k", 13, bytes(8))]), "no value type 13"),
    "element type": (gguf(keys=[("k", ARRAY, struct.pack("<IQ", 13, 1) + bytes(8))]), "no value type 13"),
    "array count": (gguf(keys=[("k", ARRAY, struct.pack("<IQ", 4, 1 << 62) + bytes(64))]), "elements in"),
    "string array count": (gguf(keys=[("k", ARRAY, struct.pack("<IQ", STRING, 1 << 60) + bytes(64))]), "elements in"),
    "string in an array": (gguf(keys=[("k", ARRAY, struct.pack("<IQQ", STRING, 2, HUGE) + bytes(64))]), "longer than the file"),
    "duplicate key": (gguf(keys=[("k", 4, 1), ("k", 4, 2)]), "stands twice"),
    "alignment": (one(keys=[("general.alignment", 4, 13)]), "alignment of 13"),
    "alignment 0": (one(keys=[("general.alignment", 4, 0)]), "alignment of 0"),
    "wild alignment": (one(keys=[("general.alignment", 4, 1 << 31)]), "alignment of"),
    "type of the alignment": (one(keys=[("general.alignment", 10, 32)]), "no u32"),
    "name length": (one(name="n" * 64), "a text of 64"),
    "dimensions": (one(sizes=(1, 1, 1, 1, 1)), "5 dimensions"),
    "negative size": (one(sizes=(HUGE,)), "has the sizes"),
    "too many elements": (one(sizes=(1 << 32, 1 << 32)), "has the sizes"),
    "too many bytes": (one(sizes=(1 << 62,)), "of data"),
    "wraps in the padding": (one(sizes=(4, (1 << 30) - 1, (1 << 30) + 1)), "of data"),
    "rows of part of a block": (one(sizes=(33,), kind=Q4_0, data=64), "rows of 33"),
    "unknown type": (one(kind=43), "unknown type 43"),
    "offset": (one(offset=HUGE), "0 comes next"),
    "a hole": (gguf(tensors=[("a", (8,), F32, 0), ("b", (8,), F32, 64)], data=bytes(128)), "32 comes next"),
    "an overlap": (gguf(tensors=[("a", (8,), F32, 0), ("b", (8,), F32, 0)], data=bytes(128)), "32 comes next"),
    "other alignment": (gguf(keys=[("general.alignment", 4, 64)], tensors=[("a", (8,), F32, 0), ("b", (8,), F32, 32)], data=bytes(128)), "64 comes next"),
    "duplicate tensor": (gguf(tensors=[("a", (8,), F32, 0), ("a", (8,), F32, 32)], data=bytes(64)), "stands twice"),
    "not enough data": (one(sizes=(8,), data=31), "32 bytes at 0"),
    "two that only together are too large": (gguf(tensors=[("a", (1 << 62,), I8, 0), ("b", (1 << 62,), I8, 1 << 62)], data=bytes(64)), "of data"),
}


@pytest.mark.parametrize("name", bad)
def test_bad_files_are_damaged(name):
    data, what = bad[name]
    with pytest.raises(Damaged, match=what):
        format_.read(Artifact.open(data))


def test_limits_and_retired_types():
    with pytest.raises(Unsafe, match="3 tensors"):
        format_.read(Artifact.open(gguf(tensors=[(name, (0,), F32, 0) for name in "abc"]), Limits(tensors=2)))
    deep = struct.pack("<IQ", ARRAY, 1) * 6
    with pytest.raises(Unsafe, match="arrays in arrays"):
        format_.read(Artifact.open(gguf(keys=[("k", ARRAY, deep + struct.pack("<IQ", 4, 0))])))
    with pytest.raises(Unsupported) as caught:
        format_.read(Artifact.open(gguf(tensors=[(f"t{kind}", (32,), kind, 32 * place) for place, kind in enumerate(RETIRED)], data=bytes(512))))
    assert len(caught.value.blockers) == len(RETIRED)


def test_a_missing_end_of_padding_is_a_finding():
    checkpoint = format_.read(Artifact.open(one(data=16)))
    assert [finding.code for finding in checkpoint.findings] == ["gguf.unpadded"]
    assert format_.read(Artifact.open(one())).findings == []
    assert [finding.code for finding in format_.read(Artifact.open(gguf(keys=[("general.name\0x", 4, 1)]))).findings] == ["gguf.nul-in-key"]


@pytest.mark.parametrize("name", BLOCKS)
def test_every_type_is_read_and_written_in_both_byte_orders(name, tmp_path):
    kind = BLOCKS[name]
    values = np.random.default_rng(kind.number).integers(0, 60, (6, kind.bytes), np.uint8)
    swapped = values.view(layout(name)).byteswap() if kind.fields else values.view(f"u{kind.bytes}").byteswap()
    row = [("t", (2 * kind.elements, 3), kind.number, 0)]
    little = gguf(tensors=row, data=padded(values.tobytes()))
    for data in (little, gguf(tensors=row, data=padded(swapped.tobytes()), order=">")):
        checkpoint = format_.read(Artifact.open(data))
        format_.write(checkpoint, tmp_path / "x.gguf", force=True)
        assert (tmp_path / "x.gguf").read_bytes() == little
        if kind.fields:
            assert isinstance(checkpoint["t"], QuantizedTensor)
            np.testing.assert_array_equal(checkpoint["t"].numpy(), dequantize(name, values.tobytes()).reshape(3, -1))
            assert checkpoint["t"].tobytes() == checkpoint["t"].numpy().tobytes()


def test_a_conversion_is_split_if_asked(tmp_path):
    rows = {f"w{place}": array_tensor(np.full((4, 32), place, np.float32), f"w{place}") for place in range(4)}
    safetensors.write(Checkpoint(rows), tmp_path / "x.safetensors")
    report = isomorph.convert(tmp_path / "x.safetensors", tmp_path / "y.gguf", shard_bytes=1024)
    assert report.subject == str(tmp_path / "y-00001-of-00002.gguf")
    assert report.facts["verified"] == "re-read"
    again = isomorph.open(tmp_path / "y-00002-of-00002.gguf")
    assert {name: tensor.numpy()[0, 0] for name, tensor in again.items()} == {"w0": 0, "w1": 1, "w2": 2, "w3": 3}
    with pytest.raises(Usage, match="not split"):
        isomorph.convert(tmp_path / "x.safetensors", tmp_path / "y.npz", shard_bytes=1024)


def test_parts_are_written_and_read_from_any_of_them(tmp_path):
    arrays = {name: np.full(100, place, np.float32) for place, name in enumerate("abcde")}
    source = Checkpoint({name: array_tensor(array) for name, array in arrays.items()}, {"general.name": "five"})
    report = format_.write(source, tmp_path / "m.gguf", shard_bytes=900)
    names = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names == report.facts["files"]
    for name in names:
        again = format_.read(Artifact.open(tmp_path / name))
        assert {key: again[key].numpy()[0] for key in again} == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
        assert again.metadata == {"general.name": "five"}
    assert _table.identify(Artifact.open(tmp_path / names[0])).detail["companions"] == names[1:]
    middle = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes((tmp_path / names[2]).read_bytes())
    with pytest.raises(Damaged, match="part 2 of 3"):
        format_.read(Artifact.open(tmp_path / names[0]))
    (tmp_path / names[1]).unlink()
    with pytest.raises(Missing, match="is not there"):
        format_.read(Artifact.open(tmp_path / names[0]))
    with pytest.raises(Missing, match="one of 3 parts"):
        format_.read(Artifact.open(middle))


def test_what_gguf_cannot_hold_is_named(tmp_path):
    source = Checkpoint({"x" * 64: array_tensor(np.ones(1, np.float32)), "deep": array_tensor(np.ones((1,) * 5, np.float32)),
                         "u": array_tensor(np.ones(1, bool)), "fine": array_tensor(np.float32(3))})
    with pytest.raises(Unsupported) as caught:
        format_.write(source, tmp_path / "x.gguf")
    assert [name for name, _, _ in caught.value.blockers] == ["x" * 64, "deep", "u"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Usage):
        format_.write(object(), tmp_path / "x.gguf")
    format_.write(Checkpoint({"fine": source["fine"]}), tmp_path / "x.gguf")
    assert format_.read(Artifact.open(tmp_path / "x.gguf"))["fine"].numpy() == np.float32(3)


keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda name: "alignment" not in name)
scalars = st.booleans() | st.integers(-1 << 63, (1 << 64) - 1) | st.floats(width=32, allow_nan=False) | st.text()
lists = st.lists(st.integers(-1 << 31, (1 << 31) - 1)) | st.lists(st.floats(width=32, allow_nan=False)) | st.lists(st.text()) | st.lists(st.booleans())


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(keys, scalars | lists.filter(len)))
def test_metadata_comes_back(tmp_path_factory, metadata):
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    format_.write(Checkpoint(metadata=metadata), path)
    again = format_.read(Artifact.open(path)).metadata
    assert {name: list(value) if isinstance(value, Array) else value for name, value in again.items()} == metadata


def test_metadata_passes_through_safetensors_without_loss(tmp_path):
    (tmp_path / "a.gguf").write_bytes(small())
    first = format_.read(Artifact.open(tmp_path / "a.gguf"))
    safetensors.write(first, tmp_path / "b.safetensors")
    second = safetensors.read(Artifact.open(tmp_path / "b.safetensors"))
    assert second.metadata["general.architecture"] == "llama"
    assert json.loads(second.metadata["scores"]) == [0.5, -1.0]
    format_.write(Checkpoint({"w": second["w"], "q": first["q"]}, second.metadata), tmp_path / "c.gguf")
    assert (tmp_path / "c.gguf").read_bytes() == small()
    # A key of that name that somebody else made must not stop the writer.
    format_.write(Checkpoint(metadata={format_.KINDS_KEY: "{}", "b": "c"}), tmp_path / "d.gguf")
    assert format_.read(Artifact.open(tmp_path / "d.gguf")).metadata["b"] == "c"
    format_.write(Checkpoint(metadata={format_.KINDS_KEY: '{"b": "u32"}', "b": "c"}), tmp_path / "e.gguf")
    assert format_.read(Artifact.open(tmp_path / "e.gguf")).metadata["b"] == "c"


def test_inspect_names_the_blocks():
    report = inspect(small())
    assert report.facts["tensors"] == [{"name": "w", "dtype": "float32", "shape": [2, 3], "bytes": 24},
                                       {"name": "q", "dtype": "Q4_0", "shape": [32], "bytes": 18}]
    assert report.facts["metadata"]["tokens"] == ["a", "ä", "\udcff\udcfe", ""]
    assert report.facts["parameters"] == 38


def test_a_large_vocabulary_is_not_made_before_it_is_asked_for():
    tokens = [f"token{number}" for number in range(262_144)]
    data = gguf(keys=[("tokenizer.ggml.tokens", ARRAY, (STRING, tokens))])
    start = time.process_time()
    checkpoint = format_.read(Artifact.open(data))
    seconds = time.process_time() - start
    assert seconds < 0.25                     # 0.03 s where nothing else runs
    array = checkpoint.metadata["tokenizer.ggml.tokens"]
    assert array._items is None
    assert array[:2] == ["token0", "token1"]
    assert array._items is None
    assert array[262_143] == "token262143"


def test_slices_of_the_file_are_not_copied():
    data = small()
    tensor = format_.read(Artifact.open(data))["w"]
    assert isinstance(tensor, SliceTensor)
    assert tensor.data.obj is data


def test_garbage_is_not_recognised():
    with pytest.raises(NotRecognised):
        _table.identify(Artifact.open(b"GGUFxxxxxxx"))


def test_wrong_blocks_are_damaged():
    with pytest.raises(Damaged):
        QuantizedTensor("t", BLOCKS["Q4_0"], (33,), bytes(18))
    assert QuantizedTensor("t", BLOCKS["Q4_0"], (2, 32), BLOCKS_OF_4 * 2).element_type == NUMBER["FLOAT"]


def test_a_published_model_is_written_back_byte_for_byte(tmp_path):
    source = zoo("smollm2")
    checkpoint = format_.read(Artifact.open(source))
    assert len(checkpoint) == 272
    format_.write(checkpoint, tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == source.read_bytes()
