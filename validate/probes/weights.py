"""The checkpoints of the image: their bytes, and whether they load as what they claim to be."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["collect"]

IMAGE_JSON = Path("/opt/yolo/image.json")


def collect(options: dict[str, Any]) -> dict[str, Any]:
    """Look at every checkpoint in the image's model folder."""
    folder = Path(options["models"])
    return {
        "image": json.loads(IMAGE_JSON.read_text(encoding="utf-8"))
        if IMAGE_JSON.exists()
        else None,
        "files": [_file(path) for path in sorted(folder.glob("*.pt"))],
    }


def _file(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"file": path.name, "size": path.stat().st_size, "error": None}
    found["sha256"] = _sha256(path)
    found["damaged"] = _damaged(path)
    try:
        found["model"] = _model(path)
    except Exception as error:  # noqa: BLE001 - a checkpoint that doesn't load is a fact
        found["model"] = None
        found["error"] = f"{type(error).__name__}: {error}"[:2000]
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _damaged(path: Path) -> str | None:
    """Return the first member of the archive whose CRC is wrong, or why it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return f"{type(error).__name__}: {error}"[:500]


def _model(path: Path) -> dict[str, Any]:
    from ultralytics import YOLO

    model = YOLO(str(path))
    return {
        "task": str(model.task),
        "classes": len(model.names),
        "parameters": sum(item.numel() for item in model.model.parameters()),
        "attention": _attention(model.model),
    }


def _attention(model: Any) -> str | None:
    """Return which YOLO12 lineage the layers belong to: `qkv` upstream, `qk` the fork's turbo."""
    for module in model.modules():
        if type(module).__name__ == "AAttn":
            return "qkv" if hasattr(module, "qkv") else "qk" if hasattr(module, "qk") else "unknown"
    return None
