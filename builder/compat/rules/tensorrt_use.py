"""TensorRT in a row: the GPU, the system, the driver, and what ultralytics can export with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from builder.compat.facts import load, named, ordered
from builder.compat.rule import fail, rule, warn
from builder.compat.rules.gpu import older
from builder.compat.rules.tensorrt import bindings_of, packages_of, resolve
from builder.compat.values import Python, parse_cuda, sm_name
from builder.compat.verdict import Conflict

_FIRST_BLACKWELL = Version("10.8")
_BLACKWELL = (100, 120)


@rule("tensorrt-gpu", "TensorRT supports this GPU", unless="tegra")
def tensorrt_gpu(tensorrt: Requirement, arch: int) -> Iterator[Conflict]:
    """Judge TensorRT x compute capability, from below and from above."""
    wanted = resolve(tensorrt)
    if wanted is None:
        return
    chosen = _supports(wanted.version, wanted.flavour, arch)
    if chosen is None:
        yield warn(
            f"whether {wanted.package} supports {sm_name(arch)} is not in the data: it was built "
            f"with CUDA {(named('tensorrt', wanted.version) or {})['cuda']}",
            "tensorrt arch",
            source=load("tensorrt")["sources"]["sm"],
        )
    if chosen is not False:
        return
    able = [v for v in ordered("tensorrt") if _supports(v, wanted.flavour, arch)]
    newer = [v for v in able if v > wanted.version]
    near = newer or able[::-1]
    options = packages_of(wanted.flavour, near)
    if wanted.flavour == "cu11":
        options += packages_of("cu12", able)
    yield fail(
        f"{wanted.package} does not support {sm_name(arch)}",
        "tensorrt arch",
        fix=f"Use {options[0]}." if options else "No known TensorRT supports it.",
        source=load("tensorrt")["sources"]["sm"],
        instead={"tensorrt": [*options[:6], None]},
    )


@lru_cache(maxsize=8192)
def _supports(version: Version, flavour: str, arch: int) -> bool | None:
    """Whether a release supports a capability; None is unknown."""
    entry = named("tensorrt", version)
    if entry is None:
        return None
    if arch < entry["min_sm"]:
        return False
    if arch <= 90:
        return True
    if (
        flavour == "cu11"
        or version < _FIRST_BLACKWELL
        or (110 <= arch < 120 and version < Version("10.13.2"))
    ):
        return False
    if arch in _BLACKWELL:
        return True
    cuda = parse_cuda(entry["cuda"].split("U")[0]) if entry["cuda"][0].isdigit() else None
    codes = load("cuda")["architectures"].get(cuda.name, ()) if cuda else ()
    return True if arch in codes or version >= Version("10.16") else None


@rule("tensorrt-glibc", "the system's glibc is new enough for TensorRT's bindings", unless="tegra")
def tensorrt_glibc(
    tensorrt: Requirement, glibc: Version, machine: str | None = None
) -> Iterator[Conflict]:
    """Judge the bindings' manylinux tags."""
    wanted = resolve(tensorrt)
    if wanted is None:
        return
    here = machine or "x86_64"
    floor = bindings_of(wanted.flavour, wanted.version).get(here, {}).get("glibc")
    if floor and glibc < Version(floor):
        able = [v for v, least in _floors(wanted.flavour, here) if least <= glibc]
        options = packages_of(wanted.flavour, able[::-1])
        yield fail(
            f"{wanted.package} needs glibc {floor}; this system has {glibc}",
            "tensorrt glibc machine" if machine else "tensorrt glibc",
            fix=f"Use {options[0]}, or a newer system." if options else "Use a newer system.",
            source="package index, wheel tags (measured)",
            instead={"tensorrt": options[:4], "glibc": [floor]},
        )


@cache
def _floors(flavour: str, machine: str) -> list[tuple[Version, Version]]:
    """Return the releases with bindings for a machine, and the glibc that each needs."""
    wheels = ((v, bindings_of(flavour, v).get(machine, {})) for v in ordered("tensorrt"))
    return [(v, Version(wheel["glibc"])) for v, wheel in wheels if wheel.get("glibc")]


