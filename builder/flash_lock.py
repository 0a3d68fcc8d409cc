"""What a compilation of flash-attn is made from, by hash: `locks/flash-build.<stack>.{txt,json}`.

The text is what the package index serves: flash-attn's source archive, nvcc as far as it is there,
and what setup.py is run with. The record names what lies elsewhere: nvcc itself, for CUDA 12.
Both are written by `build.py lock`, and only for stacks that say `source: build`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.version import Version
from pydantic import BaseModel, ConfigDict

from builder.artifacts import ArtifactLock
from builder.errors import Finding, InvalidInput
from builder.known import Known, known_artifacts
from builder.records import Record, read_record, write_atomic, write_record
from builder.requirements import Locked, parse_lock, step_of
from builder.resolver import Resolution, resolve
from builder.sources import Sources
from builder.spec import ImageSpec
from builder.wheelhouse import local_folders, sha256_of

__all__ = ["FlashLock", "FlashLockRecord", "load_flash_lock", "make_flash_lock"]

SOURCE = "flash-attn"

_TOOLS = ("ninja", "packaging", "psutil", "setuptools", "wheel")
"""What flash-attn's setup.py imports or torch's build extension runs; 2.8.3, read 2026-11-25."""


class FlashLockRecord(Record):
    """`locks/flash-build.<stack>.json`: for what it was locked, and the files by URL."""

    stack: str
    inputs: dict[str, str]
    artifacts: tuple[ArtifactLock, ...]


class FlashLock(BaseModel):
    """Both files of one stack; `text` is the hash lock as committed."""

    model_config = ConfigDict(frozen=True)

    record: FlashLockRecord
    text: str

    @property
    def source(self) -> Locked:
        """flash-attn's source archive."""
        return next(entry for entry in parse_lock(self.text) if entry.name == SOURCE)

    @property
    def compiler(self) -> str:
        """The requirement list of the builder stage: all but flash-attn itself."""
        return "".join(f"{e}\n" for e in parse_lock(self.text) if e.name != SOURCE)

    def identity(self) -> str:
        """What decides the machine code, as text: the source and the compiler, not what runs them.

        A newer ninja is no reason to compile for hours.
        """
        entries = [
            e for e in parse_lock(self.text) if e.name == SOURCE or step_of(e.name) == "cuda"
        ]
        files = (f"{item.url} {item.sha256}\n" for item in self.record.artifacts)
        return "".join((*(f"{entry}\n" for entry in entries), *files))


def flash_inputs(row: ImageSpec, row_lock: str) -> dict[str, str]:
    """The values that decide the lock; a difference means that it is stale.

    What the stage under the compiler has already is not locked twice: it is one of the values.
    """
    assert row.flash_attn is not None
    there = "".join(str(entry) for entry in _installed(row_lock))
    return {
        "flash_attn": row.flash_attn.version,
        "suite": row.stack.suite,
        "python": row.stack.python,
        "cuda": row.stack.cuda or "",
        "torch": row.stack.torch,
        "installed": hashlib.sha256(there.encode()).hexdigest(),
    }


def _installed(row_lock: str) -> list[Locked]:
    """What the stage `torch` of the stack has."""
    return [entry for entry in parse_lock(row_lock) if step_of(entry.name) in {"cuda", "torch"}]


def make_flash_lock(
    folder: Path,
    row: ImageSpec,
    row_lock: str,
    *,
    sources: Sources,
    upgrade: Sequence[str] = (),
    talk: Callable[[str], None],
) -> FlashLock:
    """Lock what is compiled for `row`, and with what; `row_lock` is the lock of the row itself."""
    text_path = _path(folder, row, "txt")
    talk(f"{row.id}: resolving what flash-attn is compiled with")
    assert row.flash_attn is not None
    there = {entry.name for entry in _installed(row_lock)} | {"torch"}
    resolved = resolve(
        Resolution(
            place=row.id,
            requirements=[
                f"{SOURCE}=={row.flash_attn.version}",
                # Its own dependencies are installed after it in an image, but setup.py imports it.
                f"torch=={row.stack.torch}",
                *_TOOLS,
                *_toolkit(row),
            ],
            python=row.stack.python,
            suite=row.stack.suite,
            preferences=text_path.read_text(encoding="utf-8") if text_path.exists() else "",
            constraints="".join(f"{e.name}=={e.version}\n" for e in parse_lock(row_lock)),
            archives={SOURCE: row.flash_attn.version},
            upgrade=upgrade,
        ),
        sources,
    )
    hashed = _with_local_hash(resolved, row, sources)
    kept = [entry for entry in parse_lock(hashed) if entry.name not in there]
    header = f"# Written by: python3 build.py lock '*-{row.stack.name}'\n"
    text = header + "".join(f"{entry}\n" for entry in kept)
    record = FlashLockRecord(
        stack=row.stack.name,
        inputs=flash_inputs(row, row_lock),
        artifacts=_archives(row, known_artifacts()),
    )
    write_atomic(text_path, text)
    write_record(_path(folder, row, "json"), record)
    return FlashLock(record=record, text=text)


