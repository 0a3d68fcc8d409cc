"""Hashes that public lock files agree on, for files that the locking machine may not reach."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["Known", "known_artifacts"]

_DATA = Path(__file__).parent / "data" / "artifacts.json"


@dataclass(frozen=True, kw_only=True)
class Known:
    """A file and its hash; `status` as in data/artifacts.json. `size` is in bytes."""

    name: str
    version: str
    file: str
    url: str | None
    sha256: str
    size: int | None
    status: str

    def is_wheel_of(self, name: str, version: str) -> bool:
        """Whether this is a wheel of the distribution `name` at `version`."""
        return self.file.startswith(f"{name}-{version}-") and self.file.endswith(".whl")


@lru_cache(maxsize=1)
def known_artifacts() -> tuple[Known, ...]:
    """Read data/artifacts.json once."""
    rows = json.loads(_DATA.read_text(encoding="utf-8"))["artifacts"]
    fields = Known.__dataclass_fields__
    return tuple(Known(**{key: row[key] for key in fields}) for row in rows)
