"""From a config to a Row: parse what is named, derive what follows from it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from packaging.version import Version

from builder.compat.facts import load, named
from builder.compat.rule import Cell, Cells, Row
from builder.compat.values import CPU, KEYS, Cuda, Gpu, parse, parse_cuda
from builder.compat.verdict import Conflict

__all__ = ["DERIVED", "read", "reread"]

DERIVED = ("arch", "machine", "tegra", "runtime", "code", "lineage")
"""Values that follow from named ones: the capability, the platform, torch's CUDA, and so on."""

_BLANK: Cells = dict.fromkeys((*KEYS, *DERIVED))
_AARCH64 = ("jetson", "soc")
"""GPUs that only aarch64 systems have. For GB10, wheels of an unnamed index may be any."""

_named = lru_cache(maxsize=20_000)(lambda key, text: Cell(parse(key, text)[1], (key,)))


def _cell(key: str, raw: object) -> Cell:
    """Return the cell of a named value; ValueError says what is wrong with it."""
    return _named(key, raw if isinstance(raw, str) else parse(key, raw)[0])


@lru_cache(maxsize=20_000)
def _same(value: object, _text: str, origins: tuple[str, ...]) -> Cell:
    """Return one cell per derived value. The text tells apart 2.8 and 2.8.0, which are equal."""
    return Cell(value, origins)


def _derived(value: object, *origins: str) -> Cell:
    return _same(value, str(value), origins)


def read(config: Mapping[str, object]) -> tuple[Row, tuple[Conflict, ...]]:
    """Return the row that `config` names and what could not be read in it. null is not named."""
    cells = _BLANK.copy()
    problems: list[Conflict] = []
    for key, raw in config.items():
        if raw is None:
            continue
        if key not in KEYS:
            problems.append(_unknown_key(key))
            continue
        try:
            cells[key] = _cell(key, raw)
        except ValueError as error:
            problems.append(Conflict("input", "fail", f"{key}: {error}", "", "", (key,)))
    for derivation in _DERIVATIONS:
        cells[derivation.name] = derivation.derive(*derivation.pick(cells))
    return Row(cells), tuple(problems)


def reread(before: Cells, edits: Mapping[str, str | None]) -> tuple[Cells, tuple[str, ...], bool]:
    """Return the cells of a neighbour; what differs; whether it names other things.

    None takes a value out.
    """
    cells = before.copy()
    changed = []
    renamed = False
    for key, raw in edits.items():
        new = None if raw is None else _named(key, raw)
        if new is not (old := before[key]):
            cells[key] = new
            changed.append(key)
            renamed = renamed or new is None or old is None
    for name, pick, derive in _followers(tuple(edits)):
        new = derive(*pick(cells))
        if new is not (old := before[name]):
            cells[name] = new
            changed.append(name)
            renamed = renamed or new is None or old is None
    return cells, tuple(changed), renamed


def _unknown_key(key: object) -> Conflict:
    text = str(key)
    close = difflib.get_close_matches(text[:40], KEYS, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(KEYS)}."
    shown = ascii(text if len(text) <= 40 else f"{text[:37]}...")
    return Conflict("input", "warn", f"{shown} is no key: it was not judged", hint, "", (text,))


def _arch(gpu: Cell | None, sm: Cell | None) -> Cell | None:
    if gpu is not None and isinstance(gpu.value, Gpu):
        return _derived(gpu.value.sm, "gpu")
    return None if sm is None else _derived(sm.value, "sm")


def _machine(
    platform: Cell | None, gpu: Cell | None, index: Cell | None, jetpack: Cell | None
) -> Cell | None:
    model = gpu.value if gpu else None
    if platform is not None:
        return _derived(platform.value, "platform")
    if isinstance(model, Gpu) and model.kind in _AARCH64[: 2 if index else 1]:
        return _derived("aarch64", "gpu")
    return None if jetpack is None else _derived("aarch64", "jetpack")


