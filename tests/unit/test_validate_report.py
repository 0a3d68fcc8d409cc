from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree as ET

from rich.console import Console

from builder.records import Outcome, write_record
from tests.unit.test_validate_verdict import build
from tests.unit.validate_support import missing, result, validation
from validate.report.render import Row, junit, load_rows, summary, table, write_reports

GOLDEN = Path(__file__).parent / "facts" / "summary.md"

CHECKS = (
    result("S13", "static", Outcome.PASSED, saw="9 variables as they should be"),
    result(
        "C02",
        "cpu",
        Outcome.FAILED,
        saw="torch 2.7.1 is installed | the lock says 2.8.0\n<script>",
        reason="What runs is not what was reviewed.",
        fix="Rebuild without cache.",
    ),
    result("C09", "cpu", Outcome.INFRA, reason="the engine went away", fix="Run again."),
    result("C20", "cpu", Outcome.NOT_MEASURED, reason="the image has no weights"),
    result("G02", "gpu", Outcome.NOT_MEASURED, reason="this machine has no GPU"),
    result("G07", "gpu", Outcome.NOT_MEASURED, reason="this machine has no GPU"),
)


def rows() -> tuple[Row, ...]:
    record = validation(*CHECKS, verdict=Outcome.FAILED, missing=(missing("weights"),))
    done = build(seconds=42.0, size_bytes=4_481_753_048)
    broken = build(id="yolov12-cu128", status="failed", digest=None, size_bytes=None)
    return (
        Row(build=done, validation=record, folder="out/yolov8-cu128"),
        Row(build=broken, validation=None, folder="out/yolov12-cu128"),
    )


def test_golden_summary() -> None:
    assert summary(rows()) == GOLDEN.read_text()


def test_reasons_are_said_once() -> None:
    assert rows()[0].not_measured == [
        "C20 (the image has no weights)",
        "G02 G07 (this machine has no GPU)",
    ]


def test_junit_counts_what_was_not_measured_as_skipped() -> None:
    suite = ET.fromstring(junit(rows()))[0]
    assert suite.attrib["name"] == "yolov8-cu128"
    counts = {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "1", "errors": "1", "skipped": "3"}
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.text is not None
    assert "Rebuild without cache." in failure.text


def test_junit_survives_control_characters() -> None:
    check = result("C01", "cpu", Outcome.FAILED, saw="\x1b[31mred\x00")
    row = Row(build=build(), validation=validation(check), folder="out/x")
    assert "[31mred" in junit([row])
    ET.fromstring(junit([row]))


def test_the_table_has_a_line_per_row() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(table(rows()))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO, see above
    assert "yolov8-cu128" in text
    assert "4.48 GB" in text
    assert "BUILD FAILED" in text


def test_a_record_of_another_digest_counts_for_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "yolov8-cu128"
    write_record(folder / "build.json", build())
    write_record(folder / "validation.json", validation(digest="sha256:" + "d" * 64))
    (row,) = load_rows(tmp_path)
    assert row.verdict == "NOT VALIDATED"
    write_record(folder / "validation.json", validation())
    assert load_rows(tmp_path, ["yolov8-cu128", "unknown"])[0].verdict == "PASSED"


def test_reports_are_written(tmp_path: Path) -> None:
    write_reports(tmp_path, rows())
    assert (tmp_path / "summary.md").read_text() == summary(rows())
    assert (tmp_path / "junit.xml").read_text() == junit(rows())
