"""The pure types of a row: what one image is made of. No I/O, no defaults that hide a choice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NewType

__all__ = ["Artifact", "Digest", "FlashAttention", "ImageSpec", "StackSpec", "TensorRT", "Weight"]

Digest = NewType("Digest", str)
"""An OCI digest: `sha256:` and 64 hexadecimal digits."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """Return `text` as a Digest; ValueError when it isn't one."""
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{text!r} is not a digest: expected sha256: and 64 hexadecimal digits")
    return Digest(text)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file that has its own URL and hash: a wheel outside the package index, a source archive.

    `sha256` is None while no trustworthy hash is known; `status` says where the hash comes from
    (`verified`: seen in two or more independent places, `single`: in one, `computed`: by
    downloading it ourselves, `mirrored`: likewise, but from a mirror, which alone vouches for it,
    `unresolved`: not known). `size` is in bytes, None when unknown.
    """

    name: str
    version: str
    url: str
    sha256: str | None
    size: int | None
    status: str


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A checkpoint: `name` is the file name users load, `lineage` the code that can load it.

    `licence` is an SPDX expression; `architecture` is the model file of the distribution
    (`yolo12n.yaml`) from which the same network can be made without the checkpoint. `size` is in
    bytes.
    """

    name: str
    url: str
    sha256: str
    size: int
    licence: str
    lineage: str
    architecture: str
    status: str


@dataclass(frozen=True, kw_only=True)
class TensorRT:
    """TensorRT by its CUDA-specific package: (`tensorrt-cu12`, `10.9.0.34`)."""

    package: str
    version: str


@dataclass(frozen=True, kw_only=True)
class FlashAttention:
    """flash-attn: `source` is `wheel` (official, by URL) or `build` (compiled by us)."""

    version: str
    source: Literal["wheel", "build"]

    def __str__(self) -> str:
        return self.version if self.source == "wheel" else f"{self.version} ({self.source})"


@dataclass(frozen=True, kw_only=True)
class StackSpec:
    """What rows share: the interpreter, CUDA, torch and what is tied to them.

    `suite` is the Debian suite of the base; `cuda` is None on a CPU stack; `index` is the package
    index that holds the torch wheels: `pypi`, or `pytorch` for PyTorch's own.
    """

    name: str
    suite: str
    python: str
    cuda: str | None
    index: str
    torch: str
    torchvision: str
    tensorrt: TensorRT | None
    onnxruntime: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """One row: everything that decides what the image is.

    `image` is the folder under images/; `archive` the distribution's source when it does not come
    from the package index; `requirements` what offline export needs beside its own dependencies.
    """

    id: str
    family: str
    image: str
    distribution: str
    ultralytics: str
    archive: Artifact | None
    requirements: tuple[str, ...]
    platform: str
    stack: StackSpec
    flash_attn: FlashAttention | None
    weights: tuple[Weight, ...]
