"""`build.py engine` and `build.py clean`: what the toolkit does to the machine, and how it ends."""

from __future__ import annotations

import argparse
from pathlib import Path

from builder.clean import clean as remove
from builder.engine.install import start, stop
from builder.talk import Talk

__all__ = ["clean", "engine", "start_engine"]


def start_engine(root: Path, talk: Talk) -> None:
    """Make sure that an engine answers; one that already runs is left as it is."""
    start(root, talk)


def engine(arguments: argparse.Namespace, root: Path) -> int:
    """Start an engine if none answers, or stop the one that we started."""
    talk = Talk()
    if arguments.action == "start":
        start_engine(root, talk)
    else:
        stop(root, talk)
    return 0


def clean(arguments: argparse.Namespace, root: Path) -> int:
    """Remove our images, containers, results and caches."""
    del arguments
    remove(root, Talk())
    return 0
