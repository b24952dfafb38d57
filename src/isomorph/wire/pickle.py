"""A pickle, interpreted into plain records: nothing is imported, nothing is called, names are pairs of strings.

Opcodes of protocols 0 to 5: Lib/pickletools.py of CPython. What a loader would construct becomes a `Call` that keeps callee, arguments, state and items.
`walk` looks at the beginning of a stream and never raises; `load` reads all of it under budgets, and hands the constructions that a table of rules knows to
those rules, which build records of ours. Everything else stays a `Call`, and a note says what a loader would have run.
"""
from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from isomorph.errors import Damaged, IsomorphError, Unsafe
from isomorph.wire.archive import HIGH, MEDIUM, Note
from isomorph.wire.limits import DEFAULT, Limits
from isomorph.wire.pickle_records import Blob, Call, Dict, Name, Persistent, Stream
from isomorph.wire.pickle_rules import COLLECTIONS, PYTHON2, RULES, Rule, severity_of

MOST_OPCODES = 20_000                      # of a walk that only wants to know what a file is: about 20 ms
LONGEST_STRING = 1 << 12                   # bytes kept of a string; longer ones become a Blob
LONGEST_NUMBER = 1 << 10
LONGEST_LINE = 1 << 16                     # of the text opcodes of protocol 0
MOST_NOTES = 100
NEWEST_PROTOCOL = 5
STEP = 1024                                # opcodes between two looks at the budgets


class _NotPickle(Exception):
    """The bytes are no pickle from here on."""


class _NotInAFile(_NotPickle):
    """It refers to what only a process has."""


class Machine:
    """The stack, the marks and the memo of one stream. `rules` build the constructions that they know, `persistent` what persistent ids stand for."""

    def __init__(self, view: memoryview, *, rules: Mapping[Name, Rule] | None = None, constants: Mapping[Name, Any] | None = None,
                 persistent: Callable[[Any], Any] = Persistent, limits: Limits = DEFAULT, where: str = "", depth: int = 0) -> None:
        self.constants = constants or {}
        self.view, self.limits, self.where, self.depth = view, limits, where, depth
        self.rules, self.persistent = rules or {}, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []   # the stacks under each open mark
        self.memo: dict[int, Any] = {}
        self.stream = Stream()
        self.frame_end = 0
        self.declared = False
        self.at = 0
        self.opaque: dict[Name, None] = {}
        self.inside = 0                    # what the values of files inside this pickle cost, in bytes

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
        self.push(self.constants.get(name, name))

    def call(self, callee: Any, args: Any) -> None:
        """A construction: by a rule where the table has one under exactly this name, else a record of what a loader would run."""
        if not isinstance(args, tuple):
            if self.rules:
                raise _NotPickle("the arguments of a call are no tuple")
            args = (args,)
        if not isinstance(callee, Name):
            self.note("pickle.computed-callee", HIGH, "it calls what another call returned, which no weights need")
        elif (rule := self.rules.get(PYTHON2.get(callee, callee))) is not None:
            self.push(rule(self, args))
            return
        else:
            self.opaque[callee] = None
        self.push(Call(callee, args))

    def text(self, value: Any) -> str:
        """A string, also a long one."""
        if isinstance(value, Blob) and value.text:
            return _text(bytes(self.view[value.start:value.stop]))
        if not isinstance(value, str):
            raise _NotPickle("text was expected")
        return value

    def note(self, code: str, severity: int, message: str) -> None:
        if len(self.stream.notes) < MOST_NOTES:
            self.stream.notes.append(Note(code, severity, self.where, message))

    def extend(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Call) and (target.callee in COLLECTIONS or target.callee not in self.rules):
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
        if isinstance(target, (Call, Dict)):
            target.state = state
        elif hasattr(target, "build"):
            target.build(self, state)
        elif self.rules:
            raise _NotPickle(f"a state for a {type(target).__name__.lower()}")

    def instance(self, name: tuple[str, str]) -> None:
        args = self.since_mark()
        self.name(*name)
        self.call(self.pop(), tuple(args))

    def keyworded(self, callee: Any, args: Any, keywords: Any) -> None:
        """Keyword arguments stand behind the positional ones as a dictionary; no rule takes them, so that such a call stays a record."""
        empty = isinstance(keywords, Dict) and not keywords.items
        self.call(callee, args if empty or not isinstance(args, tuple) else (*args, keywords))

    def proto(self, version: int) -> None:
        if version > NEWEST_PROTOCOL:
            raise _NotPickle(f"protocol {version}, the newest is {NEWEST_PROTOCOL}")
        if self.declared or self.stream.opcodes:
            self.note("pickle.ambiguous", MEDIUM, "the protocol is declared late or twice, which loaders read in different ways")
        self.declared, self.stream.protocol = True, version

    def frame(self, length: int) -> None:
        """Where it ends is noted by the loop, which knows where its argument ends."""
        if self.rules and length > len(self.view):
            raise _NotPickle(f"a frame of {length} bytes runs over the end")

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


