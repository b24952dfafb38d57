"""A pickle, interpreted into plain records: nothing is imported, nothing is called, names are pairs of strings.

Opcodes of protocols 0 to 5: Lib/pickletools.py of CPython. What a loader would construct becomes a `Call` that keeps callee, arguments, state and items.
"""
from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MOST_OPCODES = 20_000                      # of a walk that only wants to know what a file is: about 20 ms
LONGEST_STRING = 1 << 12                   # bytes kept of a string; longer ones become a Blob
LONGEST_NUMBER = 1 << 10


class Name(NamedTuple):
    """A global: what GLOBAL and STACK_GLOBAL refer to."""

    module: str
    qualname: str

    def __str__(self) -> str:
        return f"{self.module}.{self.qualname}"


class Blob(NamedTuple):
    """A string or bytes too long to copy: where its payload lies."""

    start: int
    stop: int


class Persistent(NamedTuple):
    """A persistent id, by which PyTorch refers to its storages."""

    id: Any


@dataclass(eq=False)
class Dict:
    """A dictionary as pairs, because keys of a hostile pickle need not be hashable."""

    items: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    """What a loader would construct: `callee(*args)`, then given `state` and the `items` of a dictionary or list."""

    callee: Any
    args: Any
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass
class Stream:
    """What a walk found. `value` is the object, or its outermost part where the walk stopped early; `stop` is the offset behind STOP, -1 without one.

    `problem` says why the bytes are no further pickle, empty where all went well or only the budget ended.
    """

    value: Any = None
    stop: int = -1
    protocol: int = 0
    opcodes: int = 0
    names: dict[Name, None] = field(default_factory=dict)
    problem: str = ""


class _NotPickle(Exception):
    """The bytes are no pickle from here on."""


