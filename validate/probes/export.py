"""Exports a model and runs both on the same pictures; whether the boxes agree is judged elsewhere.

Random weights find nothing, and two empty lists always agree. So where a row has no official
weights, the same architecture is first trained for a few seconds on generated shapes.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import cv2

from .pictures import NAMES, bundled, shapes, square

__all__ = ["collect", "compare"]

SIZE = 96
PICTURES = 16
# Measured on 2 cores: 96 px, batch 8 and 128 steps of AdamW at 0.006 take yolov8n 12 s and yolo12n
# 15 s, and give about 40 boxes on 16 unseen pictures, most with a score above 0.9.
TRAINING: dict[str, Any] = {
    "epochs": 4,
    "imgsz": SIZE,
    "batch": 8,
    "nbs": 8,
    "optimizer": "AdamW",
    "lr0": 0.006,
    "lrf": 0.1,
    "weight_decay": 0.0,
    "warmup_epochs": 0,
    "workers": 0,
    "seed": 1,
    "amp": False,
    "val": False,
    "plots": False,
    "verbose": False,
    # No augmentation: there are too few steps to learn from it.
    "mosaic": 0.0,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "hsv_v": 0.0,
    "translate": 0.0,
    "scale": 0.0,
    "fliplr": 0.0,
    "erasing": 0.0,
}
REPEATS = 8
TRAINING_PICTURES = 32


def collect(options: dict[str, Any]) -> dict[str, Any]:
    """Export to ONNX on the CPU and compare."""
    return compare(options, "onnx", "cpu")


def compare(options: dict[str, Any], kind: str, device: str) -> dict[str, Any]:
    """Return the boxes of a checkpoint and of its export; `error` is why `step` failed."""
    work = Path(options["work"], kind)
    work.mkdir(parents=True, exist_ok=True)
    answer: dict[str, Any] = {"kind": kind, "device": device, "step": "prepare", "error": None}
    try:
        for step in _steps(options, kind, device, work, answer):
            answer["step"] = step
            options["enter"](f"{kind}: {step}")
    except Exception as error:  # noqa: BLE001 - a failed export is a fact
        answer["error"] = f"{type(error).__name__}: {error}"[:4000]
    return answer


def _steps(
    options: dict[str, Any], kind: str, device: str, work: Path, answer: dict[str, Any]
) -> Any:
    """Do the work, yielding the name of each step before it begins."""
    from ultralytics import YOLO

    answer["plain_attention"] = _use_plain_attention()
    yield "train"
    begun = time.perf_counter()
    checkpoint, size = _checkpoint(options, device, work)
    answer |= {"trained": not options["official"], "imgsz": size}
    answer["train_seconds"] = time.perf_counter() - begun
    pictures = _pictures(size, official=options["official"])
    yield "predict with the checkpoint"
    answer["checkpoint_boxes"] = _predict(str(checkpoint), pictures, size, device)
    yield "export"
    begun = time.perf_counter()
    exported = YOLO(str(checkpoint)).export(
        format=kind, imgsz=size, device=device, dynamic=False, half=False, verbose=False
    )
    answer["export_seconds"] = time.perf_counter() - begun
    answer["export_bytes"] = Path(exported).stat().st_size
    yield "load the export"
    answer["export_boxes"] = _predict(str(exported), pictures, size, device)
    yield "done"


def _use_plain_attention() -> bool:
    """Switch YOLO12's flash attention off: no exporter can trace it. Return whether it was on."""
    from ultralytics.nn.modules import block

    was = bool(getattr(block, "USE_FLASH_ATTN", False))
    if was:
        block.USE_FLASH_ATTN = False
    return was


def _checkpoint(options: dict[str, Any], device: str, work: Path) -> tuple[Path, int]:
    """Return a checkpoint that finds boxes, in a folder where exports may be written beside it."""
    if not options["official"]:
        return _train(options["architecture"], device, work), SIZE
    copy = work / Path(options["model"]).name
    shutil.copy(options["model"], copy)
    return copy, 640


def _train(architecture: str, device: str, work: Path) -> Path:
    from ultralytics import YOLO

    model = YOLO(architecture)
    model.train(
        data=str(_dataset(work / "shapes")),
        device=device,
        project=str(work),
        name="trained",
        exist_ok=True,
        **TRAINING,
    )
    return Path(model.trainer.last)


def _dataset(root: Path) -> Path:
    """Write the training pictures; a list that repeats them saves the cost of more epochs."""
    images, labels = root / "images", root / "labels"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(exist_ok=True)
    names = []
    for number, (picture, rows) in enumerate(shapes(TRAINING_PICTURES, SIZE, seed=7)):
        path = images / f"{number:03}.png"
        cv2.imwrite(str(path), picture)
        (labels / f"{number:03}.txt").write_text("\n".join(rows), encoding="utf-8")
        names.append(str(path))
    (root / "train.txt").write_text("\n".join(names * REPEATS), encoding="utf-8")
    (root / "val.txt").write_text("\n".join(names[:4]), encoding="utf-8")
    data = root / "data.yaml"
    content = {"path": str(root), "train": "train.txt", "val": "val.txt", "names": NAMES}
    data.write_text(json.dumps(content), encoding="utf-8")
    return data


def _pictures(size: int, *, official: bool) -> list[Any]:
    if official:
        # The two bundled pictures hold seven to eight strong boxes; mirrored they are new ones.
        views = [view for picture in bundled() for view in (picture, cv2.flip(picture, 1))]
        return [square(view, size) for view in views]
    return [picture for picture, _ in shapes(PICTURES, size, seed=11)]


def _predict(path: str, pictures: list[Any], size: int, device: str) -> list[list[list[float]]]:
    """Return per picture rows of class, score, x1, y1, x2, y2."""
    from ultralytics import YOLO

    model = YOLO(path, task="detect")
    found = []
    for picture in pictures:
        result = model.predict(
            picture, imgsz=size, device=device, conf=0.1, iou=0.7, max_det=300, verbose=False
        )[0]
        boxes = result.boxes
        rows = zip(boxes.cls.tolist(), boxes.conf.tolist(), boxes.xyxy.tolist(), strict=True)
        found.append([[kind, score, *corners] for kind, score, corners in rows])
    return found
