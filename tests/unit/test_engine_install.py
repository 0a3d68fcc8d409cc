from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

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


class Contexts:
    """Docker's contexts: one in use, one that the environment may name, one with certificates."""

    known: ClassVar = {
        None: ("unix:///run/user/1000/docker.sock", {}),
        "named": ("unix:///run/named.sock", {}),
        "prod": ("tcp://prod.example:2376", {"docker": ["ca.pem"]}),
    }

    @classmethod
    def get_context(cls, name: str | None) -> SimpleNamespace | None:
        if name not in cls.known:
            return None
        host, certificates = cls.known[name]
        return SimpleNamespace(Name=name, Host=host, TLSMaterial={"TLSMaterial": certificates})


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "")
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setattr(client_module, "ContextAPI", Contexts)


@pytest.mark.usefixtures("contexts")
def test_a_docker_context_counts_for_sdk_and_client() -> None:
    assert engine_host() == "unix:///run/user/1000/docker.sock"
    assert os.environ["DOCKER_HOST"] == "unix:///run/user/1000/docker.sock"


@pytest.mark.usefixtures("contexts")
def test_a_context_that_the_environment_names_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one would build here, and prune there."""
    monkeypatch.setenv("DOCKER_CONTEXT", "named")
    assert engine_host() == os.environ["DOCKER_HOST"] == "unix:///run/named.sock"
    assert "DOCKER_CONTEXT" not in os.environ


@pytest.mark.usefixtures("contexts")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", r"docker context gone: can't be used here\n    it does not exist\."),
        ("prod", r"docker context prod: .*\n    it has certificates.*DOCKER_CERT_PATH"),
    ],
)
def test_a_context_that_can_t_be_passed_on_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", name)
    with pytest.raises(EngineUnavailable, match=words):
        engine_host()
