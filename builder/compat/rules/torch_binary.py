"""torch as a binary: the glibc it needs and the C++ ABI it was built with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packaging.version import Version

from builder.compat.facts import load
from builder.compat.rule import fail, rule
from builder.compat.rules.torch import builds_of, entry_of, near_releases
from builder.compat.values import CPU, Base, Cuda, parse_cuda
from builder.compat.verdict import Conflict


@rule("torch-glibc", "the system's glibc is new enough for torch's wheels")
def torch_glibc(torch: Version, glibc: Version, runtime: Cuda | None = None) -> Iterator[Conflict]:
    """Judge torch x glibc."""
    entry = entry_of(torch)
    if entry is None:
        return
    builds = builds_of(torch)
    floors = {
        build.get("glibc", entry["glibc"])
        for cuda, build in builds.items()
        if runtime is None or runtime.covers(parse_cuda(cuda))
    } or {entry["glibc"]}
    if runtime is None and entry["glibc"] in floors:
        floors = {entry["glibc"]}
    floor = min(floors, key=Version)
    if glibc < Version(floor):
        older = [
            v for v in near_releases(torch) if Version((entry_of(v) or entry)["glibc"]) <= glibc
        ]
        yield fail(
            f"torch {torch.public} needs glibc {floor}; this system has {glibc}",
            "torch glibc runtime" if len(builds) > 1 and _glibc_varies(entry) else "torch glibc",
            fix=f"Use a newer system{f', or torch {older[0]}' if older else ''}.",
            source=load("torch")["sources"]["glibc"],
            instead={"torch": older[:4], "glibc": [floor]},
        )


def _glibc_varies(entry: dict[str, Any]) -> bool:
    return any("glibc" in build for build in entry["builds"].values())


@rule("torch-abi", "the C++ ABI is the one that this torch was built with")
def torch_abi(
    torch: Version,
    cxx11abi: bool,  # noqa: FBT001  # a value of the row
    runtime: Cuda | None = None,
    base: Base | None = None,
) -> Iterator[Conflict]:
    """Judge torch x _GLIBCXX_USE_CXX11_ABI."""
    entry = entry_of(torch)
    if entry is None or runtime == CPU:
        return
    if base is not None and base.name.startswith("nvcr.io/nvidia/"):
        return  # NVIDIA builds its own torch, always with the new ABI
    known = {
        build["cxx11abi"]
        for cuda, build in entry["builds"].items()
        if runtime is None or runtime.covers(parse_cuda(cuda))
    }
    if not known or cxx11abi in known:
        return
    yield fail(
        f"torch {torch} is built with _GLIBCXX_USE_CXX11_ABI={_flag(not cxx11abi)}; an extension "
        f"built with {_flag(cxx11abi)} does not load (undefined symbol)",
        "torch cxx11abi runtime" if _abi_varies(entry) else "torch cxx11abi",
        fix=f"Use cxx11abi{_flag(not cxx11abi)}.",
        source=load("torch")["sources"]["cxx11abi"],
        instead={"cxx11abi": [_flag(not cxx11abi)]},
    )


def _abi_varies(entry: dict[str, Any]) -> bool:
    return len({build["cxx11abi"] for build in entry["builds"].values()}) > 1


def _flag(value: bool) -> str:  # noqa: FBT001  # it only spells the flag
    return "TRUE" if value else "FALSE"
