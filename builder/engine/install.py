"""Have an engine: use the one that runs, else install and start one.

A running engine is never touched, whoever owns it. An engine is usable when it has the containerd
image store (images keep the digest and compression that a registry will serve) and buildx.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient

from builder.apt import System, parse_system
from builder.engine.client import LOCAL_HOST, connect, engine_host
from builder.engine.daemon import Daemon, answers, merged_config
from builder.errors import EngineUnavailable, Finding
from builder.host_packages import add_pinned_suite, install, require_supported
from builder.records import write_atomic
from builder.talk import Talk

__all__ = [
    "EngineHandle",
    "engine_packages",
    "missing_parts",
    "our_daemon",
    "owns_engine",
    "start",
    "stop",
    "verify",
]

_SNAPSHOTTER = "io.containerd.snapshotter.v1"
_DAEMON_JSON = Path("/etc/docker/daemon.json")
_SYSTEMD = Path("/run/systemd/system")


@dataclass(frozen=True, kw_only=True)
class EngineHandle:
    """The engine in use: its version, where it listens, and whether this checkout started it."""

    version: str
    host: str
    ours: bool


def start(root: Path, talk: Talk) -> EngineHandle:
    """Return a usable engine, set up when none answers; its files lie in `root`/.cache/engine."""
    host = engine_host()
    daemon = our_daemon(root)
    if not answers(host):
        if host != LOCAL_HOST:
            raise EngineUnavailable(
                Finding(
                    place=host,
                    what="no engine answers there",
                    why="DOCKER_HOST or the docker context in use names it.",
                    todo="Start that engine; or unset DOCKER_HOST and `docker context use default`"
                    " to have one set up here.",
                )
            )
        _set_up(daemon, talk)
    client = connect()
    try:
        verify(client)
        version = str(client.version()["Version"])
    finally:
        client.close()
    handle = EngineHandle(version=version, host=host, ours=daemon.pid() is not None)
    talk.line(f"engine {handle.version} at {handle.host}{', started here' if handle.ours else ''}")
    return handle


def our_daemon(root: Path) -> Daemon:
    """Return the engine that this checkout may have started."""
    return Daemon(folder=root / ".cache" / "engine")


def owns_engine(root: Path) -> bool:
    """Whether the engine in use is the one that this checkout started, and it runs."""
    daemon = our_daemon(root)
    return daemon.pid() is not None and engine_host() in daemon.hosts()


def stop(root: Path, talk: Talk) -> bool:
    """Stop the engine that this checkout started; False when there is none to stop."""
    stopped = our_daemon(root).stop(talk)
    talk.line("engine stopped" if stopped else "no engine was started here; nothing to stop")
    return stopped


def _set_up(daemon: Daemon, talk: Talk) -> None:
    path = Path("/etc/os-release")
    system = parse_system(path.read_text() if path.is_file() else "")
    packages = engine_packages(system, missing_parts())
    todo = "Install Docker 25 or newer with buildx and start it, or set DOCKER_HOST."
    if packages:
        require_supported(system, "no container engine answers", todo)
        if system.id == "debian" and system.version == "12":
            add_pinned_suite("trixie", system)
        if not _DAEMON_JSON.exists():
            # The package starts the engine where systemd runs, so its configuration comes first.
            features = {"features": merged_config({}, {})["features"]}
            write_atomic(_DAEMON_JSON, json.dumps(features) + "\n")
            talk.line(f"{_DAEMON_JSON} written: the engine will use the containerd image store")
        install(packages, system, talk)
    elif os.geteuid() != 0:
        raise EngineUnavailable(
            Finding(
                place=LOCAL_HOST,
                what="no container engine answers",
                why="Docker is installed; it does not run, or this user may not use it.",
                todo="Start it as root (make engine), or join the group docker and log in again.",
            )
        )
    if answers(LOCAL_HOST):
        return
    if _SYSTEMD.is_dir():
        _start_service(talk)
    else:
        daemon.start(talk)


def missing_parts() -> tuple[str, ...]:
    """Return which of the daemon, the client and buildx this machine lacks."""
    found = {
        "dockerd": shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin"),
        "docker": shutil.which("docker"),
        "buildx": has_buildx(),
    }
    return tuple(part for part, there in found.items() if not there)


def engine_packages(system: System, missing: Sequence[str]) -> tuple[str, ...]:
    """Return the packages that bring the `missing` parts on `system`.

    Debian 12's own engine (20.10) has no containerd image store. Debian 13's four packages need
    only libc 2.34, so they install on 12 beside its own runc, tini and iptables (tried
    2026-11-24). Ubuntu's docker.io holds the client.
    """
    debian = {
        "dockerd": ("docker.io", "containerd"),
        "docker": ("docker-cli",),
        "buildx": ("docker-buildx",),
    }
    ubuntu = {**debian, "docker": ("docker.io",), "dockerd": ("docker.io",)}
    parts = ubuntu if system.id == "ubuntu" else debian
    names = dict.fromkeys(name for part in missing for name in parts[part])
    suffix = "/trixie" if (system.id, system.version) == ("debian", "12") else ""
    return tuple(f"{name}{suffix}" for name in names)


def _start_service(talk: Talk) -> None:
    with talk.working("starting docker.service"):
        done = subprocess.run(
            ["systemctl", "start", "docker"], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise EngineUnavailable(
            Finding(
                place="docker.service",
                what="it does not start",
                why=done.stderr.strip(),
                todo="See `journalctl -u docker`.",
            )
        )


def store_fault(client: DockerClient) -> Finding | None:
    """Say what is wrong with how the engine stores images; None when nothing is."""
    status = client.info().get("DriverStatus") or []
    if any(_SNAPSHOTTER in str(value) for _, value in status):
        return None
    return Finding(
        place="engine",
        what="it does not use the containerd image store",
        why="Without it an image has no digest before it is pushed, and no zstd layers.",
        todo='Put "features": {"containerd-snapshotter": true} into /etc/docker/daemon.json'
        " and restart the engine; images of the old store are hidden until you undo that.",
    )


def verify(client: DockerClient) -> None:
    """Raise EngineUnavailable unless the engine has what builds need; all findings at once."""
    fault = store_fault(client)
    findings = [] if fault is None else [fault]
    if not has_buildx():
        findings.append(
            Finding(
                place="engine",
                what="`docker buildx` is missing",
                why="Images are built by BuildKit.",
                todo="Install docker-buildx (Docker's own packages: docker-buildx-plugin).",
            )
        )
    if findings:
        raise EngineUnavailable(*findings)


def has_buildx() -> bool:
    """Whether the docker client has its buildx plugin."""
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
    return done.returncode == 0
