"""A dockerd of our own, for machines without systemd: started, found again, and stopped.

Only a process that this checkout started is ever ended. It is known by its pid file and by its
command line, which names our configuration file; a stale or recycled pid belongs to somebody else.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import docker
import requests
from docker.errors import DockerException

from builder.errors import EngineUnavailable, Finding
from builder.records import write_atomic
from builder.talk import Talk

__all__ = ["Daemon", "answers"]

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """Where our dockerd keeps its files (`folder`) and where it listens.

    `settings` are further keys of its configuration file, such as `data-root`.
    """

    folder: Path
    host: str = "unix:///var/run/docker.sock"
    settings: Mapping[str, object] = field(default_factory=dict)
    proc: Path = Path("/proc")

    @property
    def config(self) -> Path:
        """The configuration file, which also marks the process as ours."""
        return self.folder.absolute() / "daemon.json"

    @property
    def log(self) -> Path:
        """What dockerd says."""
        return self.folder.absolute() / "dockerd.log"

    @property
    def pid_file(self) -> Path:
        """Written by us, not by dockerd: it holds the pid that we started."""
        return self.folder.absolute() / "engine.pid"

    def pid(self) -> int | None:
        """Return the pid of our running dockerd, None when there is none."""
        try:
            pid = int(self.pid_file.read_text())
            words = (self.proc / str(pid) / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        ours = words[0].endswith(b"dockerd") and os.fsencode(self.config) in words
        return pid if ours else None

    def hosts(self) -> tuple[str, ...]:
        """Return where our dockerd listens, as its configuration file says."""
        try:
            return tuple(json.loads(self.config.read_text(encoding="utf-8"))["hosts"])
        except (OSError, ValueError, KeyError):
            return ()

    def start(self, talk: Talk) -> None:
        """Start dockerd and wait until it answers; EngineUnavailable shows the end of its log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock, talk.working("starting dockerd"):
            fcntl.flock(lock, fcntl.LOCK_EX)
            # One that starts right now, or hangs, is ours to wait for, not to double.
            pid = self.pid() or self._spawn()
            self._wait_until_up(pid)
        talk.line(f"dockerd runs (pid {pid}), its log is {self.log}")

    def stop(self, talk: Talk) -> bool:
        """Stop our dockerd; False when none of ours runs."""
        pid = self.pid()
        if pid is None:
            self.pid_file.unlink(missing_ok=True)
            return False
        os.kill(pid, signal.SIGTERM)
        limit = time.monotonic() + _STOP_SECONDS
        with talk.working("stopping dockerd"):
            while self.pid() == pid:
                if time.monotonic() > limit:
                    raise self._trouble(
                        f"dockerd (pid {pid}) did not stop in {_STOP_SECONDS:.0f} s"
                    )
                time.sleep(0.1)
        self.pid_file.unlink(missing_ok=True)
        return True

    def _spawn(self) -> int:
        """Start dockerd in a session of its own, so that it outlives us and our terminal."""
        dockerd = shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if dockerd is None:
            raise EngineUnavailable(
                Finding(place="", what="dockerd is not installed", todo="Install docker.io.")
            )
        self._write_config()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            dockerd,
            [dockerd, "--config-file", str(self.config)],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        write_atomic(self.pid_file, f"{pid}\n")
        return pid

    def _write_config(self) -> None:
        pid_file = self.config.with_name("dockerd.pid")
        # Left behind by a killed dockerd; after a reboot its number may be another process, and
        # dockerd would refuse to start.
        pid_file.unlink(missing_ok=True)
        ours = {**self.settings, "hosts": [self.host], "pidfile": str(pid_file)}
        write_atomic(self.config, json.dumps(merged_config(_user_config(), ours), indent=2) + "\n")

    def _wait_until_up(self, pid: int) -> None:
        limit = time.monotonic() + _START_SECONDS
        while not answers(self.host):
            if self._ended(pid):
                self.pid_file.unlink(missing_ok=True)
                raise self._trouble("dockerd ended right after its start")
            if time.monotonic() > limit:
                os.kill(pid, signal.SIGTERM)
                raise self._trouble(f"dockerd did not answer in {_START_SECONDS:.0f} s")
            time.sleep(0.2)

    def _ended(self, pid: int) -> bool:
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:  # started by another process of ours
            return self.pid() != pid

    def _trouble(self, what: str) -> EngineUnavailable:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return EngineUnavailable(
            Finding(
                place=str(self.log),
                what=what,
                why="\n    ".join(lines[-12:]),
                todo="dockerd needs root with all capabilities (in a container: --privileged) and"
                " a data-root that is not on an overlay file system.",
            )
        )


def merged_config(user: Mapping[str, object], ours: Mapping[str, object]) -> dict[str, object]:
    """Add our settings and the containerd image store to what the user configured."""
    features = user.get("features")
    return {
        "log-level": "warn",
        **user,
        **ours,
        "features": {
            **(features if isinstance(features, dict) else {}),
            "containerd-snapshotter": True,
        },
    }


def _user_config(path: Path = Path("/etc/docker/daemon.json")) -> dict[str, object]:
    """Registry mirrors, proxies and data-root that an administrator set are kept."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise EngineUnavailable(
            Finding(place=str(path), what=f"not valid JSON: {error}", todo="Correct the file.")
        ) from error
    return found if isinstance(found, dict) else {}


def answers(host: str) -> bool:
    """Whether an engine answers at `host`."""
    if host.startswith("unix://") and not _listens(host.removeprefix("unix://")):
        return False
    try:
        client = docker.DockerClient(base_url=host, version="auto", timeout=5)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (DockerException, requests.RequestException):
        return False


def _listens(path: str) -> bool:
    """Whether anybody listens at a socket.

    Asked first, because the SDK does not close a socket whose connection was refused (docker 7.1,
    docker/transport/unixconn.py).
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
