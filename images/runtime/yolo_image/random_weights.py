"""Make a checkpoint with random weights, in place of an official one that can't be had.

Runs as a file of its own inside the build, before the package is installed:

    random_weights.py FOLDER ARCHITECTURE...    writes FOLDER/yolov8n-random.pt for yolov8n.yaml

The same network as the official checkpoint, from the distribution's own classes, with COCO's class
names: it loads, trains, exports and predicts alike, but it has learnt nothing. Two builds give the
same bytes: the seed is fixed, and no date, version or git state is stored.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SEED = 0


def main() -> None:
    """Write one checkpoint per architecture named on the command line."""
    folder, *architectures = sys.argv[1:]
    for architecture in architectures:
        path = Path(folder, f"{Path(architecture).stem}-random.pt")
        save(architecture, path)
        print(f"{path.name}: random weights, {path.stat().st_size} bytes")


def save(architecture: str, path: Path) -> None:
    """Write the checkpoint of `architecture`, in the layout that the trainer writes."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(SEED)
    # Several threads would draw their random numbers in an order of their own.
    torch.set_num_threads(1)
    model = YOLO(architecture, task="detect").model
    model.names = coco_names()
    model.args = {"task": "detect", "model": architecture, "data": "coco.yaml", "imgsz": 640}
    # Half precision, as the official ones are: the size on disk is what users expect.
    checkpoint = {"epoch": -1, "model": model.half(), "ema": None, "train_args": dict(model.args)}
    torch.save(checkpoint, path)
    path.chmod(0o644)


def coco_names() -> dict[int, str]:
    """Return COCO's class names as the distribution spells them."""
    import ultralytics
    import yaml

    path = Path(ultralytics.__file__).parent / "cfg/datasets/coco.yaml"
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {int(number): str(name) for number, name in data["names"].items()}


if __name__ == "__main__":
    main()
