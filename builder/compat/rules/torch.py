"""torch: which builds a release has, and what each needs and can run on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from packaging.version import Version

from builder.compat.facts import load, named, ordered, releases
from builder.compat.rule import fail, rule, warn
from builder.compat.values import CPU, Cuda, Python, compatible, cuda_tag, parse_cuda, sm_name
from builder.compat.verdict import Conflict

_BUILDS = "pytorch/test-infra release matrix (official); package index (measured)"
WHEELS = "package index, wheel tags (measured)"
_BLOG_2_15 = "pytorch PR 196249 removed cu126 from 2.15"


@lru_cache(maxsize=8192)
def entry_of(torch: Version) -> dict[str, Any] | None:
    """Return what is known of a torch release, whatever its local version."""
    return named("torch", Version(torch.public))


@lru_cache(maxsize=8192)
def default_cuda(torch: Version, machine: str | None) -> str | None:
    """Return the CUDA of the package index's wheel; None for a CPU wheel or an unknown release."""
    row = named("index", Version(torch.public), "torch")
    found = (row or {}).get("aarch64" if machine == "aarch64" else "x86_64") or {}
    cuda: str | None = found.get("cuda")
    return cuda


@lru_cache(maxsize=8192)
def near_releases(torch: Version) -> tuple[Version, ...]:
    """Return the other known releases, nearest first."""
    known = ordered("torch")
    place = sum(1 for version in known if version < Version(torch.public))
    return tuple(
        sorted(
            (v for v in known if v != Version(torch.public)),
            key=lambda v: abs(known.index(v) - place),
        )
    )


@lru_cache(maxsize=8192)
def builds_of(torch: Version) -> dict[str, dict[str, Any]]:
    """Return the CUDA builds of a release for x86_64, by CUDA version."""
    entry = entry_of(torch)
    return dict(entry["builds"]) if entry else {}


@lru_cache(maxsize=8192)
def _offering(torch: Version, cuda: Cuda) -> tuple[Version, ...]:
    return tuple(
        v for v in near_releases(torch) if any(cuda.covers(parse_cuda(c)) for c in builds_of(v))
    )


@rule("torch-local", "the CUDA in torch's local version is the named CUDA")
def torch_local(torch: Version, cuda: Cuda) -> Iterator[Conflict]:
    """`2.8.0+cu128` names its CUDA itself."""
    label = (torch.local or "").split(".")[0]
    if cuda.minor is None or not re.fullmatch(r"cpu|cu\d{3}", label):
        return
    expected = "cpu" if cuda == CPU else cuda_tag(cuda.name)
    if label != expected:
        yield fail(
            f"torch {torch} is built with {label}, the row says {expected}",
            "torch cuda",
            fix="Name one of the two.",
            instead={
                "torch": [torch.public],
                "cuda": [parse_cuda(label).name if label != "cpu" else "cpu"],
            },
        )


@rule("torch-build", "this torch has a build with this CUDA, on this index, for this platform")
def torch_build(
    torch: Version, runtime: Cuda, index: str | None = None, machine: str | None = None
) -> Iterator[Conflict]:
    """Judge torch x CUDA x index."""
    entry = entry_of(torch)
    if entry is None or machine in {"windows", "macos"}:
        return
    if machine == "aarch64":
        yield from _aarch64_build(torch, runtime, index)
        return
    if runtime == CPU:
        if index == "pypi" and default_cuda(torch, machine) is not None:
            yield warn(
                f"the package index's torch {torch.public} for x86_64 brings CUDA "
                f"{default_cuda(torch, machine)}: it runs on a CPU, at many times the size",
                "torch runtime index",
                fix="Take the +cpu build from PyTorch's own index.",
                source=_BUILDS,
            )
        return
    matching = [c for c in entry["builds"] if runtime.covers(parse_cuda(c))]
    if not matching:
        yield from _no_build(torch, runtime, entry)
        return
    default = default_cuda(torch, machine)
    if index == "pypi" and default is not None and default not in matching:
        yield fail(
            f"the package index has torch {torch.public} with CUDA {default} only; CUDA "
            f"{runtime.name} is on PyTorch's own index",
            "torch runtime index",
            fix=f"Use CUDA {default}, or PyTorch's index ({cuda_tag(matching[0])}).",
            source=_BUILDS,
            instead={
                "cuda": [default],
                "index": ["pytorch"],
                "torch": _offering(torch, runtime)[:6],
            },
        )


