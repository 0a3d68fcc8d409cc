"""flash-attn at run time and at compile time: GPU, compiler, system, and whether it is used."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from builder.compat.facts import load, named, ordered
from builder.compat.rule import fail, rule, warn
from builder.compat.values import CPU, Base, Cuda, Python, compatible, parse_cuda, sm_name
from builder.compat.verdict import Conflict

AMPERE = 80
"""The oldest compute capability that FlashAttention-2 runs on."""


@rule("flash-attn-gpu", "FlashAttention-2 runs on this GPU")
def flash_attn_gpu(
    flash_attn: Version,
    arch: int,
    flash_attn_source: str | None = None,
    runtime: Cuda | None = None,
) -> Iterator[Conflict]:
    """Judge flash-attn x compute capability: Ampere or newer, and code for it in the wheel."""
    entry = named("flash_attn", flash_attn)
    if flash_attn < Version("2") or (
        entry is None and flash_attn > ordered("flash_attn")[-1] and arch >= AMPERE
    ):
        return
    source = load("flash_attn")["sources"]["gpus"]
    if arch < AMPERE:
        yield fail(
            f"FlashAttention-2 needs Ampere (sm_80) or newer; {sm_name(arch)} is older",
            "flash_attn arch",
            fix="Leave flash-attn out for this GPU.",
            source=source,
            instead={"flash_attn": [None]},
        )
        return
    if entry is None:
        return
    built = flash_attn_source == "build"
    codes = flash_codes(flash_attn, runtime) if built else entry["sass"]
    if entry["hopper_only"] and arch > 90:
        why = 'it refuses anything but sm_8x and sm_90 ("only supports Ampere GPUs or newer")'
    elif not any(compatible(arch, code) for code in codes):
        why = f"it has code for {', '.join(sm_name(c) for c in codes) or 'none'} only, and no PTX"
    else:
        return
    able = _able(arch)
    keys = "flash_attn arch runtime" if built and not entry["hopper_only"] else "flash_attn arch"
    yield fail(
        f"flash-attn {flash_attn} does not run on {sm_name(arch)}: {why}",
        keys,
        fix=f"Use flash-attn {able[0]} or newer." if able else "Leave flash-attn out for this GPU.",
        source=source,
        instead={
            "flash_attn": [*[v for v in able if v > flash_attn], None],
            "cuda": ["12.8", "12.9"] if built else [],
        },
    )


@cache
def _able(arch: int) -> tuple[Version, ...]:
    """Return the releases whose wheels have code for a GPU."""
    known = ((v, named("flash_attn", v)) for v in ordered("flash_attn"))
    return tuple(v for v, row in known if row and any(compatible(arch, c) for c in row["sass"]))


def flash_codes(release: Version, runtime: Cuda | None) -> list[int]:
    """What a release compiles for: sm_90 from nvcc 11.8, sm_100 and sm_120 from nvcc 12.8.

    A release that is newer than all known ones is taken to compile for what the last one did.
    """
    entry = named("flash_attn", release) or named("flash_attn", ordered("flash_attn")[-1])
    codes: list[int] = list(entry["gencode"]) if entry else []
    if runtime is None or runtime.minor is None:
        return codes
    nvcc = (runtime.major, runtime.minor)
    first = {80: (0, 0), 90: (11, 8)}
    return [code for code in codes if nvcc >= first.get(code, (12, 8))]


@rule("flash-attn-build", "flash-attn can be compiled here")
def flash_attn_build(
    flash_attn: Version,
    flash_attn_source: str,
    runtime: Cuda | None = None,
    python: Python | None = None,
    base: Base | None = None,
) -> Iterator[Conflict]:
    """Judge a source build: the compiler, its version, the Python."""
    entry = named("flash_attn", flash_attn)
    if flash_attn_source != "build" or entry is None:
        return
    source = load("flash_attn")["sources"]["wheels"]
    if runtime is not None and runtime != CPU and runtime.minor is not None:
        floor = parse_cuda(entry["min_cuda"])
        if runtime[:2] < floor[:2]:
            yield fail(
                f"flash-attn {flash_attn} compiles with CUDA {floor.name} or newer, not "
                f"{runtime.name}",
                "flash_attn flash_attn_source runtime",
                source=source,
                instead={"cuda": ["12.8", "11.8"]},
            )
        elif flash_attn >= Version("2.8.3") and runtime.major < 12:
            yield warn(
                f"flash-attn {flash_attn}'s README asks for CUDA 12.0 or newer, its setup.py "
                "for 11.7",
                "flash_attn flash_attn_source runtime",
                source=source,
            )
    if python is not None and not SpecifierSet(entry["requires_python"]).contains(python.version):
        yield fail(
            f"flash-attn {flash_attn} needs Python {entry['requires_python']}",
            "flash_attn python",
            source=source,
            instead={"python": ["3.11"]},
        )
    if base is not None:
        yield from _compiler_in(base, runtime)


def _compiler_in(base: Base, runtime: Cuda | None) -> Iterator[Conflict]:
    if base.cuda is None:
        return
    if base.flavour in {"base", "runtime"}:
        yield fail(
            f"{base.name}:{base.tag} has no nvcc: flash-attn can't be compiled in it",
            "flash_attn_source base",
            fix="Build in the -devel flavour of the same tag.",
            source=load("flash_attn")["sources"]["wheels"],
            instead={"base": [f"{base.name}:{base.tag.replace(f'-{base.flavour}', '-devel')}"]},
        )
    elif runtime is not None and runtime != CPU and runtime.major != base.cuda.major:
        yield fail(
            f"nvcc of CUDA {base.cuda.name} can't build an extension for torch with CUDA "
            f"{runtime.name}: the majors differ",
            "flash_attn_source base runtime",
            fix=f"Use a base with CUDA {runtime.major}.",
            source=load("flash_attn")["sources"]["wheels"],
            instead={"base": [None]},
        )


@rule("flash-attn-index", "the package index at hand has flash-attn, as far as it ever does")
def flash_attn_index(
    flash_attn: Version, index: str, flash_attn_source: str | None = None
) -> Iterator[Conflict]:
    """The package index has source archives only, and not of every release."""
    entry = named("flash_attn", flash_attn)
    if entry is None or index != "pypi":
        return
    source = load("flash_attn")["sources"]["wheels"]
    if flash_attn_source == "wheel":
        yield warn(
            f"flash-attn {flash_attn}'s wheels are on GitHub, by URL: the package index has none",
            "flash_attn index flash_attn_source",
            source=source,
        )
    elif not entry["on_pypi"]:
        known = ordered("flash_attn")
        there = [v for v in known if (named("flash_attn", v) or {})["on_pypi"] and v > flash_attn]
        yield fail(
            f"the package index has no flash-attn {flash_attn}, not even its source",
            "flash_attn index flash_attn_source" if flash_attn_source else "flash_attn index",
            fix=f"Use {there[0]}." if there else "Build from the repository's tag.",
            source=source,
            instead={"flash_attn": there[:3]},
        )


@rule("flash-attn-cpu", "flash-attn has a CUDA build of torch to run with")
def flash_attn_cpu(flash_attn: Version, runtime: Cuda) -> Iterator[Conflict]:
    """flash-attn is CUDA code."""
    if runtime == CPU:
        yield fail(
            f"flash-attn {flash_attn} needs CUDA; torch is a CPU build here",
            "flash_attn runtime",
            fix="Leave flash-attn out.",
            source=load("flash_attn")["sources"]["gpus"],
            instead={"flash_attn": [None]},
        )


@rule("flash-attn-glibc", "the system's glibc is that of flash-attn's build machine or newer")
def flash_attn_glibc(
    flash_attn: Version, glibc: Version, flash_attn_source: str | None = None
) -> Iterator[Conflict]:
    """The wheels carry no manylinux tag, so pip can't refuse them: say it here."""
    entry = named("flash_attn", flash_attn)
    if entry is None or flash_attn_source == "build":
        return
    data = load("flash_attn")
    made_on = data["glibc_of_runner"].get(entry["runner"])
    if made_on and glibc < Version(made_on):
        yield warn(
            f"flash-attn {flash_attn}'s wheels were built on {entry['runner']} (glibc "
            f"{made_on}); with "
            f"{glibc} they may not load",
            "flash_attn glibc",
            source=data["sources"]["wheels"],
        )


@rule("flash-attn-used", "something in the row uses flash-attn")
def flash_attn_used(
    flash_attn: Version, ultralytics: Version, distribution: str | None = None
) -> Iterator[Conflict]:
    """Upstream's YOLO12 never imports flash_attn, whatever its documentation says."""
    if distribution == "yolov12-fork":
        return
    yield warn(
        f"ultralytics {ultralytics} never imports flash_attn: flash-attn {flash_attn} is dead "
        "weight",
        "flash_attn ultralytics",
        fix="Leave it out, or use the distribution yolov12-fork.",
        source="no release from 8.3.78 to 8.4.190 has the word in block.py (measured)",
    )
