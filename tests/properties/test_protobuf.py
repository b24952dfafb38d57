"""The protobuf codec: decode(encode(x)) == x for any message, agreement with the reference implementation, and refusal of what is malformed."""
from __future__ import annotations

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import Damaged, Unsafe
from isomorph.wire import protobuf

SCHEMA = protobuf.parse_schema("""
Everything
    1  a  int32
    2  b  int64
    3  c  uint64
    4  d  sint64
    5  e  bool
    6  f  float *packed
    7  g  double *
    8  h  fixed32
    9  i  sfixed64
   10  j  string *
   11  k  bytes
   12  l  Everything
   13  m  Everything *
   14  n  int64 *packed
   15  o  int64 *
   16  p  int32 *lazy
  200  q  {string: Everything}
  201  r  {int32: int64}
  202  s  double *lazy
""")
Everything = SCHEMA["Everything"]
int32, int64 = st.integers(-2**31, 2**31 - 1), st.integers(-2**63, 2**63 - 1)
FIELDS = {
    "a": int32, "b": int64, "c": st.integers(0, 2**64 - 1), "d": int64, "e": st.booleans(), "f": st.lists(st.floats(width=32, allow_nan=False), min_size=1),
    "g": st.lists(st.floats(allow_nan=False), min_size=1), "h": st.integers(0, 2**32 - 1), "i": int64, "j": st.lists(st.text(), min_size=1),
    "k": st.binary(), "n": st.lists(int64, min_size=1), "o": st.lists(int64, min_size=1), "p": st.lists(int32, min_size=1),
    "r": st.dictionaries(int32, int64, min_size=1), "s": st.lists(st.floats(allow_nan=False), min_size=1),
}
leaves = st.fixed_dictionaries({}, optional=FIELDS).map(lambda fields: Everything(**fields))


def nest(children: st.SearchStrategy) -> st.SearchStrategy:
    deeper = {"l": children, "m": st.lists(children, min_size=1), "q": st.dictionaries(st.text(), children, min_size=1)}
    return st.fixed_dictionaries({}, optional=FIELDS | deeper).map(lambda fields: Everything(**fields))


@settings(max_examples=150, deadline=None)
@given(st.recursive(leaves, nest, max_leaves=6))
def test_what_is_written_reads_back(record):
    data = protobuf.dumps(record)
    again = protobuf.read(data, Everything)
    assert again == record
    assert protobuf.dumps(again) == data


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    try:
        record = protobuf.read(data, Everything)
    except (Damaged, Unsafe):
        return
    written = protobuf.dumps(record)          # compared as bytes, because NaN differs from itself
    assert protobuf.dumps(protobuf.read(written, Everything)) == written


@settings(max_examples=50, deadline=None)
@given(st.lists(int32, min_size=1), st.booleans())
def test_a_lazy_field_decodes_the_same_in_numpy_and_in_python(values, packed):
    run = b"".join(protobuf._varint(value) for value in values)
    data = b"\x82\x01" + protobuf._varint(len(run)) + run if packed else b"".join(b"\x80\x01" + protobuf._varint(value) for value in values)
    field = protobuf.read(data, Everything).p
    assert list(field) == values == field.array().tolist()
    assert len(field) == len(values)


def reference_model() -> onnx.ModelProto:
    body = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["inner"])], "body", [], [onnx.ValueInfoProto(name="inner")])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body, floats=[0.5, -1.0], ints=[-1, 2**40], strings=["a", "é"], f=0.1)
    typed = onnx.helper.make_tensor("t", onnx.TensorProto.INT32, [3], [-1, 0, 300])
    graph = onnx.helper.make_graph([node], "main", [onnx.helper.make_tensor_value_info("x", 1, ["n", 3])], [], initializer=[typed])
    return onnx.helper.make_model(graph, producer_name="tests")


def test_the_reference_reads_what_we_write_and_we_write_the_same_bytes():
    data = reference_model().SerializeToString()
    record = protobuf.read(data, protobuf.schema("onnx")["ModelProto"])
    assert record.graph.node[0].attribute[0].type == onnx.AttributeProto.GRAPH
    assert list(record.graph.initializer[0].int32_data) == [-1, 0, 300]
    assert protobuf.dumps(record) == data


def test_bytes_are_slices_of_the_source():
    data = protobuf.dumps(Everything(k=b"payload"))
    view = memoryview(data)
    assert protobuf.read(view, Everything).k.obj is data


def test_unknown_fields_are_carried():
    data = protobuf.dumps(Everything(a=1)) + b"\xf8\x7f\x05" + b"\xfa\x7f\x02hi" + b"\xfb\x7f\x08\x01\xfc\x7f"
    record = protobuf.read(data, Everything)
    assert [number for number, _, _ in record.unknown_fields] == [2047] * 3
    assert protobuf.dumps(record) == data


def test_a_message_that_comes_twice_is_merged():
    data = protobuf.dumps(Everything(l=Everything(a=1, h=2))) + protobuf.dumps(Everything(l=Everything(a=3)))
    assert protobuf.read(data, Everything) == Everything(l=Everything(a=3, h=2))


@pytest.mark.parametrize(("data", "what"), [
    (b"\x5a\x05ab", "left"),                      # a length beyond the end
    (b"\x08", "ends inside"),                     # no value
    (b"\x08" + b"\xff" * 10 + b"\x01", "varint"),
    (b"\x00\x01", "number 0"),
    (b"\x0e", "wire type 6"),
    (b"\x72\x01\x80", "inside a number"),         # a packed varint without an end
    (b"\x32\x03abc", "inside a number"),          # three bytes of float
    (b"\xf3\x7f\x08\x01", "does not end"),        # a group without an end
    (b"\x62\x02\x08\x80\x01", "beyond the end"),  # a varint that leaves its message
])
def test_malformed_bytes_are_damaged(data, what):
    with pytest.raises(Damaged, match=what):
        protobuf.read(data, Everything, where="file")


def test_nesting_is_bounded():
    record = Everything(a=1)
    for _ in range(120):
        record = Everything(l=record)
    with pytest.raises(Unsafe, match="nested deeper than 100"):
        protobuf.read(protobuf.dumps(record), Everything)


def test_a_payload_is_asked_for_chunk_by_chunk():
    class Payload:
        nbytes = 6

        def chunks(self):
            yield b"abc"
            yield b"def"

    assert protobuf.read(protobuf.dumps(Everything(a=7, k=Payload())), Everything) == Everything(a=7, k=b"abcdef")
    Payload.nbytes = 7
    with pytest.raises(Damaged, match="gave 6 bytes where 7"):
        protobuf.dumps(Everything(k=Payload()))

