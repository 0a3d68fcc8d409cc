"""The states of the device, each from what torch says, and what doctor and export make of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_runtime_commands import PARTIAL, SHA256, document
from yolo_image import device, export, manifest, verdicts
from yolo_image.console import BAD_USAGE, Stop
from yolo_image.device import Seen, State
from yolo_image.verdicts import GIB, Verdict

ARCHS = ("sm_75", "sm_90")

# Messages of torch 2.8.0+cu128, the middle ones with a stub libcuda.so.1 that returns the code.
NONE_FOUND = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"
NO_GPUS = "No CUDA GPUs are available"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040)."
COMPAT = (
    "Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted"
)
STUB = "Unexpected error from cudaGetDeviceCount(). Error 34: CUDA driver is a stub library"
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel"


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (Seen(cuda=None, injected=False), State.CPU_WHEEL, "built for the CPU"),
        (Seen(cuda=None, injected=True), State.CPU_WHEEL, "although a GPU was given"),
        (Seen(cuda="12.8", injected=False, error=NONE_FOUND), State.NO_DEVICE, "--gpus all"),
        (Seen(cuda="12.8", injected=False, error=NO_GPUS), State.NO_DEVICE, "no GPU was given"),
        (Seen(cuda="12.8", injected=True, error=NO_GPUS), State.BROKEN, "nvidia-smi"),
        (
            Seen(cuda="12.8", injected=True, driver="470.82", error=TOO_OLD),
            State.DRIVER_TOO_OLD,
            "driver 470.82 is too old for CUDA 12.8",
        ),
        (Seen(cuda="12.8", injected=True, error=COMPAT), State.BROKEN, "cuda-compat library"),
        (Seen(cuda="12.8", injected=True, error=STUB), State.BROKEN, "stub libcuda.so"),
        (
            Seen(
                cuda="12.8",
                injected=True,
                names=("Tesla P40",),
                capability="6.1",
                archs=ARCHS,
                error=NO_KERNEL,
            ),
            State.NO_KERNEL,
            "Tesla P40 has compute capability 6.1, and this torch has kernels for sm_75, sm_90",
        ),
        (Seen(cuda="12.8", injected=True, names=("NVIDIA T4",)), State.USABLE, ""),
    ],
)
def test_each_cause_has_its_own_state_and_advice(seen: Seen, state: State, words: str) -> None:
    diagnosis = device.explain(seen)
    assert diagnosis.state is state
    assert words in f"{diagnosis.why}. {diagnosis.todo}"
    assert bool(diagnosis.todo) is (state is not State.USABLE)


def test_every_state_has_an_explanation() -> None:
    assert set(device.EXPLANATIONS) == set(State)


def diagnose_as(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(device, "diagnose", lambda: device.explain(seen))


def test_auto_falls_back_to_the_cpu_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diagnose_as(monkeypatch, Seen(cuda="12.8", injected=False, error=NO_GPUS))
    assert device.choose("auto") == "cpu"
    assert "On the CPU: no GPU was given to this container" in capsys.readouterr().err


def test_a_gpu_that_was_asked_for_is_never_replaced_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    diagnose_as(monkeypatch, Seen(cuda="12.8", injected=False, error=NO_GPUS))
    with pytest.raises(Stop, match="--device cuda:0: no GPU was given"):
        device.choose("cuda:0")


def test_a_usable_gpu_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnose_as(monkeypatch, Seen(cuda="12.8", injected=True, names=("A", "B")))
    assert [device.choose(wanted) for wanted in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cpu",
    ]
    with pytest.raises(Stop, match=r"sees 2 GPU\(s\)"):
        device.choose("cuda:2")


def test_a_device_that_does_not_exist_is_bad_usage() -> None:
    with pytest.raises(Stop) as caught:
        device.choose("gpu")
    assert caught.value.code == BAD_USAGE


def test_the_driver_version_is_read_from_the_kernel(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n"
        "GCC version:  gcc version 12.2.0\n"
    )
    assert device.driver_version(file) == "570.124.06"
    assert device.driver_version(tmp_path / "none") is None


def test_export_refuses_an_engine_that_it_cannot_make() -> None:
    usable = device.explain(Seen(cuda="12.8", injected=True, names=("NVIDIA T4",)))
    absent = device.explain(Seen(cuda="12.8", injected=False, error=NO_GPUS))
    complete = manifest.parse(document())
    missing = [{"part": "tensorrt", "source": "nvidia", "reason": "unreachable"}]
    partial = manifest.parse(document(missing=missing))
    assert export.why_no_engine(complete, usable, has_tensorrt=True) is None
    assert "--gpus all" in (export.why_no_engine(complete, absent, has_tensorrt=True) or "")
    assert "without TensorRT (unreachable)" in (
        export.why_no_engine(partial, usable, has_tensorrt=False) or ""
    )
    assert "has no TensorRT" in (export.why_no_engine(complete, usable, has_tensorrt=False) or "")


def test_doctor_no_gpu_is_a_warning_and_a_broken_one_a_failure() -> None:
    absent = device.explain(Seen(cuda="12.8", injected=False, error=NO_GPUS))
    old = device.explain(Seen(cuda="12.8", injected=True, error=TOO_OLD))
    wheel = device.explain(Seen(cuda=None, injected=False))
    usable = device.explain(Seen(cuda="12.8", injected=True, names=("NVIDIA T4",)))
    assert verdicts.device(absent, cuda="12.8").verdict is Verdict.WARN
    assert verdicts.device(old, cuda="12.8").verdict is Verdict.FAIL
    assert verdicts.device(wheel, cuda="12.8").verdict is Verdict.FAIL
    assert verdicts.device(wheel, cuda=None).verdict is Verdict.OK
    assert verdicts.device(usable, cuda="12.8").verdict is Verdict.OK


def test_doctor_two_cudnn_or_a_harmful_path_fail() -> None:
    one, two = {Path("/venv/lib")}, {Path("/venv/lib"), Path("/usr/lib")}
    assert verdicts.libraries(one, "").verdict is Verdict.OK
    assert verdicts.libraries(set(), "/usr/lib").verdict is Verdict.OK
    assert "/usr/lib, /venv/lib" in verdicts.libraries(two, "").saw
    assert verdicts.libraries(one, "/usr/local/cuda/compat:/x").verdict is Verdict.FAIL


def test_doctor_weights_by_hash() -> None:
    (official,) = manifest.parse(document()).weights
    (random,) = manifest.parse(PARTIAL).weights
    home = Path("/opt/yolo")
    assert verdicts.weight(official, SHA256, home).verdict is Verdict.OK
    assert verdicts.weight(official, "0" * 64, home).verdict is Verdict.FAIL
    assert "missing or unreadable" in verdicts.weight(official, None, home).saw
    assert verdicts.weight(random, SHA256, home).verdict is Verdict.WARN
    assert verdicts.weight(random, None, home).verdict is Verdict.FAIL


def test_doctor_machine() -> None:
    tmp = Path("/tmp")
    assert verdicts.shared_memory(64 << 20).verdict is Verdict.WARN
    assert "--shm-size" in verdicts.shared_memory(None).todo
    assert verdicts.shared_memory(GIB).verdict is Verdict.OK
    assert verdicts.temporary(tmp, "Read-only file system", free=GIB).verdict is Verdict.FAIL
    assert verdicts.temporary(tmp, "", free=GIB - 1).verdict is Verdict.WARN
    assert verdicts.temporary(tmp, "", free=GIB).verdict is Verdict.OK


def test_doctor_environment_and_parts() -> None:
    kept = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    assert verdicts.environment(kept).verdict is Verdict.OK
    assert "YOLO_OFFLINE=None" in verdicts.environment({"YOLO_AUTOINSTALL": "false"}).saw
    assert verdicts.missing(manifest.parse(document()).missing).verdict is Verdict.OK
    assert "without weights (unreachable)" in verdicts.missing(manifest.parse(PARTIAL).missing).saw


def test_a_check_reads_well() -> None:
    assert verdicts.shared_memory(64 << 20).line() == (
        "warn  shared memory  64 MiB in /dev/shm: training with workers dies of 'Bus error'\n"
        "                     Run with --shm-size=2g, or --ipc=host."
    )
