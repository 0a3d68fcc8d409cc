"""Whether kernels really run on the GPU, and a TensorRT export compared with its checkpoint.

`torch.cuda.is_available()` is true on devices that no kernel was compiled for: it proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .adapter import Adapter
from .export import compare

__all__ = ["collect"]


def collect(options: dict[str, Any]) -> dict[str, Any]:
    """Run kernels and compare them with the CPU, then export to TensorRT where it is installed."""
    answer: dict[str, Any] = {
        "available": torch.cuda.is_available(),
        "count": torch.cuda.device_count(),
        "name": None,
        "capability": None,
        "kernels": {},
        "memory": {},
        "engine": None,
    }
    if not answer["available"]:
        return answer
    adapter = Adapter(options["device"])
    answer["name"] = adapter.name()
    answer["capability"] = ".".join(str(part) for part in torch.cuda.get_device_capability())
    answer["kernels"] = {
        "conv2d": _kernel(adapter, _convolve),
        "matmul": _kernel(adapter, _multiply),
    }
    if options.get("engine"):
        answer["engine"] = compare(options, "engine", adapter.device)
    answer["memory"] = adapter.memory()
    return answer


def _kernel(adapter: Adapter, work: Callable[[str], Any]) -> dict[str, Any]:
    """Run `work` on both devices from the same numbers."""
    try:
        wanted = work("cpu")
        seconds, found = adapter.timed(lambda: work(adapter.device))
        found = found.cpu()
    except Exception as error:  # noqa: BLE001 - 'no kernel image' is what this looks for
        return {"error": f"{type(error).__name__}: {error}"[:2000]}
    return {
        "error": None,
        "finite": bool(torch.isfinite(found).all()),
        "largest": float(wanted.abs().max()),
        "difference": float((wanted - found).abs().max()),
        "seconds": seconds,
    }


def _numbers(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def _convolve(device: str) -> Any:
    picture, kernel = _numbers(2, 3, 64, 64).to(device), _numbers(8, 3, 3, 3).to(device)
    return torch.nn.functional.conv2d(picture, kernel)


def _multiply(device: str) -> Any:
    return _numbers(256, 256).to(device) @ _numbers(256, 256).to(device)
