"""`build.py why`: what changed since a row was built."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path

from builder.buildkey import differences
from builder.commands.building import compatible_rows, make_builder
from builder.engine.client import connect, inspect_image
from builder.errors import EngineUnavailable, InvalidInput
from builder.folders import Folders
from builder.plan import Plan
from builder.records import BuildRecord, read_record
from builder.talk import Talk

__all__ = ["reasons", "why"]


def why(arguments: argparse.Namespace, root: Path) -> int:
    """Say for each selected row whether `build` would build it, and because of which inputs."""
    # Nothing is built here, so a part that can't be reached is a fact and not an error.
    allowed = arguments.allow_missing or "auto"
    builder = make_builder(root, Talk(), allow_missing=allowed, base=arguments.base)
    plans = builder.plan(compatible_rows(root, arguments.row), complete=False)
    found = {
        plan.row.id: reasons(
            plan, read_record(Folders(root).row(plan.row.id) / "build.json", BuildRecord)
        )
        for plan in plans
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for row, lines in found.items():
        print(f"{row}: {'would be built' if lines else 'unchanged'}")
        for line in lines:
            print(f"    {line}")
    return 0


def reasons(plan: Plan, record: BuildRecord | None) -> list[str]:
    """Return why the row of `plan` is not unchanged; nothing when it is."""
    if record is None:
        return ["it was never built here"]
    if record.status == "failed":
        return [f"the last build failed: {record.error or 'see its log'}".splitlines()[0]]
    if record.reference != plan.record.reference:
        return [f"its tag: {record.reference} -> {plan.record.reference}", *_changed(plan, record)]
    if record.build_key != plan.record.build_key:
        return _changed(plan, record) or ["the record names no inputs: an older version wrote it"]
    return _engine_reason(record)


def _changed(plan: Plan, record: BuildRecord) -> list[str]:
    return list(differences(record.inputs, plan.inputs)) if record.inputs else []


def _engine_reason(record: BuildRecord) -> list[str]:
    try:
        with closing(connect()) as client:
            digest = inspect_image(client, record.reference).digest
    except EngineUnavailable:
        return ["no engine answers that could have the image"]
    except InvalidInput:
        return [f"the engine has no image {record.reference}"]
    if digest != record.digest:
        return [f"{record.reference} is another image now: {digest}"]
    return []
