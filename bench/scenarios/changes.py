"""One thing changed: how long until it is built again, and what a registry has to be sent."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping

from packaging.version import InvalidVersion, Version

from bench.figures import Figure
from bench.project import Project
from bench.scenario import NotMeasured, Scenario
from bench.workbench import Workbench

__all__ = ["BASE", "BUMP", "RUNTIME", "older_versions"]

_GB = 1_000_000_000
_MB = 1_000_000
_DISK = 30 * _GB
"""Free disk: a row and its build cache take 21 GB (measured 2026-11-25), the registry 4 GB."""

_DISK_NEW_BASE = 47 * _GB
"""On a new base all files of the row are unpacked once more, for builder and image: 16 GB."""


def older_versions(printed: str, current: str) -> Iterator[str]:
    """Yield the released versions below `current`, newest first, of `pip index versions`."""
    line = next(
        (line for line in printed.splitlines() if line.startswith("Available versions:")), ""
    )
    found = []
    for word in line.partition(":")[2].replace(",", " ").split():
        try:
            found.append(Version(word))
        except InvalidVersion:
            continue
    yield from (
        str(version)
        for version in sorted(found, reverse=True)
        if version < Version(current) and not version.is_prerelease
    )


def _another_version(bench: Workbench, run: int) -> str:
    """A version that no run before has built: a build that finds its layers made is no bump."""
    spec = bench.specs[0]
    name = spec.distribution
    done = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", name],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [*older_versions(done.stdout, spec.ultralytics)]
    if len(found) <= run:
        raise NotMeasured(f"the package index offers no other version of {name} than the matrix")
    return found[run]


def _bump(bench: Workbench, run: int) -> Mapping[str, float]:
    spec = bench.specs[0]
    version = _another_version(bench, run)
    bench.note(
        "bump", f"from {spec.distribution} {spec.ultralytics}, to {version} in run {run + 1}"
    )

    def make(project: Project) -> None:
        project.change_version(spec.distribution, version)
        # Not timed: a lock is resolved once, by whoever makes the change.
        project.command("lock", spec.id)

    change = bench.change(spec.id, run, make)
    return {"seconds": change.seconds, "pushed": change.pushed.total}


BUMP = Scenario(
    name="bump",
    title="Another version of ultralytics in the matrix",
    figures=(
        Figure(name="seconds", title="rebuild", unit="s", at_most=8.0),
        Figure(name="pushed", title="pushed", unit="B", at_most=5 * _MB),
    ),
    measure=_bump,
    disk=_DISK,
)


def _runtime(bench: Workbench, run: int) -> Mapping[str, float]:
    change = bench.change(
        bench.rows[0], run, lambda project: project.change_runtime(uuid.uuid4().hex)
    )
    return {"seconds": change.seconds, "pushed": change.pushed.total}


RUNTIME = Scenario(
    name="runtime",
    title="A line changed in the code that goes into every image",
    figures=(
        Figure(name="seconds", title="rebuild", unit="s", at_most=5.0),
        Figure(name="pushed", title="pushed", unit="B", at_most=1 * _MB),
    ),
    measure=_runtime,
    disk=_DISK,
)


def _base(bench: Workbench, run: int) -> Mapping[str, float]:
    if not any((bench.changing(run).root / ".cache" / "rootfs").glob("*/rootfs.tar")):
        raise NotMeasured("the base comes from a registry by digest: only Debian can change it")
    change = bench.change(bench.rows[0], run, lambda project: project.change_base(uuid.uuid4().hex))
    return {
        "seconds": change.seconds,
        "base": change.pushed.base,
        "papers": change.pushed.papers,
        "layers": change.pushed.layers,
    }


BASE = Scenario(
    name="new-base",
    title="A file changed in the base: all steps run again, all layers but the base's stay",
    figures=(
        Figure(name="seconds", title="rebuild", unit="s"),
        Figure(name="base", title="pushed: the base's layer", unit="B"),
        Figure(name="papers", title="pushed: manifest and configuration", unit="B"),
        Figure(name="layers", title="pushed: other layers", unit="B", at_most=0),
    ),
    measure=_base,
    disk=_DISK_NEW_BASE,
)
