"""Progress of long work. The default does nothing, so code reports unconditionally."""
from __future__ import annotations


class Progress:
    """Receives events; a subclass shows them. `total` and `done` count bytes, tensors or nodes, whatever `unit` says."""

    def start(self, step: str, total: int = 0, unit: str = "") -> None:
        """A step begins. `total` of 0 means that its length is not known."""

    def advance(self, done: int = 1) -> None:
        """`done` more units of the current step are finished."""

    def finish(self) -> None:
        """The current step is over."""


SILENT = Progress()
