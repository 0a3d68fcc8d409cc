"""The shape of matrix.yaml. Editors get it as a JSON schema; see `build.py schema`."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

__all__ = ["MatrixModel", "StackModel"]


def _version(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion:
        raise ValueError(f"{text!r} is not a version") from None
    return text


def _requirement(text: str) -> str:
    try:
        Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is not a requirement: {str(error).splitlines()[0]}") from None
    return text


def _pinned(text: str) -> str:
    specifiers = list(Requirement(_requirement(text)).specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or "*" in specifiers[0].version:
        raise ValueError(f"{text!r} does not name one version: write name==version")
    return text


VersionText = Annotated[str, AfterValidator(_version), Field(examples=["3.11"])]
RequirementText = Annotated[str, AfterValidator(_requirement)]
PinnedText = Annotated[str, AfterValidator(_pinned), Field(examples=["tensorrt-cu12==10.9.0.34"])]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
HashStatus = Literal["verified", "single", "computed"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StackModel(_Model):
    """What rows share: the interpreter, CUDA, torch and all that is tied to one torch build."""

    suite: Literal["bookworm", "trixie"] = Field(description="Debian suite of the base image")
    python: VersionText = Field(description="CPython of the image: the one that the suite has")
    cuda: VersionText | None = Field(default=None, description="CUDA of the torch build")
    index: Literal["pypi", "pytorch"] = Field(
        default="pypi", description="package index that holds the torch wheels"
    )
    torch: VersionText
    torchvision: VersionText
    tensorrt: PinnedText | None = Field(default=None, description="tensorrt-cuNN==version")
    onnxruntime: PinnedText = Field(description="onnxruntime-gpu==version, or onnxruntime==version")
    flash_attn: VersionText | None = Field(
        default=None, description="flash-attn release with an official wheel for this torch"
    )
    gpus: list[str] = Field(default_factory=list, description="GPUs that the rows promise to serve")


class ArchiveModel(_Model):
    """A source archive by URL and hash."""

    url: Url
    sha256: Sha256
    size: int = Field(gt=0, description="bytes")
    status: HashStatus


class DistributionModel(_Model):
    """One of the two packages that install a module called `ultralytics`."""

    version: VersionText
    archive: ArchiveModel | None = Field(
        default=None, description="where the package comes from when not from the package index"
    )
    requirements: list[RequirementText] = Field(default_factory=list)


class FamilyModel(_Model):
    """A kind of image: a folder under images/, a distribution and checkpoints."""

    image: Literal["yolov8", "yolov12"]
    distribution: Name
    flash_attn: bool = False
    weights: list[FileName] = Field(min_length=1)


class WeightModel(_Model):
    """A checkpoint by URL, hash and size; `status` says how well the hash is known."""

    url: Url
    sha256: Sha256
    size: int = Field(gt=0, description="bytes")
    status: HashStatus
    lineage: Literal["yolov8", "yolo11", "yolo12", "turbo"]
    architecture: FileName


class ExcludeModel(_Model):
    """Rows that are left out on purpose."""

    row: str = Field(min_length=1, description="shell pattern on row ids")
    because: str = Field(min_length=1)


class MatrixModel(_Model):
    """matrix.yaml: stacks x families = rows, minus `exclude`."""

    version: Literal["1"]
    platform: Literal["linux/amd64"]
    stacks: dict[Name, StackModel] = Field(min_length=1)
    distributions: dict[Name, DistributionModel] = Field(min_length=1)
    families: dict[Name, FamilyModel] = Field(min_length=1)
    weights: dict[FileName, WeightModel] = Field(min_length=1)
    exclude: list[ExcludeModel] = Field(default_factory=list)
    budgets: dict[str, dict[str, dict[str, float]]] = Field(
        default_factory=dict,
        description="upper bounds by GPU, checkpoint and measurement, in the measurement's unit",
    )
