"""The readers of heads: JSON, XML, protobuf in bytes and in text, flatbuffers, HDF5, compressed files. Each against the library that knows the whole format."""
from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import time
import zlib

import h5py
import pytest
from golden.make_identify import U32, Flat, message

from isomorph.errors import Damaged
from isomorph.wire import compressed, flatbuffers_head, hdf5, json_head, protobuf_head, prototext_head, xml_head


@pytest.mark.parametrize("value", [
    {}, [], {"a": 1, "b": [True, False, None, -2.5e3, "x\n\"\\é\u2028"], "c": {"d": {"e": [[1], [2, [3]]]}}}, [{"k": ""}, {"": 0}]])
def test_json_as_the_standard_library_reads_it(value):
    for text in (json.dumps(value), json.dumps(value, indent=3, ensure_ascii=False)):
        assert json_head.read(text.encode()) == (value, True)
        assert json_head.read(b"\xef\xbb\xbf \n" + text.encode()) == (value, True)


def test_json_keeps_the_head_of_what_is_long_or_deep():
    head = json_head.read(json.dumps({"a": list(range(1000)), "b": 7}).encode())
    assert (len(head.value["a"]), head.value["b"], head.complete) == (64, 7, True)
    deep = json_head.read(b'{"a":' * 500 + b"1" + b"}" * 500)
    assert deep.complete
    assert str(deep.value).count("{") == json_head.DEEPEST
    cut = json_head.read(b'{"a": {"b": [1, 2')
    assert cut == ({"a": {"b": [1, 2]}}, False)


@pytest.mark.parametrize("text", [b"", b"x", b"}", b"{", b'{"a', b"[1 2", b'{"a": tru', b'{1: 2}', b"{]", b"[" * 10_000, b'{"a\\', b"{" + b'"a":' * 9])
def test_json_that_is_none_does_not_raise(text):
    value, complete = json_head.read(text)
    assert value is None or isinstance(value, (dict, list))
    assert not complete or text in (b"{1: 2}", b"{]")


def test_xml_root_and_elements():
    text = b"""<?xml version="1.0"?><!-- <PMML> --><!DOCTYPE p [<!ELEMENT a (b)>]>
    <dm:PMML version='4.4' xmlns:dm="http://x"><!-- <TreeModel/> --><![CDATA[<Scorecard>]]><dm:MiningModel><TreeModel x="1"/></dm:MiningModel></dm:PMML>"""
    root = xml_head.read(text)
    assert root == ("PMML", {"version": "4.4", "xmlns:dm": "http://x"}, True)
    assert xml_head.elements(memoryview(text), ["TreeModel", "Scorecard", "MiningModel"]) == ["MiningModel", "TreeModel"]
    assert xml_head.read(b"\xff\xfe" + "<net version='11'/>".encode("utf-16-le")) == ("net", {"version": "11"}, False)
    assert xml_head.read(b"<!-- never closed <a>") is None


@pytest.mark.parametrize("text", [b"<!---->" * 9000 + b"<", b"<?a?>" * 9000 + b"<", b"<!DOCTYPE " + b"[" * 60_000, b" " * 65_000 + b"<"])
def test_xml_heads_that_invite_backtracking(text):
    start = time.process_time()
    assert xml_head.read(text) is None
    xml_head.elements(memoryview(text * 8), ["a"])
    assert time.process_time() - start < 0.3


def test_protobuf_fields_and_where_a_message_is_cut():
    data = memoryview(message((1, 300), (2, "hello"), (2, b"\xff\xfe"), (16, 0)) + b"\x1d\0\0\0\0\x21" + bytes(8))
    outline = protobuf_head.outline(data)
    assert outline.complete
    assert outline.valid
    assert [(item.number, item.wire) for item in outline.fields] == [(1, 0), (2, 2), (2, 2), (16, 0), (3, 5), (4, 1)]
    assert outline.fields[0].value == 300
    assert [protobuf_head.text(data, item) for item in outline.all(2)] == ["hello", ""]
    cut = protobuf_head.outline(data[:6])
    assert (cut.cut, cut.rest, cut.complete, cut.valid) == (2, 5, False, True)
    assert cut.first_or_cut(2, 6) == (2, 2, 0, 5, 6)


@pytest.mark.parametrize("data", [b"\x0b", b"\x0e", b"\x07", b"\x00\x01", b"\xff" * 20, b"\x08" + b"\xff" * 11])
def test_what_is_no_message(data):
    outline = protobuf_head.outline(memoryview(data))
    assert not outline.valid or outline.cut
    assert not outline.complete


def test_text_messages():
    head = prototext_head.read(b'# c\nname: "n{}"\nlayer { type: "Conv" p: -1.5e3 q: [1, 2] r { s: ENUM } }\nlayer: < type: \'x\' >; last: true')
    assert head.sound
    assert head.fields == {"name": "n{}", "layer": "", "layer.type": "Conv", "layer.p": "-1.5e3", "layer.q": "", "layer.r": "", "layer.r.s": "ENUM",
                           "last": "true"}
    assert not prototext_head.read(b"just words, and more").sound
    assert not prototext_head.read(b"a { b: 1 } }").sound


