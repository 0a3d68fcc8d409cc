"""A compilation of flash-attn, decided before it runs: architectures, arguments, and the key.

Pure: the machine's cores and memory are arguments, and no part of the key: how many compilers ran
at once changes nothing in the wheel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.version import Version

from builder.artifacts import new_cxx11_abi
from builder.compat import sms_for
from builder.compat.rules.flash_use import AMPERE, flash_codes
from builder.compat.values import compatible, parse_cuda
from builder.errors import Finding, Incompatible, InvalidInput
from builder.flash_lock import FlashLock
from builder.spec import ImageSpec

__all__ = ["Compilation", "Parallelism", "PlannedWheel", "hours", "parallelism", "plan_compilation"]

_FORMAT = 1
_GIB = 1 << 30

MEMORY_PER_COMPILER = 4.5 * _GIB
"""Bytes that one compiler for one architecture takes at its peak.

setup.py of flash-attn 2.8.3 reckons 9 GiB a job, from the time when a job compiled for two
architectures at once: https://github.com/Dao-AILab/flash-attention/blob/v2.8.3/setup.py, read
2026-11-25. Measured that day: 3.7 GiB for flash_fwd_hdim64_fp16_sm80.cu with nvcc 13.0.88.
"""

MAX_NVCC_THREADS = 4
"""The default of `nvcc --threads` in setup.py; there are at most four architectures to share."""

CORE_HOURS_PER_ARCHITECTURE = 4.0
"""72 files at 203 CPU seconds, which flash_fwd_hdim64_fp16_sm80.cu of 2.8.3 took for sm_80 with
nvcc 13.0.88 on 2026-11-25. An order of magnitude, for the warning before the compilation."""


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """What decides a wheel. `architectures` as FLASH_ATTN_CUDA_ARCHS takes them: (`80`, `90`).

    `tools` is the hash lock of sources, compiler and build tools; `recipe` a hash of the files that
    do the work; `torch_index` tells two builds of one torch version apart.
    """

    stack: str
    suite: str
    platform: str
    version: str
    torch: str
    torch_index: str
    cuda: str
    python: str
    cxx11abi: bool
    architectures: tuple[str, ...]
    tools: str
    recipe: str

    @property
    def key(self) -> str:
        """The sha256 of all of it, but for the stack's name."""
        named = {name: value for name, value in vars(self).items() if name != "stack"}
        return _sha256(json.dumps({"format": _FORMAT, **named}, sort_keys=True))

    @property
    def local_version(self) -> str:
        """What marks the wheel as compiled here. The letter keeps a numeric key from being read
        as a number, which would lose its leading zeros."""
        return f"build.k{self.key[:12]}"

    @property
    def full_version(self) -> str:
        """`2.8.3+build.k0123456789ab`: the version that the wheel has, in an image too."""
        return f"{self.version}+{self.local_version}"

    @property
    def file(self) -> str:
        """The name that the wheel must have."""
        tag = "cp" + self.python.replace(".", "")
        return f"flash_attn-{self.full_version}-{tag}-{tag}-linux_x86_64.whl"

    def arguments(self, parallel: Parallelism) -> dict[str, str]:
        """The build arguments of images/flash-attn/Dockerfile."""
        return {
            "PYTHON": self.python,
            "FLASH_VERSION": self.version,
            "FLASH_LOCAL_VERSION": self.local_version,
            "TORCH": self.torch,
            "CUDA": self.cuda,
            "CXX11_ABI": "TRUE" if self.cxx11abi else "FALSE",
            "ARCHITECTURES": ";".join(self.architectures),
            "MAX_JOBS": str(parallel.jobs),
            "NVCC_THREADS": str(parallel.threads),
        }


