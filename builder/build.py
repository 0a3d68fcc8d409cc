"""Plan -> BuildRecord: builds what changed, row after row, and writes each record at once.

A row is unchanged when its build key equals the recorded one and the engine still has the recorded
digest. A killed run therefore resumes with the rows that are missing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from docker import DockerClient

from builder.bakefile import Layout, bake_definition
from builder.bases import BaseChoice, choose_bases
from builder.engine.bake import bake
from builder.engine.client import connect, inspect_image
from builder.errors import BuildFailed, Finding, InvalidInput
from builder.folders import Folders, hash_images
from builder.lock import load_lock
from builder.plan import BuildInputs, Plan, make_plan
from builder.preflight import survey
from builder.prepare import complete_lock, prepared
from builder.reach import reachable
from builder.records import BuildRecord, read_record, write_record
from builder.sources import Sources
from builder.spec import ImageSpec
from builder.store import Store
from builder.talk import Talk, human_bytes, human_seconds

__all__ = ["BuildOptions", "Builder", "Origin"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the code comes from: revision and repository URL, for the labels."""

    revision: str
    source: str


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a caller may choose: parts that may be missing, the base, and whether to use caches."""

    allow_missing: frozenset[str] = frozenset()
    base: BaseChoice = "auto"
    no_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Plans and builds rows with one set of folders, sources and options."""

    folders: Folders
    sources: Sources
    origin: Origin
    options: BuildOptions
    talk: Talk

    @property
    def _store(self) -> Store:
        return Store(folders=self.folders, sources=self.sources, talk=self.talk)

    def plan(self, rows: Sequence[ImageSpec], *, complete: bool = True) -> list[Plan]:
        """Load locks, ask which sources answer, make the base where needed, plan every row.

        With `complete`, what a lock leaves unresolved is resolved when its source answers, and the
        lock is written.
        """
        locks = {row.id: load_lock(self.folders.locks, row) for row in rows}
        missing = survey(
            rows,
            locks,
            self.options.allow_missing,
            reach=lambda url: reachable(url, self.sources),
            have=self._store.has,
        )
        if complete:
            for row in rows:
                absent = {item.part for item in missing[row.id]}
                locks[row.id] = complete_lock(row, locks[row.id], self._store, absent)
        bases = choose_bases(rows, locks, self.options.base, self.folders, self.sources, self.talk)
        images = hash_images(self.folders.images)
        plans = []
        for row in rows:
            source, digest = bases[row.stack.suite]
            inputs = BuildInputs(
                base_source=source,
                base_digest=digest,
                images=images,
                revision=self.origin.revision,
                source=self.origin.source,
            )
            plans.append(make_plan(row, locks[row.id], inputs, missing[row.id]))
        return plans

    def build(self, plans: Sequence[Plan]) -> list[BuildRecord]:
        """Build what changed; return all records in order. BuildFailed names every failure."""
        with closing(connect()) as client:
            return self._build_with(client, plans)

    def _build_with(self, client: DockerClient, plans: Sequence[Plan]) -> list[BuildRecord]:
        records: dict[str, BuildRecord] = {}
        for plan in plans:
            write_record(self._record(plan, "plan"), plan.record)
            if not self.options.no_cache and (record := self._unchanged(plan, client)):
                self.talk.line(f"{plan.row.id}: unchanged, {record.digest}")
                write_record(self._record(plan, "build"), record)
                records[plan.row.id] = record
        changed = [plan for plan in plans if plan.row.id not in records]
        findings: list[Finding] = []
        if changed:
            with prepared(changed, self._store) as layout:
                for plan in changed:
                    try:
                        records[plan.row.id] = self._build_one(plan, layout, client)
                    except BuildFailed as error:
                        findings.extend(error.findings)
        if findings:
            raise BuildFailed(*findings)
        return [records[plan.row.id] for plan in plans]

    def _record(self, plan: Plan, name: str) -> Path:
        return self.folders.row(plan.row.id) / f"{name}.json"

    def _unchanged(self, plan: Plan, client: DockerClient) -> BuildRecord | None:
        record = read_record(self._record(plan, "build"), BuildRecord)
        if record is None or record.status == "failed":
            return None
        if record.build_key != plan.record.build_key or record.reference != plan.record.reference:
            return None
        try:
            if inspect_image(client, record.reference).digest != record.digest:
                return None
        except InvalidInput:
            return None
        return record.model_copy(update={"status": "unchanged"})

    def _build_one(self, plan: Plan, layout: Layout, client: DockerClient) -> BuildRecord:
        row = plan.row.id
        log = self.folders.row(row) / "build.log"
        for item in plan.record.missing:
            self.talk.line(f"{row}: without {item.part}: {item.source}: {item.reason}")
        self.talk.line(f"{row}: building {plan.record.reference}")
        start = time.monotonic()
        try:
            digests = bake(
                bake_definition([plan], layout),
                [row],
                folder=self.folders.root,
                log=log,
                talk=self.talk,
                no_cache=self.options.no_cache,
            )
        except BuildFailed as error:
            self._write(plan, start, log, digest=None, size=None, error=str(error))
            raise
        size = inspect_image(client, plan.record.reference).size
        record = self._write(plan, start, log, digest=digests[row], size=size, error=None)
        self.talk.line(
            f"{row}: built in {human_seconds(record.seconds)}, {human_bytes(size)}, {record.digest}"
        )
        return record

    def _write(
        self,
        plan: Plan,
        start: float,
        log: Path,
        *,
        digest: str | None,
        size: int | None,
        error: str | None,
    ) -> BuildRecord:
        record = BuildRecord(
            id=plan.row.id,
            status="failed" if digest is None else "built",
            digest=digest,
            build_key=plan.record.build_key,
            reference=plan.record.reference,
            seconds=round(time.monotonic() - start, 1),
            size_bytes=size,
            missing=plan.record.missing,
            finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            log=str(log.relative_to(self.folders.root)),
            error=error,
            inputs=dict(plan.inputs),
        )
        write_record(self._record(plan, "build"), record)
        return record
