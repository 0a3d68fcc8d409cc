"""All rules. Importing this package registers them, in the order in which they are reported."""

from builder.compat.rules import (
    base,
    code,
    flash,
    flash_use,
    gpu,
    jetson,
    releases,
    tensorrt,
    tensorrt_use,
    torch,
    torch_binary,
    torchvision,
    weights,
)

__all__ = [
    "base",
    "code",
    "flash",
    "flash_use",
    "gpu",
    "jetson",
    "releases",
    "tensorrt",
    "tensorrt_use",
    "torch",
    "torch_binary",
    "torchvision",
    "weights",
]
