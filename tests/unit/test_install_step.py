"""images/stack/install.py: the build step that every layer with Python packages goes through."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

EPOCH = 1_700_000_000
BEFORE = EPOCH - 1000
FILE = Path(__file__).parents[2] / "images/stack/install.py"


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_step", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # NamedTuple looks its annotations up in the module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A virtual environment as uv leaves it: one package from before, one just installed."""
    packages = tmp_path / "opt/venv/lib/python3/site-packages"
    for name, time in (("old", BEFORE), ("new", None)):
        info = packages / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (packages / f"{name}.py").write_text("VALUE = 1\n")
        (info / "uv_cache.json").write_text('{"timestamp": 1}')
        (info / "direct_url.json").write_text('{"url": "http://mirror.example/x.whl"}')
        lines = [f"{name}.py,sha256=a,10"]
        lines += [f"{info.name}/{file},sha256=b,1" for file in ("uv_cache.json", "direct_url.json")]
        lines += [f"{info.name}/RECORD,,"]
        (info / "RECORD").write_text("\n".join(lines) + "\n")
        (info / "link").symlink_to("RECORD")
        if time is not None:
            for path in (packages / f"{name}.py", *info.iterdir(), info):
                os.utime(path, (time, time), follow_symlinks=False)
    return tmp_path / "opt"


def wheel(packages: Path, name: str, files: Sequence[str]) -> Path:
    """Lay out a distribution as the installer does; return its RECORD."""
    for file in files:
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        (packages / file).write_text("pass\n")
    record = packages / f"{name}-1.0.dist-info/RECORD"
    record.parent.mkdir()
    names = [f'"{file}"' if "," in file else file for file in files]
    record.write_text("".join(f"{file},sha256=a,5\n" for file in names))
    return record


def names_below(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and ".dist-info" not in str(path)
    )


