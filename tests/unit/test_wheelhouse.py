from __future__ import annotations

import hashlib
from pathlib import Path

from builder.wheelhouse import collect_wheels, sha256_of


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lock(*entries: tuple[str, bytes]) -> str:
    return "".join(f"{what} --hash=sha256:{digest(content)}\n" for what, content in entries)


def wheel(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-py3-none-any.whl"
    path.write_bytes(content)
    return path


def test_only_files_with_a_locked_hash_are_taken(tmp_path: Path) -> None:
    links = tmp_path / "links"
    wheel(links, "some_pkg-1.0", b"right")
    wheel(links, "other-1.0", b"rebuilt by somebody")
    wheel(links, "unlocked-1.0", b"right")
    text = lock(("Some.Pkg==1.0", b"right"), ("other==1.0", b"the official one"))
    found = collect_wheels(text, tmp_path / "house", [str(links)], [])
    assert [path.name for path in found] == ["some_pkg-1.0-py3-none-any.whl"]
    assert found[0].read_bytes() == b"right"


def test_a_local_index_is_searched_by_its_links(tmp_path: Path) -> None:
    good = wheel(tmp_path / "files", "pkg-1.0", b"good")
    sdist = tmp_path / "files" / "pkg-1.0.tar.gz"
    sdist.write_bytes(b"sdist")
    page = tmp_path / "simple" / "pkg" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(
        f'<a href="../../files/{good.name}#sha256={digest(b"good")}">x</a>'
        f'<a href="../../files/{sdist.name}">y</a><a href="https://far.example/pkg-1.0.zip">z</a>'
    )
    text = f"pkg==1.0 --hash=sha256:{digest(b'good')} --hash=sha256:{digest(b'sdist')}\n"
    index = (tmp_path / "simple").as_uri()
    found = collect_wheels(text, tmp_path / "house", [], [index, "https://far.example/simple"])
    assert [path.name for path in found] == [good.name, sdist.name]


def test_an_index_that_promises_a_hash_is_not_believed(tmp_path: Path) -> None:
    bad = wheel(tmp_path / "files", "pkg-1.0", b"tampered")
    page = tmp_path / "simple" / "pkg" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../files/{bad.name}#sha256={digest(b"good")}">x</a>')
    index = (tmp_path / "simple").as_uri()
    assert collect_wheels(lock(("pkg==1.0", b"good")), tmp_path / "house", [], [index]) == ()


def test_the_folder_holds_exactly_what_is_locked_now(tmp_path: Path) -> None:
    links, house = tmp_path / "links", tmp_path / "house"
    wheel(links, "a-1.0", b"a")
    wheel(links, "b-1.0", b"b")
    collect_wheels(lock(("a==1.0", b"a")), house, [str(links)], [])
    collect_wheels(lock(("b==1.0", b"b")), house, [str(links)], [])
    assert [path.name for path in house.iterdir()] == ["b-1.0-py3-none-any.whl"]


def test_a_damaged_copy_is_replaced(tmp_path: Path) -> None:
    links, house = tmp_path / "links", tmp_path / "house"
    wheel(links, "a-1.0", b"a")
    house.mkdir()
    wheel(house, "a-1.0", b"damaged")
    (found,) = collect_wheels(lock(("a==1.0", b"a")), house, [str(links)], [])
    assert sha256_of(found) == digest(b"a")
