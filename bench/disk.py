"""How much of the disk something takes while it runs, and what kind of disk it is."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "free_bytes", "kind_of_disk", "occupied", "watch"]

_SAMPLE_SECONDS = 1.0


@dataclass
class Usage:
    """The most that was taken since the watch began, in bytes; it grows while the watch runs."""

    peak: int = 0


@contextmanager
def watch(folder: Path) -> Iterator[Usage]:
    """Watch the free space of the file system of `folder` once a second.

    The file system is asked, not the files: walking 200,000 files every second would slow down what
    is measured. So whatever else writes there at the time is counted too.
    """
    usage, before, done = Usage(), free_bytes(folder), threading.Event()

    def sample() -> None:
        usage.peak = max(usage.peak, before - free_bytes(folder))

    def loop() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            sample()

    sampler = threading.Thread(target=loop, daemon=True)
    sampler.start()
    try:
        yield usage
    finally:
        done.set()
        sampler.join()
        sample()


def occupied(folder: Path) -> int:
    """Return the bytes that the files below `folder` take on the disk; seconds for an engine's."""
    done = subprocess.run(
        ["du", "--summarize", "--one-file-system", "--block-size=1", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[0])


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free on the file system of `folder`, or of its nearest parent."""
    while not folder.exists():
        folder = folder.parent
    state = os.statvfs(folder)
    return state.f_bfree * state.f_frsize


def kind_of_disk(folder: Path, system: Path = Path("/sys/dev/block")) -> str:
    """Return `ssd` or `hdd` as the kernel has it, `virtual disk` or `unknown`."""
    device = folder.stat().st_dev
    block = (system / f"{os.major(device)}:{os.minor(device)}").resolve()
    if any(part.startswith("virtio") for part in block.parts):
        # It calls itself rotating whatever lies below.
        return "virtual disk"
    # A partition has no queue of its own; its disk is the folder above.
    for place in (block, block.parent):
        note = place / "queue" / "rotational"
        if note.is_file():
            return "hdd" if note.read_text().strip() == "1" else "ssd"
    return "unknown"
