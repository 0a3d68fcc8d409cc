"""What a judgement says: findings with their rule, reason, remedy and source."""

from __future__ import annotations

from typing import NamedTuple

from builder.errors import Finding

__all__ = ["Conflict", "Verdict"]


class Conflict(NamedTuple):
    """Values that can't work together (`fail`), or may not (`warn`).

    `keys` is the smallest set of named keys that clashes. `instead` are values to try, by key,
    nearest first; None stands for leaving the key out.
    """

    rule: str
    severity: str
    message: str
    fix: str
    source: str
    keys: tuple[str, ...]
    instead: tuple[tuple[str, tuple[str | None, ...]], ...] = ()

    def finding(self, place: str) -> Finding:
        """Return this as the toolkit's finding, at `place`."""
        source = f"Source: {self.source}." if self.source else ""
        todo = " ".join(part for part in (self.fix, source) if part)
        return Finding(
            place=place, what=f"{', '.join(self.keys)}: {self.message}", why="", todo=todo
        )

    def as_json(self) -> dict[str, object]:
        """Return the finding as it is printed."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "message": self.message,
            "fix": self.fix,
            "source": self.source,
            "keys": list(self.keys),
        }


class Verdict(NamedTuple):
    """`ok`: nothing known against it; `warn`: it may fail, or is unknown; `fail`: it can't work."""

    verdict: str
    findings: tuple[Conflict, ...]

    @staticmethod
    def of(findings: tuple[Conflict, ...]) -> Verdict:
        """Return the verdict that follows from `findings`."""
        severities = {finding.severity for finding in findings}
        return Verdict(next((s for s in ("fail", "warn") if s in severities), "ok"), findings)
