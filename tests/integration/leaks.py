"""Look for words that must not be there: in every layer of an image, and in all said about it."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import zstandard
from docker import DockerClient

__all__ = ["in_folder", "in_images"]

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def in_images(client: DockerClient, references: Sequence[str], words: Iterable[bytes]) -> list[str]:
    """Return where the words are in images: layers, config, manifests, history, labels.

    Layers are searched as unpacked tar streams: names, owners and the bytes of every file, also of
    files that a later layer hides. A layer that images share is searched once.
    """
    words = tuple(words)
    found: list[str] = []
    for reference in references:
        image = client.images.get(reference)
        said = json.dumps([image.attrs, image.history(), image.tags, image.labels]).encode()
        found += [f"{reference}: inspect: {word!r}" for word in words if word in said]
    with tempfile.NamedTemporaryFile() as file:
        argv = ["docker", "save", "--output", file.name, *references]
        subprocess.run(argv, check=True, timeout=120)
        with tarfile.open(file.name) as archive:
            for name, body in _blobs(archive):
                found += [f"{name}: {word!r}" for word in words if word in body]
    return found


def in_folder(folder: Path, words: Iterable[bytes]) -> list[str]:
    """Return where the words are in the files below `folder`, and in their names."""
    words = tuple(words)
    found: list[str] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        body = path.read_bytes()
        found += [f"{name}: {word!r}" for word in words if word in body or word in name.encode()]
    return found


def _blobs(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Yield everything in a saved image, unpacked."""
    layers = 0
    for member in archive:
        file = archive.extractfile(member)
        if file is None:
            continue
        body = file.read()
        if body.startswith(_ZSTD):
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        elif body.startswith(_GZIP):
            body = gzip.decompress(body)
        layers += body[257:262] == b"ustar"
        yield member.name, body
    assert layers, "no layer was found: nothing was searched"
