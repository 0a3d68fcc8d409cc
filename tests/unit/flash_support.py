"""What the tests of flash-attn's compilation share: rows that ask for one, and locks without uv."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from builder import flash_lock
from builder.flash_build import Compilation, plan_compilation
from builder.flash_lock import FlashLock, make_flash_lock
from builder.matrix import load_matrix, select
from builder.resolver import Resolution
from builder.sources import Sources
from builder.spec import FlashAttention, ImageSpec

__all__ = ["FILES", "GIB", "H64", "compilation", "lock_for", "locked", "resolved", "row_of"]

GIB = 1 << 30
FILES = {"flash-attn/Dockerfile": "a" * 64, "flash-attn/compile.py": "b" * 64, "stack/x": "c" * 64}
H64 = "0123456789abcdef" * 4


@lru_cache(maxsize=1)
def real_rows(root: Path) -> tuple[ImageSpec, ...]:
    return load_matrix(root / "matrix.yaml").rows


def row_of(root: Path, row_id: str = "yolov12-cu128", **stack: Any) -> ImageSpec:
    """A row of the real matrix that compiles flash-attn 2.8.3."""
    (row,) = select(real_rows(root), row_id)
    return replace(
        row,
        flash_attn=FlashAttention(version=stack.pop("flash_attn", "2.8.3"), source="build"),
        stack=replace(row.stack, **stack),
    )


def resolved(wanted: Resolution, sources: Sources) -> str:
    """What uv would answer, as far as it matters here."""
    del sources
    lines = [f"{line}.0" if line.endswith("*") else line for line in wanted.requirements]
    names = [line.partition("[")[0].partition("=")[0] for line in lines]
    versions = [line.partition("==")[2].replace(".*", "") or "1.0" for line in lines]
    pairs = zip(names, versions, strict=True)
    return "".join(f"{n}=={v} --hash=sha256:{H64}\n" for n, v in pairs)


def locked(root: Path, folder: Path) -> FlashLock:
    """The lock of row yolov12-cu128 where it says `source: build`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash_lock, "resolve", resolved)
        return lock_for(root, row_of(root), folder)


def lock_for(root: Path, row: ImageSpec, folder: Path) -> FlashLock:
    text = (root / "locks" / f"{row.id}.txt").read_text()
    return make_flash_lock(folder, row, text, sources=Sources(), talk=lambda _: None)


def compilation(root: Path, flash: FlashLock, **changes: Any) -> Compilation:
    files = changes.pop("files", FILES)
    return plan_compilation(row_of(root, **changes), flash, files)