def _no_build(torch: Version, runtime: Cuda, entry: dict[str, Any]) -> Iterator[Conflict]:
    builds = list(entry["builds"])
    options = {
        "cuda": sorted(builds, key=lambda c: _far(parse_cuda(c), runtime)),
        "torch": _offering(torch, runtime)[:8],
    }
    seen = entry.get("unofficial", {})
    if runtime.name == "12.9" and (seen or Version("2.9") <= torch < Version("2.13.999")):
        what = "was published outside" if runtime.name in seen else "may exist outside"
        yield warn(
            f"torch {torch.public}+cu129 {what} the release matrix ({', '.join(builds)}): "
            "maintainers call it unsupported",
            "torch runtime",
            fix=f"Use CUDA {builds[-1]}.",
            source="pytorch issues 185269 and 187834",
            instead={"cuda": options["cuda"]},
        )
    elif entry.get("incomplete") and runtime.major >= 13:
        yield warn(
            f"of torch {torch.public} only the build with CUDA {', '.join(builds)} is known; "
            "whether "
            f"there is one with CUDA {runtime.name} is not",
            "torch runtime",
            fix=f"Use CUDA {builds[-1]}.",
            source="package index (measured); PyTorch's own index could not be read",
        )
    else:
        offered = _offering(torch, runtime)
        hint = f", or torch {offered[0]}" if offered else ""
        yield fail(
            f"torch {torch.public} has no build with CUDA {runtime.name}: there are "
            f"{', '.join(builds)}",
            "torch runtime",
            fix=f"Use CUDA {options['cuda'][0]}{hint}.",
            source=_BUILDS,
            instead=options,
        )


def _far(one: Cuda, other: Cuda) -> tuple[int, int]:
    return abs(one.major - other.major), abs((one.minor or 0) - (other.minor or 0))


def _aarch64_build(torch: Version, runtime: Cuda, index: str | None) -> Iterator[Conflict]:
    default = default_cuda(torch, "aarch64")
    if runtime == CPU or (default and runtime.covers(parse_cuda(default))):
        return
    with_cuda = [v for v in near_releases(torch) if default_cuda(v, "aarch64")]
    has = f"CUDA {default}" if default else "no CUDA at all"
    if index == "pypi" or torch < Version("2.5"):
        yield fail(
            f"torch {torch.public} for aarch64 has {has}, not CUDA {runtime.name}; the package "
            "index "
            "has CUDA wheels for aarch64 from 2.11.0 on",
            f"torch runtime machine{' index' if index else ''}",
            fix="Use torch 2.11.0 or newer with its own CUDA, or an NVIDIA build.",
            source=_BUILDS,
            instead={"torch": with_cuda[:4], "cuda": [default or "cpu"], "index": ["pytorch"]},
        )
    elif not any(runtime.covers(parse_cuda(c)) for c in builds_of(torch)):
        yield from _no_build(torch, runtime, entry_of(torch) or {})
    else:
        yield warn(
            f"torch {torch.public} for aarch64 has {has} on the package index; which CUDA builds "
            "PyTorch's own index has for aarch64 is not in the data",
            "torch runtime machine",
            source=_BUILDS,
        )


@rule("torch-cpu-wheel", "a torch that is to use a GPU is a CUDA build")
def torch_cpu_wheel(torch: Version, runtime: Cuda, arch: int) -> Iterator[Conflict]:
    """A CPU build sees no GPU."""
    if runtime == CPU:
        yield fail(
            f"torch {torch.public} here is a CPU build: it can't use {sm_name(arch)}",
            "torch runtime arch",
            fix="Take a CUDA build, or name no GPU.",
            source=_BUILDS,
            instead={
                "torch": [v for v in near_releases(torch) if default_cuda(v, "aarch64")][:3],
                "cuda": [*list(builds_of(torch))[::-1]],
                "index": ["pytorch"],
                "gpu": [None],
            },
        )


@rule("torch-python", "torch has a wheel for this Python")
def torch_python(torch: Version, python: Python, machine: str | None = None) -> Iterator[Conflict]:
    """Judge torch x CPython."""
    row = named("index", Version(torch.public), "torch")
    if row is None or machine in {"windows", "macos"}:
        return
    here = "aarch64" if machine == "aarch64" else "x86_64"
    offered: list[str] = row[here]["python"]
    if python.minor in offered:
        return
    keys = "torch python machine" if here == "aarch64" else "torch python"
    fitting = [
        v
        for v in near_releases(torch)
        if python.minor in releases("index", "torch")[v][1][here]["python"]
    ]
    hint = f", or torch {fitting[0]}" if fitting else ""
    yield fail(
        f"torch {torch.public} has no wheel for Python {python.minor} ({here}): there are "
        f"{', '.join(offered)}",
        keys,
        fix=f"Use Python {_closest(offered, python)}{hint}.",
        source=WHEELS,
        instead={"python": by_distance(offered, python), "torch": fitting[:8]},
    )


