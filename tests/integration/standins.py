"""Small stand-ins for the big wheels: same names and versions, a few bytes of content.

With them a whole row goes through the real Dockerfiles, resolver, builder and validator in seconds;
only what lies inside the wheels is not what a user gets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tests.checkpoints import small_checkpoint
from tests.servers.packages import wheel

__all__ = ["FONT", "MATRIX", "SETTINGS", "WEIGHTS", "make_wheels"]

WEIGHTS = small_checkpoint("yolov8")

MATRIX = f"""\
version: "1"
platform: linux/amd64
stacks:
  fixture:
    suite: bookworm
    python: "3.11"
    cuda: "12.8"
    torch: "2.8.0"
    torchvision: "0.23.0"
    onnxruntime: onnxruntime-gpu==1.23.2
    gpus: [T4, H100]
distributions:
  ultralytics:
    version: "8.4.190"
    requirements: [matplotlib]
families:
  yolov8:
    image: yolov8
    distribution: ultralytics
    weights: [yolov8n.pt]
weights:
  yolov8n.pt:
    url: https://weights.invalid/yolov8n.pt
    sha256: {hashlib.sha256(WEIGHTS).hexdigest()}
    size: {len(WEIGHTS)}
    status: computed
    licence: AGPL-3.0-only
    lineage: yolov8
    architecture: yolov8n.yaml
"""

# What the build's own scripts use of the packages: settings of ultralytics, a font of matplotlib.
SETTINGS = """\
import json, os, pathlib

class Settings(dict):
    def update(self, changes):
        super().update(changes)
        folder = pathlib.Path(os.environ["YOLO_CONFIG_DIR"])
        (folder / "settings.json").write_text(json.dumps(self))

SETTINGS = Settings(sync=True, uuid="x", weights_dir="x")
"""
FONT = {
    "matplotlib/__init__.py": "",
    "matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf": "stand-in for a font\n",
}

_PACKAGES: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("torch", "2.8.0"): {"torch/__init__.py": '__version__ = "2.8.0"\n'},
    ("torchvision", "0.23.0"): {"torchvision/__init__.py": ""},
    ("onnxruntime_gpu", "1.23.2"): {"onnxruntime/__init__.py": ""},
    ("matplotlib", "3.10.0"): FONT,
    ("ultralytics", "8.4.190"): {
        "ultralytics/__init__.py": "",
        "ultralytics/utils/__init__.py": SETTINGS,
    },
}


def make_wheels(folder: Path) -> None:
    """Write one wheel per stand-in package into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for (name, version), files in _PACKAGES.items():
        file, content = wheel(name, version, files)
        (folder / file).write_bytes(content)
