"""FlexBuffers: what Google's own writer makes is read, everything else is refused as such."""
from __future__ import annotations

import contextlib
import random
import time

import pytest
from flatbuffers import flexbuffers as oracle

from isomorph.wire import flexbuffers

VALUES = [{"a": 1, "longer": -70000, "f": 0.1, "t": True, "s": "grün", "none": None},
          {"list": [1, 2, 3], "mixed": [1, "x", 2.5], "inner": {"k": [True, False]}},
          {}, [1, 2, 300], "text", 5, -5, 2.5]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_the_official_writer_makes_is_read(value):
    assert flexbuffers.loads(bytes(oracle.Dumps(value))) == value


def test_a_typed_vector_and_a_blob():
    builder = oracle.Builder()
    with builder.Map():
        builder.TypedVectorFromElements("sizes", [1.5, 2.5, 3.5, 4.5, 5.5])
        builder.Blob("raw", b"\x00\xff")
    assert flexbuffers.loads(bytes(builder.Finish())) == {"sizes": [1.5, 2.5, 3.5, 4.5, 5.5], "raw": b"\x00\xff"}


@pytest.mark.parametrize("data", [b"", b"\x01\x02", b"abc", bytes(40), b"\xff" * 40])
def test_other_bytes_are_refused_or_are_a_number(data):
    try:
        assert flexbuffers.loads(data) in (None, 0, 1)
    except flexbuffers.NotFlex:
        assert len(data) < 3 or data[-1] not in (1, 2, 4, 8) or data != bytes(40)


def test_damage_leaves_only_one_error_and_takes_no_time():
    sources, generator, begin, refused = [bytes(oracle.Dumps(value)) for value in VALUES[:2]], random.Random(3), time.process_time(), 0
    for _ in range(20000):
        changed = bytearray(generator.choice(sources))
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        with contextlib.suppress(flexbuffers.NotFlex):
            flexbuffers.loads(changed)
            refused -= 1
        refused += 1
    assert refused > 2000
    assert time.process_time() - begin < 10
