"""Remove what the toolkit made, and only that; say what stays and why."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

from docker import DockerClient

from builder.engine.cache import engine_id
from builder.engine.client import connect
from builder.engine.install import our_daemon, owns_engine
from builder.engine.leftovers import remove_build_cache, remove_containers, remove_images
from builder.errors import EngineUnavailable
from builder.host_packages import pinned_files
from builder.lease import engine_lock, lease
from builder.plan import IMAGE_PREFIX
from builder.talk import Talk, human_bytes

__all__ = ["clean"]


def clean(root: Path, talk: Talk) -> None:
    """Remove our containers, images, results and caches of the checkout at `root`.

    BuildFailed while somebody builds here, or with this engine.
    """
    with lease(root / ".cache" / "build.lock", talk=talk, wait=False):
        _clean(root, talk)


def _clean(root: Path, talk: Talk) -> None:
    ours = our_daemon(root).pid() is not None
    try:
        client = connect()
    except EngineUnavailable:
        talk.line("left: containers and images, because no engine answers")
    else:
        with closing(client), lease(engine_lock(engine_id(client)), talk=talk, wait=False):
            # Ours may run and another be in use: DOCKER_HOST decides whose cache this is.
            _clean_engine(client, talk, ours=owns_engine(root))
    _clean_folders(root, talk, keep_engine=ours)
    _tell_what_stays(root, talk, ours=ours)


def _clean_engine(client: DockerClient, talk: Talk, *, ours: bool) -> None:
    talk.line(f"removed: {remove_containers(client)} containers")
    removed, left = remove_images(client, f"{IMAGE_PREFIX}/")
    for tag in removed:
        talk.line(f"removed: image {tag}")
    for line in left:
        talk.line(f"left: image {line}")
    if ours:
        talk.line(f"removed: {human_bytes(remove_build_cache(client))} of build cache")
    else:
        talk.line(
            "left: the build cache, because this engine is not ours and its cache holds other"
            " projects too (docker buildx prune)"
        )


def _clean_folders(root: Path, talk: Talk, *, keep_engine: bool) -> None:
    # The lock's file stays, for whoever waits for it holds this very one; compiled wheels stay,
    # for they are hours of work.
    keep = {"build.lock", "wheels", *(["engine"] if keep_engine else [])}
    caches = [path for path in sorted((root / ".cache").glob("*")) if path.name not in keep]
    for path in (root / "out", *caches):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or path.exists():
            path.unlink()
        else:
            continue
        talk.line(f"removed: {path.relative_to(root)}")


def _tell_what_stays(root: Path, talk: Talk, *, ours: bool) -> None:
    if (root / ".cache" / "wheels").exists():
        talk.line("left: .cache/wheels, which took hours to compile (rm -r .cache/wheels)")
    if ours:
        talk.line("left: the engine, which still runs (make engine-stop)")
    for path in pinned_files("trixie"):
        if path.exists():
            talk.line(f"left: {path}, because the installed engine's updates come through it")
    if (root / ".venv").exists():
        talk.line("left: .venv, because make runs from it (rm -r .venv)")
