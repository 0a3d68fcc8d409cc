"""Where the bytes of an image are: by layer, by what was installed, by file.

Compressed bytes are known for a whole layer only: a layer is one compressed stream, and no file in
it has a size of its own. Below a layer everything is in unpacked bytes, and adds up.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from builder.layers import Entry, Image, Layer
from builder.oci import short_step

__all__ = ["UNNAMED", "FileSize", "Group", "LayerSize", "SizeReport", "account", "names_owner"]

UNNAMED = 50_000_000
"""Bytes: what is left without a name in a layer is less, and each file from here on is named."""

_LONGEST_LIST = 16 << 20  # bytes; torch's RECORD, the longest one, has 1.5 MB
_DIST_INFO = re.compile(r"(?P<site>.*)/(?P<name>[^/]+)\.dist-info/RECORD")
_DPKG = re.compile(r"var/lib/dpkg/info/(?P<name>[^/:]+)(?::[^/]*)?\.list")
_COMPILED = re.compile(r"(?P<folder>.*)__pycache__/(?P<module>[^/]+?)\.[^/]*\.pyc")
_PACKAGES = re.compile(r"(?P<folder>(?:.*/)?(?:site|dist)-packages/[^/]+)/?.*")
# Since Debian 12 these are links into /usr, and dpkg still lists files under their old names.
_MERGED = ("bin/", "lib/", "lib32/", "lib64/", "libx32/", "sbin/")

Kind = Literal["python", "debian", "folder", "archive"]


@dataclass(frozen=True)
class FileSize:
    """A file and its bytes."""

    path: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """What belongs together: a Python distribution, a Debian package, else a folder.

    `size` is bytes of content. `biggest` holds the biggest file, and all others from `UNNAMED` on.
    The one of kind `archive` stands for what the tar format adds: headers and padding.
    """

    name: str
    kind: Kind
    size: int
    files: int
    biggest: tuple[FileSize, ...]


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """One layer. All groups together with `rest` are its unpacked bytes.

    `hidden` is how much of it no container sees, because a later layer replaces or removes it;
    `shared` names other rows that have the same layer.
    """

    digest: str
    diff_id: str
    step: str
    compressed: int
    unpacked: int
    hidden: int
    shared: tuple[str, ...]
    groups: tuple[Group, ...]
    rest: Group
    biggest: tuple[FileSize, ...]


@dataclass(frozen=True, kw_only=True)
class SizeReport:
    """An image. `compressed` is what a registry transfers: layers, configuration and manifest."""

    digest: str
    compressed: int
    unpacked: int
    shared: int
    layers: tuple[LayerSize, ...]


def names_owner(entry: Entry) -> bool:
    """Whether the file lists what a package owns; `account` needs the content of these."""
    lists = entry.name == "RECORD" or entry.path.startswith("var/lib/dpkg/info/")
    return lists and entry.size <= _LONGEST_LIST and bool(_list_of(entry.path))


def account(
    image: Image, *, top: int = 10, others: Mapping[str, Sequence[str]] | None = None
) -> SizeReport:
    """Say where the bytes are. `others` maps other rows to the diff ids of their layers.

    Of each layer the `top` biggest groups are listed, and as many more as it takes until less than
    `UNNAMED` is left. The image must have been read with `keep=names_owner`.
    """
    seen = image.files()
    owners: dict[str, tuple[Kind, str]] = {}
    layers = []
    for index, layer in enumerate(image.layers):
        entries = layer.entries or ()
        for entry in entries:
            owners.update(_owned(entry))
        files = [entry for entry in entries if entry.kind == "file"]
        visible = (seen[entry.path] for entry in files if entry.path in seen)
        shown = sum(entry.size for at, entry in visible if at == index)
        groups = sorted(_groups(layer, files, owners), key=lambda each: (-each.size, each.name))
        named = _enough(groups, top)
        layers.append(
            LayerSize(
                digest=layer.digest,
                diff_id=layer.diff_id,
                step=short_step(layer.step),
                compressed=layer.size,
                unpacked=layer.unpacked or 0,
                hidden=sum(entry.size for entry in files) - shown,
                shared=tuple(row for row, ids in (others or {}).items() if layer.diff_id in ids),
                groups=tuple(groups[:named]),
                rest=_rest(groups[named:]),
                biggest=tuple(_by_size(files)[:top]),
            )
        )
    return SizeReport(
        digest=image.digest,
        compressed=image.size,
        unpacked=sum(layer.unpacked for layer in layers),
        shared=sum(layer.compressed for layer in layers if layer.shared),
        layers=tuple(layers),
    )


def _list_of(path: str) -> tuple[Kind, str, str] | None:
    """Return of a package's list of files: the package's kind and name, and what paths start at."""
    if (found := _DIST_INFO.fullmatch(path)) is not None:
        name, _, version = found["name"].rpartition("-")
        return "python", f"{name} {version}", found["site"]
    if (found := _DPKG.fullmatch(path)) is not None:
        return "debian", found["name"], ""
    return None


def _owned(entry: Entry) -> Iterator[tuple[str, tuple[Kind, str]]]:
    """Yield path and owner of everything that a package's list names."""
    found = _list_of(entry.path) if entry.content is not None else None
    if found is None or entry.content is None:
        return
    kind, name, start = found
    text = entry.content.decode(errors="replace")
    paths = _record(text) if kind == "python" else text.splitlines()
    for path in paths:
        whole = path.lstrip("/") if path.startswith("/") else _joined(start, path)
        if kind == "debian" and whole.startswith(_MERGED):
            whole = f"usr/{whole}"
        yield whole, (kind, name)


