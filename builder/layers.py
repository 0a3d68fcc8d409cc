"""What lies in the layers of an image: entries, layers, and what a container sees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["NO_PAX", "Compression", "Entry", "Image", "Kind", "Layer", "Look", "printable"]

Compression = Literal["zstd", "gzip", "none"]
Kind = Literal["file", "folder", "symlink", "hardlink", "char", "block", "fifo", "other"]

NO_PAX: Mapping[str, str] = MappingProxyType({})
# https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts, 2026-11-25
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One entry of a layer. `path` has no leading slash; the root is "".

    `size` is bytes of content, `mtime` seconds since 1970, `pax` what extended headers say beyond
    the other fields (`SCHILY.xattr.*`). `sha256` and `content` are None unless they were asked for.
    """

    path: str
    kind: Kind
    size: int
    mode: int
    uid: int
    gid: int
    owner: str
    group: str
    mtime: float
    target: str
    device: tuple[int, int]
    pax: Mapping[str, str]
    sha256: str | None = None
    content: bytes | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def opaque(self) -> str | None:
        """The folder in which it hides everything that earlier layers have there."""
        folder, _, name = self.path.rpartition("/")
        return folder if name == _OPAQUE else None

    @property
    def removes(self) -> str | None:
        """The path of an earlier layer that this whiteout removes."""
        folder, slash, name = self.path.rpartition("/")
        if name.startswith(_WHITEOUT) and name != _OPAQUE:
            return f"{folder}{slash}{name.removeprefix(_WHITEOUT)}"
        return None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: `digest` of the compressed bytes (`size`), `diff_id` of the `unpacked` ones.

    `step` is the line of the Dockerfile as the history has it, "" where there is no history.
    `unpacked`, `compression` and `entries` are None for a layer that was not to be looked into.
    """

    digest: str
    diff_id: str
    size: int
    step: str = ""
    unpacked: int | None = None
    compression: Compression | None = None
    entries: tuple[Entry, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Image:
    """A manifest, its configuration, and its layers from the lowest to the highest.

    `size` is what a registry transfers: layers, configuration and manifest.
    """

    digest: str
    manifest: Mapping[str, Any]
    config_digest: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    size: int

    def files(self) -> dict[str, tuple[int, Entry]]:
        """What a container sees: path -> index of the layer, and its entry; no whiteouts."""
        seen: dict[str, tuple[int, Entry]] = {}
        for index, layer in enumerate(self.layers):
            entries = layer.entries or ()
            opaque = {entry.opaque for entry in entries} - {None}
            gone = {entry.removes for entry in entries} - {None}
            # A file in the place of a folder takes what was in it along.
            gone |= {entry.path for entry in entries if entry.kind != "folder"}
            seen = {
                path: found
                for path, found in seen.items()
                if path not in gone and not any(up in gone or up in opaque for up in _above(path))
            }
            for entry in entries:
                if entry.removes is None and entry.opaque is None:
                    seen[entry.path] = (index, entry)
        return seen


def _above(path: str) -> Iterator[str]:
    """Yield the folders that `path` lies in, the root ("") last."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def _all(_digest: str) -> bool:
    return True


def _none(_entry: Entry) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Look:
    """What to find out beyond names and sizes.

    `layers` says by digest which ones to look into, `hashes` asks for the SHA-256 of every file,
    `keep` picks files whose whole content is wanted (see `Limits.kept`).
    """

    layers: Callable[[str], bool] = _all
    hashes: bool = False
    keep: Callable[[Entry], bool] = _none


def printable(text: str) -> str:
    """Return `text` without what a terminal would obey: names in an image can be anything."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
