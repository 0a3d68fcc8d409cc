"""flash-attn's source archive comes by hash: from a folder, the store, or an index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import SourceUnreachable
from builder.flash_source import hand_out_source
from builder.folders import Folders
from builder.requirements import Locked
from builder.sources import Sources
from builder.store import Store
from builder.talk import Talk
from tests.servers.packages import sdist
from tests.servers.play import PlayServer, play_server
from tests.servers.sites import index

NAME, BODY = sdist("flash_attn", "2.8.3", {"setup.py": "# stands for hours of compiling"})
SHA256 = hashlib.sha256(BODY).hexdigest()
SOURCE = Locked(name="flash-attn", version="2.8.3", hashes=(SHA256,))


@pytest.fixture
def play() -> Iterator[PlayServer]:
    with play_server() as server:
        yield server
        assert server.errors == []


def store(tmp_path: Path, **sources: object) -> Store:
    return Store(folders=Folders(tmp_path), sources=Sources(**sources), talk=Talk())  # type: ignore[arg-type]  # keywords of Sources


def test_it_is_downloaded_once(tmp_path: Path, play: PlayServer) -> None:
    from_index = store(tmp_path, default_index=index(play, {NAME: BODY}))
    for attempt in ("first", "second"):
        path = hand_out_source(SOURCE, from_index, tmp_path / attempt)
        assert path.name == NAME
        assert path.read_bytes() == BODY
    assert len(play.requests(f"/files/{NAME}")) == 1


def test_a_damaged_copy_is_fetched_again(tmp_path: Path, play: PlayServer) -> None:
    from_index = store(tmp_path, default_index=index(play, {NAME: BODY}))
    hand_out_source(SOURCE, from_index, tmp_path / "first").unlink()
    from_index.folders.file(SHA256, NAME).write_bytes(b"half")
    assert hand_out_source(SOURCE, from_index, tmp_path / "second").read_bytes() == BODY


def test_an_index_is_asked_after_one_that_lacks_it(tmp_path: Path, play: PlayServer) -> None:
    other = index(play, {"einops-1.0-py3-none-any.whl": b"wheel"}, root="/other")
    here = index(play, {NAME: BODY})
    both = store(tmp_path, default_index=other, extra_indexes=(here,))
    assert hand_out_source(SOURCE, both, tmp_path / "there").read_bytes() == BODY


def test_another_file_under_the_name_is_refused(tmp_path: Path, play: PlayServer) -> None:
    from_index = store(tmp_path, default_index=index(play, {NAME: BODY + b"!"}))
    with pytest.raises(SourceUnreachable, match="with the hash of the lock"):
        hand_out_source(SOURCE, from_index, tmp_path / "there")
    assert not (tmp_path / "there" / NAME).exists()


def test_a_local_folder_comes_first(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    (house / NAME).write_bytes(BODY)
    local = store(tmp_path, no_index=True, find_links=(str(house),))
    assert hand_out_source(SOURCE, local, tmp_path / "there").read_bytes() == BODY


def test_without_any_index_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable, match="0 were asked"):
        hand_out_source(SOURCE, store(tmp_path, no_index=True), tmp_path / "there")
