"""Plans whose flash-attn is compiled here -> plans whose flash-attn lies in the wheel store.

It takes hours, so it says before it starts what it will do and how long that may take. What it made
once is taken from the store, in another checkout of the same rows too if `.cache` comes along.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from builder.bakefile import Layout, compile_context, compile_definition
from builder.engine.bake import bake
from builder.engine.client import Machine, engine_machine
from builder.errors import BuildFailed, Finding
from builder.flash_build import (
    MEMORY_PER_COMPILER,
    Compilation,
    Parallelism,
    PlannedWheel,
    hours,
    parallelism,
    plan_compilation,
)
from builder.flash_source import hand_out_source
from builder.folders import Folders
from builder.lock import Lock
from builder.plan import Plan, with_wheel
from builder.prepare import prepared
from builder.records import write_atomic
from builder.requirements import step_of
from builder.session import Session
from builder.spec import ImageSpec
from builder.store import Store
from builder.talk import Talk, human_bytes
from builder.wheelstore import WheelStore

__all__ = ["announce", "compile_wheel", "explain", "local_machine", "planned_wheel", "wheel_store"]


def wheel_store(folders: Folders, talk: Talk) -> WheelStore:
    """Return the store of the checkout."""
    return WheelStore(
        folder=folders.cache / "wheels" / "flash-attn",
        talk=talk,
        now=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def planned_wheel(
    row: ImageSpec, lock: Lock, files: Mapping[str, str], wheels: WheelStore
) -> PlannedWheel | None:
    """Return the wheel that `row` gets from a compilation, with its hash where it is in the store.

    `files` maps paths below images/ to hashes of their content. None when the row compiles nothing;
    Incompatible when it has no GPU that flash-attn could be compiled for.
    """
    if lock.flash is None:
        return None
    compilation = plan_compilation(row, lock.flash, files)
    found = wheels.find(compilation)
    return PlannedWheel(
        compilation=compilation, lock=lock.flash, sha256=found.meta.sha256 if found else None
    )


def local_machine() -> Machine:
    """Return this machine, for an estimate where no engine is asked."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Machine(cores=os.cpu_count() or 1, memory=pages * page)


def announce(compilation: Compilation, machine: Machine, talk: Talk) -> Parallelism:
    """Say what is to be compiled, with how much of `machine`, and how long that may take.

    InvalidInput when MAX_JOBS or NVCC_THREADS of the environment is no number.
    """
    parallel = parallelism(
        compilation, cores=machine.cores, memory=machine.memory, environment=os.environ
    )
    codes = ", ".join(f"sm_{code}" for code in compilation.architectures)
    talk.line(
        f"flash-attn {compilation.version} for stack {compilation.stack}: to be compiled, because "
        f"matrix.yaml says source: build; for {codes}, torch {compilation.torch}, "
        f"CUDA {compilation.cuda}, Python {compilation.python}"
    )
    talk.line(
        f"  about {max(1, round(hours(compilation, parallel, machine.cores)))} h with "
        f"MAX_JOBS={parallel.jobs} NVCC_THREADS={parallel.threads} on {machine.cores} cores, "
        f"up to {human_bytes(parallel.memory)} of {human_bytes(machine.memory)} of memory"
    )
    return parallel


def compile_wheel(plan: Plan, store: Store, within: Session) -> tuple[Plan, Path | None]:
    """Return `plan` with the hash of its wheel, and the wheel, compiled unless it is in the store.

    A plan that compiles nothing comes back as it is. BuildFailed when the compilation fails,
    SourceUnreachable when its sources can't be had.
    """
    if plan.wheel is None:
        return plan, None
    job = _Job(plan=plan, wheel=plan.wheel, store=store, within=within)
    made = wheel_store(store.folders, store.talk).find_or_make(plan.wheel.compilation, job.run)
    return with_wheel(plan, made.meta.sha256), made.path


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One compilation on the engine."""

    plan: Plan
    wheel: PlannedWheel
    store: Store
    within: Session

    def run(self, folder: Path) -> None:
        """Leave the wheel and report.json in `folder`."""
        compilation, root = self.wheel.compilation, self.store.folders.root
        parallel = announce(compilation, engine_machine(self.within.client), self.store.talk)
        log = self.store.folders.row(self.plan.row.id) / "flash-attn.log"
        with prepared([_bare(self.plan)], self.store) as layout:
            self._write_context(layout.under(root))
            try:
                bake(
                    compile_definition(
                        self.plan,
                        layout,
                        compilation.arguments(parallel),
                        folder.relative_to(root),
                    ),
                    ["flash-attn"],
                    folder=root,
                    log=log,
                    talk=self.store.talk,
                    disk=self.within.room.disk,
                )
            except BuildFailed as error:
                raise explain(error, parallel, log) from error

    def _write_context(self, layout: Layout) -> None:
        lock, store = self.wheel.lock, self.store
        context = compile_context(layout, self.plan.row.stack.name)
        lists = {
            "cuda": self.plan.requirements["cuda"],
            "torch": self.plan.requirements["torch"],
            "compiler": lock.compiler,
        }
        for name, text in lists.items():
            write_atomic(context / "requirements" / f"{name}.txt", text)
        house = context / "wheelhouse"
        store.sources.collect_wheels("".join(lists.values()), house)
        for artifact in self.plan.artifacts:
            if step_of(artifact.name) in lists:
                store.hand_out(artifact, house)
        sources = context / "sources"
        shutil.rmtree(sources, ignore_errors=True)
        sources.mkdir(parents=True)
        for artifact in lock.record.artifacts:
            store.hand_out(artifact, sources)
        hand_out_source(lock.source, store, sources)


def _bare(plan: Plan) -> Plan:
    """The plan without what lies above the base: a compilation needs none of it laid out."""
    empty = dict.fromkeys(plan.requirements, "")
    return replace(plan, requirements=empty, artifacts=(), official_weights=(), wheel=None)


def explain(error: BuildFailed, parallel: Parallelism, log: Path) -> BuildFailed:
    """Say what a failed compilation was short of, where it says so itself."""
    text = str(error)
    if not _STARVED.search(text):
        return error
    return BuildFailed(
        Finding(
            place="flash-attn",
            what=f"the compiler ran out of memory with MAX_JOBS={parallel.jobs} "
            f"NVCC_THREADS={parallel.threads}",
            why=f"It may take {human_bytes(parallel.memory)}, "
            f"{human_bytes(MEMORY_PER_COMPILER)} for each compiler that runs at once.",
            todo=_less(parallel) + f" The whole output is in {log}.",
        ),
        *error.findings,
    )


_STARVED = re.compile(r"flash-attn: out of memory|exit code: 137|signal 9")
"""What compile.py says, and what BuildKit says when the kernel killed compile.py itself."""


def _less(parallel: Parallelism) -> str:
    if parallel.jobs > 1:
        return f"Set MAX_JOBS={max(1, parallel.jobs // 2)} in the environment and build again."
    if parallel.threads > 1:
        return "Set MAX_JOBS=1 NVCC_THREADS=1 in the environment and build again."
    return "Compile on a machine with more memory, and bring .cache/wheels along."
