"""Build a row twice without any cache, and compare every byte.

The row's own records and tag are left as they are: both builds have records and a tag of their own,
and the tags are removed at the end, also those of a run that was killed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from docker import DockerClient

from builder.build import Builder
from builder.engine.cache import evict, image_digest
from builder.engine.client import EngineTrouble, engine_version
from builder.engine.export import read_image
from builder.engine.leftovers import tags_of
from builder.errors import Finding, InvalidInput
from builder.folders import Folders, hash_images
from builder.layers import Entry, Image, Look
from builder.plan import IMAGE_PREFIX, Plan
from builder.records import BuildRecord, write_record
from builder.repro import ConfigChange, LayerChange, ReproRecord, compare_config, compare_layers
from builder.session import Session
from builder.talk import Talk

__all__ = ["build_twice", "compare_images"]

_NAMES = ("first", "second")
_SMALL = 256 << 10  # bytes of a file whose content is looked at for the cause
_ENOUGH = 16 << 20  # bytes of all of them
_TAG = re.compile(r".*:repro-(?:first|second)-(?P<pid>\d+)")


def build_twice(builder: Builder, plan: Plan) -> ReproRecord:
    """Build `plan` twice, write `out/<id>/repro.json` and return it.

    Raises BuildFailed when a build fails, EngineUnavailable when the engine goes away, InvalidInput
    when somebody edits images/ meanwhile. Whether the builds are alike is in the record.
    """
    row, talk = plan.row.id, builder.talk
    files = hash_images(builder.folders.images)
    options = replace(builder.options, no_cache=True)
    with builder.session() as within, _tags(within.client, row, talk) as tags:
        built = []
        for name, tag in zip(_NAMES, tags, strict=True):
            talk.line(f"{row}: the {name} of two builds without any cache")
            apart = replace(
                builder, options=options, folders=_Apart(builder.folders.root, row, name)
            )
            built.append(_build(apart, plan, tag, within))
        if hash_images(builder.folders.images) != files:
            raise InvalidInput(
                Finding(
                    place="images",
                    what=f"files were edited while {row} was built",
                    why="The two builds did not start from the same files.",
                    todo=f"Run: python3 build.py verify-repro {row}",
                )
            )
        record = _compare(plan, built, within.client, talk)
    write_record(builder.folders.row(row) / "repro.json", record)
    return record


@dataclass(frozen=True)
class _Apart(Folders):
    """The project's folders, but with results in a place of their own."""

    row_id: str
    name: str

    @property
    def out(self) -> Path:
        """Records and log of one of the builds."""
        return self.root / "out" / self.row_id / "repro" / self.name


def _build(builder: Builder, plan: Plan, tag: str, within: Session) -> BuildRecord:
    tagged = replace(plan, record=plan.record.model_copy(update={"reference": tag}))
    (record,) = builder.build([tagged], within)
    return record


@contextmanager
def _tags(client: DockerClient, row: str, talk: Talk) -> Iterator[list[str]]:
    """Yield a tag for each build; afterwards, and before, remove what carries such a tag."""
    repository = f"{IMAGE_PREFIX}/{row}"
    # An image that vanishes while the engine lists them makes it fail: no reason to build nothing.
    with suppress(EngineTrouble):
        _remove(client, [tag for tag in tags_of(client, repository) if _is_left_over(tag)], talk)
    tags = [f"{repository}:repro-{name}-{os.getpid()}" for name in _NAMES]
    try:
        yield tags
    finally:
        _remove(client, tags, talk)


def _is_left_over(tag: str) -> bool:
    """Whether a process that is gone made it. One engine serves one machine's builds at a time."""
    found = _TAG.fullmatch(tag)
    return found is not None and not Path("/proc", found["pid"]).exists()


def _remove(client: DockerClient, tags: Sequence[str], talk: Talk) -> None:
    for tag in tags:
        try:
            digest = image_digest(client, tag)
            reason = evict(client, tag, digest) if digest else None
        except EngineTrouble as error:
            reason = str(error)
        if reason:
            talk.line(f"{tag} stays: {reason}; remove it with: docker image rm {tag}")


def _compare(
    plan: Plan, built: Sequence[BuildRecord], client: DockerClient, talk: Talk
) -> ReproRecord:
    first, second = (record.digest or "" for record in built)
    config: tuple[ConfigChange, ...] = ()
    layers: tuple[LayerChange, ...] = ()
    if first != second:
        talk.line(f"{plan.row.id}: the digests differ; looking for the files that do")
        images, layers = compare_images(client, first, second)
        config = compare_config(*images)
    return ReproRecord(
        id=plan.row.id,
        build_key=plan.record.build_key,
        identical=first == second,
        first=first,
        second=second,
        seconds=(built[0].seconds, built[1].seconds),
        config=config,
        layers=layers,
        engine=engine_version(client),
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def compare_images(
    client: DockerClient, first: str, second: str
) -> tuple[tuple[Image, Image], tuple[LayerChange, ...]]:
    """Return two images of the engine, by digest, and the layers that differ.

    First the manifests, then the files of the layers that differ, then what is in the small ones.
    """
    digests = (first, second)
    left, right = (read_image(client, digest, look=Look(layers=_no_layer)) for digest in digests)
    have = [{layer.digest for layer in image.layers} for image in (left, right)]
    wanted = have[0] ^ have[1]

    def read(digest: str, keep: Collection[str]) -> Image:
        look = Look(layers=wanted.__contains__, hashes=True, keep=lambda entry: entry.path in keep)
        return read_image(client, digest, look=look)

    left, right = read(first, ()), read(second, ())
    changes = compare_layers(left, right)
    telling = _small_files(left, right, changes)
    if telling:
        left, right = read(first, telling), read(second, telling)
        changes = compare_layers(left, right)
    return (left, right), changes


def _no_layer(_digest: str) -> bool:
    return False


def _small_files(left: Image, right: Image, changes: Sequence[LayerChange]) -> set[str]:
    """Return the paths of files whose content differs and is small enough to be looked at."""
    differing = {
        file.path for layer in changes for file in layer.files if "content" in file.changes
    }
    sizes: dict[str, int] = {}
    for entry in _entries(left, right):
        if entry.path in differing:
            sizes[entry.path] = sizes.get(entry.path, 0) + entry.size
    chosen, total = set(), 0
    for path, size in sorted(sizes.items(), key=lambda item: item[1]):
        total += size
        if size > 2 * _SMALL or total > _ENOUGH:
            break
        chosen.add(path)
    return chosen


def _entries(*images: Image) -> Iterator[Entry]:
    for image in images:
        for layer in image.layers:
            yield from layer.entries or ()
