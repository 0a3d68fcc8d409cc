"""Rows -> locks: what exactly an image installs, by hash.

A row has two files under locks/: `<id>.txt`, what the package index serves, resolved by uv; and
`<id>.json`, what lies elsewhere (TensorRT's libraries, flash-attn wheels, PyTorch's CPU wheels, a
source archive, checkpoints, the base image), each with its hash and how well that hash is known.
The second file also keeps the values of matrix.yaml that the lock was made from, so that a stale
lock is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from builder.artifacts import ArtifactLock, artifacts_of
from builder.errors import Finding, InvalidInput
from builder.flash_lock import FlashLock, load_flash_lock, make_flash_lock
from builder.known import Known, known_artifacts
from builder.records import Record, read_record, write_atomic, write_record
from builder.requirements import Locked, parse_lock
from builder.resolver import Resolution, resolve
from builder.sources import Sources
from builder.spec import ImageSpec, Weight

__all__ = [
    "ArtifactLock",
    "BaseLock",
    "Lock",
    "LockRecord",
    "WeightLock",
    "load_lock",
    "lock_inputs",
    "make_lock",
]

# The image has no display: the headless build of OpenCV replaces the one that needs libGL.
_OVERRIDES = "opencv-python ; sys_platform == 'never'\n"


class BaseLock(BaseModel):
    """The base image where a registry answers; elsewhere it is made from Debian packages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    repository: str
    digest: str
    status: str


