"""safetensors: what the reference reads and refuses, and the bytes it writes."""
from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Missing, Unsafe, Unsupported, Usage
from isomorph.formats import safetensors
from isomorph.model import Checkpoint
from isomorph.tensors import BITS, NAME, NUMBER, ComputedTensor, SliceTensor, array_tensor
from isomorph.wire.limits import Limits

# Written by safetensors 0.8.0: safetensors.numpy.save({"b": float32 [2], "a": float32 [1], "h": int8 [3], "w": float64 []}, {"format": "np"})
REFERENCE = (
    b'\xf8\x00\x00\x00\x00\x00\x00\x00{"__metadata__":{"format":"np"},"w":{"dtype":"F64","shape":[],"data_offsets":[0,8]},'
    b'"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},'
    b'"h":{"dtype":"I8","shape":[3],"data_offsets":[20,23]}} ' + np.float64(4).tobytes() + np.float32([1, 2, 3]).tobytes() + b"\1\2\3"
)


def file(header: str | bytes | dict, data: bytes = b"") -> Artifact:
    text = json.dumps(header) if isinstance(header, dict) else header
    text = text.encode() if isinstance(text, str) else text
    return Artifact.open(len(text).to_bytes(8, "little") + text + data)


def entry(dtype: str = "F32", shape: list | None = None, offsets: list | None = None) -> dict:
    return {"dtype": dtype, "shape": [1] if shape is None else shape, "data_offsets": [0, 4] if offsets is None else offsets}


def test_the_bytes_are_those_of_the_reference(tmp_path):
    arrays = {"b": np.float32([2, 3]), "a": np.float32([1]), "h": np.int8([1, 2, 3]), "w": np.float64(4)}
    safetensors.write(Checkpoint({name: array_tensor(array) for name, array in arrays.items()}, {"format": "np"}), tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == REFERENCE
    again = safetensors.read(Artifact.open(tmp_path / "x.safetensors"))
    assert again.metadata == {"format": "np"}
    assert list(again) == ["w", "a", "b", "h"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name].numpy(), array)


elements = st.sampled_from(sorted(safetensors.DTYPE_OF))
tensors = st.tuples(elements, st.lists(st.integers(0, 4), max_size=4).map(lambda dims: [*dims, 4]), st.randoms(use_true_random=False))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"), tensors, max_size=5),
       st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_is_written_reads_back(tmp_path_factory, rows, metadata):
    path = tmp_path_factory.mktemp("safetensors") / "x.safetensors"
    checkpoint = Checkpoint(metadata=metadata)
    for name, (element, dims, random) in rows.items():
        size = int(np.prod(dims)) * BITS[NUMBER[element]] // 8
        checkpoint.tensors[name] = SliceTensor(name, NUMBER[element], dims, random.randbytes(size))
    safetensors.write(checkpoint, path)
    again = safetensors.read(Artifact.open(path))
    assert again.metadata == metadata
    assert set(again) == set(rows)
    for name in rows:
        assert (again[name].dims, NAME[again[name].element_type], again[name].tobytes()) == (tuple(rows[name][1]), rows[name][0], checkpoint[name].tobytes())


