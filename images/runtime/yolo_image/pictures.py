"""Pictures as the user names them: a file, a folder, a URL, or nothing for the bundled one."""

from __future__ import annotations

import importlib.util
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from yolo_image.console import BAD_USAGE, Stop

__all__ = ["Picture", "bundled", "decode", "find", "is_url", "read"]

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

TIMEOUT_SECONDS = 20
MAX_BYTES = 64 << 20
"""More than any camera writes, and less than what would hurt the container."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture to look at: `source` as the user knows it, `name` for a file made from it."""

    source: str
    name: str


def find(source: str | None) -> list[Picture]:
    """Return the pictures that `source` names, in a fixed order; at least one."""
    if source is None:
        source = str(bundled())
    if is_url(source):
        return [Picture(source=source, name=name_from_url(source))]
    path = Path(source)
    if path.is_dir():
        return in_folder(path)
    if not path.is_file():
        raise Stop(
            f"no such file or folder: {source}. Inside the container only mounted folders exist: "
            'add -v "$PWD:/data" and name it /data/...',
            code=BAD_USAGE,
        )
    return [Picture(source=source, name=path.name)]


def in_folder(folder: Path) -> list[Picture]:
    """Return the pictures right in `folder`, by name."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise Stop(f"no pictures in {folder} ({', '.join(sorted(SUFFIXES))})", code=BAD_USAGE)
    return [Picture(source=str(path), name=path.name) for path in paths]


def bundled() -> Path:
    """Return the picture that the ultralytics package brings, without importing the package."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        raise Stop("the ultralytics package is not installed: this image is broken")
    return Path(spec.origin).parent / "assets/bus.jpg"


def is_url(source: str) -> bool:
    """Say whether `source` is to be fetched rather than opened."""
    return source.lower().startswith(("http://", "https://"))


def name_from_url(url: str) -> str:
    """Return a file name for what lies at `url`."""
    name = Path(unquote(urlsplit(url).path)).name or "picture"
    return name if Path(name).suffix.lower() in SUFFIXES else f"{name}.jpg"


def read(picture: Picture) -> bytes:
    """Return the bytes of a picture; Stop with the reason when they can't be had."""
    if is_url(picture.source):
        return fetch(picture.source)
    try:
        return Path(picture.source).read_bytes()
    except OSError as error:
        raise Stop(f"{picture.source}: can't be read ({error.strerror})") from None


def fetch(url: str) -> bytes:
    """Return what lies at `url`, if it comes in time and is not too large.

    ultralytics' own loader is off when offline, and leaves files in the working folder.
    """
    try:
        # is_url() let only http and https through, and urllib redirects to nothing local.
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            data: bytes = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise Stop(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Stop(
            f"{url}: can't be fetched ({reason}). Has this container a network (--network none "
            "has not), and does it need a proxy (-e HTTPS_PROXY=...)?"
        ) from None
    if len(data) > MAX_BYTES:
        raise Stop(f"{url}: larger than {MAX_BYTES >> 20} MiB, not fetched")
    return data


def decode(picture: Picture, data: bytes) -> Any:
    """Return the pixels (height, width, blue-green-red) as ultralytics itself would read them."""
    import cv2
    import numpy as np

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        raise Stop(f"{picture.source}: not a picture that can be decoded ({len(data)} bytes)")
    return pixels