class _Machine:
    """The stack, the marks and the memo of one stream."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []   # the stacks under each open mark
        self.memo: dict[int, Any] = {}
        self.stream = Stream()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise _NotPickle("the stack is empty")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise _NotPickle("the stack is empty")
        return self.stack[-1]

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        if not self.below:
            raise _NotPickle("there is no mark")
        items, self.stack = self.stack, self.below.pop()
        return items

    def take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise _NotPickle("the stack is too short")
        items = self.stack[len(self.stack) - count:]
        del self.stack[len(self.stack) - count:]
        return items

    def get(self, key: int | bytes) -> None:
        number = _int(key) if isinstance(key, bytes) else key
        if number not in self.memo:
            raise _NotPickle(f"nothing was remembered under {number}")
        self.push(self.memo[number])

    def put(self, key: int | bytes) -> None:
        self.memo[_int(key) if isinstance(key, bytes) else key] = self.top()

    def name(self, module: Any, qualname: Any) -> None:
        if not isinstance(module, str) or not isinstance(qualname, str):
            raise _NotPickle("a global whose name is no text")
        name = Name(module, qualname)
        self.stream.names[name] = None
        self.push(name)

    def call(self, callee: Any, args: Any) -> None:
        self.push(Call(callee, args))

    def extend(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Call):
            target.items.extend(items)
        else:
            raise _NotPickle("items for what is no list")

    def update(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, (Dict, Call)) or len(items) % 2:
            raise _NotPickle("pairs for what is no dictionary")
        target.items.extend(zip(items[::2], items[1::2], strict=True))

    def build(self, state: Any) -> None:
        target = self.top()
        if isinstance(target, Call):
            target.state = state

    def instance(self, name: tuple[str, str]) -> None:
        args = self.since_mark()
        self.name(*name)
        self.call(self.pop(), tuple(args))

    def object(self, items: list[Any]) -> None:
        if not items:
            raise _NotPickle("a construction without a class")
        self.call(items[0], tuple(items[1:]))


Reader = Callable[[memoryview, int], tuple[Any, int]]


def _nothing(view: memoryview, at: int) -> tuple[None, int]:
    return None, at


def _fixed(layout: str) -> Reader:
    form = struct.Struct(layout)

    def read(view: memoryview, at: int) -> tuple[Any, int]:
        return form.unpack_from(view, at)[0], at + form.size
    return read


def _counted(layout: str, convert: Callable[[bytes], Any]) -> Reader:
    """A length of that layout, then so many bytes. Bytes longer than 4 KiB are not copied."""
    length = _fixed(layout)

    def read(view: memoryview, at: int) -> tuple[Any, int]:
        count, start = length(view, at)
        if count < 0 or start + count > len(view):
            raise _NotPickle("a string runs over the end")
        if count > LONGEST_STRING:
            return Blob(start, start + count), start + count
        return convert(bytes(view[start:start + count])), start + count
    return read


def _line(view: memoryview, at: int) -> tuple[bytes, int]:
    data = bytes(view[at:at + LONGEST_STRING])
    end = data.find(b"\n")
    if end < 0:
        raise _NotPickle("a line without an end")
    return data[:end], at + end + 1


def _two_lines(view: memoryview, at: int) -> tuple[tuple[str, str], int]:
    first, at = _line(view, at)
    second, at = _line(view, at)
    return (_text(first), _text(second)), at


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _int(data: bytes) -> int:
    text = data.rstrip(b"L")
    if len(text) > LONGEST_NUMBER or not text.removeprefix(b"-").isdigit():
        raise _NotPickle("a number that is none")
    return int(text)


def _long(data: bytes) -> int:
    return int.from_bytes(data[:LONGEST_NUMBER], "little", signed=True)


def _float(data: bytes) -> float:
    try:
        return float(data)
    except ValueError:
        raise _NotPickle("a number that is none") from None


def _quoted(data: bytes) -> str:
    if len(data) < 2 or data[:1] not in b"'\"" or data[:1] != data[-1:]:
        raise _NotPickle("text without quotes")
    return _text(data[1:-1])


def _refuse(machine: _Machine, argument: Any) -> None:
    raise _NotPickle("an extension code or an out-of-band buffer, which no file has")


Action = Callable[[_Machine, Any], Any]
_push: Action = _Machine.push
U1, U2, I4, U4 = _fixed("<B"), _fixed("<H"), _fixed("<i"), _fixed("<I")

# opcode -> (how its argument is read, what it does)
OPCODES: dict[int, tuple[Reader, Action]] = {
    ord(code): entry for code, entry in {
        "(": (_nothing, lambda m, _: m.mark()),
        "0": (_nothing, lambda m, _: m.since_mark() if not m.stack else m.pop()),
        "1": (_nothing, lambda m, _: m.since_mark()),
        "2": (_nothing, lambda m, _: m.push(m.top())),
        "N": (_nothing, lambda m, _: m.push(None)),
        "\x88": (_nothing, lambda m, _: m.push(True)),
        "\x89": (_nothing, lambda m, _: m.push(False)),
        "I": (_line, lambda m, a: m.push({b"00": False, b"01": True}[a] if a in (b"00", b"01") else _int(a))),
        "J": (I4, _push),
        "K": (U1, _push),
        "M": (U2, _push),
        "L": (_line, lambda m, a: m.push(_int(a))),
        "\x8a": (_counted("<B", _long), _push),
        "\x8b": (_counted("<i", _long), _push),
        "F": (_line, lambda m, a: m.push(_float(a))),
        "G": (_fixed(">d"), _push),
        "S": (_line, lambda m, a: m.push(_quoted(a))),
        "T": (_counted("<i", _text), _push),
        "U": (_counted("<B", _text), _push),
        "V": (_line, lambda m, a: m.push(a.decode("raw_unicode_escape", "replace"))),
        "X": (_counted("<I", _text), _push),
        "\x8c": (_counted("<B", _text), _push),
        "\x8d": (_counted("<Q", _text), _push),
        "B": (_counted("<I", bytes), _push),
        "C": (_counted("<B", bytes), _push),
        "\x8e": (_counted("<Q", bytes), _push),
        "\x96": (_counted("<Q", bytes), _push),
        "]": (_nothing, lambda m, _: m.push([])),
        "l": (_nothing, lambda m, _: m.push(m.since_mark())),
        "a": (_nothing, lambda m, _: m.extend([m.pop()])),
        "e": (_nothing, lambda m, _: m.extend(m.since_mark())),
        ")": (_nothing, lambda m, _: m.push(())),
        "t": (_nothing, lambda m, _: m.push(tuple(m.since_mark()))),
        "\x85": (_nothing, lambda m, _: m.push(tuple(m.take(1)))),
        "\x86": (_nothing, lambda m, _: m.push(tuple(m.take(2)))),
        "\x87": (_nothing, lambda m, _: m.push(tuple(m.take(3)))),
        "}": (_nothing, lambda m, _: m.push(Dict())),
        "d": (_nothing, lambda m, _: (lambda items: (m.push(Dict()), m.update(items)))(m.since_mark())),
        "s": (_nothing, lambda m, _: m.update(m.take(2))),
        "u": (_nothing, lambda m, _: m.update(m.since_mark())),
        "\x8f": (_nothing, lambda m, _: m.call(Name("builtins", "set"), ())),
        "\x90": (_nothing, lambda m, _: m.extend(m.since_mark())),
        "\x91": (_nothing, lambda m, _: m.call(Name("builtins", "frozenset"), tuple(m.since_mark()))),
        "g": (_line, _Machine.get),
        "h": (U1, _Machine.get),
        "j": (U4, _Machine.get),
        "p": (_line, _Machine.put),
        "q": (U1, _Machine.put),
        "r": (U4, _Machine.put),
        "\x94": (_nothing, lambda m, _: m.put(len(m.memo))),
        "\x80": (U1, lambda m, a: setattr(m.stream, "protocol", a)),
        "\x95": (_fixed("<Q"), lambda m, a: None),
        "c": (_two_lines, lambda m, a: m.name(*a)),
        "\x93": (_nothing, lambda m, _: m.name(*m.take(2))),
        "R": (_nothing, lambda m, _: m.call(*m.take(2))),
        "\x81": (_nothing, lambda m, _: m.call(*m.take(2))),
        "\x92": (_nothing, lambda m, _: m.call(*m.take(3)[:2])),
        "b": (_nothing, lambda m, _: m.build(m.pop())),
        "i": (_two_lines, _Machine.instance),
        "o": (_nothing, lambda m, _: m.object(m.since_mark())),
        "P": (_line, lambda m, a: m.push(Persistent(_text(a)))),
        "Q": (_nothing, lambda m, _: m.push(Persistent(m.pop()))),
        "\x82": (U1, _refuse), "\x83": (U2, _refuse), "\x84": (I4, _refuse), "\x97": (_nothing, _refuse), "\x98": (_nothing, _refuse),
    }.items()
}
STOP = ord(".")


def walk(view: memoryview, start: int = 0, most: int = MOST_OPCODES) -> Stream:
    """Interprets the stream at `start`, at most `most` opcodes of it. Never raises: `Stream.problem` says where the bytes stop being a pickle."""
    machine, at, count = _Machine(), start, 0
    stream = machine.stream
    try:
        while count < most:
            if at >= len(view):
                raise _NotPickle("it ends without STOP")
            code = view[at]
            count += 1
            if code == STOP:
                machine.top()
                stream.stop = at + 1
                break
            if code not in OPCODES:
                raise _NotPickle(f"no opcode is {code:#04x}")
            read, act = OPCODES[code]
            argument, at = read(view, at + 1)
            act(machine, argument)
    except _NotPickle as problem:
        stream.problem = f"{problem}, byte {at}"
    except struct.error:
        stream.problem = f"an argument runs over the end, byte {at}"
    stream.opcodes = count
    stream.value = _outermost(machine) if stream.stop < 0 else machine.stack[-1]
    return stream


def _outermost(machine: _Machine) -> Any:
    """The object that was being built when the walk stopped, with what stood ready to be put into it.

    A name on the stack is a callee that waits for its arguments: what stands behind it is no entry yet.
    """
    levels = [*machine.below, machine.stack]
    root = levels[0][0] if levels[0] else None
    waiting = levels[1] if len(levels) > 1 else []
    ready = list(itertools.takewhile(lambda value: not isinstance(value, Name), waiting))
    if isinstance(root, list):
        root.extend(ready)
    elif isinstance(root, (Dict, Call)):
        root.items.extend(zip(ready[::2], ready[1::2], strict=False))
    return root
