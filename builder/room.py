"""Room on the engine's disk: what the next row needs, and what of ours may go to get it.

What goes, in this order, and only as much as is needed: build cache that the current stack does not
use, on an engine that this toolkit started; then images that the caller has offered, the oldest
stack first; then those of rows whose turn comes later, the last one first. Nothing else is removed:
not a row that nobody offered, not a foreign engine's cache.

An evicted row keeps its record. `status` stays `built` and `digest` stays what it was, for both are
still true; `evicted` says since when the engine no longer has the image. Such a row is never
`unchanged`: `build` makes it again, because whoever asks for a build wants an image. Only a sweep,
which wants each row built and proven once, may pass it over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from docker import DockerClient

from builder.disk import FLOOR, DiskWatch, row_needs
from builder.engine.cache import (
    cache_size,
    data_roots,
    default_budget,
    evict,
    image_digest,
    prune,
)
from builder.engine.client import EngineTrouble, engine_host
from builder.engine.install import owns_engine
from builder.errors import InvalidInput
from builder.folders import Folders
from builder.plan import Plan
from builder.records import BuildRecord, PlanRecord, read_record, write_record
from builder.talk import Talk, human_bytes

__all__ = ["DiskOptions", "Room"]


@dataclass(frozen=True, kw_only=True)
class DiskOptions:
    """What a caller may say about the disk; sizes in bytes.

    `row_space` takes the place of the estimate for the first row of a stack, 0 switches it off;
    `cache_budget` None takes the default, a share of the disk.
    """

    min_free: int = FLOOR
    row_space: int | None = None
    cache_budget: int | None = None


@dataclass(frozen=True)
class _Offer:
    stack: str
    record: BuildRecord


@dataclass
class Room:
    """The engine's disk while one command builds."""

    client: DockerClient
    folders: Folders
    options: DiskOptions
    talk: Talk
    disk: DiskWatch
    ours: bool
    _offers: list[_Offer] = field(default_factory=list)
    _later: list[_Offer] = field(default_factory=list)
    _stack: str = ""
    _since: float = field(default_factory=time.time)

    @staticmethod
    def of(client: DockerClient, folders: Folders, options: DiskOptions, talk: Talk) -> Room:
        """Look at the engine behind `client`; say what can't be measured."""
        roots = data_roots(client)
        unseen = ""
        if not roots:
            unseen = f"The free space of the engine at {engine_host()} can't be measured from here."
            talk.line(unseen)
        # What is written here goes to .cache and out; the engine's place comes first.
        places = (*roots, folders.cache) if roots else ()
        return Room(
            client=client,
            folders=folders,
            options=options,
            talk=talk,
            disk=DiskWatch(places=places, floor=options.min_free, unseen=unseen),
            ours=owns_engine(folders.root),
        )

    def before(self, plan: Plan) -> None:
        """Make room for `plan`; BuildFailed when there isn't enough."""
        stack = plan.row.stack.name
        if stack != self._stack:
            self._stack, self._since = stack, time.time()
            self._later = [offer for offer in self._later if offer.stack != stack]
        needed = self._needs(plan, cached=0)
        if not self.disk.fits(needed):
            self._make(needed)
            # What is still cached can't go, or is this stack's own: it counts for the row.
            needed = self._needs(plan, cached=cache_size(self.client))
        self.disk.require(plan.row.id, needed)

    def withdraw(self, row: str) -> None:
        """Take back what was offered of an earlier run: the row's turn has come."""
        self._later = [offer for offer in self._later if offer.record.id != row]

    def offer(self, plan: Plan, record: BuildRecord) -> None:
        """Say that this row's image may go when another stack needs its room."""
        self._offers.append(_Offer(plan.row.stack.name, record))

    def offer_later(self, stack: str, record: BuildRecord) -> None:
        """Say that this image of an earlier run may go before its row's turn comes.

        Without that, what the last run left could be in the way of this one for good.
        """
        if image_digest(self.client, record.reference) == record.digest:
            self._later.append(_Offer(stack, record))

    def clear(self) -> None:
        """Evict everything that was offered, needed or not, and the build cache with it."""
        if self._offers:
            for _ in self._evictions(self._offers):
                continue
            self._prune(0, "its rows are done")

    @contextmanager
    def tidied(self) -> Iterator[None]:
        """Afterwards bring the build cache of our own engine below its budget."""
        started = time.time()
        yield
        # Measuring takes the engine a moment, so a run that built nothing leaves it alone.
        if not self.ours or not self._stack:
            return
        budget = self.options.cache_budget
        if budget is None:
            budget = default_budget(self.disk.places[0]) if self.disk.places else FLOOR
        try:
            freed = prune(self.client, budget, used_since=started)
        except EngineTrouble as error:  # what was built is built
            self.talk.line(f"the build cache was not tidied: {error}")
            return
        if freed:
            self.talk.line(f"build cache: {human_bytes(freed)} removed, {human_bytes(budget)} kept")

    def _needs(self, plan: Plan, *, cached: int) -> int:
        given = self.options.row_space
        peers = list(self._peers(plan.row.stack.name))
        made = any(
            record.digest is not None
            and _same_stack(record.inputs, plan.inputs)
            and image_digest(self.client, record.reference) == record.digest
            for record in peers
        )
        if given is not None and (given == 0 or not made):
            return given
        sizes = [record.size_bytes for record in peers if record.size_bytes]
        return row_needs(
            plan.row,
            stack_made=made,
            known_size=max(sizes, default=None),
            cached=cached,
        )

    def _peers(self, stack: str) -> Iterator[BuildRecord]:
        """Yield the records of all rows of a stack; a damaged one tells nothing."""
        for path in sorted(self.folders.out.glob("*/plan.json")):
            with suppress(InvalidInput):
                plan = read_record(path, PlanRecord)
                record = read_record(path.with_name("build.json"), BuildRecord)
                if plan is not None and record is not None and plan.stack == stack:
                    yield record

    def _make(self, needed: int) -> None:
        self._prune(needed, "the next row needs the room", keep_since=self._since)
        if self.disk.fits(needed):
            return
        done = [offer for offer in self._offers if offer.stack != self._stack]
        for _ in self._evictions([*done, *reversed(self._later)]):
            self._prune(needed, "its images are gone", keep_since=self._since)
            if self.disk.fits(needed):
                return

    def _prune(self, needed: int, why: str, keep_since: float | None = None) -> None:
        """Empty our engine's build cache, but for what was used since `keep_since`."""
        if not self.ours or (needed and self.disk.fits(needed)):
            return
        freed = prune(self.client, 0, used_since=keep_since, keep_used=keep_since is not None)
        if freed:
            self.talk.line(f"build cache: {human_bytes(freed)} removed: {why}")

    def _evictions(self, offers: list[_Offer]) -> Iterator[None]:
        """Evict the offered images one by one, and note it in their records."""
        for offer in list(offers):
            self._offers = [other for other in self._offers if other is not offer]
            self._later = [other for other in self._later if other is not offer]
            record = offer.record
            assert record.digest is not None
            reason = evict(self.client, record.reference, record.digest)
            if reason is not None:
                self.talk.line(f"{record.id}: its image stays: {reason}")
                continue
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            gone = record.model_copy(update={"status": "built", "evicted": now})
            write_record(self._path(record), gone)
            self.talk.line(f"{record.id}: image evicted to make room, its records stay")
            yield

    def _path(self, record: BuildRecord) -> Path:
        return self.folders.row(record.id) / "build.json"


_STACK_STEPS = ("in step cuda,", "in step torch,", "in step tensorrt,")


def _same_stack(built: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether two rows stand on the same layers: an older image of a stack saves no room."""

    def stack(inputs: Mapping[str, str]) -> dict[str, str]:
        return {
            name: value
            for name, value in inputs.items()
            if name in {"epoch", "python", "base"}
            or name.startswith(("images/base/", "images/stack/"))
            or any(step in value for step in _STACK_STEPS)
        }

    return stack(built) == stack(wanted)
