"""uv's own configuration files, as far as they say where packages come from.

https://docs.astral.sh/uv/concepts/configuration-files/, read 2026-11-25: UV_CONFIG_FILE in the
place of all others; else the user's file, then the system's, key by key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import tomli

from builder.errors import Finding, InvalidInput

__all__ = ["read_uv_config"]

# uv's keys, and pip's names for the same.
_KEYS = {
    "index-url": "index-url",
    "extra-index-url": "extra-index-url",
    "find-links": "find-links",
    "no-index": "no-index",
    "allow-insecure-host": "trusted-host",
}


def read_uv_config(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what uv's files say, under pip's names and in its form: words separated by spaces."""
    found: dict[str, str] = {}
    for path in _files(environment):
        if path.is_file():
            found = {**_settings(path), **found}
    return found


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files that count, from the one that wins on."""
    if environment.get("UV_NO_CONFIG", "").lower() in {"1", "true", "yes", "on"}:
        return
    if named := environment.get("UV_CONFIG_FILE"):
        yield Path(named)
        return
    home = environment.get("HOME", "/nowhere")
    user = environment.get("XDG_CONFIG_HOME") or f"{home}/.config"
    yield Path(user) / "uv" / "uv.toml"
    for folder in (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        yield Path(folder) / "uv" / "uv.toml"
    yield Path("/etc/uv/uv.toml")


def _settings(path: Path) -> dict[str, str]:
    try:
        document = tomli.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(
            Finding(place=str(path), what=f"can't be read: {error}", todo="Correct the file.")
        ) from error
    pip = document.get("pip")
    document.update(pip if isinstance(pip, dict) else {})
    found = {ours: _words(document[theirs]) for theirs, ours in _KEYS.items() if theirs in document}
    indexes = [entry for entry in document.get("index", ()) if "url" in entry]
    defaults = [str(entry["url"]) for entry in indexes if entry.get("default")]
    others = [
        str(entry["url"])
        for entry in indexes
        if not entry.get("default") and not entry.get("explicit")
    ]
    if defaults:
        found["index-url"] = defaults[0]
    if others:
        found["extra-index-url"] = " ".join(others)
    return found


def _words(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
