"""The FlatBuffers codec: what it writes it reads back, and whatever is damaged it refuses with an offset."""
from __future__ import annotations

import contextlib
import io
import random
import struct
import time

import pytest

from isomorph.errors import Damaged, Unsafe
from isomorph.wire import flatbuffers
from isomorph.wire.limits import Limits

TEXT = """
identifier TST1
enum Colour byte: RED GREEN=4 BLUE
union Shape: NONE Circle Square
table Circle: radius:float
table Square: side:double name:string
table Root: count:int=7 colour:Colour=GREEN - flag:bool=1 shape:Shape text:string numbers:[long] children:[Circle] data:[ubyte]@16 big:ulong
"""
SCHEMA = flatbuffers.Schema(TEXT)


class Payload:
    """A large byte vector that is made while it is written."""

    def __init__(self, nbytes: int):
        self.nbytes = nbytes

    def chunks(self):
        for start in range(0, self.nbytes, 1000):
            yield bytes([start // 1000 % 251]) * min(1000, self.nbytes - start)


def written(record) -> bytes:
    file = io.BytesIO()
    assert flatbuffers.write(record, SCHEMA, file) == len(file.getvalue()) == flatbuffers.measure(record, SCHEMA)
    return file.getvalue()


def sample(**changes) -> bytes:
    circle = SCHEMA.record("Circle", radius=2.5)
    fields = dict(count=9, colour="BLUE", flag=False, shape=SCHEMA.record("Square", side=1.5, name="ü"), text="hello", numbers=[1, -2, 1 << 40],
                  children=[circle, SCHEMA.record("Circle", radius=2.5), SCHEMA.record("Circle")], data=b"\x01\x02\x03", big=1 << 63)
    return written(SCHEMA.record("Root", **(fields | changes)))


def test_round_trip_of_every_kind_of_field():
    root = flatbuffers.read(memoryview(sample()), SCHEMA, "Root")
    assert (root.count, root.colour, root.flag, root.text, root.big) == (9, "BLUE", False, "hello", 1 << 63)
    assert root.shape._kind.name == "Square"
    assert (root.shape.side, root.shape.name) == (1.5, "ü")
    assert root.numbers.tolist() == [1, -2, 1 << 40]
    assert bytes(root.data) == b"\x01\x02\x03"
    assert [child.radius for child in root.children] == [2.5, 2.5, 0.0]


def test_defaults_take_no_room_and_come_back():
    data = written(SCHEMA.record("Root", count=7, colour="GREEN", flag=True))
    root = flatbuffers.read(memoryview(data), SCHEMA, "Root")
    assert root._fields == {}
    assert (root.count, root.colour, root.flag, root.children, root.shape) == (7, "GREEN", True, (), None)
    assert len(data) == 16


def test_equal_parts_are_stored_once_and_payloads_stand_last_and_aligned():
    payload = Payload(5000)
    data = sample(data=payload, text="x" * 40)
    root = flatbuffers.read(memoryview(data), SCHEMA, "Root")
    assert bytes(root.data) == b"".join(payload.chunks())
    start = data.index(bytes(1000) + b"\x01" * 1000)
    assert start % 16 == 0
    assert len(data) - start - 5000 < 16
    assert root.children[0] is root.children[1]
    assert data.count(b"x" * 40) == 1


def test_unknown_enumeration_values_stay_numbers():
    assert flatbuffers.read(memoryview(sample(colour=77)), SCHEMA, "Root").colour == 77


def test_a_field_that_the_table_does_not_have_is_an_error_of_the_caller():
    with pytest.raises(TypeError, match="Circle has no field radios"):
        SCHEMA.record("Circle", radios=1)


def test_every_truncation_is_refused():
    data = sample()
    last = max(index for index, byte in enumerate(data) if byte)
    for size in range(last + 1):
        with pytest.raises(Damaged):
            flatbuffers.read(memoryview(data[:size]), SCHEMA, "Root")


def test_every_damaged_word_is_refused_or_read_in_bounds():
    """Each 32-bit word set to each hostile value: only `Damaged` and `Unsafe` leave the reader, and most of it is caught."""
    data, refused = sample(), 0
    values = (0, 1, 3, len(data) - 4, len(data), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1_000_000_000)
    for place in range(0, len(data) - 3, 2):
        for value in values:
            changed = bytearray(data)
            struct.pack_into("<I", changed, place, value)
            try:
                root = flatbuffers.read(memoryview(changed), SCHEMA, "Root")
                assert all(len(getattr(root, name)) <= len(data) for name in ("numbers", "data", "children"))
            except (Damaged, Unsafe):
                refused += 1
    assert refused > 200


def test_random_damage_is_quick_and_leaves_no_other_error():
    source, generator = sample(), random.Random(1)
    begin = time.process_time()
    for _ in range(5000):
        changed = bytearray(source)
        for _ in range(generator.randint(1, 6)):
            changed[generator.randrange(len(changed))] = generator.choice((0, 1, 127, 128, 255, generator.randrange(256)))
        with contextlib.suppress(Damaged, Unsafe):
            flatbuffers.read(memoryview(changed), SCHEMA, "Root")
    assert time.process_time() - begin < 10


def test_a_vector_length_of_a_billion_is_refused_before_anything_is_allocated():
    data = bytearray(sample())
    place = data.index(struct.pack("<I3q", 3, 1, -2, 1 << 40))
    struct.pack_into("<I", data, place, 1_000_000_000)
    with pytest.raises(Damaged, match="8000000000 bytes") as caught:
        flatbuffers.read(memoryview(data), SCHEMA, "Root", where="model")
    assert caught.value.offset == place + 4
    assert "model" in str(caught.value)


def test_text_without_its_nul_is_refused():
    data = bytearray(sample())
    data[data.index(b"hello") + 5] = 65
    with pytest.raises(Damaged, match="NUL"):
        flatbuffers.read(memoryview(data), SCHEMA, "Root")


def test_unknown_union_types_and_fields_are_noted_not_refused():
    newer = flatbuffers.Schema(TEXT.replace("Circle Square", "Circle Square Cube").replace("big:ulong", "big:ulong more:int") + "table Cube: edge:int")
    file, notes = io.BytesIO(), []
    flatbuffers.write(newer.record("Root", shape=newer.record("Cube", edge=3), more=5), newer, file)
    root = flatbuffers.read(memoryview(file.getvalue()), SCHEMA, "Root", notes=notes)
    assert root.shape is None
    assert any("unknown type 3" in sentence for sentence, _ in notes)
    assert any("does not know" in sentence for sentence, _ in notes)


def test_depth_and_number_of_tables_are_limited():
    nested = flatbuffers.Schema("table Node: next:Node\ntable Wide: nodes:[Node]")
    record = nested.record("Node")
    for _ in range(70):
        record = nested.record("Node", next=record)
    file = io.BytesIO()
    flatbuffers.write(record, nested, file)
    with pytest.raises(Unsafe, match="flatbuffer_depth"):
        flatbuffers.read(memoryview(file.getvalue()), nested, "Node")
    file = io.BytesIO()
    flatbuffers.write(nested.record("Wide", nodes=[nested.record("Node")] * 50), nested, file)
    assert len(flatbuffers.read(memoryview(file.getvalue()), nested, "Wide").nodes) == 50
    with pytest.raises(Unsafe, match="flatbuffer_tables"):
        flatbuffers.read(memoryview(file.getvalue()), nested, "Wide", Limits(flatbuffer_tables=40))


def test_overlapping_vectors_cannot_multiply_the_file():
    """A thousand tables that share one vector of numbers would cost a reader a thousand times the bytes."""
    schema = flatbuffers.Schema("table Item: number:int numbers:[int]\ntable Root: items:[Item]")
    numbers = list(range(1 << 16))
    file = io.BytesIO()
    flatbuffers.write(schema.record("Root", items=[schema.record("Item", number=number, numbers=numbers) for number in range(1, 100)]), schema, file)
    assert len(file.getvalue()) < 1 << 19
    with pytest.raises(Unsafe, match="overlap"):
        flatbuffers.read(memoryview(file.getvalue()), schema, "Root")


def test_the_tflite_schema_is_read_quickly_and_whole():
    begin = time.process_time()
    schema = flatbuffers.schema.__wrapped__("tflite")
    assert time.process_time() - begin < 0.1
    assert schema.identifier == b"TFL3"
    assert schema.enum("BuiltinOperator").numbers["STABLEHLO_CASE"] == 209
    conv = schema.kind("Conv2DOptions").fields
    assert (conv["dilation_w_factor"].default, conv["padding"].default, conv["quantized_bias_type"].default) == (1, "SAME", "FLOAT32")
    assert schema.kind("Operator").fields["builtin_options_2"].slot == 11
    for name, (kind, _, _) in schema.definitions.items():
        assert schema.kind(name).fields is not None if kind == "table" else schema.enum(name).numbers
