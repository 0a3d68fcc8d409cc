"""How layers come out of an engine: as files of its store where they can be read, else exported."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
from docker import DockerClient

from builder.archive import read_archive
from builder.engine import export
from builder.engine.client import EngineLost
from builder.engine.export import content_store, export_image, read_image
from builder.layers import Look
from tests.unit.archive_support import Archive, Item

STORE = Path("containerd", "daemon", "io.containerd.content.v1.content", "blobs", "sha256")
ARCHIVE = Archive([Item(path="a", content=b"x" * 5_000)], compression="none")


def engine(root: Path, chunks: Iterator[bytes] | None = None) -> DockerClient:
    """An engine that keeps its data in `root` and has one image, ARCHIVE."""

    def exported(_image: str, _size: int) -> Iterator[bytes]:
        assert chunks is not None, "it was asked to export"
        return chunks

    def inspect(_image: str) -> dict[str, Any]:
        return {"Id": ARCHIVE.manifest, "RepoDigests": [f"a@{ARCHIVE.manifest}"]}

    api = SimpleNamespace(get_image=exported, inspect_image=inspect, history=lambda _: [])
    return cast("DockerClient", SimpleNamespace(info=lambda: {"DockerRootDir": str(root)}, api=api))


def whole() -> bytes:
    return io.BufferedReader(ARCHIVE.stream()).read()


@pytest.fixture(autouse=True)
def _no_store_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export, "_CONTAINERD", tmp_path / "elsewhere")


def test_a_store_that_can_be_read_is_read(tmp_path: Path) -> None:
    store = tmp_path / STORE
    store.mkdir(parents=True)
    for digest, data in ARCHIVE.blobs.items():
        (store / digest.removeprefix("sha256:")).write_bytes(data)
    assert content_store(engine(tmp_path), ARCHIVE.manifest) == store
    look = Look(hashes=True)
    found = read_image(engine(tmp_path), "a", look=look)
    assert found == read_archive(ARCHIVE.stream(), look=look)


@pytest.mark.parametrize("size", [13, 700, 1 << 20])
def test_else_the_engine_exports_in_chunks_of_any_size(tmp_path: Path, size: int) -> None:
    data = whole()
    chunks = (data[at : at + size] for at in range(0, len(data), size))
    assert content_store(engine(tmp_path), ARCHIVE.manifest) is None
    found = read_image(engine(tmp_path, chunks), "a")
    assert found == read_archive(ARCHIVE.stream())


def test_an_engine_that_goes_away_is_not_a_damaged_image(tmp_path: Path) -> None:
    def breaking() -> Iterator[bytes]:
        yield whole()[:4_000]
        raise requests.exceptions.ChunkedEncodingError("connection broken")

    with export_image(engine(tmp_path, breaking()), "a") as stream:  # noqa: SIM117 - one raises
        with pytest.raises(EngineLost, match="exporting a: connection broken"):
            read_archive(stream)
