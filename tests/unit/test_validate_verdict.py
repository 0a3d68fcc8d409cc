from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from builder.records import BuildRecord, CheckResult, Outcome
from tests.unit.validate_support import DIGEST, host, result, validation
from validate.host import suite_hash
from validate.run import reusable
from validate.verdict import apply_requirements, decide

PASSED, FAILED, NOT_MEASURED = Outcome.PASSED, Outcome.FAILED, Outcome.NOT_MEASURED
STATIC, CPU = result("S13", "static", PASSED), result("C01", "cpu", PASSED)
GPU = result("G02", "gpu", NOT_MEASURED, reason="this machine has no GPU")
STARTED = datetime(2026, 11, 24, 2, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("worst", "verdict"),
    [
        ((), PASSED),
        ((NOT_MEASURED,), PASSED),
        ((Outcome.INCONCLUSIVE,), Outcome.INCONCLUSIVE),
        ((Outcome.INFRA, Outcome.INCONCLUSIVE), Outcome.INFRA),
        ((Outcome.ERROR, Outcome.INFRA), Outcome.ERROR),
        ((FAILED, Outcome.ERROR, Outcome.INFRA), FAILED),
    ],
)
def test_the_worst_outcome_counts(worst: tuple[Outcome, ...], verdict: Outcome) -> None:
    checks = [STATIC, CPU, *(result("C09", "cpu", outcome) for outcome in worst)]
    assert decide(checks, ("static", "cpu")) is verdict


@pytest.mark.parametrize(
    ("checks", "tiers", "verdict"),
    [
        ([], ("static", "cpu"), NOT_MEASURED),
        ([STATIC], ("static", "cpu"), NOT_MEASURED),
        ([STATIC], ("static",), PASSED),
        ([STATIC, CPU, GPU], ("static", "cpu", "gpu"), PASSED),
        ([GPU], ("gpu",), NOT_MEASURED),
    ],
)
def test_a_tier_in_which_nothing_passed_is_no_pass(
    checks: list[CheckResult], tiers: tuple[str, ...], verdict: Outcome
) -> None:
    assert decide(checks, tiers) is verdict


def test_a_required_tier_fails_where_it_is_not_measured() -> None:
    checks = [STATIC, CPU, GPU]
    assert decide(checks, ("static", "cpu", "gpu"), ("gpu",)) is FAILED
    assert decide([STATIC, CPU], ("static", "cpu", "gpu"), ("gpu",)) is FAILED
    changed = apply_requirements(checks, ("gpu",))[2]
    assert changed.outcome is FAILED
    assert changed.saw == "not measured: this machine has no GPU"
    assert "--require gpu" in changed.reason


def build(**changes: Any) -> BuildRecord:
    fields: dict[str, Any] = {
        "id": "yolov8-cu128",
        "status": "built",
        "digest": DIGEST,
        "build_key": "0" * 64,
        "reference": "yolo-images/yolov8-cu128:local-partial",
        "seconds": 1.0,
        "size_bytes": 1,
        "missing": (),
        "finished": "",
    }
    return BuildRecord(**{**fields, **changes})


def ask(**changes: Any) -> bool:
    question: dict[str, Any] = {
        "known": validation(STATIC, CPU),
        "build": build(),
        "suite": "b" * 64,
        "tiers": ("static", "cpu"),
        "host": host(),
        "require": (),
        "now": STARTED + timedelta(days=1),
    }
    return reusable(**{**question, **changes})


def test_the_same_question_is_not_asked_twice() -> None:
    assert ask()


@pytest.mark.parametrize(
    "changes",
    [
        {"build": build(digest="sha256:" + "c" * 64)},
        {"build": build(reference="other:local")},
        {"suite": "c" * 64},
        {"tiers": ("static", "cpu", "gpu")},
        {"host": host(gpu="NVIDIA A10")},
        {"now": STARTED + timedelta(days=8)},
        {"now": STARTED - timedelta(hours=1)},
        {"known": validation(STATIC, result("C01", "cpu", FAILED))},
        {"known": validation(STATIC, result("C01", "cpu", Outcome.INFRA))},
        {"known": validation(STATIC, CPU, GPU), "require": ("gpu",)},
    ],
)
def test_another_question_is(changes: dict[str, Any]) -> None:
    assert not ask(**changes)


def test_the_suite_hash_follows_the_code(tmp_path: Path) -> None:
    file = tmp_path / "validate" / "cpu" / "test_x.py"
    file.parent.mkdir(parents=True)
    file.write_text("one")
    first = suite_hash(tmp_path)
    (file.parent / "note.txt").write_text("no code")
    assert suite_hash(tmp_path) == first
    file.write_text("two")
    assert suite_hash(tmp_path) != first
