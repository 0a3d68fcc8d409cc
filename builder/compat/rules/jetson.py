"""Jetson: JetPack decides CUDA, TensorRT and Python; the package index's wheels are not for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from builder.compat.facts import load
from builder.compat.rule import fail, rule, warn
from builder.compat.rules.torch import default_cuda, entry_of
from builder.compat.values import CPU, Cuda, Gpu, Python, parse_cuda
from builder.compat.verdict import Conflict

Pack = dict[str, Any]


def packs(jetpack: str | None, gpu: Gpu | str | None = None) -> list[Pack]:
    """Return the JetPack releases meant: `6` is any 6.x; with a board, those for it."""
    rows: list[Pack] = load("gpus")["jetpack"]
    if jetpack is not None:
        exact = [row for row in rows if jetpack in {row["jetpack"], *row["same"]}]
        rows = exact or [row for row in rows if _starts(row["jetpack"], jetpack)]
    if isinstance(gpu, Gpu) and gpu.board:
        rows = [row for row in rows if gpu.board in row["boards"]]
    return rows


def _starts(name: str, prefix: str) -> bool:
    """Whether `6` or `6.0.0` means 6.0."""
    if "." not in prefix:
        return name.split(".", maxsplit=1)[0] == prefix
    return " " not in name and " " not in prefix and Version(name) == Version(prefix)


@rule("jetpack-release", "JetPack is a release that is known")
def jetpack_release(jetpack: str) -> Iterator[Conflict]:
    """An unlisted release is a doubt: only 5.1 and newer are in the data."""
    major = int(jetpack.split(".", maxsplit=1)[0])
    if packs(jetpack):
        return
    if major > 8:
        yield fail(f"there is no JetPack {jetpack}", "jetpack", instead={"jetpack": ["7.2"]})
    elif not (jetpack.startswith(("4", "5.0"))):
        yield warn(f"JetPack {jetpack} is not in the data, which end at 7.2", "jetpack")


@rule("jetpack-board", "this JetPack is for this board")
def jetpack_board(jetpack: str, gpu: Gpu | str) -> Iterator[Conflict]:
    """Judge JetPack x Jetson board."""
    if not isinstance(gpu, Gpu):
        return
    if gpu.kind != "jetson":
        yield fail(
            f"JetPack is for Jetson boards; {gpu.name} is none",
            "jetpack gpu",
            instead={"jetpack": [None], "gpu": ["Jetson AGX Orin", "Jetson AGX Thor"]},
        )
        return
    major = jetpack.split(".", maxsplit=1)[0]
    last = load("gpus")["last_jetpack"].get(gpu.board)
    for_board = [row["jetpack"] for row in packs(None, gpu)]
    if (packs(jetpack) and not packs(jetpack, gpu)) or (last and int(major) > int(last)):
        ends = f", whose last line is {last}.x" if last else ""
        yield fail(
            f"JetPack {jetpack} is not for {gpu.name}{ends}",
            "jetpack gpu",
            fix=f"Use JetPack {for_board[-1]}." if for_board else f"Use JetPack {last}.",
            source=load("gpus")["sources"]["jetpack"],
            instead={"jetpack": for_board[::-1] or [last], "gpu": [None]},
        )


@rule("jetpack-cuda", "this JetPack has this CUDA")
def jetpack_cuda(jetpack: str, runtime: Cuda) -> Iterator[Conflict]:
    """Judge JetPack x CUDA: its driver runs what it ships and older minors."""
    rows = packs(jetpack)
    shipped = [parse_cuda(row["cuda"]) for row in rows]
    if not rows or runtime == CPU or any(runtime.covers(cuda) for cuda in shipped):
        return
    newest = max(shipped, key=lambda cuda: (cuda.major, cuda.minor or 0))
    if runtime.major == newest.major and (runtime.minor or 0) < (newest.minor or 0):
        return
    if runtime.major == newest.major:
        yield warn(
            f"JetPack {jetpack} ships CUDA {newest.name}; {runtime.name} needs NVIDIA's "
            "cuda-compat package for "
            "it, if there is one",
            "jetpack runtime",
            fix=f"Use CUDA {newest.name}.",
            source="NVIDIA CUDA compatibility guide (official, not read again)",
            instead={"cuda": [newest.name]},
        )
        return
    able = [
        row["jetpack"] for row in load("gpus")["jetpack"] if runtime.covers(parse_cuda(row["cuda"]))
    ]
    yield fail(
        f"JetPack {jetpack} ships CUDA {newest.name}, not {runtime.name}: Jetson takes its "
        "driver from JetPack",
        "jetpack runtime",
        fix=f"Use CUDA {newest.name}{f', or JetPack {able[-1]}' if able else ''}.",
        source=load("gpus")["sources"]["jetpack"],
        instead={"cuda": [newest.name], "jetpack": able[::-1]},
    )


@rule("jetpack-tensorrt", "TensorRT on a Jetson is the one that its JetPack ships", beside="tegra")
def jetpack_tensorrt(
    tensorrt: Requirement,
    jetpack: str | None = None,
    gpu: Gpu | str | None = None,
    python: Python | None = None,
) -> Iterator[Conflict]:
    """pip refuses Tegra: TensorRT comes as JetPack's apt packages, for the system's Python."""
    rows = packs(jetpack, gpu)
    named = (
        f"JetPack {jetpack}"
        if jetpack
        else f"no JetPack for {gpu.name if isinstance(gpu, Gpu) else gpu}"
    )
    keys = "tensorrt jetpack" if jetpack else "tensorrt gpu"
    source = load("gpus")["sources"]["jetpack"]
    if tensorrt.name.lower() != "tensorrt":
        seven = bool(rows) and all(row["jetpack"].startswith("7") for row in rows)
        yield (warn if seven else fail)(
            f"{tensorrt.name} can't be installed on a Jetson: its setup refuses Tegra systems",
            keys,
            fix="Use JetPack's own python3-libnvinfer.",
            source=load("tensorrt")["sources"]["packaging"],
            instead={"tensorrt": [f"tensorrt=={rows[-1]['tensorrt']}"] if rows else [None]},
        )
        return
    if not rows:
        return
    pins = [Version(s.version.rstrip(".*")) for s in tensorrt.specifier if s.operator == "=="]
    fitting = [row for row in rows if all(_agree(pin, Version(row["tensorrt"])) for pin in pins)]
    if not fitting:
        shipped = sorted({row["tensorrt"] for row in rows}, key=Version)
        other = [
            row["jetpack"]
            for row in load("gpus")["jetpack"]
            if all(_agree(p, Version(row["tensorrt"])) for p in pins)
        ]
        hint = f" {pins[0]} comes with JetPack {other[0]}." if other and pins else ""
        yield fail(
            f"{named} ships TensorRT {', '.join(shipped)}, not "
            f"{', '.join(str(p) for p in pins)}.{hint}",
            keys,
            fix=f"Use tensorrt=={shipped[-1]}{f', or JetPack {other[0]}' if other else ''}.",
            source=source,
            instead={
                "tensorrt": [f"tensorrt=={v}" for v in shipped[::-1]],
                "jetpack": other if jetpack else [],
            },
        )
        return
    if python is not None and all(python.minor != row["python"] for row in fitting):
        yield fail(
            f"JetPack's TensorRT is for the system's Python {fitting[0]['python']}, not "
            f"{python.minor}",
            f"{keys} python",
            fix=f"Use Python {fitting[0]['python']}.",
            source=source,
            instead={"python": [fitting[0]["python"]]},
        )


def _agree(one: Version, other: Version) -> bool:
    """Whether two versions are equal as far as both are written out."""
    length = min(len(one.release), len(other.release))
    return one.release[:length] == other.release[:length]


@rule("jetson-torch", "torch for a Jetson has CUDA that its JetPack can run", beside="tegra")
def jetson_torch(
    torch: Version,
    index: str,
    gpu: Gpu | str | None = None,
    jetpack: str | None = None,
) -> Iterator[Conflict]:
    """Wheels of the package index are not Jetson wheels up to JetPack 6."""
    if index != "pypi":
        return
    built = default_cuda(torch, "aarch64")
    keys = " ".join(
        ["torch", "index", *(["gpu"] if gpu else []), *(["jetpack"] if jetpack else [])]
    )
    rows = packs(jetpack, gpu)
    if built is None:
        if entry_of(torch) is not None and gpu is None:  # with a GPU, torch-cpu-wheel says it
            yield _not_for_jetson(torch, "is a CPU build", keys)
    elif rows and all(parse_cuda(row["cuda"]).major < parse_cuda(built).major for row in rows):
        yield _not_for_jetson(
            torch,
            f"has CUDA {built}, which needs an r580-class driver; that JetPack has CUDA "
            f"{rows[-1]['cuda']}",
            keys,
        )
    elif isinstance(gpu, Gpu) and gpu.board == "orin":
        yield warn(
            f"torch {torch.public} has code for sm_80, which sm_87 can run; NVIDIA does not "
            "support desktop "
            "binaries on Jetson",
            "torch gpu",
            source="CUDA C++ programming guide (official, from memory)",
        )


def _not_for_jetson(torch: Version, why: str, keys: str) -> Conflict:
    return fail(
        f"torch {torch.public} for aarch64 on the package index {why}",
        keys,
        fix="Take NVIDIA's own torch build for that JetPack.",
        source=load("gpus")["sources"]["jetpack"],
        instead={"jetpack": ["7.2"], "index": [None]},
    )


@rule("jetpack-ultralytics", "ultralytics accepts this JetPack's TensorRT")
def jetpack_ultralytics(
    ultralytics: Version, jetpack: str, export: str, tensorrt: Requirement | None = None
) -> Iterator[Conflict]:
    """Recent releases ask for TensorRT 10.15 or newer on JetPack 7."""
    rows = packs(jetpack)
    if export != "engine" or ultralytics < Version("8.4.190") or not rows or tensorrt is None:
        return
    shipped = Version(rows[-1]["tensorrt"])
    if jetpack.startswith("7") and shipped < Version("10.15"):
        yield warn(
            f"ultralytics {ultralytics} asks for TensorRT >=10.15,<11 on JetPack 7; {jetpack} "
            f"ships {shipped}",
            "ultralytics jetpack export",
            fix="Use JetPack 7.2.",
            source="ultralytics 8.4.190 (measured)",
            instead={"jetpack": ["7.2"]},
        )
