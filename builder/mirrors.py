"""Other places for files that lie outside the package index: what to try, and in which order.

A lock names the official address of a file. Where that host can't be reached, or is slow, a mirror
serves the same bytes: the hash in the lock decides, so a mirror can make a build faster but never
different. Mirrors are tried in the order in which they are written, the official address last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from builder.apt import redact

__all__ = ["GITHUB", "NVIDIA", "PYTORCH", "Mirrors", "file_of", "public_url"]

PYTORCH = "https://download.pytorch.org/whl"
NVIDIA = "https://pypi.nvidia.com"
GITHUB = "https://github.com"


@dataclass(frozen=True, kw_only=True, repr=False)
class Mirrors:
    """Base URLs. `pytorch`, `nvidia` and `github` stand for those hosts, paths kept.

    `weights` and `wheels` are folders that hold checkpoints (`.pt`) and wheels by file name.
    """

    pytorch: tuple[str, ...] = ()
    nvidia: tuple[str, ...] = ()
    github: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)}" for name in self.__dataclass_fields__)
        return redact(f"Mirrors({shown})")

    def candidates(self, url: str) -> tuple[str, ...]:
        """Return where the file at the official `url` may be had, `url` itself last."""
        return tuple(dict.fromkeys((*self._by_name(url), *self._by_host(url), url)))

    def _by_name(self, url: str) -> Iterator[str]:
        name = urlsplit(url).path.rpartition("/")[2]
        folders = {".pt": self.weights, ".whl": self.wheels}
        for suffix, bases in folders.items():
            if name.endswith(suffix):
                yield from (f"{base.rstrip('/')}/{name}" for base in bases)

    def _by_host(self, url: str) -> Iterator[str]:
        hosts = {PYTORCH: self.pytorch, NVIDIA: self.nvidia, GITHUB: self.github}
        for official, bases in hosts.items():
            if url.startswith(official + "/"):
                yield from (base.rstrip("/") + url[len(official) :] for base in bases)


def file_of(url: str) -> str:
    """Return the file name that `url` ends in, as it is on disk.

    The last part after decoding: an encoded slash leads into no other folder.
    """
    return unquote(urlsplit(url).path).rpartition("/")[2]


def public_url(url: str) -> str:
    """Return an http(s) URL without user, password, query and fragment; "" for any other."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
