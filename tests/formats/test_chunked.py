"""SavedModels in chunks, made here after the descriptions of both formats: no TensorFlow that is published writes one. The sums of Riegeli's headers are those
that its description states."""
from __future__ import annotations

import shutil
import struct
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isomorph
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, IsomorphError, Unsafe, Unsupported
from isomorph.formats import _chunked
from isomorph.formats._tf_tensors import schema
from isomorph.runtime.session import Session
from isomorph.wire import protobuf, riegeli
from isomorph.wire.riegeli import BLOCK, BLOCK_HEADER, highway_hash
from isomorph.wire.sstable import number

KINDS = protobuf.schema("chunked")
DIGITS = str(resources.files("isomorph") / "data" / "digits.onnx")


class Writer:
    """Riegeli's chunks, without and with Brotli; `positions` are those of the records."""

    def __init__(self, packed: bool = False):
        self.out, self.packed, self.positions = bytearray(), packed, list[int]()
        self.chunk(b"", ord("s"), 0, 0)

    def chunk(self, data: bytes, kind: int, records: int, size: int) -> None:
        begin = len(self.out)
        header = struct.pack("<QQQQ", len(data), highway_hash(data), kind | records << 8, size)
        content = struct.pack("<Q", highway_hash(header)) + header + data
        end = max(riegeli._with_headers(begin, len(content)), riegeli._boundary(begin + records))
        content += bytes(end - begin)
        while len(self.out) < end:
            if len(self.out) % BLOCK == 0:
                fields = struct.pack("<QQ", len(self.out) - begin, end - len(self.out))
                self.out += struct.pack("<Q", highway_hash(fields)) + fields
            part = min(BLOCK - len(self.out) % BLOCK, end - len(self.out))
            self.out += content[:part]
            content = content[part:]

    def records(self, *records: bytes) -> None:
        self.positions += [len(self.out) + place for place in range(len(records))]
        sizes, values = b"".join(number(len(record)) for record in records), b"".join(records)
        if self.packed:
            import brotli
            sizes, values = (number(len(part)) + brotli.compress(part) for part in (sizes, values))
        self.chunk(bytes([ord("b") if self.packed else 0]) + number(len(sizes)) + sizes + values, ord("r"), len(records), sum(map(len, records)))


def tags(*path: Any) -> list[Any]:
    """Numbers of fields, [places] and keys as FieldIndex."""
    return [KINDS["FieldIndex"](field=step) if isinstance(step, int) else KINDS["FieldIndex"](index=step[0]) if isinstance(step, list)
            else KINDS["FieldIndex"](map_key=KINDS["MapKey"](s=step)) for step in path]


def split(model: Any) -> list[tuple[list[Any], bytes, int]]:
    """Parts of a SavedModel: (where, content, type): every node of the graph, a function, and in it the bytes of a constant; the rest comes first."""
    graph = model.meta_graphs[0].graph_def
    function = graph.library.function[0]
    place, tensor = next((place, node.attr["value"].tensor) for place, node in enumerate(function.node_def)
                         if node.op == "Const" and "tensor_content" in node.attr["value"].tensor)
    content = bytes(tensor.__dict__.pop("tensor_content"))
    inside = [(tags(2, [0], 2, 2, 1, [0], 3, [place], 5, "value", 8, 4), content, 2)]
    functions, graph.library.function = [(tags(2, [0], 2, 2, 1, [0]), protobuf.dumps(function), 1)], graph.library.function[1:]
    half = len(graph.node) // 2
    lists = [(tags(2, [0], 2, 1, [half + number]), protobuf.dumps(node), 1) for number, node in enumerate(graph.node[half:])]
    graph.node = graph.node[:half]
    assert not graph.library.function
    return [([], protobuf.dumps(model), 1), *inside, *functions, *reversed(lists)]


