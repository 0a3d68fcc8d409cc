"""What checkpoints must be; asked in the cpu tier, and again on a GPU host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.records import PlanRecord, WeightRecord
from validate.checks import failed, not_measured, unless_missing
from validate.facts import WeightFile, Weights

__all__ = ["demand_official", "demand_sound"]

# The classes of COCO, on which all official detection checkpoints are trained.
CLASSES = 80


def demand_sound(plan: PlanRecord, weights: Weights, info: Mapping[str, Any] | None) -> str:
    """Fail unless all checkpoints of the row are there, whole and load as what they are."""
    found = {item.file: item for item in weights.files}
    wrong: list[str] = []
    for wanted in plan.weights:
        file = found.get(wanted.file)
        if file is None:
            wrong.append(f"{wanted.file} is not in the image; there: {sorted(found) or 'none'}")
        else:
            wrong += _unsound(plan, wanted, file)
    wrong += [
        f"{name} is in the image, but not in the row"
        for name in sorted(set(found) - {wanted.file for wanted in plan.weights})
    ]
    if info is not None:
        wrong += _disagreements(found, info)
    if wrong:
        failed("; ".join(wrong))
    return ", ".join(f"{item.file} {item.sha256[:12]}" for item in weights.files)


def _unsound(plan: PlanRecord, wanted: WeightRecord, file: WeightFile) -> Iterator[str]:
    if file.damaged is not None:
        yield f"{file.file} is damaged at {file.damaged} ({file.size} bytes)"
        return
    if file.model is None:
        yield f"{file.file} does not load: {file.error}"
        return
    if not wanted.official and not file.file.endswith("-random.pt"):
        yield f"{file.file} has random weights but a name that doesn't say so"
    if file.model.task != "detect" or file.model.classes != CLASSES:
        yield f"{file.file} is for {file.model.task} with {file.model.classes} classes"
    lineages = _lineages(plan)
    if file.model.attention not in lineages:
        yield (
            f"{file.file} has the attention layers {file.model.attention}, "
            f"{plan.distribution} needs {' or '.join(map(str, lineages))}"
        )


def _lineages(plan: PlanRecord) -> tuple[str | None, ...]:
    """Return the attention layers that fit: a checkpoint of the other lineage fails at predict."""
    if plan.family.startswith("yolov12"):
        return ("qk", "qkv") if "fork" in plan.distribution else ("qkv",)
    return (None,)


def _disagreements(found: Mapping[str, WeightFile], info: Mapping[str, Any]) -> Iterator[str]:
    """Yield where `info --json` says something else about a file than the file itself."""
    stated = info.get("weights")
    if not isinstance(stated, list):
        yield "`info --json` lists no weights"
        return
    for item in stated:
        file = found.get(str(item.get("file"))) if isinstance(item, dict) else None
        if file is None:
            yield f"`info --json` lists {str(item)[:200]}, which is not there"
        elif item.get("sha256") not in {None, file.sha256} or item.get("matches") is False:
            yield f"`info --json` gives {file.file} another sha256 than it has"


def demand_official(plan: PlanRecord, weights: Weights) -> str:
    """Fail unless all official checkpoints have the published bytes."""
    unless_missing(plan, "weights")
    official = [item for item in plan.weights if item.official and item.sha256]
    if not official:
        not_measured("no published hash is known for the checkpoints of this image")
    found = {item.file: item for item in weights.files}
    wrong = []
    for wanted in official:
        file = found.get(wanted.file)
        if file is None or file.sha256 != wanted.sha256:
            seen = f"{file.sha256} ({file.size} of {wanted.size} bytes)" if file else "no such file"
            wrong.append(f"{wanted.file}: {seen}, expected {wanted.sha256}")
    if wrong:
        failed("; ".join(wrong))
    return f"{len(official)} checkpoints have the published sha256"
