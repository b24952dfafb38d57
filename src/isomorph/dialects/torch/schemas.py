"""The overloads of aten that isomorph writes, and the names of their arguments, from `data/aten_calls.txt`."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import onnx_ir as ir

FILE = Path(__file__).parents[2] / "data" / "aten_calls.txt"


class Overload(NamedTuple):
    """`aten::name.overload` and its arguments in order."""

    name: str
    overload: str
    arguments: tuple[str, ...]


# Where a name has several overloads here: which one a call is of
CHOICES: dict[str, Callable[[list[Any], dict[str, Any]], str]] = {
    "clamp": lambda args, keywords: "Tensor" if any(isinstance(bound, ir.Value) for bound in args[1:]) else "default",
    "div": lambda args, keywords: "Tensor_mode" if "rounding_mode" in keywords else "Tensor",
    "pow": lambda args, keywords: "Tensor_Tensor" if isinstance(args[1], ir.Value) else "Tensor_Scalar",
}


@cache
def overloads() -> dict[str, dict[str, Overload]]:
    """name -> overload -> its schema."""
    found: dict[str, dict[str, Overload]] = {}
    for line in FILE.read_text().splitlines():
        if line and not line.startswith("#"):
            head, _, rest = line.partition("(")
            name, _, overload = head.partition(".")
            found.setdefault(name, {})[overload] = Overload(name, overload, tuple(rest.rstrip(")").split(", ")) if rest != ")" else ())
    return found


def overload_of(name: str, args: list[Any], keywords: dict[str, Any]) -> Overload:
    """The schema of a call. Raises `KeyError` for a name that the table lacks."""
    rows = overloads()[name]
    return rows[CHOICES[name](args, keywords)] if name in CHOICES else next(iter(rows.values()))
