"""What a row needs from outside the package index: URLs, file names, and hashes where known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal
from urllib.parse import quote

from packaging.version import Version
from pydantic import BaseModel, ConfigDict

from builder.known import Known
from builder.mirrors import GITHUB, NVIDIA, PYTORCH
from builder.spec import FlashAttention, ImageSpec, StackSpec, TensorRT

__all__ = ["ArtifactLock", "artifacts_of", "new_cxx11_abi", "python_tag"]

Part = Literal["torch", "tensorrt", "flash-attn", "distribution"]
_FLASH_ATTN = f"{GITHUB}/Dao-AILab/flash-attention/releases/download"


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

    @property
    def index_page(self) -> str | None:
        """The page that lists the project's files, where the artifact's host is an index."""
        if self.url is None or not self.url.startswith((f"{PYTORCH}/", f"{NVIDIA}/")):
            return None
        if self.url.startswith(f"{PYTORCH}/"):
            # PyTorch keeps all files of a build in one folder, and a page per project beside it.
            return f"{self.url.rpartition('/')[0]}/{self.name}/"
        return f"{self.url.rpartition('/')[0]}/"

    @property
    def question(self) -> str | None:
        """The URL whose answer tells that the file can be had: while the file's own name is only
        supposed, the page that lists it."""
        return self.url if self.sha256 is not None else self.index_page or self.url


def artifacts_of(row: ImageSpec, known: Sequence[Known]) -> Iterator[ArtifactLock]:
    """Everything that `row` installs from a URL, with its hash where one is known."""
    stack = row.stack
    if stack.index == "pytorch":
        yield from _pytorch(stack, known)
    if stack.tensorrt is not None:
        yield from _tensorrt(stack.tensorrt, known)
    flash = row.flash_attn
    if flash is not None and flash.source == "wheel" and stack.cuda is not None:
        yield _flash_attention(flash, stack, Version(stack.cuda), known)
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
    tag = python_tag(stack)
    for name, version in (("torch", stack.torch), ("torchvision", stack.torchvision)):
        full = f"{version}+{local}"
        file = f"{name}-{full}-{tag}-{tag}-manylinux_2_28_x86_64.whl"
        yield _artifact("torch", name, full, file, f"{PYTORCH}/{local}/{quote(file)}", known)


def _tensorrt(tensorrt: TensorRT, known: Sequence[Known]) -> Iterator[ArtifactLock]:
    """The libraries, and the metapackage that holds `import tensorrt`.

    The bindings are ordinary wheels of the package index. `tensorrt-cuNN-libs` there is a stub that
    downloads by itself while it is installed: the real wheel is taken from NVIDIA's index by URL.
    """
    package, version = tensorrt.package, tensorrt.version
    stem = package.replace("-", "_")
    found = next((item for item in known if item.is_wheel_of(f"{stem}_libs", version)), None)
    file = found.file if found else f"{stem}_libs-{version}-py3-none-manylinux_2_28_x86_64.whl"
    url = f"{NVIDIA}/{package}-libs/{file}"
    yield _artifact("tensorrt", f"{package}-libs", version, file, url, known)
    yield _artifact("tensorrt", package, version, f"{stem}-{version}.tar.gz", None, known)


def _flash_attention(
    flash: FlashAttention, stack: StackSpec, cuda: Version, known: Sequence[Known]
) -> ArtifactLock:
    torch, tag = Version(stack.torch), python_tag(stack)
    file = (
        f"flash_attn-{flash.version}+cu{cuda.major}torch{torch.major}.{torch.minor}"
        f"cxx11abi{'TRUE' if new_cxx11_abi(stack) else 'FALSE'}-{tag}-{tag}-linux_x86_64.whl"
    )
    url = f"{_FLASH_ATTN}/v{flash.version}/{quote(file)}"
    return _artifact("flash-attn", "flash-attn", flash.version, file, url, known)


def new_cxx11_abi(stack: StackSpec) -> bool:
    """Whether the stack's torch has the new C++ ABI: since 2.7, and in the cu126 build of 2.6.

    https://pytorch.org/blog/pytorch2-6/, read 2026-11-23.
    """
    torch = Version(stack.torch)
    minor = (torch.major, torch.minor)
    return minor >= (2, 7) or (minor == (2, 6) and stack.cuda == "12.6")


def python_tag(stack: StackSpec) -> str:
    """Return the wheel tag of the stack's interpreter, such as `cp311`."""
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
