"""An engine that tests may kill and fill: its own dockerd on a small disk, in its own network.

The engine in use is never touched: another socket, other folders, and a network namespace, because
a second dockerd in the same one takes the first one's bridge away.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
from docker import DockerClient

from builder.disk import space_of
from builder.engine.cache import engine_id
from builder.engine.daemon import Daemon, answers
from builder.lease import engine_lock
from builder.talk import Talk

__all__ = ["OwnEngine", "own_engine"]

_DISK = 2 << 30


@dataclass(frozen=True, kw_only=True)
class OwnEngine:
    """A dockerd of the tests. `data` is its disk, `runtime` its exec-root, `host` its address."""

    daemon: Daemon
    data: Path
    runtime: Path

    @property
    def host(self) -> str:
        return self.daemon.host

    def start(self) -> None:
        self.daemon.start(Talk())

    def kill(self) -> None:
        """End it as a crash would; its containerd goes with it."""
        pid = self.daemon.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        # A dead containerd that init has not collected yet would hold up the next start for 10 s.
        (self.runtime / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def ensure(self) -> None:
        if not answers(self.host):
            self.start()

    def client(self) -> DockerClient:
        return docker.DockerClient(base_url=self.host, version="auto", timeout=60)

    def free(self) -> int:
        return space_of(self.data).free

    @contextmanager
    def filled(self, *, leave: int) -> Iterator[None]:
        """Take up all of the disk but `leave` bytes."""
        ballast = self.data / "ballast"
        size = self.free() - leave
        assert size > 0, f"only {self.free()} bytes are free"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        try:
            yield
        finally:
            ballast.unlink()


@contextmanager
def own_engine(work: Path, folder: Path) -> Iterator[OwnEngine]:
    """Start an engine with its data on a new disk below `work`, its files in `folder`."""
    disk, data, runtime = work / "disk.img", work / "disk", work / "exec"
    with disk.open("wb") as file:
        file.truncate(_DISK)
    # No blocks for root alone: what statvfs calls free is then what dockerd can write.
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(disk)], check=True)
    data.mkdir()
    subprocess.run(["mount", "-o", "loop", str(disk), str(data)], check=True)
    daemon = Daemon(
        folder=folder,
        host=f"unix://{work}/docker.sock",
        settings={
            "data-root": str(data / "docker"),
            "exec-root": str(runtime),
            "iptables": False,
            "ip6tables": False,
            "group": "root",
        },
    )
    engine = OwnEngine(daemon=daemon, data=data, runtime=runtime)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{_wrapper(work)}:{before}"
    locks = []
    try:
        engine.start()
        client = engine.client()
        locks.append(engine_lock(engine_id(client)))
        client.close()
        yield engine
    finally:
        os.environ["PATH"] = before
        daemon.stop(Talk())
        _unmount(data)
        for lock in locks:
            lock.unlink(missing_ok=True)


def _wrapper(work: Path) -> Path:
    """A folder with a `dockerd` that becomes the real one in namespaces of its own."""
    real = shutil.which("dockerd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert real is not None, "dockerd is not installed"
    folder = work / "bin"
    folder.mkdir()
    script = folder / "dockerd"
    script.write_text(f'#!/bin/sh\nexec unshare --net --mount {real} "$@"\n')
    script.chmod(0o755)
    return folder


def _unmount(data: Path) -> None:
    """Steps of a build that outlived a killed dockerd may keep the disk busy for a moment."""
    limit = time.monotonic() + 10
    while subprocess.run(["umount", str(data)], capture_output=True, check=False).returncode:
        if time.monotonic() > limit:
            subprocess.run(["umount", "--lazy", str(data)], check=True)
            return
        time.sleep(0.2)
