"""Images -> one OCI layout on disk, from which any registry tool can push.

One layout holds all rows: layers that rows share are stored once, and each row is a name in its
index (`skopeo copy oci:DIR:yolov8-cu128 docker://...`). The bytes are the engine's own, so the
digest in the layout is the one that was built and proven.
https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md, read 2026-11-25.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from docker import DockerClient

from builder.engine.export import content_store, export_image
from builder.errors import BuildFailed, Finding
from builder.oci import Manifest
from builder.records import write_atomic

__all__ = ["exported_digest", "save"]

_NAME = "org.opencontainers.image.ref.name"
_VERSION = '{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20

Check = Callable[[], None]


def save(
    client: DockerClient,
    reference: str,
    digest: str,
    *,
    layout: Path,
    name: str,
    check: Check = lambda: None,
) -> None:
    """Put the image `digest` into `layout` as `name`; BuildFailed when the engine hasn't got it.

    Blobs are read as files where they can be, else through `docker save`. `check` is called for
    every megabyte and may raise, to stop before the disk is full.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    store = content_store(client, digest)
    if store is not None:
        _copy_blobs(store, digest, blobs, check)
    else:
        with export_image(client, reference) as stream:
            unpack(stream, blobs, check)
    manifest = blobs / digest.removeprefix("sha256:")
    if not manifest.is_file():
        raise BuildFailed(
            Finding(
                place=name,
                what=f"the engine exports something else than {digest}",
                why=f"{reference} is another image now.",
                todo="Build the row again.",
            )
        )
    media = json.loads(manifest.read_bytes()).get("mediaType")
    entry = {"mediaType": media, "digest": digest, "size": manifest.stat().st_size}
    _enter(layout, {**entry, "annotations": {_NAME: name}})


def exported_digest(layout: Path, name: str) -> str | None:
    """Return the digest that `layout` has under `name`, None when there is none."""
    for entry in _index(layout)["manifests"]:
        if _name(entry) == name:
            return str(entry["digest"])
    return None


def unpack(stream: io.RawIOBase, blobs: Path, check: Check) -> None:
    """Store the blobs of what `docker save` writes."""
    source = io.BufferedReader(stream, _CHUNK)
    with tarfile.open(fileobj=source, mode="r|", bufsize=_CHUNK) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and member.name.startswith("blobs/sha256/"):
                _store(content, blobs / Path(member.name).name, member.size, check)


def _copy_blobs(store: Path, digest: str, blobs: Path, check: Check) -> None:
    """Store the image's blobs from the engine's own files; the manifest comes last."""
    name = digest.removeprefix("sha256:")
    manifest = Manifest.model_validate_json((store / name).read_bytes())
    others = [item.digest for item in (*manifest.layers, manifest.config)]
    for blob in (*(item.removeprefix("sha256:") for item in others), name):
        with (store / blob).open("rb") as content:
            _store(content, blobs / blob, (store / blob).stat().st_size, check)


def _store(content: IO[bytes], target: Path, size: int, check: Check) -> None:
    """Store a blob: it gets its name when it is whole and hashes to it."""
    if target.is_file() and target.stat().st_size == size:
        return
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as file:
        part = Path(file.name)
        try:
            _copy(content, file, target, check)
            part.chmod(0o644)
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _copy(source: IO[bytes], file: IO[bytes], target: Path, check: Check) -> None:
    hashed = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        check()
        hashed.update(chunk)
        file.write(chunk)
    file.flush()
    if hashed.hexdigest() != target.name:
        raise BuildFailed(
            Finding(
                place=str(target),
                what="a blob of the engine does not have its hash",
                why=f"It hashes to {hashed.hexdigest()}: the engine's disk may be damaged.",
                todo="Remove the image and the build cache, and build the row again.",
            )
        )


def _enter(layout: Path, entry: dict[str, Any]) -> None:
    """Write the image into the index, in the place of what had its name."""
    with _locked(layout):
        index = _index(layout)
        others = [item for item in index["manifests"] if _name(item) != _name(entry)]
        index["manifests"] = sorted([*others, entry], key=_name)
        write_atomic(layout / "index.json", json.dumps(index, indent=1) + "\n")
        write_atomic(layout / "oci-layout", _VERSION)


def _name(entry: dict[str, Any]) -> str:
    return str((entry.get("annotations") or {}).get(_NAME, ""))


@contextmanager
def _locked(layout: Path) -> Iterator[None]:
    with (layout / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _index(layout: Path) -> dict[str, Any]:
    path = layout / "index.json"
    if not path.is_file():
        media = "application/vnd.oci.image.index.v1+json"
        return {"schemaVersion": 2, "mediaType": media, "manifests": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
