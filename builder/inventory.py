"""What an image really holds: asked of the image itself, and believed no further than it can be.

One container is started: no network, read-only root, a user nobody knows, limits on memory,
processes and time. What it prints is data: bounded, parsed strictly, and compared with the plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from docker import DockerClient
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from builder.engine.client import ContainerLost, ImageFacts, StartRefused
from builder.engine.containers import Limits, Mount, Request, Result, running
from builder.errors import BuildFailed, Finding
from builder.plan import Plan

__all__ = [
    "Checkpoint",
    "DebianPackage",
    "Distribution",
    "Inventory",
    "OperatingSystem",
    "contradictions",
    "parse_inventory",
    "take_inventory",
]

PYTHON = "/opt/venv/bin/python"
LONGEST = 8 << 20
"""Bytes of the document; the images of November 2026 print 70 kB."""

_ENVIRONMENT = "/opt/venv/lib"
_SCRIPT = Path(__file__).parent / "inside" / "inventory.py"
_TARGET = "/inventory.py"
# It takes 1 s on a warm disk; the files of a 12 GB image on a cold one take longer.
_SECONDS = 180.0
_TODO = "Build the row again with --no-cache; if that changes nothing, the Dockerfiles do this."

Text = Annotated[str, Field(max_length=500)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
AbsolutePath = Annotated[str, Field(pattern=r"^/", max_length=1_000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Seen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OperatingSystem(_Seen):
    """os-release(5), by its own names."""

    id: Name = Field(alias="ID")
    name: Text = Field("", alias="NAME")
    version: Name = Field(alias="VERSION_ID")
    codename: Text = Field("", alias="VERSION_CODENAME")
    home: Text = Field("", alias="HOME_URL")


class DebianPackage(_Seen):
    """An installed package; `source` is empty where it is named and versioned as the package."""

    name: Name
    version: Name
    architecture: Name
    source: Text


class Distribution(_Seen):
    """An installed Python distribution. `path` is its metadata folder."""

    path: AbsolutePath
    name: Name
    version: Name
    license_expression: Text
    license: Text
    classifiers: Annotated[tuple[Text, ...], Field(max_length=100)]
    home_page: Text
    requires: Annotated[
        tuple[Annotated[str, Field(max_length=2_000)], ...], Field(max_length=1_000)
    ]
    record_sha256: Sha256 | None

    @property
    def key(self) -> str:
        """The one spelling of its name."""
        return str(canonicalize_name(self.name))

    @property
    def importable(self) -> bool:
        """Whether the image's Python imports it; others are parts of one that is, or Debian's."""
        path = PurePosixPath(self.path)
        return path.is_relative_to(_ENVIRONMENT) and path.parent.name == "site-packages"


class Checkpoint(_Seen):
    """A file that holds a network; `size` is in bytes."""

    path: AbsolutePath
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256

    @property
    def file(self) -> str:
        """Its name as the plan has it."""
        return PurePosixPath(self.path).name


class Inventory(_Seen):
    """Everything that `inside/inventory.py` found in one image."""

    format: Literal[1]
    python: Name
    machine: Name
    os: OperatingSystem
    debian: Annotated[tuple[DebianPackage, ...], Field(max_length=10_000)]
    distributions: Annotated[tuple[Distribution, ...], Field(max_length=5_000)]
    checkpoints: Annotated[tuple[Checkpoint, ...], Field(max_length=100)]

    @model_validator(mode="after")
    def _each_once(self) -> Inventory:
        names = [
            *(f"{item.name}:{item.architecture}" for item in self.debian),
            *(item.path for item in self.distributions),
            *(item.key for item in self.distributions if item.importable),
            *(item.path for item in self.checkpoints),
        ]
        double = [name for name, count in Counter(names).items() if count > 1]
        if double:
            raise ValueError(f"named twice: {', '.join(double[:5])}")
        return self


def take_inventory(client: DockerClient, image: ImageFacts, plan: Plan, log: Path) -> Inventory:
    """Ask the image what it holds; BuildFailed when its answer can't be had, used or believed.

    `log` keeps what the container wrote. The container is removed in every case. EngineLost when
    the engine went away.
    """
    row = plan.row.id
    request = Request(
        image=image.id,
        entrypoint=(PYTHON, "-I", "-S", _TARGET),
        mounts=(Mount(source=_SCRIPT, target=_TARGET),),
        workdir="/",
        limits=Limits(memory="512m", pids=16, tmp="16m", shm="16m"),
    )
    try:
        with running(client, request, log=log) as container:
            result = container.wait(timeout=_SECONDS)
    except (ContainerLost, StartRefused) as error:
        raise _failure(
            row,
            f"its image could not be asked what it holds: {error}",
            f"{PYTHON} is started in it; an image of this project has one.",
        ) from error
    inventory = parse_inventory(_document(row, result), row)
    found = list(contradictions(inventory, plan))
    if found:
        raise BuildFailed(*found)
    return inventory


def _document(row: str, result: Result) -> bytes:
    if result.timed_out:
        raise _failure(row, f"its image did not say what it holds within {_SECONDS:.0f} s")
    if result.exit_code != 0:
        said = result.stderr[-2_000:].decode(errors="replace").strip()
        raise _failure(
            row, f"listing what its image holds ended with code {result.exit_code}", said
        )
    return result.stdout


def parse_inventory(document: bytes, row: str) -> Inventory:
    """Parse what an image of `row` printed; BuildFailed says what is wrong with it."""
    if len(document) > LONGEST:
        raise _failure(
            row,
            f"its image says too much about itself: {len(document)} bytes",
            f"{LONGEST} are the most that any real image needs.",
        )
    try:
        return Inventory.model_validate_json(document)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']) or 'document'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise _failure(
            row, "what its image says about itself can't be read", "; ".join(lines[:5]) + more
        ) from error


def contradictions(inventory: Inventory, plan: Plan) -> Iterator[Finding]:
    """Yield where an image says something else than was built.

    Packages are left to the validator's check C02, which knows what may differ from the lock.
    """
    row, stack = plan.row.id, plan.row.stack
    if not inventory.python.startswith(f"{stack.python}."):
        yield _finding(row, f"its image has Python {inventory.python}, the row says {stack.python}")
    if (inventory.os.id, inventory.os.codename) != ("debian", stack.suite):
        said = f"{inventory.os.id} {inventory.os.codename}"
        yield _finding(row, f"its image stands on {said}, the row says debian {stack.suite}")
    if not inventory.debian:
        yield _finding(row, "its image names no Debian package")
    if not any(item.importable for item in inventory.distributions):
        yield _finding(row, "its image names no Python distribution")
    yield from _checkpoints(row, inventory.checkpoints, plan)


def _checkpoints(row: str, found: Iterable[Checkpoint], plan: Plan) -> Iterator[Finding]:
    have = {item.file: item for item in found}
    planned = {weight.file: weight for weight in plan.record.weights}
    for file in sorted(have.keys() ^ planned.keys()):
        yield _finding(
            row,
            f"checkpoint {file} is planned but not in its image"
            if file in planned
            else f"checkpoint {file} is in its image but not planned",
        )
    for file in sorted(have.keys() & planned.keys()):
        wanted = planned[file].sha256
        if wanted is not None and have[file].sha256 != wanted:
            yield _finding(
                row, f"checkpoint {file} has sha256 {have[file].sha256}, planned is {wanted}"
            )


def _finding(row: str, what: str, why: str = "") -> Finding:
    return Finding(place=row, what=what, why=why, todo=_TODO)


def _failure(row: str, what: str, why: str = "") -> BuildFailed:
    return BuildFailed(_finding(row, what, why))
