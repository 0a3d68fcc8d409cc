"""torchvision: made for one torch, with wheels of its own per Python."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from builder.compat.facts import named, ordered, releases
from builder.compat.rule import fail, rule
from builder.compat.rules.torch import WHEELS, by_distance, near_releases
from builder.compat.values import CPU, Cuda, Python, cuda_tag
from builder.compat.verdict import Conflict


@rule("torchvision-pair", "torchvision is the one made for this torch")
def torchvision_pair(torch: Version, torchvision: Version) -> Iterator[Conflict]:
    """Judge torch x torchvision by what torchvision requires."""
    vision = named("index", Version(torchvision.public), "torchvision")
    public = Version(torch.public)
    fitting = visions_for(public)
    newest = ordered("index", "torchvision")[-1]
    if vision is None and (Version(torchvision.public) < newest or public >= Version("2.14")):
        return  # does not exist, or newer than the data: torchvision-release has said so
    if vision and vision["yanked"]:
        return
    if vision and SpecifierSet(vision["torch"]).contains(public, prereleases=True):
        return
    made_for = vision["torch"].replace("==", "") if vision else "a newer torch"
    near = [v for v in near_releases(torch) if torchvision in visions_for(v)]
    yield fail(
        f"torchvision {torchvision.public} is made for torch {made_for}, not {public}: it does not "
        "resolve, and forced it fails with `operator torchvision::nms does not exist`",
        "torch torchvision",
        fix=f"Use torchvision {fitting[-1]}." if fitting else "",
        source="package index, Requires-Dist of torchvision (measured)",
        instead={"torchvision": fitting[::-1], "torch": near[:4]},
    )


@lru_cache(maxsize=8192)
def visions_for(torch: Version) -> tuple[Version, ...]:
    """Return the releases of torchvision that are made for this torch, oldest first."""
    return tuple(
        version
        for version, (_, row) in releases("index", "torchvision").items()
        if not row["yanked"] and SpecifierSet(row["torch"]).contains(torch)
    )


@rule("torchvision-cuda", "torch and torchvision are builds with the same CUDA")
def torchvision_cuda(torchvision: Version, runtime: Cuda) -> Iterator[Conflict]:
    """`0.23.0+cu128` names its CUDA itself."""
    label = torchvision.local or ""
    expected = "cpu" if runtime == CPU else cuda_tag(runtime.name)
    if label[:3] in {"cpu", "cu1"} and runtime.minor is not None and label != expected:
        yield fail(
            f"torchvision {torchvision} is built for {label}, torch for {expected}",
            "torchvision runtime",
            fix=f"Use torchvision {torchvision.public}+{expected}.",
            instead={"torchvision": [torchvision.public]},
        )


@rule("torchvision-python", "torchvision has a wheel for this Python")
def torchvision_python(
    torchvision: Version, python: Python, machine: str | None = None
) -> Iterator[Conflict]:
    """Judge torchvision x CPython, with the exact releases that it refuses."""
    row = named("index", Version(torchvision.public), "torchvision")
    if row is None or machine in {"windows", "macos"}:
        return
    yield from _vision_wheel(
        f"torchvision {torchvision.public}", row, python, machine, "torchvision"
    )


@rule(
    "torchvision-for-ultralytics",
    "a torchvision for this torch and Python exists: ultralytics requires it",
    unless="torchvision",
)
def torchvision_for_ultralytics(
    torch: Version,
    python: Python,
    code: Version,  # noqa: ARG001  # that it is named is what counts
    machine: str | None = None,
) -> Iterator[Conflict]:
    """With ultralytics named, torchvision is part of the row even if it is not named."""
    if machine not in {"windows", "macos"}:
        yield from _no_vision(torch.public, python, machine)


@lru_cache(maxsize=8192)
def _no_vision(torch: str, python: Python, machine: str | None) -> tuple[Conflict, ...]:
    fitting = [
        row for v in visions_for(Version(torch)) if (row := named("index", v, "torchvision"))
    ]
    problems = [
        list(_vision_wheel(f"torchvision for torch {torch}", row, python, machine, "torch code"))
        for row in fitting
    ]
    return (problems[-1][0],) if problems and all(problems) else ()


def _vision_wheel(
    what: str, row: dict[str, Any], python: Python, machine: str | None, keys: str
) -> Iterator[Conflict]:
    here = "aarch64" if machine == "aarch64" else "x86_64"
    offered: list[str] = row[here]["python"]
    spec = SpecifierSet(row["requires_python"])
    fits = "py3" in offered or python.minor in offered
    new_enough = "py3" not in offered or python.version >= Version("3.10")
    if fits and new_enough and (not python.exact or spec.contains(python.version)):
        return
    listed = ", ".join(name for name in offered if name != "py3") or str(spec)
    yield fail(
        f"{what} has no wheel for Python {python.version} ({here}): there are {listed}",
        f"{keys} python machine" if here == "aarch64" else f"{keys} python",
        fix="Use another Python or torch.",
        source=WHEELS,
        instead={
            "python": ["3.12", "3.11", *by_distance([n for n in offered if n != "py3"], python)]
        },
    )
