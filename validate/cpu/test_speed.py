"""Cold start by phases, and one hundred pictures in a row."""

from __future__ import annotations

from validate.checks import Measurements, check
from validate.facts import Cold, Steady
from validate.speed import Budget, judge_cold, judge_steady


@check(
    "C16",
    why="A slow first result means downloads, installs or a library that compiles at start.",
    fix="Look at the slowest phase in the container's log.",
)
def test_cold_start(cold: tuple[tuple[float, Cold], ...], measurements: Measurements) -> str:
    """A fresh container finds its first boxes within a generous budget."""
    return judge_cold(cold, Budget(), measurements, "cold")


@check(
    "C17",
    why="A service that aborts or grows is restarted at the worst time.",
    fix="Look at the aborts in the probe's log; compare ultralytics and torch with a good digest.",
)
def test_hundred_pictures(steady: Steady, measurements: Measurements) -> str:
    """One hundred different pictures in a row without an abort and without growing memory."""
    return judge_steady(steady, Budget(), measurements, "steady")
