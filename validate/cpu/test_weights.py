"""The checkpoints: whole, loadable, and those of the row."""

from __future__ import annotations

from typing import Any

from builder.records import PlanRecord
from validate.checks import check, not_measured
from validate.facts import Weights
from validate.weights import demand_official, demand_sound


@check(
    "C05",
    why="A truncated or foreign checkpoint fails at load, or loads and finds nothing.",
    fix="Remove the file from the weights store and build the row again.",
)
def test_checkpoints(plan: PlanRecord, weights: Weights, info: dict[str, Any]) -> str:
    """Every checkpoint of the row is there, whole, loads, fits the code, and is as `info` says."""
    if not plan.weights:
        not_measured("nothing is known about the checkpoints of this image")
    return demand_sound(plan, weights, info)


@check(
    "C20",
    why="Only the published hash proves that a checkpoint is the one its authors released.",
    fix="Remove the file from the weights store and build the row again.",
)
def test_official_hashes(plan: PlanRecord, weights: Weights) -> str:
    """The checkpoints have the sha256 and the size of the official release."""
    return demand_official(plan, weights)
