"""`build.py lock`: rows into committed hash locks."""

from __future__ import annotations

import argparse
from pathlib import Path

from builder.artifacts import ArtifactLock
from builder.baselock import lock_path
from builder.bases import lock_base
from builder.commands.building import compatible_rows, machine_sources
from builder.folders import Folders
from builder.lock import Lock, make_lock
from builder.preflight import ask, wanted_by
from builder.prepare import complete_lock
from builder.reach import reachable
from builder.spec import ImageSpec, Weight
from builder.store import Store
from builder.talk import Talk

__all__ = ["lock_rows"]


def lock_rows(arguments: argparse.Namespace, root: Path) -> int:
    """Write the locks of the selected rows; what this machine can't resolve stays unresolved."""
    folders, talk = Folders(root), Talk()
    sources = machine_sources(root)
    store = Store(folders=folders, sources=sources, talk=talk)
    rows = compatible_rows(root, arguments.pattern)
    for suite in dict.fromkeys(row.stack.suite for row in rows):
        newest = "base" in arguments.upgrade
        if newest or not lock_path(folders.locks, suite).is_file():
            lock_base(suite, folders, sources, talk, refresh=newest)
    if arguments.upgrade == ["base"]:
        return 0
    for row in rows:
        lock = make_lock(
            folders.locks, row, sources=sources, upgrade=arguments.upgrade, talk=talk.line
        )
        lock = complete_lock(row, lock, store, _out_of_reach(row, lock, store))
        for artifact in lock.record.artifacts:
            if artifact.sha256 is None:
                talk.line(f"{row.id}: {artifact.name} {artifact.version} stays unresolved")
        talk.line(f"{row.id}: {len(lock.entries())} distributions locked")
    return 0


def _out_of_reach(row: ImageSpec, lock: Lock, store: Store) -> set[str]:
    """The parts with an unresolved file whose source does not answer here."""

    def settled(item: Weight | ArtifactLock) -> bool:
        return isinstance(item, Weight) or item.sha256 is not None

    wanted = list(wanted_by(row, lock, settled))
    answers = ask({url for _, url in wanted}, lambda url: reachable(url, store.sources))
    return {part for part, url in wanted if answers[url] is not None}
