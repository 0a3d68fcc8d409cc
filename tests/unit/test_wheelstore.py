"""The store of compiled wheels: whole or not there, checked at each use, made once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from builder.errors import BuildFailed
from builder.flash_build import Compilation
from builder.talk import Talk
from builder.wheelstore import Report, StoredWheel, WheelMeta, WheelStore, fault_of
from tests.servers.packages import wheel

NOW = "2026-11-25T03:00:00+00:00"
COMPILATION = Compilation(
    stack="cu130",
    suite="trixie",
    platform="linux/amd64",
    version="2.8.3",
    torch="2.14.1",
    torch_index="pypi",
    cuda="13.0",
    python="3.13",
    cxx11abi=True,
    architectures=("80", "90"),
    tools="a" * 64,
    recipe="b" * 64,
)
EXTENSION = {"flash_attn_2_cuda.cpython-313-x86_64-linux-gnu.so": "machine code"}


def report(**changes: object) -> Report:
    known = {
        "torch": "2.14.1+cu130",
        "cuda": "13.0",
        "cxx11abi": True,
        "nvcc": "Build cuda_13.0",
        "gxx": "g++ 14",
        "sms": ("80", "90"),
        "seconds": 1.0,
    }
    return Report.model_validate({**known, **changes})


def make(
    folder: Path,
    *,
    version: str = COMPILATION.full_version,
    tag: str = "cp313-cp313-linux_x86_64",
    files: dict[str, str] | None = None,
    said: Report | None = None,
) -> Path:
    """Leave in `folder` what a compilation leaves."""
    name, content = wheel("flash_attn", version, files if files is not None else EXTENSION, tag=tag)
    path = folder / name
    path.write_bytes(content)
    (folder / "report.json").write_text((said or report()).model_dump_json())
    return path


def making(**changes: Any) -> Callable[[Path], None]:
    """A compilation that leaves what `make` leaves."""

    def run(folder: Path) -> None:
        make(folder, **changes)

    return run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WheelStore]:
    with (tmp_path / "said").open("w") as said:
        talk = Talk(Console(file=said, width=300))
        yield WheelStore(folder=tmp_path / "wheels", talk=talk, now=lambda: NOW)


def never(folder: Path) -> None:
    raise AssertionError("nothing was to be compiled")


def nothing(folder: Path) -> None:
    """A compilation that leaves nothing behind."""


def made(store: WheelStore) -> StoredWheel:
    return store.find_or_make(COMPILATION, making())


def test_a_wheel_is_made_once(store: WheelStore) -> None:
    assert store.find(COMPILATION) is None
    first = made(store)
    assert first.path == store.folder / COMPILATION.key / COMPILATION.file
    assert first.meta.finished == NOW
    assert first.meta.size == first.path.stat().st_size
    assert store.find_or_make(COMPILATION, never) == first
    assert store.find(COMPILATION) == first
    left = {path.name for path in store.folder.iterdir()}
    assert left == {COMPILATION.key, f"{COMPILATION.key}.lock"}


def truncate(wheel_path: Path) -> None:
    wheel_path.write_bytes(wheel_path.read_bytes()[:-20])


def flip(wheel_path: Path) -> None:
    data = bytearray(wheel_path.read_bytes())
    data[40] ^= 1
    wheel_path.write_bytes(data)


def remove(wheel_path: Path) -> None:
    wheel_path.unlink()


def forget(wheel_path: Path) -> None:
    (wheel_path.parent / "meta.json").unlink()


def damage(wheel_path: Path) -> None:
    (wheel_path.parent / "meta.json").write_text('{"key":')


def lie(wheel_path: Path) -> None:
    path = wheel_path.parent / "meta.json"
    path.write_text(path.read_text().replace(COMPILATION.key, "f" * 64))


@pytest.mark.parametrize("harm", [truncate, flip, remove, forget, damage, lie])
def test_a_damaged_entry_is_found_and_made_again(
    store: WheelStore, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    first = made(store)
    harm(first.path)
    assert store.find(COMPILATION) is None
    store.talk.console.file.flush()
    assert "the stored wheel is no use" in (tmp_path / "said").read_text()
    again = made(store)
    assert again.meta == first.meta
    assert store.find(COMPILATION) == again


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"version": "2.8.3"}, "instead of flash_attn-2.8.3+build"),
        ({"tag": "cp312-cp312-linux_x86_64"}, "instead of flash_attn-2.8.3+build"),
        ({"tag": "py3-none-any"}, "instead of flash_attn-2.8.3+build"),
        ({"files": {"flash_attn/__init__.py": ""}}, "nothing was compiled"),
        ({"said": report(sms=("80",))}, "lacks machine code for sm_90"),
        ({"said": report(cxx11abi=False)}, "its C++ ABI is old"),
        ({"said": report(torch="2.8.0+cu128")}, "compiled against torch 2.8.0"),
    ],
)
def test_what_was_not_asked_for_is_not_stored(
    store: WheelStore, changes: dict[str, object], fault: str
) -> None:
    with pytest.raises(BuildFailed) as failure:
        store.find_or_make(COMPILATION, making(**changes))
    assert fault in failure.value.findings[0].what
    assert store.find(COMPILATION) is None
    assert [path.name for path in store.folder.iterdir()] == [f"{COMPILATION.key}.lock"]


def test_machine_code_for_more_gpus_is_no_fault(store: WheelStore) -> None:
    """setup.py up to 2.7.2 compiles for all that it knows."""
    more = report(sms=("80", "90", "100"))
    found = store.find_or_make(COMPILATION, making(said=more))
    assert found.meta.report.sms == ("80", "90", "100")


def test_a_compilation_that_fails_leaves_nothing(store: WheelStore) -> None:
    def fail(folder: Path) -> None:
        make(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.find_or_make(COMPILATION, fail)
    assert store.find(COMPILATION) is None
    assert [path.name for path in store.folder.iterdir()] == [f"{COMPILATION.key}.lock"]


def test_what_a_killed_compilation_left_goes(store: WheelStore) -> None:
    dead = store.folder / f".new-{COMPILATION.key}-x"
    dead.mkdir(parents=True)
    (dead / "objects").write_text("gigabytes")
    other = store.folder / f".new-{'f' * 64}-x"
    other.mkdir()
    made(store)
    assert not dead.exists()
    assert other.exists()


def test_a_compilation_without_a_report_is_a_failure(store: WheelStore) -> None:
    with pytest.raises(BuildFailed, match="no usable report"):
        store.find_or_make(COMPILATION, nothing)


def test_who_comes_second_waits_and_compiles_nothing(store: WheelStore) -> None:
    started, times = threading.Event(), []

    def slow(folder: Path) -> None:
        times.append("compiled")
        started.set()
        time.sleep(0.05)
        make(folder)

    results: list[StoredWheel] = []
    first = threading.Thread(target=lambda: results.append(store.find_or_make(COMPILATION, slow)))
    first.start()
    assert started.wait(5)
    results.append(store.find_or_make(COMPILATION, slow))
    first.join(5)
    assert times == ["compiled"]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (COMPILATION.file.replace("flash_attn", "flash_attn_3"), "is flash-attn-3"),
        (COMPILATION.file.replace("2.8.3", "2.8.2"), "is flash-attn 2.8.2"),
        (COMPILATION.file.replace("cp313", "cp311"), "is for cp311"),
        (COMPILATION.file.replace("linux_x86_64", "linux_aarch64"), "is for cp313-cp313-linux_aar"),
        ("flash_attn.whl", "Invalid wheel filename"),
    ],
)
def test_every_part_of_the_name_counts(tmp_path: Path, name: str, fault: str) -> None:
    path = make(tmp_path).rename(tmp_path / name)
    assert fault in fault_of(path, COMPILATION, report())


def test_the_version_inside_counts_too(tmp_path: Path) -> None:
    """flash-attn's own wheels are renamed after they are built; ours must not be."""
    path = make(tmp_path, version="2.8.3").rename(tmp_path / COMPILATION.file)
    assert "METADATA" in fault_of(path, COMPILATION, report())
    path.write_bytes(b"PK\x03\x04 no zip after all")
    assert "can't be read" in fault_of(path, COMPILATION, report())


def test_meta_is_what_is_read_back(store: WheelStore) -> None:
    found = made(store)
    text = (found.path.parent / "meta.json").read_text()
    assert WheelMeta.model_validate_json(text) == found.meta
