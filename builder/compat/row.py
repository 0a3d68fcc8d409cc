"""From a config to a Row: parse what is named, derive what follows from it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from packaging.version import Version

from builder.compat.facts import load, named
from builder.compat.rule import Row
from builder.compat.values import CPU, KEYS, Cuda, Gpu, parse, parse_cuda
from builder.compat.verdict import Conflict

__all__ = ["DERIVED", "read", "reread"]

DERIVED = ("arch", "machine", "runtime", "code", "lineage")
"""Values that follow from named ones: the capability, the platform, torch's CUDA, and so on."""


_AARCH64 = ("jetson", "soc")
"""GPUs that only aarch64 systems have. For GB10, wheels of an unnamed index may be any."""


class _Draft:
    """A row in the making."""

    def __init__(
        self,
        values: dict[str, object],
        texts: dict[str, str],
        origins: dict[str, tuple[str, ...]],
    ) -> None:
        self.values = values
        self.texts = texts
        self.origins = origins

    def forget(self, key: str) -> None:
        """Take a value out again."""
        self.values.pop(key, None)
        self.texts.pop(key, None)
        self.origins.pop(key, None)

    def name(self, key: str, text: str, value: object) -> None:
        self.values[key] = value
        self.texts[key] = text
        self.origins[key] = (key,)

    def derive(self, key: str, value: object, *sources: str) -> None:
        """Add a value that follows from named keys."""
        self.values[key] = value
        self.origins[key] = sources
        self.texts[key] = "|".join(f"{source}={self.texts[source]}" for source in sources)


def read(config: Mapping[str, object]) -> tuple[Row, tuple[Conflict, ...]]:
    """Return the row that `config` names and what could not be read in it. null is not named."""
    draft = _Draft({}, {}, {})
    problems: list[Conflict] = []
    for key, raw in config.items():
        if raw is None:
            continue
        if key not in KEYS:
            problems.append(_unknown_key(key))
            continue
        try:
            draft.name(key, *parse(key, raw))
        except ValueError as error:
            problems.append(Conflict("input", "fail", f"{key}: {error}", "", "", (key,)))
    return _derived(draft), tuple(problems)


def reread(row: Row, config: Mapping[str, object], changed: Iterable[str]) -> Row:
    """Return the row of a neighbour of `row`: `config` differs from its config in `changed`."""
    draft = _Draft(dict(row.values), dict(row.texts), dict(row.origins))
    for key in (*DERIVED, *changed):
        draft.forget(key)
    for key in changed:
        if config.get(key) is not None:
            draft.name(key, *parse(key, config[key]))
    return _derived(draft)


def _derived(draft: _Draft) -> Row:
    _derive_machine(draft)
    _derive_cuda(draft)
    _derive_code(draft)
    _derive_lineage(draft)
    return Row(draft.values, draft.texts, draft.origins)


def _unknown_key(key: object) -> Conflict:
    text = str(key)
    close = difflib.get_close_matches(text[:40], KEYS, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(KEYS)}."
    shown = ascii(text if len(text) <= 40 else f"{text[:37]}...")
    return Conflict("input", "warn", f"{shown} is no key: it was not judged", hint, "", (text,))


def _derive_machine(draft: _Draft) -> None:
    gpu = draft.values.get("gpu")
    if isinstance(gpu, Gpu):
        draft.derive("arch", gpu.sm, "gpu")
    elif "sm" in draft.values:
        draft.derive("arch", draft.values["sm"], "sm")
    if "platform" in draft.values:
        draft.derive("machine", draft.values["platform"], "platform")
    elif isinstance(gpu, Gpu) and gpu.kind in _AARCH64[: 2 if "index" in draft.values else 1]:
        draft.derive("machine", "aarch64", "gpu")
    elif "jetpack" in draft.values:
        draft.derive("machine", "aarch64", "jetpack")


def _derive_cuda(draft: _Draft) -> None:
    """The CUDA of the row: as named, or that of the torch build as far as it is determined."""
    if "cuda" in draft.values:
        draft.derive("runtime", draft.values["cuda"], "cuda")
        return
    torch = draft.values.get("torch")
    if not isinstance(torch, Version):
        return
    local = _cuda_of(torch)
    if local is not None:
        draft.derive("runtime", local, "torch")
    elif draft.values.get("index") == "pypi":
        machine = "aarch64" if draft.values.get("machine") == "aarch64" else "x86_64"
        entry = named("index", Version(torch.public), "torch")
        if entry and machine in entry:
            built = entry[machine]["cuda"]
            sources = ("torch", "index", *draft.origins.get("machine", ()))
            draft.derive("runtime", parse_cuda(built) if built else CPU, *sources)


def _cuda_of(torch: Version) -> Cuda | None:
    if torch.local is None:
        return None
    try:
        return parse_cuda(torch.local.split(".")[0])
    except ValueError:
        return None


def _derive_code(draft: _Draft) -> None:
    """The ultralytics code: as named, or the release that the fork was made from."""
    if "ultralytics" in draft.values:
        draft.derive("code", draft.values["ultralytics"], "ultralytics")
    elif draft.values.get("distribution") == "yolov12-fork":
        draft.derive("code", Version(load("ultralytics")["fork"]["version"]), "distribution")


def _derive_lineage(draft: _Draft) -> None:
    """Which code wrote the checkpoint: as named, by its release tag, by its hash."""
    tag = draft.values.get("asset_tag")
    if "weights_lineage" in draft.values:
        draft.derive("lineage", draft.values["weights_lineage"], "weights_lineage")
    elif tag in {"turbo", "v1.0"}:
        draft.derive("lineage", tag, "asset_tag")
    elif "sha256" in draft.values:
        digest = draft.values["sha256"]
        rows = [row for row in load("weights")["weights"] if row["sha256"] == digest]
        # Two files with the same bytes: the one that is named.
        same = [row for row in rows if row["name"] == draft.values.get("weights")]
        if rows:
            draft.derive("lineage", (same or rows)[0]["lineage"], "sha256")
