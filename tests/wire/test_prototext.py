"""Messages as text: what the reference implementation prints is read as what it writes, and everything else is refused, with its line, in linear time."""
from __future__ import annotations

import random
import time

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from isomorph.errors import Damaged, IsomorphError, Unsafe
from isomorph.wire import protobuf, prototext

SCHEMA = protobuf.parse_schema("""
Everything
    1  a  int32
    2  b  uint64
    3  c  bool
    4  d  double
    5  e  double *
    6  f  string
    7  g  bytes
    8  h  Everything
    9  i  Everything *
   10  j  {string: Everything}
   11  k  int64 *packed
""")
Everything = SCHEMA["Everything"]
ONNX = protobuf.schema("onnx")
SCALARS = {"a": st.integers(-2**31, 2**31 - 1), "b": st.integers(0, 2**64 - 1), "c": st.booleans(), "d": st.floats(allow_nan=False),
           "e": st.lists(st.floats(allow_nan=False), min_size=1), "f": st.text(), "g": st.binary(), "k": st.lists(st.integers(-2**63, 2**63 - 1), min_size=1)}
leaves = st.fixed_dictionaries({}, optional=SCALARS).map(lambda fields: Everything(**fields))


def nest(children: st.SearchStrategy) -> st.SearchStrategy:
    deeper = {"h": children, "i": st.lists(children, min_size=1), "j": st.dictionaries(st.text(), children, min_size=1)}
    return st.fixed_dictionaries({}, optional=SCALARS | deeper).map(lambda fields: Everything(**fields))


def printed(record: protobuf.Record) -> str:
    """A message as text, one form after the other: with and without colons, lists, single quotes, comments."""
    lines = []
    for row in record.ORDERED:
        if row.name not in record.__dict__:
            continue
        value = record.__dict__[row.name]
        if row.many == "map":
            lines += [f"{row.name} < key: {quoted(key.encode())} value {{ {printed(item)} }} >" for key, item in value.items()]
        elif row.message is not None:
            lines += [f"{row.name} {{ # a message\n{printed(item)} }}" for item in (value if row.many else [value])]
        elif row.many:
            lines.append(f"{row.name}: [{', '.join(map(repr, value))}];")
        else:
            lines.append(f"{row.name}: {scalar(value)}")
    return "\n".join(lines)


def scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(value if isinstance(value, bytes) else value.encode()) if isinstance(value, (str, bytes)) else repr(value)


def quoted(data: bytes) -> str:
    half = len(data) // 2
    return " ".join("'" + "".join(f"\\x{byte:02x}" if byte % 2 else f"\\{byte:03o}" for byte in part) + "'" for part in (data[:half], data[half:]))


@settings(max_examples=150, deadline=None)
@given(st.recursive(leaves, nest, max_leaves=6))
def test_what_is_printed_reads_back(record: protobuf.Record) -> None:
    assert prototext.read(printed(record).encode(), Everything) == record


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet="abchij{}<>[]:;,-+.0123456789eEx'\"\\\n# ", max_size=80).map(str.encode)))
def test_any_text_is_read_or_refused(data: bytes) -> None:
    try:
        record = prototext.read(data, Everything)
    except (Damaged, Unsafe):
        return
    protobuf.dumps(record)


def test_the_reference_implementation_prints_the_same_message() -> None:
    tensor = numpy_helper.from_array(np.random.default_rng(0).normal(size=(3, 4)), "naïve \"name\"\n")
    tensor.doc_string = "tab\tand 'quote' and \\ and é"
    for text in (text_format.MessageToString(tensor), text_format.MessageToString(tensor, as_one_line=True), text_format.MessageToString(tensor, as_utf8=True)):
        read = prototext.read(text.encode(), ONNX["TensorProto"])
        again = TensorProto.FromString(protobuf.dumps(read))
        assert again == tensor


@pytest.mark.parametrize(("text", "value"), [("a: 0x1F", 31), ("a: 017", 15), ("a: -0x10", -16), ("a: - 5", -5), ("a: +7", 7)])
def test_forms_of_numbers(text: str, value: int) -> None:
    assert prototext.read(text.encode(), Everything).a == value


@pytest.mark.parametrize("text", ["a: 2147483648", "b: -1", "b: 18446744073709551616", "a: " + "9" * 100_000, "a: 1.5", "c: 2", "f: 5", "a: '5'", "d {}",
                                  "h: 5", "h { a: 1", "h { a: 1 >", "a: 1 }", "e: [1, 2", "f: 'open", "f: \"line\nline\"", "a", "a:", "[extension.name",
                                  "a: {b: 1}x: @", "j { key: 'x' value: 3 }", "j: 4"])
def test_text_that_contradicts_the_schema_or_ends_early(text: str) -> None:
    with pytest.raises(Damaged, match=r"line [12]"):
        prototext.read(text.encode(), Everything, where="x")


def test_fields_that_the_schema_does_not_have_are_passed_over() -> None:
    text = b"z: 1 y { x: [ { w: 'a' }, { v <> } ] } [some.extension] { u: nan } a: 4 [other.extension]: 5"
    assert prototext.read(text, Everything) == Everything(a=4)


@pytest.mark.parametrize("opening", ["h {", "y {", "i <", "y: [ {"])
def test_nesting_has_an_end(opening: str) -> None:
    with pytest.raises(Unsafe, match="nested deeper"):
        prototext.read((opening * 100_000).encode(), Everything)


@pytest.mark.parametrize("data", [b"g: '" + b"x" * 4_000_000 + b"'", b"g: " + b"'x' " * 300_000, b"#" + b" " * 4_000_000,
                                  b" " * 4_000_000 + b"a: 1", b"# c\n" * 500_000 + b"a: 1", b"g: '" + b"\\000" * 500_000 + b"'",
                                  b"e: [" + b"1," * 300_000 + b"1]"])
def test_length_costs_no_more_than_itself(data: bytes) -> None:
    start = time.process_time()
    prototext.read(data, Everything)
    assert time.process_time() - start < 20


def test_every_cut_and_many_changes_are_errors_of_ours() -> None:
    rng = random.Random(2)
    text = printed(Everything(a=3, f="text", h=Everything(e=[1.5, 2.0], j={"k": Everything(c=True)}), k=[1, -2])).encode()
    for _ in range(600):
        changed = bytearray(text[:rng.randrange(len(text))] if rng.random() < 0.3 else text)
        for _ in range(rng.randint(0, 3) if changed else 0):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            prototext.read(bytes(changed), Everything)
        except IsomorphError:
            continue