def chunked(parts: list[tuple[list[Any], bytes, int]], packed: bool = False, **changes: Any) -> bytes:
    writer = Writer(packed)
    (_, first, _), *rest = parts
    writer.records(first)
    for start in range(0, len(rest), 3):
        writer.records(*(content for _, content, _ in rest[start:start + 3]))
    infos = [KINDS["ChunkInfo"](type=kind, size=len(content), offset=offset) for (_, content, kind), offset in zip(parts, writer.positions, strict=True)]
    fields = [KINDS["ChunkedField"](field_tag=where, message=KINDS["ChunkedMessage"](chunk_index=place)) for place, (where, _, _) in enumerate(parts) if place]
    whole = {"chunks": infos, "message": KINDS["ChunkedMessage"](chunk_index=0, chunked_fields=fields), "version": KINDS["ChunkVersion"](splitter_version=1)}
    writer.records(protobuf.dumps(KINDS["ChunkMetadata"](**(whole | changes))))
    return bytes(writer.out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chunks") / "model"
    isomorph.convert(DIGITS, path, to="saved_model", verify=False)
    return path


def message(folder: Path) -> Any:
    return protobuf.read((folder / "saved_model.pb").read_bytes(), schema()["SavedModel"])


def test_the_sums_are_those_of_the_description() -> None:
    """Of the fixed first 64 bytes of a file: a block header, no data, and a chunk header."""
    fixed = Writer().out
    assert fixed[:32] == riegeli.SIGNATURE
    assert fixed[32:].hex() == "0000000000000000e19f13c0e9b1c3727300000000000000" + "00" * 8


@pytest.mark.parametrize("packed", [False, True])
def test_chunks_make_the_message(folder: Path, packed: bool, tmp_path: Path) -> None:
    if packed:
        pytest.importorskip("brotli", reason="brotli is not installed: pip install 'isomorph[brotli]'")
    (tmp_path / "saved_model.cpb").write_bytes(chunked(split(message(folder)), packed))
    found = _chunked.read(Artifact.open(tmp_path / "saved_model.cpb"), schema()["SavedModel"])
    assert protobuf.dumps(found) == protobuf.dumps(message(folder))


def test_a_model_in_chunks_is_converted(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "saved_model.pb").unlink()
    (tmp_path / "model" / "saved_model.cpb").write_bytes(chunked(split(message(folder))))
    match = isomorph.identify(tmp_path / "model")
    assert (match.format, match.flavour) == ("saved_model", "chunked")
    report = isomorph.convert(tmp_path / "model", tmp_path / "out.onnx")
    assert report.facts["verified"]
    feeds = {"image": np.random.default_rng(0).uniform(size=(2, 1, 8, 8)).astype(np.float32)}
    with Session(DIGITS, "onnx") as one, Session(tmp_path / "out.onnx", "onnx") as other:
        assert np.abs(one.run(feeds)["probabilities"] - other.run(feeds)["probabilities"]).max() < 1e-5


def test_records_lie_across_blocks() -> None:
    """Also where a header of a block interrupts the header of a chunk."""
    for first in (BLOCK - 200, BLOCK - 130, BLOCK - 64 - 100, 3 * BLOCK):
        writer = Writer()
        contents = [bytes(range(256)) * (first // 256) + bytes(first % 256), b"", b"last" * 50_000]
        for content in contents:
            writer.records(content, content[:9])
        found = riegeli.Records(memoryview(bytes(writer.out)))
        assert [bytes(found[place]) for place in writer.positions] == [part for content in contents for part in (content, content[:9])]
        assert found.last == writer.positions[-1]
        assert len(writer.out) > BLOCK + BLOCK_HEADER


def lies(folder: Path) -> dict[str, tuple[bytes, type[IsomorphError]]]:
    parts = split(message(folder))
    good = chunked(parts)
    inside = KINDS["ChunkedMessage"](chunk_index=0)
    for _ in range(60):
        inside = KINDS["ChunkedMessage"](chunked_fields=[KINDS["ChunkedField"](message=inside)])
    over = KINDS["ChunkedMessage"](chunk_index=0, chunked_fields=[KINDS["ChunkedField"](message=KINDS["ChunkedMessage"](chunk_index=0))] * 10_000)
    broken = bytearray(good)
    broken[-200] ^= 1
    return {
        "cut off": (good[:-50], Damaged), "a flipped bit": (bytes(broken), Damaged), "only the beginning": (good[:64], Damaged),
        "no message": (chunked(parts, message=None), Damaged), "a later version": (chunked(parts, version=KINDS["ChunkVersion"](join_version=9)), Unsupported),
        "no such chunk": (chunked(parts, message=KINDS["ChunkedMessage"](chunk_index=999)), Damaged),
        "no such field": (chunked([parts[0], (tags(99), b"", 1)]), Damaged), "far away": (chunked([parts[0], (tags(2, [1 << 40]), b"", 1)]), Damaged),
        "a map without a key": (chunked([parts[0], (tags(2, [0], 5), b"", 1)]), Damaged), "a number": (chunked([parts[0], (tags(1), b"5", 2)]), Unsupported),
        "nested": (chunked(parts, message=inside), Unsafe), "over and over": (chunked(parts, message=over), Unsafe),
        "in a scalar": (chunked([parts[0], (tags(2, [0], 1, 5, 1), b"", 1)]), Damaged),
        "no record there": (chunked(parts, chunks=[KINDS["ChunkInfo"](size=1, offset=5)]), Damaged),
    }


def test_lies_are_errors_of_ours(folder: Path, tmp_path: Path) -> None:
    for data, error in lies(folder).values():
        path = tmp_path / "saved_model.cpb"
        path.write_bytes(data)
        with pytest.raises(error):
            _chunked.read(Artifact.open(path), schema()["SavedModel"])
