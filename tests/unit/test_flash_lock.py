"""What flash-attn is compiled from, by hash, and how matrix.yaml asks for it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from builder import flash_lock
from builder.errors import InvalidInput
from builder.flash_lock import FlashLock, load_flash_lock, make_flash_lock
from builder.matrix import parse_matrix, select
from builder.requirements import parse_lock
from builder.resolver import Resolution
from builder.sources import Sources
from builder.spec import FlashAttention
from tests.unit.flash_support import H64, lock_for, locked, resolved, row_of


@pytest.fixture(scope="module")
def flash(root: Path, tmp_path_factory: pytest.TempPathFactory) -> FlashLock:
    return locked(root, tmp_path_factory.mktemp("locks"))


def test_cuda_13_has_all_of_nvcc_on_the_index(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def resolve(wanted: Resolution, sources: Sources) -> str:
        asked.extend(wanted.requirements)
        return resolved(wanted, sources)

    monkeypatch.setattr(flash_lock, "resolve", resolve)
    found = lock_for(root, row_of(root, "yolov12-cu130"), tmp_path)
    assert found.record.artifacts == ()
    assert "cuda-toolkit[cccl,crt,cudart,nvcc,nvvm]==13.0.*" in asked


def test_cuda_12_takes_nvcc_from_nvidia_by_hash(flash: FlashLock) -> None:
    (nvcc,) = flash.record.artifacts
    assert nvcc.version == "12.8.93"
    assert nvcc.sha256 is not None
    assert nvcc.status == "verified"
    assert nvcc.url is not None
    assert nvcc.url.endswith("/cuda_nvcc-linux-x86_64-12.8.93-archive.tar.xz")


def test_a_cuda_without_a_known_nvcc_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_lock, "resolve", resolved)
    with pytest.raises(InvalidInput, match=r"no hash is known for nvcc of CUDA 12\.5"):
        lock_for(root, row_of(root, cuda="12.5"), tmp_path)


def test_the_compiler_is_locked_without_what_the_stage_has(root: Path, flash: FlashLock) -> None:
    assert flash.source.version == "2.8.3"
    names = {entry.name for entry in parse_lock(flash.compiler)}
    assert names == {"ninja", "packaging", "psutil", "wheel", "nvidia-cuda-cccl-cu12"}


def test_a_lock_of_another_row_is_stale(
    root: Path, tmp_path: Path, flash: FlashLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_lock, "resolve", resolved)
    row = row_of(root)
    lock_for(root, row, tmp_path)
    text = (root / "locks" / f"{row.id}.txt").read_text()
    assert load_flash_lock(tmp_path, row, text) == flash
    with pytest.raises(InvalidInput, match="stale lock: flash_attn") as stale:
        load_flash_lock(tmp_path, row_of(root, flash_attn="2.8.2"), text)
    assert "build.py lock yolov12-cu128" in stale.value.findings[0].todo
    with pytest.raises(InvalidInput, match="stale lock: installed"):
        load_flash_lock(tmp_path, row, text.replace("triton==", "triton==9."))
    with pytest.raises(InvalidInput, match="has no lock for the compilation"):
        load_flash_lock(tmp_path / "empty", row, text)


def test_an_archive_without_a_hash_is_refused_unless_it_lies_here(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bare(wanted: Resolution, sources: Sources) -> str:
        return resolved(wanted, sources).replace(
            f"flash-attn==2.8.3 --hash=sha256:{H64}", "flash-attn==2.8.3"
        )

    monkeypatch.setattr(flash_lock, "resolve", bare)
    row = row_of(root)
    with pytest.raises(InvalidInput, match=r"flash_attn-2\.8\.3\.tar\.gz has no hash"):
        lock_for(root, row, tmp_path)
    house = tmp_path / "house"
    house.mkdir()
    (house / "flash_attn-2.8.3.tar.gz").write_bytes(b"archive")
    text = (root / "locks" / f"{row.id}.txt").read_text()
    sources = Sources(find_links=(str(house),))
    found = make_flash_lock(tmp_path, row, text, sources=sources, talk=lambda _: None)
    assert found.source.hashes == (hashlib.sha256(b"archive").hexdigest(),)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('"2.8.3"', FlashAttention(version="2.8.3", source="wheel")),
        ('{version: "2.8.3", source: wheel}', FlashAttention(version="2.8.3", source="wheel")),
        ('{version: "2.8.3", source: build}', FlashAttention(version="2.8.3", source="build")),
    ],
)
def test_both_forms_in_the_matrix(root: Path, written: str, expected: FlashAttention) -> None:
    text = (root / "matrix.yaml").read_text()
    matrix = parse_matrix(text.replace('flash_attn: "2.7.3"', f"flash_attn: {written}"))
    (row,) = select(matrix.rows, "yolov12-cu121")
    assert row.flash_attn == expected
    assert matrix.place(row, "flash_attn_source").startswith("matrix.yaml:18:")


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ('{version: "2.8.3"}', "stacks.cu121.flash_attn.source is missing"),
        ('{version: "2.8.3", source: compile}', "flash_attn.source: input should be 'wheel' or"),
        ('{version: "2.8.3", source: build, jobs: 3}', "flash_attn.jobs: unknown key"),
        ("{version: 2.8, source: build}", "flash_attn.version: 2.8 is a number"),
        ("2.8", "stacks.cu121.flash_attn: 2.8 is a number"),
    ],
)
def test_faults_of_both_forms_have_a_place(root: Path, written: str, what: str) -> None:
    text = (root / "matrix.yaml").read_text()
    with pytest.raises(InvalidInput) as fault:
        parse_matrix(text.replace('flash_attn: "2.7.3"', f"flash_attn: {written}"))
    (finding,) = fault.value.findings
    assert what in finding.what
    assert finding.place.startswith("matrix.yaml:18:")
