"""flash-attn: official wheels are per torch minor, CUDA major, CPython and C++ ABI."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

from packaging.version import Version

from builder.compat.facts import load, named, ordered
from builder.compat.rule import fail, rule, warn
from builder.compat.rules.torch import builds_of, default_cuda, near_releases
from builder.compat.values import CPU, Base, Cuda, Python, parse_cuda
from builder.compat.verdict import Conflict


class Wheel(NamedTuple):
    """One official wheel."""

    release: Version
    torch: str
    built_against: str
    cuda: int
    tag: str
    python: str
    abi: bool

    @property
    def name(self) -> str:
        """The file name of the wheel."""
        flag, cp = ("TRUE" if self.abi else "FALSE"), "cp" + self.python.replace(".", "")
        local = f"{self.tag}torch{self.torch}cxx11abi{flag}"
        return f"flash_attn-{self.release}+{local}-{cp}-{cp}-linux_x86_64.whl"


@cache
def wheels_of(release: Version) -> tuple[Wheel, ...] | None:
    """Return the official wheels of a release; None when they are not known."""
    entry = named("flash_attn", release)
    if entry is None or entry["wheels"] is None:
        return None
    return tuple(
        Wheel(release, torch, built, int(tag[2:4]), tag, python, abi)
        for torch, built, tags, pythons, abis in entry["wheels"]
        for tag in tags
        for python in pythons
        for abi in abis
    )


class Wanted(NamedTuple):
    """What a wheel has to be for. `abis` are those of the torch build, `abi` the one named."""

    torch: str | None
    abis: frozenset[bool]
    cuda: int | None
    python: str | None
    abi: bool | None

    def fits(self, wheel: Wheel) -> bool:
        """Whether a wheel serves everything that is named."""
        return (
            self.torch in {None, wheel.torch}
            and self.cuda in {None, wheel.cuda}
            and self.python in {None, wheel.python}
            and wheel.abi in self.abis
            and self.abi in {None, wheel.abi}
        )

    def without(self, field: str) -> Wanted:
        """Return this with one thing left open."""
        return _without(self, field)


_ANY = frozenset({True, False})


@lru_cache(maxsize=20_000)
def _without(wanted: Wanted, field: str) -> Wanted:
    changed: dict[str, Any] = {field: None}
    if field == "torch":
        changed["abis"] = _ANY
    return wanted._replace(**changed)


@lru_cache(maxsize=20_000)
def fitting_wheels(release: Version, wanted: Wanted) -> tuple[Wheel, ...]:
    """Return the wheels of a release that serve `wanted`."""
    pool = wheels_of(release) or ()
    if wanted.torch is not None:
        pool = _by_torch(release).get(wanted.torch, ())
    return tuple(wheel for wheel in pool if wanted.fits(wheel))


@cache
def _by_torch(release: Version) -> dict[str, tuple[Wheel, ...]]:
    found: dict[str, tuple[Wheel, ...]] = {}
    for wheel in wheels_of(release) or ():
        found[wheel.torch] = (*found.get(wheel.torch, ()), wheel)
    return found


@lru_cache(maxsize=20_000)
def releases_for(wanted: Wanted) -> tuple[Version, ...]:
    """Return the releases that have a wheel for `wanted`, oldest first."""
    return tuple(v for v in ordered("flash_attn") if fitting_wheels(v, wanted))


def wanted_wheel(
    torch: Version | None,
    cuda: Cuda | None,
    python: Python | None,
    abi: bool | None,  # noqa: FBT001  # a value of the row
) -> Wanted:
    """Return what a wheel has to be for, from the values of a row."""
    return Wanted(
        None if torch is None else f"{torch.major}.{torch.minor}",
        _ANY if torch is None else _abis(torch, cuda),
        None if cuda is None else cuda.major,
        None if python is None else python.minor,
        abi,
    )


@lru_cache(maxsize=4096)
def _abis(torch: Version, cuda: Cuda | None) -> frozenset[bool]:
    builds = builds_of(torch)
    if cuda is None and (default := default_cuda(torch, None)) in builds:
        return frozenset({builds[default]["cxx11abi"]})
    known = {b["cxx11abi"] for c, b in builds.items() if cuda and cuda.covers(parse_cuda(c))}
    return frozenset(known) or _ANY


_FIELDS = {"torch": "torch", "cuda": "runtime", "python": "python", "abi": "cxx11abi"}


@rule("flash-attn-wheel", "an official flash-attn wheel exists for torch, CUDA, Python and ABI")
def flash_attn_wheel(
    flash_attn: Version,
    torch: Version | None = None,
    runtime: Cuda | None = None,
    python: Python | None = None,
    cxx11abi: bool | None = None,  # noqa: FBT001  # a value of the row
    flash_attn_source: str | None = None,
    machine: str | None = None,
    base: Base | None = None,
) -> Iterator[Conflict]:
    """Judge flash-attn x torch x CUDA x Python x ABI. Without a named source, wheels are meant."""
    entry = named("flash_attn", flash_attn)
    if entry is None or flash_attn_source == "build" or runtime == CPU:
        return
    if machine not in {None, "x86_64"}:
        yield from _other_machine(flash_attn, machine)
        return
    if base is not None and base.name.startswith("nvcr.io/nvidia/"):
        torch, cxx11abi = None, cxx11abi if cxx11abi is not None else True
    wheels = wheels_of(flash_attn)
    wanted = wanted_wheel(torch, runtime, python, cxx11abi)
    if wheels is None:
        yield warn(
            f"whether flash-attn {flash_attn} has official wheels is not known",
            "flash_attn",
            fix="Use 2.8.3.post1, or check with --online.",
            source=load("flash_attn")["sources"]["wheels"],
            instead={"flash_attn": ["2.8.3.post1"]},
        )
        return
    fitting = fitting_wheels(flash_attn, wanted)
    if not fitting:
        yield Conflict(*_missing(flash_attn, wanted)[:6], _instead(flash_attn, wanted, torch))
        return
    yield from _doubts(flash_attn, entry, fitting, torch)


def _other_machine(flash_attn: Version, machine: str | None) -> Iterator[Conflict]:
    yield fail(
        f"flash-attn {flash_attn} has no official wheels for {machine}, only for x86_64 Linux",
        "flash_attn machine",
        fix="Set flash_attn_source: build, or leave flash-attn out.",
        source=load("flash_attn")["sources"]["wheels"],
        instead={"flash_attn_source": ["build"], "flash_attn": [None], "platform": ["linux/amd64"]},
    )


def _doubts(
    flash_attn: Version, entry: dict[str, Any], fitting: tuple[Wheel, ...], torch: Version | None
) -> Iterator[Conflict]:
    if entry.get("probably_missing"):
        yield warn(
            f"flash-attn {flash_attn}'s wheels are probably missing: {entry['note']}",
            "flash_attn",
            fix="Use 2.8.0.post2.",
            source=load("flash_attn")["sources"]["wheels"],
            instead={"flash_attn": ["2.8.0.post2"]},
        )
    against = {wheel.built_against for wheel in fitting}
    if torch is not None and all("dev" in built for built in against):
        yield warn(
            f"flash-attn {flash_attn}'s wheel for torch {torch.major}.{torch.minor} was built "
            "against "
            f"the snapshot {min(against)}, not a release: it may not load",
            "flash_attn torch",
            fix="Use a newer flash-attn.",
            source=load("flash_attn")["sources"]["wheels"],
            instead={"flash_attn": [v for v in ordered("flash_attn") if v > flash_attn][:8]},
        )


@lru_cache(maxsize=20_000)
def _missing(flash_attn: Version, wanted: Wanted) -> Conflict:
    """Say which of the named values no wheel serves: the smallest set that already has none."""
    culprits = wanted
    for field in ("abi", "python", "cuda", "torch"):
        reduced = culprits.without(field)
        if not fitting_wheels(flash_attn, reduced):
            culprits = reduced
    named_fields = [f for f in _FIELDS if getattr(culprits, f) is not None]
    others = releases_for(wanted)
    compiled = f'compile it: flash_attn: {{version: "{flash_attn}", source: build}}'
    hint = f"Use flash-attn {others[-1]}, or {compiled}" if others else compiled.capitalize()
    return fail(
        f"flash-attn {flash_attn} has no official wheel for {_described(culprits)}; pip would "
        f"compile for hours. {_offered(flash_attn, wanted)}",
        " ".join(["flash_attn", *(_FIELDS[field] for field in named_fields)]),
        fix=f"{hint}.",
        source=load("flash_attn")["sources"]["wheels"],
    )


def _described(wanted: Wanted) -> str:
    parts = []
    if wanted.torch is not None:
        parts.append(f"torch {wanted.torch}")
    if wanted.cuda is not None:
        parts.append(f"CUDA {wanted.cuda}")
    if wanted.python is not None:
        parts.append(f"Python {wanted.python}")
    if wanted.abi is not None:
        parts.append(f"cxx11abi{'TRUE' if wanted.abi else 'FALSE'}")
    return ", ".join(parts) or "this row"


def _offered(flash_attn: Version, wanted: Wanted) -> str:
    only_torch = wanted.without("abi").without("python").without("cuda")
    same_torch = fitting_wheels(flash_attn, only_torch) or wheels_of(flash_attn) or ()
    pythons = sorted({w.python for w in same_torch}, key=_minor)
    torches = sorted({w.torch for w in same_torch}, key=_minor)
    tags = sorted({w.tag for w in same_torch})
    span = pythons[0] if len(pythons) == 1 else f"{pythons[0]} to {pythons[-1]}"
    return f"There are wheels for torch {', '.join(torches)} ({', '.join(tags)}, Python {span})."


def _minor(name: str) -> tuple[int, int]:
    major, _, minor = name.partition(".")
    return int(major), int(minor)


def _instead(flash_attn: Version, wanted: Wanted, torch: Version | None) -> _Instead:
    served, before, after = _alternatives(flash_attn, wanted)
    if torch is None:
        return (*before, *after)
    near = tuple(name for name, minor in _near_minors(torch) if minor in served)
    return (*before, ("torch", near[:4]), *after)


@lru_cache(maxsize=8192)
def _near_minors(torch: Version) -> tuple[tuple[str, str], ...]:
    return tuple((str(v), f"{v.major}.{v.minor}") for v in near_releases(torch))


@lru_cache(maxsize=20_000)
def _alternatives(flash_attn: Version, wanted: Wanted) -> tuple[frozenset[str], _Instead, _Instead]:
    """Return the torch minors that are served, and what else to try, before torch and after it."""
    releases = [str(release) for release in releases_for(wanted)[::-1][:6]]
    before: _Instead = (("flash_attn", (*releases, None)),)
    if wanted.abi is not None and fitting_wheels(flash_attn, wanted.without("abi")):
        before += (("cxx11abi", ("FALSE" if wanted.abi else "TRUE",)),)
    if wanted.python is not None:
        pythons = {w.python for w in fitting_wheels(flash_attn, wanted.without("python"))}
        near = tuple(p for p in ("3.12", "3.11", "3.10", "3.13") if p in pythons)
        before += (("python", near),)
    served = frozenset(w.torch for w in fitting_wheels(flash_attn, wanted.without("torch")))
    return served, before, (("flash_attn_source", ("build",)),)


_Instead = tuple[tuple[str, tuple[str | None, ...]], ...]
