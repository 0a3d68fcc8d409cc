"""A compilation of flash-attn: architectures, key, how much at once, plan, bake file, and words."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from builder.bakefile import compile_definition
from builder.compat import check
from builder.engine.client import Machine
from builder.errors import BuildFailed, Finding, Incompatible, InvalidInput
from builder.flash_build import (
    MEMORY_PER_COMPILER,
    Parallelism,
    PlannedWheel,
    hours,
    parallelism,
)
from builder.flash_compile import announce, explain
from builder.flash_lock import FlashLock
from builder.folders import Folders
from builder.lock import Lock, load_lock, lock_inputs
from builder.plan import Plan, make_plan, with_wheel
from builder.preflight import wanted_by
from builder.requirements import parse_lock
from builder.spec import FlashAttention, ImageSpec
from builder.talk import Talk
from tests.unit.flash_support import FILES, GIB, H64, compilation, locked, row_of
from tests.unit.test_plan import inputs


@pytest.fixture(scope="module")
def flash(root: Path, tmp_path_factory: pytest.TempPathFactory) -> FlashLock:
    return locked(root, tmp_path_factory.mktemp("locks"))


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
