"""Free disk: what a row will need, and an end with a message before the engine finds the disk full.

An engine on a full disk fails in its own words, at a random place, and may not start again. So a
row starts only where its estimate fits, and a build that runs is ended when less than the floor is
left. A disk that can't be seen from here (a remote engine's) is named as not measured.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import BuildFailed, Finding, InvalidInput
from builder.spec import ImageSpec
from builder.talk import human_bytes

__all__ = [
    "FLOOR",
    "DiskWatch",
    "Space",
    "is_full",
    "on_full_disk",
    "parse_bytes",
    "row_needs",
    "space_of",
]

FLOOR = 2_000_000_000
"""Bytes that must stay free while a build runs. Enough for the engine to end a step and tidy up:
containerd and BuildKit write to their databases also when they delete."""

DISK_PER_COMPRESSED_BYTE = 5.4
"""Bytes on disk for each compressed byte of a stack's first image: the blobs once, the unpacked
files twice (BuildKit's snapshots and the image's). Measured 2026-11-25, rows yolov8-cu128 and
yolov12-cu128, Docker 26.1 with overlayfs on ext4: 3.9 GB compressed, 21.1 GB on disk."""

CONTEXTS = 500_000_000
"""Bytes of build contexts that BuildKit copies: base, wheels, uv (406 MB measured the same day)."""

FIRST_ROW_CUDA = 24_000_000_000
"""Bytes for the first row of a CUDA stack of which nothing is known: 21.1 GB that stay (above), and
the wheels of the largest step (2.9 GB), which lie beside what they unpack to until it ends. Without
TensorRT, which could not be had where this was measured: a whole image takes more, and only the
floor guards its first build; after that its size is known."""

FIRST_ROW_CPU = 7_000_000_000
"""The same for a CPU stack. Computed from the sizes of its packages, not measured."""

NEXT_ROW = 1_000_000_000
"""Bytes for a further row of a stack: checkpoints and runtime, 0.2 GB measured, and some air."""

NEXT_ROW_FLASH = 5_000_000_000
"""A further row with flash-attn has that wheel and every later layer of its own: 1.2 GB of
dependencies and about 0.9 GB of flash-attn, unpacked twice. Computed, not measured."""

# The third is how BuildKit ends when it has no room to write a zstd layer: it only logs the cause,
# then asks containerd's differ, which can't make zstd (seen 2026-11-25, Docker 26.1; BuildKit's
# cache/blobs.go). Where there is room its own differ makes every layer of ours.
_FULL = re.compile(
    r"no space left on device|disk quota exceeded|unsupported diff media type: \S*zstd",
    re.IGNORECASE,
)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TODO = (
    "Free some space there: `docker image ls`, `docker system df` and `docker buildx prune` show"
    " and remove what the engine keeps. Then repeat: finished steps are kept."
)


@dataclass(frozen=True, kw_only=True)
class Space:
    """The file system that holds `place`: free bytes for us, and its size."""

    place: Path
    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.place}: {human_bytes(self.free)} free of {human_bytes(self.total)}"


def space_of(place: Path) -> Space:
    """Return the space at `place`, or at the nearest folder above that exists."""
    path = place.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    found = os.statvfs(path)
    return Space(
        place=place, free=found.f_bavail * found.f_frsize, total=found.f_blocks * found.f_frsize
    )


def parse_bytes(text: str, place: str) -> int:
    """Parse `20GB`, `500 MB` or `0`; decimal units. InvalidInput names `place`, the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if match is None:
        raise InvalidInput(
            Finding(place=place, what=f"{text!r} is not a size", todo="Write it like 20GB or 500MB")
        )
    return int(float(match[1]) * _UNITS[match[2]])


def row_needs(row: ImageSpec, *, stack_made: bool, known_size: int | None, cached: int) -> int:
    """Estimate the bytes that building `row` takes from the engine's disk.

    `stack_made` says that the engine holds another row of the same stack; `known_size` is the
    compressed size of an earlier image of the stack; `cached` is the size of the engine's build
    cache. All of that cache is counted in the row's favour, for nobody can say which records are
    this stack's: better to start and be stopped at the floor than to refuse what would have fit.
    """
    if stack_made:
        return NEXT_ROW_FLASH if row.flash_attn else NEXT_ROW
    if known_size is not None:
        whole = int(known_size * DISK_PER_COMPRESSED_BYTE) + CONTEXTS
    else:
        whole = FIRST_ROW_CUDA if row.stack.cuda else FIRST_ROW_CPU
    return max(NEXT_ROW, whole - cached)


def is_full(text: str) -> bool:
    """Whether a tool's words say that a disk is full."""
    return _FULL.search(text) is not None


@dataclass
class DiskWatch:
    """Watches the disks that a build writes to, and keeps `floor` bytes of each free.

    `places` are folders on this machine; `unseen` names what can't be measured from here. `look`
    and `clock` exist for tests.
    """

    places: Sequence[Path]
    floor: int = FLOOR
    unseen: str = ""
    look: Callable[[Path], Space] = space_of
    clock: Callable[[], float] = time.monotonic
    _next: float = field(default=0.0, init=False)

    def spaces(self) -> list[Space]:
        """Return the space at every place, the smallest first."""
        return sorted((self.look(place) for place in self.places), key=lambda space: space.free)

    def require(self, row: str, needed: int) -> None:
        """Raise BuildFailed unless `needed` bytes fit above the floor on the engine's disk.

        That is the first of the places; on the others the floor must be free.
        """
        for index, place in enumerate(self.places):
            space, wanted = self.look(place), needed if index == 0 else 0
            if space.free < wanted + self.floor:
                raise BuildFailed(
                    Finding(
                        place=row,
                        what=f"not enough disk: {space}",
                        why=f"It takes about {human_bytes(wanted)}, and {human_bytes(self.floor)}"
                        " must stay free.",
                        todo=f"{_TODO} If the estimate is wrong: --row-space SIZE, or 0 to start"
                        " whatever happens; the build still ends before the disk is full.",
                    )
                )

    def fits(self, needed: int) -> bool:
        """Whether `needed` bytes fit above the floor on the engine's disk, as far as is known."""
        return not self.places or self.look(self.places[0]).free >= needed + self.floor

    def check(self) -> None:
        """Raise BuildFailed when less than the floor is free; looks once a second at most."""
        now = self.clock()
        if now < self._next:
            return
        self._next = now + 1.0
        for space in self.spaces():
            if space.free < self.floor:
                raise BuildFailed(
                    Finding(
                        place=str(space.place),
                        what=f"the disk is almost full: {space}",
                        why=f"The build was ended to keep {human_bytes(self.floor)} free: an engine"
                        " on a full disk may not start again.",
                        todo=_TODO,
                    )
                )

    def full(self, place: str, said: str, log: str) -> BuildFailed:
        """Return the error for a disk that filled up all the same; `said` is the tool's word."""
        free = "; ".join(str(space) for space in self.spaces())
        return BuildFailed(
            Finding(
                place=place,
                what="the disk is full",
                why=f"{said}\n    {free or self.unseen}",
                todo=f"{_TODO} The whole output is in {log}.",
            )
        )


@contextmanager
def on_full_disk(doing: str) -> Iterator[None]:
    """Turn this machine's own 'no space left' while `doing` something into BuildFailed."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise BuildFailed(
            Finding(
                place=str(error.filename or doing),
                what="the disk is full",
                why=str(error),
                todo=_TODO,
            )
        ) from error
