"""What a scenario is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.figures import Figure

__all__ = ["NotMeasured", "Scenario"]

Bench = TypeVar("Bench")


class NotMeasured(Exception):
    """This machine lacks what the scenario needs; the text says what."""


@dataclass(frozen=True, kw_only=True)
class Scenario(Generic[Bench]):
    """A situation, measured once per run: `measure(bench, run)` returns values by figure name.

    `disk` is how many bytes must be free before it starts. `once`: the figures are properties of
    fixed content, so that more runs would only repeat them.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    measure: Callable[[Bench, int], Mapping[str, float]]
    disk: int
    once: bool = False
