"""Read a Python package index: which files a project has, and what a wheel requires.

The index is the one that the machine's own client is configured for; its address is never written
down in this repository.
"""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import httpx
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

__all__ = ["File", "Index", "PackageIndex", "configured_index"]

_ACCEPT = {"Accept": "application/vnd.pypi.simple.v1+json"}
_TAIL = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class File:
    """One wheel of a project. `tags` are (interpreter, abi, platform) triples."""

    name: str
    version: Version
    tags: frozenset[tuple[str, str, str]]
    requires_python: str
    yanked: str | None
    url: str


class Index(Protocol):
    """What the generator asks of an index."""

    def wheels(self, project: str) -> list[File]:
        """Return every wheel of `project`."""

    def requires(self, wheel: File) -> list[str]:
        """Return the Requires-Dist lines of `wheel`."""


class PackageIndex:
    """An index that speaks the simple API in JSON (PEP 691)."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self._url = url.rstrip("/")
        self._client = client

    def wheels(self, project: str) -> list[File]:
        """Return every wheel of `project`, without those whose names nobody can parse."""
        address = f"{self._url}/{canonicalize_name(project)}/"
        answer = self._client.get(address, headers=_ACCEPT).raise_for_status()
        found = (_file(item) for item in answer.json()["files"])
        return [file for file in found if file is not None]

    def requires(self, wheel: File) -> list[str]:
        """Return the Requires-Dist lines: from the metadata file, else out of the wheel itself."""
        answer = self._client.get(f"{wheel.url}.metadata")
        text = answer.text if answer.is_success else self._metadata_in(wheel)
        lines = (line.partition(": ") for line in text.splitlines())
        return [value for key, _, value in lines if key == "Requires-Dist"]

    def _metadata_in(self, wheel: File) -> str:
        """Not every mirror keeps metadata files: read METADATA's few bytes out of the archive."""
        with zipfile.ZipFile(io.BufferedReader(_Remote(self._client, wheel.url), _TAIL)) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            return archive.read(name).decode("utf-8", "replace")


class _Remote(io.RawIOBase):
    """A file behind HTTP, read by ranges."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client = client
        self._url = url
        self._at = 0
        head = client.get(url, headers={"Range": "bytes=0-0"}).raise_for_status()
        self._size = int(head.headers["Content-Range"].rpartition("/")[2])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed: any buffer
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        span = {"Range": f"bytes={self._at}-{end - 1}"}
        data = self._client.get(self._url, headers=span).raise_for_status().content
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _file(item: dict[str, object]) -> File | None:
    name = str(item["filename"])
    if not name.endswith(".whl"):
        return None
    try:
        _, version, _, tags = parse_wheel_filename(name)
    except (ValueError, InvalidVersion):
        return None
    yanked = item.get("yanked") or None
    return File(
        name=name,
        version=version,
        tags=frozenset((tag.interpreter, tag.abi, tag.platform) for tag in tags),
        requires_python=str(item.get("requires-python") or ""),
        yanked=None if yanked is None else str(yanked),
        url=str(item.get("url", name)),
    )


def configured_index() -> str:
    """Return the address of the index that this machine's clients use.

    LookupError when nothing names one.
    """
    for address in _addresses():
        if address:
            return address
    raise LookupError("no package index is configured: set UV_DEFAULT_INDEX or PIP_INDEX_URL")


def _addresses() -> Iterator[str]:
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        yield os.environ.get(variable, "")
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    yield subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    try:
        default = importlib.import_module("pip._internal.models.index").PyPI.simple_url
    except (ImportError, AttributeError):
        return
    yield str(default)
