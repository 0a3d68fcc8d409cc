"""The one place where probes know which device they run on."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["Adapter", "resident_bytes"]

_CLOCKS = "clocks.sm,temperature.gpu,utilization.gpu,clocks_event_reasons.active"


def resident_bytes() -> int:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


class Adapter:
    """Device differences behind one face: `cpu`, or a CUDA device as torch names it."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.cuda = device.startswith("cuda")

    def sync(self) -> None:
        """Wait until the device has done what it was asked; without it a timer stops too early."""
        if self.cuda:
            torch.cuda.synchronize()

    def name(self) -> str:
        """Return the device's name."""
        return str(torch.cuda.get_device_name(self.device)) if self.cuda else "cpu"

    def memory(self) -> dict[str, int]:
        """Return bytes in use: resident and its peak, and on CUDA what torch and the device say."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {"resident": resident_bytes(), "resident_peak": peak}
        if self.cuda:
            free, total = torch.cuda.mem_get_info(self.device)
            found |= {
                "allocated_peak": torch.cuda.max_memory_allocated(self.device),
                "reserved_peak": torch.cuda.max_memory_reserved(self.device),
                "device_used": total - free,
            }
        return found

    def clocks(self) -> str:
        """Return SM clock, temperature, utilization and throttle reasons, empty off CUDA."""
        if not self.cuda:
            return ""
        argv = ["nvidia-smi", f"--query-gpu={_CLOCKS}", "--format=csv,noheader"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"unknown: {error}"
        return done.stdout.strip()

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Run `work` between two syncs; return its seconds and its result."""
        self.sync()
        begun = time.perf_counter()
        result = work()
        self.sync()
        return time.perf_counter() - begun, result
