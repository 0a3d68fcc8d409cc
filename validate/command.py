"""`build.py validate`, `report` and `quickstart`: the commands that end in a verdict."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from builder.commands.building import compatible_rows, make_builder
from builder.commands.machine import start_engine
from builder.errors import Finding, InvalidInput, ValidationFailed
from builder.folders import Folders
from builder.matrix import load_matrix, select
from builder.records import BuildRecord, Outcome, PlanRecord, ValidationRecord, read_record
from builder.talk import Talk, human_seconds
from validate.reference import reference_folder, validate_reference
from validate.report.render import load_rows, table, write_reports
from validate.run import Tier, validate_image
from validate.verdict import TIERS

__all__ = ["conclude", "parse_tiers", "quickstart", "report", "validate"]

QUICKSTART_ROWS = ("yolov8-cu128", "yolov12-cu128")
_PLAIN_WIDTH = 170


def validate(arguments: argparse.Namespace, root: Path) -> int:
    """Validate built rows, or any image by reference; ValidationFailed unless all passed."""
    tiers, require = parse_tiers(arguments.tier), parse_tiers(arguments.require)
    only = [word.strip() for word in (arguments.only or "").split(",") if word.strip()]
    talk, folders = Talk(), Folders(root)
    if arguments.image:
        if arguments.pattern:
            raise InvalidInput(
                Finding(place="--image", what="an image and a PATTERN exclude each other")
            )
        record = validate_reference(
            arguments.image, folders.out, tiers=tiers, require=require, talk=talk.line, only=only
        )
        return conclude([record], None, reference_folder(folders.out, record.digest))
    records = []
    for plan, build in _built(folders, arguments.pattern):
        talk.line(f"{plan.id}: validating {build.reference}")
        record = validate_image(
            plan,
            build,
            folders.out,
            tiers=tiers,
            require=require,
            fresh=arguments.fresh,
            talk=talk.line,
            only=only,
        )
        talk.line(f"{plan.id}: {record.verdict.value} in {human_seconds(record.seconds)}")
        records.append(record)
    return conclude(records, [record.id for record in records], folders.out)


def report(arguments: argparse.Namespace, root: Path) -> int:
    """Write the reports again from the records, and print the table."""
    folders = Folders(root)
    ids = None
    if arguments.pattern:
        ids = [row.id for row in select(load_matrix(folders.matrix).rows, arguments.pattern)]
    _show(folders.out, ids)
    return 0


def quickstart(arguments: argparse.Namespace, root: Path) -> int:
    """Engine, both families on torch 2.8.0 + CUDA 12.8, validation, table."""
    talk, folders = Talk(), Folders(root)
    start_engine(root, talk)
    builder = make_builder(root, talk, allow_missing="auto")
    rows = [row for name in QUICKSTART_ROWS for row in compatible_rows(root, name)]
    plans = builder.plan(rows)
    builds = builder.build(plans)
    records = []
    for plan, build in zip(plans, builds, strict=True):
        talk.line(f"{plan.row.id}: validating")
        records.append(
            validate_image(
                plan.record, build, folders.out, tiers=TIERS, fresh=arguments.fresh, talk=talk.line
            )
        )
    return conclude(records, [record.id for record in records], folders.out)


def parse_tiers(text: str | None) -> tuple[Tier, ...]:
    """Parse `static,cpu`; the order of the result is that in which tiers run."""
    words = {word.strip() for word in (text or "").split(",") if word.strip()}
    unknown = sorted(words - set(TIERS))
    if unknown:
        raise InvalidInput(
            Finding(
                place="--tier",
                what=f"unknown tier {unknown[0]!r}",
                todo=f"Tiers: {', '.join(TIERS)}",
            )
        )
    return tuple(tier for tier in TIERS if tier in words)


def _built(folders: Folders, pattern: str | None) -> list[tuple[PlanRecord, BuildRecord]]:
    """Return the records of the selected rows; without a pattern, of those that were built."""
    found, absent = [], []
    for row in select(load_matrix(folders.matrix).rows, pattern):
        plan = read_record(folders.row(row.id) / "plan.json", PlanRecord)
        build = read_record(folders.row(row.id) / "build.json", BuildRecord)
        # A plan that was never carried out says nothing about the image of an earlier one.
        if plan and build and build.digest and plan.build_key == build.build_key:
            found.append((plan, build))
        elif pattern is not None:
            absent.append(row.id)
    if absent or not found:
        raise InvalidInput(
            Finding(
                place="",
                what=f"not built: {', '.join(absent) or 'no row at all'}",
                todo="Run: python3 build.py build PATTERN [--allow-missing auto]",
            )
        )
    return found


def conclude(records: Sequence[ValidationRecord], ids: Sequence[str] | None, out: Path) -> int:
    """Write the reports and print the table; ValidationFailed unless every record passed."""
    _show(out, ids)
    bad = [record for record in records if record.verdict is not Outcome.PASSED]
    if bad:
        raise ValidationFailed(*(_describe(record, out) for record in bad))
    return 0


def _describe(record: ValidationRecord, out: Path) -> Finding:
    failures = [
        f"{check.id} {check.outcome.value}: {check.saw or check.reason}"
        for check in record.checks
        if check.outcome not in {Outcome.PASSED, Outcome.NOT_MEASURED}
    ]
    return Finding(
        place=record.id,
        what=f"{record.verdict.value}: {record.reference}",
        why="\n    ".join(failures),
        todo=f"The whole record is in {out / record.id / 'validation.json'}.",
    )


def _show(out: Path, ids: Sequence[str] | None) -> None:
    rows = load_rows(out, ids)
    write_reports(out, rows)
    wide = sys.stdout.isatty() and shutil.get_terminal_size().columns >= _PLAIN_WIDTH
    Console(width=None if wide else _PLAIN_WIDTH).print(table(rows))
    print(f"summary: {out / 'summary.md'}  junit: {out / 'junit.xml'}")
