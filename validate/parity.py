"""Whether two models found the same boxes.

Boxes are matched per class, greedily by overlap. A box near the threshold may be found by one and
not by the other without anything being wrong, so only strong boxes have to have a partner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["FP32", "Box", "Limits", "Parity", "compare", "overlap"]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box: corners in pixels."""

    kind: int
    score: float
    corners: tuple[float, float, float, float]

    @classmethod
    def from_row(cls, row: Sequence[float]) -> Box:
        """Read class, score, x1, y1, x2, y2."""
        kind, score, x1, y1, x2, y2 = row
        return cls(kind=int(kind), score=score, corners=(x1, y1, x2, y2))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far apart the two may be, and from which score on a box must have a partner."""

    overlap: float
    score: float
    strong: float


# For FP32 and TF32, an estimate to be tuned on GPUs. MLPerf and ultralytics' own AMP check
# accept comparable differences.
FP32 = Limits(overlap=0.98, score=0.02, strong=0.35)


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The comparison over all pictures. `compared` counts pairs with a strong box in them."""

    compared: int
    smallest_overlap: float
    largest_difference: float
    lonely: tuple[str, ...]

    def within(self, limits: Limits) -> bool:
        """Whether everything is inside the limits."""
        return (
            not self.lonely
            and self.smallest_overlap >= limits.overlap
            and self.largest_difference <= limits.score
        )

    def __str__(self) -> str:
        text = (
            f"{self.compared} strong boxes compared, smallest overlap {self.smallest_overlap:.3f}, "
            f"largest score difference {self.largest_difference:.3f}"
        )
        return f"{text}, without a partner: {'; '.join(self.lonely)}" if self.lonely else text


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union."""
    ax1, ay1, ax2, ay2 = one.corners
    bx1, by1, bx2, by2 = other.corners
    width = max(0.0, min(ax2, bx2) - max(ax1, bx1))
    height = max(0.0, min(ay2, by2) - max(ay1, by1))
    shared = width * height
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Box) -> float:
    x1, y1, x2, y2 = box.corners
    return max(0.0, x2 - x1) * max(0.0, y2 - y1)


def _pairs(ours: list[Box], theirs: list[Box]) -> list[tuple[int, int, float]]:
    """Match greedily, best overlap first; boxes that don't touch are no pair."""
    candidates = [
        (overlap(one, other), i, j)
        for i, one in enumerate(ours)
        for j, other in enumerate(theirs)
        if one.kind == other.kind
    ]
    pairs: list[tuple[int, int, float]] = []
    left: set[int] = set()
    right: set[int] = set()
    for shared, i, j in sorted(candidates, key=lambda item: -item[0]):
        # Below one half they are two things, not one thing seen twice.
        if shared >= 0.5 and i not in left and j not in right:
            left.add(i)
            right.add(j)
            pairs.append((i, j, shared))
    return pairs


def compare(
    ours: Sequence[Iterable[Sequence[float]]],
    theirs: Sequence[Iterable[Sequence[float]]],
    limits: Limits,
) -> Parity:
    """Compare picture by picture."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} pictures on one side, {len(theirs)} on the other")
    overlaps: list[float] = []
    differences: list[float] = []
    lonely: list[str] = []
    for number, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        one, other = [Box.from_row(row) for row in left], [Box.from_row(row) for row in right]
        pairs = _pairs(one, other)
        for i, j, shared in pairs:
            if max(one[i].score, other[j].score) >= limits.strong:
                overlaps.append(shared)
                differences.append(abs(one[i].score - other[j].score))
        lonely += _lonely(f"picture {number}, checkpoint", one, {i for i, _, _ in pairs}, limits)
        lonely += _lonely(f"picture {number}, export", other, {j for _, j, _ in pairs}, limits)
    return Parity(
        compared=len(overlaps),
        smallest_overlap=min(overlaps, default=0.0),
        largest_difference=max(differences, default=0.0),
        lonely=tuple(lonely),
    )


def _lonely(side: str, boxes: list[Box], matched: set[int], limits: Limits) -> list[str]:
    return [
        f"{side}: class {box.kind} score {box.score:.2f}"
        for number, box in enumerate(boxes)
        if number not in matched and box.score >= limits.strong
    ]
