"""The JSON documents of an OCI image, as far as we read them; what else they say is left alone.

https://github.com/opencontainers/image-spec/tree/v1.1.1, read on 2026-11-25.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Config", "Descriptor", "Index", "Manifest", "Platform", "short_step", "steps_of"]

DigestText = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Platform(_Document):
    """What a manifest of an index runs on."""

    architecture: str = ""
    os: str = ""


class Descriptor(_Document):
    """A pointer to a blob."""

    digest: DigestText
    size: Annotated[int, Field(ge=0)]
    platform: Platform | None = None

    @property
    def runs(self) -> bool:
        """Whether it is an image: attestations are filed as images of an unknown platform."""
        return self.platform is None or self.platform.architecture != "unknown"


class Index(_Document):
    """`index.json`, or an index of one image per platform."""

    manifests: Annotated[tuple[Descriptor, ...], Field(max_length=1_000)]


class Manifest(_Document):
    """One image: its configuration and its layers, from the lowest to the highest."""

    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Field(max_length=1_000)]


class _Step(_Document):
    created_by: str = ""
    empty_layer: bool = False


class _RootFs(_Document):
    diff_ids: Annotated[tuple[DigestText, ...], Field(max_length=1_000)]


class Config(_Document):
    """The configuration: the hash of each unpacked layer, and how it was made."""

    architecture: str = ""
    os: str = ""
    rootfs: _RootFs
    history: Annotated[tuple[_Step, ...], Field(max_length=10_000)] = ()


def steps_of(config: Config) -> list[str]:
    """Return the step that made each layer; "" for all when the history doesn't fit the layers."""
    steps = [step.created_by for step in config.history if not step.empty_layer]
    layers = len(config.rootfs.diff_ids)
    return steps if len(steps) == layers else [""] * layers


# `RUN |2 A=1 B=2 /bin/sh -c words # buildkit`, and `/bin/sh -c #(nop) ADD ...` of older builders.
_WRAPPING = re.compile(r"^(?:(RUN) )?(?:\|\d+ .*?)?/bin/sh -c (?:#\(nop\)\s+)?", re.DOTALL)


def short_step(step: str) -> str:
    """Return the line of a Dockerfile without what the builder wraps around it, in one line."""
    words = step.removesuffix("# buildkit")
    if (found := _WRAPPING.match(words)) is not None:
        nop = "#(nop)" in found.group()
        words = words[found.end() :] if nop else f"RUN {words[found.end() :]}"
    return " ".join(words.split())
