from __future__ import annotations

import dataclasses
import re
import stat
import sys
from pathlib import Path

import pytest
import uv

from builder.errors import InvalidInput, SourceUnreachable
from builder.lock import _completed, load_lock, lock_inputs, make_lock
from builder.matrix import load_matrix, select
from builder.resolver import _inherited
from builder.sources import Sources
from builder.spec import ImageSpec


@pytest.fixture(scope="module")
def rows(root: Path) -> dict[str, ImageSpec]:
    return {row.id: row for row in load_matrix(root / "matrix.yaml").rows}


def test_every_row_has_a_lock_that_is_not_stale(root: Path, rows: dict[str, ImageSpec]) -> None:
    for row in rows.values():
        lock = load_lock(root / "locks", row)
        assert lock.record.inputs == lock_inputs(row)


def test_no_lock_belongs_to_a_row_that_is_gone(root: Path, rows: dict[str, ImageSpec]) -> None:
    suites = {f"base-{row.stack.suite}" for row in rows.values()}
    locked = {path.stem for path in (root / "locks").iterdir()} - {"host"}
    assert locked == set(rows) | suites


def test_a_changed_row_makes_its_lock_stale(root: Path, rows: dict[str, ImageSpec]) -> None:
    row = rows["yolov8-cu128"]
    newer = dataclasses.replace(row, stack=dataclasses.replace(row.stack, torch="2.9.1"))
    with pytest.raises(
        InvalidInput,
        match=r"yolov8-cu128\.json: stale lock: torch: matrix has '2\.9\.1', lock has '2\.8\.0'\n"
        r"    Run: python3 build\.py lock yolov8-cu128",
    ):
        load_lock(root / "locks", newer)


def test_a_missing_lock_names_the_command(tmp_path: Path, rows: dict[str, ImageSpec]) -> None:
    with pytest.raises(
        InvalidInput, match=r"has no lock\n    Run: python3 build\.py lock yolov8-c"
    ):
        load_lock(tmp_path, rows["yolov8-cpu"])


def test_a_damaged_lock_is_refused(root: Path, tmp_path: Path, rows: dict[str, ImageSpec]) -> None:
    for suffix in ("json", "txt"):
        source = root / "locks" / f"yolov8-cu128.{suffix}"
        (tmp_path / source.name).write_text(source.read_text())
    (tmp_path / "yolov8-cu128.txt").write_text("torch==2.8.0\n")
    with pytest.raises(InvalidInput, match="not name==version with a sha256 hash"):
        load_lock(tmp_path, rows["yolov8-cu128"])
    (tmp_path / "yolov8-cu128.json").write_text("{")
    with pytest.raises(InvalidInput, match="not a LockRecord"):
        load_lock(tmp_path, rows["yolov8-cu128"])


def test_rows_of_a_stack_agree_on_what_they_share(root: Path) -> None:
    """Otherwise the stack's layers could not be shared."""
    pins: dict[str, dict[str, str]] = {}
    for row in load_matrix(root / "matrix.yaml").rows:
        for entry in load_lock(root / "locks", row).entries():
            if entry.name.startswith(("nvidia-", "torch", "triton", "tensorrt")):
                known = pins.setdefault(row.stack.name, {}).setdefault(entry.name, entry.version)
                assert known == entry.version, (row.id, entry.name)


def test_no_lock_has_the_gui_build_of_opencv_or_two_onnxruntimes(
    root: Path, rows: dict[str, ImageSpec]
) -> None:
    for row in rows.values():
        names = {entry.name for entry in load_lock(root / "locks", row).entries()}
        assert "opencv-python-headless" in names
        assert "opencv-python" not in names
        assert len(names & {"onnxruntime", "onnxruntime-gpu"}) == 1


def test_locks_name_no_package_index(root: Path) -> None:
    for path in sorted((root / "locks").glob("*.txt")):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", path.read_text()), path


