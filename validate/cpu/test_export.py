"""ONNX export, and the boxes it finds."""

from __future__ import annotations

from validate.checks import Measurements, check
from validate.exports import demand_parity
from validate.facts import Comparison


@check(
    "C18",
    why="An export that finds other boxes is worse than one that fails.",
    fix="Compare the versions of torch, onnx, onnxslim and onnxruntime with the last good digest.",
)
def test_onnx_parity(export: Comparison, measurements: Measurements) -> str:
    """The ONNX export works offline and finds the boxes that its checkpoint finds."""
    return demand_parity(export, measurements)
