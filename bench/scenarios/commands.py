"""How long the command line takes when there is nothing to build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing

from bench.figures import Figure
from bench.process import Finished
from bench.project import Project
from bench.scenario import NotMeasured, Scenario
from bench.workbench import Workbench
from builder.engine.client import connect, inspect_image
from builder.errors import BuildFailed, Finding, InvalidInput

__all__ = ["NOOP", "START"]

_SHOWN = 4


def _built_rows(bench: Workbench) -> Project:
    """A copy of the project that has only the rows whose images are built and up to date."""
    project = bench.checkout.copy(bench.scratch / "noop")
    rows = project.row_ids()
    there = [row for row in rows if _is_built(bench, row)]
    if not there:
        raise NotMeasured("no row is built and up to date here; run: make quickstart")
    for row in there:
        target = project.root / "out" / row / "build.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        source = bench.root / "out" / row / "build.json"
        target.write_bytes(source.read_bytes())
    project.keep_only(there)
    left = [row for row in rows if row not in there]
    text = f"over {len(there)} of {len(rows)} rows: {', '.join(there)}"
    if left:
        shown = ", ".join(left[:_SHOWN]) + (" and others" if len(left) > _SHOWN else "")
        text += f"; not built or not up to date here: {shown}"
    bench.note("noop", text)
    # The first start reads everything from the disk; it also has to find nothing to do.
    _nothing_to_do(project)
    return project


def _is_built(bench: Workbench, row: str) -> bool:
    """Whether a build of `row` would find nothing to do; its plan says so without building."""
    try:
        image = bench.checkout.built(row)
        (plan,) = bench.checkout.plans(row)
        with closing(connect()) as client:
            there = inspect_image(client, image.reference).digest == image.digest
    except (NotMeasured, BuildFailed, InvalidInput):
        return False
    record = json.loads((bench.root / "out" / row / "build.json").read_text())
    same: bool = record["build_key"] == plan["build_key"]
    return there and same


def _noop(bench: Workbench, run: int) -> Mapping[str, float]:
    del run
    finished = _nothing_to_do(bench.once_per_run("noop", 0, lambda: _built_rows(bench)))
    return {"seconds": finished.seconds, "rows": len(json.loads(finished.stdout))}


def _nothing_to_do(project: Project) -> Finished:
    """Build all rows of `project`; BuildFailed when something was really built."""
    finished = project.build()
    records = json.loads(finished.stdout)
    changed = [record["id"] for record in records if record["status"] != "unchanged"]
    if changed:
        raise BuildFailed(
            Finding(
                place="noop",
                what=f"something was built: {', '.join(changed)}",
                why="Their plans said that they are up to date.",
                todo="Don't change the project while it is measured.",
            )
        )
    return finished


NOOP = Scenario(
    name="noop",
    title="`build.py build` with nothing changed",
    figures=(
        Figure(name="seconds", title="all rows that are built here", unit="s", at_most=1.5),
        Figure(name="rows", title="rows", unit="rows"),
    ),
    measure=_noop,
    disk=0,
)


def _start(bench: Workbench, run: int) -> Mapping[str, float]:
    del run
    row = bench.rows[0]
    commands = {
        "list": ("list",),
        "check": ("check",),
        "plan": ("plan", row, "--allow-missing", "auto"),
    }
    # The first start of a command compiles what it imports, and reads it from the disk.
    bench.once_per_run(
        "warm", 0, lambda: [bench.checkout.command(*words) for words in commands.values()]
    )
    return {name: bench.checkout.command(*words).seconds for name, words in commands.items()}


START = Scenario(
    name="start",
    title="Commands that build nothing",
    figures=(
        Figure(name="list", title="`build.py list`", unit="s"),
        Figure(name="check", title="`build.py check`, all rows", unit="s"),
        Figure(name="plan", title="`build.py plan` of one row", unit="s"),
    ),
    measure=_start,
    disk=0,
)
