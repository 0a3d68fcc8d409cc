"""The one place that decides where to compute, and says why it is not the GPU.

"CUDA is available" is no proof: a wheel without kernels for the card says so too, and fails at the
first one. So a small convolution runs, and what comes of it is told apart into the states below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from yolo_image.console import BAD_USAGE, Stop, talk

__all__ = ["Diagnosis", "Seen", "State", "choose", "diagnose", "explain"]


class State(str, Enum):
    """What there is to say about the GPU."""

    USABLE = "usable"
    NO_DEVICE = "no device"
    CPU_WHEEL = "cpu wheel"
    DRIVER_TOO_OLD = "driver too old"
    NO_KERNEL = "no kernel"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen, nothing concluded yet.

    `injected` says whether the container was given a device node; `error` is the message of the
    first call that failed, empty when a kernel ran.
    """

    cuda: str | None
    injected: bool
    driver: str | None = None
    names: tuple[str, ...] = ()
    capability: str | None = None
    archs: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A state, why, and what to do about it; both texts are empty when the GPU is usable."""

    state: State
    why: str = ""
    todo: str = ""
    seen: Seen


def diagnose() -> Diagnosis:
    """Look at the device and conclude."""
    return explain(look())


def look() -> Seen:
    """Collect what there is to see; never raises."""
    import torch

    cuda: str | None = torch.version.cuda
    injected, driver = has_device_node(), driver_version()
    if cuda is None:
        return Seen(cuda=None, injected=injected, driver=driver)
    archs = tuple((torch._C._cuda_getArchFlags() or "").split())  # noqa: SLF001 - get_arch_list() is empty without a GPU
    try:
        torch.cuda.init()
        names = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        major, minor = torch.cuda.get_device_capability(0)
    except Exception as error:  # noqa: BLE001 - whatever torch raises here is the finding
        return Seen(cuda=cuda, injected=injected, driver=driver, archs=archs, error=str(error))
    return Seen(
        cuda=cuda,
        injected=True,
        driver=driver,
        names=names,
        capability=f"{major}.{minor}",
        archs=archs,
        error=kernel_error(torch),
    )


def kernel_error(torch: Any) -> str:
    """Return why a convolution can't run on the first GPU; empty when it can."""
    try:
        layer = torch.nn.Conv2d(3, 8, 3).to("cuda:0")
        result = layer(torch.ones(1, 3, 32, 32, device="cuda:0"))
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - whatever torch raises here is the finding
        return str(error)
    return "" if bool(torch.isfinite(result).all()) else "a convolution gave NaN or infinity"


def has_device_node() -> bool:
    """Say whether a GPU was given to this container (/dev/dxg: through WSL2)."""
    return Path("/dev/dxg").exists() or any(Path("/dev").glob("nvidia[0-9]*"))


def driver_version(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of the host's kernel driver, None when it has none to show."""
    try:
        match = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", path.read_text())
    except OSError:
        return None
    return match[1] if match else None


SYMPTOMS = (
    (r"no kernel image", State.NO_KERNEL),
    (r"driver.*too old|insufficient for CUDA", State.DRIVER_TOO_OLD),
    (r"No CUDA GPUs are available|no NVIDIA driver|no CUDA-capable device", State.NO_DEVICE),
)
"""What the error says, most specific first; anything else is `BROKEN`, with the error itself."""

INJECT = "Run with --gpus all (the host needs the NVIDIA Container Toolkit), or use --device cpu."


def explain(seen: Seen) -> Diagnosis:
    """Conclude from what was seen."""
    state = classify(seen)
    why, todo = EXPLANATIONS[state](seen)
    return Diagnosis(state=state, why=why, todo=todo, seen=seen)


def classify(seen: Seen) -> State:
    """Return the state that fits what was seen."""
    if seen.cuda is None:
        return State.CPU_WHEEL
    if not seen.error:
        return State.USABLE
    matching = (s for text, s in SYMPTOMS if re.search(text, seen.error, re.IGNORECASE))
    found = next(matching, None)
    if found is State.NO_DEVICE and seen.injected:
        return State.BROKEN  # a device node is there: "no GPU" would send the user the wrong way
    return found or State.BROKEN


def explain_usable(seen: Seen) -> tuple[str, str]:
    """Say nothing: there is nothing to do."""
    del seen
    return "", ""


def explain_no_device(seen: Seen) -> tuple[str, str]:
    """Say that the container was started without a GPU."""
    host = f"; the host has driver {seen.driver}" if seen.driver else ""
    return f"no GPU was given to this container{host}", INJECT


def explain_cpu_wheel(seen: Seen) -> tuple[str, str]:
    """Say that this torch can't use a GPU at all."""
    given = " although a GPU was given to this container" if seen.injected else ""
    return f"this torch was built for the CPU{given}", "Use an image of a CUDA stack for GPUs."


def explain_driver(seen: Seen) -> tuple[str, str]:
    """Say that the host's driver does not reach this CUDA."""
    driver = f"driver {seen.driver}" if seen.driver else "driver"
    why = f"the host's NVIDIA {driver} is too old for CUDA {seen.cuda}"
    return why, "Update the driver of the host, or use an image of an older CUDA stack."


def explain_no_kernel(seen: Seen) -> tuple[str, str]:
    """Say that the wheel holds no code for this card."""
    name = seen.names[0] if seen.names else "this GPU"
    why = (
        f"{name} has compute capability {seen.capability}, and this torch has kernels for "
        f"{', '.join(seen.archs) or 'none that it names'}"
    )
    return why, "Use an image of a stack with kernels for it: see the label org.yolo-images.sms."


def explain_broken(seen: Seen) -> tuple[str, str]:
    """Hand on what CUDA says, with what is known to cause it."""
    error = seen.error.splitlines()[0] if seen.error else "unknown error"
    if re.search(r"\b80[34]\b|forward compatibility|system has unsupported", seen.error):
        todo = "A cuda-compat library is on the loader's path: unset LD_LIBRARY_PATH."
    elif re.search(r"stub library", seen.error):
        todo = "A stub libcuda.so is on the loader's path: unset LD_LIBRARY_PATH."
    else:
        todo = "See whether nvidia-smi works here and on the host; start a new container."
    return f"CUDA fails: {error}", todo


EXPLANATIONS = {
    State.USABLE: explain_usable,
    State.NO_DEVICE: explain_no_device,
    State.CPU_WHEEL: explain_cpu_wheel,
    State.DRIVER_TOO_OLD: explain_driver,
    State.NO_KERNEL: explain_no_kernel,
    State.BROKEN: explain_broken,
}


def choose(wanted: str) -> str:
    """Return the device to compute on for `auto`, `cpu`, or a device that must work (`cuda:0`)."""
    if wanted == "cpu":
        return "cpu"
    if wanted != "auto" and not re.fullmatch(r"cuda(:\d+)?", wanted):
        raise Stop(f"--device {wanted}: not auto, cpu or cuda:N", code=BAD_USAGE)
    diagnosis = diagnose()
    if diagnosis.state is not State.USABLE:
        if wanted != "auto":
            raise Stop(f"--device {wanted}: {diagnosis.why}. {diagnosis.todo}")
        talk(f"On the CPU: {diagnosis.why}. {diagnosis.todo}")
        return "cpu"
    number = int(wanted.partition(":")[2] or 0) if wanted != "auto" else 0
    if number >= len(diagnosis.seen.names):
        raise Stop(f"--device {wanted}: this container sees {len(diagnosis.seen.names)} GPU(s)")
    return f"cuda:{number}"
