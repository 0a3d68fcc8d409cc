from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import InvalidInput, SourceUnreachable
from builder.lock import Lock, load_lock
from builder.matrix import load_matrix, select
from builder.preflight import DeadSource, dead_sources, parse_allowed, survey, wanted_by
from builder.records import Missing
from builder.spec import ImageSpec


def rows_and_locks(root: Path, pattern: str) -> tuple[tuple[ImageSpec, ...], dict[str, Lock]]:
    rows = select(load_matrix(root / "matrix.yaml").rows, pattern)
    return rows, {row.id: load_lock(root / "locks", row) for row in rows}


def all_parts() -> frozenset[str]:
    return parse_allowed("auto")


def missing(root: Path, pattern: str, allowed: frozenset[str], dead: str) -> tuple[Missing, ...]:
    rows, locks = rows_and_locks(root, pattern)
    found = survey(
        rows,
        locks,
        allowed,
        reach=lambda url: "no route to host" if dead in url else None,
        have=lambda _: False,
    )
    return found[rows[0].id]


def test_nothing_is_missing_where_everything_answers(root: Path) -> None:
    assert missing(root, "yolov12-cu128", frozenset(), dead="no such word") == ()


def test_parts_whose_source_is_dead_are_missing_with_the_reason(root: Path) -> None:
    (tensorrt,) = missing(root, "yolov12-cu128", all_parts(), dead="nvidia")
    assert tensorrt.part == "tensorrt"
    assert "tensorrt_cu12_libs" in tensorrt.source
    assert tensorrt.reason == "no route to host"
    github = missing(root, "yolov12-cu128", all_parts(), dead="github")
    assert [item.part for item in github] == ["flash-attn", "weights"]


def test_a_part_without_known_hash_is_asked_for_like_any_other(root: Path) -> None:
    """It is resolved by the first build that reaches it."""
    assert missing(root, "yolov12-cu121", all_parts(), dead="no such word") == ()
    (flash,) = missing(root, "yolov12-cu121", all_parts(), dead="Dao-AILab")
    assert (flash.part, flash.reason) == ("flash-attn", "no route to host")


def test_a_file_whose_name_is_only_supposed_is_asked_for_at_its_index(root: Path) -> None:
    rows, locks = rows_and_locks(root, "yolov8-cu128")
    lock = locks["yolov8-cu128"]
    unresolved = tuple(item.model_copy(update={"sha256": None}) for item in lock.record.artifacts)
    record = lock.record.model_copy(update={"artifacts": unresolved})
    wanted = dict(wanted_by(rows[0], Lock(record=record, text=lock.text), lambda _: False))
    assert wanted["tensorrt"] == "https://pypi.nvidia.com/tensorrt-cu12-libs/"


def test_weights_in_the_store_need_no_network(root: Path) -> None:
    rows, locks = rows_and_locks(root, "yolov8-cu128")
    found = survey(
        rows,
        locks,
        frozenset(),
        reach=lambda url: "no route to host" if "github" in url else None,
        have=lambda _: True,
    )
    assert found == {"yolov8-cu128": ()}


def test_without_leave_a_dead_source_stops_everything_and_all_are_named(root: Path) -> None:
    with pytest.raises(SourceUnreachable) as caught:
        missing(root, "yolov12-cu128", frozenset(), dead="")
    text = str(caught.value)
    assert "yolov12-cu128, step tensorrt: https://pypi.nvidia.com/" in text
    assert "allow a partial image: --allow-missing flash-attn" in text
    assert "yolo12n.pt: no route to host (1 more files there)" in text
    assert text.count("step weights") == 1
    assert caught.value.exit_code == 10


def test_a_host_that_many_rows_need_is_named_once() -> None:
    dead = [
        DeadSource(row=f"row{n}", part="torch", url=f"https://h/{n % 2}", reason="no route")
        for n in range(5)
    ]
    (finding,) = dead_sources(dead)
    assert str(finding) == (
        "5 rows (row0, row1, ...), step torch: https://h/0: no route (1 more files there)\n"
        "    There is no image without this part. Check network and proxies, name a mirror under"
        " sources: in matrix.yaml, or leave the row out by a pattern."
    )


def test_torch_can_never_be_missing(root: Path) -> None:
    with pytest.raises(SourceUnreachable, match="There is no image without this part"):
        missing(root, "yolov8-cpu", all_parts(), dead="download.pytorch.org")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, set()),
        ("auto", {"tensorrt", "flash-attn", "weights"}),
        ("weights, tensorrt", {"weights", "tensorrt"}),
    ],
)
def test_allowed_parts(text: str | None, parts: set[str]) -> None:
    assert parse_allowed(text) == parts


def test_an_unknown_part_is_bad_usage() -> None:
    with pytest.raises(InvalidInput, match="unknown part 'torch'\n    Write auto, or some of"):
        parse_allowed("weights,torch")
