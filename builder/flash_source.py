"""flash-attn's source archive: from a local folder, the store, or the package index, by hash.

uv installs what a lock names but hands out no archive, and a compilation of hours wants one that is
there, whole and verified, before it starts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import httpx

from builder.downloads import fetch
from builder.errors import Finding, SourceUnreachable
from builder.httpclient import open_client
from builder.indexes import asked_indexes
from builder.mirrors import file_of
from builder.requirements import Locked
from builder.simple_index import Link, links_of
from builder.sources import Sources
from builder.store import Store
from builder.wheelhouse import place, sha256_of

__all__ = ["hand_out_source"]

_PAGE_SECONDS = 30.0


def hand_out_source(source: Locked, store: Store, folder: Path) -> Path:
    """Put the archive that `source` names into `folder`, whole and verified; return it.

    Raises SourceUnreachable when no place of this machine has it.
    """
    name = f"{source.name.replace('-', '_')}-{source.version}.tar.gz"
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if _here(source, store.sources, target):
        return target
    stored = [store.folders.file(sha256, name) for sha256 in source.hashes]
    path = next((path for path in stored if path.is_file() and _is_whole(path)), None)
    if path is None:
        link = _on_the_index(name, source, store.sources)
        sha256 = link.sha256 or source.hashes[0]
        path = store.folders.file(sha256, name)
        fetch(link.url, path, sha256=sha256, size=None, sources=store.sources, talk=store.talk)
    place(path, target)
    return target


def _is_whole(path: Path) -> bool:
    """Whether a file of the store has the hash that its folder is named after."""
    return sha256_of(path) == path.parent.name


def _here(source: Locked, sources: Sources, target: Path) -> bool:
    """Whether one of this machine's folders or file indexes had the archive; it is placed then."""
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        for path in sources.collect_wheels(f"{source}\n", Path(work)):
            if path.name == target.name:
                place(path, target)
                return True
    return False


def _on_the_index(name: str, source: Locked, sources: Sources) -> Link:
    """Ask the package indexes of this machine where the archive lies."""
    asked = asked_indexes(sources)
    with open_client(sources, _PAGE_SECONDS) as client:
        for index in asked:
            page = f"{index.rstrip('/')}/{source.name}/"
            try:
                answer = client.get(page, headers={"Accept": "text/html"})
            except httpx.HTTPError:
                continue
            if not answer.is_success:
                continue
            for link in links_of(answer.text, str(answer.url)):
                if file_of(link.url) == name and link.sha256 in {None, *source.hashes}:
                    return link
    raise SourceUnreachable(
        Finding(
            place=name,
            what="no package index of this machine serves it with the hash of the lock",
            why=f"{len(asked)} were asked.",
            todo="Check the network and the index that pip or uv is configured with.",
        )
    )
