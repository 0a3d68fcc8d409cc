"""A loaded model over many different pictures in a row: latency, memory, survival."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from .adapter import Adapter, resident_bytes
from .pictures import scenes

__all__ = ["collect"]

WARM_UP = 10


def collect(options: dict[str, Any]) -> dict[str, Any]:
    """Warm up, then predict one picture after the other, dropping each result as users should."""
    from ultralytics import YOLO

    adapter = Adapter(options["device"])
    pictures = scenes(int(options["pictures"]))
    model = YOLO(options["model"])
    aborts: list[str] = []

    def predict(picture: Any) -> int:
        found = 0
        stream = model.predict(
            picture, stream=True, device=adapter.device, imgsz=640, verbose=False
        )
        for result in stream:
            found += len(result.boxes.data.cpu().tolist())
        return found

    for picture in pictures[:WARM_UP]:
        predict(picture)
    before = resident_bytes()
    milliseconds, resident, boxes = [], [], 0
    begun = time.perf_counter()
    for picture in pictures:
        try:
            seconds, found = adapter.timed(partial(predict, picture))
        except Exception as error:  # noqa: BLE001 - an abort is what this counts
            aborts.append(f"{type(error).__name__}: {error}"[:500])
            continue
        milliseconds.append(seconds * 1e3)
        resident.append(resident_bytes())
        boxes += found
    return {
        "device": adapter.device,
        "device_name": adapter.name(),
        "pictures": len(pictures),
        "sizes": sorted({f"{item.shape[1]}x{item.shape[0]}" for item in pictures}),
        "milliseconds": milliseconds,
        "seconds": time.perf_counter() - begun,
        "aborts": aborts,
        "boxes": boxes,
        "resident_before": before,
        "resident": resident,
        "memory": adapter.memory(),
        "clocks": adapter.clocks(),
    }
