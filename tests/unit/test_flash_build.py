"""A compilation of flash-attn: architectures, key, how much at once, lock, plan, and its words."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import struct
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from builder import flash_lock
from builder.bakefile import compile_definition
from builder.compat import check
from builder.engine.client import Machine
from builder.errors import BuildFailed, Finding, Incompatible, InvalidInput
from builder.flash_build import (
    MEMORY_PER_COMPILER,
    Compilation,
    Parallelism,
    PlannedWheel,
    hours,
    parallelism,
    plan_compilation,
)
from builder.flash_compile import announce, explain
from builder.flash_lock import FlashLock, load_flash_lock, make_flash_lock
from builder.folders import Folders
from builder.lock import Lock, load_lock, lock_inputs
from builder.matrix import load_matrix, parse_matrix, select
from builder.plan import Plan, make_plan, with_wheel
from builder.preflight import wanted_by
from builder.requirements import parse_lock
from builder.resolver import Resolution
from builder.sources import Sources
from builder.spec import FlashAttention, ImageSpec
from builder.talk import Talk
from tests.unit.test_plan import inputs

GIB = 1 << 30
FILES = {"flash-attn/Dockerfile": "a" * 64, "flash-attn/compile.py": "b" * 64, "stack/x": "c" * 64}
H64 = "0123456789abcdef" * 4


@lru_cache(maxsize=1)
def real_rows(root: Path) -> tuple[ImageSpec, ...]:
    return load_matrix(root / "matrix.yaml").rows


def row_of(root: Path, row_id: str = "yolov12-cu128", **stack: Any) -> ImageSpec:
    """A row of the real matrix that compiles flash-attn 2.8.3."""
    (row,) = select(real_rows(root), row_id)
    return replace(
        row,
        flash_attn=FlashAttention(version=stack.pop("flash_attn", "2.8.3"), source="build"),
        stack=replace(row.stack, **stack),
    )


def resolved(wanted: Resolution, sources: Sources) -> str:
    """What uv would answer, as far as it matters here."""
    del sources
    lines = [f"{line}.0" if line.endswith("*") else line for line in wanted.requirements]
    names = [line.partition("[")[0].partition("=")[0] for line in lines]
    versions = [line.partition("==")[2].replace(".*", "") or "1.0" for line in lines]
    pairs = zip(names, versions, strict=True)
    return "".join(f"{n}=={v} --hash=sha256:{H64}\n" for n, v in pairs)


@pytest.fixture(scope="module")
def flash(root: Path, tmp_path_factory: pytest.TempPathFactory) -> FlashLock:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash_lock, "resolve", resolved)
        return lock_for(root, row_of(root), tmp_path_factory.mktemp("locks"))


def lock_for(root: Path, row: ImageSpec, folder: Path) -> FlashLock:
    text = (root / "locks" / f"{row.id}.txt").read_text()
    return make_flash_lock(folder, row, text, sources=Sources(), talk=lambda _: None)


def compilation(root: Path, flash: FlashLock, **changes: Any) -> Compilation:
    files = changes.pop("files", FILES)
    return plan_compilation(row_of(root, **changes), flash, files)


@pytest.mark.parametrize(
    ("gpus", "cuda", "version", "expected"),
    [
        (("T4", "A10", "RTX 4090"), "12.8", "2.8.3", ("80",)),
        (("A100", "H100", "B200"), "12.8", "2.8.3", ("80", "90", "100")),
        (("RTX 5090",), "12.8", "2.8.3", ("120",)),
        # Before nvcc 12.8 there is no code for Blackwell: it is left out, the others stay.
        (("A100", "B200"), "12.6", "2.8.3", ("80",)),
        # Until 2.7.2 setup.py heeds no list.
        (("A100",), "12.1", "2.7.0.post2", ("80", "90")),
    ],
)
def test_architectures_are_those_of_the_gpus(
    root: Path,
    flash: FlashLock,
    gpus: tuple[str, ...],
    cuda: str,
    version: str,
    expected: tuple[str, ...],
) -> None:
    found = compilation(root, flash, gpus=gpus, cuda=cuda, flash_attn=version)
    assert found.architectures == expected


@pytest.mark.parametrize("gpus", [("T4", "V100"), ()])
def test_a_row_without_a_gpu_for_it_is_refused(
    root: Path, flash: FlashLock, gpus: tuple[str, ...]
) -> None:
    with pytest.raises(Incompatible, match="none of the row's GPUs"):
        compilation(root, flash, gpus=gpus)


def test_what_decides_the_wheel_decides_the_key(root: Path, flash: FlashLock) -> None:
    base = compilation(root, flash)
    changed = [
        compilation(root, flash, flash_attn="2.8.2"),
        compilation(root, flash, torch="2.7.1"),
        compilation(root, flash, python="3.12"),
        compilation(root, flash, suite="trixie"),
        compilation(root, flash, gpus=("H100",)),
        compilation(root, flash, files={**FILES, "flash-attn/compile.py": "d" * 64}),
        compilation(root, flash.model_copy(update={"text": flash.text.replace("2.8.3", "2.8.4")})),
        replace(base, cxx11abi=False),
    ]
    keys = {base.key, *(one.key for one in changed)}
    assert len(keys) == len(changed) + 1


def test_what_does_not_decide_the_wheel_does_not(root: Path, flash: FlashLock) -> None:
    newer = flash.text.replace("ninja==1.0", "ninja==1.1")
    assert newer != flash.text
    base = compilation(root, flash)
    same = [
        compilation(root, flash, name="other"),
        compilation(root, flash, gpus=("B200", "L4", "H100", "A100", "T4")),
        compilation(root, flash, files={**FILES, "stack/x": "d" * 64}),
        compilation(root, flash.model_copy(update={"text": newer})),
    ]
    assert {one.key for one in same} == {base.key}


def test_the_version_says_that_it_was_compiled(root: Path, flash: FlashLock) -> None:
    found = compilation(root, flash)
    assert found.full_version == f"2.8.3+build.k{found.key[:12]}"
    assert found.file == f"flash_attn-{found.full_version}-cp311-cp311-linux_x86_64.whl"


@pytest.mark.parametrize(
    ("cores", "gib", "environment", "jobs", "threads"),
    [
        (2, 24, {}, 1, 2),
        (16, 128, {}, 5, 3),
        (64, 64, {}, 4, 3),
        (64, 4, {}, 1, 3),
        (1, 64, {}, 1, 1),
        (64, 64, {"MAX_JOBS": "2"}, 2, 3),
        (64, 64, {"NVCC_THREADS": "1"}, 14, 1),
    ],
)
def test_how_much_runs_at_once(
    root: Path,
    flash: FlashLock,
    cores: int,
    gib: int,
    environment: Mapping[str, str],
    jobs: int,
    threads: int,
) -> None:
    """Three architectures: sm_80, sm_90, sm_100. Memory and cores both bound it."""
    found = parallelism(
        compilation(root, flash), cores=cores, memory=gib * GIB, environment=environment
    )
    assert found == Parallelism(jobs=jobs, threads=threads)
    given = bool(environment) or jobs == 1
    assert given or found.memory <= gib * GIB


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_max_jobs_must_be_a_number(root: Path, flash: FlashLock, text: str) -> None:
    with pytest.raises(InvalidInput, match="MAX_JOBS"):
        parallelism(compilation(root, flash), cores=8, memory=GIB, environment={"MAX_JOBS": text})


def test_it_is_announced_with_hours(
    root: Path, flash: FlashLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAX_JOBS", "NVCC_THREADS"):
        monkeypatch.delenv(name, raising=False)
    said = io.StringIO()
    talk = Talk(Console(file=said, width=300))
    one = compilation(root, flash)
    machine = Machine(cores=16, memory=128 * GIB)
    parallel = announce(one, machine, talk)
    assert "sm_80, sm_90, sm_100" in said.getvalue()
    assert "MAX_JOBS=5 NVCC_THREADS=3" in said.getvalue()
    assert "about 1 h" in said.getvalue()
    assert hours(one, Parallelism(jobs=1, threads=1), 16) > hours(one, parallel, 16)


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


def test_source_build_is_not_refused_for_want_of_a_wheel(root: Path) -> None:
    """torch 2.14 has no official wheel; flash-attn for T4 alone can't be had either way."""
    wanted = {"python": "3.13", "torch": "2.14.1", "torchvision": "0.29.2", "cuda": "13.0"}
    compiled = row_of(root, "yolov12-cu130")
    assert "flash-attn-wheel" not in {finding.rule for finding in check(compiled).findings}
    assert check(compiled).verdict != "fail", wanted
    wheel = replace(compiled, flash_attn=FlashAttention(version="2.8.3", source="wheel"))
    assert "flash-attn-wheel" in {finding.rule for finding in check(wheel).findings}
    old = replace(compiled, stack=replace(compiled.stack, gpus=("T4",)))
    assert "flash-attn-gpu" in {finding.rule for finding in check(old).findings}


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