def _counted(layout: str, convert: Callable[[bytes], Any], text: bool = False) -> Reader:
    """A length of that layout, then so many bytes. Bytes longer than 4 KiB are not copied."""
    length = _fixed(layout)

    def read(view: memoryview, at: int) -> tuple[Any, int]:
        count, start = length(view, at)
        if count < 0 or start + count > len(view):
            raise _NotPickle("a string runs over the end")
        if count > LONGEST_STRING:
            return Blob(start, start + count, text), start + count
        return convert(bytes(view[start:start + count])), start + count
    return read


def _line(view: memoryview, at: int) -> tuple[bytes, int]:
    data = bytes(view[at:at + LONGEST_LINE])
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
    """The text of a Python 2 string literal; `unicode_escape` resolves its backslashes."""
    if len(data) < 2 or data[:1] not in b"'\"" or data[:1] != data[-1:]:
        raise _NotPickle("text without quotes")
    return _escaped(data[1:-1], "unicode_escape") if b"\\" in data else _text(data[1:-1])


def _escaped(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise _NotPickle("text with a broken escape") from None


def _refuse(machine: Machine, argument: Any) -> None:
    raise _NotInAFile("an extension code or an out-of-band buffer: its meaning is in a process, not in the file")


Action = Callable[[Machine, Any], Any]
_push: Action = Machine.push
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
        "T": (_counted("<i", _text, True), _push),
        "U": (_counted("<B", _text, True), _push),
        "V": (_line, lambda m, a: m.push(_escaped(a, "raw_unicode_escape"))),
        "X": (_counted("<I", _text, True), _push),
        "\x8c": (_counted("<B", _text, True), _push),
        "\x8d": (_counted("<Q", _text, True), _push),
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
        "g": (_line, Machine.get),
        "h": (U1, Machine.get),
        "j": (U4, Machine.get),
        "p": (_line, Machine.put),
        "q": (U1, Machine.put),
        "r": (U4, Machine.put),
        "\x94": (_nothing, lambda m, _: m.put(len(m.memo))),
        "\x80": (U1, Machine.proto),
        "\x95": (_fixed("<Q"), Machine.frame),
        "c": (_two_lines, lambda m, a: m.name(*a)),
        "\x93": (_nothing, lambda m, _: m.name(*m.take(2))),
        "R": (_nothing, lambda m, _: m.call(*m.take(2))),
        "\x81": (_nothing, lambda m, _: m.call(*m.take(2))),
        "\x92": (_nothing, lambda m, _: m.keyworded(*m.take(3))),
        "b": (_nothing, lambda m, _: m.build(m.pop())),
        "i": (_two_lines, Machine.instance),
        "o": (_nothing, lambda m, _: m.object(m.since_mark())),
        "P": (_line, lambda m, a: m.push(m.persistent(_text(a)))),
        "Q": (_nothing, lambda m, _: m.push(m.persistent(m.pop()))),
        "\x82": (U1, _refuse), "\x83": (U2, _refuse), "\x84": (I4, _refuse), "\x97": (_nothing, _refuse), "\x98": (_nothing, _refuse),
    }.items()
}
STOP = ord(".")


# What a value of each opcode costs in memory, about, in bytes; the others 10
COSTS = {ord(code): cost for code, cost in (
    *((code, 120) for code in "]}\x8f)tld\x85\x86\x87R\x81\x92oib\x91c\x93QP"), *((code, 64) for code in "STUVX\x8c\x8dBC\x8e\x96L\x8a\x8bFG"),
    *((code, 110) for code in "pqr\x94"))}
SINCE = {ord(code): protocol for protocol, codes in ((3, "BC"), (4, "\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95"), (5, "\x96\x97\x98")) for code in codes}
TABLE = [(*OPCODES[code], COSTS.get(code, 10)) if code in OPCODES else None for code in range(256)]
FRAME = 0x95


def walk(view: memoryview, start: int = 0, most: int = MOST_OPCODES) -> Stream:
    """Interprets the stream at `start`, at most `most` opcodes of it. Never raises: `Stream.problem` says where the bytes stop being a pickle."""
    machine = Machine(view)
    stream = machine.stream
    try:
        for _ in _steps(machine, start, most):
            pass
    except _NotPickle as problem:
        stream.problem = f"{problem}, byte {machine.at}"
    except struct.error:
        stream.problem = f"an argument runs over the end, byte {machine.at}"
    stream.value = _outermost(machine) if stream.stop < 0 else machine.stack[-1]
    return stream


