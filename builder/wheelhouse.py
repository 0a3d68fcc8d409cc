"""Locked files that already lie on this machine, gathered into one folder for a build.

They come from pip's find-links folders and from `file://` indexes; only a file whose sha256 is in
the lock is taken, so a local index can make a build faster but never different.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from builder.requirements import parse_lock

__all__ = ["collect_wheels", "sha256_of"]

_CHUNK = 1 << 20


def collect_wheels(
    lock_text: str, folder: Path, find_links: Iterable[str], indexes: Iterable[str]
) -> tuple[Path, ...]:
    """Make `folder` hold exactly the locked files found locally; return them by name."""
    wanted: dict[str, set[str]] = {}
    for entry in parse_lock(lock_text):
        wanted.setdefault(entry.name, set()).update(entry.hashes)
    folder.mkdir(parents=True, exist_ok=True)
    kept: set[Path] = set()
    for candidate, promised in _candidates(wanted, find_links, indexes):
        hashes = wanted[_name_of(candidate.name)]
        target = folder / candidate.name
        if target in kept or (promised is not None and promised not in hashes):
            continue
        if _is_copy(target, candidate) or sha256_of(candidate) in hashes:
            _place(candidate, target)
            kept.add(target)
    for path in set(folder.iterdir()) - kept:
        path.unlink()
    return tuple(sorted(kept))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _candidates(
    wanted: Mapping[str, set[str]], find_links: Iterable[str], indexes: Iterable[str]
) -> Iterator[tuple[Path, str | None]]:
    """Yield local files of wanted distributions, with the sha256 that an index promises."""
    for folder in filter(None, map(_local_path, find_links)):
        for path in sorted(folder.glob("*")):
            if path.is_file() and _name_of(path.name) in wanted:
                yield path, None
    for root in filter(None, map(_local_path, indexes)):
        for name in sorted(wanted):
            page = root / name / "index.html"
            if page.is_file():
                yield from _links(page, name)


def _links(page: Path, name: str) -> Iterator[tuple[Path, str | None]]:
    parser = _Anchors()
    parser.feed(page.read_text(encoding="utf-8", errors="replace"))
    for href in parser.found:
        url, fragment = urldefrag(urljoin(page.as_uri(), href))
        path = _local_path(url)
        if path is not None and path.is_file() and _name_of(path.name) == name:
            promised = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
            yield path, promised


class _Anchors(HTMLParser):
    """The links of a PEP 503 page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of every anchor."""
        if tag == "a":
            self.found.extend(value for name, value in attrs if name == "href" and value)


def _local_path(place: str) -> Path | None:
    """Return the path of a `file://` URL or a plain path; None for anything remote."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in place else Path(place).expanduser()


def _name_of(file: str) -> str:
    """Return the canonical distribution name of a wheel or sdist; "" when it is neither."""
    try:
        if file.endswith(".whl"):
            return parse_wheel_filename(file)[0]
        return parse_sdist_filename(file)[0]
    except (InvalidWheelFilename, InvalidSdistFilename):
        # Old build tools wrote names that today's rules refuse, such as Flask_Bcrypt-1.0.1.tar.gz.
        return canonicalize_name(file.partition("-")[0]) if file.endswith(".whl") else ""


def _is_copy(target: Path, source: Path) -> bool:
    """Whether `target` was placed from `source` before, and neither changed since."""
    if not target.exists():
        return False
    if target.samefile(source):
        return True
    there, here = target.stat(), source.stat()
    return (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns)


def _place(source: Path, target: Path) -> None:
    if _is_copy(target, source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
