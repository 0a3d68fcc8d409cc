from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from builder import sweep as module
from builder.build import BuildOptions
from builder.errors import (
    BuildFailed,
    EngineUnavailable,
    Finding,
    InvalidInput,
    SourceUnreachable,
    ToolkitError,
    ValidationFailed,
)
from builder.folders import Folders
from builder.plan import Plan
from builder.records import BuildRecord, read_record
from builder.spec import ImageSpec
from builder.sweep import Swept, sweep, together
from builder.talk import Talk
from tests.unit.room_support import GB, Disk, make_plans, make_record, make_room, write_records

IDS = ("yolov8-cu121", "yolov12-cu121", "yolov8-cu126", "yolov12-cu126", "yolov8-cu128")


@dataclass
class Workshop:
    """A builder whose images cost nothing but room on a disk."""

    folders: Folders
    disk: Disk
    known: dict[str, Plan]
    said: io.StringIO = field(default_factory=io.StringIO)
    options: BuildOptions = field(default_factory=BuildOptions)
    built: list[str] = field(default_factory=list)
    broken: dict[str, ToolkitError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.talk = Talk(Console(file=self.said, width=300))

    @property
    def rows(self) -> list[ImageSpec]:
        return [plan.row for plan in self.known.values()]

    @contextmanager
    def session(self) -> Iterator[Any]:
        yield SimpleNamespace(client=None, room=make_room(self.disk, self.folders, self.talk))

    def plan(self, rows: Sequence[ImageSpec]) -> list[Plan]:
        return [self.known[row.id] for row in rows]

    def build(self, plans: Sequence[Plan], session: Any) -> list[BuildRecord]:
        (plan,) = plans
        session.room.before(plan)
        if plan.row.id in self.broken:
            raise self.broken[plan.row.id]
        record, digest = make_record(plan), f"sha256:{plan.record.build_key}"
        if self.disk.images.get(record.reference) == digest:
            record = record.model_copy(update={"status": "unchanged"})
        else:
            self.built.append(plan.row.id)
        self.disk.images[record.reference] = digest
        write_records(self.folders, plan, record)
        return [record]

    def sweep(self, **options: Any) -> Swept:
        builder: Any = self
        return sweep(builder, self.rows, **options)

    def record(self, row: str) -> BuildRecord:
        found = read_record(self.folders.row(row) / "build.json", BuildRecord)
        assert found is not None
        return found


@pytest.fixture
def workshop(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    # Two stacks of 12 GB fit beside what a third one needs to start with, but for 2 GB.
    disk = Disk(size=48 * GB)
    disk.install(monkeypatch)
    plans = make_plans(root, *IDS)
    return Workshop(Folders(tmp_path), disk, {plan.row.id: plan for plan in plans})


def finding(what: str) -> Finding:
    return Finding(place="here", what=what)


def test_a_disk_that_cannot_hold_all_gets_through_all(workshop: Workshop) -> None:
    swept = workshop.sweep()
    assert swept.errors == []
    assert workshop.built == list(IDS)
    assert [record.id for record in swept.records] == list(IDS)
    gone = [row for row in IDS if workshop.record(row).evicted is not None]
    assert gone == ["yolov8-cu121", "yolov12-cu121"], "the oldest stack, and no more than needed"


def test_the_second_time_nothing_is_built(workshop: Workshop) -> None:
    first = workshop.sweep()
    workshop.built.clear()
    second = workshop.sweep()
    assert workshop.built == []
    assert [record.digest for record in second.records] == [r.digest for r in first.records]
    assert second.records[0].status == "built", "never unchanged: the engine hasn't got it"
    assert "yolov8-cu121: nothing has changed; finished before, evicted" in workshop.said.getvalue()


def test_an_evicted_row_is_built_again_when_its_proof_no_longer_holds(workshop: Workshop) -> None:
    workshop.sweep()
    workshop.built.clear()
    workshop.sweep(proven=lambda *_: False)
    # Bringing these back cost the last stack its place, until its own turn came.
    assert workshop.built == ["yolov8-cu121", "yolov12-cu121", "yolov8-cu128"]
    assert workshop.disk.free >= 0


def test_an_evicted_row_is_built_again_when_its_inputs_change(workshop: Workshop) -> None:
    workshop.sweep()
    workshop.built.clear()
    plan = workshop.known["yolov8-cu121"]
    write_records(
        workshop.folders,
        plan,
        workshop.record("yolov8-cu121").model_copy(update={"build_key": "0" * 64}),
    )
    workshop.sweep()
    assert workshop.built == ["yolov8-cu121"]


def test_what_comes_back_as_another_image_is_told(workshop: Workshop) -> None:
    workshop.sweep()
    plan = workshop.known["yolov8-cu121"]
    other = workshop.record("yolov8-cu121").model_copy(update={"digest": "sha256:" + "f" * 64})
    write_records(workshop.folders, plan, other)
    workshop.sweep(proven=lambda *_: False)
    assert "yolov8-cu121: built again with another digest than before" in workshop.said.getvalue()


def test_what_failed_its_proof_stays(workshop: Workshop) -> None:
    workshop.sweep(evict="always", prove=lambda plan, _: plan.row.id != "yolov8-cu126")
    assert [workshop.record(row).evicted is None for row in IDS] == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_nothing_is_evicted_where_that_is_forbidden(workshop: Workshop) -> None:
    swept = workshop.sweep(evict="never")
    (error,) = swept.errors
    assert "not enough disk" in str(error)
    assert all(workshop.record(row).evicted is None for row in IDS[:4])


def test_one_row_that_fails_costs_no_other(workshop: Workshop) -> None:
    workshop.broken = {
        "yolov8-cu121": BuildFailed(finding("a step failed")),
        "yolov12-cu126": SourceUnreachable(finding("no route")),
    }
    swept = workshop.sweep()
    assert [record.id for record in swept.records] == [IDS[1], IDS[2], IDS[4]]
    error = together(swept.errors)
    assert (error.exit_code, str(error)) == (6, "here: a step failed\nhere: no route")


def test_without_an_engine_it_ends_at_once_and_forgets_no_finding(workshop: Workshop) -> None:
    workshop.broken = {
        "yolov8-cu121": BuildFailed(finding("a step failed")),
        "yolov12-cu121": EngineUnavailable(finding("the engine went away")),
    }
    with pytest.raises(EngineUnavailable) as caught:
        workshop.sweep()
    assert [item.what for item in caught.value.findings] == [
        "the engine went away",
        "a step failed",
    ]
    assert workshop.built == []


def test_a_proven_image_is_exported_once(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: dict[str, str] = {}

    def save(_client: object, _reference: str, digest: str, **options: Any) -> None:
        assert options["name"] not in there
        there[options["name"]] = digest

    monkeypatch.setattr(module, "save", save)
    monkeypatch.setattr(module, "exported_digest", lambda _, name: there.get(name))
    layout = workshop.folders.root / "layout"

    def passed(plan: Plan, _record: BuildRecord) -> bool:
        return plan.row.id != "yolov8-cu126"

    for _ in range(2):
        workshop.sweep(export=layout, prove=passed)
    assert set(there) == set(IDS) - {"yolov8-cu126"}
    workshop.built.clear()
    del there["yolov8-cu121"]
    workshop.sweep(export=layout, prove=passed)
    assert workshop.built == ["yolov8-cu121"], "evicted, and its export is gone"


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ((SourceUnreachable, ValidationFailed), 7),
        ((ValidationFailed, BuildFailed), 6),
        ((InvalidInput, SourceUnreachable), 10),
        ((InvalidInput,), 2),
    ],
)
def test_errors_come_together_under_the_worst(
    kinds: tuple[type[ToolkitError], ...], code: int
) -> None:
    error = together([kind(finding(kind.__name__)) for kind in kinds])
    assert error.exit_code == code
    assert len(error.findings) == len(kinds)
