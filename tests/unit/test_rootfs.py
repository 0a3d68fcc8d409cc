from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.apt import System, parse_list
from builder.errors import BuildFailed, SourceUnreachable
from builder.rootfs import bootstrap, mmdebstrap_argv, recipe_key
from builder.sources import Sources
from builder.talk import Talk

DEBIAN = Sources(
    system=System(id="debian", version="12", codename="bookworm"),
    apt=parse_list("deb http://m.example/debian bookworm main"),
    apt_settings='Acquire::http::Proxy "http://p:1";\n',
)

FAKE = """#!/bin/sh
printf run >> "$COUNT"
cat > "$COUNT.stdin"
for word; do case $word in */rootfs.tar) out=$word ;; esac; done
printf tar > "$out"
printf 'a=1\\n' > "${out%rootfs.tar}packages.txt"
echo "$MESSAGE" >&2
exit "$CODE"
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for mmdebstrap; the returned file gets a word for each run."""
    tool = tmp_path / "bin" / "mmdebstrap"
    tool.parent.mkdir()
    tool.write_text(FAKE)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("COUNT", str(tmp_path / "runs"))
    monkeypatch.setenv("CODE", "0")
    monkeypatch.setenv("MESSAGE", "")
    monkeypatch.setattr("builder.rootfs._tools", lambda: ())
    return tmp_path / "runs"


def test_a_base_is_made_once_per_recipe(runs: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tar = bootstrap("bookworm", cache, DEBIAN, 1, Talk())
    assert tar == cache / "bookworm" / "rootfs.tar"
    assert (tar.parent / "packages.txt").read_text() == "a=1\n"
    bootstrap("bookworm", cache, DEBIAN, 1, Talk())
    assert runs.read_text() == "run"
    bootstrap("bookworm", cache, DEBIAN, 1, Talk(), refresh=True)
    bootstrap("bookworm", cache, DEBIAN, 2, Talk())
    assert runs.read_text() == "runrunrun"
    assert "m.example" in Path(f"{runs}.stdin").read_text()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("E: Could not resolve 'u:secret@m.example'", SourceUnreachable),
        ("E: no space left", BuildFailed),
    ],
)
def test_a_failure_leaves_no_base(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    error: type[Exception],
) -> None:
    monkeypatch.setenv("CODE", "1")
    monkeypatch.setenv("MESSAGE", message)
    with pytest.raises(error, match="base bookworm"):
        bootstrap("bookworm", tmp_path / "cache", DEBIAN, 1, Talk())
    assert not list((tmp_path / "cache").rglob("rootfs.tar"))


def test_the_machine_stays_out_of_the_recipe() -> None:
    assert recipe_key("bookworm", 1) != recipe_key("trixie", 1)
    argv = mmdebstrap_argv("bookworm", Path("/w"), DEBIAN)
    assert "--aptopt=/w/apt.conf" in argv
    assert "http://p:1" not in " ".join(argv)  # a proxy's login would stand in the process list
    assert argv[-1] == "-"
    hooks = " ".join(word for word in argv if word.startswith("--customize-hook"))
    for trace in ("sources.list", "99mmdebstrap", "resolv.conf", "hostname", "machine-id"):
        assert trace in hooks


def test_another_system_uses_the_mirror_that_mmdebstrap_knows() -> None:
    ubuntu = Sources(system=System(id="ubuntu", version="24.04", codename="noble"))
    assert mmdebstrap_argv("bookworm", Path("/w"), ubuntu)[-1] == "/w/rootfs.tar"
