"""What a file is. One module a format, each ending in one frozen `FORMAT`; `_table` lists them as data."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from isomorph.errors import Unsupported


@dataclass(frozen=True)
class Match:
    """A file recognised: canonical format name, version and flavour where the file states them, and what else its header says."""

    format: str
    version: str = ""
    flavour: str = ""
    holds: str = ""                  # "graph", "weights", "both", or "" for what is only recognised
    detail: dict[str, Any] = field(default_factory=dict)
    hint: str = ""                   # for recognised-only files: what to do with them


@dataclass(frozen=True)
class Capabilities:
    """What a format can carry, for plans, the recommender and the support matrix."""

    dtypes: frozenset[str] = frozenset()
    dynamic_shapes: bool = False
    control_flow: bool = False
    quantised: bool = False
    max_bytes: int | None = None
    versions: tuple[int, int] | None = None


@dataclass(frozen=True)
class Format:
    """A format and its functions. `write` is None where it cannot be written, `options` are the keyword arguments `write` takes."""

    name: str
    title: str
    extensions: tuple[str, ...]
    holds: str
    spec: str
    identify: Callable[..., Match | None]
    read: Callable[..., Any] | None = None
    write: Callable[..., Any] | None = None
    network: Callable[..., Any] | None = None     # of weights: the graph that the same file says they belong to, None where it says nothing
    dialect: str = ""                # the dialect of the graphs it reads and writes
    can: Capabilities = Capabilities()
    of: str = ""                     # the kind of network that it is for, where it is not for any

    @property
    def reader(self) -> Callable[..., Any]:
        """`read`. Raises `Unsupported` where the format is only recognised."""
        if self.read is None:
            raise Unsupported(f"isomorph recognises {self.title} but does not read it")
        return self.read

    @property
    def writer(self) -> Callable[..., Any]:
        """`write`. Raises `Unsupported` where isomorph does not write the format."""
        if self.write is None:
            raise Unsupported(f"isomorph does not write {self.title}")
        return self.write
