"""One builder at a time: who comes second waits, and is told for whom.

Two builders of one checkout would overwrite each other's records, contexts and wheels; two of one
engine would move the same tags, and one could evict what the other is about to validate. So a
builder holds two leases: `.cache/build.lock` of its checkout, and, where the engine is on this
machine, a file named after the engine. Both are flocks: the kernel gives them back when the process
ends, however it ends. What the file says is for people only; a stale note means nothing.

An engine on another machine can't be leased from here: two machines that build the same rows on it
may do work twice. They can't make a wrong record, because a row is unchanged only while the engine
has the recorded digest under its tag.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

from builder.errors import BuildFailed, Finding
from builder.talk import Talk

__all__ = ["engine_lock", "lease"]

_POLL_SECONDS = 0.2
_held: set[Path] = set()


def engine_lock(engine_id: str) -> Path:
    """Return the lock file of the engine with this id, the same for every user of this machine."""
    shared = Path("/run/lock")
    folder = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    name = "".join(char if char.isalnum() else "-" for char in engine_id) or "unknown"
    return folder / f"yolo-images-{name[:64]}.lock"


@contextmanager
def lease(*paths: Path, talk: Talk, wait: bool = True) -> Iterator[None]:
    """Hold the locks at `paths`, in this order; wait for whoever has one, or raise BuildFailed.

    Within one process a lease may be taken again by whoever holds it already.
    """
    with ExitStack() as stack:
        for path in paths:
            if path not in _held:
                stack.enter_context(_one(path, talk, wait=wait))
        yield


@contextmanager
def _one(path: Path, talk: Talk, *, wait: bool) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open(path)
    try:
        told = ""
        while not _locked(descriptor):
            holder = _holder(descriptor)
            if not wait:
                raise BuildFailed(
                    Finding(
                        place=str(path),
                        what=f"another build is running: {holder}",
                        todo="Wait for it, or leave out --no-wait to have that done for you.",
                    )
                )
            if holder != told:
                talk.line(f"waiting for another build: {holder}")
                told = holder
            time.sleep(_POLL_SECONDS)
        if told:
            talk.line("the other build has ended")
        _held.add(path)
        try:
            _sign(descriptor)
            yield
        finally:
            _held.discard(path)
    finally:
        # Closing gives the lock back. The file stays: removing it would let two others hold "it".
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open for reading and writing, or for reading: that is enough to lock what another user made.

    Where the kernel protects files in shared folders, O_CREAT on somebody else's file is refused.
    """
    careful = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | careful, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY | careful)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int) -> None:
    """Write who holds the lock into a file of our own; nobody else's is ever changed."""
    read_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    if read_only or os.fstat(descriptor).st_uid != os.geteuid():
        return
    note = {
        "pid": os.getpid(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "folder": str(Path.cwd()),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(note).encode(), 0)


def _holder(descriptor: int) -> str:
    """Say who holds the lock, as far as its note can be read."""
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        return f"pid {note['pid']}, since {note['since']}: {note['command']} in {note['folder']}"
    except (ValueError, KeyError, TypeError):
        return "somebody who has not said who"
