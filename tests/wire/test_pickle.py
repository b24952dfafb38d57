"""The pickle walker: the same objects as the standard library's on benign streams, and nothing but records on others."""
from __future__ import annotations

import collections
import pickle
import pickletools
import random
import time
from typing import Any

import pytest

from isomorph.wire.pickle import OPCODES, STOP, Blob, Call, Dict, Name, walk


def plain(value: Any) -> Any:
    """Our records as the objects they stand for, as far as they have a plain one."""
    if isinstance(value, Dict):
        return {plain(key): plain(inner) for key, inner in value.items}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if type(value) is tuple:
        return tuple(plain(inner) for inner in value)
    if isinstance(value, Call) and value.callee == Name("collections", "OrderedDict"):
        return collections.OrderedDict((plain(key), plain(inner)) for key, inner in value.items)
    return value


VALUES = [None, True, 0, -1, 255, 256, 70_000, -(2**31), 2**31, 10**30, -(10**40), 0.5, -1e300, "", "text", "é\n'\"\\", b"", b"bytes\0", "x" * 300,
          [], [1, [2, [3]]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {"a": {"b": [1]}}, {(1, "x"): None}, collections.OrderedDict(a=1, b=[2])]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_as_the_standard_library_reads_it(value, protocol):
    if isinstance(value, bytes) and protocol < 3:
        value = value.decode("latin1")     # older protocols carry bytes through a call of _codecs.encode
    data = pickle.dumps(value, protocol)
    stream = walk(memoryview(data))
    assert stream.problem == ""
    assert stream.stop == len(data)
    assert plain(stream.value) == value


def test_every_opcode_is_known():
    assert {ord(opcode.code) for opcode in pickletools.opcodes} == OPCODES.keys() | {STOP}


def test_shared_objects_stay_shared():
    inner = [1]
    first, second = walk(memoryview(pickle.dumps([inner, inner]))).value
    assert first is second


class Point:
    def __init__(self) -> None:
        self.x = 1


@pytest.mark.parametrize("protocol", range(6))
def test_a_class_becomes_a_call_and_is_not_imported(protocol):
    data = pickle.dumps(Point(), protocol).replace(b"Point", b"Never")
    stream = walk(memoryview(data))
    assert stream.stop == len(data)
    assert Name(__name__, "Never") in stream.names
    assert isinstance(stream.value, Call)
    assert plain(stream.value.state) == {"x": 1}


def test_several_streams_in_a_row():
    data = pickle.dumps(1) + pickle.dumps([2])
    first = walk(memoryview(data))
    assert (first.value, walk(memoryview(data), first.stop).value) == (1, [2])


def test_long_strings_are_not_copied():
    data = pickle.dumps(b"x" * 10_000, 4)
    assert walk(memoryview(data)).value == Blob(data.index(b"x"), data.index(b"x") + 10_000)


def test_a_walk_that_is_cut_off_shows_what_was_ready():
    data = pickle.dumps({"a": 1, "b": Point(), "c": 3}, 2)
    stream = walk(memoryview(data[:-4]))
    assert [key for key, _ in stream.value.items] == ["a", "b"]
    assert "without STOP" in stream.problem or "over the end" in stream.problem
    budget = walk(memoryview(data), most=6)
    assert (budget.stop, budget.problem) == (-1, "")


@pytest.mark.parametrize("data", [
    b"", b".", b"\x80", b"\x80\2", b"\x80\2.", b"N", b"\xff.", b"0.", b"t.", b"a.", b"s.", b"R.", b"h\7.", b"I--1\n.", b"Ix\n.", b"F1x\n.", b"Sabc\n.",
    b"X\xff\xff\xff\xffa.", b"\x8b\xff\xff\xff\xff.", b"T\xff\xff\xff\xff.", b"c\n", b"cos", b"K", b"\x82\1.", b"\x97.", b"(((", b"}NNNu.", b"(Nu.", b"NNs.",
    b"\x93.", b"NN\x93."])
def test_no_pickle_is_a_problem_and_not_an_error(data):
    stream = walk(memoryview(data))
    assert stream.problem or stream.stop < 0


def test_mutated_streams_never_raise():
    chance = random.Random(6)
    seeds = [pickle.dumps([*VALUES, Point()], protocol) for protocol in range(6)]
    problems = 0
    start = time.process_time()
    for _ in range(6000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        problems += bool(walk(memoryview(data)).problem)
    assert problems > 1000
    assert time.process_time() - start < 20
