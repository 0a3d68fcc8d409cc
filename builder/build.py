"""Plan -> BuildRecord: builds what changed, row after row, and writes each record at once.

A row is unchanged when its build key equals the recorded one and the engine still has the recorded
digest under its tag. A killed run therefore resumes with the rows that are missing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache, cached_property
from pathlib import Path

from docker import DockerClient

from builder.apt import redact
from builder.bakefile import Layout, bake_definition
from builder.bases import BaseChoice, choose_bases
from builder.disk import on_full_disk
from builder.documents import have_documents, write_documents
from builder.engine.bake import bake
from builder.engine.cache import superseded
from builder.engine.client import inspect_image
from builder.engine.versions import tool_versions
from builder.errors import BuildFailed, EngineUnavailable, Finding, InvalidInput
from builder.flash_build import PlannedWheel
from builder.flash_compile import compile_wheel, planned_wheel, wheel_store
from builder.folders import Folders, hash_images
from builder.indexes import index_page
from builder.lock import Lock, load_lock
from builder.plan import BuildInputs, Plan, make_plan
from builder.preflight import Reach, survey
from builder.prepare import complete_lock, prepared
from builder.reach import reachable
from builder.records import BuildRecord, read_record, write_record
from builder.room import DiskOptions
from builder.schedule import by_stack
from builder.session import Session, session
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
    """What a caller may choose: parts that may be missing, the base, whether to use caches.

    And what it says about the disk, and whether to wait for another builder.
    """

    allow_missing: frozenset[str] = frozenset()
    base: BaseChoice = "auto"
    no_cache: bool = False
    disk: DiskOptions = field(default_factory=DiskOptions)
    wait: bool = True


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Plans and builds rows with one set of folders, sources and options."""

    folders: Folders
    sources: Sources
    origin: Origin
    options: BuildOptions
    talk: Talk

    @cached_property
    def _store(self) -> Store:
        return Store(folders=self.folders, sources=self.sources, talk=self.talk)

    @cached_property
    def _reach(self) -> Reach:
        """Ask each source once: all rows of one command then lack the same parts."""
        return cache(lambda url: reachable(url, self.sources))

    def plan(self, rows: Sequence[ImageSpec], *, complete: bool = True) -> list[Plan]:
        """Load locks, ask which sources answer, make the base where needed, plan every row.

        With `complete`, what a lock leaves unresolved is resolved when its source answers, and the
        lock is written.
        """
        with on_full_disk("planning"):
            return self._plan(rows, complete=complete)

    def _plan(self, rows: Sequence[ImageSpec], *, complete: bool) -> list[Plan]:
        locks = {row.id: load_lock(self.folders.locks, row) for row in rows}
        images = hash_images(self.folders.images)
        store = wheel_store(self.folders, self.talk)
        wheels = {row.id: planned_wheel(row, locks[row.id], images, store) for row in rows}
        missing = survey(
            rows,
            {row: _without_compiler(lock, wheels[row]) for row, lock in locks.items()},
            self.options.allow_missing,
            reach=self._reach,
            have=self._store.has,
        )
        if complete:
            for row in rows:
                absent = {item.part for item in missing[row.id]}
                locks[row.id] = complete_lock(row, locks[row.id], self._store, absent)
        bases = choose_bases(rows, locks, self.options.base, self.folders, self.sources, self.talk)
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
            absent = {item.part for item in missing[row.id]}
            wheel = None if "flash-attn" in absent else wheels[row.id]
            plans.append(make_plan(row, locks[row.id], inputs, missing[row.id], wheel))
        return plans

    def session(self) -> AbstractContextManager[Session]:
        """Open a session for several calls of `build`."""
        return session(self.folders, self.options.disk, self.talk, wait=self.options.wait)

    def build(self, plans: Sequence[Plan], within: Session | None = None) -> list[BuildRecord]:
        """Build what changed, stack by stack; return all records in the order of `plans`.

        BuildFailed names every failure. Without a session one is opened for this call.
        """
        with ExitStack() as stack:
            return self._build_in(within or stack.enter_context(self.session()), plans)

    def _build_in(self, within: Session, plans: Sequence[Plan]) -> list[BuildRecord]:
        records: dict[str, BuildRecord] = {}
        findings: list[Finding] = []
        for plan in plans:
            write_record(self._record(plan, "plan"), plan.record)
            if not self.options.no_cache and (record := self._unchanged(plan, within.client)):
                self.talk.line(f"{plan.row.id}: unchanged, {record.digest}")
                write_record(self._record(plan, "build"), record)
                records[plan.row.id] = record
                try:
                    self._document(plan, record, within.client)
                except BuildFailed as error:
                    findings.extend(error.findings)
        by_id = {plan.row.id: plan for plan in plans if plan.row.id not in records}
        changed = [by_id[row.id] for row in by_stack([plan.row for plan in by_id.values()])]
        changed, compiled = self._compiled(changed, within, findings)
        if changed:
            self._warn_of_dead_index()
            with prepared(changed, self._store, compiled) as layout:
                for plan in changed:
                    try:
                        record = self._build_one(plan, layout, within)
                        records[plan.row.id] = record
                        self._document(plan, record, within.client)
                    except BuildFailed as error:
                        findings.extend(error.findings)
                    except EngineUnavailable as error:
                        raise EngineUnavailable(*error.findings, *findings) from error
        if findings:
            raise BuildFailed(*findings)
        return [records[plan.row.id] for plan in plans]

    def _warn_of_dead_index(self) -> None:
        """Say that the package index does not answer: no error, for steps may all be cached."""
        page = index_page(self.sources)
        reason = self._reach(page) if page is not None else None
        if reason is not None:
            self.talk.line(
                f"the package index does not answer ({redact(str(page))}: {reason}):"
                " steps that are not cached will fail"
            )

    def _compiled(
        self, plans: Sequence[Plan], within: Session, findings: list[Finding]
    ) -> tuple[list[Plan], dict[str, Path]]:
        """Compile what plans ask for; return those that can be built, and their wheels by row."""
        ready: list[Plan] = []
        wheels: dict[str, Path] = {}
        for plan in plans:
            try:
                whole, wheel = compile_wheel(plan, self._store, within)
            except BuildFailed as error:
                findings.extend(error.findings)
                continue
            ready.append(whole)
            if wheel is not None:
                wheels[plan.row.id] = wheel
                write_record(self._record(whole, "plan"), whole.record)
        return ready, wheels

    def _record(self, plan: Plan, name: str) -> Path:
        return self.folders.row(plan.row.id) / f"{name}.json"

    def _unchanged(self, plan: Plan, client: DockerClient) -> BuildRecord | None:
        record = None
        # A damaged record says nothing; the row is built again, which is quick where it is cached.
        with suppress(InvalidInput):
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
        now = {"status": "unchanged", "missing": plan.record.missing, "evicted": None}
        return record.model_copy(update=now)

    def _document(self, plan: Plan, record: BuildRecord, client: DockerClient) -> None:
        """Write SBOM and provenance of the digest, unless it is unchanged and has them."""
        folder, built = self.folders.row(plan.row.id), record.status == "built"
        if built or not have_documents(folder, record.digest or ""):
            versions = {}
            if built:  # of an older image nobody knows any more which tools built it
                versions = {"yolo-images": self.origin.revision, **tool_versions(client)}
            write_documents(client, plan, record, folder, versions=versions, talk=self.talk)

    def _build_one(self, plan: Plan, layout: Layout, within: Session) -> BuildRecord:
        row = plan.row.id
        log = self.folders.row(row) / "build.log"
        for item in plan.record.missing:
            self.talk.line(f"{row}: without {item.part}: {item.source}: {item.reason}")
        self.talk.line(f"{row}: building {plan.record.reference}")
        within.room.before(plan)
        start = time.monotonic()
        try:
            with superseded(within.client, row, plan.record.reference, self.talk):
                digests = bake(
                    bake_definition([plan], layout),
                    [row],
                    folder=self.folders.root,
                    log=log,
                    talk=self.talk,
                    no_cache=self.options.no_cache,
                    disk=within.room.disk,
                )
        except BuildFailed as error:
            self._write(plan, start, log, digest=None, size=None, error=str(error))
            raise
        try:
            self._require_unmoved(plan)
        except BuildFailed as error:
            self._write(plan, start, log, digest=None, size=None, error=str(error))
            raise
        size = inspect_image(within.client, plan.record.reference).size
        record = self._write(plan, start, log, digest=digests[row], size=size, error=None)
        self.talk.line(
            f"{row}: built in {human_seconds(record.seconds)}, {human_bytes(size)}, {record.digest}"
        )
        return record

    def _require_unmoved(self, plan: Plan) -> None:
        """Raise BuildFailed when files below images/ are no longer those that were planned."""
        now = {f"images/{path}": value for path, value in hash_images(self.folders.images).items()}
        moved = [
            name
            for name, value in plan.inputs.items()
            if name.startswith("images/") and now.get(name) != value
        ]
        if moved:
            raise BuildFailed(
                Finding(
                    place=plan.row.id,
                    what=f"{', '.join(moved[:3])} changed while it was built",
                    why="Nobody can say which version the image has.",
                    todo="Build it again.",
                )
            )

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


def _without_compiler(lock: Lock, wheel: PlannedWheel | None) -> Lock:
    """A wheel that is in the store needs no compiler: its sources need not answer."""
    stored = wheel is not None and wheel.sha256 is not None
    return lock.model_copy(update={"flash": None}) if stored else lock
