from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError
from rich.console import Console

from builder import clean as module
from builder.clean import clean
from builder.engine.leftovers import remove_images
from builder.errors import EngineUnavailable, Finding
from builder.talk import Talk


class Images:
    """The engine's images as far as cleaning asks for them; `used` can't be removed."""

    def __init__(self, tags: list[list[str]], used: str = "") -> None:
        self.tags = tags
        self.used = used
        self.removed: list[str] = []

    def list(self, filters: dict[str, str]) -> list[SimpleNamespace]:
        assert filters == {"label": "org.yolo-images.row"}
        return [SimpleNamespace(tags=tags) for tags in self.tags]

    def remove(self, tag: str) -> None:
        if tag == self.used:
            response: Any = SimpleNamespace(status_code=409, url="", reason="Conflict")
            raise APIError("conflict", response=response, explanation="a container uses it")
        self.removed.append(tag)


def test_only_our_tags_are_removed() -> None:
    images = Images(
        [["yolo-images/a:local", "team/copy:1"], ["team/derived:2"], ["yolo-images/b:local"], []],
        used="yolo-images/b:local",
    )
    client: Any = SimpleNamespace(images=images)
    removed, left = remove_images(client, "yolo-images/")
    assert removed == images.removed == ["yolo-images/a:local"]
    assert left == ["yolo-images/b:local: a container uses it"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def no_engine() -> None:
        raise EngineUnavailable(Finding(place="", what="no engine"))

    monkeypatch.setattr(module, "connect", no_engine)
    for name in (".cache/engine", ".cache/weights/x", "out/row", "locks", ".venv"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def run(root: Path) -> str:
    said = io.StringIO()
    clean(root, Talk(Console(file=said, width=200)))
    return said.getvalue()


def test_results_and_caches_go_and_the_rest_stays(checkout: Path) -> None:
    said = run(checkout)
    assert sorted(path.name for path in checkout.iterdir()) == [".cache", ".venv", "locks"]
    assert [path.name for path in (checkout / ".cache").iterdir()] == ["build.lock"]
    assert "left: containers and images, because no engine answers" in said
    assert "left: .venv" in said


def test_the_files_of_a_running_engine_stay(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "our_daemon", lambda _: SimpleNamespace(pid=lambda: 77))
    said = run(checkout)
    left = sorted(path.name for path in (checkout / ".cache").iterdir())
    assert left == ["build.lock", "engine"]
    assert "make engine-stop" in said


def test_linked_folders_are_not_followed(checkout: Path, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious").touch()
    (checkout / ".cache" / "link").symlink_to(elsewhere)
    run(checkout)
    assert (elsewhere / "precious").exists()
