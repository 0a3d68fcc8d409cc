"""Which base the images stand on: Debian by digest from a registry, or made from its packages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import httpx

from builder.folders import Folders
from builder.httpclient import open_client
from builder.lock import BaseLock, Lock
from builder.plan import EPOCH
from builder.rootfs import bootstrap
from builder.sources import Sources
from builder.spec import ImageSpec
from builder.talk import Talk

__all__ = ["BaseChoice", "choose_bases", "registry_answers"]

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
            result[suite] = ("bootstrap", f"sha256:{_sha256(tar)}")
    return result


def registry_answers(base: BaseLock, sources: Sources) -> bool:
    """Whether the registry speaks to us; 401 is its usual greeting to somebody without a token."""
    host = base.repository.partition("/")[0]
    # docker.io is a name for people; its registry has another host:
    # https://github.com/distribution/reference/blob/main/normalize.go, read 2026-11-23.
    host = "registry-1.docker.io" if host == "docker.io" else host
    try:
        with open_client(sources, _TIMEOUT) as client:
            answer = client.get(f"https://{host}/v2/")
    except httpx.HTTPError:
        return False
    return answer.status_code in {httpx.codes.OK, httpx.codes.UNAUTHORIZED}


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
