"""All rows on a disk that can't hold them all: stack by stack, each finished before it leaves.

A row is finished when it is built, proven and exported, as far as the caller asks for that. Then
its image may go when the next stack needs the room; with `always` it goes at the end of its stack.
An image that failed its proof stays, for that is the one somebody will look into.

A later sweep passes over a row whose image was evicted after it was finished, as long as nothing
that it was made of has changed: same build key, proof still valid, export still there. It says so,
and leaves the record as it is: such a row is not `unchanged`, because the engine hasn't got it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from builder.build import Builder
from builder.engine.cache import image_digest
from builder.engine.layout import exported_digest, save
from builder.errors import (
    BuildFailed,
    EngineUnavailable,
    Finding,
    InvalidInput,
    SourceUnreachable,
    ToolkitError,
    ValidationFailed,
)
from builder.plan import Plan
from builder.records import (
    AnyRecord,
    BuildRecord,
    Outcome,
    ValidationRecord,
    read_record,
    write_record,
)
from builder.schedule import stacks
from builder.session import Session
from builder.spec import ImageSpec

__all__ = ["Eviction", "Swept", "sweep", "together"]

Eviction = Literal["auto", "always", "never"]

Prove = Callable[[Plan, BuildRecord], bool]
"""Prove an image; whether it is what its row says."""


def _no_proof(_plan: Plan, _record: BuildRecord) -> bool:
    return True


@dataclass
class Swept:
    """What came of each row, and what went wrong; a sweep goes on after a row that failed."""

    plans: list[Plan] = field(default_factory=list)
    records: list[BuildRecord] = field(default_factory=list)
    errors: list[ToolkitError] = field(default_factory=list)


def sweep(
    builder: Builder,
    rows: Sequence[ImageSpec],
    *,
    evict: Eviction = "auto",
    export: Path | None = None,
    prove: Prove = _no_proof,
    proven: Prove = _no_proof,
) -> Swept:
    """Build, prove and export `rows`, stack by stack, making room where the disk demands it.

    `proven` says whether the proof of an evicted image still holds. Errors of single rows end in
    the result; EngineUnavailable is raised at once, for without an engine no row can follow.
    """
    result = Swept()
    one = _Row(builder=builder, evict=evict, export=export, prove=prove, proven=proven)
    with builder.session() as session:
        if evict != "never":
            one.offer_what_lies_there(rows, session)
        for stack in stacks(rows):
            for row in stack:
                try:
                    plan, record = one.finish(row, session)
                except EngineUnavailable as error:
                    raise EngineUnavailable(
                        *error.findings, *(each for e in result.errors for each in e.findings)
                    ) from error
                except ToolkitError as error:
                    builder.talk.line(f"{row.id}: {error.findings[0].what}")
                    result.errors.append(error)
                else:
                    result.plans.append(plan)
                    result.records.append(record)
            if evict == "always":
                session.room.clear()
    return result


@dataclass(frozen=True, kw_only=True)
class _Row:
    builder: Builder
    evict: Eviction
    export: Path | None
    prove: Prove
    proven: Prove

    def finish(self, row: ImageSpec, session: Session) -> tuple[Plan, BuildRecord]:
        """Do for one row what is left to do."""
        session.room.withdraw(row.id)
        (plan,) = self.builder.plan([row])
        gone = self._finished_before(plan, session)
        if gone is not None:
            self.builder.talk.line(
                f"{row.id}: nothing has changed; finished before, evicted {gone.evicted}"
            )
            return plan, gone
        before = self._record(row)
        (record,) = self.builder.build([plan], session)
        self._compare(before, record)
        passed = self.prove(plan, record)
        if self.export is not None and passed:
            self._save(record, session)
        if self.evict != "never" and passed:
            session.room.offer(plan, record)
        return plan, record

    def offer_what_lies_there(self, rows: Sequence[ImageSpec], session: Session) -> None:
        """Offer images of an earlier run, for the turn of their rows will come again."""
        for row in rows:
            record, proof = self._record(row), self._read(row, "validation", ValidationRecord)
            failed = proof is not None and proof.verdict is not Outcome.PASSED
            if record is not None and record.digest is not None and not failed:
                session.room.offer_later(row.stack.name, record)

    def _record(self, row: ImageSpec) -> BuildRecord | None:
        return self._read(row, "build", BuildRecord)

    def _read(self, row: ImageSpec, name: str, kind: type[AnyRecord]) -> AnyRecord | None:
        """Return a record of the row; a damaged one tells nothing."""
        with suppress(InvalidInput):
            return read_record(self.builder.folders.row(row.id) / f"{name}.json", kind)
        return None

    def _finished_before(self, plan: Plan, session: Session) -> BuildRecord | None:
        """Return the record of a row that was finished and evicted, if it needs nothing new."""
        record = self._record(plan.row)
        if record is None or record.evicted is None or record.digest is None:
            return None
        same = (record.build_key, record.reference) == (
            plan.record.build_key,
            plan.record.reference,
        )
        if not same or self.builder.options.no_cache or not self.proven(plan, record):
            return None
        if self.export is not None and exported_digest(self.export, plan.row.id) != record.digest:
            return None
        if image_digest(session.client, record.reference) == record.digest:
            return None  # somebody brought it back: the usual way finds it unchanged
        write_record(self.builder.folders.row(plan.row.id) / "plan.json", plan.record)
        return record

    def _compare(self, before: BuildRecord | None, now: BuildRecord) -> None:
        """Say when an evicted image came back as another one: same inputs, so it should not."""
        if before is None or before.evicted is None or before.build_key != now.build_key:
            return
        if before.digest != now.digest:
            self.builder.talk.line(
                f"{now.id}: built again with another digest than before ({before.digest}):"
                f" see `build.py verify-repro {now.id}`"
            )

    def _save(self, record: BuildRecord, session: Session) -> None:
        assert self.export is not None
        assert record.digest is not None
        if exported_digest(self.export, record.id) == record.digest:
            return
        with self.builder.talk.working(f"{record.id}: exporting to {self.export}"):
            save(
                session.client,
                record.reference,
                record.digest,
                layout=self.export,
                name=record.id,
                check=session.room.disk.check,
            )


_WORST = (BuildFailed, ValidationFailed, SourceUnreachable)


def together(errors: Sequence[ToolkitError]) -> ToolkitError:
    """Return one error with all findings, of the class that weighs most; there must be one.

    A failed build outweighs a failed validation, and that a source that could not be reached.
    """
    findings: list[Finding] = [each for error in errors for each in error.findings]
    for kind in _WORST:
        if any(isinstance(error, kind) for error in errors):
            return kind(*dict.fromkeys(findings))
    return type(errors[0])(*dict.fromkeys(findings))
