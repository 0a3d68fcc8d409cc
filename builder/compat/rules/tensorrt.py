"""TensorRT: packages per CUDA major, bindings per Python, GPUs, and what ultralytics can export."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version

from builder.compat.facts import load, named, ordered
from builder.compat.rule import fail, rule, warn
from builder.compat.values import CPU, Cuda, Python
from builder.compat.verdict import Conflict

_PACKAGE = re.compile(r"tensorrt([-_]cu\d+)?([-_](libs|bindings))?")


class Wanted(NamedTuple):
    """What a requirement comes to: the package's CUDA flavour and the release pip would take."""

    flavour: str
    version: Version
    exact: bool

    @property
    def package(self) -> str:
        """The CUDA-specific package at this release."""
        return f"tensorrt-{self.flavour}=={self.version}"


@lru_cache(maxsize=4096)
def resolve(tensorrt: Requirement, python: str | None = None) -> Wanted | None:
    """Return what pip would install; None when the data don't tell."""
    flavour, fitting, exact = _fitting(tensorrt)
    usable = [
        v for v in fitting if python and python in _pythons(flavour or _plain(v), v, "x86_64")
    ]
    if not fitting:
        return None
    version = (usable or fitting)[-1]
    return Wanted(flavour or _plain(version), version, exact)


@lru_cache(maxsize=4096)
def _fitting(tensorrt: Requirement) -> tuple[str | None, list[Version], bool]:
    """Return the flavour that is named, the releases that are meant, and whether pip sees them."""
    name = tensorrt.name.lower().replace("_", "-").replace(".", "-")
    flavour = name.removeprefix("tensorrt").strip("-").split("-")[0] or None
    known = [v for v in ordered("tensorrt") if _is_offered(v, flavour)]
    fitting = [v for v in known if tensorrt.specifier.contains(v, prereleases=False)]
    if fitting:
        return flavour, fitting, True
    return flavour, [v for v in known if _starts(tensorrt, v)], False


@lru_cache(maxsize=4096)
def _is_offered(version: Version, flavour: str | None) -> bool:
    if flavour is None:
        return True
    if version < Version("10"):
        return False
    return f"{flavour} {version}" in load("index")["tensorrt_bindings"]


def _plain(version: Version) -> str:
    return str((named("tensorrt", version) or {})["plain"])


def _starts(tensorrt: Requirement, version: Version) -> bool:
    """Whether `==10.9` or `==10.9.0` means 10.9.0.34."""
    pins = [
        Version(s.version).release
        for s in tensorrt.specifier
        if s.operator == "==" and "*" not in s.version
    ]
    return any(version.release[: len(pin)] == pin and len(pin) >= 2 for pin in pins)


@lru_cache(maxsize=4096)
def bindings_of(flavour: str, version: Version) -> dict[str, Any]:
    """Return the bindings wheels of a release: machine -> pythons and glibc."""
    if version < Version("10"):
        return {"x86_64": {"python": load("tensorrt")["python_8_6"], "glibc": "2.17"}}
    found: dict[str, Any] = load("index")["tensorrt_bindings"].get(f"{flavour} {version}", {})
    return found


def _pythons(flavour: str, version: Version, machine: str) -> list[str]:
    return list(bindings_of(flavour, version).get(machine, {}).get("python", ()))


def packages_of(flavour: str, versions: Iterable[Version]) -> list[str]:
    """Return the requirements for those of `versions` that exist for a CUDA flavour."""
    return [text for v in versions if (text := _requirement(flavour, v))]


@lru_cache(maxsize=4096)
def _requirement(flavour: str, version: Version) -> str:
    """Return how pip is asked for a release, nothing when it has no such package."""
    if version < Version("10"):
        return f"tensorrt=={version}"
    return f"tensorrt-{flavour}=={version}" if _is_offered(version, flavour) else ""


@rule("tensorrt-release", "TensorRT is a release that the package index has", unless="tegra")
def tensorrt_release(tensorrt: Requirement) -> Iterator[Conflict]:
    """Judge the requirement itself."""
    wanted = resolve(tensorrt)
    if not _PACKAGE.fullmatch(tensorrt.name.lower()):
        yield warn(
            f"{tensorrt.name} is not one of TensorRT's packages that are known",
            "tensorrt",
            fix="Write tensorrt-cu12==VERSION.",
        )
    elif wanted is None:
        yield from _no_release(tensorrt)
    elif not wanted.exact:
        yield warn(
            f"{tensorrt} is not a whole version: pip's == finds nothing, {wanted.package} is meant",
            "tensorrt",
            fix=f"Write {wanted.package}.",
            source=load("tensorrt")["sources"]["packaging"],
            instead={"tensorrt": [wanted.package]},
        )


def _no_release(tensorrt: Requirement) -> Iterator[Conflict]:
    data = load("tensorrt")
    known = ordered("tensorrt")
    flavour = (
        tensorrt.name.lower().replace("_", "-").removeprefix("tensorrt").strip("-").split("-")[0]
    )
    offered = (
        packages_of(flavour, list(known[::-1]))
        if flavour
        else [f"tensorrt=={v}" for v in known[::-1]]
    )
    asked = max((Version(s.version.rstrip(".*")) for s in tensorrt.specifier), default=None)
    minor = f"{asked.major}.{asked.minor}" if asked else ""
    if minor in data["not_on_index"]:
        yield fail(
            f"TensorRT {asked} is {data['not_on_index'][minor]}",
            "tensorrt",
            fix=f"Use {known[-1]}.",
            source=data["sources"]["releases"],
            instead={"tensorrt": offered[:3]},
        )
    elif asked is not None and Version("11.5") < asked < Version("13"):
        yield warn(f"TensorRT {asked} is newer than the data, which end at {known[-1]}", "tensorrt")
    elif asked is not None and asked < known[0]:
        yield warn(
            f"TensorRT {asked} is older than the data, which start at {known[0]}", "tensorrt"
        )
    else:
        yield fail(
            f"the package index has no {tensorrt}",
            "tensorrt",
            fix=f"Use {offered[0]}." if offered else "",
            source=data["sources"]["releases"],
            instead={"tensorrt": _nearest(offered, asked)},
        )


