"""The store against a server that plays the sources: files by hash, and locks completed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.artifacts import ArtifactLock
from builder.errors import InvalidInput, SourceUnreachable
from builder.folders import Folders
from builder.mirrors import Mirrors
from builder.sources import Sources
from builder.store import Store
from builder.talk import Talk
from tests.servers import sites
from tests.servers.play import File, PlayServer, play_server

LIBS = b"the libraries of TensorRT"
NAME = "tensorrt_cu12_libs-10.99.0.1-py2.py3-none-manylinux_2_28_x86_64.whl"
SUPPOSED = "tensorrt_cu12_libs-10.99.0.1-py3-none-manylinux_2_28_x86_64.whl"
FOLDER = "https://pypi.nvidia.com/tensorrt-cu12-libs"


def artifact(**changes: object) -> ArtifactLock:
    values: dict[str, object] = {
        "part": "tensorrt",
        "name": "tensorrt-cu12-libs",
        "version": "10.99.0.1",
        "url": f"{FOLDER}/{NAME}",
        "sha256": hashlib.sha256(LIBS).hexdigest(),
        "size": len(LIBS),
        "status": "single",
        **changes,
    }
    return ArtifactLock.model_validate(values)


UNRESOLVED = artifact(url=f"{FOLDER}/{SUPPOSED}", sha256=None, size=None, status="unresolved")


@pytest.fixture
def play() -> Iterator[PlayServer]:
    with play_server() as server:
        yield server
        assert server.errors == []


def store(tmp_path: Path, play: PlayServer, *find_links: str) -> Store:
    mirrors = Mirrors(nvidia=(f"{play.url}/nvidia",))
    return Store(
        folders=Folders(tmp_path),
        sources=Sources(mirrors=mirrors, find_links=find_links),
        talk=Talk(),
    )


def test_a_file_is_fetched_once_and_handed_out_twice(tmp_path: Path, play: PlayServer) -> None:
    sites.nvidia(play, NAME, LIBS)
    one = store(tmp_path, play)
    assert not one.has(artifact())
    for step in ("first", "second"):
        (tmp_path / step).mkdir()
        path = one.hand_out(artifact(), tmp_path / step)
        assert (path.name, path.read_bytes()) == (NAME, LIBS)
    assert one.has(artifact())
    assert len(play.requests("/nvidia/*.whl")) == 1


def test_a_damaged_file_in_the_store_is_replaced(tmp_path: Path, play: PlayServer) -> None:
    sites.nvidia(play, NAME, LIBS)
    one = store(tmp_path, play)
    stored = one.folders.file(str(artifact().sha256), str(artifact().url))
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"half of the")
    (tmp_path / "step").mkdir()
    assert one.hand_out(artifact(), tmp_path / "step").read_bytes() == LIBS


def test_a_local_folder_of_wheels_needs_no_network(tmp_path: Path, play: PlayServer) -> None:
    given = tmp_path / "wheels"
    given.mkdir()
    (given / NAME).write_bytes(LIBS)
    one = store(tmp_path, play, str(given))
    assert one.has(artifact())
    (tmp_path / "step").mkdir()
    assert one.hand_out(artifact(), tmp_path / "step").read_bytes() == LIBS
    assert play.seen == []


def test_a_local_wheel_with_other_bytes_is_not_believed(tmp_path: Path, play: PlayServer) -> None:
    sites.nvidia(play, NAME, LIBS)
    given = tmp_path / "wheels"
    given.mkdir()
    (given / NAME).write_bytes(LIBS[::-1])
    (tmp_path / "step").mkdir()
    one = store(tmp_path, play, str(given))
    assert one.hand_out(artifact(), tmp_path / "step").read_bytes() == LIBS


def test_an_unresolved_file_gets_its_real_name_and_hash(tmp_path: Path, play: PlayServer) -> None:
    sites.nvidia(play, NAME, LIBS)
    one = store(tmp_path, play)
    done = one.complete(UNRESOLVED, "cp311")
    # The official address, whoever served it; and no second download when the build needs it.
    assert done == artifact(status="mirrored")
    assert one.has(done)


def test_rows_that_lack_the_same_hash_download_once(tmp_path: Path, play: PlayServer) -> None:
    sites.nvidia(play, NAME, LIBS)
    one = store(tmp_path, play)
    assert one.complete(UNRESOLVED, "cp311") == one.complete(UNRESOLVED, "cp311")
    assert len(play.requests("/nvidia/*.whl")) == 1


META = artifact(name="tensorrt-cu12", url=None, sha256=None, size=None, status="unresolved")
META_FILE = "tensorrt_cu12-10.99.0.1.tar.gz"


def test_the_package_index_promises_the_hash_of_its_source_archive(
    tmp_path: Path, play: PlayServer
) -> None:
    url = sites.index(play, {META_FILE: b"setup", "tensorrt_cu12-9.0.tar.gz": b"older"})
    play.guards["/simple/*"] = "user:hunter2"
    sources = Sources(default_index=url.replace("://", "://user:hunter2@"))
    one = Store(folders=Folders(tmp_path), sources=sources, talk=Talk())
    found = one.complete(META, "cp311")
    assert (found.sha256, found.status) == (hashlib.sha256(b"setup").hexdigest(), "single")
    assert play.requests("/files/*") == []


def test_a_source_archive_in_a_local_folder_has_its_own_hash(
    tmp_path: Path, play: PlayServer
) -> None:
    (tmp_path / META_FILE).write_bytes(b"setup")
    found = store(tmp_path, play, str(tmp_path)).complete(META, "cp311")
    assert found.sha256 == hashlib.sha256(b"setup").hexdigest()


def test_a_source_archive_that_no_index_promises_stays_unresolved(
    tmp_path: Path, play: PlayServer
) -> None:
    one = store(tmp_path, play)
    named = replace(one.sources, default_index=f"{play.url}/simple")
    assert replace(one, sources=named).complete(META, "cp311") == META


def test_a_login_page_hides_no_other_mirror(tmp_path: Path, play: PlayServer) -> None:
    play.files["/portal/tensorrt-cu12-libs/"] = File(body=b"<html>log in</html>", kind="text/html")
    sites.nvidia(play, NAME, LIBS)
    mirrors = Mirrors(nvidia=(f"{play.url}/portal", f"{play.url}/nvidia"))
    one = Store(folders=Folders(tmp_path), sources=Sources(mirrors=mirrors), talk=Talk())
    assert one.complete(UNRESOLVED, "cp311").url == f"{FOLDER}/{NAME}"


def test_a_file_other_than_its_index_promises_is_refused(tmp_path: Path, play: PlayServer) -> None:
    sites.nvidia(play, NAME, LIBS)
    served = play.files[f"/nvidia/tensorrt-cu12-libs/{NAME}"]
    play.files[f"/nvidia/tensorrt-cu12-libs/{NAME}"] = type(served)(body=b"something else")
    one = store(tmp_path, play)
    with pytest.raises(InvalidInput, match=r"its sha256 is [0-9a-f]{64}\n.*its index has"):
        one.complete(UNRESOLVED, "cp311")
    assert not any(path.is_file() for path in one.folders.files.rglob("*.whl"))


def test_a_file_other_than_public_locks_know_is_refused(tmp_path: Path, play: PlayServer) -> None:
    known = "tensorrt_cu12_libs-10.9.0.34-py2.py3-none-manylinux_2_28_x86_64.whl"
    sites.nvidia(play, known, b"not the real one")
    asked = UNRESOLVED.model_copy(update={"version": "10.9.0.34", "url": f"{FOLDER}/{known}"})
    with pytest.raises(InvalidInput, match="public locks have 4a82f0bd"):
        store(tmp_path, play).complete(asked, "cp311")


def test_a_file_that_nobody_serves_names_every_place(tmp_path: Path, play: PlayServer) -> None:
    mirrors = Mirrors(weights=(f"{play.url}/a", f"{play.url}/b"))
    one = Store(folders=Folders(tmp_path), sources=Sources(mirrors=mirrors), talk=Talk())
    (tmp_path / "step").mkdir()
    gone = artifact(url=f"{play.url}/official/yolov8n.pt")
    with pytest.raises(SourceUnreachable) as caught:
        one.hand_out(gone, tmp_path / "step")
    text = str(caught.value)
    for path in ("/a/yolov8n.pt", "/b/yolov8n.pt", "/official/yolov8n.pt"):
        assert f"{play.url}{path}: HTTP 404" in text
    assert list((tmp_path / "step").iterdir()) == []
