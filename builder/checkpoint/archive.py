"""The zip file that `torch.save` writes: `<name>/data.pkl`, and a storage per `<name>/data/<key>`.

Nothing is read without a bound: the directory, the pickle and the sum of what the members say they
hold are limited, and a member never gives more bytes than it says.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.checkpoint.graph import MAX_PICKLE_BYTES, CheckpointError, shown

__all__ = ["Archive", "open_archive"]

MAX_READ = MAX_PICKLE_BYTES
"""The largest piece that is read at once, in bytes. `zipfile` reads the whole directory in one
piece, about 100 bytes a member: yolo12n has 700 members."""

MAX_RATIO = 10
"""How much more the members may hold than the file. torch stores them as they are, so the ratio is
1, and trained weights don't deflate to a half. Bombs have 1000 and more, or members that overlap:
https://www.bamsoftware.com/hacks/zipbomb/, read 2026-11-25."""

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # compression methods and zip versions that zipfile doesn't know
    RuntimeError,  # encrypted members
    ValueError,  # names and numbers that make no sense
    OverflowError,
    OSError,  # offsets before the start of the file
    struct.error,  # headers that are cut off
)
_AGAIN = "Download it again."
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")


class Archive:
    """An open checkpoint file: its pickle, and how large its storages are."""

    def __init__(self, source: zipfile.ZipFile, prefix: str, members: dict[str, int]) -> None:
        self._source = source
        self._prefix = prefix
        self._members = members

    def pickle(self) -> bytes:
        """Return data.pkl, whose CRC has been checked."""
        name = f"{self._prefix}data.pkl"
        size = self._members[name]
        if size > MAX_PICKLE_BYTES:
            raise CheckpointError(
                f"its pickle is too large: {size} bytes",
                why=f"Checkpoints of YOLO have less than {MAX_PICKLE_BYTES}.",
            )
        with _readable(shown(name)), self._source.open(name) as file:
            # As many as the directory says: zipfile inflates as many as it is asked for.
            return file.read(size)

    def storage_size(self, key: str) -> int | None:
        """Return how many bytes the storage `key` has, None when there is none."""
        return self._members.get(f"{self._prefix}data/{key}")

    def verify(self) -> None:
        """Read every member; CheckpointError naming the first whose CRC is wrong."""
        with _readable("a member"):
            damaged = self._source.testzip()
        if damaged is not None:
            raise CheckpointError(
                f"{shown(damaged)} is damaged: its CRC is not the one that was stored", todo=_AGAIN
            )


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open the checkpoint at `path`; CheckpointError unless it is a whole torch file, by its looks.

    An OSError (no such file, no permission) is the caller's.
    """
    with _Bounded(path) as file:
        _expect_zip(file)
        with _readable("the zip's directory", "It stands at the end: the file may be cut off."):
            source = zipfile.ZipFile(file)
        with source:
            members = _members(source, file)
            yield Archive(source, _prefix(members), members)


class _Bounded(io.FileIO):
    """A file that refuses to be read in huge pieces, so that nothing can fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        if size > MAX_READ:
            raise CheckpointError(
                f"its zip needs {size} bytes to be read at once",
                why="The directory and the pickle of a checkpoint have less than 1 MB each.",
            )
        return super().read(size) or b""


def _expect_zip(file: _Bounded) -> None:
    start = file.read(512)
    file.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return
    raise CheckpointError(
        f"not a checkpoint: {_looks_like(start)}",
        why="torch writes checkpoints as zip files.",
        todo=_AGAIN,
    )


def _looks_like(start: bytes) -> str:
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    kinds = {
        rb"\A\Z": "an empty file" if not start else "white space",
        rb"(?i)\A<(!doctype html|html|head|\?xml)": "a web page",
        rb"\Aversion https://git-lfs": "a Git LFS pointer instead of the file that it stands for",
        rb"\A\x80[\x02-\x05]": "a bare pickle, as torch wrote before 1.6",
        rb"\APK\x05\x06": "an empty zip file",
        rb"\A\x1f\x8b": "a gzip file",
        rb"\A[{\[]": "JSON",
        rb"\A.{0,8}ftyp|\A\x89PNG|\A\xff\xd8\xff": "a picture or a film",
    }
    for pattern, kind in kinds.items():
        if re.match(pattern, head, re.DOTALL):
            return kind
    if not _TEXT.fullmatch(start):
        return f"bytes that start with {start[:8].hex(' ')}"
    return f"text: {shown(head.decode('utf-8', 'replace'))}"


def _members(source: zipfile.ZipFile, file: _Bounded) -> dict[str, int]:
    """Return the bytes that each member says it holds, when they can be believed."""
    members: dict[str, int] = {}
    for info in source.infolist():
        if info.filename in members:
            raise CheckpointError(f"two members of its zip are named {shown(info.filename)}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(
                f"{shown(info.filename)} is compressed by method {info.compress_type}",
                why="torch stores members as they are.",
            )
        members[info.filename] = info.file_size
    size = file.seek(0, io.SEEK_END)
    if sum(members.values()) > MAX_RATIO * size:
        raise CheckpointError(
            f"a zip bomb: {size} bytes that say they hold {sum(members.values())}",
            why="torch stores members as they are.",
        )
    return members


def _prefix(members: dict[str, int]) -> str:
    """Return the folder of data.pkl, with a slash."""
    found = [name for name in members if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(found) != 1:
        some = ", ".join(shown(name) for name in list(members)[:3])
        raise CheckpointError(
            f"a zip file with {'more than one' if found else 'no'} data.pkl",
            why=f"It holds {some or 'nothing'}{', ...' if len(members) > 3 else ''}.",
        )
    prefix = found[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in members:
        raise CheckpointError(
            "a TorchScript export, not a checkpoint", todo="Take the .pt file it was made from."
        )
    return prefix


@contextmanager
def _readable(what: str, why: str = "") -> Iterator[None]:
    """Turn everything that zipfile and zlib say about bad input into CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except _DAMAGE as error:
        raise CheckpointError(
            f"a truncated or damaged zip file: {what} can't be read: {shown(str(error))}",
            why=why,
            todo=_AGAIN,
        ) from error
