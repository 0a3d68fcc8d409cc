"""Between plan and build: locks completed, files fetched, and laid out where the builder reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import uv

from builder.artifacts import ArtifactLock, python_tag
from builder.bakefile import ROW_STEPS, STACK_STEPS, Layout, write_contexts
from builder.lineages import note_lineages
from builder.lock import Lock
from builder.plan import Plan
from builder.records import write_record
from builder.requirements import step_of
from builder.spec import ImageSpec
from builder.store import Store
from builder.wheelhouse import place

__all__ = ["complete_lock", "prepared"]


def complete_lock(row: ImageSpec, lock: Lock, store: Store, absent: Collection[str]) -> Lock:
    """Resolve what the lock leaves open; write the lock and say so.

    `absent` are the parts that can't be had here: they stay as they are.
    """

    def completed(artifact: ArtifactLock) -> ArtifactLock:
        if artifact.sha256 is not None or artifact.part in absent:
            return artifact
        return store.complete(artifact, python_tag(row.stack))

    path = store.folders.locks / f"{row.id}.json"
    record = lock.record
    for index, artifact in enumerate(lock.record.artifacts):
        found = completed(artifact)
        if found != artifact:
            # At once: a download of gigabytes is not for nothing when the next one is interrupted.
            artifacts = (*record.artifacts[:index], found, *record.artifacts[index + 1 :])
            record = record.model_copy(update={"artifacts": artifacts})
            write_record(path, record)
    if record == lock.record:
        return lock
    store.talk.line(f"{row.id}: {path.relative_to(store.folders.root)} has new hashes: commit it")
    return lock.model_copy(update={"record": record})


@contextmanager
def prepared(
    plans: Sequence[Plan], store: Store, compiled: Mapping[str, Path] = MappingProxyType({})
) -> Iterator[Layout]:
    """Lay out what the builder reads, and yield where; secrets exist only while it runs.

    `compiled` are the wheels that were compiled here, by row.
    """
    folders = store.folders
    _fetch_weights(plans, store)
    folders.cache.mkdir(parents=True, exist_ok=True)
    # The name says whose they are: if we are killed, the next builder removes them.
    secrets = folders.cache / f"secrets-{os.getpid()}"
    try:
        layout = replace(folders.layout(), secrets=secrets.relative_to(folders.root))
        absolute = layout.under(folders.root)
        absolute.tools.mkdir(parents=True, exist_ok=True)
        shutil.copy2(uv.find_uv_bin(), absolute.tools / "uv")
        store.sources.write_secrets(secrets, [plan.row.stack.suite for plan in plans])
        write_contexts(plans, absolute)
        _fill_wheelhouses(plans, absolute, store)
        for row, wheel in compiled.items():
            place(wheel, absolute.wheelhouse(row) / "flash-attn" / wheel.name)
        yield layout
    finally:
        shutil.rmtree(secrets, ignore_errors=True)


def _fetch_weights(plans: Sequence[Plan], store: Store) -> None:
    """Have every official checkpoint here; note in the locks what their tensors say they are."""
    for weight in dict.fromkeys(weight for plan in plans for weight in plan.official_weights):
        store.weight(weight)
    for plan in plans:
        if plan.official_weights and note_lineages(plan.row, store.folders):
            store.talk.line(f"{plan.row.id}: lineages read off the checkpoints, lock updated")


def _fill_wheelhouses(plans: Sequence[Plan], layout: Layout, store: Store) -> None:
    """Give each step of each stack and row the locked files that lie on this machine."""
    done: set[Path] = set()
    for plan in plans:
        steps: Mapping[str, str] = {
            **dict.fromkeys(STACK_STEPS, plan.row.stack.name),
            **dict.fromkeys(ROW_STEPS, plan.row.id),
        }
        for step, owner in steps.items():
            folder = layout.wheelhouse(owner) / step
            if folder in done:
                continue
            done.add(folder)
            store.sources.collect_wheels(plan.requirements[step], folder)
            for artifact in plan.artifacts:
                if step_of(artifact.name) == step:
                    store.hand_out(artifact, folder)
