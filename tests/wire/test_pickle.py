"""The data-only pickle machine against the standard library: the same values on benign streams, in every protocol."""
from __future__ import annotations

import collections
import datetime
import io
import json
import pickle as standard
import pickletools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import Damaged, Unsafe
from isomorph.wire import pickle
from isomorph.wire.limits import Limits
from isomorph.wire.pickle_records import Blob, Call, Dict, Encoded, Name, Persistent
from isomorph.wire.pickle_rules import COLLECTIONS

PROTOCOLS = range(6)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.binary(max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
                      max_leaves=20)


def plain(value):
    """Our records as Python's own values."""
    if isinstance(value, Dict):
        return {plain(key): plain(item) for key, item in value.items}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, Call) and value.callee in COLLECTIONS:
        return (set if value.callee.qualname == "set" else frozenset)(map(plain, value.items))
    return value


@settings(max_examples=150, deadline=None)
@given(VALUES, st.sampled_from(PROTOCOLS))
def test_values_are_those_of_the_standard_library(value, protocol):
    stream = pickle.load(memoryview(standard.dumps(value, protocol)))
    assert plain(stream.value) == value
    assert stream.notes == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_of_the_library(protocol):
    shared = [1]
    value = {"set": {1, 2}, "frozen": frozenset([3]), "ordered": collections.OrderedDict(a=1), "deque": collections.deque([1, 2]), "range": range(2, 8, 3),
             "complex": 1 + 2j, "bytes": b"\xff\x00", "array": bytearray(b"ab"), "default": collections.defaultdict(list, a=[1]), "twice": [shared, shared],
             "slice": slice(1, None, 2)}
    stream = pickle.load(memoryview(standard.dumps(value, protocol)))
    seen = plain(stream.value)
    assert stream.notes == []
    assert seen == {**value, "deque": [1, 2], "ordered": {"a": 1}, "default": {"a": [1]}}
    assert stream.value.get("twice")[0] is stream.value.get("twice")[1]


def test_the_values_of_a_child_that_unpickles():
    """A process of its own reads the same bytes with the real unpickler."""
    values = [{"a": [1, (2, 3)], "b": {"c": None}}, [list(range(2000))], "text " * 2000]
    data = [standard.dumps(value, protocol) for value in values for protocol in PROTOCOLS]
    script = "import sys,json,pickle;print(json.dumps([pickle.loads(bytes.fromhex(line)) for line in sys.stdin.read().split()]))"
    child = subprocess.run([sys.executable, "-c", script], input="\n".join(item.hex() for item in data), capture_output=True, text=True, check=True)
    streams = [pickle.load(memoryview(item)).value for item in data]
    ours = [bytes(memoryview(item)[value.start:value.stop]).decode() if isinstance(value, Blob) else plain(value)
            for item, value in zip(data, streams, strict=True)]
    assert json.loads(json.dumps(ours)) == json.loads(child.stdout)


def test_every_opcode_of_the_library_is_known():
    known = {ord(opcode.code) for opcode in pickletools.opcodes}
    assert known == set(pickle.OPCODES) | {pickle.STOP}
    assert {ord(opcode.code): opcode.proto for opcode in pickletools.opcodes if opcode.proto >= 3} == pickle.SINCE


def test_old_text_opcodes():
    stream = pickle.load(memoryview(b"(I1\nI01\nL12L\nF2.5\nS'a\\nb'\nVx\\u00e9\nN(dS'k'\nI2\ns(lI1\na(I2\nI3\ntt."))
    assert plain(stream.value) == (1, True, 12, 2.5, "a\nb", "xé", None, {"k": 2}, [1], (2, 3))


def test_long_values_stay_where_they_are():
    data = standard.dumps([b"x" * 10_000, "y" * 10_000], 4)
    raw, text = pickle.load(memoryview(data)).value
    assert data[raw.start:raw.stop] == b"x" * 10_000
    assert (data[text.start:text.stop], text.text) == (b"y" * 10_000, True)
    encoded = pickle.load(memoryview(standard.dumps(bytes(range(256)) * 40, 2))).value
    assert isinstance(encoded, Encoded)
    assert encoded.bytes(memoryview(standard.dumps(bytes(range(256)) * 40, 2))) == bytes(range(256)) * 40


