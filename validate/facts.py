"""What was seen: typed facts, parsed from the JSON of an image that nobody has to trust.

Every text and list has a limit, unknown keys are refused and numbers are finite, so that an image
can make its own checks fail but can't make the validator believe or do anything else.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.engine.client import ImageFacts
from builder.records import Record
from validate.checks import failed

__all__ = [
    "Attempt",
    "Cold",
    "CommandRun",
    "Comparison",
    "Distribution",
    "Environment",
    "Facts",
    "Gpu",
    "Output",
    "Packages",
    "ProbeAnswer",
    "ProbeError",
    "Steady",
    "Stop",
    "Weights",
    "document_of",
    "parse_probe",
]

Text = Annotated[str, Field(max_length=8_000)]
LongText = Annotated[str, Field(max_length=200_000)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Row = Annotated[tuple[float, ...], Field(min_length=6, max_length=6)]
Boxes = Annotated[
    tuple[Annotated[tuple[Row, ...], Field(max_length=300)], ...], Field(max_length=64)
]
Texts = Annotated[tuple[Text, ...], Field(max_length=5_000)]


class ProbeError(Exception):
    """A probe's answer can't be used: the check broke, which says nothing about the image."""


class _Seen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Import(_Seen):
    """One module: its version, or why it can't be imported."""

    version: Text | None
    seconds: Seconds
    error: Text | None


class Distribution(_Seen):
    """One installed distribution and its requirements, as its metadata has them."""

    name: Text
    version: Text
    requires: Texts


class Torch(_Seen):
    """What torch was built for."""

    version: Text
    cuda: Text | None
    archs: Texts
    cuda_available: bool


class Packages(_Seen):
    """The Python environment and the CUDA libraries around it."""

    python: Text
    executable: Text
    uid: Count
    gid: Count
    imports: dict[str, Import]
    operations: dict[str, Text | None]
    distributions: Annotated[tuple[Distribution, ...], Field(max_length=2_000)]
    markers: dict[str, Text]
    torch: Torch | None
    libraries: Texts
    mapped: Texts
    loader_cache: Texts
    library_path: Text
    shm_bytes: Count


class Environment(_Seen):
    """All files of the environment as one hash, and the versions in it."""

    hash: Text
    files: Count
    distributions: dict[str, Text]


class Model(_Seen):
    """A checkpoint that loaded. `attention` tells the YOLO12 lineages apart."""

    task: Text
    classes: Count
    parameters: Count
    attention: Text | None


class WeightFile(_Seen):
    """A checkpoint file. `damaged` is the archive member whose CRC is wrong."""

    file: Text
    size: Count
    sha256: Text
    damaged: Text | None
    model: Model | None
    error: Text | None


class StatedWeight(_Seen):
    """A checkpoint as the image's own description states it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: Text
    sha256: Text | None = None
    official: bool


class ImageDescription(_Seen):
    """What checks need of /opt/yolo/image.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Text
    weights: Annotated[tuple[StatedWeight, ...], Field(max_length=100)]


class Weights(_Seen):
    """The checkpoints of the image and what it states about them."""

    image: ImageDescription | None
    files: Annotated[tuple[WeightFile, ...], Field(max_length=100)]


class Cold(_Seen):
    """One cold start. Host and container share a clock, so `container` is a difference of both."""

    started: float
    finished: float
    device: Text
    phases: dict[str, Seconds]
    boxes: Count


class Steady(_Seen):
    """Pictures in a row through one loaded model."""

    device: Text
    device_name: Text
    pictures: Count
    sizes: Texts
    milliseconds: Annotated[tuple[Seconds, ...], Field(max_length=100_000)]
    seconds: Seconds
    aborts: Texts
    boxes: Count
    resident_before: Count
    resident: Annotated[tuple[Count, ...], Field(max_length=100_000)]
    memory: dict[str, Count]
    clocks: Text


class Comparison(_Seen):
    """A checkpoint and its export on the same pictures. `step` is the last that was begun."""

    kind: Text
    device: Text
    step: Text
    error: Text | None
    plain_attention: bool = False
    trained: bool | None = None
    imgsz: Count = 0
    train_seconds: Seconds = 0.0
    export_seconds: Seconds = 0.0
    export_bytes: Count = 0
    checkpoint_boxes: Boxes = ()
    export_boxes: Boxes = ()


