"""The rows of `make quickstart`, built and proven; earlier results count while nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker import DockerClient

from builder.records import BuildRecord, Outcome, PlanRecord
from tests.integration.conftest import ROWS
from validate.run import validate_image
from validate.verdict import TIERS

# What a machine without GPU, TensorRT or official checkpoints can't know; all else must pass.
NEEDS_WEIGHTS = {"C20"}
NEEDS_GPU = {"G02", "G07", "G12", "G14", "G21"}


@pytest.mark.parametrize("row", ROWS)
def test_the_row_is_proven(
    quickstart: dict[str, tuple[PlanRecord, BuildRecord]], root: Path, row: str
) -> None:
    plan, build = quickstart[row]
    record = validate_image(plan, build, root / "out", tiers=TIERS)
    told = [f"{c.id} {c.outcome.value} {c.saw or c.reason}" for c in record.checks]
    assert record.verdict is Outcome.PASSED, told
    open_questions = {c.id for c in record.checks if c.outcome is Outcome.NOT_MEASURED}
    allowed = NEEDS_WEIGHTS if any(m.part == "weights" for m in plan.missing) else set()
    assert open_questions <= allowed | (set() if record.host.gpu else NEEDS_GPU), told
    assert record.measurements["parity.onnx.boxes"].value >= 7
    assert record.measurements["steady.throughput"].n == 100


def test_both_families_share_every_layer_up_to_the_checkpoints(
    quickstart: dict[str, tuple[PlanRecord, BuildRecord]], client: DockerClient
) -> None:
    layers = [
        client.images.get(build.reference).attrs["RootFS"]["Layers"]
        for _, build in quickstart.values()
    ]
    # Its own are checkpoints and runtime; flash-attn adds a layer to the second family only.
    assert len(set(layers[0]) - set(layers[1])) == 2
    assert len(set(layers[0]) & set(layers[1])) >= 8
