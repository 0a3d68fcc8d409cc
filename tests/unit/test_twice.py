"""Two builds of one row: apart from its own records, and of the same files."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from builder import twice
from builder.build import Builder, BuildOptions, Origin
from builder.engine.client import EngineLost
from builder.errors import InvalidInput
from builder.folders import Folders
from builder.plan import Plan
from builder.records import BuildRecord, read_record
from builder.repro import ReproRecord
from builder.sources import Sources
from builder.talk import Talk
from builder.twice import build_twice

ROW = "yolov8-cu128"
PLAN = cast(
    "Plan",
    SimpleNamespace(row=SimpleNamespace(id=ROW), record=SimpleNamespace(build_key="0" * 64)),
)


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """A builder whose engine has nothing and does nothing."""
    (tmp_path / "images" / "base").mkdir(parents=True)
    (tmp_path / "images" / "base" / "Dockerfile").write_text("FROM scratch\n")
    session = SimpleNamespace(client=None)
    monkeypatch.setattr(Builder, "session", lambda _: nullcontext(session))
    monkeypatch.setattr(twice, "tags_of", lambda *_: [])
    monkeypatch.setattr(twice, "image_digest", lambda *_: None)
    monkeypatch.setattr(twice, "engine_version", lambda _: "26.1")
    return Builder(
        folders=Folders(tmp_path),
        sources=cast("Sources", None),
        origin=Origin(revision="0", source=""),
        options=BuildOptions(),
        talk=Talk(),
    )


def builds(then: Callable[[Builder], None]) -> Callable[..., BuildRecord]:
    """A build that does `then` and says it made the same image as always."""

    def build(apart: Builder, _plan: Plan, tag: str, _within: object) -> BuildRecord:
        then(apart)
        return BuildRecord(
            id=ROW,
            status="built",
            digest=f"sha256:{'1' * 64}",
            build_key="0" * 64,
            reference=tag,
            seconds=1.5,
            size_bytes=1,
            missing=(),
            finished="2026-11-25T00:00:00+00:00",
        )

    return build


def test_both_builds_are_without_cache_and_apart(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Builder] = []
    monkeypatch.setattr(twice, "_build", builds(seen.append))
    record = build_twice(builder, PLAN)
    assert record.identical
    assert record.seconds == (1.5, 1.5)
    own = builder.folders.row(ROW)
    assert read_record(own / "repro.json", ReproRecord) == record
    assert [each.options.no_cache for each in seen] == [True, True]
    places = [each.folders.row(ROW) for each in seen]
    assert places == [own / "repro" / name / ROW for name in ("first", "second")]
    # What a build reads and may keep is shared; only results are apart.
    assert {each.folders.cache for each in seen} == {builder.folders.cache}
    assert {each.folders.images for each in seen} == {builder.folders.images}


def test_files_that_are_edited_meanwhile_are_no_difference_of_builds(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(apart: Builder) -> None:
        if apart.folders.out.name == "second":
            (apart.folders.images / "base" / "Dockerfile").write_text("FROM other\n")

    monkeypatch.setattr(twice, "_build", builds(edit))
    with pytest.raises(InvalidInput, match=r"edited while yolov8-cu128(.|\n)*verify-repro"):
        build_twice(builder, PLAN)
    assert not (builder.folders.row(ROW) / "repro.json").exists()


def test_an_image_that_stays_is_said_and_hides_no_error(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Builder) -> None:
        raise InterruptedError

    def gone(*_: object) -> str:
        raise EngineLost("no answer")

    monkeypatch.setattr(twice, "_build", builds(fail))
    monkeypatch.setattr(twice, "image_digest", gone)
    with pytest.raises(InterruptedError):
        build_twice(builder, PLAN)
    said = capsys.readouterr().err
    for name in ("first", "second"):
        assert f"{ROW}:repro-{name}-{os.getpid()} stays: no answer; remove it with:" in said


@pytest.mark.parametrize(
    ("tag", "left_over"),
    [
        ("yolo-images/row:repro-first-4194305", True),  # above the highest process id of Linux
        ("yolo-images/row:repro-second-1", False),  # the first process never ends
        ("yolo-images/row:local", False),
        ("yolo-images/row:repro-third-4194305", False),
    ],
)
def test_only_tags_of_runs_that_are_gone_are_left_over(tag: str, left_over: bool) -> None:
    assert twice._is_left_over(tag) is left_over
