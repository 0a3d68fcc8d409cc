"""Tar archives that nobody vouches for, read forward once and in bounded memory.

`tarfile` parses the headers; what it may read, and how much of it, is decided here.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol, cast

__all__ = ["BLOCK", "Bounded", "Forward", "Limits", "Source", "Unreadable", "walk"]

BLOCK = 1 << 20


class Unreadable(Exception):
    """The archive is damaged, or asks for more than `Limits` allow."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an image may ask of its reader. Sizes are bytes; the numbers leave real images room.

    The images of November 2026 have 40,000 entries and 8 GB. `document` is what containers/image
    takes of a manifest or a configuration (internal/iolimits of v5.32.2). `ratio` is what gzip can
    reach, about 1030:1 (zlib.org/zlib_tech.html); zeros in zstd reach more, but no layer of use is
    made of zeros. Both were read on 2026-11-25.
    """

    blobs: int = 1_000
    entries: int = 1_000_000
    path: int = 4_096
    headers: int = 1 << 20
    document: int = 4 << 20
    layer: int = 128 << 30
    ratio: int = 1_000
    kept: int = 64 << 20

    def unpacked(self, packed: int) -> int:
        """The bytes that `packed` bytes may become."""
        return min(self.layer, max(self.headers, packed) * self.ratio)


class Source(Protocol):
    """What bytes come from: fills (part of) a buffer, 0 at the end."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Return how many bytes were put into `buffer`."""


class Bounded(io.RawIOBase):
    """The next `size` bytes of a source as a file of its own, hashed as they pass."""

    def __init__(self, source: Source, size: int) -> None:
        super().__init__()
        self.size = size
        self.hash = hashlib.sha256()
        self._source = source
        self._left = size
        self._head = b""

    def readable(self) -> bool:
        """Always: this is how `io` asks."""
        return True

    def peek(self, count: int) -> bytes:
        """Return the first bytes, at most `count`, and leave them to be read."""
        self._head = _filled(self, count)
        return self._head

    def readinto(self, buffer: object) -> int:
        """Fill (part of) `buffer`; Unreadable when the source ends too early."""
        view = cast("memoryview", buffer)  # typeshed's Buffer is no name that 3.10 can import
        view = memoryview(view).cast("B")
        if self._head:
            count = min(len(view), len(self._head))
            view[:count], self._head = self._head[:count], self._head[count:]
            return count
        want = view[: self._left]
        if not want:
            return 0
        count = self._source.readinto(want) or 0
        if count == 0:
            raise Unreadable(f"it ends {self._left} bytes too early")
        self._left -= count
        self.hash.update(want[:count])
        return count

    def drain(self) -> None:
        """Read what is left, so that the hash is whole."""
        buffer = memoryview(bytearray(BLOCK))
        while self.readinto(buffer):
            pass


def _filled(source: Source, count: int) -> bytes:
    """Read until `count` bytes are there or the source ends."""
    buffer = memoryview(bytearray(count))
    position = 0
    while position < count and (got := source.readinto(buffer[position:])):
        position += got
    return bytes(buffer[:position])


class Forward:
    """A stream that `tarfile` may read: only forward, and headers of a bounded size.

    `tarfile` takes a header's word for its size and would read gigabytes of it into memory.
    """

    def __init__(self, source: Source, limits: Limits, *, most: int, hashed: bool = False) -> None:
        self._hash = hashlib.sha256() if hashed else None
        self.position = 0
        self._source = source
        self._limits = limits
        self._most = most
        self._allowance = limits.headers
        self._buffer = memoryview(bytearray(BLOCK))

    def readinto(self, buffer: memoryview) -> int:
        """Fill (part of) `buffer`, count and hash."""
        count = self._source.readinto(buffer) or 0
        self.position += count
        if self.position > self._most:
            raise Unreadable(f"it unpacks to more than {self._most} bytes")
        if self._hash is not None:
            self._hash.update(buffer[:count])
        return count

    def hexdigest(self) -> str:
        """The SHA-256 of what has been read; "" when it was not `hashed`."""
        return self._hash.hexdigest() if self._hash is not None else ""

    def next_entry(self) -> None:
        """Allow the headers of one more entry to be read."""
        self._allowance = self._limits.headers

    def read(self, size: int) -> bytes:
        """Return a piece of a header, shorter at the end of the stream."""
        self._allowance -= size
        if size < 0 or self._allowance < 0:
            raise Unreadable(f"the headers of an entry take more than {self._limits.headers} bytes")
        return _filled(self, size)

    def blocks(self, count: int) -> Iterator[memoryview]:
        """Yield the next `count` bytes in pieces that are valid until the next one."""
        while count > 0:
            got = self.readinto(self._buffer[: min(count, BLOCK)])
            if got == 0:
                raise Unreadable("a file in it is cut off")
            count -= got
            yield self._buffer[:got]

    def tell(self) -> int:
        """The bytes read so far."""
        return self.position

    def seek(self, position: int) -> None:
        """Skip forward to `position`."""
        if position < self.position:
            raise Unreadable("an entry lies before the one that precedes it")
        for _ in self.blocks(position - self.position):
            pass

    def drain(self) -> None:
        """Read to the end; Unreadable when anything but zeros comes there.

        What lies behind the end of an archive is seen by no container, nor by whoever looks for
        what an image holds.
        """
        while count := self.readinto(self._buffer):
            if any(self._buffer[:count]):
                raise Unreadable("it is damaged, or has data behind its end")


def walk(forward: Forward) -> Iterator[tarfile.TarInfo]:
    """Yield the entries; read an entry's content from `forward` before the next one, or never."""
    # backslashreplace: names that are not UTF-8 can be printed, and written into JSON.
    archive = tarfile.TarFile(
        fileobj=cast("IO[bytes]", forward), encoding="utf-8", errors="backslashreplace"
    )
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all; typeshed hides it
        # The image specification advises against sparse files, and Docker writes none.
        if member.issparse() or member.size < 0:
            raise Unreadable(f"{member.name}: a sparse file, or one of negative size")
        yield member
        forward.next_entry()
    forward.drain()
