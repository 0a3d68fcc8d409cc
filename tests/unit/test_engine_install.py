from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder.apt import System
from builder.engine import client as client_module
from builder.engine import install as module
from builder.engine.client import engine_host
from builder.engine.install import engine_packages, start, verify
from builder.errors import EngineUnavailable
from builder.talk import Talk

ALL = ("dockerd", "docker", "buildx")


@pytest.mark.parametrize(
    ("system", "missing", "packages"),
    [
        (
            ("debian", "12"),
            ALL,
            ("docker.io/trixie", "containerd/trixie", "docker-cli/trixie", "docker-buildx/trixie"),
        ),
        (("debian", "13"), ALL, ("docker.io", "containerd", "docker-cli", "docker-buildx")),
        (("debian", "12"), ("buildx",), ("docker-buildx/trixie",)),
        (("ubuntu", "24.04"), ALL, ("docker.io", "docker-buildx")),
        (("debian", "12"), (), ()),
    ],
)
def test_packages(
    system: tuple[str, str], missing: tuple[str, ...], packages: tuple[str, ...]
) -> None:
    assert (
        engine_packages(System(id=system[0], version=system[1], codename=""), missing) == packages
    )


def engine(store: str) -> Any:
    return SimpleNamespace(info=lambda: {"DriverStatus": [["driver-type", store]]})


def test_an_engine_with_the_image_store_and_buildx_is_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "has_buildx", lambda: True)
    verify(engine("io.containerd.snapshotter.v1"))


def test_everything_an_engine_lacks_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_buildx", lambda: False)
    with pytest.raises(EngineUnavailable) as caught:
        verify(engine("overlay2"))
    store, buildx = caught.value.findings
    assert "containerd-snapshotter" in store.todo
    assert "docker-buildx" in buildx.todo


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine answers, and nothing may be installed or started."""

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("must not happen")

    monkeypatch.setattr(module, "answers", lambda _: False)
    for name in ("install", "add_pinned_suite", "write_atomic", "_start_service"):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr("builder.engine.daemon.Daemon.start", never)


@pytest.mark.usefixtures("silent")
def test_a_named_engine_that_is_silent_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.example:2375")
    with pytest.raises(EngineUnavailable, match=r"tcp://engine\.example:2375: no engine answers"):
        start(tmp_path, Talk())


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    ("missing", "words"), [(ALL, "Only root can install"), ((), "this user may not use it")]
)
def test_without_root_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], words: str
) -> None:
    debian = System(id="debian", version="12", codename="bookworm")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(module, "engine_host", lambda: "unix:///var/run/docker.sock")
    monkeypatch.setattr(module, "parse_system", lambda _: debian)
    monkeypatch.setattr(module, "missing_parts", lambda: missing)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineUnavailable, match=words):
        start(tmp_path, Talk())


def test_a_docker_context_counts_for_sdk_and_client(monkeypatch: pytest.MonkeyPatch) -> None:
    class Contexts:
        @staticmethod
        def get_current_context() -> SimpleNamespace:
            return SimpleNamespace(Host="unix:///run/user/1000/docker.sock")

    monkeypatch.setenv("DOCKER_HOST", "")
    monkeypatch.setattr(client_module, "ContextAPI", Contexts)
    assert engine_host() == "unix:///run/user/1000/docker.sock"
    assert os.environ["DOCKER_HOST"] == "unix:///run/user/1000/docker.sock"
