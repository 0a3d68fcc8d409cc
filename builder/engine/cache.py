"""What builds leave in the engine: how much it is, and how it is taken back.

Only an engine that this toolkit started has a build cache of ours alone: BuildKit notes no owner on
its records. On any other engine the cache is left as it is. Images are ours when they carry our
label and lie under our name; an image that a container uses stays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from docker import DockerClient
from docker.errors import APIError, ImageNotFound

from builder.disk import space_of
from builder.engine.client import engine_errors, engine_host
from builder.talk import Talk, human_bytes

__all__ = [
    "cache_size",
    "data_roots",
    "default_budget",
    "engine_id",
    "evict",
    "image_digest",
    "prune",
    "superseded",
]

_ROW_LABEL = "org.yolo-images.row"
_SYSTEM_CONTAINERD = Path("/var/lib/containerd")

ONE_STACK = 16_000_000_000
"""Bytes of build cache that one CUDA stack fills (12.5 GB measured 2026-11-25), and some air."""


def data_roots(client: DockerClient, containerd: Path = _SYSTEM_CONTAINERD) -> tuple[Path, ...]:
    """Return the folders where the engine keeps its data, when they are on this machine.

    Empty for an engine that is reached over the network, or whose socket leads into a virtual
    machine. A dockerd that uses the system's containerd keeps images in that one's folder.
    """
    if not engine_host().startswith("unix://"):
        return ()
    with engine_errors("asking the engine where its data lies"):
        root = Path(str(client.info().get("DockerRootDir") or "/nowhere"))
    if not _there(root):
        return ()
    own = _there(root / "containerd" / "daemon")
    return (root, containerd) if not own and _there(containerd) else (root,)


def _there(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:  # below a folder that only root may enter
        return False


def engine_id(client: DockerClient) -> str:
    """Return the engine's own id: the same for everyone who uses it."""
    with engine_errors("asking the engine for its id"):
        return str(client.info().get("ID") or "")


def cache_size(client: DockerClient) -> int:
    """Return the bytes of the engine's build cache.

    Records that images share count too: with the containerd image store BuildKit and the image
    each have their own unpacked copy (measured 2026-11-25, Docker 26.1: pruning the shared records
    of a 40 MB image gave 129 MB back).
    """
    with engine_errors("measuring the build cache"):
        records: list[dict[str, Any]] = client.api.df().get("BuildCache") or []
    return sum(int(record.get("Size") or 0) for record in records)


def default_budget(root: Path) -> int:
    """Return the build cache's budget: a fifth of the disk, but one CUDA stack at least."""
    return max(ONE_STACK, space_of(root).total // 5)


def prune(
    client: DockerClient, budget: int, *, used_since: float | None = None, keep_used: bool = False
) -> int:
    """Bring the build cache below `budget` bytes; return the bytes given back.

    What was not used since `used_since` (of `time.time`) goes first; then, unless `keep_used`, all
    the rest that no build is using. BuildKit's own keep-storage would not do: it leaves records
    that images share out of its sum.
    """
    before = size = cache_size(client)
    with engine_errors("pruning the build cache"):
        if used_since is not None and size > budget:
            age = math.ceil(time.time() - used_since) + 1  # seconds since the last use
            client.api.prune_builds(filters={"until": f"{age}s"}, all=True)
            size = cache_size(client)
        if size > budget and not keep_used:
            client.api.prune_builds(all=True)
            size = cache_size(client)
    return max(0, before - size)


def image_digest(client: DockerClient, reference: str) -> str | None:
    """Return the digest that `reference` has now, None when the engine has no such image."""
    raw = _inspect(client, reference)
    return None if raw is None else str(raw.get("Id") or "")


def _inspect(client: DockerClient, reference: str) -> dict[str, Any] | None:
    with engine_errors(f"looking for {reference}"):
        try:
            raw: dict[str, Any] = client.api.inspect_image(reference)  # type: ignore[no-untyped-call]  # the stubs leave it open
        except ImageNotFound:
            return None
    return raw


def evict(client: DockerClient, reference: str, digest: str) -> str | None:
    """Remove `reference` if it still is `digest`; return None, or why the image stays."""
    if image_digest(client, reference) != digest:
        return "its tag has moved to another image"
    return _remove(client, reference)


@contextmanager
def superseded(client: DockerClient, row: str, reference: str, talk: Talk) -> Iterator[None]:
    """Remove the image that `reference` stood for, if the body gives that name to another one.

    Such an image keeps gigabytes of layers alive and nobody can name it. It stays when it has
    another tag, when a container uses it, or when it isn't an image of `row`.
    """
    raw = _inspect(client, reference)
    yield
    # An image without labels has null in the place of the mapping.
    labels = ((raw or {}).get("Config") or {}).get("Labels") or {}
    if raw is None or labels.get(_ROW_LABEL) != row:
        return
    old = str(raw.get("Id") or "")
    if image_digest(client, reference) == old:
        return
    left = _inspect(client, old)
    if left is None or left.get("RepoTags"):
        return
    reason = _remove(client, old)
    size = human_bytes(int(raw.get("Size") or 0))
    if reason is None:
        talk.line(f"{row}: removed the image before this one ({old[:19]}, {size})")
    else:
        talk.line(f"{row}: the image before this one stays ({old[:19]}, {size}): {reason}")


def _remove(client: DockerClient, name: str) -> str | None:
    with engine_errors(f"removing {name}"):
        try:
            client.images.remove(name)
        except ImageNotFound:
            return None
        except APIError as error:
            if error.status_code != requests.codes.conflict:
                raise
            return str(error.explanation)
    return None
