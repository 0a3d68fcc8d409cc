"""`build.py check`: whether rows can work at all, before a byte is downloaded."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from builder.compat.check import Config, judged, minimum_driver, nearest_to
from builder.compat.online import Addresses, Remote, answers, remotes_of
from builder.compat.package_index import configured_index
from builder.compat.verdict import Conflict, Verdict
from builder.compat.why import in_words, why
from builder.errors import Finding, Incompatible
from builder.folders import Folders
from builder.httpclient import open_client
from builder.lock import LockRecord
from builder.matrix import Matrix, load_matrix, select
from builder.records import read_record
from builder.sources import load_sources
from builder.spec import ImageSpec

__all__ = ["check_rows", "refuse_incompatible"]

_TIMEOUT = 5.0  # seconds; a host that takes longer to say what it has is as good as unreachable


@dataclass(frozen=True)
class _Judged:
    """A row, what was found, each with the values that it is about, and where that is written."""

    row: ImageSpec
    found: Sequence[tuple[Conflict, Config]]
    matrix: Matrix

    @property
    def verdict(self) -> str:
        return Verdict.of(tuple(conflict for conflict, _ in self.found)).verdict

    @cached_property
    def nearest(self) -> Config | None:
        return nearest_to(self.row) if self.verdict == "fail" else None

    def place(self, conflict: Conflict, about: Config) -> str:
        key = next(iter(conflict.keys), "")
        return self.matrix.place(self.row, key, str(about.get("weights" if _file(key) else key)))

    def findings(self, severity: str) -> list[Finding]:
        """Return the findings of a severity in the toolkit's words."""
        found = [_finding(self, c, about) for c, about in self.found if c.severity == severity]
        failing = [c for c, _ in self.found if c.severity == "fail" == severity]
        if any(conflict.rule != "online" for conflict in failing):
            works = in_words(self.nearest)
            found.append(Finding(place=self.row.id, what=f"nearest that works: {works}"))
        return found

    def document(self) -> dict[str, object]:
        """Return the row's part of the JSON document."""
        return {
            "id": self.row.id,
            "verdict": self.verdict,
            "minimum_driver": _least_driver(self.row),
            "findings": [{**c.as_json(), "place": self.place(c, a)} for c, a in self.found],
            "nearest": self.nearest,
        }


def check_rows(arguments: argparse.Namespace, root: Path) -> int:
    """Judge rows by what is known about versions and GPUs; with --online, also ask the hosts."""
    folders = Folders(root)
    matrix = load_matrix(folders.matrix)
    if arguments.why:
        for row in select(matrix.rows, arguments.why):
            print(why(row))
        return 0
    rows = select(matrix.rows, arguments.pattern)
    remote = _ask_hosts(rows, folders, matrix) if arguments.online else {}
    verdicts = [_Judged(row, [*judged(row), *remote.get(row.id, ())], matrix) for row in rows]
    if arguments.json:
        print(json.dumps([verdict.document() for verdict in verdicts], indent=2))
    warnings = dict.fromkeys(each for verdict in verdicts for each in verdict.findings("warn"))
    for finding in warnings:
        print(f"warning: {finding}", file=sys.stderr)
    errors = dict.fromkeys(each for verdict in verdicts for each in verdict.findings("fail"))
    if errors:
        raise Incompatible(*errors)
    if not arguments.json:
        print(f"{len(rows)} rows can work; {len(warnings)} warnings")
    return 0


def refuse_incompatible(rows: Sequence[ImageSpec], matrix: Matrix) -> None:
    """Raise Incompatible with every failure of every row."""
    verdicts = [_Judged(row, judged(row), matrix) for row in rows]
    failures = [finding for verdict in verdicts for finding in verdict.findings("fail")]
    if failures:
        raise Incompatible(*dict.fromkeys(failures))


def _finding(verdict: _Judged, conflict: Conflict, about: Config) -> Finding:
    """Say which values clash, why, by which rule, and who says so."""
    values = ", ".join(f"{key} {_short(about[key])}" for key in conflict.keys if key in about)
    source = f"; source: {conflict.source}" if conflict.source else ""
    return Finding(
        place=f"{verdict.place(conflict, about)}: {verdict.row.id}",
        what=conflict.message,
        why=f"About {values or ', '.join(conflict.keys)} [{conflict.rule}{source}].",
        todo=conflict.fix,
    )


def _file(key: str) -> bool:
    """Whether a key is about a checkpoint's file."""
    return key in {"weights", "sha256", "asset_tag", "weights_lineage"}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:12]}..."


def _least_driver(row: ImageSpec) -> str | None:
    try:
        return minimum_driver(row.stack.cuda, row.stack.gpus)
    except ValueError:  # a GPU that nobody knows; that is a finding of its own
        return None


def _ask_hosts(
    rows: Iterable[ImageSpec], folders: Folders, matrix: Matrix
) -> Mapping[str, list[tuple[Conflict, Config]]]:
    """Ask for everything that the rows need from elsewhere, each thing once."""
    sources = load_sources(os.environ, matrix.sources)
    addresses = Addresses(index=(sources.default_index or configured_index()).rstrip("/"))
    wanted = {row.id: remotes_of(row, addresses, _base(row, folders)) for row in rows}
    whole = list(dict.fromkeys(remote for remotes in wanted.values() for remote in remotes))
    said = answers(whole, open_client(sources, _TIMEOUT))
    return {
        row_id: [(said[remote], _about(remote)) for remote in remotes if remote in said]
        for row_id, remotes in wanted.items()
    }


def _about(remote: Remote) -> Config:
    return {remote.key: remote.what}


def _base(row: ImageSpec, folders: Folders) -> str:
    """Return the row's base image: by digest where a lock names one."""
    name = f"docker.io/library/debian:{row.stack.suite}-slim"
    lock = read_record(folders.locks / f"{row.id}.json", LockRecord)
    return name if lock is None else f"{name}@{lock.base.digest}"
