"""An engine's disk as far as a sweep sees it: images and build cache have sizes, and go."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from builder import room as room_module
from builder import sweep as sweep_module
from builder.disk import DiskWatch, Space
from builder.folders import Folders, hash_images
from builder.lock import load_lock
from builder.matrix import load_matrix
from builder.plan import BuildInputs, Plan, make_plan
from builder.preflight import OPTIONAL_PARTS
from builder.records import BuildRecord, Missing, write_record
from builder.room import DiskOptions, Room
from builder.talk import Talk

GB = 10**9
IMAGE = 12 * GB
CACHE = 9 * GB


@dataclass
class Disk:
    """What lies on the engine's disk; the images of a stack share all they have."""

    size: int
    images: dict[str, str] = field(default_factory=dict)
    cache: int = 0
    in_use: set[str] = field(default_factory=set)

    @property
    def free(self) -> int:
        stacks = {reference.partition(":")[0].rpartition("-")[2] for reference in self.images}
        return self.size - IMAGE * len(stacks) - self.cache

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of the engine in the modules under test."""
        fakes: dict[str, Any] = {
            "cache_size": lambda _: self.cache,
            "prune": self._prune,
            "evict": self._evict,
            "image_digest": lambda _, reference: self.images.get(reference),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(room_module, name, fake)
        monkeypatch.setattr(sweep_module, "image_digest", fakes["image_digest"])

    def _prune(self, _client: object, budget: int, **_options: object) -> int:
        freed = self.cache if self.cache > budget else 0
        self.cache -= freed
        return freed

    def _evict(self, _client: object, reference: str, digest: str) -> str | None:
        assert self.images[reference] == digest
        if reference in self.in_use:
            return "a container uses it"
        del self.images[reference]
        return None


def make_room(
    disk: Disk, folders: Folders, talk: Talk, *, ours: bool = True, **options: Any
) -> Room:
    def look(place: Path) -> Space:
        return Space(place=place, free=disk.free, total=disk.size)

    client: Any = None
    return Room(
        client=client,
        folders=folders,
        options=DiskOptions(**options),
        talk=talk,
        disk=DiskWatch((Path("/engine"),), look=look),
        ours=ours,
    )


def make_plans(root: Path, *ids: str) -> list[Plan]:
    rows = {row.id: row for row in load_matrix(root / "matrix.yaml").rows}
    inputs = BuildInputs(
        base_source="registry",
        base_digest="sha256:" + "d" * 64,
        images=hash_images(root / "images"),
        revision="0" * 40,
        source="",
    )
    # A partial image: the locks of the matrix may leave these parts open.
    missing = [
        Missing.model_validate({"part": part, "source": "https://host", "reason": "no route"})
        for part in OPTIONAL_PARTS
    ]
    locks = {name: load_lock(root / "locks", rows[name]) for name in ids}
    return [make_plan(rows[name], locks[name], inputs, missing) for name in ids]


def make_record(plan: Plan, **changes: Any) -> BuildRecord:
    fields: dict[str, Any] = {
        "id": plan.row.id,
        "status": "built",
        "digest": "sha256:" + plan.record.build_key,
        "build_key": plan.record.build_key,
        "reference": plan.record.reference,
        "seconds": 1.0,
        "size_bytes": 4 * GB,
        "missing": (),
        "finished": "2026-11-25T03:00:00+00:00",
        "inputs": dict(plan.inputs),
        **changes,
    }
    return BuildRecord(**fields)


def write_records(folders: Folders, plan: Plan, record: BuildRecord) -> None:
    write_record(folders.row(plan.row.id) / "plan.json", plan.record)
    write_record(folders.row(plan.row.id) / "build.json", record)
