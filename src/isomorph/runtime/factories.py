"""`--module package.module:factory`: the graph of weights, made by the user's own code. The only place that imports such code, in a child process."""
from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.artifact import Artifact
from isomorph.errors import IsomorphError, Missing, Unsupported, Usage
from isomorph.formats import _table
from isomorph.report import Finding, Severity

if TYPE_CHECKING:
    from isomorph.model import Checkpoint, Model

ERRORS: dict[str, type[IsomorphError]] = {error.code: error for error in (Missing, Unsupported, Usage)}
SECONDS = 1800.0


class Program:
    """An exported program that lives as long as this object: `path`, and what was done to make it."""

    def __init__(self, content: Checkpoint, factory: str, shapes: Mapping[str, Sequence[int]], *, timeout: float = SECONDS):
        """Raises `Missing` without PyTorch or the factory, `Unsupported` where weights do not fit or the module cannot be exported, `TimedOut`, `Crashed`."""
        from isomorph import runtime
        from isomorph.runtime.session import Session
        from isomorph.runtime.torch_factory import folders
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        place = Path(self.folder.name)
        self.path = place / "program.pt2"
        _table.get("torch").writer(content, place / "weights.pt")
        options = {"factory": factory, "shapes": {name: list(shape) for name, shape in shapes.items()}, "program": str(self.path),
                   "facts": str(place / "facts.json"), "folders": folders()}
        session = Session(place / "weights.pt", "torch", runtime="torch", options=options, timeout=timeout)
        session.runtime = replace(runtime.get("torch"), module="isomorph.runtime.torch_factory")
        with session:
            self.version = session.version
        self.facts: dict[str, Any] = json.loads((place / "facts.json").read_text())
        (place / "weights.pt").unlink()
        if "error" in self.facts:
            told = self.facts["error"]
            raise ERRORS[told["code"]](told["what"], where=factory, hint=told["hint"])

    def model(self) -> Model:
        """The program as our own reader reads it."""
        model = _table.get("torch_export").reader(Artifact.open(self.path))
        model.findings += self.findings()
        return model

    def findings(self) -> list[Finding]:
        """What was assumed on the way."""
        found = []
        if self.facts["prefix"] or self.facts["left_out"]:
            message = f"the weights under {self.facts['prefix']!r} are those of the module; {self.facts['left_out']} other tensors of the file are left out"
            found.append(Finding("torch.module-part", Severity.INFO, self.facts["class"], message))
        if self.facts["guessed"]:
            message = f"nobody says what goes in: {', '.join(self.facts['inputs'])} follows from the first layer"
            found.append(Finding("torch.guessed-rank", Severity.MEDIUM, "input", message, "say it with --input 1x3x224x224"))
        return found