def planned(root: Path, flash: FlashLock, sha256: str | None) -> Plan:
    row = row_of(root)
    lock = without_wheel(load_lock(root / "locks", replace(row, flash_attn=as_wheel(row))), flash)
    wheel = PlannedWheel(compilation=compilation(root, flash), lock=flash, sha256=sha256)
    return make_plan(row, lock, inputs(), (), wheel)


def as_wheel(row: ImageSpec) -> FlashAttention:
    assert row.flash_attn is not None
    return replace(row.flash_attn, source="wheel")


def without_wheel(lock: Lock, flash: FlashLock) -> Lock:
    kept = tuple(item for item in lock.record.artifacts if item.part != "flash-attn")
    record = lock.record.model_copy(update={"artifacts": kept})
    return lock.model_copy(update={"record": record, "flash": flash})


def test_a_plan_names_the_compilation_before_and_after(root: Path, flash: FlashLock) -> None:
    before = planned(root, flash, None)
    key = compilation(root, flash).key
    assert before.record.compiled is not None
    assert before.record.compiled.key == key
    assert before.record.compiled.architectures == ("sm_80", "sm_90", "sm_100")
    version = before.record.flash_attn
    assert version == f"2.8.3+build.k{key[:12]}"
    assert before.record.labels["org.yolo-images.flash-attn"] == version
    # No installer takes a line without a hash.
    with pytest.raises(ValueError, match="sha256"):
        parse_lock(before.requirements["flash-attn"])
    after = with_wheel(before, H64)
    entries = {entry.name: entry for entry in parse_lock(after.requirements["flash-attn"])}
    assert set(entries) == {"flash-attn", "einops"}
    assert entries["flash-attn"].hashes == (H64,)
    assert after.record.compiled is not None
    assert after.record.compiled.sha256 == H64
    # The image is decided by what is compiled: the same key before, after, and from the store.
    assert after.record.build_key == before.record.build_key
    assert planned(root, flash, H64) == after


