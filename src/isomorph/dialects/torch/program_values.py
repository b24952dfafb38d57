"""What a program of TorchScript computes with: tensors that can be written to, objects, what is not known, and how its execution ends."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

NUMBERS = (bool, int, float)


class Stop(Exception):
    """The program cannot be followed beyond this point; the blockers say why."""


class Raised(Exception):
    """The program raises an exception."""


class Returned(Exception):
    """A method gives its result."""

    def __init__(self, value: Any):
        super().__init__()
        self.value = value


class Cell:
    """A tensor of the program. Operations in place give it another value."""

    __slots__ = ("origin", "value")

    def __init__(self, value: Any, origin: tuple | None = None):
        self.value, self.origin = value, origin       # origin: (cell, how a new value is written back), for views


class Obj:
    """An object of a class of the file: a module, or what the code makes."""

    __slots__ = ("fields", "kind", "path")

    def __init__(self, kind: str, fields: dict[str, Any], path: str = ""):
        self.kind, self.fields, self.path = kind, fields, path


class Unknown:
    """What cannot be told any more: different objects of two branches, or a result that could not be mapped."""


class Unchanged:
    """A number that an object keeps between calls, taken to be what the call before left."""


class Function:
    """A name that is called."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


UNKNOWN = Unknown()


def flat(items: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from flat(item)
        else:
            yield item


def has_unknown(item: Any) -> bool:
    return isinstance(item, (Unknown, Unchanged)) or (isinstance(item, (list, tuple)) and any(map(has_unknown, item)))


def common_shape(a: Any, b: Any) -> Any:
    """The shape of what has one of two shapes, None where their ranks differ."""
    if a is None or b is None or len(a) != len(b):
        return None
    return ir.Shape([x if x == y else None for x, y in zip(a, b, strict=True)])
