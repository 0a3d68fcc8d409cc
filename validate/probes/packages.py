"""Imports, distributions, what torch was built for, and where CUDA libraries come from."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["collect"]

MODULES = ("numpy", "torch", "torchvision", "cv2", "ultralytics", "onnx", "onnxruntime")
LIBRARIES = re.compile(r"^lib(cudnn|cublas|cublasLt|cudart|nccl|cuda)\.so")
ROOTS = ("/usr", "/opt", "/lib", "/lib64", "/home", "/root", "/var")


def collect(options: dict[str, Any]) -> dict[str, Any]:
    """Return everything the package checks ask about; a failed import is a fact."""
    modules = (*MODULES, *options.get("modules", ()))
    imports = {name: _import(name) for name in modules}
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "uid": os.getuid(),
        "gid": os.getgid(),
        "imports": imports,
        "operations": {name: _try(work) for name, work in OPERATIONS.items()},
        "distributions": [_distribution(item) for item in importlib.metadata.distributions()],
        "markers": _markers(),
        "torch": _torch() if not imports["torch"]["error"] else None,
        "libraries": sorted(set(_libraries())),
        "mapped": _mapped(),
        "loader_cache": _loader_cache(),
        "library_path": os.environ.get("LD_LIBRARY_PATH", ""),
        "shm_bytes": _size("/dev/shm"),  # noqa: S108 - its size is the question
    }


def _import(name: str) -> dict[str, Any]:
    begun = time.perf_counter()
    try:
        module = importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - SystemExit in an import is a fact as well
        return {"version": None, "seconds": 0.0, "error": f"{type(error).__name__}: {error}"[:2000]}
    version = getattr(module, "__version__", None)
    return {
        "version": None if version is None else str(version),
        "seconds": time.perf_counter() - begun,
        "error": None,
    }


def _try(work: Callable[[], None]) -> str | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - any failure of the image's code is a fact
        return f"{type(error).__name__}: {error}"[:2000]
    return None


def _suppress_boxes() -> None:
    import torch
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    if kept != [0, 2]:
        raise RuntimeError(f"nms kept {kept}, expected [0, 2]")


def _share_with_numpy() -> None:
    import numpy as np
    import torch

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    if torch.from_numpy(array).mul(2).numpy().sum() != 30:
        raise RuntimeError("torch and numpy don't see the same numbers")


def _decode_picture() -> None:
    import cv2
    import numpy as np

    picture = np.full((8, 8, 3), 200, np.uint8)
    done, data = cv2.imencode(".png", picture)
    if not done or not np.array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR), picture):
        raise RuntimeError("a PNG did not survive cv2.imencode and cv2.imdecode")


OPERATIONS: dict[str, Callable[[], None]] = {
    "torchvision.ops.nms": _suppress_boxes,
    "torch.from_numpy": _share_with_numpy,
    "cv2.imdecode": _decode_picture,
}


def _distribution(item: importlib.metadata.Distribution) -> dict[str, Any]:
    return {
        "name": item.metadata["Name"],
        "version": item.version,
        "requires": list(item.requires or ()),
    }


def _markers() -> dict[str, str]:
    """Return the PEP 508 environment, so that the reader can judge requirements elsewhere."""
    version = platform.python_version()
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": version,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": version,
        "python_version": ".".join(version.split(".")[:2]),
        "sys_platform": sys.platform,
    }


def _torch() -> dict[str, Any]:
    import torch

    # torch.cuda.get_arch_list() is empty without a GPU; the flags it reads are compiled in.
    flags = torch._C._cuda_getArchFlags() if torch.version.cuda else ""  # noqa: SLF001
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "archs": (flags or "").split(),
        "cuda_available": bool(torch.cuda.is_available()),
    }


def _libraries() -> Iterator[str]:
    """Yield the resolved path of every CUDA library file in the image, wherever it lies."""
    for root in ROOTS:
        for folder, _, files in os.walk(root):
            for name in files:
                if LIBRARIES.match(name):
                    yield str(Path(folder, name).resolve())


def _mapped() -> list[str]:
    """Return the CUDA libraries that this process has really loaded."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count(" ") > 4 and "/" in line}
    return sorted(path for path in paths if LIBRARIES.match(Path(path).name))


def _loader_cache() -> list[str]:
    try:
        argv = ["/sbin/ldconfig", "-p"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return []
    names = (line.strip().rpartition(" => ")[2] for line in done.stdout.splitlines())
    return sorted(name for name in names if LIBRARIES.match(Path(name).name))


def _size(path: str) -> int:
    try:
        stat = os.statvfs(path)
    except OSError:
        return 0
    return stat.f_blocks * stat.f_frsize
