"""What images/stack/install.py leaves out, held against the recorded wheels of four stacks."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
STACKS: dict[str, dict[str, Any]] = json.loads(
    (HERE / "recorded/wheels.json").read_text(encoding="utf-8")
)["stacks"]

LEFT_OUT = {
    "cuobjdump",
    "libGPUInstrumentationTestLib",
    "libMLIRDialectPlugin",
    "libPrintLoadStoreMemSpaces",
    "libTritonPluginsTestLib",
    "libcheckpoint",
    "libcupti",
    "libcusolverMg",
    "libnvperf_host",
    "libnvperf_target",
    "libnvrtc",
    "libnvrtc-builtins",
    "libpcsamplingutil",
    "nvdisasm",
    "protoc",
    "protoc-3",
}
"""Every program and library of which the rules take one from any stack, up to the first dot."""

HAVE_TO_STAY = (
    "torch/bin/torch_shm_manager",
    "torch/lib/libtorch_cuda_linalg.so",
    "triton/backends/nvidia/bin/ptxas",
    "triton/backends/nvidia/include/cuda.h",
    "triton/backends/nvidia/lib/libdevice.10.bc",
    "triton/third_party/cuda/bin/ptxas",
    "nvidia/cuda_cupti/lib/libcupti.so.12",
    "nvidia/cuda_cupti/lib/libnvperf_host.so",
    "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
    "nvidia/cusolver/lib/libcusolver.so.11",
    "numpy/testing/__init__.py",
    "matplotlib/testing/__init__.py",
    "onnx/backend/test/case/__init__.py",
)


@pytest.fixture(scope="module")
def install() -> ModuleType:
    file = HERE.parents[1] / "images/stack/install.py"
    spec = importlib.util.spec_from_file_location("install_step_rules", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # NamedTuple looks its annotations up in the module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def wheels(stack: str | None = None) -> Iterator[tuple[str, dict[str, list[str]], list[str]]]:
    """Yield name, libraries with what they are linked to, and other files of each wheel."""
    for name in [stack] if stack else STACKS:
        for pinned, held in STACKS[name].items():
            yield pinned.partition("==")[0], held["libraries"], held["files"]


def goes(install: ModuleType, distribution: str, path: str) -> bool:
    return any(
        fnmatchcase(distribution, rule.distribution) and fnmatchcase(path, pattern)
        for rule in install.UNNEEDED
        for pattern in rule.files
    )


def test_no_rule_is_without_use(install: ModuleType) -> None:
    unused = [
        f"{rule.distribution}: {pattern}"
        for rule in install.UNNEEDED
        for pattern in rule.files
        if not any(
            fnmatchcase(name, rule.distribution) and fnmatchcase(path, pattern)
            for name, libraries, files in wheels()
            for path in (*libraries, *files)
        )
    ]
    assert unused == []


def test_the_rules_take_these_programs_and_libraries_and_no_other(install: ModuleType) -> None:
    taken = {
        PurePosixPath(path).name.partition(".")[0]
        for name, libraries, _ in wheels()
        for path in libraries
        if goes(install, name, path)
    }
    assert taken == LEFT_OUT


@pytest.mark.parametrize("stack", sorted(STACKS))
def test_what_stays_is_still_linked_to_something_that_stays(
    install: ModuleType, stack: str
) -> None:
    before: set[str] = set()
    after: set[str] = set()
    needed: dict[str, str] = {}
    for name, libraries, _ in wheels(stack):
        for path, links in libraries.items():
            # Triton's own copies of CUDA libraries are not on the path of any other package.
            brings = set() if name == "triton" else {PurePosixPath(path).name}
            before |= brings
            if not goes(install, name, path):
                after |= brings
                needed |= dict.fromkeys(links, path)
    assert len(before) > 30, "nothing was recorded"
    broken = {link: path for link, path in needed.items() if link in before - after}
    assert broken == {}


@pytest.mark.parametrize("path", HAVE_TO_STAY)
def test_what_has_to_stay_stays(install: ModuleType, path: str) -> None:
    holders = {name for name, libraries, files in wheels() if path in (*libraries, *files)}
    assert holders, "not recorded: this test would say nothing"
    assert not any(goes(install, name, path) for name in holders)


def test_every_rule_says_why(install: ModuleType) -> None:
    assert all(rule.why and rule.files for rule in install.UNNEEDED)


def test_every_rule_is_about_a_package_of_some_lock(install: ModuleType, root: Path) -> None:
    locked = {
        line.partition("==")[0]
        for lock in (root / "locks").glob("*.txt")
        for line in lock.read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    idle = [
        rule.distribution
        for rule in install.UNNEEDED
        if not any(fnmatchcase(name, rule.distribution) for name in locked)
    ]
    assert idle == []
