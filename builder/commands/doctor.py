"""`build.py doctor`: can these rows be built here, and if not, why not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from builder.commands.building import compatible_rows, machine_sources
from builder.doctor import Report, RowReport, examine
from builder.errors import (
    BuildFailed,
    EngineUnavailable,
    Finding,
    SourceUnreachable,
    ToolkitError,
)
from builder.folders import Folders
from builder.lock import load_lock
from builder.preflight import DeadSource, dead_sources, parse_allowed
from builder.store import Store
from builder.talk import Talk, human_bytes

__all__ = ["doctor", "problems"]

_PLAIN_WIDTH = 150


def doctor(arguments: argparse.Namespace, root: Path) -> int:
    """Print what was found; raise what would stop a build of the selected rows."""
    folders = Folders(root)
    rows = compatible_rows(root, arguments.pattern)
    locks = {row.id: load_lock(folders.locks, row) for row in rows}
    store = Store(folders=folders, sources=machine_sources(root), talk=Talk())
    report = examine(rows, locks, store)
    if arguments.json:
        print(report.model_dump_json(indent=2))
    else:
        _print(report)
    if error := problems(report, parse_allowed(arguments.allow_missing)):
        raise error
    return 0


def problems(report: Report, allowed: Collection[str]) -> ToolkitError | None:
    """Return the error that a build of these rows would end in; None when nothing stops it."""
    if report.engine_problem is not None:
        return EngineUnavailable(
            Finding(
                place="",
                what=report.engine_problem,
                todo="Run: make engine, or set DOCKER_HOST to one that runs.",
            )
        )
    if missing := [*_dead_sources(report), *_lacking(report.rows, allowed)]:
        return SourceUnreachable(*missing)
    short = list(report.short_of_disk())
    if short:
        free = next(disk.free for disk in report.disks if disk.what == "engine")
        return BuildFailed(
            *(
                Finding(
                    place=row.id,
                    what=f"needs about {human_bytes(row.needs_bytes)} of disk,"
                    f" {human_bytes(free)} are free",
                    todo="Free some space where the engine keeps its data, or build stack by"
                    " stack: build.py sweep.",
                )
                for row in short
            )
        )
    return None


def _dead_sources(report: Report) -> Iterator[Finding]:
    """The package index and Debian's mirror have no substitute; a registry has bootstrapping."""
    for source in report.sources:
        if source.reason is not None and source.what != "base registry":
            yield Finding(
                place=source.what,
                what=f"{source.place}: {source.reason}",
                why="Every row needs it.",
                todo="Check network, proxies and CA bundle, or name a mirror under sources: in"
                " matrix.yaml.",
            )


def _lacking(rows: Collection[RowReport], allowed: Collection[str]) -> Iterator[Finding]:
    return dead_sources(
        DeadSource(row=row.id, part=lack.part, url=lack.source, reason=lack.reason)
        for row in rows
        for lack in row.lacks
        if not (lack.optional and lack.part in allowed)
    )


def _print(report: Report) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    tools = ", ".join(f"{name} {version}" for name, version in report.engine.items())
    console.print(f"engine   {tools or report.engine_problem}", markup=False)
    console.print(f"machine  {report.cores} cores, {human_bytes(report.memory_bytes)} of memory")
    for disk in report.disks:
        free = f"{human_bytes(disk.free)} free of {human_bytes(disk.total)}"
        console.print(f"disk     {disk.what}: {disk.place}: {free}", markup=False)
    for source in report.sources:
        said = "answers" if source.reason is None else source.reason
        console.print(f"source   {source.what}: {source.place}: {said}", markup=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("row", "image", "disk it takes", "lacks", "unresolved"):
        table.add_column(column)
    for row in report.rows:
        parts = dict.fromkeys(
            lack.part if lack.optional else f"{lack.part} (needed)" for lack in row.lacks
        )
        table.add_row(
            row.id,
            "built" if row.built else "-",
            "-" if row.built else human_bytes(row.needs_bytes),
            ", ".join(parts) or "nothing",
            ", ".join(row.unresolved) or "-",
        )
    console.print(table)
