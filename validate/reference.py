"""Validates an image for which there are no records: it has to speak for itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from docker import DockerClient
from pydantic import ValidationError

from builder.engine.client import ImageFacts, connect, inspect_image
from builder.engine.containers import Request, running
from builder.errors import Finding, InvalidInput
from builder.records import (
    BuildRecord,
    Missing,
    PlanRecord,
    ValidationRecord,
    WeightRecord,
    write_record,
)
from validate.run import Tier, validate_image

__all__ = ["plan_of", "reference_folder", "validate_reference"]

DESCRIPTION = "/opt/yolo/image.json"
UNKNOWN_KEY = "0" * 64


def validate_reference(
    reference: str,
    out: Path,
    *,
    tiers: Sequence[Tier] = ("static", "cpu"),
    require: Collection[Tier] = (),
    talk: Callable[[str], None] = lambda _line: None,
    only: Collection[str] = (),
) -> ValidationRecord:
    """Check an image by reference; what only its records could tell is NOT_MEASURED."""
    with closing(connect()) as client:
        image = inspect_image(client, reference)
        plan = plan_of(image, _description(client, image, out))
    build = BuildRecord(
        id=plan.id,
        status="unchanged",
        digest=image.digest,
        build_key=UNKNOWN_KEY,
        reference=reference,
        seconds=0.0,
        size_bytes=image.size,
        missing=plan.missing,
        finished="",
    )
    folder = reference_folder(out, image.digest)
    write_record(folder / plan.id / "plan.json", plan)
    write_record(folder / plan.id / "build.json", build)
    return validate_image(
        plan, build, folder, tiers=tiers, require=require, fresh=True, talk=talk, only=only
    )


def reference_folder(out: Path, digest: str) -> Path:
    """Return where the records of an image go that was given by reference.

    Not to `out`/<row>: the image names the row itself, and must not replace what a row has proven.
    """
    return out / "references" / digest.removeprefix("sha256:")[:12]


def _description(client: DockerClient, image: ImageFacts, out: Path) -> bytes:
    request = Request(image=image.id, entrypoint=["cat"], command=[DESCRIPTION])
    with running(client, request, log=out / "logs" / "describe.log") as container:
        result = container.wait(timeout=60)
    if result.exit_code:
        raise InvalidInput(
            Finding(
                place=image.reference,
                what=f"the image has no {DESCRIPTION}",
                why="It was not built by this project, so nothing says what it should be.",
                todo="Validate a row of matrix.yaml instead.",
            )
        )
    return result.stdout


def plan_of(image: ImageFacts, description: bytes) -> PlanRecord:
    """Return the row as the image describes itself; without a lock its packages are unknown."""
    try:
        stated: dict[str, Any] = json.loads(description)
        return PlanRecord(
            id=_row_id(stated["id"]),
            build_key=UNKNOWN_KEY,
            reference=image.reference,
            packages={},
            labels={},
            weights=tuple(WeightRecord.model_validate(item) for item in stated["weights"]),
            missing=tuple(Missing.model_validate(item) for item in stated["missing"]),
            gpus=tuple(stated["gpus"]),
            sms=tuple(stated["sms"]),
            **{name: stated[name] for name in _PLAIN},
        )
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise InvalidInput(
            Finding(
                place=f"{image.reference}:{DESCRIPTION}",
                what=f"the image's description can't be read: {type(error).__name__}: {error}",
                todo="Build the image again with this version of the project.",
            )
        ) from error


def _row_id(text: object) -> str:
    """Return the id; it becomes a folder name, and the image is not trusted."""
    if not isinstance(text, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,100}", text):
        raise ValueError(f"{text!r} is not a row id")
    return text


_PLAIN = (
    "family",
    "distribution",
    "stack",
    "platform",
    "python",
    "cuda",
    "torch",
    "torchvision",
    "tensorrt",
    "flash_attn",
    "ultralytics",
    "onnxruntime",
    "minimum_driver",
)
