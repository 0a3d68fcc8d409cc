"""The checkpoint that a command works with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_image.console import BAD_USAGE, Stop
from yolo_image.manifest import HOME, Manifest, Weight

__all__ = ["RANDOM", "find_model", "load_model", "weight_of"]

RANDOM = (
    "{file} has random weights: this partial image was built without the official ones, so it "
    "finds nothing. Mount a checkpoint of your own and name it with --model."
)


def find_model(name: str | None, manifest: Manifest, home: Path = HOME) -> Path:
    """Return the checkpoint `name`: a path, or a file of the image; by default its first one.

    It must exist: ultralytics would go and look for a missing one on the network.
    """
    if name is None:
        if not manifest.weights:
            raise Stop("this image has no weights: name a checkpoint with --model", code=BAD_USAGE)
        name = manifest.weights[0].file
    for path in (Path(name), home / name):
        if path.is_file():
            return path
    known = ", ".join(weight.file for weight in manifest.weights) or "none"
    raise Stop(f"no such model: {name}. In this image: {known}", code=BAD_USAGE)


def weight_of(path: Path, manifest: Manifest, home: Path = HOME) -> Weight | None:
    """Return what the image knows about a checkpoint, None when it is the user's own."""
    if path.resolve().parent != home.resolve():
        return None
    return next((weight for weight in manifest.weights if weight.file == path.name), None)


def load_model(path: Path) -> Any:
    """Return the loaded model; Stop when the file is no checkpoint that this image can load."""
    from ultralytics import YOLO

    try:
        return YOLO(path)
    except Exception as error:  # noqa: BLE001 - a pickle can raise anything; all mean the same
        raise Stop(
            f"{path}: can't be loaded: {error}\nIs it a YOLO checkpoint, whole, and of this "
            "image's family? Those of the YOLOv12 repository need its own package."
        ) from None
