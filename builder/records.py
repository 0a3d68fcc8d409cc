"""The JSON contract between stages: `out/<id>/{plan,build,facts,validation}.json`.

A stage reads the record before it and writes its own, whole or not at all: a reader never sees half
a file. Times are seconds, sizes bytes, dates ISO 8601 in UTC.
"""

from __future__ import annotations

import os
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.errors import Finding, InvalidInput

__all__ = [
    "BuildRecord",
    "CheckResult",
    "CompiledRecord",
    "Host",
    "Measurement",
    "Missing",
    "Outcome",
    "PlanRecord",
    "Record",
    "ValidationRecord",
    "WeightRecord",
    "read_record",
    "write_atomic",
    "write_record",
]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DigestText = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Record(BaseModel):
    """Base of all records: immutable, and strict about keys so that a typo is never data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Missing(_Part):
    """A part that a partial image lacks: `part` is `tensorrt`, `flash-attn` or `weights`."""

    part: Literal["tensorrt", "flash-attn", "weights"]
    source: str
    reason: str


class WeightRecord(_Part):
    """A checkpoint as it should lie in the image.

    `official` is False for random weights of a partial image; then `file` has a name that says so
    and `sha256` is None, because the file is made inside the build.
    """

    file: str
    model: str
    sha256: Sha256 | None
    size: int | None
    official: bool


class CompiledRecord(_Part):
    """A wheel that is compiled here: `key` is a hash of what decides it, `architectures` what it
    has machine code for. `sha256` is None until it has been compiled.
    """

    name: Literal["flash-attn"]
    version: str
    key: Sha256
    architectures: tuple[str, ...]
    sha256: Sha256 | None


class PlanRecord(Record):
    """What is to be built: the row, and what validation may rely on."""

    id: str
    build_key: Sha256
    reference: str
    family: str
    distribution: str
    stack: str
    platform: str
    python: str
    cuda: str | None
    torch: str
    torchvision: str
    tensorrt: str | None
    flash_attn: str | None
    ultralytics: str
    onnxruntime: str
    gpus: tuple[str, ...]
    sms: tuple[str, ...]
    minimum_driver: str | None
    packages: dict[str, str]
    weights: tuple[WeightRecord, ...]
    labels: dict[str, str]
    missing: tuple[Missing, ...]
    compiled: CompiledRecord | None = None


class BuildRecord(Record):
    """What was built. `size_bytes` is the compressed size of all layers and the manifest.

    `inputs` names everything that `build_key` is a hash of, so that a later key can be explained.
    `evicted` says since when the engine no longer has the image, because it made room for another.
    """

    id: str
    status: Literal["built", "unchanged", "failed"]
    digest: DigestText | None
    build_key: Sha256
    reference: str
    seconds: float
    size_bytes: int | None
    missing: tuple[Missing, ...]
    finished: str
    log: str | None = None
    error: str | None = None
    inputs: dict[str, str] = {}
    evicted: str | None = None


class Outcome(str, Enum):
    """What a check came to. Only PASSED is a pass."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    NOT_MEASURED = "NOT_MEASURED"
    INCONCLUSIVE = "INCONCLUSIVE"
    INFRA = "INFRA"
    ERROR = "ERROR"


class CheckResult(_Part):
    """One check: what was seen, and, unless it passed, why (`reason`) and what to do (`fix`)."""

    id: str
    tier: Literal["static", "cpu", "gpu"]
    title: str
    outcome: Outcome
    seconds: float
    saw: str = ""
    fix: str = ""
    reason: str = ""


class Measurement(_Part):
    """A number with its unit and how many samples it stands on."""

    value: float
    unit: str
    n: int


class Host(_Part):
    """Where the checks ran; numbers mean little without it."""

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    engine: str
    gpu: str | None
    driver: str | None


class ValidationRecord(Record):
    """Every outcome and every number of one validation of one digest."""

    id: str
    digest: DigestText
    reference: str
    verdict: Outcome
    suite: Sha256
    tiers: tuple[Literal["static", "cpu", "gpu"], ...]
    host: Host
    missing: tuple[Missing, ...]
    checks: tuple[CheckResult, ...]
    measurements: dict[str, Measurement]
    seconds: float
    started: str


AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; records are for everyone who may read the folder.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_record(path: Path, record: Record) -> None:
    """Write `record` as indented JSON, atomically."""
    write_atomic(path, record.model_dump_json(indent=2) + "\n")


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """Return the record at `path`, None when there is none; InvalidInput when it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            Finding(
                place=str(path),
                what=f"not a {kind.__name__}: {where}: {first['msg']}",
                why="It was edited by hand, or written by another version of this tool.",
                todo="Delete it and run the stage again.",
            )
        ) from error
