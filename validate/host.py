"""The machine that checks run on, and what makes two validations comparable."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path

from docker import DockerClient

from builder.engine.client import engine_version
from builder.records import Host

__all__ = ["describe_host", "suite_hash"]

ROOT = Path(__file__).parent.parent


def describe_host(client: DockerClient) -> Host:
    """Return the host; `gpu` and `driver` are None where there is no NVIDIA GPU."""
    gpu, driver = _gpu()
    return Host(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=platform.release(),
        engine=engine_version(client),
        gpu=gpu,
        driver=driver,
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _gpu() -> tuple[str | None, str | None]:
    """Ask the driver's own tool, which is there wherever the driver is."""
    argv = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None
    rows = [line.split(", ") for line in done.stdout.strip().splitlines()]
    rows = [row for row in rows if len(row) == 2]
    if not rows:
        return None, None
    return " + ".join(row[0] for row in rows), rows[0][1]


def suite_hash(root: Path = ROOT) -> str:
    """Return a hash over the code that validates: another suite is another question."""
    digest = hashlib.sha256()
    for folder in ("validate", "builder/engine"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in {".py", ".j2"}:
                digest.update(f"{path.relative_to(root)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
