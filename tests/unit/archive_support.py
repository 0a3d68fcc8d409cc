"""Small OCI archives, made the way an engine makes them, and broken on demand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

EPOCH = 1_767_225_600


@dataclass(frozen=True, kw_only=True)
class Item:
    """An entry of a layer to be made."""

    path: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH
    target: str = ""
    pax: Mapping[str, str] | None = None


def layer_tar(items: Sequence[Item]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            info = tarfile.TarInfo(item.path)
            info.type, info.mode, info.mtime = item.type, item.mode, item.mtime
            info.uid, info.gid, info.linkname = item.uid, item.gid, item.target
            info.size = len(item.content)
            info.pax_headers = dict(item.pax or {})
            archive.addfile(info, io.BytesIO(item.content))
    return buffer.getvalue()


def packed(tar: bytes, compression: str, level: int = 3) -> bytes:
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=level).compress(tar)
    return gzip.compress(tar, mtime=0) if compression == "gzip" else tar


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Archive:
    """An OCI archive in the making; `blobs` may be changed before `stream`."""

    def __init__(
        self,
        *layers: Sequence[Item] | bytes,
        compression: str = "zstd",
        level: int = 3,
        config: Mapping[str, Any] | None = None,
        steps: Sequence[str] = (),
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        tars = [each if isinstance(each, bytes) else layer_tar(each) for each in layers]
        self.layers = [self.add(packed(tar, compression, level)) for tar in tars]
        history = [{"created_by": step} for step in steps]
        self.config = self.add_json(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
                "history": history or [{"created_by": f"RUN step {n}"} for n in range(len(tars))],
                **(config or {}),
            }
        )
        self.manifest = self.add_json(
            {
                "schemaVersion": 2,
                "config": self.descriptor(self.config),
                "layers": [self.descriptor(each) for each in self.layers],
            }
        )
        self.roots = [self.descriptor(self.manifest)]

    def add(self, data: bytes) -> str:
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def add_json(self, document: object) -> str:
        return self.add(json.dumps(document).encode())

    def descriptor(self, digest: str, **more: Any) -> dict[str, Any]:
        return {"digest": digest, "size": len(self.blobs[digest]), **more}

    def stream(self) -> io.RawIOBase:
        """The archive, as a stream that can't seek and that gives little at a time."""
        items = [
            Item(path=f"blobs/sha256/{digest.removeprefix('sha256:')}", content=data)
            for digest, data in sorted(self.blobs.items())
        ]
        index = json.dumps({"schemaVersion": 2, "manifests": self.roots}).encode()
        return Trickle(layer_tar([*items, Item(path="index.json", content=index)]))


class Trickle(io.RawIOBase):
    """At most 1000 bytes a read; no seeking."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(min(1000, len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)