def _nearest(offered: list[str], asked: Version | None) -> list[str]:
    if asked is None:
        return offered[:6]

    def far(requirement: str) -> tuple[int, int]:
        version = Version(requirement.partition("==")[2])
        return abs(version.major - asked.major), abs(version.minor - asked.minor)

    return sorted(offered, key=far)[:8]


@rule("tensorrt-index", "the package index at hand has TensorRT's libraries", unless="tegra")
def tensorrt_index(tensorrt: Requirement, index: str) -> Iterator[Conflict]:
    """The -libs package is a stub that downloads from NVIDIA's own index."""
    if index != "pypi" or tensorrt.name.endswith("bindings"):
        return
    yield fail(
        f"{tensorrt} installs its -libs part from NVIDIA's own index: the package index has a stub "
        "that downloads while it is installed",
        "tensorrt index",
        fix="Make NVIDIA's index or a mirror of it reachable, or take the library wheel by URL.",
        source=load("tensorrt")["sources"]["packaging"],
        instead={"tensorrt": [None], "index": [None]},
    )


@rule("tensorrt-cuda", "TensorRT is built for the CUDA major of the row", unless="tegra")
def tensorrt_cuda(
    tensorrt: Requirement, runtime: Cuda, python: Python | None = None
) -> Iterator[Conflict]:
    """Judge TensorRT x CUDA major; a plain `tensorrt` resolves to one of them."""
    if runtime == CPU:
        yield warn(
            f"{tensorrt} needs CUDA; this row has none",
            "tensorrt runtime",
            fix="Leave it out.",
            instead={"tensorrt": [None]},
        )
        return
    wanted = resolve(tensorrt, python.minor if python else None)
    flavour = (
        wanted.flavour if wanted else tensorrt.name.lower().removeprefix("tensorrt").strip("-_")
    )
    if not flavour.startswith("cu") or flavour == f"cu{runtime.major}":
        return
    if wanted and wanted.version < Version("10") and runtime.major == 11:
        yield warn(
            f"{tensorrt} on the package index is the CUDA 12 build (not read again); the row "
            "has CUDA "
            f"{runtime.name}",
            "tensorrt runtime",
            source=load("tensorrt")["sources"]["releases"],
        )
        return
    same = [wanted.version] if wanted else []
    known = [*same, *ordered("tensorrt")[::-1]]
    options = [p for p in packages_of(f"cu{runtime.major}", known) if "cu" in p]
    plain = tensorrt.name.lower() == "tensorrt"
    became = f" (it resolves to {wanted.package})" if plain and wanted else ""
    yield fail(
        f"{tensorrt}{became} brings CUDA {flavour[2:]} libraries, the row has CUDA {runtime.name}",
        "tensorrt runtime",
        fix=f"Use {options[0]}." if options else "Leave TensorRT out.",
        source=load("tensorrt")["sources"]["packaging"],
        instead={"tensorrt": [*options[:6], None]},
    )


@rule("tensorrt-python", "TensorRT has bindings for this Python and platform", unless="tegra")
def tensorrt_python(
    tensorrt: Requirement, python: Python | None = None, machine: str | None = None
) -> Iterator[Conflict]:
    """Judge the bindings' wheels."""
    wanted = resolve(tensorrt, python.minor if python else None)
    if wanted is None or machine in {"windows", "macos"}:
        return
    here = machine or "x86_64"
    bindings = bindings_of(wanted.flavour, wanted.version)
    if here in bindings and (python is None or python.minor in bindings[here]["python"]):
        return
    options = {"tensorrt": _bound(wanted, python.minor if python else "3.11", here)}
    source = "package index, wheel tags (measured)"
    if not bindings:
        yield fail(
            f"{wanted.package} has bindings for Windows only: it can't be resolved on Linux",
            "tensorrt",
            fix=f"Use {wanted.package}.post1.",
            source=source,
            instead=options,
        )
    elif here not in bindings:
        hint = (
            f"Use {options['tensorrt'][0]}." if options["tensorrt"] else "Use another CUDA major."
        )
        other = "cu13" if wanted.flavour == "cu12" else "cu12"
        options["tensorrt"] += packages_of(
            other, [v for v in ordered("tensorrt") if here in bindings_of(other, v)]
        )
        yield fail(
            f"{wanted.package} has no bindings for {here}",
            "tensorrt machine",
            fix=hint,
            source=source,
            instead=options,
        )
    elif python is not None:
        offered = bindings[here]["python"]
        yield fail(
            f"{wanted.package} has no bindings for Python {python.minor}: there are "
            f"{offered[0]} to {offered[-1]}",
            "tensorrt python",
            fix=f"Use {options['tensorrt'][0]}."
            if options["tensorrt"]
            else f"Use Python {offered[-1]}.",
            source=source,
            instead={**options, "python": offered[::-1]},
        )


def _bound(wanted: Wanted, python: str, machine: str) -> list[str]:
    """Return the packages that have bindings, nearest to `wanted` first."""
    near = sorted(
        (v for v in ordered("tensorrt") if python in _pythons(wanted.flavour, v, machine)),
        key=lambda v: (abs(v.major - wanted.version.major), abs(v.minor - wanted.version.minor)),
    )
    return packages_of(wanted.flavour, near)[:8]
