"""npz and npy: what NumPy writes is read without NumPy's loader, and NumPy reads what is written."""
from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Unsafe, Unsupported, Usage
from isomorph.formats import npz
from isomorph.model import Checkpoint
from isomorph.tensors import SliceTensor, array_tensor

ARRAYS = {
    "layer/weight": np.arange(12, dtype=np.float32).reshape(3, 4), "columns": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "big": np.arange(5, dtype=">i4"), "scalar": np.array(3, np.int8), "empty": np.zeros((0, 3), np.uint16), "flags": np.array([True, False]),
    "complex": np.ones(3, np.complex128), "half": np.ones(2, np.float16),
}


def saved(save=np.savez, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_survive_both_ways(save, tmp_path):
    checkpoint = npz.read(Artifact.open(saved(save, **ARRAYS)))
    assert list(checkpoint) == list(ARRAYS)
    npz.write(checkpoint, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as again:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(checkpoint[name].numpy(), array)
            np.testing.assert_array_equal(again[name], array)
            assert again[name].dtype == array.dtype.newbyteorder("=")


def test_stored_arrays_stay_slices_and_equal_arrays_make_equal_files(tmp_path):
    checkpoint = npz.read(Artifact.open(saved(a=ARRAYS["half"], b=ARRAYS["scalar"])))
    assert all(isinstance(tensor, SliceTensor) for tensor in checkpoint.values())
    for name in ("x.npz", "y.npz"):
        npz.write(checkpoint, tmp_path / name)
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


def test_text(tmp_path):
    checkpoint = npz.read(Artifact.open(saved(words=np.array([["é", "abc"], ["", "x"]]), raw=np.array([b"ab", b"c"]))))
    npz.write(checkpoint, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as again:
        assert again["words"].tolist() == [["é", "abc"], ["", "x"]]
        assert again["raw"].tolist() == ["ab", "c"]


@settings(max_examples=60, deadline=None)
@given(arrays_of.arrays(st.sampled_from(["<f4", ">f8", "<i2", ">u4", "|u1", "<c8", "|b1", "<f2"]), arrays_of.array_shapes(min_dims=0, min_side=0)),
       st.booleans())
def test_any_array_in_one_npy(tmp_path_factory, array, fortran):
    folder = tmp_path_factory.mktemp("npy")
    np.save(folder / "name.npy", np.asfortranarray(array) if fortran else array)
    checkpoint = npz.read(Artifact.open(folder / "name.npy"))
    np.testing.assert_array_equal(checkpoint["name"].numpy(), array)
    npz.write(checkpoint, folder / "again.npy")
    np.testing.assert_array_equal(np.load(folder / "again.npy"), array)


def npy(header: str, data: bytes = b"", version: int = 1) -> Artifact:
    text = header.encode("latin1")
    return Artifact.open(b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data)


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(("artifact", "error", "what"), [
    (npy(GOOD, bytes(7)), Damaged, "7 bytes of data"),
    (npy(GOOD.replace("(2,)", "(-2,)"), bytes(8)), Damaged, "not a dict"),
    (npy(GOOD.replace("(2,)", "__import__('os').system('id')"), bytes(8)), Damaged, "not a dict"),
    (npy(GOOD.replace("'shape'", "'descr'"), bytes(8)), Damaged, "twice"),
    (npy(GOOD.replace("False", "1"), bytes(8)), Damaged, "not a dict"),
    (npy(GOOD.replace("(2,)", "(99999999999,99999999999)"), bytes(8)), Damaged, "8 bytes of data"),
    (npy(GOOD[:20], bytes(8)), Damaged, "not a dict"),
    (npy(GOOD, bytes(8), version=4), Damaged, "version 4"),
    (npy(GOOD + " " * 20_000, bytes(8)), Unsafe, "at most 10000"),
    (npy(GOOD.replace("<f4", "|O"), bytes(8)), Unsafe, "pickled"),
    (npy(GOOD.replace("'<f4'", "[('a', '|O')]"), bytes(8)), Unsafe, "pickled"),
    (npy(GOOD.replace("<f4", "<M8[s]"), bytes(16)), Unsupported, "M8"),
    (npy(GOOD.replace("'<f4'", "[('a', '<f4')]"), bytes(8)), Unsupported, "a"),
    (npy(GOOD.replace("<f4", "<U0").replace("(2,)", "(99999999999,)")), Unsafe, "no length"),
    (npy(GOOD.replace("<f4", "<U1"), b"\xff" * 8), Damaged, "text"),
])
def test_malformed_arrays(artifact, error, what):
    with pytest.raises(error, match=what):
        npz.read(artifact)


def test_the_older_header_versions_are_read():
    for version in (1, 2, 3):
        assert npz.read(npy(GOOD, np.float32([1, 2]).tobytes(), version))["<bytes>"].numpy().tolist() == [1, 2]


def test_pickled_members_are_refused_and_types_are_all_named(tmp_path):
    with pytest.raises(Unsafe, match="pickled"):
        npz.read(Artifact.open(saved(fine=np.ones(2), objects=np.array([{}], object))))
    with pytest.raises(Unsupported) as caught:
        npz.read(Artifact.open(saved(fine=np.ones(2), time=np.zeros(2, "M8[s]"), span=np.zeros(2, "m8[s]"))))
    assert [name for name, _, _ in caught.value.blockers] == ["time", "span"]
    with pytest.raises(Unsupported) as caught:
        npz.write(Checkpoint({"brain": array_tensor(np.ones(2, ml_dtypes.bfloat16))}), tmp_path / "x.npz")
    assert [name for name, _, _ in caught.value.blockers] == ["brain"]
    with pytest.raises(Usage):
        npz.write(Checkpoint({name: array_tensor(np.ones(2)) for name in "ab"}), tmp_path / "x.npy")
