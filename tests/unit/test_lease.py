from __future__ import annotations

import fcntl
import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from builder.errors import BuildFailed
from builder.lease import engine_lock, lease
from builder.talk import Talk


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def talk(said: io.StringIO) -> Talk:
    return Talk(Console(file=said, width=300))


@contextmanager
def another_holds(path: Path, note: str) -> Iterator[None]:
    """The lock as another process would hold it: through an open file of its own."""
    with path.open("w") as file:
        file.write(note)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


NOTE = json.dumps({"pid": 77, "since": "2026-11-25", "command": "build.py build", "folder": "/x"})


def test_the_holder_signs_and_gives_back(tmp_path: Path, talk: Talk) -> None:
    path = tmp_path / "cache" / "build.lock"
    with lease(path, talk=talk):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_within_a_process_it_can_be_taken_again(tmp_path: Path, talk: Talk) -> None:
    path = tmp_path / "build.lock"
    with lease(path, talk=talk, wait=False):
        with lease(path, talk=talk, wait=False):
            pass
        # The inner one gives nothing back that the outer one still holds.
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("note", "who"),
    [
        (NOTE, "pid 77, since 2026-11-25: build.py build in /x"),
        ("", "somebody who has not said who"),
        ('{"pid": 1', "somebody who has not said who"),
    ],
)
def test_who_does_not_wait_is_told_for_whom(
    tmp_path: Path, talk: Talk, note: str, who: str
) -> None:
    path = tmp_path / "build.lock"
    with (
        another_holds(path, note),
        pytest.raises(BuildFailed) as caught,
        lease(path, talk=talk, wait=False),
    ):
        pass
    assert f"another build is running: {who}" in str(caught.value)


def test_who_waits_goes_on_when_the_other_ends(
    tmp_path: Path, talk: Talk, said: io.StringIO
) -> None:
    path = tmp_path / "build.lock"
    told, ended = threading.Event(), threading.Event()

    def other() -> None:
        with another_holds(path, NOTE):
            told.set()
            while "waiting for another build: pid 77" not in said.getvalue():
                ended.wait(0.01)

    thread = threading.Thread(target=other)
    thread.start()
    told.wait(5)
    with lease(path, talk=talk):
        assert "the other build has ended" in said.getvalue()
    thread.join()


def test_a_lock_of_another_user_is_held_and_not_written(tmp_path: Path, talk: Talk) -> None:
    path = tmp_path / "build.lock"
    path.write_text(NOTE)
    path.chmod(0o444)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    with lease(path, talk=talk), path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.read_text() == NOTE


def test_a_link_is_not_followed(tmp_path: Path, talk: Talk) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    (tmp_path / "build.lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"), lease(tmp_path / "build.lock", talk=talk):
        pass
    assert precious.read_text() == "keep me"


def test_each_engine_has_its_own_lock() -> None:
    one, other = engine_lock("7cacc47e-0ec1"), engine_lock("ABCD:EFGH/../x")
    assert one != other
    assert one.parent == other.parent
    assert other.name == "yolo-images-ABCD-EFGH----x.lock"