class Kernel(_Seen):
    """One operation on the GPU against the same on the CPU."""

    error: Text | None
    finite: bool = False
    largest: float = 0.0
    difference: float = 0.0
    seconds: Seconds = 0.0


class Gpu(_Seen):
    """What ran on the GPU."""

    available: bool
    count: Count
    name: Text | None
    capability: Text | None
    kernels: dict[str, Kernel]
    memory: dict[str, Count]
    engine: Comparison | None


class Attempt(_Seen):
    """A try to reach the network or to install something, and what was being done."""

    phase: Text
    what: Text


class Output(_Seen):
    """A file that a command left in the caller's folder."""

    path: Text
    uid: Count
    gid: Count
    size: Count


class CommandRun(_Seen):
    """One start of the image with its own entrypoint."""

    argv: Texts
    exit_code: int
    seconds: Seconds
    stdout: LongText
    stderr: LongText
    outputs: Annotated[tuple[Output, ...], Field(max_length=1_000)] = ()


class Stop(_Seen):
    """How the container ended after SIGTERM, and what it was doing."""

    doing: Text
    exit_code: int
    seconds: Seconds


SectionFacts = TypeVar("SectionFacts", bound=_Seen)


class ProbeAnswer(_Seen, Generic[SectionFacts]):
    """One section of a probe's document, with what the whole process tried to reach."""

    facts: SectionFacts
    seconds: Seconds
    network: tuple[Attempt, ...]
    installers: tuple[Attempt, ...]


class _Section(_Seen):
    seconds: Seconds
    facts: dict[str, object] | None = None
    error: Text | None = None
    trace: LongText | None = None


class _Document(_Seen):
    schema_version: Literal[1]
    sections: Annotated[dict[str, _Section], Field(max_length=20)]
    network: Annotated[tuple[Attempt, ...], Field(max_length=100)]
    installers: Annotated[tuple[Attempt, ...], Field(max_length=100)]


class Facts(Record):
    """Everything one validation saw, kept beside its verdict."""

    id: str
    digest: str
    image: ImageFacts | None = None
    packages: Packages | None = None
    weights: Weights | None = None
    environment_before: Environment | None = None
    environment_after: Environment | None = None
    steady: Steady | None = None
    export: Comparison | None = None
    gpu: Gpu | None = None
    cold: tuple[Cold, ...] = ()
    commands: tuple[CommandRun, ...] = ()
    stops: tuple[Stop, ...] = ()
    network: tuple[Attempt, ...] = ()
    installers: tuple[Attempt, ...] = ()


def document_of(run: CommandRun) -> dict[str, Any]:
    """Return the JSON object that a command of the image printed; else the image has failed."""
    name = f"`{' '.join(run.argv)}`"
    if run.exit_code != 0:
        failed(f"{name} ended with code {run.exit_code}: {run.stderr[-800:]}")
    try:
        document = json.loads(run.stdout)
    except ValueError as error:
        failed(f"{name} printed no JSON document: {error}: {run.stdout[:200]!r}")
    if not isinstance(document, dict):
        failed(f"{name} printed no JSON object: {run.stdout[:200]!r}")
    return document


def parse_probe(text: bytes, name: str, kind: type[SectionFacts]) -> ProbeAnswer[SectionFacts]:
    """Return the facts of section `name`; ProbeError when the document is not a probe's."""
    try:
        document = _Document.model_validate_json(text)
    except ValidationError as error:
        raise ProbeError(f"the probe's answer is not its JSON document: {_first(error)}") from error
    section = document.sections.get(name)
    if section is None:
        raise ProbeError(f"the probe's answer has no section {name!r}")
    if section.facts is None:
        raise ProbeError(f"the probe's section {name!r} broke: {section.error}\n{section.trace}")
    try:
        facts = kind.model_validate(section.facts)
    except ValidationError as error:
        raise ProbeError(f"the probe's section {name!r} is malformed: {_first(error)}") from error
    return ProbeAnswer[kind](  # type: ignore[valid-type]  # the class is a value here
        facts=facts,
        seconds=section.seconds,
        network=document.network,
        installers=document.installers,
    )


def _first(error: ValidationError) -> str:
    """Return the first problem without the input, which may be long and is not ours."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part)[:60] for part in first['loc']) or 'document'}: {first['msg']}"
