"""Hash locks as text: parse them, and split them into the steps of an image.

The format is pip's requirements format as `uv pip compile --generate-hashes` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name

__all__ = ["STEPS", "Locked", "parse_lock", "render", "step_of"]

STEPS = ("cuda", "torch", "tensorrt", "flash-attn", "deps", "ultralytics")
"""The steps that install packages, from what changes least to what changes most."""

# triton needs setuptools, and TensorRT's metapackage is built with it in the step after.
_TORCH = {"torch", "torchvision", "triton", "setuptools"}
_FLASH_ATTN = {"flash-attn", "einops"}
# nvidia-ml-py only speaks to the driver and moves with ultralytics, not with CUDA.
_NOT_CUDA = {"nvidia-ml-py"}
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==\s*(?P<version>[^\s;\\]+)|@\s*(?P<url>[^\s;\\]+))"
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Locked:
    """One distribution of a lock: by version from the index, or by `url`; hashes are sha256."""

    name: str
    version: str
    hashes: tuple[str, ...]
    url: str | None = None

    def __str__(self) -> str:
        what = f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"
        return " \\\n    ".join([what, *(f"--hash=sha256:{value}" for value in self.hashes)])


def parse_lock(text: str) -> tuple[Locked, ...]:
    """Parse a lock; ValueError names the first line that is not `name==version --hash=...`."""
    entries: list[Locked] = []
    joined = re.sub(r"\\\r?\n", " ", text)
    for written in joined.splitlines():
        line = re.sub(r"(^|\s)#.*", "", written).strip()
        if not line:
            continue
        match = _LINE.match(line)
        hashes = tuple(_HASH.findall(line))
        if match is None or not hashes:
            raise ValueError(f"not name==version with a sha256 hash: {line[:120]!r}")
        entries.append(
            Locked(
                name=canonicalize_name(match["name"]),
                version=match["version"] or "",
                hashes=hashes,
                url=match["url"],
            )
        )
    return tuple(entries)


def step_of(name: str) -> str:
    """The step that installs the distribution `name` (canonical form)."""
    if name.startswith(("nvidia-", "cuda-")) and name not in _NOT_CUDA:
        return "cuda"
    if name in _TORCH:
        return "torch"
    if name.startswith("tensorrt"):
        return "tensorrt"
    if name in _FLASH_ATTN:
        return "flash-attn"
    return "ultralytics" if name.startswith("ultralytics") else "deps"


def render(entries: Iterable[Locked]) -> Mapping[str, str]:
    """Return the requirement file of every step: same entries, same bytes; empty where none."""
    files: dict[str, list[str]] = {step: [] for step in STEPS}
    for entry in sorted(entries, key=lambda entry: (entry.name, entry.version)):
        files[step_of(entry.name)].append(f"{entry}\n")
    return {step: "".join(lines) for step, lines in files.items()}
