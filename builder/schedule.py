"""The order of the work: stack by stack, and one row at a time.

Rows of a stack share nearly all of their bytes: built one after the other the second takes seconds,
and when the last one is done the whole stack can leave the disk at once.

Nothing is built side by side. A CUDA stack keeps two cores and one disk busy from its first wheel
to its last layer (installs, zstd, unpacking) and takes more than 20 GB while it is made: two stacks
at a time would need twice the disk and end no sooner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from builder.spec import ImageSpec

__all__ = ["by_stack", "stacks"]


def stacks(rows: Iterable[ImageSpec]) -> tuple[tuple[ImageSpec, ...], ...]:
    """Group rows by stack, stacks and rows in the order in which they first appear.

    Within a stack rows with flash-attn come last: that layer lies below the dependencies, so the
    rows without it share theirs with the stack's first row.
    """
    groups: dict[str, list[ImageSpec]] = {}
    for row in rows:
        groups.setdefault(row.stack.name, []).append(row)
    return tuple(
        tuple(sorted(group, key=lambda row: row.flash_attn is not None))
        for group in groups.values()
    )


def by_stack(rows: Sequence[ImageSpec]) -> tuple[ImageSpec, ...]:
    """Return the same rows in the order in which they should be built."""
    return tuple(row for group in stacks(rows) for row in group)
