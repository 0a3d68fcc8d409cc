"""What stands between this machine and the rows: engine, disk, sources, and what each row lacks.

Asks, and changes nothing. What stops a row is for the caller to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from docker import DockerClient
from pydantic import BaseModel, ConfigDict

from builder.apt import redact
from builder.bases import registry_answers
from builder.disk import FLOOR, row_needs, space_of
from builder.engine.cache import cache_size, data_roots
from builder.engine.client import connect, inspect_image
from builder.engine.versions import tool_versions
from builder.errors import EngineUnavailable, InvalidInput
from builder.folders import Folders
from builder.indexes import index_page
from builder.lock import Lock
from builder.preflight import OPTIONAL_PARTS, ask, wanted_by
from builder.reach import reachable
from builder.records import BuildRecord, read_record
from builder.sources import Sources
from builder.spec import ImageSpec
from builder.store import Store

__all__ = ["Disk", "Lacking", "Report", "RowReport", "Source", "examine"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Model):
    """A host that rows need, where it is asked, and why it does not answer (None: it does)."""

    what: str
    place: str
    reason: str | None


class Disk(_Model):
    """A file system that builds write to; bytes."""

    what: str
    place: str
    free: int
    total: int


class Lacking(_Model):
    """A file of a row that can't be had; `optional` when a partial image can do without."""

    part: str
    source: str
    reason: str
    optional: bool


class RowReport(_Model):
    """A row: what it lacks, whether the engine has its image, and the bytes that it would take."""

    id: str
    built: bool
    lacks: tuple[Lacking, ...]
    unresolved: tuple[str, ...]
    needs_bytes: int


class Report(_Model):
    """Everything that was asked; `engine` is empty and `engine_problem` says why, or it is None."""

    engine: dict[str, str]
    engine_problem: str | None
    disks: tuple[Disk, ...]
    memory_bytes: int
    cores: int
    sources: tuple[Source, ...]
    rows: tuple[RowReport, ...]

    def short_of_disk(self) -> Iterator[RowReport]:
        """Rows that don't fit on the engine's disk beside the floor that stays free."""
        engine = next((disk for disk in self.disks if disk.what == "engine"), None)
        if engine is not None:
            yield from (
                row for row in self.rows if not row.built and row.needs_bytes + FLOOR > engine.free
            )


def examine(rows: Sequence[ImageSpec], locks: Mapping[str, Lock], store: Store) -> Report:
    """Ask the engine, the disks and every source of the rows, all hosts at once."""
    try:
        client = connect()
    except EngineUnavailable as error:
        return _report(rows, locks, store, None, error.findings[0].what)
    with closing(client):
        return _report(rows, locks, store, client, None)


def _report(
    rows: Sequence[ImageSpec],
    locks: Mapping[str, Lock],
    store: Store,
    client: DockerClient | None,
    problem: str | None,
) -> Report:
    wanted = {row.id: list(wanted_by(row, locks[row.id], store.has)) for row in rows}
    general = dict(_general(rows, store.sources))
    urls = {url for parts in wanted.values() for _, url in parts} | set(general.values())
    answers = ask(urls, lambda url: reachable(url, store.sources))
    built = {row.id: _is_built(row, store.folders, client) for row in rows}
    made = {row.stack.name for row in rows if built[row.id]}
    return Report(
        engine=tool_versions(client) if client else {},
        engine_problem=problem,
        disks=tuple(_disks(store.folders.root, client)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cores=len(os.sched_getaffinity(0)),
        sources=(
            *(
                Source(what=what, place=redact(url), reason=answers[url])
                for what, url in general.items()
            ),
            *_registries(rows, locks, store.sources),
        ),
        rows=tuple(
            RowReport(
                id=row.id,
                built=built[row.id],
                lacks=tuple(_lacks(wanted[row.id], answers)),
                unresolved=tuple(_unresolved(locks[row.id])),
                needs_bytes=row_needs(
                    row,
                    stack_made=row.stack.name in made,
                    known_size=None,
                    cached=cache_size(client) if client else 0,
                ),
            )
            for row in rows
        ),
    )


def _general(rows: Sequence[ImageSpec], sources: Sources) -> Iterator[tuple[str, str]]:
    """What every row needs: the package index, and a Debian mirror for each suite."""
    page = index_page(sources)
    if page is not None:
        yield "package index", page
    for suite in dict.fromkeys(row.stack.suite for row in rows):
        for mirror in sources.apt_for(suite)[:1]:
            yield f"Debian {suite}", f"{mirror.uris[0].rstrip('/')}/dists/{suite}/InRelease"


def _registries(
    rows: Sequence[ImageSpec], locks: Mapping[str, Lock], sources: Sources
) -> Iterator[Source]:
    bases = dict.fromkeys(locks[row.id].record.base.repository for row in rows)
    for repository in bases:
        base = next(
            locks[row.id].record.base
            for row in rows
            if locks[row.id].record.base.repository == repository
        )
        reason = None if registry_answers(base, sources) else "no answer: bases are bootstrapped"
        yield Source(what="base registry", place=repository, reason=reason)


def _disks(root: Path, client: DockerClient | None) -> Iterator[Disk]:
    places = [("engine", place) for place in (data_roots(client) if client else ())]
    for what, place in (*places, ("project", root)):
        space = space_of(place)
        yield Disk(what=what, place=str(place), free=space.free, total=space.total)


def _is_built(row: ImageSpec, folders: Folders, client: DockerClient | None) -> bool:
    record = read_record(folders.row(row.id) / "build.json", BuildRecord)
    if client is None or record is None or record.digest is None:
        return False
    try:
        return inspect_image(client, record.reference).digest == record.digest
    except InvalidInput:
        return False


def _lacks(
    wanted: Sequence[tuple[str, str]], answers: Mapping[str, str | None]
) -> Iterator[Lacking]:
    for part, url in wanted:
        if (reason := answers[url]) is not None:
            yield Lacking(part=part, source=url, reason=reason, optional=part in OPTIONAL_PARTS)


def _unresolved(lock: Lock) -> Iterator[str]:
    for artifact in lock.record.artifacts:
        if artifact.sha256 is None:
            yield f"{artifact.name} {artifact.version}"
