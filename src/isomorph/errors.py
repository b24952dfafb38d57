"""The errors that isomorph raises, and nothing else leaves it.

    IsomorphError              exit 2   an internal error, when raised as itself
     |- NotRecognised          exit 3   no format claims this file
     |- Unsupported            exit 3   operators, dtypes or versions without an equivalent: all of them
     |- Missing                exit 5   an optional package or a companion file
     |- Unsafe                 exit 6   refused: would run code, escape its folder or exceed a limit
     |- Damaged                exit 7   the bytes contradict the specification
     |- TimedOut               exit 8   a runtime or a step took longer than its limit
     |- Crashed                exit 2   a runtime died or gave up on a file, in its child process
     '- Mismatch               exit 1   results differ

A usage error exits with 4, an interruption with 130.
"""
from __future__ import annotations

from typing import Any


class IsomorphError(Exception):
    """What went wrong (`what`), where (`where`), and what to do now (`hint`). `code` names the kind for programs and documentation."""

    code = "internal"
    exit_code = 2

    def __init__(self, what: str, *, where: str = "", hint: str = ""):
        super().__init__(what)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f" - at {self.where}"
        if self.hint:
            text += f". Hint: {self.hint}"
        return text

    def to_json(self) -> dict:
        return {"code": self.code, "what": self.what, "where": self.where, "hint": self.hint, "exit_code": self.exit_code}


class NotRecognised(IsomorphError):
    code, exit_code = "not-recognised", 3


class Unsupported(IsomorphError):
    """`blockers` lists every reason, each a (subject, where, reason) triple, not only the first."""

    code, exit_code = "unsupported", 3

    def __init__(self, what: str, *, where: str = "", hint: str = "", blockers: list[tuple[str, str, str]] | None = None):
        super().__init__(what, where=where, hint=hint)
        self.blockers = blockers or []

    def to_json(self) -> dict:
        blockers = [{"subject": subject, "where": where, "reason": reason} for subject, where, reason in self.blockers]
        return super().to_json() | {"blockers": blockers}


class Missing(IsomorphError):
    code, exit_code = "missing", 5


class Unsafe(IsomorphError):
    code, exit_code = "unsafe", 6


class Damaged(IsomorphError):
    """`offset` is the position in the file in bytes, where it is known."""

    code, exit_code = "damaged", 7

    def __init__(self, what: str, *, where: str = "", hint: str = "", offset: int | None = None):
        if offset is not None:
            where = f"{where}, byte {offset}" if where else f"byte {offset}"
        super().__init__(what, where=where, hint=hint)
        self.offset = offset


class TimedOut(IsomorphError):
    code, exit_code = "timed-out", 8


class Crashed(IsomorphError):
    """Somebody else's runtime died (`died`) or gave up while it ran a file. Only its child process is gone."""

    code = "crashed"
    died = False


class Mismatch(IsomorphError):
    """Results differ. `report` holds every comparison where there is one."""

    code, exit_code = "mismatch", 1
    report: Any = None


class Usage(IsomorphError):
    """The call contradicts itself or its target: an existing output without `--force`, an unknown format name."""

    code, exit_code = "usage", 4
