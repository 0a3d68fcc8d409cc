"""Small stand-ins for the big wheels: same names and versions, a few bytes of content.

With them a whole row goes through the real Dockerfiles, resolver, builder and validator in seconds;
only what lies inside the wheels is not what a user gets.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["MATRIX", "WEIGHTS", "make_wheels"]

WEIGHTS = b"stand-in for a checkpoint\n"

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
_SETTINGS = """\
import json, os, pathlib

class Settings(dict):
    def update(self, changes):
        super().update(changes)
        folder = pathlib.Path(os.environ["YOLO_CONFIG_DIR"])
        (folder / "settings.json").write_text(json.dumps(self))

SETTINGS = Settings(sync=True, uuid="x", weights_dir="x")
"""

_PACKAGES: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("torch", "2.8.0"): {"torch/__init__.py": '__version__ = "2.8.0"\n'},
    ("torchvision", "0.23.0"): {"torchvision/__init__.py": ""},
    ("onnxruntime_gpu", "1.23.2"): {"onnxruntime/__init__.py": ""},
    ("matplotlib", "3.10.0"): {
        "matplotlib/__init__.py": "",
        "matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf": "stand-in for a font\n",
    },
    ("ultralytics", "8.4.190"): {
        "ultralytics/__init__.py": "",
        "ultralytics/utils/__init__.py": _SETTINGS,
    },
}


def make_wheels(folder: Path) -> None:
    """Write one wheel per stand-in package into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for (name, version), files in _PACKAGES.items():
        _write_wheel(folder / f"{name}-{version}-py3-none-any.whl", name, version, files)


def _write_wheel(path: Path, name: str, version: str, files: Mapping[str, str]) -> None:
    info = f"{name}-{version}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},{_record_hash(text)},{len(text)}\n" for file, text in content.items())
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**content, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(file), text)


def _record_hash(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return "sha256=" + digest.rstrip(b"=").decode()
