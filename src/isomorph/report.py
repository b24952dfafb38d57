"""Findings and reports: the one result type of scan, convert, quantize, verify and bench."""
from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


class Severity(enum.IntEnum):
    """How much a finding matters. A conversion loss is LOW where values stay within tolerance and MEDIUM where they may not."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing: a dotted `code` (explained by `isomorph explain CODE`), its severity, where it stands, what it is and what to do."""

    code: str
    severity: Severity
    where: str
    message: str
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "severity": self.severity.name.lower(), "where": self.where, "message": self.message, "hint": self.hint}


@dataclass
class Report:
    """What a verb found about `subject`: findings, and facts as plain JSON values."""

    subject: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, code: str, severity: Severity, where: str, message: str, hint: str = "") -> None:
        self.findings.append(Finding(code, severity, where, message, hint))

    def extend(self, findings: Iterable[Finding]) -> None:
        self.findings.extend(findings)

    def worst(self) -> Severity:
        return max((finding.severity for finding in self.findings), default=Severity.INFO)

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": 1, "subject": self.subject, **self.facts, "findings": [finding.to_json() for finding in self.findings]}
