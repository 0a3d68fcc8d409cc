"""What `doctor` concludes from what it saw: pure, one function per subject."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from yolo_image.device import Diagnosis, State
from yolo_image.manifest import Missing, Weight, matches

__all__ = [
    "Check",
    "Verdict",
    "device",
    "environment",
    "libraries",
    "missing",
    "shared_memory",
    "temporary",
    "weight",
]

GIB = 1 << 30


class Verdict(str, Enum):
    """`warn`: works, but not as well or not for everything; `fail`: something won't work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One subject: what was seen, and what to do unless it is ok."""

    name: str
    verdict: Verdict
    saw: str
    todo: str = ""

    def line(self) -> str:
        """Return the check for people."""
        line = f"{self.verdict.value:<5} {self.name:<14} {self.saw}"
        return f"{line}\n{'':21}{self.todo}" if self.todo else line

    def as_json(self) -> dict[str, str]:
        """Return the check for programs."""
        return {
            "name": self.name,
            "verdict": self.verdict.value,
            "saw": self.saw,
            "todo": self.todo,
        }


def device(diagnosis: Diagnosis, *, cuda: str | None) -> Check:
    """Judge the device; `cuda` is what the image was built for, None on a CPU stack."""
    name = "device"
    if diagnosis.state is State.USABLE:
        names = ", ".join(diagnosis.seen.names)
        return Check(name=name, verdict=Verdict.OK, saw=f"{names}: a kernel ran")
    if diagnosis.state is State.CPU_WHEEL and cuda is None:
        return Check(name=name, verdict=Verdict.OK, saw="CPU, as this image is meant to")
    # No GPU is a way to use the image; a GPU that is there and does not work is not.
    verdict = Verdict.WARN if diagnosis.state is State.NO_DEVICE else Verdict.FAIL
    return Check(name=name, verdict=verdict, saw=diagnosis.why, todo=diagnosis.todo)


def libraries(cudnn: set[Path], library_path: str) -> Check:
    """Judge what the loader would find: one cuDNN, no stubs, no compat libraries."""
    name = "libraries"
    harmful = [entry for entry in library_path.split(":") if "stubs" in entry or "compat" in entry]
    if harmful:
        return Check(
            name=name,
            verdict=Verdict.FAIL,
            saw=f"LD_LIBRARY_PATH has {', '.join(harmful)}",
            todo="Such a libcuda.so hides the driver's: unset LD_LIBRARY_PATH.",
        )
    if len(cudnn) > 1:
        folders = ", ".join(sorted(str(folder) for folder in cudnn))
        return Check(
            name=name,
            verdict=Verdict.FAIL,
            saw=f"cuDNN lies in {len(cudnn)} places: {folders}",
            todo="The loader may mix them and crash: remove the one that is not torch's.",
        )
    return Check(name=name, verdict=Verdict.OK, saw=f"{len(cudnn) or 'no'} cuDNN, no stubs")


def weight(weight: Weight, sha256: str | None, folder: Path) -> Check:
    """Judge one checkpoint by the hash of its bytes."""
    state = matches(weight, sha256)
    if state is None:
        return Check(
            name="weights",
            verdict=Verdict.WARN,
            saw=f"{weight.file} is random: it finds nothing",
            todo="Mount a checkpoint of yours, or use a complete image.",
        )
    if state:
        return Check(name="weights", verdict=Verdict.OK, saw=f"{weight.file}: sha256 as published")
    saw = f"{weight.file}: {f'sha256 is {sha256}' if sha256 else 'missing or unreadable'}"
    todo = f"Pull the image again, and mount nothing over {folder}."
    return Check(name="weights", verdict=Verdict.FAIL, saw=saw, todo=todo)


def missing(parts: Iterable[Missing]) -> Check:
    """Judge the parts of a partial image."""
    names = ", ".join(f"{part.part} ({part.reason})" for part in parts)
    if not names:
        return Check(name="parts", verdict=Verdict.OK, saw="complete")
    return Check(
        name="parts",
        verdict=Verdict.WARN,
        saw=f"without {names}",
        todo="This is a partial image: use a complete one for these.",
    )


def shared_memory(size: int | None) -> Check:
    """Judge /dev/shm: data loaders pass pictures through it and die of `Bus error` when full."""
    name, megabytes = "shared memory", (size or 0) >> 20
    if megabytes >= GIB >> 20:
        return Check(name=name, verdict=Verdict.OK, saw=f"{megabytes} MiB")
    return Check(
        name=name,
        verdict=Verdict.WARN,
        saw=f"{megabytes} MiB in /dev/shm: training with workers dies of 'Bus error'",
        todo="Run with --shm-size=2g, or --ipc=host.",
    )


def temporary(folder: Path, error: str, *, free: int) -> Check:
    """Judge the folder for temporary files, the only one that the image needs to write."""
    name, megabytes = str(folder), free >> 20
    if error:
        return Check(
            name=name,
            verdict=Verdict.FAIL,
            saw=f"can't be written: {error}",
            todo=f"With --read-only, add --tmpfs {folder}.",
        )
    if free < GIB:
        return Check(
            name=name,
            verdict=Verdict.WARN,
            saw=f"writable, {megabytes} MiB free: too little for a large export",
            todo=f"Free disk space on the host, or --tmpfs {folder}:size=4g.",
        )
    return Check(name=name, verdict=Verdict.OK, saw=f"writable, {megabytes} MiB free")


def environment(variables: dict[str, str]) -> Check:
    """Judge the variables that keep the image from changing itself or calling home."""
    wanted = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    changed = [name for name, value in wanted.items() if variables.get(name) != value]
    if not changed:
        return Check(name="environment", verdict=Verdict.OK, saw="installs nothing, calls nobody")
    return Check(
        name="environment",
        verdict=Verdict.WARN,
        saw=f"changed: {', '.join(f'{name}={variables.get(name)}' for name in changed)}",
        todo="ultralytics may now install packages, or reach for the network, as it runs.",
    )
