"""The shape of matrix.yaml. Editors get it as a JSON schema; see `build.py schema`."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

__all__ = ["FLASH_FORMS", "FlashModel", "MatrixModel", "SourcesModel", "StackModel"]


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


class FlashModel(_Model):
    """flash-attn where more is said than its version."""

    version: VersionText
    source: Literal["wheel", "build"] = Field(
        description="wheel: the official one, by URL; build: compiled here, which takes hours"
    )


FLASH_FORMS = ("flash_attn as mapping", "flash_attn as version")
"""How pydantic names the two forms in the place of an error; no part of the file's own path."""


def _flash_form(value: object) -> str:
    return FLASH_FORMS[0 if isinstance(value, dict | FlashModel) else 1]


FlashText = Annotated[
    Annotated[FlashModel, Tag(FLASH_FORMS[0])] | Annotated[VersionText, Tag(FLASH_FORMS[1])],
    Discriminator(_flash_form),
]


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
    flash_attn: FlashText | None = Field(
        default=None,
        description="flash-attn release with an official wheel for this torch, or the release and "
        "whether to compile it",
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
    licence: str = Field(min_length=1, description="SPDX expression")
    lineage: Literal["yolov8", "yolo11", "yolo12", "turbo"]
    architecture: FileName


class ProxiesModel(_Model):
    """Proxies by scheme, and the hosts that are reached without one."""

    http: Url | None = None
    https: Url | None = None
    no: list[str] = Field(default_factory=list)


class SourcesModel(_Model):
    """Where files come from; what is not said here is taken from the machine's configuration.

    Each key is also a variable of the environment, which wins: YOLO_SOURCES_INDEX and so on, lists
    separated by spaces. Passwords belong there, not into a committed file.
    """

    index: Url | None = Field(default=None, description="package index (PEP 503)")
    extra_indexes: list[Url] = Field(default_factory=list)
    pytorch: list[Url] = Field(
        default_factory=list, description="mirrors of https://download.pytorch.org/whl"
    )
    nvidia: list[Url] = Field(
        default_factory=list, description="mirrors of https://pypi.nvidia.com"
    )
    github: list[Url] = Field(default_factory=list, description="mirrors of https://github.com")
    weights: list[Url] = Field(default_factory=list, description="folders of checkpoints")
    wheels: list[Url] = Field(default_factory=list, description="folders of wheels")
    apt: Url | None = Field(default=None, description="Debian mirror")
    apt_security: Url | None = Field(default=None, description="mirror of Debian's security suite")
    proxies: ProxiesModel = ProxiesModel()
    ca: str | None = Field(default=None, description="CA bundle, a path of this machine")
    wheelhouse: str | None = Field(default=None, description="folder of wheels on this machine")


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
    sources: SourcesModel = SourcesModel()
    budgets: dict[str, dict[str, dict[str, float]]] = Field(
        default_factory=dict,
        description="upper bounds by GPU, checkpoint and measurement, in the measurement's unit",
    )
