from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.folders import Folders
from builder.session import remove_leftovers


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    found = Folders(tmp_path)
    found.cache.mkdir()
    found.row("a").mkdir(parents=True)
    return found


@pytest.fixture
def dead() -> int:
    """The pid of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


@pytest.fixture
def living() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_secrets_of_dead_builders_go(folders: Folders, dead: int, living: int) -> None:
    names = [f"secrets-{dead}", f"secrets-{living}", "secrets-x7_abc", f"secrets-{os.getpid()}"]
    for name in names:
        (folders.cache / name).mkdir()
        (folders.cache / name / "uv").write_text("token")
    removed = {path.name for path in remove_leftovers(folders)}
    # Our own pid was another process's before: we have not begun yet.
    assert removed == {f"secrets-{dead}", "secrets-x7_abc", f"secrets-{os.getpid()}"}
    assert [path.name for path in folders.cache.iterdir()] == [f"secrets-{living}"]


def test_unfinished_records_go_and_finished_ones_stay(folders: Folders) -> None:
    row = folders.row("a")
    for name in ("build.json", ".build.json.x8f3k2ab", "build.log"):
        (row / name).write_text("{")
    assert [path.name for path in remove_leftovers(folders)] == [".build.json.x8f3k2ab"]
    assert sorted(path.name for path in row.iterdir()) == ["build.json", "build.log"]
