from __future__ import annotations

import errno
from pathlib import Path

import pytest

from builder.disk import (
    CONTEXTS,
    FIRST_ROW_CPU,
    FIRST_ROW_CUDA,
    NEXT_ROW,
    NEXT_ROW_FLASH,
    DiskWatch,
    Space,
    is_full,
    on_full_disk,
    parse_bytes,
    row_needs,
    space_of,
)
from builder.errors import BuildFailed, InvalidInput
from builder.matrix import load_matrix
from builder.spec import ImageSpec

GB = 10**9


@pytest.fixture(scope="module")
def rows(root: Path) -> dict[str, ImageSpec]:
    return {row.id: row for row in load_matrix(root / "matrix.yaml").rows}


def watch(free: dict[str, int], floor: int = 2 * GB) -> tuple[DiskWatch, list[float]]:
    """A watch on disks with this much free, and its clock."""
    now = [0.0]

    def look(place: Path) -> Space:
        return Space(place=place, free=free[str(place)], total=100 * GB)

    places = [Path(place) for place in free]
    return DiskWatch(places, floor=floor, look=look, clock=lambda: now[0]), now


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20 * GB), ("500 MB", 5 * 10**8), ("1.5g", 1_500_000_000), ("0", 0), ("7kB", 7000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text, "--min-free") == size


@pytest.mark.parametrize("text", ["", "many", "-1GB", "20GiB", "5 PB"])
def test_what_is_no_size_names_its_option(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--min-free: .* is not a size"):
        parse_bytes(text, "--min-free")


def test_the_first_row_of_an_unknown_stack(rows: dict[str, ImageSpec]) -> None:
    def needs(row: str) -> int:
        return row_needs(rows[row], stack_made=False, known_size=None, cached=0)

    assert needs("yolov8-cu128") == FIRST_ROW_CUDA
    assert needs("yolov8-cpu") == FIRST_ROW_CPU


def test_an_earlier_image_of_the_stack_says_more(rows: dict[str, ImageSpec]) -> None:
    """3.9 GB compressed took 21.1 GB."""
    row = rows["yolov8-cu128"]
    known = row_needs(row, stack_made=False, known_size=3_900_000_000, cached=0)
    assert known == pytest.approx(21.1 * GB + CONTEXTS, rel=0.01)


def test_the_build_cache_counts_for_the_row(rows: dict[str, ImageSpec]) -> None:
    """A build that was ended finds its layers again: it must not be refused for want of room."""
    row = rows["yolov8-cu128"]
    assert (
        row_needs(row, stack_made=False, known_size=None, cached=12 * GB)
        == FIRST_ROW_CUDA - 12 * GB
    )
    assert row_needs(row, stack_made=False, known_size=None, cached=90 * GB) == NEXT_ROW


def test_a_further_row_is_small(rows: dict[str, ImageSpec]) -> None:
    small = row_needs(rows["yolov8-cu128"], stack_made=True, known_size=4 * GB, cached=0)
    flash = row_needs(rows["yolov12-cu128"], stack_made=True, known_size=4 * GB, cached=0)
    assert (small, flash) == (NEXT_ROW, NEXT_ROW_FLASH)


def test_a_row_starts_only_where_it_fits_above_the_floor() -> None:
    disk, _ = watch({"/engine": 26 * GB, "/cache": 3 * GB})
    disk.require("row", 24 * GB)
    assert disk.fits(24 * GB)
    assert not disk.fits(24 * GB + 1)
    with pytest.raises(BuildFailed) as caught:
        disk.require("row", 25 * GB)
    text = str(caught.value)
    assert "row: not enough disk: /engine: 26.0 GB free of 100.0 GB" in text
    assert "It takes about 25.0 GB, and 2.0 GB must stay free." in text
    assert "--row-space" in text


def test_only_the_engines_disk_has_to_hold_the_row() -> None:
    disk, _ = watch({"/engine": 30 * GB, "/cache": 1 * GB})
    with pytest.raises(BuildFailed, match=r"/cache: 1\.0 GB free"):
        disk.require("row", 20 * GB)


def test_what_cannot_be_seen_stops_nothing() -> None:
    disk = DiskWatch((), unseen="not measurable")
    disk.require("row", 10**15)
    disk.check()
    assert disk.fits(10**15)
    assert "not measurable" in str(disk.full("step", "no space left on device", "build.log"))


def test_the_floor_is_looked_at_once_a_second() -> None:
    free = {"/engine": 3 * GB}
    disk, now = watch(free)
    disk.check()
    free["/engine"] = GB
    now[0] = 0.9
    disk.check()
    now[0] = 1.1
    with pytest.raises(BuildFailed) as caught:
        disk.check()
    text = str(caught.value)
    assert "/engine: the disk is almost full: /engine: 1.0 GB free of 100.0 GB" in text
    assert "to keep 2.0 GB free" in text
    assert "docker system df" in text


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("write /opt/x: no space left on device", True),
        ("head: error writing 'standard output': No space left on device", True),
        ("open /x: disk quota exceeded", True),
        ("unsupported diff media type: application/vnd.oci.image.layer.v1.tar+zstd: no", True),
        ("unsupported diff media type: text/plain", False),
        ("exit code: 1", False),
    ],
)
def test_a_full_disk_is_heard(text: str, full: bool) -> None:
    assert is_full(text) is full


def test_our_own_full_disk_is_told_in_the_same_words() -> None:
    with pytest.raises(BuildFailed, match=r"/cache/wheel: the disk is full"), on_full_disk("x"):
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/wheel")
    with pytest.raises(PermissionError), on_full_disk("x"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_space_is_measured_where_the_folder_will_be(tmp_path: Path) -> None:
    here, there = space_of(tmp_path), space_of(tmp_path / "not" / "yet")
    assert there.total == here.total > 0
    assert there.place == tmp_path / "not" / "yet"
