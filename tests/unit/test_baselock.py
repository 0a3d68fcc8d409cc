from __future__ import annotations

from pathlib import Path

from builder.baselock import drift, lock_path, parse_packages, write_base_lock


def test_packages_are_written_sorted_and_read_back(tmp_path: Path) -> None:
    path = lock_path(tmp_path, "bookworm")
    packages = {"tini": "0.19.0-1", "apt": "2.6.1", "libc6": "2.36-9+deb12u13"}
    write_base_lock(path, packages)
    assert path.name == "base-bookworm.txt"
    assert path.read_text().splitlines()[1:] == [
        "apt=2.6.1",
        "libc6=2.36-9+deb12u13",
        "tini=0.19.0-1",
    ]
    assert parse_packages(path.read_text()) == packages


def test_drift_names_every_change() -> None:
    locked = {"a": "1", "b": "1", "gone": "1"}
    assert list(drift(locked, {"a": "1", "b": "2", "new": "1"})) == [
        "b 1 -> 2",
        "gone 1 -> (none)",
        "new (none) -> 1",
    ]
    assert list(drift(locked, dict(locked))) == []
