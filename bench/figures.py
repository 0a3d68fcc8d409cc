"""Figures, their targets, and what a list of values comes to. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from builder.talk import human_bytes, human_seconds

__all__ = ["Figure", "Summary", "Unit", "Verdict", "judge", "show", "summarize"]

Unit = Literal["s", "B", "ratio", "rows"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of a scenario. `at_most` is its target, in its unit; None: it is only reported."""

    name: str
    title: str
    unit: Unit
    at_most: float | None = None


class Verdict(str, Enum):
    """What a figure came to. Only MET is a success; REPORTED has no target."""

    MET = "met"
    MISSED = "missed"
    REPORTED = "reported"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Median and extremes of `n` values."""

    median: float
    smallest: float
    largest: float
    n: int


def summarize(values: Sequence[float]) -> Summary | None:
    """Return median, extremes and count; None without values."""
    if not values:
        return None
    return Summary(
        median=statistics.median(values),
        smallest=min(values),
        largest=max(values),
        n=len(values),
    )


def judge(values: Sequence[float], at_most: float | None) -> Verdict:
    """Compare the median with the target."""
    summary = summarize(values)
    if summary is None:
        return Verdict.NOT_MEASURED
    if at_most is None:
        return Verdict.REPORTED
    return Verdict.MET if summary.median <= at_most else Verdict.MISSED


def show(value: float, unit: Unit) -> str:
    """Write a value for people: `2 min 5 s`, `3.86 GB`, `0.585`, `12`."""
    if unit == "s":
        return human_seconds(value) if value >= 10 else f"{value:.2f} s"
    if unit == "B":
        # Targets lie closer to what is measured than one digit shows.
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else human_bytes(value)
    return f"{value:.3f}" if unit == "ratio" else f"{value:.0f}"
