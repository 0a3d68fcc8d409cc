from __future__ import annotations

from pathlib import Path

import pytest

from builder.checkpoint import Lineage, lineage_of, read_checkpoint
from tests.checkpoints import small_checkpoint


@pytest.mark.parametrize("lineage", ["yolov8", "yolo11", "yolo12", "turbo"])
def test_the_stand_ins_have_the_lineage_that_they_play(tmp_path: Path, lineage: Lineage) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(small_checkpoint(lineage))
    assert lineage_of(read_checkpoint(path, verify=True)) == lineage
    assert path.stat().st_size < 4000
    assert small_checkpoint(lineage) == small_checkpoint(lineage) != small_checkpoint(lineage, "x")
