from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from builder.errors import BuildFailed
from builder.folders import Folders
from builder.plan import Plan
from builder.records import BuildRecord, read_record
from builder.talk import Talk
from tests.unit.room_support import (
    CACHE,
    GB,
    Disk,
    make_plans,
    make_record,
    make_room,
    write_records,
)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def talk(said: io.StringIO) -> Talk:
    return Talk(Console(file=said, width=300))


@pytest.fixture(scope="module")
def plans(root: Path) -> list[Plan]:
    return make_plans(root, "yolov8-cu121", "yolov8-cu126", "yolov8-cu128", "yolov12-cu128")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk(size=60 * GB)
    found.install(monkeypatch)
    return found


def built(disk: Disk, folders: Folders, plan: Plan, *, cache: int = 0) -> BuildRecord:
    """Put the row's image on the disk, and its records into out/."""
    record = make_record(plan)
    assert record.digest is not None
    disk.images[record.reference] = record.digest
    disk.cache += cache
    write_records(folders, plan, record)
    return record


def evicted(folders: Folders, plan: Plan) -> bool:
    record = read_record(folders.row(plan.row.id) / "build.json", BuildRecord)
    assert record is not None
    assert record.status == "built"
    assert record.digest is not None
    return record.evicted is not None


def test_nothing_goes_while_there_is_room(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan], said: io.StringIO
) -> None:
    room = make_room(disk, folders, talk)
    room.offer(plans[0], built(disk, folders, plans[0], cache=CACHE))
    room.before(plans[1])
    assert (len(disk.images), disk.cache, said.getvalue()) == (1, CACHE, "")


def test_cache_goes_first_then_the_oldest_offer_and_no_more_than_needed(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan], said: io.StringIO
) -> None:
    room = make_room(disk, folders, talk)
    for plan in plans[:2]:
        room.offer(plan, built(disk, folders, plan, cache=CACHE))
    assert disk.free == 18 * GB
    room.before(plans[2])
    assert (len(disk.images), disk.cache) == (2, 0), "24 GB and the floor fit into 36"
    disk.size = 46 * GB
    room.before(plans[2])
    assert [evicted(folders, plan) for plan in plans[:2]] == [True, False]
    assert "yolov8-cu121: image evicted to make room, its records stay" in said.getvalue()


def test_what_an_earlier_run_left_goes_last_and_not_from_the_stack_at_work(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan]
) -> None:
    room = make_room(disk, folders, talk)
    for plan in plans[:3]:
        room.offer_later(plan.row.stack.name, built(disk, folders, plan))
    room.offer_later("cu126", make_record(plans[1], digest="sha256:" + "0" * 64))
    disk.size = 36 * GB
    room.before(plans[0])
    # Its image is there, so a further row would need 1 GB; the last stack's goes for that.
    assert [evicted(folders, plan) for plan in plans[:3]] == [False, False, True]


def test_what_nobody_offered_stays_and_the_row_is_refused(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan]
) -> None:
    disk.size = 30 * GB
    built(disk, folders, plans[0], cache=CACHE)
    with pytest.raises(BuildFailed, match=r"yolov8-cu128: not enough disk: /engine: 18\.0 GB free"):
        make_room(disk, folders, talk).before(plans[2])
    assert len(disk.images) == 1
    assert not evicted(folders, plans[0])


def test_a_foreign_engines_cache_stays(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan]
) -> None:
    """Its records count for the row, because they may be its own: then too little is asked for."""
    room = make_room(disk, folders, talk, ours=False)
    disk.size, disk.cache = 30 * GB, 20 * GB
    room.before(plans[2])
    with room.tidied():
        pass
    assert disk.cache == 20 * GB


def test_rows_of_the_stack_at_work_are_not_evicted_for_it(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan]
) -> None:
    room = make_room(disk, folders, talk)
    room.before(plans[2])
    room.offer(plans[2], built(disk, folders, plans[2]))
    disk.size = 14 * GB
    with pytest.raises(BuildFailed):
        room.before(plans[3])
    assert not evicted(folders, plans[2])


def test_an_image_in_use_stays_and_is_named(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan], said: io.StringIO
) -> None:
    room = make_room(disk, folders, talk)
    record = built(disk, folders, plans[0])
    disk.in_use.add(record.reference)
    room.offer(plans[0], record)
    room.clear()
    assert "yolov8-cu121: its image stays: a container uses it" in said.getvalue()
    assert not evicted(folders, plans[0])


def test_a_further_row_needs_little_and_a_given_size_is_believed(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan]
) -> None:
    built(disk, folders, plans[2])
    disk.size = 12 * GB + 8 * GB
    make_room(disk, folders, talk).before(plans[3])
    make_room(disk, folders, talk, row_space=5 * GB).before(plans[0])
    make_room(disk, folders, talk, row_space=0).before(plans[0])
    with pytest.raises(BuildFailed):
        make_room(disk, folders, talk, row_space=7 * GB).before(plans[0])


def test_an_outdated_image_of_the_stack_saves_no_room(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan]
) -> None:
    """Its layers are others: with a new torch the whole stack is made again."""
    built(disk, folders, plans[2])
    name = "package torch"
    older = {**plans[2].inputs, name: plans[2].inputs[name].replace("2.8.0", "2.7.0")}
    assert older != plans[2].inputs
    write_records(folders, plans[2], make_record(plans[2], inputs=older))
    disk.size = 12 * GB + 8 * GB
    with pytest.raises(BuildFailed, match="not enough disk"):
        make_room(disk, folders, talk).before(plans[3])


def test_a_damaged_record_of_another_row_stops_nothing(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan]
) -> None:
    built(disk, folders, plans[0])
    (folders.row(plans[0].row.id) / "build.json").write_text("{")
    make_room(disk, folders, talk).before(plans[2])


def test_our_cache_is_brought_below_its_budget_afterwards(
    disk: Disk, folders: Folders, talk: Talk, plans: list[Plan], said: io.StringIO
) -> None:
    disk.cache = 6 * GB
    room = make_room(disk, folders, talk, cache_budget=5 * GB)
    with room.tidied():
        pass
    assert disk.cache == 6 * GB, "nothing was built, so nothing is measured"
    with room.tidied():
        room.before(plans[0])
    assert disk.cache == 0
    assert "build cache: 6.0 GB removed" in said.getvalue()
