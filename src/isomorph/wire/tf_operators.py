"""What TensorFlow's operators are called with and what they return: `schemas/tensorflow_operators.txt`, a line parsed when its operator is asked for."""
from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from isomorph.errors import Damaged

# Element types by the numbers of tensorflow/core/framework/types.proto; a reference to one is its number + 100.
TYPES = {
    "float": 1, "double": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "string": 7, "complex64": 8, "int64": 9, "bool": 10, "qint8": 11, "quint8": 12,
    "qint32": 13, "bfloat16": 14, "qint16": 15, "quint16": 16, "uint16": 17, "complex128": 18, "half": 19, "resource": 20, "variant": 21, "uint32": 22,
    "uint64": 23, "float8_e5m2": 24, "float8_e4m3fn": 25, "float8_e4m3fnuz": 26, "float8_e4m3b11fnuz": 27, "float8_e5m2fnuz": 28, "int4": 29, "uint4": 30,
    "int2": 31, "uint2": 32, "float4_e2m1fn": 33,
}
TYPE_NAMES = {number: name for name, number in TYPES.items()}
REFERENCE = 100
MOST_VALUES = 1 << 16               # outputs of one node, or values of one list argument


class Argument(NamedTuple):
    """An input or output. `type` is an element type or "", `attribute` names the attribute that holds the type (or the list of types), `number` the
    one that holds how many values of it there are."""

    name: str
    type: str
    attribute: str = ""
    number: str = ""
    listed: bool = False


class Operator(NamedTuple):
    """An operator; `attributes` has the kind of each ("int", "list(type)", ...), `defaults` what stands for those that are left out."""

    name: str
    stateful: bool
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    attributes: dict[str, str]
    defaults: dict[str, Any]


@functools.cache
def _lines() -> dict[str, str]:
    text = resources.files("isomorph.wire").joinpath("schemas", "tensorflow_operators.txt").read_text("utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {line.partition(" ")[0].rstrip("!"): line for line in lines}


def names() -> frozenset[str]:
    """All operators of TensorFlow."""
    return frozenset(_lines())


@functools.cache
def operator(name: str) -> Operator | None:
    """The operator of that name, None for one that TensorFlow itself does not have."""
    line = _lines().get(name)
    if line is None:
        return None
    head, _, tail = line.partition(" | ") if " | " in line else (line.removesuffix(" |"), "", "")
    left, _, right = head.partition(" ->")
    first, *inputs = left.split()
    kinds: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    for item in tail.split():
        declared, _, default = item.partition("=")
        label, _, kinds_of = declared.partition(":")
        kinds[label] = kinds_of
        if default:
            defaults[label] = json.loads(default)
    return Operator(name, first.endswith("!"), tuple(_argument(item, kinds) for item in inputs), tuple(_argument(item, kinds) for item in right.split()),
                    kinds, defaults)


def _argument(text: str, attributes: Mapping[str, str]) -> Argument:
    name, _, kind = text.partition(":")
    kind = kind.lstrip("&")
    count, star, kind = kind.rpartition("*")
    listed = bool(star) and not count
    return Argument(name, "" if kind in attributes else kind, kind if kind in attributes else "", count, listed)


def layout(arguments: Sequence[Argument], attributes: Mapping[str, Any], where: str = "") -> list[tuple[str, list[str]]]:
    """Each argument with the element types of its values, by the attributes of a node; "" for a type that no attribute tells.

    Raises `Damaged` where an attribute that counts them is missing or makes no sense.
    """
    found = []
    for argument in arguments:
        if argument.listed:
            types = [str(item) for item in attributes.get(argument.attribute) or ()]
        else:
            count = attributes.get(argument.number) if argument.number else 1
            if not isinstance(count, int) or not 0 <= count <= MOST_VALUES:
                raise Damaged(f"its attribute {argument.number} is {count!r}, and it counts values", where=where)
            types = [argument.type or str(attributes.get(argument.attribute) or "")] * count
        if len(types) > MOST_VALUES:
            raise Damaged(f"{len(types)} values of the argument {argument.name}", where=where)
        found.append((argument.name, types))
    return found
