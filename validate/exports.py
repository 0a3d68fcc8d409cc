"""Whether an export worked and finds what its checkpoint finds."""

from __future__ import annotations

from validate.checks import Measurements, failed, not_measured
from validate.facts import Comparison
from validate.parity import FP32, compare

__all__ = ["demand_export", "demand_parity"]

# Fewer pairs would agree by luck.
FEWEST_BOXES = 8


def demand_export(seen: Comparison, measurements: Measurements) -> str:
    """Fail unless the export was written and could be loaded and run."""
    if seen.error is not None:
        failed(f"{seen.kind}: {seen.step} failed: {seen.error}")
    measurements.add(f"export.{seen.kind}.seconds", seen.export_seconds, "s")
    measurements.add(f"export.{seen.kind}.size", seen.export_bytes, "B")
    return f"{seen.kind} of {seen.export_bytes / 1e6:.1f} MB in {seen.export_seconds:.1f} s"


def demand_parity(seen: Comparison, measurements: Measurements) -> str:
    """Fail unless both found the same boxes, and enough of them to mean something."""
    demand_export(seen, measurements)
    parity = compare(seen.checkpoint_boxes, seen.export_boxes, FP32)
    prefix = f"parity.{seen.kind}"
    measurements.add(f"{prefix}.boxes", parity.compared, "boxes", n=len(seen.checkpoint_boxes))
    if parity.compared + len(parity.lonely) < FEWEST_BOXES:
        not_measured(
            f"only {parity.compared} boxes with a score above {FP32.strong}: too few to compare"
        )
    measurements.add(f"{prefix}.smallest_overlap", parity.smallest_overlap, "", parity.compared)
    measurements.add(f"{prefix}.score_difference", parity.largest_difference, "", parity.compared)
    trained = f"weights trained for {seen.train_seconds:.0f} s on shapes"
    source = trained if seen.trained else "official weights"
    if not parity.within(FP32):
        failed(f"{seen.kind} differs from its checkpoint ({source}): {parity}")
    return f"{parity} ({source}, {seen.imgsz} px)"
