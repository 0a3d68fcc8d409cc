"""Where things lie: one object instead of paths spread over the code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from builder.bakefile import Layout
from builder.mirrors import file_of
from builder.spec import Weight

__all__ = ["Folders", "hash_images"]


@dataclass(frozen=True)
class Folders:
    """The project's folder and what lies in it; `out` holds results, `cache` can be deleted."""

    root: Path

    @property
    def matrix(self) -> Path:
        """matrix.yaml."""
        return self.root / "matrix.yaml"

    @property
    def locks(self) -> Path:
        """The committed locks."""
        return self.root / "locks"

    @property
    def images(self) -> Path:
        """Everything that goes into an image."""
        return self.root / "images"

    @property
    def out(self) -> Path:
        """Records, logs and reports."""
        return self.root / "out"

    @property
    def cache(self) -> Path:
        """Downloads, base tars, build contexts."""
        return self.root / ".cache"

    def row(self, row_id: str) -> Path:
        """The records of one row."""
        return self.out / row_id

    def weight(self, weight: Weight) -> Path:
        """Where a checkpoint lies in the local store: by hash, for names are not unique."""
        return self.cache / "weights" / weight.sha256 / weight.name

    def file(self, sha256: str, url: str) -> Path:
        """Where a file from outside the package index lies in the local store."""
        return self.files / sha256 / file_of(url)

    @property
    def files(self) -> Path:
        """The local store of files from outside the package index, by hash."""
        return self.cache / "files"

    def layout(self) -> Layout:
        """The build's folders, relative to the root so that a plan is the same everywhere."""
        cache = Path(".cache")
        return Layout(
            images=Path("images"),
            contexts=cache / "contexts",
            rootfs=cache / "rootfs",
            tools=cache / "tools",
            files=cache / "files",
            weights=cache / "weights",
            secrets=cache / "secrets",
        )


def hash_images(images: Path) -> dict[str, str]:
    """Map each file below images/ to a hash of its executable bit and its bytes."""
    return {
        str(path.relative_to(images)): _hash_of(path)
        for path in sorted(images.rglob("*"))
        if path.is_file() and path.parent != images and "__pycache__" not in path.parts
    }


def _hash_of(path: Path) -> str:
    mode = b"x" if path.stat().st_mode & 0o100 else b"-"
    return hashlib.sha256(mode + path.read_bytes()).hexdigest()