class WeightLock(BaseModel):
    """A checkpoint: official URL, hash, size in bytes, licence, and whose code can load it.

    `lineage_from` says how the lineage is known: `matrix`, or `checkpoint` once a machine had the
    file and read it off its state-dict keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    url: str
    sha256: str
    size: int
    licence: str
    status: str
    lineage: str
    lineage_from: Literal["matrix", "checkpoint"]


class LockRecord(Record):
    """`locks/<id>.json`."""

    row: str
    inputs: dict[str, str]
    base: BaseLock
    artifacts: tuple[ArtifactLock, ...]
    weights: tuple[WeightLock, ...]


class Lock(BaseModel):
    """Both files of one row; `text` is the hash lock as committed.

    `flash` is what flash-attn is compiled from, where the row says `source: build`.
    """

    model_config = ConfigDict(frozen=True)

    record: LockRecord
    text: str
    flash: FlashLock | None = None

    def entries(self) -> tuple[Locked, ...]:
        """The distributions that come from the package index."""
        return parse_lock(self.text)

    def identity(self) -> str:
        """The hash of what is locked, whatever is known about how well it is known."""
        known = {"__all__": {"status", "lineage_from"}}
        record = self.record.model_dump_json(
            exclude={"base": {"status"}, "artifacts": known, "weights": known}
        )
        compiled = self.flash.identity() if self.flash is not None else ""
        return hashlib.sha256((self.text + record + compiled).encode()).hexdigest()


def lock_inputs(row: ImageSpec) -> dict[str, str]:
    """The values of a row that decide its lock; a difference means that the lock is stale."""
    stack = row.stack
    tensorrt = stack.tensorrt
    return {
        "platform": row.platform,
        "suite": stack.suite,
        "python": stack.python,
        "cuda": stack.cuda or "",
        "index": stack.index,
        "torch": stack.torch,
        "torchvision": stack.torchvision,
        "tensorrt": f"{tensorrt.package}=={tensorrt.version}" if tensorrt else "",
        "onnxruntime": stack.onnxruntime,
        "flash_attn": str(row.flash_attn) if row.flash_attn else "",
        "distribution": row.distribution,
        "ultralytics": row.ultralytics,
        "archive": f"{row.archive.url} {row.archive.sha256}" if row.archive else "",
        "requirements": " ".join(row.requirements),
        "weights": " ".join(f"{weight.name}={weight.sha256}" for weight in row.weights),
    }


def load_lock(folder: Path, row: ImageSpec) -> Lock:
    """Return the lock of `row`; InvalidInput when it is absent, damaged, or stale."""
    todo = f"Run: python3 build.py lock {row.id}"
    path = folder / f"{row.id}.json"
    record = read_record(path, LockRecord)
    text_path = folder / f"{row.id}.txt"
    if record is None or not text_path.exists():
        raise InvalidInput(Finding(place=row.id, what="has no lock", todo=todo))
    stale = [
        f"{key}: matrix has {value!r}, lock has {record.inputs.get(key, '')!r}"
        for key, value in lock_inputs(row).items()
        if record.inputs.get(key) != value
    ]
    if stale:
        raise InvalidInput(
            *(Finding(place=str(path), what=f"stale lock: {line}", todo=todo) for line in stale)
        )
    text = text_path.read_text(encoding="utf-8")
    try:
        parse_lock(text)
    except ValueError as error:
        raise InvalidInput(Finding(place=str(text_path), what=str(error), todo=todo)) from error
    flash = load_flash_lock(folder, row, text) if _is_compiled(row) else None
    return Lock(record=record, text=text, flash=flash)


def _is_compiled(row: ImageSpec) -> bool:
    flash = row.flash_attn
    return flash is not None and flash.source == "build" and row.stack.cuda is not None


def make_lock(
    folder: Path,
    row: ImageSpec,
    *,
    sources: Sources,
    upgrade: Sequence[str] = (),
    talk: Callable[[str], None],
) -> Lock:
    """Resolve `row` and write its two files; what was locked before stays unless upgraded."""
    before = _before(folder, row)
    text_path = folder / f"{row.id}.txt"
    talk(f"{row.id}: resolving")
    resolved = _compile(row, _preferences(folder, row), upgrade, sources)
    known = known_artifacts()
    record = LockRecord(
        row=row.id,
        inputs=lock_inputs(row),
        base=_base(row, known),
        artifacts=tuple(_completed(item, row, before) for item in artifacts_of(row, known)),
        weights=tuple(_weight(weight, before) for weight in row.weights),
    )
    write_atomic(text_path, resolved)
    write_record(folder / f"{row.id}.json", record)
    flash = None
    if _is_compiled(row):
        flash = make_flash_lock(folder, row, resolved, sources=sources, upgrade=upgrade, talk=talk)
    return Lock(record=record, text=resolved, flash=flash)


def _before(folder: Path, row: ImageSpec) -> LockRecord | None:
    """The earlier lock of `row`, for what this machine may not be able to find out again."""
    try:
        return read_record(folder / f"{row.id}.json", LockRecord)
    except InvalidInput:
        return None  # damaged, or of an older format: it is written anew


def _completed(artifact: ArtifactLock, row: ImageSpec, before: LockRecord | None) -> ArtifactLock:
    """Keep the hash that an earlier machine computed, for the same file and version."""
    if artifact.sha256 is not None or before is None:
        return artifact
    now = lock_inputs(row)
    # Files of one version differ by these. Where an index told the name, only they can say that it
    # is the same file; elsewhere its address does.
    unmoved = all(before.inputs.get(key) == now[key] for key in ("python", "cuda", "torch"))
    for item in before.artifacts:
        same = (item.name, item.version) == (artifact.name, artifact.version)
        listed = artifact.index_page is not None
        if same and item.sha256 and (unmoved if listed else item.url == artifact.url):
            return item
    return artifact


def _weight(weight: Weight, before: LockRecord | None) -> WeightLock:
    read = before is not None and any(
        item.sha256 == weight.sha256 and item.lineage_from == "checkpoint"
        for item in before.weights
        if item.lineage == weight.lineage
    )
    return WeightLock(
        file=weight.name,
        url=weight.url,
        sha256=weight.sha256,
        size=weight.size,
        licence=weight.licence,
        status=weight.status,
        lineage=weight.lineage,
        lineage_from="checkpoint" if read else "matrix",
    )


def _preferences(folder: Path, row: ImageSpec) -> str:
    """Earlier pins: the row's own, else a sibling's, so that rows of a stack share layers."""
    own = folder / f"{row.id}.txt"
    siblings = sorted(folder.glob(f"*-{row.stack.name}.txt"))
    for path in (own, *siblings):
        if path.exists():
            return path.read_text(encoding="utf-8")
    return ""


def _requirements(row: ImageSpec) -> Iterable[str]:
    yield f"torch=={row.stack.torch}"
    yield f"torchvision=={row.stack.torchvision}"
    yield row.stack.onnxruntime
    yield f"ultralytics=={row.ultralytics}"
    yield from row.requirements
    if row.flash_attn is not None:
        yield "einops"  # flash-attn's only dependency beside torch
    if row.stack.tensorrt is not None:
        yield f"{row.stack.tensorrt.package}-bindings=={row.stack.tensorrt.version}"
    if row.stack.tensorrt is not None or row.archive is not None:
        yield "setuptools"  # builds TensorRT's metapackage and the source archive, in the image


def _compile(row: ImageSpec, preferences: str, upgrade: Sequence[str], sources: Sources) -> str:
    text = resolve(
        Resolution(
            place=row.id,
            requirements=list(_requirements(row)),
            python=row.stack.python,
            suite=row.stack.suite,
            preferences=preferences,
            overrides=_OVERRIDES,
            upgrade=upgrade,
        ),
        sources,
    )
    kept = [entry for entry in parse_lock(text) if _from_index(row, entry.name)]
    header = f"# Written by: python3 build.py lock {row.id}\n"
    return header + "".join(f"{entry}\n" for entry in kept)


def _from_index(row: ImageSpec, name: str) -> bool:
    """Whether the image takes `name` from the package index."""
    if row.archive is not None and name == "ultralytics":
        return False
    if row.stack.index == "pypi":
        return True
    # The index's torch is a CUDA build; the CPU one lies on PyTorch's index and needs none of it.
    cuda = name.startswith("nvidia-") and name != "nvidia-ml-py"
    return not cuda and name not in {"torch", "torchvision", "triton"}


def _base(row: ImageSpec, known: Sequence[Known]) -> BaseLock:
    file = f"debian:{row.stack.suite}-slim"
    found = next(item for item in known if item.file == file)
    return BaseLock(
        suite=row.stack.suite,
        repository="docker.io/library/debian",
        digest=f"sha256:{found.sha256}",
        status=found.status,
    )
