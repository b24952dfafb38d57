"""PyTorch files without PyTorch: what we write is read back, shared memory is kept, every container gives the same tensors."""
from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Missing, Unsupported
from isomorph.formats import _table, _torch_zip, torch
from isomorph.model import Checkpoint
from isomorph.tensors import NAME, NUMBER, SliceTensor, array_tensor, numpy_type

TWO = (
    "ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI6\n"
    "{more}tQI{offset}\n({sizes}t({strides}tI00\nccollections\nOrderedDict\n)RtR"
)
VALUES = np.arange(6, dtype=np.float32)


def tensor(offset: int, sizes: tuple, strides: tuple, more: str = "") -> bytes:
    return TWO.format(more=more, offset=offset, sizes="".join(f"I{x}\n" for x in sizes), strides="".join(f"I{x}\n" for x in strides)).encode()


def state(more: str = "") -> bytes:
    """{"a": the storage as 2 x 3, "b": its transposed view, "epoch": 3}"""
    return b"(dVa\n" + tensor(0, (2, 3), (3, 1), more) + b"sVb\n" + tensor(0, (3, 2), (1, 3), more) + b"sVepoch\nI3\ns."


def zipped(data: np.ndarray = VALUES, order: bytes = b"little", method: int = zipfile.ZIP_STORED, more: dict | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in {"x/data.pkl": state(), "x/byteorder": order, "x/data/0": data.tobytes(), "x/version": b"3\n", **(more or {})}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def legacy() -> bytes:
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})]
    return b"".join([*head, b"\x80\x02" + state("N"), pickle.dumps(["0"], 2), struct.pack("<q", 6), VALUES.tobytes()])


def tarred() -> bytes:
    storages = pickle.dumps(1, 2) + b"(I7\nVcpu\nctorch\nFloatStorage\nt." + struct.pack("<q", 6) + VALUES.tobytes() + pickle.dumps([], 2)
    tensors = pickle.dumps(2, 2) + b"".join(b"(I%d\nI7\nctorch\nFloatTensor\nt." % key + struct.pack("<i4x", 2) + struct.pack("<5q", *numbers)
                                            for key, numbers in ((1, (2, 3, 3, 1, 0)), (2, (3, 2, 1, 3, 0))))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in {"storages": storages, "tensors": tensors, "pickle": b"(dVa\nI1\nQsVb\nI2\nQsVepoch\nI3\ns."}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


CONTAINERS = {"zip": zipped(), "deflated": zipped(method=zipfile.ZIP_DEFLATED), "big-endian": zipped(VALUES.astype(">f4"), b"big"), "legacy": legacy(),
              "tar": tarred()}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same(container):
    artifact = Artifact.open(CONTAINERS[container])
    assert _table.identify(artifact).format == "torch"
    checkpoint = torch.read(artifact)
    assert list(checkpoint) == ["a", "b"]
    np.testing.assert_array_equal(checkpoint["a"].numpy(), VALUES.reshape(2, 3))
    np.testing.assert_array_equal(checkpoint["b"].numpy(), VALUES.reshape(2, 3).T)
    assert checkpoint["b"].tobytes() == VALUES.reshape(2, 3).T.tobytes()
    assert checkpoint.metadata == {"epoch": 3}
    assert "weights.tied" in {finding.code for finding in checkpoint.findings}


@pytest.mark.parametrize("container", CONTAINERS)
def test_shared_memory_stays_shared(container, tmp_path):
    report = torch.write(torch.read(Artifact.open(CONTAINERS[container])), tmp_path / "x.pt")
    assert report.facts["storages"] == 1
    again = torch.read(Artifact.open(tmp_path / "x.pt"))
    np.testing.assert_array_equal(again["b"].numpy(), VALUES.reshape(2, 3).T)
    assert "weights.tied" in {finding.code for finding in again.findings}


@pytest.mark.parametrize("dtype", sorted(_torch_zip.STORAGE_OF | _torch_zip.UNTYPED))
@pytest.mark.parametrize("dims", [(), (0, 3), (1,), (2, 3, 4)])
def test_what_is_written_is_read(dtype, dims, tmp_path):
    number = NUMBER[dtype]
    data = np.random.default_rng(0).integers(0, 2, int(np.prod(dims)) * numpy_type(number).itemsize, np.uint8).tobytes()
    torch.write(Checkpoint({"name é": SliceTensor("name é", number, dims, data)}), tmp_path / "x.pt")
    (name, read), = torch.read(Artifact.open(tmp_path / "x.pt")).items()
    assert (name, NAME[read.element_type], read.dims, read.tobytes()) == ("name é", dtype, dims, data)


def test_every_storage_begins_at_a_multiple_of_64(tmp_path):
    torch.write(Checkpoint({f"n{i}": array_tensor(np.ones(i, np.float32)) for i in range(1, 5)}), tmp_path / "x.pt")
    archive = Artifact.open(tmp_path / "x.pt").archive
    starts = [archive._start(member) for name, member in archive.members.items() if "/data/" in name]
    assert len(starts) == 4
    assert {start % 64 for start in starts} == {0}


def test_types_that_pytorch_lacks_are_all_named(tmp_path):
    checkpoint = Checkpoint({name: SliceTensor(name, NUMBER[name], (2,), b"\0") for name in ("INT4", "UINT4")})
    with pytest.raises(Unsupported) as caught:
        torch.write(checkpoint, tmp_path / "x.pt")
    assert [blocker[0] for blocker in caught.value.blockers] == ["INT4", "UINT4"]
    assert not (tmp_path / "x.pt").exists()


def test_shards_and_their_index(tmp_path):
    for number in (1, 2):
        torch.write(Checkpoint({f"t{number}": array_tensor(np.full(3, number, np.float32))}), tmp_path / f"pytorch_model-{number}.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {f"t{number}": f"pytorch_model-{number}.bin" for number in (1, 2)}}))
    for source in (index, tmp_path):
        assert _table.identify(Artifact.open(source)).format == "torch"
        assert [float(tensor.numpy()[0]) for tensor in torch.read(Artifact.open(source)).values()] == [1, 2]
    (tmp_path / "pytorch_model-2.bin").unlink()
    with pytest.raises(Missing, match="pytorch_model-2"):
        torch.read(Artifact.open(index))


def test_a_storage_that_is_cut_off_is_damage():
    with pytest.raises(Damaged, match="20 bytes where the pickle says 24"):
        torch.read(Artifact.open(zipped(VALUES[:5])))
    with pytest.raises(Damaged, match="runs over the end"):
        torch.read(Artifact.open(legacy()[:-1]))


def test_the_tree_of_a_module_is_told():
    linear = b"ctorch.nn.modules.linear\nLinear\n)\x81(dVin_features\nI3\nsV_parameters\n(dVweight\n" + tensor(0, (2, 3), (3, 1)) + b"ssV_modules\n(dsb"
    module = b"\x80\x02cmy_package\nNet\n)\x81(dV_parameters\n(dsV_modules\n(dVfirst\n" + linear + b"ssb."
    checkpoint = torch.read(Artifact.open(zipped(more={"x/data.pkl": module.replace(b"V_modules\n(dsb", b"V_modules\n(dsb")})))
    assert list(checkpoint) == ["first.weight"]
    tree = {"(root)": "my_package.Net()", "first": "torch.nn.modules.linear.Linear(in_features=3)"}
    assert checkpoint.metadata == {"class": "my_package.Net", "modules": tree}
    assert "my_package.Net" in next(finding.message for finding in checkpoint.findings if finding.code == "torch.no-forward")
