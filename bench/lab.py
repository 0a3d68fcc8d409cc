"""A second container engine with an empty store: what it holds can be deleted between two runs.

The engine that runs on the machine is left alone: to empty its build cache would throw away other
people's work. The second one has its own containerd, data, sockets and pid files.

- Its own containerd, because dockerd uses a system-wide one where it finds it, and would then share
  its images and its storage (moby 26.1, cmd/dockerd/daemon_unix.go, read 2026-11-25).
- The bridge of the first engine, with the upper end of its addresses and without touching iptables:
  a dockerd with `bridge: none` deletes docker0, and one with iptables rewrites the rules.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from bench.process import end_group
from builder.engine.daemon import Daemon
from builder.errors import EngineUnavailable, Finding
from builder.records import write_atomic
from builder.talk import Talk

__all__ = ["Lab", "bridge_settings"]

_START_SECONDS = 30.0
_CONTAINERD = """\
version = 2
root = "{data}/containerd"
state = "{run}/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{socket}"
"""


class Lab:
    """The second engine; its data lies below `folder`, its sockets below /run. Needs root."""

    def __init__(self, folder: Path, talk: Talk) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        # Sockets have short paths: 107 bytes at most (unix(7)).
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:8]
        self._run = Path("/run") / f"yolo-bench-{name}"
        self._talk = talk
        self._containerd: subprocess.Popen[bytes] | None = None
        self.host = f"unix://{self._run}/docker.sock"

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes docker, buildx and build.py speak to this engine."""
        return {"DOCKER_HOST": self.host, "DOCKER_CONTEXT": "", "BUILDX_BUILDER": ""}

    @property
    def running(self) -> bool:
        """Whether we started this engine: one that a killed run left holds who knows what."""
        return self._containerd is not None and self._daemon.pid() is not None

    def fresh(self) -> None:
        """Start the engine with nothing in its store, ending the one before."""
        if os.geteuid() != 0:
            raise EngineUnavailable(
                Finding(
                    place="",
                    what="a second container engine can't be started",
                    why="dockerd needs root.",
                    todo="Run as root, or leave out the scenarios that start from nothing.",
                )
            )
        self.close()
        for path in (self.data, self._run):
            path.mkdir(mode=0o711, parents=True)
        # Neither the deletion of the last store nor its unwritten pages are to slow down this run.
        os.sync()
        self._start_containerd()
        self._daemon.start(self._talk)

    def close(self) -> None:
        """Stop the engine and delete everything that it stored; also what a killed run left."""
        self._daemon.stop(self._talk)
        self._stop_containerd()
        for target in reversed(mounts_below(self.folder, self._run)):
            subprocess.run(["umount", target], check=True)
        for path in (self.folder, self._run):
            if path.exists():
                shutil.rmtree(path)

    def stored_bytes(self) -> int:
        """Return the bytes of all compressed content: layers, configurations, manifests."""
        blobs = self.data / "containerd" / "io.containerd.content.v1.content" / "blobs"
        return sum(path.stat().st_size for path in blobs.rglob("*") if path.is_file())

    @cached_property
    def _daemon(self) -> Daemon:
        settings = {
            "data-root": str(self.data / "docker"),
            "exec-root": str(self._run / "exec"),
            "containerd": str(self._socket),
            **bridge_settings("docker0"),
        }
        return Daemon(folder=self.folder / "dockerd", host=self.host, settings=settings)

    @property
    def _socket(self) -> Path:
        return self._run / "containerd.sock"

    @property
    def _config(self) -> Path:
        return self.folder / "containerd.toml"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "containerd.pid"

    def _start_containerd(self) -> None:
        text = _CONTAINERD.format(data=self.data, run=self._run, socket=self._socket)
        write_atomic(self._config, text)
        log = self.folder / "containerd.log"
        with log.open("wb") as out:
            self._containerd = subprocess.Popen(
                ["containerd", "--config", str(self._config), "--log-level", "warn"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        write_atomic(self._pid_file, f"{self._containerd.pid}\n")
        limit = time.monotonic() + _START_SECONDS
        while not self._socket.exists():
            if self._containerd.poll() is not None or time.monotonic() > limit:
                raise EngineUnavailable(
                    Finding(
                        place="containerd",
                        what=f"it did not start in {_START_SECONDS:.0f} s",
                        why=log.read_text(errors="replace")[-1000:],
                    )
                )
            time.sleep(0.1)

    def _stop_containerd(self) -> None:
        if self._containerd is not None:
            end_group(self._containerd)
            self._containerd = None
        elif (pid := self._left_running()) is not None:
            os.kill(pid, signal.SIGTERM)
            limit = time.monotonic() + _START_SECONDS
            while self._left_running() == pid and time.monotonic() < limit:
                time.sleep(0.1)

    def _left_running(self) -> int | None:
        """The containerd of a run that was killed: known by its pid file and its command line."""
        try:
            pid = int(self._pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._config) in words else None


def mounts_below(*folders: Path, table: Path = Path("/proc/self/mounts")) -> list[str]:
    """Return the mount points below `folders`, in the order in which they were mounted."""
    targets = [line.split()[1] for line in table.read_text().splitlines()]
    return [
        target for target in targets if any(folder in Path(target).parents for folder in folders)
    ]


def bridge_settings(bridge: str, address: str | None = None) -> dict[str, object]:
    """Return the network settings of a second dockerd beside one that uses `bridge`.

    `address` is the bridge's own (`172.17.0.1/16`); by default the kernel is asked. Without such a
    bridge there is no engine to spare, and dockerd's defaults are right.
    """
    address = address or _address_of(bridge)
    if address is None:
        return {}
    network = ipaddress.IPv4Interface(address).network
    # The first engine hands out addresses from the lower end.
    upper = list(network.subnets(prefixlen_diff=4))[-1]
    return {
        "bridge": bridge,
        "bip": "",
        "fixed-cidr": str(upper),
        "iptables": False,
        "ip6tables": False,
    }


def _address_of(bridge: str) -> str | None:
    if not Path("/sys/class/net", bridge).exists():
        return None
    shown = subprocess.run(
        ["ip", "-json", "-4", "address", "show", "dev", bridge],
        capture_output=True,
        text=True,
        check=True,
    )
    for entry in json.loads(shown.stdout):
        for found in entry.get("addr_info", ()):
            return f"{found['local']}/{found['prefixlen']}"
    return None
