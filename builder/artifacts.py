"""What a row needs from outside the package index: URLs, file names, and hashes where known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal
from urllib.parse import quote

from packaging.version import Version
from pydantic import BaseModel, ConfigDict

from builder.known import Known
from builder.spec import FlashAttention, ImageSpec, StackSpec, TensorRT

__all__ = ["ArtifactLock", "artifacts_of"]

Part = Literal["torch", "tensorrt", "flash-attn", "distribution"]
_PYTORCH = "https://download.pytorch.org/whl"
_NVIDIA = "https://pypi.nvidia.com"
_FLASH_ATTN = "https://github.com/Dao-AILab/flash-attention/releases/download"


class ArtifactLock(BaseModel):
    """A file by URL, or (`url` None) one that the package index serves by name.

    `sha256` is None while `status` is `unresolved`; `size` is in bytes, None when unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: Part
    name: str
    version: str
    url: str | None
    sha256: str | None
    size: int | None
    status: str


def artifacts_of(row: ImageSpec, known: Sequence[Known]) -> Iterator[ArtifactLock]:
    """Everything that `row` installs from a URL, with its hash where one is known."""
    stack = row.stack
    if stack.index == "pytorch":
        yield from _pytorch(stack, known)
    if stack.tensorrt is not None:
        yield from _tensorrt(stack.tensorrt, known)
    if row.flash_attn is not None and stack.cuda is not None:
        yield _flash_attention(row.flash_attn, stack, Version(stack.cuda), known)
    if row.archive is not None:
        yield ArtifactLock(
            part="distribution",
            name="ultralytics",
            version=row.archive.version,
            url=row.archive.url,
            sha256=row.archive.sha256,
            size=row.archive.size,
            status=row.archive.status,
        )


def _pytorch(stack: StackSpec, known: Sequence[Known]) -> Iterator[ArtifactLock]:
    local = "cpu" if stack.cuda is None else "cu" + stack.cuda.replace(".", "")
    tag = _python_tag(stack)
    for name, version in (("torch", stack.torch), ("torchvision", stack.torchvision)):
        full = f"{version}+{local}"
        file = f"{name}-{full}-{tag}-{tag}-manylinux_2_28_x86_64.whl"
        yield _artifact("torch", name, full, file, f"{_PYTORCH}/{local}/{quote(file)}", known)


def _tensorrt(tensorrt: TensorRT, known: Sequence[Known]) -> Iterator[ArtifactLock]:
    """The libraries, and the metapackage that holds `import tensorrt`.

    The bindings are ordinary wheels of the package index. `tensorrt-cuNN-libs` there is a stub that
    downloads by itself while it is installed: the real wheel is taken from NVIDIA's index by URL.
    """
    package, version = tensorrt.package, tensorrt.version
    stem = package.replace("-", "_")
    found = next((item for item in known if item.is_wheel_of(f"{stem}_libs", version)), None)
    file = found.file if found else f"{stem}_libs-{version}-py3-none-manylinux_2_28_x86_64.whl"
    url = f"{_NVIDIA}/{package}-libs/{file}"
    yield _artifact("tensorrt", f"{package}-libs", version, file, url, known)
    yield _artifact("tensorrt", package, version, f"{stem}-{version}.tar.gz", None, known)


def _flash_attention(
    flash: FlashAttention, stack: StackSpec, cuda: Version, known: Sequence[Known]
) -> ArtifactLock:
    torch, tag = Version(stack.torch), _python_tag(stack)
    # torch moved to the new C++ ABI with 2.7 (and in the cu126 build of 2.6):
    # https://pytorch.org/blog/pytorch2-6/, read 2026-11-23.
    minor = (torch.major, torch.minor)
    new_abi = minor >= (2, 7) or (minor == (2, 6) and stack.cuda == "12.6")
    file = (
        f"flash_attn-{flash.version}+cu{cuda.major}torch{torch.major}.{torch.minor}"
        f"cxx11abi{'TRUE' if new_abi else 'FALSE'}-{tag}-{tag}-linux_x86_64.whl"
    )
    url = f"{_FLASH_ATTN}/v{flash.version}/{quote(file)}"
    return _artifact("flash-attn", "flash-attn", flash.version, file, url, known)


def _python_tag(stack: StackSpec) -> str:
    return "cp" + stack.python.replace(".", "")


def _artifact(
    part: Part, name: str, version: str, file: str, url: str | None, known: Sequence[Known]
) -> ArtifactLock:
    found = next((item for item in known if item.file == file), None)
    return ArtifactLock(
        part=part,
        name=name,
        version=version,
        url=url,
        sha256=found.sha256 if found else None,
        size=found.size if found else None,
        status=found.status if found else "unresolved",
    )