def test_lock_inputs_tell_build_from_wheel(root: Path) -> None:
    row = row_of(root)
    assert lock_inputs(row)["flash_attn"] == "2.8.3 (build)"
    assert lock_inputs(replace(row, flash_attn=as_wheel(row)))["flash_attn"] == "2.8.3"


def test_nvcc_is_asked_for_before_anything_is_built(root: Path, flash: FlashLock) -> None:
    row = row_of(root)
    lock = without_wheel(load_lock(root / "locks", replace(row, flash_attn=as_wheel(row))), flash)
    parts = dict(wanted_by(row, lock, lambda _: False))
    assert "cuda_nvcc" in parts["flash-attn"]


def test_the_bake_file_exports_a_folder_and_no_image(root: Path, flash: FlashLock) -> None:
    plan = planned(root, flash, None)
    arguments = compilation(root, flash).arguments(Parallelism(jobs=2, threads=3))
    layout = Folders(root).layout()
    definition: Any = compile_definition(plan, layout, arguments, Path(".cache/there"))
    targets = definition["target"]
    assert set(targets) == {"base-bookworm", "venv-cu128", "flash-attn"}
    assert targets["flash-attn"]["output"] == ["type=local,dest=.cache/there"]
    assert targets["flash-attn"]["args"]["ARCHITECTURES"] == "80;90;100"
    assert targets["flash-attn"]["args"]["CXX11_ABI"] == "TRUE"
    assert targets["flash-attn"]["args"]["MAX_JOBS"] == "2"
    assert not any(name in target for target in targets.values() for name in ("tags", "labels"))


@pytest.mark.parametrize(
    ("sign", "jobs", "threads", "todo"),
    [
        ("flash-attn: out of memory with MAX_JOBS=4", 4, 2, "Set MAX_JOBS=2"),
        ("process did not complete successfully: exit code: 137", 1, 2, "NVCC_THREADS=1"),
        ("nvcc error : 'cicc' died due to signal 9", 1, 1, "a machine with more memory"),
    ],
)
def test_want_of_memory_says_what_to_set(sign: str, jobs: int, threads: int, todo: str) -> None:
    parallel = Parallelism(jobs=jobs, threads=threads)
    failed = BuildFailed(Finding(place="[compile]", what="failed", why=sign))
    first, second = explain(failed, parallel, Path("log")).findings
    assert f"MAX_JOBS={jobs}" in first.what
    assert todo in first.todo
    assert second.why == sign
    assert parallel.memory == jobs * threads * MEMORY_PER_COMPILER


def test_other_failures_are_left_as_they_are() -> None:
    failed = BuildFailed(Finding(place="[compile]", what="flash-attn: nvcc is missing"))
    assert explain(failed, Parallelism(jobs=1, threads=1), Path("log")) is failed


@pytest.fixture(scope="module")
def inside() -> ModuleType:
    """images/flash-attn/compile.py, which runs in the builder stage."""
    path = Path(__file__).parents[2] / "images" / "flash-attn" / "compile.py"
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
