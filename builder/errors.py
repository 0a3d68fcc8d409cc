"""One class per exit code.

The codes are part of the command line's contract: scripts and CI branch on them, so a code never
changes its meaning. Defining them side by side keeps them unique.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "BuildFailed",
    "EngineUnavailable",
    "Finding",
    "Incompatible",
    "InvalidInput",
    "NothingSelected",
    "SourceUnreachable",
    "ToolkitError",
    "ValidationFailed",
]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong: place, what, why and what to do.

    `place` is where to look (`matrix.yaml:14:18`, a row id, a file); it may be empty when the
    finding is about the machine as a whole.
    """

    place: str
    what: str
    why: str = ""
    todo: str = ""

    def __str__(self) -> str:
        head = f"{self.place}: {self.what}" if self.place else self.what
        details = " ".join(part for part in (self.why, self.todo) if part)
        return f"{head}\n    {details}" if details else head


class ToolkitError(Exception):
    """An error that a user can act on; carries every finding, not only the first."""

    exit_code: ClassVar[int] = 1

    def __init__(self, *findings: Finding) -> None:
        if not findings:
            raise ValueError("an error needs at least one finding")
        self.findings = findings
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(str(finding) for finding in self.findings)


class InvalidInput(ToolkitError):
    """Bad usage, or a matrix or lock that can't be read."""

    exit_code = 2


class NothingSelected(ToolkitError):
    """A pattern matched no row."""

    exit_code = 3


class Incompatible(ToolkitError):
    """A row combines values that can't work together."""

    exit_code = 4


class EngineUnavailable(ToolkitError):
    """No usable container engine answers."""

    exit_code = 5


class BuildFailed(ToolkitError):
    """At least one image could not be built."""

    exit_code = 6


class ValidationFailed(ToolkitError):
    """At least one image is not what its row says."""

    exit_code = 7


class SourceUnreachable(ToolkitError):
    """A download source does not answer, or answers with something else than it should."""

    exit_code = 10
