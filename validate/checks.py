"""How a check says what it came to.

A check is a pytest function over facts: it returns a sentence that says what it saw, or raises one
of the exceptions below. Its docstring's first line is its title.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from builder.records import Measurement, PlanRecord

__all__ = [
    "Check",
    "CheckFailed",
    "Inconclusive",
    "Measurements",
    "NotMeasured",
    "check",
    "check_of",
    "failed",
    "not_measured",
    "unless_missing",
]

_CARRIED = "__check__"
Checked = TypeVar("Checked", bound=Callable[..., object])


class CheckFailed(AssertionError):
    """The image is not what it should be; `fix` replaces the check's general advice."""

    def __init__(self, saw: str, fix: str = "") -> None:
        super().__init__(saw)
        self.saw = saw
        self.fix = fix


class NotMeasured(Exception):
    """The question can't be answered here; never a pass."""


class Inconclusive(Exception):
    """The numbers are too noisy to answer."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Numbers by flat name, as they go into the record."""

    values: dict[str, Measurement]

    def add(self, name: str, value: float, unit: str, n: int = 1) -> None:
        """Record a number that stands on `n` samples."""
        self.values[name] = Measurement(value=round(value, 4), unit=unit, n=n)


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a check function carries: its id, why a failure matters, and what to do about it."""

    id: str
    why: str
    fix: str


def check(identifier: str, *, why: str, fix: str) -> Callable[[Checked], Checked]:
    """Make a function check `identifier`; it stays a plain function that tests can call."""

    def mark(function: Checked) -> Checked:
        setattr(function, _CARRIED, Check(id=identifier, why=why, fix=fix))
        return function

    return mark


def check_of(function: object) -> Check | None:
    """Return what `check` put on the function, None when it is no check."""
    carried = getattr(function, _CARRIED, None)
    return carried if isinstance(carried, Check) else None


def failed(saw: str, *, fix: str = "") -> NoReturn:
    """End the check: FAILED."""
    raise CheckFailed(saw, fix)


def not_measured(reason: str) -> NoReturn:
    """End the check: NOT_MEASURED."""
    raise NotMeasured(reason)


def unless_missing(plan: PlanRecord, part: str) -> None:
    """End the check with NOT_MEASURED when the image is built without `part`."""
    for missing in plan.missing:
        if missing.part == part:
            not_measured(f"the image has no {part}: {missing.reason}")
