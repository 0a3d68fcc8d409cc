from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound
from rich.console import Console

from builder.engine import cache as module
from builder.engine.cache import ONE_STACK, data_roots, default_budget, evict, prune, superseded
from builder.talk import Talk

GB = 10**9
ROW = "yolov8-cu128"
TAG = f"yolo-images/{ROW}:local"


class Engine:
    """As much of an engine as the build cache and the images need.

    `records` are (bytes, seconds since the last use); `images` maps ids to tags.
    """

    def __init__(self) -> None:
        self.records: list[tuple[int, float]] = []
        self.images_by_id: dict[str, list[str]] = {}
        self.labels: dict[str, dict[str, str] | None] = {}
        self.used = ""
        self.asked: list[str] = []
        self.root = "/nowhere"
        self.api: Any = SimpleNamespace(
            df=lambda: {"BuildCache": [{"Size": size, "Shared": True} for size, _ in self.records]},
            prune_builds=self._prune,
            inspect_image=self._inspect,
        )
        self.images = SimpleNamespace(remove=self._remove)

    def info(self) -> dict[str, str]:
        return {"DockerRootDir": self.root, "ID": "engine"}

    def _prune(self, filters: dict[str, str] | None = None, all: bool = False) -> None:  # noqa: A002 - the SDK's name
        assert all, "without it records that images share stay"
        until = (filters or {}).get("until", "0s")
        self.asked.append(until)
        self.records = [item for item in self.records if item[1] < float(until.removesuffix("s"))]

    def _inspect(self, name: str) -> dict[str, Any]:
        for key, tags in self.images_by_id.items():
            if name == key or name in tags:
                config = {"Labels": self.labels.get(key)}
                return {"Id": key, "RepoTags": tags, "Size": 4 * GB, "Config": config}
        raise ImageNotFound("no such image")

    def _remove(self, name: str) -> None:
        key = self._inspect(name)["Id"]
        if key == self.used:
            response: Any = SimpleNamespace(status_code=409, url="", reason="Conflict")
            raise APIError("conflict", response=response, explanation="a container uses it")
        if name in self.images_by_id[key]:
            self.images_by_id[key].remove(name)
        if not self.images_by_id[key]:
            del self.images_by_id[key]


@pytest.fixture
def engine() -> Any:
    return Engine()


def test_a_cache_within_its_budget_is_left_alone(engine: Any) -> None:
    engine.records = [(3 * GB, 9e6)]
    assert prune(engine, 3 * GB, used_since=time.time()) == 0
    assert engine.asked == []


def test_what_this_build_did_not_use_goes_first(engine: Any) -> None:
    engine.records = [(3 * GB, 5.0), (4 * GB, 5000.0)]
    assert prune(engine, 3 * GB, used_since=time.time() - 60) == 4 * GB
    assert engine.records == [(3 * GB, 5.0)]
    assert engine.asked == ["62s"]


def test_a_budget_is_a_budget(engine: Any) -> None:
    engine.records = [(3 * GB, 5.0), (4 * GB, 5000.0)]
    assert prune(engine, 2 * GB, used_since=time.time() - 60) == 7 * GB
    assert engine.records == []


def test_what_is_in_use_may_be_kept_whatever_the_budget(engine: Any) -> None:
    engine.records = [(3 * GB, 5.0), (4 * GB, 5000.0)]
    assert prune(engine, 0, used_since=time.time() - 60, keep_used=True) == 4 * GB


def test_the_default_budget_holds_a_stack_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[int, int] = {60 * GB: ONE_STACK, 1000 * GB: 200 * GB}
    for total, budget in sizes.items():
        monkeypatch.setattr(module, "space_of", lambda _, total=total: SimpleNamespace(total=total))
        assert default_budget(tmp_path) == budget


def test_only_the_recorded_image_is_evicted(engine: Any) -> None:
    engine.images_by_id = {"sha256:new": [TAG]}
    assert evict(engine, TAG, "sha256:old") == "its tag has moved to another image"
    assert engine.images_by_id == {"sha256:new": [TAG]}
    engine.used = "sha256:new"
    assert evict(engine, TAG, "sha256:new") == "a container uses it"
    engine.used = ""
    assert evict(engine, TAG, "sha256:new") is None
    assert engine.images_by_id == {}


def replaced(engine: Any, *, keep_tag: str = "") -> str:
    """Build another image under the row's tag; return what was said."""
    said = io.StringIO()
    with superseded(engine, ROW, TAG, Talk(Console(file=said, width=200))):
        engine.images_by_id["sha256:old"] = [keep_tag] if keep_tag else []
        engine.images_by_id["sha256:new"] = [TAG]
    return said.getvalue()


@pytest.fixture
def with_old(engine: Any) -> Any:
    engine.images_by_id = {"sha256:old": [TAG]}
    engine.labels = {"sha256:old": {"org.yolo-images.row": ROW}}
    return engine


def test_the_image_before_is_removed(with_old: Any) -> None:
    assert "removed the image before this one (sha256:old, 4.0 GB)" in replaced(with_old)
    assert list(with_old.images_by_id) == ["sha256:new"]


def test_an_image_in_use_stays(with_old: Any) -> None:
    with_old.used = "sha256:old"
    assert "stays (sha256:old, 4.0 GB): a container uses it" in replaced(with_old)
    assert "sha256:old" in with_old.images_by_id


@pytest.mark.parametrize("labels", [None, {}, {"org.yolo-images.row": "another"}])
def test_an_image_that_only_had_our_name_stays(with_old: Any, labels: dict[str, str]) -> None:
    with_old.labels["sha256:old"] = labels
    assert replaced(with_old) == ""
    assert "sha256:old" in with_old.images_by_id


def test_an_image_with_another_name_stays(with_old: Any) -> None:
    assert replaced(with_old, keep_tag="team/kept:1") == ""
    assert "sha256:old" in with_old.images_by_id


def test_the_same_image_again_stays(with_old: Any) -> None:
    with superseded(with_old, ROW, TAG, Talk(Console(file=io.StringIO()))):
        pass
    assert with_old.images_by_id == {"sha256:old": [TAG]}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda host: monkeypatch.setattr(module, "engine_host", lambda: host)


def test_where_the_engines_data_lies(
    engine: Any, tmp_path: Path, at: Callable[[str], None]
) -> None:
    root, system = tmp_path / "docker", tmp_path / "containerd"
    engine.root = str(root)
    at("unix:///var/run/docker.sock")
    assert data_roots(engine, system) == (), "the socket of a virtual machine"
    root.mkdir()
    assert data_roots(engine, system) == (root,)
    system.mkdir()
    assert data_roots(engine, system) == (root, system), "images lie with the system's containerd"
    (root / "containerd" / "daemon").mkdir(parents=True)
    assert data_roots(engine, system) == (root,)
    at("tcp://192.0.2.1:2376")
    assert data_roots(engine, system) == ()
