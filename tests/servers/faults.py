"""What can go wrong between us and a server, as data.

A `Fault` says where (a shell pattern on the path), what, and for how many requests; `PlayServer`
acts it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

__all__ = [
    "Cut",
    "Drip",
    "Fault",
    "Flip",
    "IgnoreRange",
    "Lengthen",
    "Reset",
    "Say",
    "ShiftRange",
    "Swap",
    "login_page",
    "redirect",
]


@dataclass(frozen=True)
class Say:
    """Another answer in the place of the file: busy, gone, forbidden, elsewhere."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """The promised length, then the end of the connection after so many bytes."""

    after: int


@dataclass(frozen=True)
class Reset:
    """As `Cut`, but with a TCP reset, as middle boxes end what they tire of."""

    after: int


@dataclass(frozen=True)
class Drip:
    """So many bytes at once, then `rate` bytes a second; 0 is silence on an open connection."""

    after: int
    rate: float


@dataclass(frozen=True)
class Flip:
    """One byte is another one."""

    at: int


@dataclass(frozen=True)
class Lengthen:
    """So many bytes more than the file has, fewer when negative; the length header agrees."""

    by: int


@dataclass(frozen=True)
class Swap:
    """Another version under the same address; the ETag says so, unless it is empty."""

    body: bytes
    etag: str = '"2"'


@dataclass(frozen=True)
class IgnoreRange:
    """The whole file, whatever part was asked for."""


@dataclass(frozen=True)
class ShiftRange:
    """A part that starts elsewhere, and says so."""

    by: int


What: TypeAlias = Say | Cut | Reset | Drip | Flip | Lengthen | Swap | IgnoreRange | ShiftRange


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`what` happens to the first `times` requests whose path matches; None: to all of them."""

    path: str
    what: What
    times: int | None = 1
    methods: frozenset[str] = frozenset({"GET"})

    def concerns(self, method: str, path: str) -> bool:
        """Whether a request is one that the fault may hit."""
        return method in self.methods and fnmatchcase(path, self.path)


def login_page(status: int = 200) -> Say:
    """What captive portals and proxies say instead of the file."""
    return Say(status, b"<html>Please log in</html>", {"Content-Type": "text/html; charset=utf-8"})


def redirect(to: str) -> Say:
    """Send the client elsewhere."""
    return Say(302, b"", {"Location": to})
