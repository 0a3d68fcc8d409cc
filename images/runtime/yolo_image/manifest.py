"""image.json: what this image says about itself, typed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_image.console import Stop

__all__ = ["HOME", "Manifest", "Missing", "Weight", "load", "matches", "parse", "sha256_of"]

HOME = Path("/opt/yolo")
"""Where image.json and the checkpoints lie."""

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A checkpoint: `sha256` and `size` are None for a random one, which is made in the build."""

    file: str
    model: str
    sha256: str | None
    size: int | None
    official: bool


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A part that a partial image lacks: where it would have come from, and why it did not."""

    part: str
    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the commands need of image.json; `document` is the whole of it."""

    id: str
    family: str
    distribution: str
    cuda: str | None
    torch: str
    tensorrt: str | None
    ultralytics: str
    gpus: tuple[str, ...]
    sms: tuple[str, ...]
    minimum_driver: str | None
    weights: tuple[Weight, ...]
    missing: tuple[Missing, ...]
    document: dict[str, Any]

    def why_missing(self, part: str) -> Missing | None:
        """Return why `part` is not in this image, None when it is or was never meant to be."""
        return next((missing for missing in self.missing if missing.part == part), None)


def load(folder: Path = HOME) -> Manifest:
    """Return the manifest of this image."""
    path = folder / "image.json"
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise Stop(f"{path} is missing: this is not a yolo-images image.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Stop(f"{path} can't be read ({error!r}). Pull the image again.") from None


def parse(document: dict[str, Any]) -> Manifest:
    """Return the manifest that `document` holds; KeyError, TypeError or ValueError when none."""
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {document['schema_version']}, not {SCHEMA_VERSION}")
    return Manifest(
        id=document["id"],
        family=document["family"],
        distribution=document["distribution"],
        cuda=document["cuda"],
        torch=document["torch"],
        tensorrt=document["tensorrt"],
        ultralytics=document["ultralytics"],
        gpus=tuple(document["gpus"]),
        sms=tuple(document["sms"]),
        minimum_driver=document["minimum_driver"],
        weights=tuple(Weight(**weight) for weight in document["weights"]),
        missing=tuple(Missing(**missing) for missing in document["missing"]),
        document=document,
    )


def sha256_of(path: Path) -> str | None:
    """Return the hash of a file, None when there is no such file or it can't be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def matches(weight: Weight, sha256: str | None) -> bool | None:
    """Say whether a checkpoint has the bytes it should have; None when nobody can know."""
    if sha256 is None:
        return False
    return None if weight.sha256 is None else sha256 == weight.sha256