def by_distance(offered: list[str], python: Python) -> list[str]:
    """Return the ordinary (not free-threaded) interpreters, nearest first."""
    ordinary = [name for name in offered if not name.endswith("t")]
    minor = python.version.minor
    return sorted(ordinary, key=lambda name: abs(int(name.partition(".")[2]) - minor))


def _closest(offered: list[str], python: Python) -> str:
    return next(iter(by_distance(offered, python)), "another")


@rule("torch-gpu", "torch has kernels for this GPU")
def torch_gpu(
    torch: Version,
    arch: int,
    runtime: Cuda | None = None,
    machine: str | None = None,
) -> Iterator[Conflict]:
    """Judge torch's compiled architectures x compute capability."""
    entry = entry_of(torch)
    if entry is None or runtime == CPU or machine in {"windows", "macos"}:
        return
    verdicts = {
        cuda: runs_on(torch, cuda, arch, machine)
        for cuda in entry["builds"]
        if runtime is None or runtime.covers(parse_cuda(cuda))
    }
    if not verdicts or (True in verdicts.values() and runtime is not None):
        return
    default = default_cuda(torch, machine)
    if verdicts.get(default):
        return
    able = [cuda for cuda, fits in verdicts.items() if fits]
    unsure = [cuda for cuda, fits in verdicts.items() if fits is None]
    if able:
        yield warn(
            f"of torch {torch.public} only the build with CUDA {', '.join(able)} has kernels for "
            f"{sm_name(arch)}; the default one (CUDA {default}) has none",
            "torch arch",
            fix=f"Name CUDA {able[-1]}.",
            source=load("torch")["sources"]["sm"],
        )
    elif unsure:
        yield warn(
            f"which GPUs torch {torch.public} with CUDA {', '.join(unsure)} has kernels for is "
            "unknown",
            "torch arch runtime",
            source=load("torch")["sources"]["sm"],
        )
    else:
        yield _no_kernels(torch, arch, runtime, machine)


def _no_kernels(torch: Version, arch: int, runtime: Cuda | None, machine: str | None) -> Conflict:
    capable = [c for c in builds_of(torch) if runs_on(torch, c, arch, machine)]
    others = [
        v
        for v in near_releases(torch)
        if any(
            runs_on(v, c, arch, machine)
            for c in builds_of(v)
            if runtime is None or runtime.covers(parse_cuda(c))
        )
    ]
    wanted = sorted(capable, key=lambda c: _far(parse_cuda(c), runtime or CPU))
    hints = [f"CUDA {c}" for c in wanted[:1]] + [f"torch {v}" for v in others[:1]]
    if not hints:  # both have to change
        others = [
            v
            for v in near_releases(torch)
            if any(runs_on(v, c, arch, machine) for c in builds_of(v))
        ]
        both = [(v, c) for v in others[:1] for c in builds_of(v) if runs_on(v, c, arch, machine)]
        hints = [f"torch {v} with CUDA {c}" for v, c in both[:1]]
    build = f" with CUDA {runtime.name}" if runtime else ""
    keys = "torch arch"
    keys += " runtime" if runtime and (capable or not others) else ""
    keys += " machine" if machine == "aarch64" else ""
    return fail(
        f"torch {torch.public}{build} has no kernels for {sm_name(arch)}",
        keys,
        fix=f"Use {', or '.join(hints)}." if hints else "No known torch build has kernels for it.",
        source=load("torch")["sources"]["sm"],
        instead={"cuda": wanted, "torch": others[:8]},
    )


@lru_cache(maxsize=8192)
def runs_on(torch: Version, cuda: str, arch: int, machine: str | None) -> bool | None:
    """Whether a build runs on a GPU: by its native code, or by its PTX. None is unknown."""
    entry = entry_of(torch) or {}
    build = entry["builds"][cuda]
    codes = build["sm"]
    if machine == "aarch64":
        default = default_cuda(torch, "aarch64")
        codes = entry.get("aarch64_sm") if default == cuda else None
        if codes is None and arch < 80:
            return False  # CUDA wheels for aarch64 start at sm_80
    if codes is None:
        known = load("cuda")["architectures"].get(cuda, ())
        return None if any(compatible(arch, code) for code in known) else False
    if any(compatible(arch, code) for code in codes):
        return True
    return build.get("ptx") is not None and machine != "aarch64" and arch >= build["ptx"]
