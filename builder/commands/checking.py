"""`build.py check`: whether rows can work at all, before a byte is downloaded."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from builder.compat import check
from builder.compat.jsonl import run as judge_lines
from builder.compat.why import why
from builder.errors import Finding, Incompatible
from builder.folders import Folders
from builder.matrix import Matrix, load_matrix, select
from builder.spec import ImageSpec

__all__ = ["check_rows", "refuse_incompatible"]


def check_rows(arguments: argparse.Namespace, root: Path) -> int:
    """Judge rows, or combinations from stdin, by what is known about versions and GPUs."""
    if arguments.jsonl:
        return judge_lines(sys.stdin.buffer, sys.stdout)
    matrix = load_matrix(Folders(root).matrix)
    if arguments.why:
        for row in select(matrix.rows, arguments.why):
            print(why(row))
        return 0
    rows = select(matrix.rows, arguments.pattern)
    verdicts = [(row, *_judge(row, matrix)) for row in rows]
    if arguments.json:
        print(json.dumps([_document(*verdict) for verdict in verdicts], indent=2))
    warnings = dict.fromkeys(finding for _, _, warned in verdicts for finding in warned)
    for finding in warnings:
        print(f"warning: {finding}", file=sys.stderr)
    errors = dict.fromkeys(finding for _, failed, _ in verdicts for finding in failed)
    if errors:
        raise Incompatible(*errors)
    if not arguments.json:
        print(f"{len(rows)} rows can work; {len(warnings)} warnings")
    return 0


def refuse_incompatible(rows: Sequence[ImageSpec], matrix: Matrix) -> None:
    """Raise Incompatible with every failure of every row."""
    failures = [finding for row in rows for finding in _judge(row, matrix)[0]]
    if failures:
        raise Incompatible(*dict.fromkeys(failures))


def _judge(row: ImageSpec, matrix: Matrix) -> tuple[list[Finding], list[Finding]]:
    """Return (failures, warnings) of one row, at their places in the file."""
    failed: list[Finding] = []
    warned: list[Finding] = []
    for conflict in check(row).findings:
        key = next(iter(conflict.keys), "")
        finding = Finding(
            place=f"{matrix.place(row, key)}: {row.id}",
            what=conflict.message,
            why=f"[{conflict.rule}; {conflict.source}]",
            todo=conflict.fix,
        )
        (failed if conflict.severity == "fail" else warned).append(finding)
    return failed, warned


def _document(
    row: ImageSpec, failed: Sequence[Finding], warned: Sequence[Finding]
) -> dict[str, object]:
    return {
        "id": row.id,
        "verdict": "fail" if failed else "warn" if warned else "ok",
        "failures": [str(finding) for finding in failed],
        "warnings": [str(finding) for finding in warned],
    }
