"""`build.py check --jsonl`: judge combinations from stdin. It needs nothing of a matrix."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path

from builder.compat.jsonl import run

__all__ = ["check_combinations"]


def check_combinations(_arguments: argparse.Namespace, _root: Path) -> int:
    """Answer every line of stdin with its verdict on stdout."""
    # What rules remember stays: the collector need not walk it time and again, nor once more when
    # the interpreter ends, which alone takes half a second.
    gc.set_threshold(100_000, 100, 1000)
    try:
        return run(sys.stdin.buffer, sys.stdout)
    finally:
        gc.freeze()