def _record(text: str) -> Iterator[str]:
    """Yield the paths of a RECORD; a line that is no CSV ends it."""
    try:
        yield from (row[0] for row in csv.reader(text.splitlines()) if row)
    except csv.Error:
        return


def _joined(start: str, path: str) -> str:
    """Return `path` as seen from `start`: scripts are listed as `../../../bin/name`."""
    parts = start.split("/")
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def _groups(
    layer: Layer, files: Iterable[Entry], owners: Mapping[str, tuple[Kind, str]]
) -> Iterator[Group]:
    members: dict[tuple[Kind, str], list[Entry]] = defaultdict(list)
    content = 0
    for entry in files:
        members[_owner(entry.path, owners)].append(entry)
        content += entry.size
    for (kind, name), entries in members.items():
        biggest = _by_size(entries)
        named = [file for file in biggest[1:] if file.size >= UNNAMED]
        yield Group(
            name=name,
            kind=kind,
            size=sum(entry.size for entry in entries),
            files=len(entries),
            biggest=(biggest[0], *named),
        )
    overhead = (layer.unpacked or 0) - content
    yield Group(name="tar headers and padding", kind="archive", size=overhead, files=0, biggest=())


def _owner(path: str, owners: Mapping[str, tuple[Kind, str]]) -> tuple[Kind, str]:
    found = owners.get(path)
    if found is None and (compiled := _COMPILED.fullmatch(path)) is not None:
        # Byte code that was made after the installation belongs to its source.
        found = owners.get(f"{compiled['folder']}{compiled['module']}.py")
    return found or ("folder", _folder(path))


def _folder(path: str) -> str:
    """Return the folder that says most about where a file without an owner comes from."""
    if (found := _PACKAGES.fullmatch(path)) is not None:
        return found["folder"]
    parts = path.split("/")
    return "/".join(parts[: min(2, len(parts) - 1)]) or "/"


def _by_size(entries: Iterable[Entry]) -> list[FileSize]:
    files = (FileSize(entry.path, entry.size) for entry in entries)
    return sorted(files, key=lambda file: (-file.size, file.path))


def _enough(groups: Sequence[Group], top: int) -> int:
    """Return how many groups to list."""
    left = sum(group.size for group in groups)
    for count, group in enumerate(groups):
        if count >= top and left < UNNAMED:
            return count
        left -= group.size
    return len(groups)


def _rest(groups: Sequence[Group]) -> Group:
    return Group(
        name=f"{len(groups)} more",
        kind="folder",
        size=sum(group.size for group in groups),
        files=sum(group.files for group in groups),
        biggest=(),
    )
