"""One cold start, phase by phase: meant for a process that has done nothing else.

`result.speed` leaves the warm-up out, which is most of what a user waits for, so the phases are
timed from outside the library.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

__all__ = ["collect"]


def collect(options: dict[str, Any]) -> dict[str, Any]:
    """Import, load, find boxes once; `started` is the wall clock at the first line of Python."""
    phases: dict[str, float] = {}
    mark = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        phases[name] = now - mark
        mark = now

    import torch

    lap("import_torch")
    import ultralytics

    lap("import_ultralytics")
    device = options["device"]
    if device != "cpu":
        torch.zeros(1, device=device)
        torch.cuda.synchronize()
    lap("context")
    model = ultralytics.YOLO(options["model"])
    lap("load")
    picture = Path(ultralytics.__file__).with_name("assets") / "bus.jpg"
    results = model.predict(str(picture), device=device, imgsz=640, verbose=False)
    boxes = results[0].boxes.data.cpu().tolist()
    lap("first_inference")
    return {
        "started": options["started"],
        "finished": time.time(),
        "device": device,
        "phases": phases,
        "boxes": len(boxes),
    }
