"""Locked files that already lie on this machine, gathered into one folder for a build.

They come from pip's find-links folders and from `file://` indexes; only a file whose sha256 is in
the lock is taken, so a local index can make a build faster but never different.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.requirements import parse_lock
from builder.simple_index import links_of, name_of

__all__ = ["collect_wheels", "local_folders", "place", "sha256_of"]

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
        hashes = wanted[name_of(candidate.name)]
        target = folder / candidate.name
        if target in kept or (promised is not None and promised not in hashes):
            continue
        if _is_copy(target, candidate) or sha256_of(candidate) in hashes:
            place(candidate, target)
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


def local_folders(find_links: Iterable[str]) -> Iterator[Path]:
    """Yield the folders of this machine among pip's find-links."""
    for text in find_links:
        folder = _local_path(text)
        if folder is not None and folder.is_dir():
            yield folder


def _candidates(
    wanted: Mapping[str, set[str]], find_links: Iterable[str], indexes: Iterable[str]
) -> Iterator[tuple[Path, str | None]]:
    """Yield local files of wanted distributions, with the sha256 that an index promises."""
    for folder in local_folders(find_links):
        for path in sorted(folder.glob("*")):
            if path.is_file() and name_of(path.name) in wanted:
                yield path, None
    for root in filter(None, map(_local_path, indexes)):
        for name in sorted(wanted):
            page = root / name / "index.html"
            if page.is_file():
                yield from _links(page, name)


def _links(page: Path, name: str) -> Iterator[tuple[Path, str | None]]:
    html = page.read_text(encoding="utf-8", errors="replace")
    for link in links_of(html, page.as_uri()):
        path = _local_path(link.url)
        if path is not None and path.is_file() and name_of(path.name) == name:
            yield path, link.sha256


def _local_path(place: str) -> Path | None:
    """Return the path of a `file://` URL or a plain path; None for anything remote."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in place else Path(place).expanduser()


def _is_copy(target: Path, source: Path) -> bool:
    """Whether `target` was placed from `source` before, and neither changed since."""
    if not target.exists():
        return False
    if target.samefile(source):
        return True
    there, here = target.stat(), source.stat()
    return (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns)


def place(source: Path, target: Path) -> None:
    """Make `target` the file `source`: a link where the file system allows, else a copy."""
    if _is_copy(target, source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
