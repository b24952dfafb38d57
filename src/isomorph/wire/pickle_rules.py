"""What a loader would construct of Python's own classes, built by us: a rule a name, each checks its arguments. And how bad every other name is."""
from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged
from isomorph.wire.archive import HIGH, INFO, LOW, MEDIUM
from isomorph.wire.pickle_records import Blob, Call, Dict, Encoded, Name

if TYPE_CHECKING:
    from isomorph.wire.pickle import Machine

Rule = Callable[["Machine", tuple], Any]
COLLECTIONS = {Name("builtins", "set"), Name("builtins", "frozenset"), Name("collections", "deque")}
# Names of Python 2 for what is meant: Lib/_compat_pickle.py, only those that have a rule
PYTHON2 = {Name(old, name): Name(new, name) for old, new, names in (
    ("__builtin__", "builtins", ("set", "frozenset", "bytearray", "bytes", "complex", "slice", "range", "list", "dict", "tuple", "object")),
    ("copy_reg", "copyreg", ("_reconstructor",))) for name in names} | {Name("__builtin__", "xrange"): Name("builtins", "range")}
# Modules that newer Pythons dropped, while the one that loads a file may have them (PEP 594 and 632)
DROPPED = {"aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis",
           "nntplib", "ossaudiodev", "pipes", "smtpd", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"}
# Packages whose contents are known completely, so that an unknown name in them is no user's class
CLOSED = frozenset(sys.stdlib_module_names) | DROPPED | {"__builtin__", "copy_reg", "commands", "urllib2", "test", "_pyrepl", "pip",
                                                         "setuptools", "pkg_resources", "numpy", "joblib", "torch"}
# Classes that frameworks keep whole models in: a loader would run their code, and their state is data here
NAMED = ("torch.nn.modules.", "torch.nn.parallel.", "torch.nn.parameter", "torch.nn.utils.", "torch.optim.", "torch.ao.nn.", "torch.jit._script",
         "torchvision.", "sklearn.")


def severity_of(name: Name) -> int:
    """How bad it is that a loader would call this: LOW for the classes of known frameworks, HIGH for anything else in a package that we know completely."""
    module = name.module + "."
    if module.startswith(NAMED) and name.qualname.isidentifier():
        return LOW
    if name.module.partition(".")[0] in CLOSED:
        return INFO if name in INERT else HIGH
    return MEDIUM if name.qualname.replace(".", "").isidentifier() else HIGH


def arguments(machine: Machine, what: str, args: tuple, *kinds: type | tuple[type, ...], least: int | None = None) -> tuple:
    """`args`, checked against `kinds`; the last ones may be absent where `least` says so. Raises `Damaged`."""
    least = len(kinds) if least is None else least
    if not least <= len(args) <= len(kinds) or not all(isinstance(arg, kind) for arg, kind in zip(args, kinds, strict=False)):
        raise Damaged(f"{what} is given arguments of other kinds than it takes", where=machine.where)
    return args


def _ordered_dict(machine: Machine, args: tuple) -> Dict:
    """OrderedDict() that SETITEMS fills, or OrderedDict([[key, value], ...]) of Python 2."""
    arguments(machine, "OrderedDict", args, (list, Dict), least=0)
    if args and isinstance(args[0], Dict):
        return Dict(list(args[0].items))
    pairs = args[0] if args else []
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise Damaged("OrderedDict is given what are no pairs", where=machine.where)
    return Dict([(pair[0], pair[1]) for pair in pairs])


def _default_dict(machine: Machine, args: tuple) -> Dict:
    arguments(machine, "defaultdict", args, (Name, type(None)), least=0)
    if args and args[0] is not None and PYTHON2.get(args[0], args[0]).module not in ("builtins", "collections"):
        machine.note("pickle.call", MEDIUM, f"a loader would keep {args[0]} to call it for missing keys")
    return Dict()


def _encode(machine: Machine, args: tuple) -> Any:
    """Bytes in protocol 2: text of characters below 256. Long ones stay where they are."""
    text, encoding = arguments(machine, "_codecs.encode", args, (str, Blob), str)
    if encoding not in ("latin1", "latin-1") or (isinstance(text, Blob) and not text.text):
        raise Damaged(f"_codecs.encode to {encoding[:40]!r}, only latin1 is bytes", where=machine.where)
    return Encoded(text) if isinstance(text, Blob) else _latin1(machine, text)


def _latin1(machine: Machine, text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise Damaged("bytes that are written as text with a character above 255", where=machine.where) from None


def _reconstructor(machine: Machine, args: tuple) -> Any:
    """copyreg._reconstructor(class, base, state) of protocols 0 and 1: an object of the class without a call of its __init__."""
    kind, _, state = arguments(machine, "copyreg._reconstructor", args, Name, Name, object)
    rule = machine.rules.get(PYTHON2.get(kind, kind))
    if rule is not None:
        return rule(machine, () if state is None else (state,))
    machine.opaque[kind] = None
    return Call(kind, (), items=list(state.items) if isinstance(state, Dict) else [])


def _container(make: Callable[[list], Any], empty: Callable[[], Any]) -> Rule:
    def rule(machine: Machine, args: tuple) -> Any:
        arguments(machine, "a container", args, (list, tuple), least=0)
        return make(list(args[0])) if args else empty()
    return rule


def _set(kind: str) -> Rule:
    """A set stays a record, because its elements need not be hashable here."""
    def rule(machine: Machine, args: tuple) -> Call:
        items = list(args[0]) if len(args) == 1 and isinstance(args[0], (list, tuple)) else list(args)
        return Call(Name("builtins", kind), (), items=items)
    return rule


def _number(kind: Callable[..., Any], *types: Any) -> Rule:
    def rule(machine: Machine, args: tuple) -> Any:
        arguments(machine, "a number", args, *types, least=0)
        return kind(*args)
    return rule


def _bytes(machine: Machine, args: tuple) -> Any:
    """bytes() and bytearray(), which are written empty, with bytes, or with text and its encoding."""
    if len(args) == 2 and isinstance(args[0], str):
        return _encode(machine, args)
    arguments(machine, "bytes", args, (bytes, Blob, Encoded), least=0)
    return args[0] if args else b""


def data_of(machine: Machine, value: Any) -> memoryview | None:
    """The bytes that a value stands for, None where it is no bytes. Long ones are slices of the stream."""
    if isinstance(value, Blob):
        return machine.view[value.start:value.stop]
    if isinstance(value, Encoded):
        return memoryview(value.bytes(machine.view))
    return memoryview(value) if isinstance(value, bytes) else None


# Classes of the standard library that hold plain values only
INERT = {Name(module, name) for module, names in (
    ("datetime", ("datetime", "date", "time", "timedelta", "timezone")), ("decimal", ("Decimal",)), ("fractions", ("Fraction",)), ("uuid", ("UUID",)),
    ("pathlib", ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath", "PureWindowsPath")), ("pathlib._local", ("PosixPath", "WindowsPath")),
    ("argparse", ("Namespace",)), ("types", ("SimpleNamespace",))) for name in names}


def _inert(name: Name) -> Rule:
    return lambda machine, args: Call(name, args)


RULES: dict[Name, Rule] = {
    Name("collections", "OrderedDict"): _ordered_dict, Name("builtins", "dict"): _ordered_dict, Name("collections", "defaultdict"): _default_dict,
    Name("collections", "Counter"): _ordered_dict, Name("collections", "deque"): _container(list, list), Name("_codecs", "encode"): _encode,
    Name("copyreg", "_reconstructor"): _reconstructor, Name("builtins", "list"): _container(list, list), Name("builtins", "tuple"): _container(tuple, tuple),
    Name("builtins", "set"): _set("set"), Name("builtins", "frozenset"): _set("frozenset"), Name("builtins", "bytearray"): _bytes,
    Name("builtins", "bytes"): _bytes,
    Name("builtins", "complex"): _number(complex, float, float), Name("builtins", "slice"): _number(slice, *[(int, type(None))] * 3),
    Name("builtins", "range"): _number(lambda *given: range(*(given or (0,))), int, int, int),
    **{name: _inert(name) for name in INERT},
}
