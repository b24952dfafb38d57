"""Progress as a bar on a terminal."""
from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from isomorph.progress import Progress


class Bar(Progress):
    """One line that goes away when its step is over."""

    def __init__(self) -> None:
        self._shown: RichProgress | None = None
        self._task: TaskID | None = None

    def start(self, step: str, total: int = 0, unit: str = "") -> None:
        self.finish()
        self._shown = RichProgress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True)
        self._task = self._shown.add_task(step, total=total or None)
        self._shown.start()

    def advance(self, done: int = 1) -> None:
        if self._shown is not None and self._task is not None:
            self._shown.advance(self._task, done)

    def finish(self) -> None:
        if self._shown is not None:
            self._shown.stop()
        self._shown = None