def test_several_streams_and_persistent_ids():
    buffer = io.BytesIO()

    class Pickler(standard.Pickler):
        def persistent_id(self, value):
            return ("id", value[1]) if isinstance(value, tuple) and value[:1] == ("stored",) else None

    for number in range(3):
        Pickler(buffer, 2).dump([number, ("stored", number)])
    view, at = memoryview(buffer.getvalue()), 0
    for number in range(3):
        stream = pickle.load(view, at)
        assert stream.value == [number, Persistent(("id", number))]
        at = stream.stop
    assert at == len(view)
    assert pickle.load(view, 0, persistent=lambda given: given[1] * 10).value == [0, 0]


def test_rules_build_and_unknown_names_stay_records():
    date = pickle.load(memoryview(standard.dumps(datetime.date(2020, 1, 2))))
    assert date.value.callee == Name("datetime", "date")
    assert date.notes == []
    array = pickle.load(memoryview(standard.dumps(np.arange(3))))
    assert {note.code for note in array.notes} == {"pickle.call"}


@pytest.mark.parametrize(("data", "message"), [
    (b"", "ends without STOP"), (b"N", "ends without STOP"), (b".", "the stack is empty"), (b"g5\n.", "remembered under 5"), (b"h\7.", "remembered under 7"),
    (b"]N}s.", "pairs for what is no dictionary"), (b"(K\1e.", "the stack is empty"), (b"Nt.", "no mark"), (b"K", "runs over the end"),
    (b"\xff.", "no opcode is 0xff"), (b"\x80\x09N.", "protocol 9"), (b"Ia1\n.", "a number that is none"), (b"L" + b"9" * 2000 + b"\n.", "that is none"),
    (b"X\xff\xff\xff\x7fabc.", "a string runs over the end"), (b"\x8b\xff\xff\xff\xff.", "a string runs over the end"), (b"S'abc\n.", "text without quotes"),
    (b"cos\n", "a line without an end"), (b"N\x85R.", "the stack is too short"), (b"\x80\x04\x95\xff\0\0\0\0\0\0\0N.", "a frame of 255 bytes"),
    (b"\x80\x04K\1K\2\x93.", "a global whose name is no text"), (b"ccollections\nOrderedDict\nK\1R.", "arguments of a call are no tuple"),
    (b"ccollections\nOrderedDict\nK\1\x85R.", "OrderedDict is given arguments of other kinds"), (b"K\1}b.", "a state for a int"),
    (b"c_codecs\nencode\nX\1\0\0\0aX\3\0\0\0rot\x86R.", "only latin1 is bytes"), (b"K\1K\2a.", "items for what is no list"),
])
def test_damage_is_told_with_its_place(data, message):
    with pytest.raises(Damaged, match=message):
        pickle.load(memoryview(data))


@pytest.mark.parametrize(("data", "code"), [
    (b"\x80\x02\x8c\1a.", "pickle.ambiguous"),
    (b"\x80\x04\x80\x04N.", "pickle.ambiguous"), (b"K\1\x80\x02.", "pickle.ambiguous"), (b"K\1K\2.", "pickle.ambiguous"),
    (b"\x80\x04\x95\2\0\0\0\0\0\0\0\x8c\5abcde.", "pickle.ambiguous"), (b"cos\nsystem\n)R)R.", "pickle.computed-callee"), (b"cos\nsystem\n)R.", "pickle.call"),
])
def test_what_is_odd_is_noted(data, code):
    assert code in {note.code for note in pickle.load(memoryview(data)).notes}


@pytest.mark.parametrize(("limits", "data"), [
    (Limits(pickle_opcodes=2000), b"N0" * 2000 + b"."), (Limits(pickle_memo=1000), b"N" + b"".join(b"r" + i.to_bytes(4, "little") for i in range(3000)) + b"."),
    (Limits(pickle_stack=1000), b"N" * 3000 + b"."), (Limits(pickle_stack=1000), b"(" * 3000 + b"."), (Limits(pickle_bytes=9000), b"](" + b"]" * 3000 + b"e."),
])
def test_budgets_hold(limits, data):
    with pytest.raises(Unsafe, match=r"limit|at most|more than"):
        pickle.load(memoryview(data), limits=limits)


@pytest.mark.parametrize("data", [b"\x82\1.", b"\x83\1\0.", b"\x84\1\0\0\0.", b"\x97.", b"N\x98."])
def test_what_only_a_process_has_is_refused(data):
    with pytest.raises(Unsafe, match="in a process"):
        pickle.load(memoryview(data))


def test_a_tuple_of_two_strings_is_no_name():
    stream = pickle.load(memoryview(b"(X\2\0\0\0osX\6\0\0\0systemt)R."))
    assert [note.code for note in stream.notes] == ["pickle.computed-callee"]
