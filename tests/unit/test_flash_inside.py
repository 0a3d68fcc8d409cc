"""images/flash-attn/compile.py, which runs in the builder stage: all but the compilation itself."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import pytest

IMAGES = Path(__file__).parents[2] / "images"


@pytest.fixture(scope="module")
def inside() -> ModuleType:
    """images/flash-attn/compile.py, which runs in the builder stage."""
    path = IMAGES / "flash-attn" / "compile.py"
    spec = importlib.util.spec_from_file_location("flash_compile_inside", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fatbin(*entries: tuple[int, int]) -> bytes:
    """A fatbin as nvcc 13.0.88 writes it: entries of (kind, architecture) with 8 bytes each."""
    body = b""
    for kind, sm in entries:
        head = struct.pack("<HHIQ", kind, 0x101, 64, 8) + bytes(12) + struct.pack("<I", sm)
        body += head.ljust(64, b"\0") + bytes(8)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_machine_code_is_told_from_ptx(inside: ModuleType) -> None:
    data = b"\x7fELF" + bytes(60) + fatbin((2, 80), (1, 90)) + bytes(8) + fatbin((2, 120))
    assert sorted(inside.sms_of(data)) == [80, 120]
    assert list(inside.sms_of(b"\x7fELF nothing of nvcc's")) == []


@pytest.mark.parametrize("cut", [5, 12, 20, 50])
def test_a_cut_fatbin_ends_quietly(inside: ModuleType, cut: int) -> None:
    assert list(inside.sms_of(fatbin((2, 80))[:cut])) in ([], [80])


def test_the_standard_is_raised_and_never_lowered(inside: ModuleType, tmp_path: Path) -> None:
    setup = tmp_path / "setup.py"
    setup.write_text('flags = ["-O3", "-std=c++17"]\n')
    inside.raise_standard(setup, 20)
    assert setup.read_text() == 'flags = ["-O3", "-std=c++20"]\n'
    inside.raise_standard(setup, 17)
    assert setup.read_text() == 'flags = ["-O3", "-std=c++20"]\n'


def test_a_toolkit_is_gathered_from_wheels(
    inside: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of CUDA 12's wheels, one folder per package, and NVIDIA's archive of nvcc."""
    nvcc, runtime = tmp_path / "archive", tmp_path / "nvidia" / "cuda_runtime"
    for path in (
        nvcc / "bin/nvcc",
        nvcc / "nvvm/bin/cicc",
        nvcc / "include/crt/host_config.h",
        runtime / "include/cuda_runtime.h",
        runtime / "include/crt/host_config.h",
        runtime / "lib/libcudart.so.12",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    monkeypatch.setattr(inside, "toolkit_of_the_archive", lambda: iter([nvcc]))
    monkeypatch.setattr(inside, "wheel_folders", lambda: [runtime])
    home = inside.make_cuda_home(tmp_path / "home")
    assert (home / "bin/nvcc").read_text() == str(nvcc / "bin/nvcc")
    assert not (home / "bin/nvcc").is_symlink()
    assert (home / "nvvm/bin/cicc").is_file()
    assert (home / "include/crt/host_config.h").read_text() == str(
        nvcc / "include/crt/host_config.h"
    )
    assert (home / "include/cuda_runtime.h").is_file()
    assert (home / "lib64/libcudart.so").resolve() == runtime / "lib/libcudart.so.12"


def test_a_missing_nvcc_is_named(
    inside: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "toolkit_of_the_archive", lambda: iter(()))
    monkeypatch.setattr(inside, "wheel_folders", lambda: [tmp_path])
    with pytest.raises(SystemExit, match="flash-attn: nvcc is missing"):
        inside.make_cuda_home(tmp_path / "home")


def test_another_torch_is_refused(inside: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCH": "2.8.0", "CUDA": "12.8", "CXX11_ABI": "TRUE"}.items():
        monkeypatch.setenv(name, value)
    same: dict[str, object] = {
        "version": "2.8.0+cu128",
        "cuda": "12.8",
        "cxx11abi": True,
        "standard": 17,
    }
    inside.compare(same)
    others: dict[str, object] = {"version": "2.7.1", "cuda": "12.6", "cxx11abi": False}
    for name, other in others.items():
        with pytest.raises(SystemExit, match="planned was"):
            inside.compare({**same, name: other})


def test_apt_is_told_the_same_as_for_the_base() -> None:
    """Where the host has its sources, proxies and CA is written twice: none may forget one."""
    base, ours = (
        (IMAGES / name / "Dockerfile")
        .read_text()
        .partition("set -eu\n")[2]
        .partition("update\n")[0]
        for name in ("base", "flash-attn")
    )
    assert ours == base.replace("touch /tmp/started\n", "")


def test_the_compilation_has_no_network() -> None:
    """setup.py would rather fetch a wheel, and pip any version of anything."""
    text = (IMAGES / "flash-attn" / "Dockerfile").read_text()
    step = next(part for part in text.split("\nRUN ") if "python /run/compile.py" in part)
    assert step.startswith("--network=none ")
