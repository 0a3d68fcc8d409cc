from __future__ import annotations

from pathlib import Path

from builder.matrix import load_matrix
from builder.schedule import by_stack, stacks


def test_rows_of_a_stack_stay_together_and_none_is_lost(root: Path) -> None:
    rows = sorted(load_matrix(root / "matrix.yaml").rows, key=lambda row: row.id)
    groups = stacks(rows)
    assert [len({row.stack.name for row in group}) for group in groups] == [1] * len(groups)
    assert len({group[0].stack.name for group in groups}) == len(groups)
    assert sorted(row.id for row in by_stack(rows)) == sorted(row.id for row in rows)


def test_the_first_row_mentioned_decides_which_stack_comes_first(root: Path) -> None:
    rows = {row.id: row for row in load_matrix(root / "matrix.yaml").rows}
    wanted = [rows[name] for name in ("yolov12-cu128", "yolov8-cpu", "yolov8-cu128")]
    order = [row.id for row in by_stack(wanted)]
    # Within the stack the row with flash-attn comes last: its later layers are its own.
    assert order == ["yolov8-cu128", "yolov12-cu128", "yolov8-cpu"]
