"""Reports from records: a table for the terminal, summary.md for people, junit.xml for CI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.table import Table

from builder.errors import InvalidInput
from builder.records import (
    BuildRecord,
    CheckResult,
    Outcome,
    ValidationRecord,
    read_record,
    write_atomic,
)

__all__ = ["Row", "junit", "load_rows", "summary", "table", "write_reports"]

_COLORS = {Outcome.PASSED.value: "green", Outcome.FAILED.value: "red"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image with what is known about it; `validation` is None when it was never checked."""

    build: BuildRecord
    validation: ValidationRecord | None
    folder: str

    @property
    def id(self) -> str:
        """The row id."""
        return self.build.id

    @property
    def reference(self) -> str:
        """The image's reference."""
        return self.build.reference

    @property
    def digest(self) -> str:
        """The digest, or a dash."""
        return self.build.digest or "-"

    @property
    def verdict(self) -> str:
        """The verdict of this very digest; a record of another one says nothing about it."""
        if self.build.status == "failed":
            return "BUILD FAILED"
        return self.validation.verdict.value if self.validation else "NOT VALIDATED"

    @property
    def size(self) -> str:
        """The compressed size."""
        return f"{self.build.size_bytes / 1e9:.2f} GB" if self.build.size_bytes else "-"

    @property
    def build_seconds(self) -> str:
        """How long the build took, and whether there was one."""
        unchanged = " (unchanged)" if self.build.status == "unchanged" else ""
        return f"{self.build.seconds:.1f} s{unchanged}"

    @property
    def failures(self) -> list[CheckResult]:
        """Checks that someone has to look at."""
        fine = {Outcome.PASSED, Outcome.NOT_MEASURED}
        return [item for item in self._checks if item.outcome not in fine]

    @property
    def not_measured(self) -> list[str]:
        """What was not measured: ids by reason, so that a reason is said once."""
        reasons: dict[str, list[str]] = {}
        for item in self._checks:
            if item.outcome is Outcome.NOT_MEASURED:
                reasons.setdefault(item.reason, []).append(item.id)
        return [f"{' '.join(ids)} ({_cell(reason)})" for reason, ids in reasons.items()]

    @property
    def nothing(self) -> str:
        """What to say when nothing is listed as not measured."""
        return "nothing" if self.validation else "-"

    @property
    def _checks(self) -> tuple[CheckResult, ...]:
        return self.validation.checks if self.validation else ()


def load_rows(out: Path, ids: Sequence[str] | None = None) -> tuple[Row, ...]:
    """Read the records of all rows under `out`, or of `ids` in their order."""
    found = (
        ids if ids is not None else sorted(path.parent.name for path in out.glob("*/build.json"))
    )
    rows = []
    for name in found:
        build = read_record(out / name / "build.json", BuildRecord)
        if build is None:
            continue
        validation = _validation(out / name / "validation.json")
        if validation and validation.digest != build.digest:
            validation = None
        rows.append(Row(build=build, validation=validation, folder=str(out / name)))
    return tuple(rows)


def _validation(path: Path) -> ValidationRecord | None:
    try:
        return read_record(path, ValidationRecord)
    except InvalidInput:
        return None


def table(rows: Sequence[Row]) -> Table:
    """Return the table that ends a run."""
    grid = Table(title="Images", title_justify="left", show_lines=True)
    for name in ("row", "verdict", "digest", "compressed", "built in", "not measured", "records"):
        grid.add_column(name, overflow="fold")
    for row in rows:
        color = _COLORS.get(row.verdict, "yellow")
        grid.add_row(
            row.id,
            f"[{color}]{row.verdict}[/]",
            row.digest.removeprefix("sha256:")[:12],
            row.size,
            row.build_seconds,
            "\n".join(row.not_measured).replace("[", r"\[") or row.nothing,
            row.folder,
        )
    return grid


def _cell(text: str) -> str:
    """Make text of an image harmless inside a Markdown table or list."""
    short = " ".join(text.split())
    short = short if len(short) <= 400 else f"{short[:397]}..."
    return short.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _number(value: float) -> str:
    """Write bytes in full and times short, never as 4.5e+09."""
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def summary(rows: Sequence[Row]) -> str:
    """Return summary.md."""
    # Not HTML: escaping is done by `cell`, for Markdown.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - see above
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "number": _number}
    return environment.get_template("summary.md.j2").render(rows=rows).rstrip() + "\n"


def junit(rows: Sequence[Row]) -> str:
    """Return junit.xml: a suite per row. What was not measured is `skipped`, never a pass."""
    root = ET.Element("testsuites", name="validate")
    for row in rows:
        if row.validation is None:
            continue
        checks = row.validation.checks
        suite = ET.SubElement(root, "testsuite", _counts(row.id, checks))
        suite.set("time", f"{row.validation.seconds:.3f}")
        suite.set("timestamp", row.validation.started)
        for item in checks:
            _case(suite, row.id, item)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(name: str, checks: Sequence[CheckResult]) -> dict[str, str]:
    tags = [_TAGS[item.outcome] for item in checks]
    return {
        "name": name,
        "tests": str(len(tags)),
        "failures": str(tags.count("failure")),
        "errors": str(tags.count("error")),
        "skipped": str(tags.count("skipped")),
    }


_TAGS = {
    Outcome.PASSED: "",
    Outcome.FAILED: "failure",
    Outcome.NOT_MEASURED: "skipped",
    Outcome.INCONCLUSIVE: "skipped",
    Outcome.INFRA: "error",
    Outcome.ERROR: "error",
}


def _case(suite: ET.Element, row: str, item: CheckResult) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"{row}.{item.tier}",
        name=f"{item.id} {item.title}",
        time=f"{item.seconds:.3f}",
    )
    if tag := _TAGS[item.outcome]:
        message = _xml(item.saw or item.reason)
        detail = ET.SubElement(case, tag, message=message, type=item.outcome.value)
        detail.text = _xml("\n".join(filter(None, (item.saw, item.reason, item.fix))))


def _xml(text: str) -> str:
    """Drop control characters, which XML 1.0 has no way to write."""
    return "".join(char for char in text if char in "\t\n" or ord(char) >= 32)


def write_reports(out: Path, rows: Sequence[Row]) -> None:
    """Write `out/summary.md` and `out/junit.xml`."""
    write_atomic(out / "summary.md", summary(rows))
    write_atomic(out / "junit.xml", junit(rows))
