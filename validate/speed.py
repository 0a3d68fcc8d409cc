"""Times and memory: turned into measurements, and held against budgets that catch disasters only.

A tight limit on a shared machine fails by chance; regressions are for paired comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass

from validate.checks import Measurements, failed
from validate.facts import Cold, Steady
from validate.numbers import median, percentile, theil_sen

__all__ = ["Budget", "judge_cold", "judge_steady"]

MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Seconds to the first boxes, of which the first inference, and megabytes of growth."""

    cold: float = 60.0
    first: float = 20.0
    # A leak of one small picture per prediction would be 100 times 1.2 MB.
    growth: float = 100.0


def judge_cold(
    starts: tuple[tuple[float, Cold], ...], budget: Budget, measurements: Measurements, prefix: str
) -> str:
    """Record each phase's median, and fail when the medians are over budget."""
    count = len(starts)
    phases = {"container": median([before for before, _ in starts])}
    for name in starts[0][1].phases:
        phases[name] = median([seen.phases[name] for _, seen in starts])
    total = median([before + seen.finished - seen.started for before, seen in starts])
    for name, seconds in phases.items():
        measurements.add(f"{prefix}.{name}", seconds, "s", n=count)
    measurements.add(f"{prefix}.total", total, "s", n=count)
    text = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in phases.items())
    if total > budget.cold or phases["first_inference"] > budget.first:
        slowest = max(phases, key=lambda name: phases[name])
        failed(
            f"{total:.1f} s to the first boxes (budget {budget.cold:.0f} s, of them "
            f"{budget.first:.0f} s for the first inference); slowest: {slowest}; {text}"
        )
    return f"{total:.1f} s in all: {text}"


def judge_steady(steady: Steady, budget: Budget, measurements: Measurements, prefix: str) -> str:
    """Record latency and memory, and fail on aborts or growth that does not end."""
    done = len(steady.milliseconds)
    if steady.aborts or done < steady.pictures or not done:
        failed(f"{len(steady.aborts)} of {steady.pictures} aborted: {'; '.join(steady.aborts[:3])}")
    p50, p90 = percentile(steady.milliseconds, 50), percentile(steady.milliseconds, 90)
    growth = (steady.resident[-1] - steady.resident_before) / MB
    for name, value, unit in (
        ("p50", p50, "ms"),
        ("p90", p90, "ms"),
        ("throughput", done / steady.seconds, "1/s"),
        ("memory_peak", steady.memory.get("resident_peak", 0) / MB, "MB"),
        ("memory_growth", growth, "MB"),
        ("aborts", len(steady.aborts), ""),
    ):
        measurements.add(f"{prefix}.{name}", value, unit, n=done)
    # Allocators grow in steps and stop; a leak still grows in the last third.
    last = steady.resident[-(done // 3 or 1) :]
    if growth > budget.growth and theil_sen(last) * len(last) / MB > budget.growth / 10:
        failed(f"memory grew by {growth:.0f} MB over {done} pictures and still does")
    return f"p50 {p50:.0f} ms, p90 {p90:.0f} ms, memory {growth:+.0f} MB over {done} pictures"