@pytest.mark.parametrize(("artifact", "what"), [
    (Artifact.open(b"\1\0\0"), "a header of"),
    (Artifact.open((9).to_bytes(8, "little") + b"{}"), "a header of 9 bytes"),
    (file(" {}"), "does not begin"),
    (file("{]"), "not valid JSON"),
    (file(b'{"\xff":1}'), "not valid JSON"),
    (file('{"a":NaN}'), "not valid JSON"),
    (file('{"\\ud800":1}'), "not valid JSON"),
    (file('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"), "not valid JSON"),
    (file('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)), "stands twice"),
    (file({"__metadata__": {"a": 1}}), "from text to text"),
    (file({"a": entry()}, bytes(5)), "covers 4 bytes"),                                           # bytes that nothing describes
    (file({"a": entry()}, bytes(3)), "ends at byte"),
    (file({"a": entry(offsets=[4, 8])}, bytes(8)), "byte 0 comes next"),                          # a hole
    (file({"a": entry(), "b": entry(offsets=[2, 6])}, bytes(6)), "byte 4 comes next"),            # an overlap
    (file({"a": entry(offsets=[4, 0])}, bytes(4)), "byte 0 comes next"),
    (file({"a": entry(shape=[2])}, bytes(4)), "has 4 bytes"),
    (file({"a": entry(shape=[2**62, 2**62, 2**62])}, bytes(4)), "has 4 bytes"),
    (file({"a": entry(shape=[-1])}, bytes(4)), "no shape"),
    (file({"a": entry(shape=[True])}, bytes(4)), "no shape"),
    (file({"a": entry(dtype="F31")}, bytes(4)), "unknown dtype"),
    (file({"a": entry(dtype="F4", shape=[3], offsets=[0, 2])}, bytes(2)), "inside a byte"),
    (file({"a": entry(offsets=[0, 4, 8])}, bytes(4)), "pair of data_offsets"),
    (file({"a": 5}), "pair of data_offsets"),
])
def test_what_the_reference_refuses_is_damaged(artifact, what):
    with pytest.raises(Damaged, match=what):
        safetensors.read(artifact)


def test_limits_bound_the_header():
    few = Limits(tensors=2, json_bytes=1000)
    many = {str(place): entry(shape=[0], offsets=[0, 0]) for place in range(3)}
    text = json.dumps(many).encode()
    with pytest.raises(Unsafe, match="more than 2 tensors"):
        safetensors.read(Artifact.open(len(text).to_bytes(8, "little") + text, few))
    text = json.dumps({name: 0 for name in "abc"}).encode()
    with pytest.raises(Unsafe, match="3 tensors, at most 2"):
        safetensors.read(Artifact.open(len(text).to_bytes(8, "little") + text, few))
    text = b'{"a":[' + b"0," * 400 + b"0]}"
    with pytest.raises(Unsafe, match="more than 2 tensors"):
        safetensors.read(Artifact.open(len(text).to_bytes(8, "little") + text, few))
    with pytest.raises(Unsafe, match="at most 1000"):
        safetensors.read(Artifact.open((2000).to_bytes(8, "little") + b"{" + b" " * 1999, few))


def test_shards_and_their_index(tmp_path):
    arrays = {name: np.full(100, place, np.float32) for place, name in enumerate("abcde")}
    report = safetensors.write(Checkpoint({name: array_tensor(array) for name, array in arrays.items()}), tmp_path / "m.safetensors", shard_bytes=900)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m-00001-of-00003.safetensors", "m-00002-of-00003.safetensors", "m-00003-of-00003.safetensors", "m.safetensors.index.json"]
    for source in (report.subject, tmp_path):
        again = safetensors.read(Artifact.open(source))
        assert {name: again[name].numpy()[0] for name in again} == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    index = tmp_path / "m.safetensors.index.json"
    places = json.loads(index.read_text())
    for name, error in (("../x.safetensors", Unsafe), ("gone.safetensors", Missing), ("m-00003-of-00003.safetensors", Damaged)):
        index.write_text(json.dumps(places | {"weight_map": places["weight_map"] | {"a": name}}))
        with pytest.raises(error):
            safetensors.read(Artifact.open(index))
    index.write_text(json.dumps({"weight_map": {name: place for name, place in places["weight_map"].items() if name != "b"}}))
    partial = safetensors.read(Artifact.open(index))
    assert set(partial) == set("acde")
    assert [finding.code for finding in partial.findings] == ["safetensors.unlisted"]


def test_all_types_without_an_equivalent_are_named(tmp_path):
    checkpoint = Checkpoint({"text": array_tensor(np.array(["a"])), "four": array_tensor(np.ones(2, ml_dtypes.int4)), "odd": array_tensor(
        np.ones(3, ml_dtypes.float4_e2m1fn)), "fine": array_tensor(np.ones(2))})
    with pytest.raises(Unsupported) as caught:
        safetensors.write(checkpoint, tmp_path / "x.safetensors")
    assert [name for name, _, _ in caught.value.blockers] == ["text", "four", "odd"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Usage):
        safetensors.write(object(), tmp_path / "x.safetensors")


def test_one_tensor_at_a_time_is_asked_for(tmp_path):
    alive = []

    def make(place: int) -> np.ndarray:
        alive.append(place)
        return np.full(1000, place, np.float32)

    lazy = {f"t{place}": ComputedTensor(f"t{place}", NUMBER["FLOAT"], [1000], lambda place=place: make(place), ()) for place in range(4)}
    safetensors.write(Checkpoint(lazy), tmp_path / "x.safetensors")
    assert alive == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [["F32"], {"F32": 1}, None, 5])
def test_a_dtype_that_is_no_text_is_not_recognised(dtype):
    artifact = file({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
    assert safetensors.identify(artifact) is None
    with pytest.raises(Damaged, match="unknown dtype"):
        safetensors.read(artifact)
