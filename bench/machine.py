"""The machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import closing
from pathlib import Path

from bench.disk import kind_of_disk
from bench.records import Machine
from builder.engine.client import connect, engine_version
from builder.errors import EngineUnavailable

__all__ = ["read_machine"]

_UNKNOWN = "unknown"


def read_machine(root: Path, scratch: Path) -> Machine:
    """Describe this machine; `scratch` is the folder whose disk is measured."""
    return Machine(
        cpu=_cpu(Path("/proc/cpuinfo").read_text()),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        disk=f"{kind_of_disk(scratch)}, {_file_system(scratch)}",
        engine=_engine(),
        buildx=_word(_output(root, "docker", "buildx", "version"), 1),
        revision=_revision(root),
    )


def _cpu(text: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found[1] if found else platform.machine()


def _engine() -> str:
    try:
        with closing(connect()) as client:
            return engine_version(client)
    except EngineUnavailable:
        return _UNKNOWN


def _file_system(folder: Path) -> str:
    return _output(folder, "stat", "--file-system", "--format=%T", str(folder)) or _UNKNOWN


def _revision(root: Path) -> str:
    revision = _output(root, "git", "rev-parse", "HEAD") or _UNKNOWN
    changed = _output(root, "git", "status", "--porcelain", "--untracked-files=no")
    return f"{revision}-dirty" if changed else revision


def _word(text: str, index: int) -> str:
    words = text.split()
    return words[index] if len(words) > index else _UNKNOWN


def _output(folder: Path, *argv: str) -> str:
    try:
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