@dataclass(frozen=True, kw_only=True)
class PlannedWheel:
    """A wheel that an image gets from a compilation of what `lock` names.

    `sha256` is None until it has been made.
    """

    compilation: Compilation
    lock: FlashLock
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """How many nvcc run at once (MAX_JOBS), and how many architectures each compiles at once."""

    jobs: int
    threads: int

    @property
    def memory(self) -> float:
        """Bytes that may be in use at the peak."""
        return self.jobs * self.threads * MEMORY_PER_COMPILER


def plan_compilation(row: ImageSpec, lock: FlashLock, files: Mapping[str, str]) -> Compilation:
    """Return what is to be compiled for `row`, which asks for `source: build`.

    `files` maps paths below images/ to hashes of their content. Incompatible when flash-attn has no
    code for any of the row's GPUs.
    """
    stack = row.stack
    assert row.flash_attn is not None
    assert stack.cuda is not None
    recipe = {path: value for path, value in files.items() if path.startswith("flash-attn/")}
    return Compilation(
        stack=stack.name,
        suite=stack.suite,
        platform=row.platform,
        version=row.flash_attn.version,
        torch=stack.torch,
        torch_index=stack.index,
        cuda=stack.cuda,
        python=stack.python,
        cxx11abi=new_cxx11_abi(stack),
        architectures=_architectures(row),
        tools=_sha256(lock.identity()),
        recipe=_sha256(json.dumps(recipe, sort_keys=True)),
    )


def _architectures(row: ImageSpec) -> tuple[str, ...]:
    """The code that the row's GPUs run, sm_80 on 8.6 and 8.9 too; GPUs without any are left out.

    Up to 2.7.2 setup.py heeds no list and compiles for all that it knows.
    """
    assert row.flash_attn is not None
    assert row.stack.cuda is not None
    version = Version(row.flash_attn.version)
    codes = flash_codes(version, parse_cuda(row.stack.cuda))
    sms = [int(name.removeprefix("sm_")) for name in sms_for(row.stack.gpus)]
    served = {max(fitting) for sm in sms if (fitting := _fitting(sm, codes))}
    if not served:
        raise Incompatible(
            Finding(
                place=row.id,
                what=f"flash-attn {version} can be compiled for none of the row's GPUs "
                f"({', '.join(row.stack.gpus) or 'it names none'})",
                why="FlashAttention-2 needs Ampere (sm_80) or newer, and nvcc 12.8 for Blackwell.",
                todo="Name a GPU that has it under `gpus`, or leave flash_attn out.",
            )
        )
    chosen = served if version >= Version("2.7.3") else set(codes)
    return tuple(str(code) for code in sorted(chosen))


def _fitting(sm: int, codes: Iterable[int]) -> list[int]:
    return [code for code in codes if sm >= AMPERE and compatible(sm, code)]


def parallelism(
    compilation: Compilation, *, cores: int, memory: int, environment: Mapping[str, str]
) -> Parallelism:
    """Return how much may run at once with `cores` and `memory` bytes of the engine's machine.

    MAX_JOBS and NVCC_THREADS of the environment win, as they do in setup.py. InvalidInput when one
    of them is not a whole number from 1 on.
    """
    threads = _given(environment, "NVCC_THREADS")
    if threads is None:
        threads = max(1, min(MAX_NVCC_THREADS, len(compilation.architectures), cores))
    jobs = _given(environment, "MAX_JOBS")
    if jobs is None:
        by_memory = int(memory // (threads * MEMORY_PER_COMPILER))
        jobs = max(1, min(cores // threads, by_memory))
    return Parallelism(jobs=jobs, threads=threads)


def _given(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInput(
            Finding(
                place=name,
                what=f"{text!r} is not a whole number from 1 on",
                todo=f"Set {name} to a number, or unset it.",
            )
        )
    return int(text)


def hours(compilation: Compilation, parallel: Parallelism, cores: int) -> float:
    """Return roughly how many hours the compilation takes."""
    at_once = max(1, min(cores, parallel.jobs * parallel.threads))
    return CORE_HOURS_PER_ARCHITECTURE * len(compilation.architectures) / at_once


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