def test_flatbuffer_offsets_outside_answer_nothing():
    data = bytearray(Flat(b"TEST").finish(U32(7), "text", [(U32(1),), (U32(2),)], [U32(5), U32(6)]))
    view = memoryview(data)
    root = flatbuffers_head.root(view)
    assert flatbuffers_head.identifier(bytes(data[:8])) == "TEST"
    assert flatbuffers_head.scalar(view, root, 0, 4) == 7
    assert flatbuffers_head.string(view, root, 1) == "text"
    assert [flatbuffers_head.scalar(view, table, 0, 4) for table in flatbuffers_head.tables(view, root, 2, 9)] == [1, 2]
    assert flatbuffers_head.vector(view, root, 3, 4)[1] == 2
    assert flatbuffers_head.vector(view, root, 3, 4000) == (0, 0)
    assert flatbuffers_head.scalar(view, root, 9, 4, default=3) == 3
    chance = random.Random(3)
    for _ in range(3000):
        damaged = bytearray(data)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        view = memoryview(damaged)
        root = flatbuffers_head.root(view)
        for slot in range(4):
            assert len(flatbuffers_head.string(view, root, slot)) <= len(data)
            assert len(flatbuffers_head.tables(view, root, slot, 5)) <= 5


@pytest.mark.parametrize("layout", ["earliest", "latest"])
def test_hdf5_as_h5py_wrote_it(layout):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=layout) as file:
        file.attrs["variable"] = "text of é variable length"
        file.attrs["fixed"] = b"fixed"
        file.attrs["number"] = 7
        file.attrs["long"] = "x" * 6000
        for name in ("one", "two", "three") if layout == "latest" else [f"group{index}" for index in range(100)]:
            file.create_group(name).attrs["inner"] = name
    data = memoryview(buffer.getvalue())
    outline = hdf5.outline(data, "test")
    with h5py.File(buffer, "r") as file:
        assert set(outline.links) == set(file)
        assert set(outline.attributes) == set(file.attrs)
    assert outline.attributes["variable"] == "text of é variable length"
    assert outline.attributes["fixed"] == "fixed"
    assert outline.attributes["number"] is None
    assert outline.attributes["long"] == "x" * 4096
    for name, address in outline.links.items():
        assert hdf5.group(data, address).attributes == {"inner": name}


def test_hdf5_behind_a_user_block():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        file.attrs["a"] = "b"
    assert hdf5.outline(memoryview(buffer.getvalue())).attributes == {"a": "b"}


def test_damaged_hdf5_raises_only_damage():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["a"] = "b" * 100
        for index in range(20):
            file.create_group(str(index))
    seed, chance, raised = buffer.getvalue(), random.Random(4), 0
    for _ in range(4000):
        data = bytearray(seed)
        at = chance.randrange(min(len(data), 1500))
        data[at:at + 8] = chance.choice([bytes(8), b"\xff" * 8, (2**63).to_bytes(8, "little"), chance.randbytes(8)])
        try:
            hdf5.outline(memoryview(data))
        except Damaged:
            raised += 1
    assert raised > 100


@pytest.mark.parametrize(("kind", "pack"), [("gzip", gzip.compress), ("zlib", zlib.compress), ("bzip2", bz2.compress), ("xz", lzma.compress),
                                            ("lzma", lambda data: lzma.compress(data, lzma.FORMAT_ALONE))])
def test_compressed_heads(kind, pack):
    data = random.Random(5).randbytes(3000) * 20
    head = compressed.read(memoryview(pack(data)), 10_000)
    assert head == (kind, data[:10_000])
    assert compressed.read(memoryview(pack(data)[:500]), 10_000).kind == kind
    assert compressed.read(memoryview(b"plain"), 100) is None


def test_lz4_matches_that_overlap_themselves():
    """Token 0x1F: one literal, then a match of 19 + 250 bytes at distance 1; then five literals, as the format demands at the end."""
    block = b"\x1fa\1\0\xfa" + b"\x50hello"
    frame = b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<L", len(block)) + block + bytes(4)
    assert compressed.read(memoryview(frame), 1000) == ("lz4", b"a" * (1 + 15 + 250 + 4) + b"hello")
    stored = b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<L", 1 << 31 | 5) + b"hello" + bytes(4)
    assert compressed.read(memoryview(stored), 1000) == ("lz4", b"hello")
    for length in range(len(frame)):
        head = compressed.read(memoryview(frame[:length]), 1000)
        assert head is None or b"a" * 270 in head.data or len(head.data) <= 270


def test_a_bomb_unpacks_no_further_than_asked():
    bomb = gzip.compress(bytes(50 << 20), 9)
    start = time.process_time()
    assert len(compressed.read(memoryview(bomb), 1 << 16).data) == 1 << 16
    assert time.process_time() - start < 0.05
