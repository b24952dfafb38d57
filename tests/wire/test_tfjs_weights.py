"""The manifest of TensorFlow.js: weights that cross shards, strings, and every lie that a manifest can tell."""
from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from isomorph.errors import Damaged, IsomorphError, Missing, Unsafe
from isomorph.wire import tfjs_weights
from isomorph.wire.tfjs_weights import Stored, read

MANIFEST: list[dict[str, Any]] = [{"paths": ["a.bin", "b.bin"], "weights": [
    {"name": "w", "shape": [3], "dtype": "float32"},
    {"name": "words", "shape": [2], "dtype": "string"},
    {"name": "q", "shape": [2, 1], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0, "original_dtype": "float32"}},
    {"name": "nothing", "shape": [0, 4], "dtype": "int32"}]}]
DATA = bytes(range(12)) + b"\2\0\0\0ab" + b"\0\0\0\0" + b"\x07\x08"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(DATA[:7])
    (tmp_path / "b.bin").write_bytes(DATA[7:])
    return tmp_path


def test_weights_cross_shards(folder: Path) -> None:
    weights = read(MANIFEST, folder, "model.json")
    assert list(weights) == ["w", "words", "q", "nothing"]
    assert len(weights["w"].parts) == 2
    assert bytes(weights["w"].data()) == bytes(range(12))
    assert weights["words"].strings() == [b"ab", b""]
    quantised = weights["q"]
    assert (quantised.stored, quantised.scale, quantised.minimum, bytes(quantised.data())) == ("uint8", 0.5, -1.0, b"\x07\x08")
    assert bytes(weights["nothing"].data()) == b""


def test_groups_follow_each_other(folder: Path) -> None:
    (folder / "c.bin").write_bytes(b"\1")
    weights = read([*MANIFEST, {"paths": ["c.bin"], "weights": [{"name": "b", "shape": [], "dtype": "bool"}]}], folder, "model.json")
    assert bytes(weights["b"].data()) == b"\1"


def changed(**fields: Any) -> list[dict[str, Any]]:
    manifest = copy.deepcopy(MANIFEST)
    for path, value in fields.items():
        place: Any = manifest[0]
        *steps, last = path.split("__")
        for step in steps:
            place = place[int(step) if isinstance(place, list) else step]
        place[int(last) if isinstance(place, list) else last] = value
    return manifest


@pytest.mark.parametrize(("manifest", "error"), [
    (None, Damaged), ({}, Damaged), ([None], Damaged), ([{}], Damaged), ([{"paths": []}], Damaged),
    (changed(paths=["a.bin"]), Damaged), (changed(paths=["a.bin", "missing.bin"]), Missing), (changed(paths=["a.bin", 5]), Damaged),
    (changed(paths=["a.bin", "../b.bin"]), Unsafe), (changed(paths=["a.bin", "/etc/passwd"]), Unsafe), (changed(paths=["https://x/a.bin", "b.bin"]), Unsafe),
    (changed(weights__0__shape=[2]), Damaged), (changed(weights__0__shape=[1 << 60]), Damaged), (changed(weights__0__shape=[-1]), Damaged),
    (changed(weights__0__shape=[1.5]), Damaged), (changed(weights__0__shape=[1] * 100), Unsafe), (changed(weights__0__dtype="float31"), Damaged),
    (changed(weights__1__shape=[1 << 40]), Damaged), (changed(weights__1__name="w"), Damaged), (changed(weights__2__quantization={}), Damaged),
    (changed(weights__2__quantization={"dtype": "uint8", "scale": float("nan"), "min": 0}), Damaged),
    (changed(weights__2__quantization={"dtype": "uint32", "scale": 1, "min": 0}), Damaged), (changed(weights__2=7), Damaged),
])
def test_lies(folder: Path, manifest: Any, error: type[IsomorphError]) -> None:
    with pytest.raises(error):
        read(manifest, folder, "model.json")


def test_a_string_that_runs_over_the_end(folder: Path) -> None:
    (folder / "b.bin").write_bytes(DATA[7:12] + b"\xff\xff\xff\xff" + DATA[16:])
    with pytest.raises(Damaged):
        read(MANIFEST, folder, "model.json")


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfjs_weights, "SHARD_BYTES", 10)
    data = {"a": bytes(range(24)), "b": b"\5" * 7, "c": b""}
    stored = [Stored({"name": name, "shape": [len(part)], "dtype": "bool"}, len(part), lambda part=part: [part[:3], part[3:]]) for name, part in data.items()]
    manifest, names, size = tfjs_weights.manifest_of(stored)
    assert names == [f"group1-shard{number}of4.bin" for number in range(1, 5)]
    files = [(tmp_path / name).open("wb") for name in names]
    tfjs_weights.write(stored, files, size)
    for file in files:
        file.close()
    assert [(tmp_path / name).stat().st_size for name in names] == [10, 10, 10, 1]
    weights = read(json.loads(json.dumps(manifest)), tmp_path, "model.json")
    assert {name: bytes(weight.data()) for name, weight in weights.items()} == data


@pytest.mark.parametrize("given", [b"12", b"1234"])
def test_a_weight_that_gives_other_bytes_than_it_said(tmp_path: Path, given: bytes) -> None:
    with (tmp_path / "x").open("wb") as file, pytest.raises(Damaged):
        tfjs_weights.write([Stored({"name": "w"}, 3, lambda: [given])], [file], 10)