@pytest.fixture
def rule(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule in place of the real ones."""
    made = install.Unneeded("some-*", ("some/*/tests/*", "some/include/*"), "because")
    monkeypatch.setattr(install, "UNNEEDED", (made,))


@pytest.mark.usefixtures("rule")
def test_unneeded_files_go_with_their_lines_byte_code_and_folders(
    install: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = ["some/deep/tests/a.py", "some/deep/tests/b,c.py", "some/include/x/y/z.h"]
    kept = ["some/__init__.py", "some/deep/mod.py", "some/tests.py"]
    record = wheel(tmp_path, "some_package", [*gone, *kept])
    install.tidy(tmp_path, EPOCH)
    assert record.read_text() == "".join(f"{file},sha256=a,5\n" for file in kept)
    assert [name for name in names_below(tmp_path) if name.endswith(".py")] == sorted(kept)
    compiled = {Path(name).name.partition(".")[0] for name in names_below(tmp_path)}
    assert compiled == {"__init__", "mod", "tests"}
    assert not (tmp_path / "some/include").exists()
    assert not (tmp_path / "some/deep/tests").exists()
    assert capsys.readouterr().out == "some-package: 3 files, 0.0 MB left out: because\n"


@pytest.mark.usefixtures("rule")
def test_a_rule_touches_the_files_of_its_own_distribution_alone(
    install: ModuleType, tmp_path: Path
) -> None:
    wheel(tmp_path, "some_package", ["some/include/a.h"])
    wheel(tmp_path, "another", ["some/include/b.h"])
    (tmp_path / "some/include/nobody.h").touch()
    install.tidy(tmp_path, EPOCH)
    assert names_below(tmp_path) == ["some/include/b.h", "some/include/nobody.h"]


@pytest.mark.usefixtures("rule")
def test_a_rule_that_matches_nothing_changes_nothing(
    install: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = wheel(tmp_path, "some_package", ["some/a.txt"])
    before = record.read_bytes()
    install.tidy(tmp_path, EPOCH)
    assert record.read_bytes() == before
    assert names_below(tmp_path) == ["some/a.txt"]
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("rule")
def test_what_an_earlier_step_installed_keeps_its_files(
    install: ModuleType, tmp_path: Path
) -> None:
    record = wheel(tmp_path, "some_package", ["some/include/a.h"])
    for path in (record, tmp_path / "some/include/a.h"):
        os.utime(path, (BEFORE, BEFORE))
    install.tidy(tmp_path, EPOCH)
    assert names_below(tmp_path) == ["some/include/a.h"]


def info_of(tree: Path, name: str) -> Path:
    return tree / f"venv/lib/python3/site-packages/{name}-1.0.dist-info"


def test_tidy_removes_the_notes_of_the_package_it_installed(
    install: ModuleType, tree: Path
) -> None:
    install.tidy(tree, EPOCH)
    info = info_of(tree, "new")
    assert sorted(path.name for path in info.iterdir()) == ["RECORD", "link"]
    assert (info / "RECORD").read_text() == "new.py,sha256=a,10\nnew-1.0.dist-info/RECORD,,\n"


def test_tidy_leaves_what_an_earlier_step_installed_alone(install: ModuleType, tree: Path) -> None:
    info = info_of(tree, "old")
    before = {path: path.lstat().st_mtime for path in (info, *info.iterdir())}
    install.tidy(tree, EPOCH)
    assert {path: path.lstat().st_mtime for path in (info, *info.iterdir())} == before
    assert not list((tree / "venv/lib/python3/site-packages/__pycache__").glob("old.*"))


def test_after_tidy_nothing_is_newer_than_the_epoch(install: ModuleType, tree: Path) -> None:
    install.tidy(tree, EPOCH)
    newer = [path for path in (tree, *tree.rglob("*")) if path.lstat().st_mtime > EPOCH]
    assert newer == []


def test_tidy_twice_changes_nothing(install: ModuleType, tree: Path) -> None:
    def picture() -> dict[str, tuple[float, bytes]]:
        return {
            str(path): (path.lstat().st_mtime, path.read_bytes() if path.is_file() else b"")
            for path in tree.rglob("*")
        }

    install.tidy(tree, EPOCH)
    first = picture()
    install.tidy(tree, EPOCH)
    assert picture() == first


def test_byte_code_does_not_depend_on_the_time_of_its_source(
    install: ModuleType, tree: Path
) -> None:
    install.tidy(tree, EPOCH)
    (compiled,) = (tree / "venv/lib/python3/site-packages/__pycache__").glob("new.*.pyc")
    # Bytes 4 to 8 are flags: 1 says "checked by hash, not time", and without 2 it isn't checked.
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 1


def test_a_source_that_does_not_compile_is_left_as_it_is(
    install: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "template.py").write_text("{{ not python }}(\n")
    (tmp_path / "latin.py").write_bytes(b"x = '\xff'\n")
    install.tidy(tmp_path, EPOCH)
    assert sorted(path.name for path in tmp_path.rglob("*.py*")) == ["latin.py", "template.py"]


@pytest.mark.parametrize(
    ("text", "empty"),
    [("", True), ("# nothing\n\n", True), ("torch==2.8.0 \\\n    --hash=sha256:0\n", False)],
)
def test_is_empty(install: ModuleType, text: str, *, empty: bool) -> None:
    assert install.is_empty(text) is empty


def test_an_empty_list_starts_no_installer(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "UV", "/nonexistent/uv")
    empty = tmp_path / "tensorrt.txt"
    empty.write_text("# not in this row\n")
    install.install(empty)
    assert list(tmp_path.iterdir()) == [empty]


def test_a_failed_installation_ends_the_step_and_leaves_no_scratch(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "UV", "false")
    requirements = tmp_path / "deps.txt"
    requirements.write_text("numpy==2.0.0\n")
    with pytest.raises(SystemExit, match=r"deps\.txt: the installation failed"):
        install.install(requirements)
    assert list(tmp_path.iterdir()) == [requirements]


def test_the_lock_file_of_the_installer_does_not_stay(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "UV", "true")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    (tmp_path / ".lock").touch()
    requirements = tmp_path / "deps.txt"
    requirements.write_text("numpy==2.0.0\n")
    install.install(requirements)
    assert list(tmp_path.iterdir()) == [requirements]


def test_the_command_installs_by_hash_and_resolves_nothing(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "WHEELHOUSE", tmp_path)
    requirements = tmp_path / "deps.txt"
    requirements.write_text("numpy==2.0.0 --hash=sha256:aa\n")
    argv = install.command(requirements)
    assert argv[argv.index("--only-binary") + 1] == ":all:"
    assert {"--require-hashes", "--no-deps", "--no-cache", "--no-build-isolation"} <= set(argv)
    assert argv[argv.index("--python") + 1] == sys.executable
    assert argv[argv.index("--find-links") + 1] == str(tmp_path)


def test_secrets_are_used_only_when_they_hold_something(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "SECRETS", tmp_path)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    (tmp_path / "ca").write_text("")
    (tmp_path / "uv").write_text("offline = true\n")
    variables = install.environment(tmp_path)
    assert variables["UV_CONFIG_FILE"] == str(tmp_path / "uv")
    assert "SSL_CERT_FILE" not in variables
    assert variables["NVIDIA_TENSORRT_DISABLE_INTERNAL_PIP"] == "1"


def test_archives_are_built_only_where_no_wheel_is_meant(install: ModuleType) -> None:
    """A lock has the hashes of archives too; a mirror without the wheel must not have them run."""
    text = """\
certifi==2026.1.1 \\
    --hash=sha256:aa
tensorrt-cu12==10.9.0.34 \\
    --hash=sha256:bb
tensorrt-cu12-bindings==10.9.0.34 --hash=sha256:cc
tensorrt-cu12-libs @ file:///run/wheelhouse/tensorrt_cu12_libs-10.9.0.34-py3-none-any.whl
ultralytics @ file:///run/wheelhouse/3bca22b.tar.gz \\
    --hash=sha256:dd
"""
    assert install.source_archives(text) == ["ultralytics", "tensorrt-cu12"]
