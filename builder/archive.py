"""What an image holds, read from its layers without starting it.

The layers come as an OCI archive (what `docker save` writes) or from a folder of blobs, in any
order; each is hashed, unpacked and listed as it passes, and put in its place by the manifest at the
end. An image is untrusted input: everything that it can ask for is bounded by `Limits`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from tarfile import TarError, TarInfo
from typing import IO, TypeVar, cast

import zstandard
from pydantic import BaseModel, ValidationError

from builder.errors import Finding, InvalidInput
from builder.layers import NO_PAX, Compression, Entry, Image, Kind, Layer, Look
from builder.oci import Config, Index, Manifest, steps_of
from builder.tarball import BLOCK, Bounded, Forward, Limits, Source, Unreadable, walk

__all__ = ["read_archive", "read_blobs"]

_KINDS: Mapping[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"5": "folder", b"2": "symlink", b"1": "hardlink",
    b"3": "char", b"4": "block", b"6": "fifo",
}  # fmt: skip
_MAGIC: Mapping[bytes, Compression] = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x50\x2a\x4d\x18": "zstd",  # a frame to be skipped: pzstd begins with one
    b"\x1f\x8b": "gzip",
}
_WINDOW = 128 << 20  # bytes of memory that a zstd stream may ask for: `zstd -d` allows as much
# What the reader's other fields say already.
_DECODED = {"path", "linkpath", "size", "uid", "gid", "uname", "gname", "mtime"}
_BLOBS = "blobs/sha256/"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
# ValueError and the two after it come out of tarfile for headers that no writer makes.
_BROKEN = (
    TarError, zstandard.ZstdError, zlib.error, EOFError, OSError, ValueError, OverflowError,
    RecursionError,
)  # fmt: skip


def read_archive(
    stream: Source, *, look: Look | None = None, limits: Limits | None = None
) -> Image:
    """Read the image in an OCI archive from `stream`, which need not be seekable.

    Raises InvalidInput when it is damaged, holds no image or several, or exceeds `limits`.
    """
    limits = limits or Limits()
    blobs = _Blobs(look or Look(), limits)
    roots: tuple[str, ...] | None = None
    with _damage("the archive"):
        outer = Forward(stream, limits, most=limits.layer * 8)
        for member in walk(outer):
            content = Bounded(outer, member.size)
            if member.isreg() and member.name.startswith(_BLOBS):
                blobs.take("sha256:" + member.name.removeprefix(_BLOBS), content)
            elif member.isreg() and member.name == "index.json":
                index = _parsed(Index, _document(content, limits), "index.json")
                roots = tuple(item.digest for item in index.manifests if item.runs)
    if roots is None:
        raise _unusable(
            "the archive", "it has no index.json", "Before Docker 25, `docker save` wrote none."
        )
    return blobs.image(roots)


def read_blobs(
    folder: Path, digest: str, *, look: Look | None = None, limits: Limits | None = None
) -> Image:
    """Read the image `digest` from `folder`, whose files are named by the hash of their content.

    Layers that `look` leaves out are not opened. Raises InvalidInput as `read_archive` does, and
    when a blob is missing.
    """
    look = look or Look()
    blobs = _Blobs(look, limits or Limits())
    wanted = [digest]
    while wanted:
        blob = wanted.pop()
        path = folder / blob.removeprefix("sha256:")
        if blob in blobs.sizes or not path.is_file():
            continue  # missing: another platform's image, perhaps; `image` says what isn't there
        with path.open("rb", buffering=0) as file, _damage(blob):
            blobs.take(blob, Bounded(cast("Source", file), path.stat().st_size))
        wanted.extend(blobs.named_by(blob))
    return blobs.image((digest,))


@dataclass(frozen=True)
class _Walked:
    diff_id: str
    unpacked: int
    compression: Compression
    entries: tuple[Entry, ...]


@dataclass
class _Blobs:
    """What the blobs turned out to be, by digest."""

    look: Look
    limits: Limits
    sizes: dict[str, int] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, _Walked] = field(default_factory=dict)
    _entries: int = 0
    _kept: int = 0

    def take(self, digest: str, blob: Bounded) -> None:
        """Read one blob, whatever it is."""
        if not _DIGEST.match(digest):
            raise Unreadable(f"{digest[:80]!r} is no digest")
        if digest in self.sizes or len(self.sizes) >= self.limits.blobs:
            raise Unreadable(f"blob {digest} comes twice, or is one of too many")
        with _damage(digest):
            head = blob.peek(512)
            compression = next(
                (kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None
            )
            if compression is None and head[257:262] == b"ustar":
                compression = "none"
            if compression is not None and self.look.layers(digest):
                self.layers[digest] = self._walk(blob, compression)
            elif compression is None and head[:1] == b"{" and blob.size <= self.limits.document:
                self._count_kept(blob.size)
                self.documents[digest] = blob.read()
            blob.drain()
            if f"sha256:{blob.hash.hexdigest()}" != digest:
                raise Unreadable("its bytes don't have the hash that it is named by")
        self.sizes[digest] = blob.size

    def named_by(self, digest: str) -> list[str]:
        """Return what the document `digest` points to and is worth reading."""
        document = self.documents.get(digest)
        if document is None:
            return []
        keys = _keys(document)
        if "manifests" in keys:
            return [item.digest for item in _parsed(Index, document, digest).manifests if item.runs]
        if "layers" not in keys:
            return []
        manifest = _parsed(Manifest, document, digest)
        wanted = dict.fromkeys(each.digest for each in (*manifest.layers, manifest.config))
        return [
            each
            for each in wanted
            if each not in self.sizes and (each == manifest.config.digest or self.look.layers(each))
        ]

    def image(self, roots: Iterable[str]) -> Image:
        """Put together the one image that `roots` lead to."""
        roots = tuple(roots)
        found = list(dict.fromkeys(self._manifests(roots, depth=3)))
        if len(found) != 1:
            raise _unusable(
                ", ".join(roots[:3]) or "the archive",
                f"it holds {len(found)} images, not one",
                "Name one platform by its own digest." if found else "",
            )
        digest = found[0]
        manifest = _parsed(Manifest, self.documents[digest], digest)
        document = self.documents.get(manifest.config.digest)
        if document is None:
            raise _unusable(digest, f"its configuration {manifest.config.digest} is missing")
        config = _parsed(Config, document, manifest.config.digest)
        wrong = list(self._contradictions(manifest, config))
        if wrong:
            raise InvalidInput(*(_unusable(place, what).findings[0] for place, what in wrong))
        return Image(
            digest=digest,
            manifest=json.loads(self.documents[digest]),
            config_digest=manifest.config.digest,
            config=json.loads(document),
            layers=tuple(self._layers(manifest, config)),
            size=len(self.documents[digest])
            + sum(each.size for each in (manifest.config, *manifest.layers)),
        )

    def _manifests(self, roots: Iterable[str], depth: int) -> Iterator[str]:
        for digest in roots:
            document = self.documents.get(digest)
            if document is None:
                continue
            if "manifests" not in _keys(document):
                yield digest
            elif depth:
                inner = _parsed(Index, document, digest)
                yield from self._manifests(
                    (item.digest for item in inner.manifests if item.runs), depth - 1
                )

    def _contradictions(self, manifest: Manifest, config: Config) -> Iterator[tuple[str, str]]:
        """Yield where manifest, configuration and blobs say different things."""
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            yield (
                manifest.config.digest,
                f"it names {len(diff_ids)} layers, the manifest {len(manifest.layers)}",
            )
            return
        for item, diff_id in zip(manifest.layers, diff_ids, strict=True):
            walked = self.layers.get(item.digest)
            if self.sizes.get(item.digest, item.size) != item.size:
                yield item.digest, f"it has {self.sizes[item.digest]} bytes, not {item.size}"
            elif walked is not None and walked.diff_id != diff_id:
                yield item.digest, f"it unpacks to {walked.diff_id}, not to {diff_id}"
            elif walked is None and self.look.layers(item.digest):
                have = "is no tar, gzip or zstd" if item.digest in self.sizes else "is missing"
                yield item.digest, f"the layer {have}"

    def _layers(self, manifest: Manifest, config: Config) -> Iterator[Layer]:
        steps = steps_of(config)
        for item, diff_id, step in zip(manifest.layers, config.rootfs.diff_ids, steps, strict=True):
            walked = self.layers.get(item.digest)
            yield Layer(
                digest=item.digest,
                diff_id=diff_id,
                size=item.size,
                step=step,
                unpacked=walked.unpacked if walked else None,
                compression=walked.compression if walked else None,
                entries=walked.entries if walked else None,
            )

    def _walk(self, blob: Bounded, compression: Compression) -> _Walked:
        forward = Forward(
            _unpacked(blob, compression),
            self.limits,
            most=self.limits.unpacked(blob.size),
            hashed=True,
        )
        entries = []
        for member in walk(forward):
            self._entries += 1
            if self._entries > self.limits.entries:
                raise Unreadable(f"the image has more than {self.limits.entries} entries")
            entries.append(self._content(_entry(member, self.limits), forward))
        return _Walked(
            f"sha256:{forward.hexdigest()}", forward.position, compression, tuple(entries)
        )

    def _content(self, entry: Entry, forward: Forward) -> Entry:
        if entry.kind != "file":
            return entry
        keep = self.look.keep(entry)
        if not keep and not self.look.hashes:
            return entry
        if keep:
            self._count_kept(entry.size)
        digest, content = sha256(), []
        for block in forward.blocks(entry.size):
            digest.update(block)
            if keep:
                content.append(bytes(block))
        return replace(
            entry, sha256=digest.hexdigest(), content=b"".join(content) if keep else None
        )

    def _count_kept(self, size: int) -> None:
        self._kept += size
        if self._kept > self.limits.kept:
            raise Unreadable(f"what is to be read whole has more than {self.limits.kept} bytes")


def _unpacked(blob: Bounded, compression: Compression) -> Source:
    """Return the stream inside a compressed one; several frames in a row are one stream."""
    if compression == "zstd":
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        return cast(
            "Source",
            reader.stream_reader(cast("IO[bytes]", blob), read_size=BLOCK, read_across_frames=True),
        )
    if compression == "gzip":
        return cast("Source", gzip.GzipFile(fileobj=io.BufferedReader(blob, BLOCK)))
    return cast("Source", blob)


def _entry(member: TarInfo, limits: Limits) -> Entry:
    parts = [part for part in member.name.split("/") if part not in {"", "."}]
    path = "/".join(parts)
    if len(path) > limits.path or len(member.linkname) > limits.path:
        raise Unreadable(f"a path has more than {limits.path} characters: {path[:60]}...")
    if ".." in parts:
        raise Unreadable(f"{member.name}: the path leads out of the image")
    pax = {key: value for key, value in member.pax_headers.items() if key not in _DECODED}
    kind = _KINDS.get(member.type, "other")
    return Entry(
        path=path,
        kind=kind,
        size=member.size if kind == "file" else 0,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        owner=member.uname,
        group=member.gname,
        mtime=member.mtime,
        target=member.linkname,
        device=(member.devmajor, member.devminor),
        pax=pax or NO_PAX,
    )


def _document(content: Bounded, limits: Limits) -> bytes:
    if content.size > limits.document:
        raise Unreadable(f"index.json has more than {limits.document} bytes")
    return content.read()


def _keys(document: bytes) -> Collection[str]:
    """Return the names in a JSON object, which say what it is; none when it is no JSON."""
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError):
        return ()
    return parsed if isinstance(parsed, dict) else ()


Document = TypeVar("Document", bound=BaseModel)


def _parsed(kind: type[Document], document: bytes, place: str) -> Document:
    try:
        return kind.model_validate_json(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise _unusable(place, f"no {kind.__name__}: {where}: {first['msg']}") from error


@contextmanager
def _damage(place: str) -> Iterator[None]:
    """Turn what the readers of untrusted bytes raise into InvalidInput."""
    try:
        yield
    except Unreadable as error:
        raise _unusable(place, str(error)) from error
    except _BROKEN as error:
        raise _unusable(place, f"it is damaged: {error}") from error


def _unusable(place: str, what: str, why: str = "") -> InvalidInput:
    return InvalidInput(
        Finding(
            place=place,
            what=what,
            why=why or "The image can't be looked into.",
            todo="Build or pull it again.",
        )
    )
