"""The layers of an image in the engine, read without starting it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from docker import DockerClient
from docker.errors import ImageNotFound

from builder.archive import read_archive, read_blobs
from builder.engine.client import engine_errors, inspect_image
from builder.layers import Image, Look
from builder.tarball import Limits

__all__ = ["content_store", "diff_ids", "export_image", "read_image"]

_CHUNK = 1 << 20
_BLOBS = Path("io.containerd.content.v1.content", "blobs", "sha256")
_CONTAINERD = Path("/var/lib/containerd")


def read_image(
    client: DockerClient,
    reference: str,
    *,
    look: Look | None = None,
    limits: Limits | None = None,
) -> Image:
    """Read what `reference` holds; InvalidInput when it isn't there or can't be read.

    Where the engine's content store can be read as files it is: `docker save` gave 53 MB/s, for
    containerd hands content out 32 kB a call, and files of the same blobs are as fast as the disk
    (2 cores, Docker 26.1, 2026-11-25). Either way each blob must have the hash that names it.
    """
    digest = inspect_image(client, reference).digest
    store = content_store(client, digest)
    if store is not None:
        return read_blobs(store, digest, look=look, limits=limits)
    with export_image(client, reference) as stream:
        return read_archive(stream, look=look, limits=limits)


def content_store(client: DockerClient, digest: str) -> Path | None:
    """Return the folder of blobs that has `digest`; None where it can't be read from here.

    That takes an engine on this machine with the containerd image store, and mostly root.
    """
    with engine_errors("asking the engine where it keeps its images"):
        root = str(client.info().get("DockerRootDir") or "")
    # A dockerd that starts a containerd of its own has it below its own folder.
    for folder in (Path(root, "containerd", "daemon"), _CONTAINERD):
        blobs = folder / _BLOBS
        try:
            with (blobs / digest.removeprefix("sha256:")).open("rb"):
                return blobs
        except OSError:
            continue
    return None


@contextmanager
def export_image(client: DockerClient, reference: str) -> Iterator[io.RawIOBase]:
    """Yield the image as an OCI archive, as the engine sends it; EngineTrouble when it stops."""
    with engine_errors(f"exporting {reference}"):
        chunks = client.api.get_image(reference, _CHUNK)
    yield _Chunks(chunks, reference)


def diff_ids(client: DockerClient, reference: str) -> tuple[str, ...]:
    """Return the hashes of the unpacked layers, the lowest first; none when it isn't there."""
    with engine_errors(f"inspecting {reference}"):
        try:
            raw: dict[str, Any] = client.api.inspect_image(reference)  # type: ignore[no-untyped-call]  # the stubs leave it open
        except ImageNotFound:
            return ()
    return tuple(str(each) for each in (raw.get("RootFS") or {}).get("Layers") or ())


class _Chunks(io.RawIOBase):
    """The chunks that the engine sends as one stream."""

    def __init__(self, chunks: Iterator[bytes], reference: str) -> None:
        super().__init__()
        self._chunks = chunks
        self._reference = reference
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("memoryview", buffer)).cast("B")
        while not self._rest:
            with engine_errors(f"exporting {self._reference}"):
                chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
