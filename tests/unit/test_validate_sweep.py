"""When the proof of an image that is gone still holds: when it would be reused if it were here."""

from __future__ import annotations

import io
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from builder.records import BuildRecord, Outcome, write_record
from builder.talk import Talk
from tests.unit.validate_support import DIGEST, host, plan_record, result, validation
from validate import sweep as module
from validate.sweep import Proof

PLAN: Any = SimpleNamespace(row=SimpleNamespace(id="yolov8-cu128"), record=plan_record())
PASSED = [result("S13", "static", Outcome.PASSED), result("C01", "cpu", Outcome.PASSED)]
NOW = datetime.now(timezone.utc).isoformat(timespec="seconds")


def record(**changes: Any) -> BuildRecord:
    fields: dict[str, Any] = {
        "id": "yolov8-cu128",
        "status": "built",
        "digest": DIGEST,
        "build_key": "0" * 64,
        "reference": "yolo-images/yolov8-cu128:local-partial",
        "seconds": 1.0,
        "size_bytes": 1,
        "missing": (),
        "finished": NOW,
        "evicted": NOW,
        **changes,
    }
    return BuildRecord(**fields)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "connect", io.StringIO)
    monkeypatch.setattr(module, "describe_host", lambda _: host())
    monkeypatch.setattr(module, "suite_hash", lambda: "b" * 64)
    return tmp_path


def holds(out: Path, build: BuildRecord, **options: Any) -> tuple[bool, int]:
    fields: dict[str, Any] = {"tiers": ("static", "cpu"), "require": (), "fresh": False, **options}
    proof = Proof(out=out, talk=Talk(Console(file=io.StringIO())), **fields)
    return proof.proven(PLAN, build), len(proof.records)


def test_a_proof_that_would_be_reused_holds_and_is_reported(out: Path) -> None:
    write_record(out / "yolov8-cu128" / "validation.json", validation(*PASSED, started=NOW))
    assert holds(out, record()) == (True, 1)
    assert holds(out, record(digest="sha256:" + "e" * 64)) == (False, 0)
    assert holds(out, record(), fresh=True) == (False, 0)
    assert holds(out, record(), tiers=("static", "cpu", "gpu")) == (False, 0)
    assert holds(out, record(), require=("gpu",)) == (False, 0)


def test_a_tier_that_is_required_need_not_be_named_twice(out: Path) -> None:
    known = validation(*PASSED, started=NOW)
    write_record(out / "yolov8-cu128" / "validation.json", known)
    assert holds(out, record(), tiers=("static",), require=("cpu",)) == (True, 1)


def test_without_a_readable_record_nothing_is_proven(out: Path) -> None:
    assert holds(out, record()) == (False, 0)
    path = out / "yolov8-cu128" / "validation.json"
    path.parent.mkdir()
    path.write_text("{")
    assert holds(out, record()) == (False, 0)
