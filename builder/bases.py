"""Which base the images stand on: Debian by digest from a registry, or made from its packages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import httpx

from builder.baselock import drift, lock_path, parse_packages, write_base_lock
from builder.folders import Folders
from builder.httpclient import open_client
from builder.lock import BaseLock, Lock
from builder.plan import EPOCH
from builder.rootfs import bootstrap
from builder.sources import Sources
from builder.spec import ImageSpec
from builder.talk import Talk

__all__ = ["BaseChoice", "choose_bases", "lock_base", "registry_answers"]

BaseChoice = Literal["auto", "registry", "bootstrap"]
_TIMEOUT = 5.0


def choose_bases(
    rows: Sequence[ImageSpec],
    locks: Mapping[str, Lock],
    choice: BaseChoice,
    folders: Folders,
    sources: Sources,
    talk: Talk,
) -> dict[str, tuple[Literal["registry", "bootstrap"], str]]:
    """Return (source, digest) of the base for each Debian suite that the rows use.

    `auto` takes the registry where it answers. A bootstrapped base has the digest of its tar.
    """
    bases = {row.stack.suite: locks[row.id].record.base for row in rows}
    result: dict[str, tuple[Literal["registry", "bootstrap"], str]] = {}
    for suite, base in bases.items():
        if choice == "registry" or (choice == "auto" and registry_answers(base, sources)):
            result[suite] = ("registry", base.digest)
        else:
            tar = bootstrap(suite, folders.cache / "rootfs", sources, EPOCH, talk)
            _tell_drift(suite, tar, folders, talk)
            result[suite] = ("bootstrap", f"sha256:{_sha256(tar)}")
    return result


def lock_base(suite: str, folders: Folders, sources: Sources, talk: Talk, *, refresh: bool) -> None:
    """Bootstrap the base of `suite` and lock its packages; `refresh` takes the mirror's newest."""
    tar = bootstrap(suite, folders.cache / "rootfs", sources, EPOCH, talk, refresh=refresh)
    packages = parse_packages(tar.with_name("packages.txt").read_text(encoding="utf-8"))
    write_base_lock(lock_path(folders.locks, suite), packages)
    talk.line(f"base {suite}: {len(packages)} Debian packages locked")


def _tell_drift(suite: str, tar: Path, folders: Folders, talk: Talk) -> None:
    path = lock_path(folders.locks, suite)
    if not path.is_file():
        return
    locked = parse_packages(path.read_text(encoding="utf-8"))
    found = parse_packages(tar.with_name("packages.txt").read_text(encoding="utf-8"))
    changes = list(drift(locked, found))
    if changes:
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        talk.line(
            f"base {suite}: not the packages in {path.name}: {'; '.join(changes[:5])}{more}."
            " Digests will differ from those built on the locked ones; to lock these:"
            " python3 build.py lock --upgrade base"
        )


def registry_answers(base: BaseLock, sources: Sources) -> bool:
    """Whether the registry speaks to us; 401 is its usual greeting to somebody without a token."""
    host = base.repository.partition("/")[0]
    # docker.io is a name for people; its registry has another host:
    # https://github.com/distribution/reference/blob/main/normalize.go, read 2026-11-23.
    host = "registry-1.docker.io" if host == "docker.io" else host
    return _speaks(host, sources)


@cache
def _speaks(host: str, sources: Sources) -> bool:
    """Ask once more before a no: all images of a base are made anew when the answer changes."""
    for _ in range(2):
        try:
            with open_client(sources, _TIMEOUT) as client:
                code = client.get(f"https://{host}/v2/").status_code
        except httpx.HTTPError:
            continue
        if code in {httpx.codes.OK, httpx.codes.UNAUTHORIZED, httpx.codes.TOO_MANY_REQUESTS}:
            return True
    return False


def _sha256(path: Path) -> str:
    """Hash a file once: the answer lies beside it while the file doesn't change."""
    note = path.with_name(path.name + ".sha256")
    state = path.stat()
    stamp = f"{state.st_size} {state.st_mtime_ns}"
    if note.is_file():
        known, _, value = note.read_text().partition(" sha256:")
        if known == stamp:
            return value.strip()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    note.write_text(f"{stamp} sha256:{digest.hexdigest()}\n")
    return digest.hexdigest()