@rule("tensorrt-driver", "the driver is new enough for TensorRT's CUDA", unless="runtime tegra")
def tensorrt_driver(tensorrt: Requirement, driver: tuple[int, ...]) -> Iterator[Conflict]:
    """TensorRT has no floor of its own; the CUDA it was built with has."""
    wanted = resolve(tensorrt)
    if wanted is None:
        return
    floor = load("cuda")["majors"][wanted.flavour[2:]]
    if older(driver, floor):
        majors = [m for m in ("12", "11") if not older(driver, load("cuda")["majors"][m])]
        known = [wanted.version, *ordered("tensorrt")[::-1]]
        options = [package for m in majors for package in packages_of(f"cu{m}", known)]
        yield fail(
            f"{wanted.package} brings CUDA {wanted.flavour[2:]}, which needs driver {floor} or "
            "newer",
            "tensorrt driver",
            fix="Update the driver, or use a build for an older CUDA.",
            source=load("cuda")["sources"]["majors"],
            instead={"driver": [floor], "tensorrt": options[:6]},
        )


@rule("tensorrt-ultralytics", "this ultralytics can export with this TensorRT")
def tensorrt_ultralytics(
    tensorrt: Requirement, code: Version, export: str | None = None, python: Python | None = None
) -> Iterator[Conflict]:
    """Judge ultralytics x TensorRT, unless something else is exported."""
    wanted = resolve(tensorrt, python.minor if python else None)
    if export not in {None, "engine", "tensorrt", "trt"}:
        return
    asked = (
        wanted.version
        if wanted
        else max((Version(s.version.rstrip(".*")) for s in tensorrt.specifier), default=None)
    )
    if asked is None:
        return
    found = _export_problem(code, asked)
    if found is None:
        return
    speak, why, spec, source = found
    options = _exportable(wanted.flavour if wanted else "cu12", code, spec)
    yield speak(
        f"ultralytics {code} and TensorRT {asked}: {why}",
        "tensorrt code",
        fix=f"Use {options[0]}." if options else "",
        source=source,
        instead={"tensorrt": options[:8], "ultralytics": ["8.4.190"]},
    )


@lru_cache(maxsize=8192)
def _exportable(flavour: str, code: Version, spec: str) -> list[str]:
    """Return the packages that this ultralytics exports with, newest first."""
    fitting = SpecifierSet(spec + ",>=10").filter(ordered("tensorrt"))
    return packages_of(flavour, [v for v in fitting if _export_problem(code, v) is None][::-1])


class _Problem(NamedTuple):
    speak: Callable[..., Conflict]
    why: str
    prefer: str
    source: str


@lru_cache(maxsize=8192)
def _export_problem(code: Version, tensorrt: Version) -> _Problem | None:
    """Return why this ultralytics does not export with this TensorRT."""
    release = tensorrt.release[:3]
    if tensorrt >= Version("11") and code < Version("8.4.63"):
        why = "it sets BuilderFlag.FP16 and INT8, which TensorRT 11 removed (allowed from 8.4.63)"
        return _Problem(
            fail, why, "<11", "ultralytics 8.4.63 (measured), TensorRT 11 release notes"
        )
    if release == (10, 1, 0) and code >= Version("8.3.19"):
        why = "the exporter excludes 10.1.0, whose exports are wrong"
        return _Problem(fail, why, "<11", "ultralytics PR 14239")
    if release == (10, 2, 0) and code >= Version("8.4.44"):
        why = "the exporter excludes 10.2.0, whose exports are wrong"
        return _Problem(fail, why, "<11", "ultralytics PR 24367")
    if tensorrt > Version("10.1.0") and Version("8.2.51") <= code < Version("8.3.19"):
        why = "the exporter asks for tensorrt<=10.1.0 and warns about newer ones"
        return _Problem(warn, why, "<=10.1.0", "ultralytics PR 14239")
    return None
