"""Base images: does the tag exist, and does what is in it get in the way?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.version import Version

from builder.compat.facts import load, named
from builder.compat.rule import fail, rule, warn
from builder.compat.rules.gpu import major_floor, older, toolkit_floor
from builder.compat.rules.releases import judge_cuda
from builder.compat.rules.torch import default_cuda, entry_of
from builder.compat.values import CPU, Base, Cuda, parse_cuda
from builder.compat.verdict import Conflict

_CUDNN = "pytorch issues 188892 and 187824 (reproduced with apt libcudnn9-cuda-12 9.23)"
_LACKING = "9.20.0.48"


@rule("base-cuda", "the base image's CUDA was released")
def base_cuda(base: Base) -> Iterator[Conflict]:
    """Judge the CUDA version in a tag of nvidia/cuda."""
    if base.cuda is not None:
        for conflict in judge_cuda(base.cuda, "base"):
            yield conflict._replace(instead=_other_tags(base, conflict))
    elif base.name.endswith("nvidia/cuda"):
        yield fail(
            f"nvidia/cuda has no tag {base.tag or 'latest'}: every tag names a CUDA version",
            "base",
            fix="Use a whole tag such as nvidia/cuda:12.8.1-base-ubuntu22.04, with its digest.",
            instead={"base": ["nvidia/cuda:12.8.1-base-ubuntu22.04", "debian:bookworm-slim"]},
        )


def _other_tags(base: Base, conflict: Conflict) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    """Return the same tag with the CUDA versions that the finding proposes."""
    numbers = re.match(r"[\d.]+", base.tag)
    versions = [value for _, values in conflict.instead for value in values if value]
    known = load("cuda")["toolkits"]
    whole = [
        max(name for name in known if name.startswith(f"{v}."))
        for v in versions
        if f"{v}.0" in known
    ]
    rest = base.tag[numbers.end() :] if numbers else ""
    tags = tuple(f"{base.name}:{version}{rest}" for version in whole)
    return (("base", tags),)


@rule("base-system", "the base image's system is one that this CUDA supports")
def base_system(base: Base) -> Iterator[Conflict]:
    """CUDA 13 left Ubuntu 20.04."""
    if (
        base.cuda is not None
        and base.cuda.major >= 13
        and base.os in {"ubuntu20.04", "ubuntu18.04"}
    ):
        yield fail(
            f"there is no CUDA {base.cuda.name} image for {base.os}: CUDA 13 no longer supports it",
            "base",
            fix="Use ubuntu22.04 or ubuntu24.04.",
            source="CUDA 13.0 release notes (single)",
            instead={"base": [f"{base.name}:{base.tag.replace(base.os, 'ubuntu22.04')}"]},
        )


@rule("base-cudnn", "the base image brings no second cuDNN")
def base_cudnn(base: Base, torch: Version, runtime: Cuda | None = None) -> Iterator[Conflict]:
    """torch from a wheel has its own cuDNN; the loader can mix it with the system's."""
    if not base.cudnn or entry_of(torch) is None or runtime == CPU:
        return
    row = named("index", Version(torch.public), "torch") or {}
    default = default_cuda(torch, None)
    is_default = runtime is None or (default and runtime.covers(parse_cuda(default)))
    crashes = is_default and row.get("x86_64", {}).get("cudnn") == _LACKING
    plain = f"{base.name}:{re.sub(r'-cudnn[89]?', '', base.tag)}"
    yield (fail if crashes else warn)(
        f"{base.name}:{base.tag} has a system cuDNN beside the one of torch {torch.public}; the "
        "loader can " + (f"mix them, and does with cuDNN {_LACKING}" if crashes else "mix them"),
        "base torch",
        fix=f"Use {plain}.",
        source=_CUDNN,
        instead={"base": [plain]},
    )


@rule("base-glibc", "torch's wheels run on the base image's system")
def base_glibc(base: Base, torch: Version) -> Iterator[Conflict]:
    """Judge torch x the glibc of the base image."""
    entry = entry_of(torch)
    if entry is None:
        return
    if base.os == "alpine":
        why = "has musl, torch has wheels for glibc only"
    elif base.glibc is not None and Version(base.glibc) < Version(entry["glibc"]):
        why = f"has glibc {base.glibc}, torch {torch.public} needs {entry['glibc']}"
    else:
        return
    yield fail(
        f"{base.name}:{base.tag} {why}",
        "base torch",
        fix="Use debian:bookworm-slim or ubuntu22.04.",
        source=load("torch")["sources"]["glibc"],
        instead={"base": ["debian:bookworm-slim"]},
    )


@rule("base-driver", "the driver satisfies what the base image requires")
def base_driver(base: Base, driver: tuple[int, ...]) -> Iterator[Conflict]:
    """CUDA images carry NVIDIA_REQUIRE_CUDA, which the container runtime enforces."""
    if base.cuda is None:
        return
    floor = major_floor(base.cuda)
    own = toolkit_floor(base.cuda)
    if floor is not None and older(driver, floor):
        yield fail(
            f"{base.name}:{base.tag} needs driver {floor} or newer",
            "base driver",
            fix="Update the driver, or use a base with an older CUDA or without one.",
            source=load("cuda")["sources"]["majors"],
            instead={"driver": [floor], "base": ["debian:bookworm-slim"]},
        )
    elif own is not None and older(driver, own):
        yield warn(
            f"{base.name}:{base.tag} sets NVIDIA_REQUIRE_CUDA=cuda>={base.cuda.name}: on an "
            "older driver the "
            "container runtime may refuse to start it, although CUDA itself would run",
            "base driver",
            fix="Use a base without CUDA: torch's wheels bring theirs.",
            source="NVIDIA container runtime (official, not read again)",
            instead={"base": ["debian:bookworm-slim"], "driver": [own]},
        )


@rule("base-major", "the base image's CUDA has the major of torch's")
def base_major(base: Base, runtime: Cuda) -> Iterator[Conflict]:
    """The wheel decides what runs; the base still sets what drivers are refused."""
    if base.cuda is not None and runtime != CPU and base.cuda.major != runtime.major:
        yield warn(
            f"{base.name}:{base.tag} has CUDA {base.cuda.name}, the row has CUDA "
            f"{runtime.name}: two sets of "
            "libraries, and the base decides which drivers are refused",
            "base runtime",
            fix="Use a base without CUDA: torch's wheels bring theirs.",
            source="ultralytics PR 19833",
            instead={"base": ["debian:bookworm-slim"]},
        )
