"""What a pickle is read into: names, calls, dictionaries, and payloads that stay where they are. No record runs anything."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from isomorph.errors import Damaged
from isomorph.wire.archive import Note


@dataclass(frozen=True, slots=True)
class Name:
    """A global: what GLOBAL and STACK_GLOBAL refer to. No tuple, so that a tuple of two strings in a pickle is never taken for one."""

    module: str
    qualname: str

    def __str__(self) -> str:
        return f"{self.module}.{self.qualname}"


@dataclass(frozen=True, slots=True)
class Blob:
    """A string or bytes too long to copy: where its payload lies, and whether it is text in UTF-8."""

    start: int
    stop: int
    text: bool = False


@dataclass(frozen=True, slots=True)
class Persistent:
    """A persistent id, by which PyTorch refers to its storages."""

    id: Any


@dataclass(eq=False, slots=True)
class Dict:
    """A dictionary as pairs, because keys of a hostile pickle need not be hashable. `state` are the attributes that a subclass was given."""

    items: list[tuple[Any, Any]] = field(default_factory=list)
    state: Any = None

    def get(self, key: str, default: Any = None) -> Any:
        """The last value under a text key: a loader keeps the last of equal keys."""
        return next((value for name, value in reversed(self.items) if isinstance(name, str) and name == key), default)


@dataclass(eq=False, slots=True)
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
    bytes: int = 0                          # of its values in memory, by estimate
    names: dict[Name, None] = field(default_factory=dict)
    problem: str = ""
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Bytes that stand in the stream as UTF-8 of characters below 256: twice as long where they are above 127."""

    blob: Blob

    def bytes(self, view: memoryview) -> bytes:
        """The bytes. Raises `Damaged` where the text is none or has other characters."""
        try:
            return bytes(view[self.blob.start:self.blob.stop]).decode("utf-8", "surrogatepass").encode("latin1")
        except UnicodeError:
            raise Damaged("bytes that are written as text, and are none", offset=self.blob.start) from None
