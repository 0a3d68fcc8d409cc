"""Recorded facts and small records for the tests of the validator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from builder.records import (
    CheckResult,
    Host,
    Measurement,
    Missing,
    Outcome,
    PlanRecord,
    ValidationRecord,
    WeightRecord,
)
from validate.checks import Measurements
from validate.facts import Facts, Gpu

FACTS = Path(__file__).parent / "facts"
ROOT_FOLDER = Path(__file__).parent.parent.parent
DIGEST = "sha256:" + "a" * 64


def good_facts() -> Facts:
    """What a partial yolov8 image showed on a machine without a GPU."""
    return Facts.model_validate_json((FACTS / "yolov8-cu128.json").read_bytes())


def changed_facts(section: str, **changes: Any) -> Any:
    """A section of the good facts with some values replaced."""
    found = getattr(good_facts(), section)
    return type(found).model_validate(found.model_dump() | changes)


def gpu_document() -> bytes:
    """A probe's document as a GPU host would write it; constructed, no GPU was at hand."""
    return (FACTS / "constructed-gpu.json").read_bytes()


def gpu_facts(**changes: Any) -> Any:
    section = json.loads(gpu_document())["sections"]["gpu"]["facts"]
    return Gpu.model_validate(section | changes)


def plan_record(**changes: Any) -> PlanRecord:
    packages = good_facts().packages
    assert packages is not None
    fields: dict[str, Any] = {
        "id": "yolov8-cu128",
        "build_key": "0" * 64,
        "reference": "yolo-images/yolov8-cu128:local-partial",
        "family": "yolov8",
        "distribution": "ultralytics",
        "stack": "cu128",
        "platform": "linux/amd64",
        "python": "3.11",
        "cuda": "12.8",
        "torch": "2.8.0",
        "torchvision": "0.23.0",
        "tensorrt": "10.9.0.34",
        "flash_attn": None,
        "ultralytics": "8.4.190",
        "onnxruntime": "1.23.2",
        "gpus": ("T4", "L4", "H100"),
        "sms": ("7.5", "8.9", "9.0"),
        "minimum_driver": "525.60.13",
        "packages": {
            item.name: item.version for item in packages.distributions if item.name != "yolo-image"
        },
        "weights": tuple(weight(f"yolov8{size}") for size in "ns"),
        "labels": {},
        "missing": (missing("tensorrt"), missing("weights")),
    }
    return PlanRecord(**{**fields, **changes})


def weight(model: str, sha256: str | None = None) -> WeightRecord:
    file = f"{model}.pt" if sha256 else f"{model}-random.pt"
    return WeightRecord(
        file=file, model=model, sha256=sha256, size=7 if sha256 else None, official=bool(sha256)
    )


def missing(part: Any) -> Missing:
    return Missing(part=part, source="https://example.org", reason="the source does not answer")


def result(identifier: str, tier: Any, outcome: Outcome, **changes: Any) -> CheckResult:
    fields: dict[str, Any] = {
        "id": identifier,
        "tier": tier,
        "title": f"Title of {identifier}.",
        "outcome": outcome,
        "seconds": 0.5,
    }
    return CheckResult(**{**fields, **changes})


def host(gpu: str | None = None) -> Host:
    return Host(
        cpu="A CPU",
        cores=2,
        memory_bytes=8 << 30,
        kernel="6.1",
        engine="26.1",
        gpu=gpu,
        driver="570.1" if gpu else None,
    )


def validation(*checks: CheckResult, **changes: Any) -> ValidationRecord:
    fields: dict[str, Any] = {
        "id": "yolov8-cu128",
        "digest": DIGEST,
        "reference": "yolo-images/yolov8-cu128:local-partial",
        "verdict": Outcome.PASSED,
        "suite": "b" * 64,
        "tiers": ("static", "cpu"),
        "host": host(),
        "missing": (),
        "checks": checks,
        "measurements": {"steady.p50": Measurement(value=45.25, unit="ms", n=100)},
        "seconds": 61.2,
        "started": "2026-11-24T02:00:00+00:00",
    }
    return ValidationRecord(**{**fields, **changes})


def no_measurements() -> Measurements:
    return Measurements(values={})