@pytest.fixture
def stub_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A resolver that does what the test wrote into `script.py`."""
    script = tmp_path / "script.py"
    program = tmp_path / "uv"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(uv, "find_uv_bin", lambda: str(program))
    return script


def test_locking_writes_both_files_and_leaves_cuda_out_of_a_cpu_row(
    tmp_path: Path, stub_uv: Path, root: Path, rows: dict[str, ImageSpec]
) -> None:
    hash_line = "--hash=sha256:" + "a" * 64
    names = ["torch", "torchvision", "triton", "nvidia-cudnn-cu12", "nvidia-ml-py", "numpy"]
    stub_uv.write_text(
        "import pathlib\n"
        f"lines = [f'{{name}}==1 {hash_line}\\n' for name in {names}]\n"
        "pathlib.Path('out.txt').write_text(''.join(lines))\n"
    )
    talk: list[str] = []
    row = rows["yolov8-cpu"]
    lock = make_lock(tmp_path, row, sources=Sources(), talk=talk.append)
    assert {entry.name for entry in lock.entries()} == {"nvidia-ml-py", "numpy"}
    torch = lock.record.artifacts[0]
    assert (torch.name, torch.version, torch.status) == ("torch", "2.8.0+cpu", "verified")
    assert torch.url is not None
    assert torch.url.startswith("https://download.pytorch.org/whl/cpu/torch-2.8.0%2Bcpu-cp311-")
    assert load_lock(tmp_path, row).text == lock.text


@pytest.mark.parametrize(
    ("stderr", "error", "message"),
    [
        ("error sending request for url", SourceUnreachable, "the package index does not answer"),
        ("Because torch==9 has no wheels", InvalidInput, "no set of versions fits"),
    ],
)
def test_a_failed_resolution_says_why_and_writes_nothing(
    tmp_path: Path,
    stub_uv: Path,
    rows: dict[str, ImageSpec],
    stderr: str,
    error: type[Exception],
    message: str,
) -> None:
    stub_uv.write_text(f"import sys\nsys.exit({stderr!r})\n")
    folder = tmp_path / "locks"
    with pytest.raises(error, match=message):
        make_lock(folder, rows["yolov8-cpu"], sources=Sources(), talk=lambda _: None)
    assert not folder.exists()


def test_what_is_not_known_stays_unresolved(root: Path) -> None:
    (row,) = select(load_matrix(root / "matrix.yaml").rows, "yolov12-cu121")
    artifacts = {item.name: item for item in load_lock(root / "locks", row).record.artifacts}
    assert artifacts["flash-attn"].sha256 is None
    assert artifacts["flash-attn"].status == "unresolved"
    assert artifacts["tensorrt-cu12-libs"].status == "verified"


def test_a_computed_hash_stays_with_its_file_alone(root: Path, rows: dict[str, ImageSpec]) -> None:
    """Another torch needs another flash-attn wheel of the same version."""
    row = rows["yolov12-cu121"]
    before = load_lock(root / "locks", row).record
    (flash,) = (item for item in before.artifacts if item.part == "flash-attn")
    assert flash.sha256 is None
    known = flash.model_copy(update={"sha256": "a" * 64, "status": "computed"})
    others = tuple(item for item in before.artifacts if item != flash)
    before = before.model_copy(update={"artifacts": (*others, known)})
    assert _completed(flash, row, before) == known
    moved = flash.model_copy(update={"url": str(flash.url).replace("torch2.3", "torch2.4")})
    assert _completed(moved, row, before) == moved


def test_a_listed_file_is_another_one_for_another_python(
    root: Path, rows: dict[str, ImageSpec]
) -> None:
    row = rows["yolov8-cpu"]
    before = load_lock(root / "locks", row).record
    torch = next(item for item in before.artifacts if item.name == "torch")
    unknown = torch.model_copy(update={"sha256": None})
    assert _completed(unknown, row, before) == torch
    newer = dataclasses.replace(row, stack=dataclasses.replace(row.stack, python="3.12"))
    assert _completed(unknown, newer, before) == unknown


def test_the_machine_s_own_uv_settings_stay_out_of_a_lock() -> None:
    found = _inherited(
        {"UV_FIND_LINKS": "/w", "UV_RESOLUTION": "lowest", "UV_CACHE_DIR": "/c", "PATH": "/bin"}
    )
    assert found == {"UV_CACHE_DIR": "/c", "PATH": "/bin"}