def _tegra(gpu: Cell | None, jetpack: Cell | None) -> Cell | None:
    """Whether this is a Jetson, where TensorRT and the driver come from JetPack."""
    if jetpack is not None:
        return _derived("jetpack", "jetpack")
    model = gpu.value if gpu else None
    return _derived("gpu", "gpu") if isinstance(model, Gpu) and model.kind == "jetson" else None


def _runtime(
    cuda: Cell | None, torch: Cell | None, index: Cell | None, machine: Cell | None
) -> Cell | None:
    """The CUDA of the row: as named, or that of the torch build as far as it is determined."""
    if cuda is not None:
        return _derived(cuda.value, "cuda")
    if torch is None or not isinstance(torch.value, Version):
        return None
    local = _cuda_of(torch.value)
    if local is not None:
        return _derived(local, "torch")
    if index is None or index.value != "pypi":
        return None
    here = "aarch64" if machine and machine.value == "aarch64" else "x86_64"
    entry = named("index", Version(torch.value.public), "torch")
    if not entry or here not in entry:
        return None
    built = entry[here]["cuda"]
    sources = ("torch", "index", *(machine.origins if machine else ()))
    return _derived(parse_cuda(built) if built else CPU, *sources)


def _cuda_of(torch: Version) -> Cuda | None:
    if torch.local is None:
        return None
    try:
        return parse_cuda(torch.local.split(".")[0])
    except ValueError:
        return None


def _code(ultralytics: Cell | None, distribution: Cell | None) -> Cell | None:
    """The ultralytics code: as named, or the release that the fork was made from."""
    if ultralytics is not None:
        return _derived(ultralytics.value, "ultralytics")
    if distribution is not None and distribution.value == "yolov12-fork":
        return _derived(Version(load("ultralytics")["fork"]["version"]), "distribution")
    return None


def _lineage(
    weights_lineage: Cell | None, asset_tag: Cell | None, sha256: Cell | None, weights: Cell | None
) -> Cell | None:
    """Which code wrote the checkpoint: as named, by its release tag, by its hash."""
    if weights_lineage is not None:
        return _derived(weights_lineage.value, "weights_lineage")
    if asset_tag is not None and asset_tag.value in {"turbo", "v1.0"}:
        return _derived(asset_tag.value, "asset_tag")
    if sha256 is None:
        return None
    rows = [row for row in load("weights")["weights"] if row["sha256"] == sha256.value]
    # Two files with the same bytes: the one that is named.
    same = [row for row in rows if weights is not None and row["name"] == weights.value]
    return _derived((same or rows)[0]["lineage"], "sha256") if rows else None


_Pick = Callable[[Cells], tuple[Cell | None, ...]]
_Derive = Callable[..., Cell | None]


class _Derivation(NamedTuple):
    name: str
    sources: tuple[str, ...]
    pick: _Pick
    derive: _Derive


def _derivation(name: str, sources: str, derive: _Derive) -> _Derivation:
    names = tuple(sources.split())
    return _Derivation(name, names, itemgetter(*names), lru_cache(maxsize=20_000)(derive))


# In an order in which each comes after what it follows from.
_DERIVATIONS = (
    _derivation("arch", "gpu sm", _arch),
    _derivation("machine", "platform gpu index jetpack", _machine),
    _derivation("tegra", "gpu jetpack", _tegra),
    _derivation("runtime", "cuda torch index machine", _runtime),
    _derivation("code", "ultralytics distribution", _code),
    _derivation("lineage", "weights_lineage asset_tag sha256 weights", _lineage),
)


@lru_cache(maxsize=1024)
def _followers(keys: Iterable[str]) -> tuple[tuple[str, _Pick, _Derive], ...]:
    """Return what has to be derived again when `keys` change."""
    names = set(keys)
    found = []
    for derivation in _DERIVATIONS:
        if not names.isdisjoint(derivation.sources):
            names.add(derivation.name)
            found.append((derivation.name, derivation.pick, derivation.derive))
    return tuple(found)
