"""Whose build cache it is: ours only while the engine in use is the one that we started."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builder.engine import install as module
from builder.engine.daemon import Daemon
from builder.engine.install import owns_engine

SOCKET = "unix:///var/run/docker.sock"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose dockerd runs, as far as a /proc of its own says so."""
    daemon = Daemon(folder=tmp_path / ".cache" / "engine", proc=tmp_path / "proc")
    daemon.folder.mkdir(parents=True)
    daemon.config.write_text(json.dumps({"hosts": [SOCKET]}))
    daemon.pid_file.write_text("77\n")
    process = tmp_path / "proc" / "77"
    process.mkdir(parents=True)
    words = ["/usr/sbin/dockerd", "--config-file", os.fspath(daemon.config), ""]
    (process / "cmdline").write_text("\0".join(words))
    monkeypatch.setattr(module, "our_daemon", lambda _: daemon)
    monkeypatch.setattr(module, "engine_host", lambda: SOCKET)
    return tmp_path


def test_the_engine_that_we_started_and_use(root: Path) -> None:
    assert owns_engine(root)


def test_ours_runs_but_another_is_in_use(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "engine_host", lambda: "tcp://192.0.2.1:2376")
    assert not owns_engine(root)


def test_ours_has_ended(root: Path) -> None:
    (root / "proc" / "77" / "cmdline").unlink()
    assert not owns_engine(root)


def test_nothing_was_started_here(root: Path) -> None:
    (root / ".cache" / "engine" / "daemon.json").unlink()
    assert not owns_engine(root)
