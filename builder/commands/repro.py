"""`build.py verify-repro`: does the same plan give the same bytes?"""

from __future__ import annotations

import argparse
from pathlib import Path

from builder.commands.building import builder_of, compatible_rows
from builder.commands.size import engine_answers, one_row
from builder.errors import BuildFailed
from builder.folders import Folders
from builder.layers import printable
from builder.repro import ReproRecord, findings_of
from builder.talk import human_seconds
from builder.twice import build_twice

__all__ = ["verify_repro"]


def verify_repro(arguments: argparse.Namespace, root: Path) -> int:
    """Build a row twice without any cache; BuildFailed names every file in which they differ."""
    row = one_row(Folders(root), arguments.row)
    builder = builder_of(arguments, root)
    (plan,) = builder.plan(compatible_rows(root, row.id), complete=False)
    with engine_answers():
        record = build_twice(builder, plan)
    print(record.model_dump_json(indent=2) if arguments.json else "\n".join(_lines(record)))
    if not record.identical:
        raise BuildFailed(*findings_of(record))
    return 0


def _lines(record: ReproRecord) -> list[str]:
    """Say what came out; the findings on stderr say why."""
    took = " and ".join(human_seconds(seconds) for seconds in record.seconds)
    if record.identical:
        return [f"{record.id}: two builds without any cache ({took}), one digest: {record.first}"]
    lines = [
        f"{record.id}: two builds without any cache ({took}), two digests:",
        f"    {record.first}",
        f"    {record.second}",
    ]
    for layer in record.layers:
        lines.append(f"layer {layer.number}: {printable(layer.step)}: {layer.cause}")
        for file in layer.files:
            lines.append(f"    {printable(file.path)}: {', '.join(file.changes)}: {file.cause}")
            lines.append(f"        {printable(file.detail)}")
    lines += [
        f"configuration: {printable(each.key)}: {printable(each.first)} -> "
        f"{printable(each.second)}: {each.cause}"
        for each in record.config
    ]
    return lines
