"""From outcomes to a verdict: pure, because it decides what may be published."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from builder.records import CheckResult, Outcome

__all__ = ["TIERS", "Tier", "apply_requirements", "decide"]

Tier = Literal["static", "cpu", "gpu"]
TIERS: tuple[Tier, ...] = ("static", "cpu", "gpu")

# Tiers that every host can measure: when nothing in them passed, nothing is proven.
ALWAYS = frozenset({"static", "cpu"})


def apply_requirements(
    checks: Iterable[CheckResult], require: Collection[str]
) -> tuple[CheckResult, ...]:
    """Turn NOT_MEASURED into FAILED in the tiers that were demanded."""
    return tuple(_required(item) if item.tier in require else item for item in checks)


def _required(item: CheckResult) -> CheckResult:
    if item.outcome is not Outcome.NOT_MEASURED:
        return item
    return item.model_copy(
        update={
            "outcome": Outcome.FAILED,
            "saw": f"not measured: {item.reason}",
            "reason": f"--require {item.tier} was given: every check of the tier has to be made.",
            "fix": "Validate where it can be measured, or don't require the tier.",
        }
    )


def decide(
    checks: Sequence[CheckResult], tiers: Collection[str], require: Collection[str] = ()
) -> Outcome:
    """Return the verdict of a record.

    The worst outcome counts. A tier in which nothing passed is no pass: always for static and cpu,
    for gpu when it was required or when it is all there is.
    """
    outcomes = {item.outcome for item in apply_requirements(checks, require)}
    for worst in (Outcome.FAILED, Outcome.ERROR, Outcome.INFRA):
        if worst in outcomes:
            return worst
    passed = {item.tier for item in checks if item.outcome is Outcome.PASSED}
    needed = (ALWAYS | set(require)) & set(tiers) or set(tiers)
    if not passed or needed - passed:
        return Outcome.FAILED if set(require) & (needed - passed) else Outcome.NOT_MEASURED
    return Outcome.INCONCLUSIVE if Outcome.INCONCLUSIVE in outcomes else Outcome.PASSED
