"""Validates one image: runs the suite in a process of its own and writes the record."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from builder.engine.client import EngineTrouble, connect
from builder.engine.containers import remove_leftovers
from builder.errors import EngineUnavailable, Finding, InvalidInput
from builder.records import (
    BuildRecord,
    CheckResult,
    Host,
    Outcome,
    PlanRecord,
    ValidationRecord,
    read_record,
    write_record,
)
from validate.host import ROOT, describe_host, suite_hash
from validate.plugin import Collected
from validate.verdict import TIERS, Tier, apply_requirements, decide

__all__ = ["Tier", "reusable", "validate_image"]

# Longer than the sum of all probes' own limits: only a hanging engine gets there.
DEADLINE = 45 * 60
REUSE_FOR = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class _Task:
    plan: PlanRecord
    build: BuildRecord
    folder: Path
    tiers: tuple[Tier, ...]
    only: frozenset[str]
    host: Host
    talk: Callable[[str], None]


def validate_image(
    plan: PlanRecord,
    build: BuildRecord,
    out: Path,
    *,
    tiers: Sequence[Tier] = ("static", "cpu"),
    require: Collection[Tier] = (),
    fresh: bool = False,
    talk: Callable[[str], None] = lambda _line: None,
    only: Collection[str] = (),
) -> ValidationRecord:
    """Check the image of `build` and write `out/<id>/{facts,validation}.json`.

    A record of the same digest, suite, tiers and kind of host is reused for a week unless `fresh`.
    `only` selects check ids; such a record proves less, so it is written as validation-only.json
    and never reused.
    """
    if build.digest is None:
        raise InvalidInput(
            Finding(
                place=build.id,
                what="there is no image to validate",
                why=f"The build's status is {build.status}.",
                todo="Build the row first.",
            )
        )
    with closing(connect()) as client:
        host = describe_host(client)
    suite, folder = suite_hash(), out / plan.id
    path = folder / ("validation-only.json" if only else "validation.json")
    ordered = tuple(tier for tier in TIERS if tier in {*tiers, *require})
    if not fresh and not only:
        known = _known(path)
        if known and reusable(known, build, suite, ordered, host, require, _now()):
            talk(f"already validated on {known.started}: nothing has changed since")
            return known
    _refuse_evicted(build)
    path.unlink(missing_ok=True)
    started, begun = _now(), time.monotonic()
    task = _Task(
        plan=plan,
        build=build,
        folder=folder,
        tiers=ordered,
        only=frozenset(only),
        host=host,
        talk=talk,
    )
    collected = _run(task)
    record = ValidationRecord(
        id=plan.id,
        digest=build.digest,
        reference=build.reference,
        verdict=decide(collected.checks, ordered, require),
        suite=suite,
        tiers=ordered,
        host=host,
        missing=plan.missing,
        checks=apply_requirements(collected.checks, require),
        measurements=collected.measurements,
        seconds=round(time.monotonic() - begun, 2),
        started=started.isoformat(timespec="seconds"),
    )
    write_record(path, record)
    return record


def _refuse_evicted(build: BuildRecord) -> None:
    """An image that made room for others is no broken one: there is nothing to look at."""
    if build.evicted is not None:
        raise InvalidInput(
            Finding(
                place=build.id,
                what="there is no image to validate",
                why=f"It was built, and removed on {build.evicted} to make room for others.",
                todo=f"Run: python3 build.py sweep {build.id} (it builds the image again first).",
            )
        )


def reusable(
    known: ValidationRecord,
    build: BuildRecord,
    suite: str,
    tiers: Sequence[str],
    host: Host,
    require: Collection[str],
    now: datetime,
) -> bool:
    """Whether `known` answers the same question about the same image; only a pass is kept."""
    age = now - datetime.fromisoformat(known.started)
    return (
        known.digest == build.digest
        and known.reference == build.reference
        and known.suite == suite
        and known.tiers == tuple(tiers)
        and known.missing == build.missing
        and (known.host.gpu, known.host.driver) == (host.gpu, host.driver)
        and timedelta(0) <= age < REUSE_FOR
        and decide(known.checks, tiers, require) is Outcome.PASSED
    )


def _known(path: Path) -> ValidationRecord | None:
    with suppress(InvalidInput):
        return read_record(path, ValidationRecord)
    return None


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _run(task: _Task) -> Collected:
    """Run pytest on the suite; containers of a process that died are removed afterwards."""
    run = uuid.uuid4().hex[:12]
    with tempfile.TemporaryDirectory(prefix="validate-") as name:
        results = Path(name, "results.json")
        write_record(plan := Path(name, "plan.json"), task.plan)
        write_record(build := Path(name, "build.json"), task.build)
        argv = _argv(task, run=run, plan=plan, build=build, results=results)
        try:
            code = _call(argv, task)
        finally:
            with suppress(EngineTrouble, EngineUnavailable), closing(connect()) as client:
                remove_leftovers(client, run)
        collected = Collected.load(results) if results.exists() else Collected()
    if code not in {0, 1} or not collected.checks:
        collected.checks.append(_broken(task, code))
    return collected


def _argv(task: _Task, *, run: str, plan: Path, build: Path, results: Path) -> list[str]:
    options = {
        "plan": str(plan),
        "build": str(build),
        "out": str(task.folder.resolve()),
        "run": run,
        "results": str(results),
        "only": ",".join(sorted(task.only)),
        "host-gpu": task.host.gpu or "",
    }
    return [
        *(sys.executable, "-m", "pytest"),
        *("-p", "validate.plugin", "-p", "no:cacheprovider", "-p", "no:randomly"),
        # The project's own options are for its tests; warnings of libraries are no outcome.
        *("-o", "addopts=", "-o", "filterwarnings=default"),
        *("--import-mode=importlib", "--strict-markers", "--capture=no", "--color=no", "-vv"),
        f"--rootdir={ROOT}",
        *(f"--validate-{name}={value}" for name, value in options.items()),
        *(f"validate/{tier}" for tier in task.tiers),
    ]


def _call(argv: list[str], task: _Task) -> int:
    """Run pytest with its report in a log and its progress told line by line."""
    log = task.folder / "logs" / "pytest.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as report,
        subprocess.Popen(
            argv, cwd=ROOT, stdout=report, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as process,
    ):
        guard = threading.Timer(DEADLINE, process.kill)
        guard.start()
        try:
            for line in process.stderr or ():
                task.talk(line.rstrip())
            return process.wait()
        except BaseException:
            process.terminate()
            raise
        finally:
            guard.cancel()


def _broken(task: _Task, code: int) -> CheckResult:
    """Say that the suite itself ended early, so that what did not run is not taken for fine."""
    return CheckResult(
        id="suite",
        tier=task.tiers[0],
        title="The suite runs to its end.",
        outcome=Outcome.ERROR,
        seconds=0.0,
        fix=f"Read {task.folder / 'logs' / 'pytest.log'}.",
        reason=f"pytest ended with code {code}",
    )
