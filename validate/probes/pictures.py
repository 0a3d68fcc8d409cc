"""Pictures made here, the same on every machine: nothing to download, and known boxes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

__all__ = ["bundled", "scenes", "shapes", "square"]

NAMES = {0: "circle", 1: "square"}
SIZES = ((640, 640), (480, 640), (640, 384))


def bundled() -> list[Any]:
    """Return the pictures that lie in the ultralytics package."""
    found = find_spec("ultralytics")
    if found is None or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0], "assets")
    return [cv2.imread(str(folder / name)) for name in ("bus.jpg", "zidane.jpg")]


def square(picture: Any, size: int) -> Any:
    """Return the picture letterboxed to a square.

    A checkpoint letterboxes to a rectangle and a static export to a square: only a square picture
    is the same input to both.
    """
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    small = cv2.resize(picture, (round(width * scale), round(height * scale)))
    canvas = np.full((size, size, 3), 114, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas


def scenes(count: int) -> list[Any]:
    """Return `count` different pictures in three sizes: the bundled ones, then generated shapes."""
    random = np.random.default_rng(2024)
    pictures = bundled()[:count]
    for number in range(count - len(pictures)):
        height, width = SIZES[number % len(SIZES)]
        canvas = random.integers(0, 255, (height // 16, width // 16, 3), np.uint8)
        picture = cv2.resize(canvas, (width, height))
        for _ in range(int(random.integers(2, 9))):
            _draw(picture, random, int(random.integers(20, 90)))
        pictures.append(picture)
    return pictures


def _draw(picture: Any, random: Any, radius: int) -> None:
    height, width = picture.shape[:2]
    x, y = (
        int(random.integers(radius, width - radius)),
        int(random.integers(radius, height - radius)),
    )
    color = tuple(int(value) for value in random.integers(0, 255, 3))
    if random.random() < 0.5:
        cv2.circle(picture, (x, y), radius, color, -1)
    else:
        cv2.rectangle(picture, (x - radius, y - radius), (x + radius, y + radius), color, -1)


def shapes(count: int, size: int, seed: int) -> list[tuple[Any, list[str]]]:
    """Return square pictures of bright circles and squares, with their labels in YOLO's format."""
    random = np.random.default_rng(seed)
    return [_shapes(random, size) for _ in range(count)]


def _shapes(random: Any, size: int) -> tuple[Any, list[str]]:
    noise = random.integers(-12, 12, (size, size, 3))
    picture = np.clip(random.integers(0, 90, 3) + noise, 0, 255).astype(np.uint8)
    labels = []
    for cell in random.permutation(4)[: random.integers(2, 4)]:
        x = int((cell % 2 + 0.5) * size / 2 + random.integers(-3, 4))
        y = int((cell // 2 + 0.5) * size / 2 + random.integers(-3, 4))
        radius = int(size * random.uniform(0.14, 0.2))
        color = tuple(int(value) for value in random.integers(160, 255, 3))
        kind = int(random.integers(0, 2))
        if kind == 0:
            cv2.circle(picture, (x, y), radius, color, -1)
        else:
            cv2.rectangle(picture, (x - radius, y - radius), (x + radius, y + radius), color, -1)
        side = 2 * radius / size
        labels.append(f"{kind} {x / size:.5f} {y / size:.5f} {side:.5f} {side:.5f}")
    return picture, labels
