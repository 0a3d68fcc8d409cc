"""The data files, each read once, when first asked for."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from packaging.version import Version

__all__ = ["load", "named", "ordered", "releases"]

_FOLDER = Path(__file__).parent / "data"


@cache
def load(name: str) -> dict[str, Any]:
    """Return data/<name>.json."""
    data: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return data


@cache
def releases(table: str, part: str = "releases") -> dict[Version, tuple[str, dict[str, Any]]]:
    """Return a table keyed by version, oldest first: version -> (name as written, entry)."""
    rows = load(table)[part]
    return {Version(name): (name, rows[name]) for name in sorted(rows, key=Version)}


@cache
def ordered(table: str, part: str = "releases") -> tuple[Version, ...]:
    """Return the versions of a table, oldest first."""
    return tuple(releases(table, part))


def named(table: str, version: Version, part: str = "releases") -> dict[str, Any] | None:
    """Return the entry of `version` (2.8 is 2.8.0), None when the table has none."""
    found = releases(table, part).get(version)
    return found[1] if found else None
