from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.engine import layout as module
from builder.engine.layout import exported_digest, save
from builder.errors import BuildFailed

MEDIA = "application/vnd.oci.image.manifest.v1+json"


def image(*layers: bytes) -> tuple[str, dict[str, bytes]]:
    """An image's digest, and its blobs by hash."""
    blobs = {hashlib.sha256(blob).hexdigest(): blob for blob in (*layers, b"{}")}

    def pointer(blob: bytes) -> dict[str, Any]:
        return {"digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}

    manifest = json.dumps(
        {"mediaType": MEDIA, "config": pointer(b"{}"), "layers": [pointer(x) for x in layers]}
    ).encode()
    name = hashlib.sha256(manifest).hexdigest()
    return f"sha256:{name}", {**blobs, name: manifest}


class Place:
    """An engine's images as files, or as the archive that `docker save` writes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, files: bool) -> None:
        self.store = folder / "store"
        self.store.mkdir()
        monkeypatch.setattr(
            module, "content_store", lambda *_: self.store if files else None, raising=True
        )
        monkeypatch.setattr(module, "export_image", lambda *_: self._archive())

    def put(self, blobs: dict[str, bytes]) -> None:
        for name, content in blobs.items():
            (self.store / name).write_bytes(content)

    def _archive(self) -> Any:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path in sorted(self.store.iterdir()):
                archive.add(path, f"blobs/sha256/{path.name}")
            archive.addfile(tarfile.TarInfo("manifest.json"), io.BytesIO())
        buffer.seek(0)
        return buffer


@pytest.fixture(params=[True, False], ids=["files", "archive"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch, files=request.param)


def put(place: Place, layout: Path, name: str, *layers: bytes, **options: Any) -> str:
    digest, blobs = image(*layers)
    place.put(blobs)
    client: Any = None
    save(client, f"{name}:local", digest, layout=layout, name=name, **options)
    return digest


def test_rows_share_what_they_have_in_common(place: Place, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    one = put(place, layout, "one", b"shared", b"first")
    two = put(place, layout, "two", b"shared", b"second")
    blobs = layout / "blobs" / "sha256"
    for path in blobs.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert len(list(blobs.iterdir())) == 3 + 1 + 2, "layers, the empty config, manifests"
    index = json.loads((layout / "index.json").read_text())
    assert index["schemaVersion"] == 2
    assert [(item["digest"], item["mediaType"]) for item in index["manifests"]] == [
        (one, MEDIA),
        (two, MEDIA),
    ]
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert exported_digest(layout, "two") == two
    assert exported_digest(layout, "three") is None


def test_a_row_built_again_takes_the_place_of_the_earlier_one(place: Place, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    put(place, layout, "one", b"old")
    new = put(place, layout, "one", b"new")
    assert len(json.loads((layout / "index.json").read_text())["manifests"]) == 1
    assert exported_digest(layout, "one") == new


def test_a_damaged_blob_is_refused_and_leaves_nothing(place: Place, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    digest, blobs = image(b"layer")
    name = hashlib.sha256(b"layer").hexdigest()
    place.put({**blobs, name: b"Layer"})
    client: Any = None
    with pytest.raises(BuildFailed, match="does not have its hash"):
        save(client, "x:local", digest, layout=layout, name="x")
    assert exported_digest(layout, "x") is None
    assert name not in [path.name for path in (layout / "blobs" / "sha256").iterdir()]
    assert not list(layout.rglob(".[a-z0-9_]*")), "no unfinished file"


def test_a_moved_tag_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, files=False)
    digest, _ = image(b"what we built")
    place.put(image(b"what the tag is now")[1])
    client: Any = None
    with pytest.raises(BuildFailed, match="exports something else than sha256:"):
        save(client, "x:local", digest, layout=tmp_path / "layout", name="x")


def test_it_stops_when_the_disk_gets_full(place: Place, tmp_path: Path) -> None:
    def check() -> None:
        raise RuntimeError("almost full")

    with pytest.raises(RuntimeError, match="almost full"):
        put(place, tmp_path / "layout", "x", b"layer", check=check)
    assert exported_digest(tmp_path / "layout", "x") is None
