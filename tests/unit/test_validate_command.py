from __future__ import annotations

from pathlib import Path

import pytest

import build as command_line
from builder.errors import InvalidInput, ValidationFailed
from builder.records import CheckResult, Host, Outcome, ValidationRecord
from validate.command import conclude, parse_tiers


def record(verdict: Outcome, *checks: CheckResult) -> ValidationRecord:
    return ValidationRecord(
        id="yolov8-cu128",
        digest="sha256:" + "a" * 64,
        reference="yolo-images/yolov8-cu128:local",
        verdict=verdict,
        suite="b" * 64,
        tiers=("static",),
        host=Host(cpu="x", cores=2, memory_bytes=1, kernel="6", engine="26", gpu=None, driver=None),
        missing=(),
        checks=checks,
        measurements={},
        seconds=1.0,
        started="2026-11-23T00:00:00+00:00",
    )


def outcome(identifier: str, what: Outcome, saw: str = "", reason: str = "") -> CheckResult:
    return CheckResult(
        id=identifier, tier="static", title="T.", outcome=what, seconds=0, saw=saw, reason=reason
    )


def test_tiers_come_in_the_order_in_which_they_run() -> None:
    assert parse_tiers("gpu, static") == ("static", "gpu")
    assert parse_tiers(None) == ()


def test_an_unknown_tier_is_bad_usage() -> None:
    with pytest.raises(InvalidInput, match="unknown tier 'gup'\n    Tiers: static, cpu, gpu"):
        parse_tiers("static,gup")


def test_a_verdict_that_is_no_pass_is_an_error_that_names_the_checks(tmp_path: Path) -> None:
    failed = record(
        Outcome.FAILED,
        outcome("C02", Outcome.FAILED, saw="numpy 1, lock says 2"),
        outcome("C05", Outcome.PASSED),
        outcome("G02", Outcome.NOT_MEASURED, reason="no GPU"),
        outcome("C10", Outcome.INFRA, reason="the engine went away"),
    )
    with pytest.raises(ValidationFailed) as caught:
        conclude([failed], None, tmp_path)
    text = str(caught.value)
    assert text.startswith("yolov8-cu128: FAILED: yolo-images/yolov8-cu128:local\n")
    assert "C02 FAILED: numpy 1, lock says 2" in text
    assert "C10 INFRA: the engine went away" in text
    assert "G02" not in text
    assert caught.value.exit_code == 7
    assert (tmp_path / "summary.md").exists()


def test_a_pass_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude([record(Outcome.PASSED)], None, tmp_path) == 0
    assert str(tmp_path / "junit.xml") in capsys.readouterr().out


def test_rows_that_were_not_built_can_not_be_validated(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "matrix.yaml").write_text((root / "matrix.yaml").read_text())
    monkeypatch.setattr(command_line, "ROOT", tmp_path)
    assert command_line.main(["validate", "yolov8-cu12?"]) == 2
    assert "not built: yolov8-cu121, yolov8-cu126, yolov8-cu128" in capsys.readouterr().err
    assert command_line.main(["validate"]) == 2
    assert "not built: no row at all" in capsys.readouterr().err


def test_an_image_and_a_pattern_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["validate", "yolov8-cpu", "--image", "x:y"]) == 2
    assert "exclude each other" in capsys.readouterr().err