def _with_local_hash(text: str, row: ImageSpec, sources: Sources) -> str:
    """Add the hash of an archive in a local folder: uv only names what it need not open."""
    assert row.flash_attn is not None
    bare = f"{SOURCE}=={row.flash_attn.version}\n"
    if bare not in text:
        return text
    file = f"flash_attn-{row.flash_attn.version}.tar.gz"
    places = [folder / file for folder in local_folders(sources.find_links)]
    hashes = sorted({sha256_of(path) for path in places if path.is_file()})
    if not hashes:
        raise InvalidInput(
            Finding(
                place=row.id,
                what=f"{file} has no hash",
                why="The package index serves it without one.",
                todo="Use an index that serves hashes, or put the file into a local wheelhouse.",
            )
        )
    entry = Locked(name=SOURCE, version=row.flash_attn.version, hashes=tuple(hashes))
    return text.replace(bare, f"{entry}\n")


def load_flash_lock(folder: Path, row: ImageSpec, row_lock: str) -> FlashLock:
    """Return the lock of the compilation; InvalidInput when it is absent, damaged, or stale."""
    path, text_path = _path(folder, row, "json"), _path(folder, row, "txt")
    todo = f"Run: python3 build.py lock {row.id}"
    record = read_record(path, FlashLockRecord)
    if record is None or not text_path.exists():
        raise InvalidInput(
            Finding(
                place=row.id,
                what="has no lock for the compilation of flash-attn",
                why=f"matrix.yaml says `source: build` for stack {row.stack.name}.",
                todo=todo,
            )
        )
    stale = [
        Finding(
            place=str(path),
            what=f"stale lock: {key}: now {value!r}, lock has {record.inputs.get(key, '')!r}",
            todo=todo,
        )
        for key, value in flash_inputs(row, row_lock).items()
        if record.inputs.get(key) != value
    ]
    if stale:
        raise InvalidInput(*stale)
    text = text_path.read_text(encoding="utf-8")
    try:
        names = [entry.name for entry in parse_lock(text)]
    except ValueError as error:
        raise InvalidInput(Finding(place=str(text_path), what=str(error), todo=todo)) from error
    if SOURCE not in names:
        raise InvalidInput(Finding(place=str(text_path), what=f"{SOURCE} is not in it", todo=todo))
    return FlashLock(record=record, text=text)


def _path(folder: Path, row: ImageSpec, suffix: str) -> Path:
    return folder / f"flash-build.{row.stack.name}.{suffix}"


def _toolkit(row: ImageSpec) -> list[str]:
    """The compiler and its headers, as far as the package index has them, at the row's CUDA.

    Since CUDA 13 the wheels hold all of nvcc. Those of CUDA 12 hold ptxas and headers but no nvcc.
    (nvidia-cuda-nvcc 13.0.88 and nvidia-cuda-nvcc-cu12 12.8.93, looked into on 2026-11-25.)
    """
    assert row.stack.cuda is not None
    cuda = Version(row.stack.cuda)
    if cuda.major >= 13:
        return [f"cuda-toolkit[cccl,crt,cudart,nvcc,nvvm]=={cuda}.*"]
    return [f"nvidia-cuda-cccl-cu{cuda.major}=={cuda}.*"]


def _archives(row: ImageSpec, known: Sequence[Known]) -> tuple[ArtifactLock, ...]:
    """NVIDIA's archive of nvcc where the wheels lack it: the newest of the row's CUDA release."""
    cuda = row.stack.cuda
    assert cuda is not None
    if Version(cuda).major >= 13:
        return ()
    fitting = [
        item for item in known if item.name == "cuda_nvcc" and item.version.startswith(f"{cuda}.")
    ]
    if not fitting:
        raise InvalidInput(
            Finding(
                place=row.id,
                what=f"no hash is known for nvcc of CUDA {cuda}",
                why="flash-attn can't be compiled with a compiler that nobody has vouched for.",
                todo="Use another CUDA, or add NVIDIA's archive to builder/data/artifacts.json.",
            )
        )
    best = max(fitting, key=lambda item: Version(item.version))
    return (
        ArtifactLock(
            part="flash-attn",
            name="cuda-nvcc",
            version=best.version,
            url=best.url,
            sha256=best.sha256,
            size=best.size,
            status=best.status,
        ),
    )
