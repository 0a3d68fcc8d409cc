"""Where things lie: one object instead of paths spread over the code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from builder.bakefile import Layout
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

    def layout(self) -> Layout:
        """The build's folders, relative to the root so that a plan is the same everywhere."""
        cache = Path(".cache")
        return Layout(
            images=Path("images"),
            contexts=cache / "contexts",
            rootfs=cache / "rootfs",
            tools=cache / "tools",
            wheelhouse=cache / "wheelhouse",
            weights=cache / "weights",
            secrets=cache / "secrets",
        )


def hash_images(images: Path) -> dict[str, str]:
    """Map each folder under images/ to a hash of its files: names, executable bits, bytes."""
    result = {}
    for folder in sorted(path for path in images.iterdir() if path.is_dir()):
        digest = hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                mode = "x" if path.stat().st_mode & 0o100 else "-"
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(folder)}\0{mode}\0{content}\n".encode())
        result[folder.name] = digest.hexdigest()
    return result
