from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import build as command_line
from builder.commands.rows import schema_text
from builder.errors import (
    BuildFailed,
    EngineUnavailable,
    Finding,
    Incompatible,
    InvalidInput,
    NothingSelected,
    SourceUnreachable,
    ToolkitError,
    ValidationFailed,
)


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "build.py", *words], cwd=root, capture_output=True, text=True, check=False
    )


def test_list_prints_ids_as_data(root: Path) -> None:
    done = run(root, "list", "*-cu128", "--json")
    assert done.returncode == 0
    assert [row["id"] for row in json.loads(done.stdout)] == [
        "yolov8-cu128",
        "yolov12-cu128",
        "yolov12-fork-cu128",
    ]
    assert done.stderr == ""


def test_list_as_table_shows_every_row_on_one_line(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["list", "yolov12-*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 9
    assert "8.3.63 (fork)" in lines[2]


def test_a_pattern_that_matches_nothing_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["list", "yolov9-*"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("no row matches 'yolov9-*'")


def test_bad_usage_exits_2(root: Path) -> None:
    done = run(root, "bild")
    assert done.returncode == 2
    assert "invalid choice: 'bild'" in done.stderr


def test_every_command_names_a_function_that_exists() -> None:
    commands = command_line.parser()._subparsers
    assert commands is not None
    (action,) = commands._group_actions
    assert isinstance(action.choices, dict)
    for name, sub in action.choices.items():
        module, _, function = sub.get_default("function").partition(":")
        assert callable(getattr(import_module(module), function)), name


def test_exit_codes_are_unique_and_never_change() -> None:
    codes = {kind.__name__: kind.exit_code for kind in ToolkitError.__subclasses__()}
    assert codes == {
        "InvalidInput": 2,
        "NothingSelected": 3,
        "Incompatible": 4,
        "EngineUnavailable": 5,
        "BuildFailed": 6,
        "ValidationFailed": 7,
        "SourceUnreachable": 10,
    }


@pytest.mark.parametrize(
    "kind",
    [
        InvalidInput,
        NothingSelected,
        Incompatible,
        EngineUnavailable,
        BuildFailed,
        ValidationFailed,
        SourceUnreachable,
    ],
)
def test_an_error_prints_all_its_findings(kind: type[ToolkitError]) -> None:
    error = kind(
        Finding(place="matrix.yaml:1:2", what="wrong", why="Because.", todo="Do this."),
        Finding(place="", what="also wrong"),
    )
    assert str(error) == "matrix.yaml:1:2: wrong\n    Because. Do this.\nalso wrong"


def test_an_error_without_findings_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one finding"):
        InvalidInput()


def test_interruption_exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("builder.commands.rows.list_rows", interrupted)
    assert command_line.main(["list"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_committed_schema_is_current(root: Path) -> None:
    assert (root / "docs" / "matrix.schema.json").read_text() == schema_text(), "run: make schema"
