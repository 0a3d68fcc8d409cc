"""What holds while one command builds: the engine, the leases, room on the disk, and no leftovers.

A builder that was killed leaves what it could not remove itself: folders with secrets, and record
files that it had not finished. The next session removes them before anything else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient

from builder.disk import is_full, on_full_disk
from builder.engine.cache import engine_id
from builder.engine.client import EngineTrouble, connect
from builder.engine.install import store_fault
from builder.errors import EngineUnavailable, Finding
from builder.folders import Folders
from builder.lease import engine_lock, lease
from builder.room import DiskOptions, Room
from builder.talk import Talk

__all__ = ["Session", "remove_leftovers", "session"]


@dataclass(frozen=True, kw_only=True)
class Session:
    """An engine that nobody else builds with, and its disk."""

    client: DockerClient
    room: Room


@contextmanager
def session(
    folders: Folders, disk: DiskOptions, talk: Talk, *, wait: bool = True
) -> Iterator[Session]:
    """Open a session: wait for other builders (or not), remove what dead ones left.

    An engine that goes away meanwhile is EngineUnavailable, a full disk is BuildFailed. At the end
    our own engine's build cache is brought below its budget.
    """
    with closing(connect()) as client, _engine_trouble(), on_full_disk("building"):
        if (fault := store_fault(client)) is not None:
            raise EngineUnavailable(fault)
        checkout, engine = folders.cache / "build.lock", engine_lock(engine_id(client))
        with lease(checkout, engine, talk=talk, wait=wait):
            for path in remove_leftovers(folders):
                talk.line(f"removed {path.relative_to(folders.root)}, left by a build that died")
            room = Room.of(client, folders, disk, talk)
            with room.tidied():
                yield Session(client=client, room=room)


@contextmanager
def _engine_trouble() -> Iterator[None]:
    try:
        yield
    except EngineTrouble as error:
        full = is_full(str(error))
        raise EngineUnavailable(
            Finding(
                place="",
                what="the engine's disk is full" if full else "the engine went away",
                why=str(error),
                todo="Free some space on its disk, then repeat: finished steps are kept."
                if full
                else "Start it again (make engine) and repeat: finished steps are kept.",
            )
        ) from error


def remove_leftovers(folders: Folders) -> list[Path]:
    """Remove secrets and unfinished records of builders that died; return what was removed.

    A folder of secrets is named after its process; one whose process lives is left alone.
    """
    secrets = [path for path in folders.cache.glob("secrets-*") if not _alive(path)]
    for path in secrets:
        shutil.rmtree(path, ignore_errors=True)
    records = [path for path in folders.out.glob("*/.*.json.*") if path.is_file()]
    for path in records:
        path.unlink(missing_ok=True)
    return [*secrets, *records]


def _alive(secrets: Path) -> bool:
    try:
        pid = int(secrets.name.removeprefix("secrets-"))
        os.kill(pid, 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
