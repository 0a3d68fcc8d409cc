from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from builder import host_packages
from builder.apt import System, parse_sources
from builder.errors import EngineUnavailable
from builder.host_packages import add_pinned_suite, install, parse_simulation, pinned_files
from builder.talk import Talk

BOOKWORM = System(id="debian", version="12", codename="bookworm")

# From `apt-get --simulate install docker.io/trixie ...` on Debian 12, shortened.
HARMLESS = """\
Inst runc (1.1.5+ds1-1+deb12u1 Debian:12.9/stable [amd64])
Inst containerd (1.7.24~ds1-6+deb13u1 Debian:13.1/stable [amd64])
Inst docker.io (26.1.5+dfsg1-9+b9 Debian:13.1/stable [amd64])
Conf runc (1.1.5+ds1-1+deb12u1 Debian:12.9/stable [amd64])
"""
# From the same with --target-release trixie.
UPGRADES = """\
Remv usrmerge [35]
Inst base-files [12.4+deb12u11] (13.8 Debian:13.1/stable [amd64]) []
Inst libc6 [2.36-9+deb12u10] (2.41-12 Debian:13.1/stable [amd64]) []
Inst docker.io (26.1.5+dfsg1-9+b9 Debian:13.1/stable [amd64])
"""


class Apt:
    """Stands in for apt-get: answers a simulation with `simulation`, remembers every call."""

    def __init__(self, simulation: str, code: int = 0) -> None:
        self.simulation = simulation
        self.code = code
        self.calls: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.calls.append(argv)
        text = self.simulation if "--simulate" in argv else ""
        return subprocess.CompletedProcess(argv, self.code, text, "E: it broke")

    @property
    def installed(self) -> bool:
        return any("install" in argv and "--simulate" not in argv for argv in self.calls)


@pytest.fixture
def root_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_simulations_are_understood() -> None:
    changes = parse_simulation(HARMLESS)
    assert changes.harmless
    assert len(changes.new) == 3
    changes = parse_simulation(UPGRADES)
    assert not changes.harmless
    assert changes.removed == ("usrmerge",)
    assert "libc6 2.36-9+deb12u10 -> 2.41-12" in changes.replaced
    assert len(changes.new) == 1


@pytest.mark.usefixtures("root_user")
def test_packages_are_installed_when_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(HARMLESS)
    monkeypatch.setattr(host_packages, "_apt", apt)
    install(["docker.io/trixie"], BOOKWORM, Talk())
    assert apt.installed
    assert apt.calls[-1][-1] == "docker.io/trixie"


@pytest.mark.usefixtures("root_user")
def test_upgrading_the_c_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(UPGRADES)
    monkeypatch.setattr(host_packages, "_apt", apt)
    with pytest.raises(EngineUnavailable, match=r"libc6 2\.36.*usrmerge removed") as caught:
        install(["docker.io/trixie"], BOOKWORM, Talk())
    assert not apt.installed
    assert "Nothing was done" in str(caught.value)


@pytest.mark.usefixtures("root_user")
def test_a_failing_apt_shows_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_packages, "_apt", Apt("", code=100))
    with pytest.raises(EngineUnavailable, match="it broke"):
        install(["docker.io"], BOOKWORM, Talk())


def test_without_root_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(HARMLESS)
    monkeypatch.setattr(host_packages, "_apt", apt)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineUnavailable, match=r"As root: apt-get install .*mmdebstrap"):
        install(["mmdebstrap"], BOOKWORM, Talk())
    assert apt.calls == []


@pytest.mark.usefixtures("root_user")
@pytest.mark.parametrize("system", [("fedora", "41"), ("debian", "11"), ("", "")])
def test_unknown_systems_are_refused(
    monkeypatch: pytest.MonkeyPatch, system: tuple[str, str]
) -> None:
    apt = Apt(HARMLESS)
    monkeypatch.setattr(host_packages, "_apt", apt)
    with pytest.raises(EngineUnavailable, match="only on Debian 12 and 13 and Ubuntu"):
        install(["docker.io"], System(id=system[0], version=system[1], codename=""), Talk())
    assert apt.calls == []


def test_the_newer_release_comes_from_the_machines_own_mirror(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources").write_text(
        "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n\n"
        "Types: deb\nURIs: http://m.example/security\nSuites: bookworm-security\n"
        "Components: main\n"
    )
    add_pinned_suite("trixie", BOOKWORM, tmp_path)
    sources, preferences = pinned_files("trixie", tmp_path)
    (entry,) = parse_sources(sources.read_text())
    assert entry.uris == ("http://m.example/debian",)
    assert entry.suites == ("trixie",)
    assert entry.fields == (("Signed-By", "/usr/share/keyrings/k.gpg"),)
    assert "Pin-Priority: 50\n" in preferences.read_text()
    before = sources.read_text()
    add_pinned_suite("trixie", BOOKWORM, tmp_path)
    assert sources.read_text() == before


def test_a_machine_without_the_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="bookworm main"):
        add_pinned_suite("trixie", BOOKWORM, tmp_path)
