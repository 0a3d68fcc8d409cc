"""Print what is installed in this image as one JSON document; `builder/inventory.py` reads it.

Mounted into a container and run as `python -I -S`: only the standard library, no site-packages, no
variable of the environment. The document is ASCII, sorted, and the same whenever the image is.

Folders that only root may read are left out: whoever runs the image can't use them either.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

FORMAT = 1
CHECKPOINTS = Path("/opt/yolo")
SUFFIXES = (".pt", ".onnx", ".engine", ".safetensors", ".torchscript")
# Not of the image: made by the kernel, the engine, or for this container.
PRUNED = frozenset({"proc", "sys", "dev", "run", "tmp"})
# Some packages put a whole licence text into the field.
LONGEST = 500
OS_FIELDS = ("ID", "NAME", "VERSION_ID", "VERSION_CODENAME", "HOME_URL")


def main() -> None:
    """Write the document to standard output."""
    root = Path("/")
    document = {
        "format": FORMAT,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "os": os_release(root / "etc/os-release"),
        "debian": list(debian(root / "var/lib/dpkg/status")),
        "distributions": [distribution(path) for path in sorted(metadata_folders(root))],
        "checkpoints": [checkpoint(path) for path in sorted(checkpoints(CHECKPOINTS))],
    }
    json.dump(document, sys.stdout, sort_keys=True)


def _text(path: Path) -> str:
    """Read a file that need not be UTF-8; an absent one is empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def os_release(path: Path) -> dict[str, str]:
    """Return what names the operating system (os-release(5))."""
    pairs = (line.partition("=") for line in _text(path).splitlines())
    return {name: value.strip("\"'") for name, _, value in pairs if name in OS_FIELDS}


def debian(path: Path) -> Iterator[dict[str, str]]:
    """Yield the installed packages of dpkg's database."""
    for paragraph in _text(path).split("\n\n"):
        fields = HeaderParser().parsestr(paragraph.lstrip("\n"))
        if fields.get("Status", "").split()[2:] == ["installed"]:
            yield {
                "name": fields.get("Package", ""),
                "version": fields.get("Version", ""),
                "architecture": fields.get("Architecture", ""),
                "source": fields.get("Source", ""),
            }


def metadata_folders(root: Path) -> Iterator[Path]:
    """Yield every *.dist-info and *.egg-info, wherever it lies."""
    for folder, folders, files in os.walk(root):
        if folder == str(root):
            folders[:] = [name for name in folders if name not in PRUNED]
        for name in (*folders, *files):
            if name.endswith((".dist-info", ".egg-info")):
                yield Path(folder, name)


def distribution(path: Path) -> dict[str, object]:
    """Return what a distribution's metadata says; `record_sha256` is of its list of files."""
    candidates = (path / "METADATA", path / "PKG-INFO", path)
    fields = HeaderParser().parsestr(next(filter(None, map(_text, candidates)), ""))
    record = path / "RECORD"
    return {
        "path": str(path),
        "name": str(fields.get("Name", "")),
        "version": str(fields.get("Version", "")),
        "license_expression": _short(fields.get("License-Expression")),
        "license": _short(fields.get("License")),
        "classifiers": _licences(fields),
        "home_page": _short(_home_page(fields)),
        "requires": [str(line) for line in fields.get_all("Requires-Dist", [])],
        "record_sha256": sha256(record) if record.is_file() else None,
    }


def _short(value: object) -> str:
    return str(value or "").strip()[:LONGEST]


def _licences(fields: Message) -> list[str]:
    lines = (str(line) for line in fields.get_all("Classifier", []))
    return sorted(line for line in lines if line.startswith("License ::"))


def _home_page(fields: Message) -> str:
    pairs = (str(line).partition(",") for line in fields.get_all("Project-URL", []))
    urls = {label.strip().lower(): url.strip() for label, _, url in pairs}
    return str(fields.get("Home-page") or "") or urls.get("homepage", "")


def checkpoints(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder` that hold a network."""
    for place, _, files in os.walk(folder):
        for name in files:
            if name.endswith(SUFFIXES):
                yield Path(place, name)


def checkpoint(path: Path) -> dict[str, object]:
    """Return a file's path, size in bytes, and hash."""
    return {"path": str(path), "size": path.stat().st_size, "sha256": sha256(path)}


def sha256(path: Path) -> str:
    """Hash a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
