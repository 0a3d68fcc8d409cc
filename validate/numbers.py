"""Statistics that are small enough to read, so that the host needs no numerical library."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["median", "percentile", "theil_sen"]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: always a value that was measured."""
    if not values:
        raise ValueError("a percentile needs at least one value")
    rank = max(1, math.ceil(share / 100 * len(values)))
    return sorted(values)[rank - 1]


def median(values: Sequence[float]) -> float:
    """Return the middle, of an even number the mean of the middle two."""
    if not values:
        raise ValueError("a median needs at least one value")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def theil_sen(values: Sequence[float]) -> float:
    """Return the median slope per step over all pairs; a few outliers don't move it."""
    slopes = [
        (values[later] - values[earlier]) / (later - earlier)
        for earlier in range(len(values))
        for later in range(earlier + 1, len(values))
    ]
    return median(slopes) if slopes else 0.0
