from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.engine import daemon as module
from builder.engine.daemon import Daemon, merged_config
from builder.errors import EngineUnavailable
from builder.talk import Talk


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process that isn't ours to end."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            yield process.pid
            assert process.poll() is None
        finally:
            process.kill()


def make_daemon(folder: Path, pid: int, *cmdline: str) -> Daemon:
    """A daemon whose pid file says `pid`, on a /proc where that process runs `cmdline`."""
    proc = folder / "proc"
    if cmdline:
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "cmdline").write_text("".join(f"{word}\0" for word in cmdline))
    daemon = Daemon(folder=folder, proc=proc)
    daemon.pid_file.write_text(f"{pid}\n")
    return daemon


def test_our_process_is_known_by_its_configuration(tmp_path: Path) -> None:
    config = str(Daemon(folder=tmp_path).config)
    daemon = make_daemon(tmp_path, 77, "/usr/sbin/dockerd", "--config-file", config)
    assert daemon.pid() == 77


@pytest.mark.parametrize(
    "cmdline",
    [
        (),
        ("/usr/sbin/dockerd", "--config-file", "/etc/docker/daemon.json"),
        ("/usr/sbin/dockerd",),
        ("vim", "{config}"),
    ],
)
def test_a_stale_or_recycled_pid_is_never_ended(
    tmp_path: Path, bystander: int, cmdline: tuple[str, ...]
) -> None:
    config = str(Daemon(folder=tmp_path).config)
    words = [word.replace("{config}", config) for word in cmdline]
    daemon = make_daemon(tmp_path, bystander, *words)
    assert daemon.pid() is None
    assert not daemon.stop(Talk())
    assert not daemon.pid_file.exists()


def test_a_damaged_pid_file_means_no_process(tmp_path: Path) -> None:
    daemon = Daemon(folder=tmp_path)
    daemon.pid_file.write_text("not a number")
    assert daemon.pid() is None


FAKE_DOCKERD = """#!/bin/sh
echo "failed to start: $2" >&2
{then}
"""


@pytest.fixture
def dockerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that is found first on PATH."""
    path = tmp_path / "bin" / "dockerd"
    path.parent.mkdir()
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "_user_config", dict)
    return path


def test_a_daemon_that_ends_at_once_shows_its_log(
    dockerd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dockerd.write_text(FAKE_DOCKERD.format(then="exit 1"))
    dockerd.chmod(0o755)
    monkeypatch.setattr(module, "answers", lambda _: False)
    daemon = Daemon(folder=tmp_path / "engine")
    with pytest.raises(EngineUnavailable, match=r"ended right after its start\n *failed to start:"):
        daemon.start(Talk())
    assert not daemon.pid_file.exists()


def test_our_process_is_stopped_and_forgotten(tmp_path: Path) -> None:
    daemon = Daemon(folder=tmp_path)
    daemon.config.write_text("{}")
    argv = ["/usr/sbin/dockerd", "-f", str(daemon.config)]
    with subprocess.Popen(argv, executable="tail", stdout=subprocess.DEVNULL) as process:
        try:
            daemon.pid_file.write_text(f"{process.pid}\n")
            limit = time.monotonic() + 5
            # The kernel lets the parent go on before the new command line can be read.
            while daemon.pid() is None and time.monotonic() < limit:
                time.sleep(0.01)
            assert daemon.pid() == process.pid
            assert daemon.stop(Talk())
            assert process.wait(5) == -signal.SIGTERM
        finally:
            process.kill()
    assert not daemon.pid_file.exists()
    assert not daemon.stop(Talk())


def test_what_an_administrator_configured_is_kept() -> None:
    user = {"registry-mirrors": ["https://m.example"], "features": {"buildkit": True}, "hosts": []}
    merged = merged_config(user, {"hosts": ["unix:///x"]})
    assert merged["registry-mirrors"] == ["https://m.example"]
    assert merged["hosts"] == ["unix:///x"]
    assert merged["features"] == {"buildkit": True, "containerd-snapshotter": True}