def load(view: memoryview, start: int = 0, *, rules: Mapping[Name, Rule] | None = None, constants: Mapping[Name, Any] | None = None,
         persistent: Callable[[Any], Any] = Persistent, limits: Limits = DEFAULT, where: str = "", depth: int = 0) -> Stream:
    """Interprets the whole stream at `start`: `value` is what it describes, built from our records and by `rules`, `constants` are names that
    stand for a value, and `notes` say what is odd or would run.

    Raises `Damaged` where the bytes are no pickle or a rule refuses its arguments, `Unsafe` where it exceeds a budget of `limits` or uses what exists only
    inside a process (extension codes, out-of-band buffers).
    """
    machine = Machine(view, rules=RULES if rules is None else rules, constants=constants, persistent=persistent, limits=limits, where=where, depth=depth)
    stream = machine.stream
    if depth > limits.pickle_nesting:
        raise Unsafe(f"pickles inside pickles, more than {limits.pickle_nesting} deep", where=where)
    try:
        for spent in _steps(machine, start, limits.pickle_opcodes):
            stream.bytes = spent + machine.inside
            _check_budgets(machine, stream.bytes)
    except _NotInAFile as problem:
        raise Unsafe(str(problem), where=where) from None
    except _NotPickle as problem:
        raise Damaged(f"it is no valid pickle: {problem}", where=where, offset=machine.at) from None
    except struct.error:
        raise Damaged("it is no valid pickle: an argument runs over the end", where=where, offset=machine.at) from None
    except IsomorphError as error:
        error.where = error.where or where
        raise
    if stream.stop < 0:
        raise Unsafe(f"a pickle of more than {limits.pickle_opcodes:,} operations", where=where, hint="raise Limits.pickle_opcodes if the file is trusted")
    if len(machine.stack) > 1 or machine.below:
        machine.note("pickle.ambiguous", MEDIUM, "values are left over behind the end, which loaders treat in different ways")
    stream.value = machine.stack[-1]
    stream.notes += [Note("pickle.call", severity_of(name), where, f"a loader would call {str(name)[:120]}; here it is only a record")
                     for name in list(machine.opaque)[:MOST_NOTES]]
    return stream


def _check_budgets(machine: Machine, spent: int) -> None:
    limits = machine.limits
    stack = len(machine.stack) + len(machine.below)
    for what, amount, most in (("values in memory", spent, limits.pickle_bytes), ("remembered values", len(machine.memo), limits.pickle_memo),
                               ("values on its stack", stack, limits.pickle_stack)):
        if amount > most:
            raise Unsafe(f"a pickle that needs {amount:,} {'bytes of ' if what == 'values in memory' else ''}{what}, at most {most:,} are allowed",
                         where=machine.where, hint="raise the pickle limits if the file is trusted")


def _steps(machine: Machine, start: int, most: int) -> Iterator[int]:
    """Runs the stream. Yields what its values cost so far, in bytes, every 1,024 opcodes and at the end."""
    view, stream, size, spent, look = machine.view, machine.stream, len(machine.view), 0, STEP
    at = start
    while stream.opcodes < most:
        machine.at = at
        if at >= size:
            raise _NotPickle("it ends without STOP")
        code = view[at]
        if code == STOP:
            machine.top()
            stream.opcodes += 1
            stream.stop = at + 1
            break
        entry = TABLE[code]
        if entry is None:
            raise _NotPickle(f"no opcode is {code:#04x}")
        read, act, cost = entry
        began = at
        argument, at = read(view, at + 1)
        act(machine, argument)
        stream.opcodes += 1
        spent += cost
        if code in SINCE:
            spent += 0 if code == FRAME else (at - began) >> 4
            _judge_position(machine, code, argument, began, at)
        elif machine.frame_end and began < machine.frame_end < at:
            machine.note("pickle.ambiguous", MEDIUM, "a frame ends inside an operation, which loaders read in different ways")
            machine.frame_end = 0
        if stream.opcodes >= look:                 # a file inside a pickle counts with all its operations at once
            look = stream.opcodes + STEP
            yield spent
    yield spent


def _judge_position(machine: Machine, code: int, argument: Any, began: int, at: int) -> None:
    """What may stand where: opcodes that are newer than the protocol, and frames."""
    stream = machine.stream
    if machine.declared and stream.protocol < SINCE[code]:
        machine.note("pickle.ambiguous", MEDIUM, f"an operation of protocol {SINCE[code]} in a pickle of protocol {stream.protocol}")
        machine.declared = False           # once is enough
    if code == FRAME:
        machine.frame_end = at + argument
    elif machine.frame_end and began < machine.frame_end < at:
        machine.note("pickle.ambiguous", MEDIUM, "a frame ends inside an operation, which loaders read in different ways")
        machine.frame_end = 0


def _outermost(machine: Machine) -> Any:
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
