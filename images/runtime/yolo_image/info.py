"""info: what is in this image, and what it sees of the machine."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Any

from yolo_image import device
from yolo_image.console import OK, data_stream, write_json
from yolo_image.manifest import HOME, Manifest, load, matches, sha256_of

__all__ = ["describe", "environment", "run", "weights"]

PACKAGES = (
    "flash-attn",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxslim",
    "opencv-python",
    "opencv-python-headless",
    "torch",
    "torchvision",
    "triton",
    "ultralytics",
)
"""The packages whose versions people ask for; one that isn't installed isn't listed."""

PREFIXES = ("nvidia-", "tensorrt")

VARIABLES = ("YOLO_", "ULTRALYTICS_", "NVIDIA_", "CUDA_", "LD_LIBRARY_PATH", "MPLCONFIGDIR", "HOME")


def run(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="info", description="Versions, weights and the device.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args(argv)
    with data_stream() as stream:
        document = collect(load())
        if options.json:
            write_json(stream, document)
        else:
            stream.write(describe(document) + "\n")
    return OK


def collect(manifest: Manifest) -> dict[str, Any]:
    """Return all there is to know."""
    return {
        "image": manifest.document,
        "packages": packages(manifest.distribution),
        "weights": weights(manifest),
        "device": describe_device(),
        "environment": environment(dict(os.environ)),
    }


def packages(distribution: str) -> dict[str, str]:
    """Return the versions of what is installed; torch's with its build (`2.8.0+cu128`)."""
    import torch

    found = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for package in importlib.metadata.distributions():
        name = package.metadata["Name"].lower().replace("_", "-")
        if name in (*PACKAGES, distribution) or name.startswith(PREFIXES):
            found[name] = package.version
    found["torch"] = str(torch.__version__)
    return dict(sorted(found.items()))


def weights(manifest: Manifest, home: Path = HOME) -> list[dict[str, Any]]:
    """Return the checkpoints as they lie there, and whether they are what they should be."""
    found = []
    for weight in manifest.weights:
        path = home / weight.file
        sha256 = sha256_of(path)
        found.append(
            {
                "file": weight.file,
                "sha256": sha256,
                "size": path.stat().st_size if sha256 else None,
                "official": weight.official,
                "matches": matches(weight, sha256),
            }
        )
    return found


def describe_device() -> dict[str, Any]:
    """Return what there is of a GPU, and why it can't be used when it can't."""
    diagnosis = device.diagnose()
    usable = diagnosis.state is device.State.USABLE
    return {
        "cuda_available": usable,
        "state": diagnosis.state.value,
        "why_not": diagnosis.why,
        "todo": diagnosis.todo,
        "count": len(diagnosis.seen.names),
        "names": list(diagnosis.seen.names),
        "driver": diagnosis.seen.driver,
        "archs": list(diagnosis.seen.archs),
    }


def environment(variables: dict[str, str]) -> dict[str, str]:
    """Return the variables that change how the image behaves."""
    return {name: variables[name] for name in sorted(variables) if name.startswith(VARIABLES)}


def describe(document: dict[str, Any]) -> str:
    """Return the document for people."""
    image, seen = document["image"], document["device"]
    lines = [f"image     {image['id']}"]
    lines += [f"missing   {part['part']}: {part['reason']}" for part in image["missing"]]
    lines += [f"package   {name} {version}" for name, version in document["packages"].items()]
    lines += [f"weights   {weight_line(weight)}" for weight in document["weights"]]
    gpus = ", ".join(seen["names"]) if seen["cuda_available"] else f"CPU only: {seen['why_not']}"
    return "\n".join([*lines, f"device    {gpus}"])


def weight_line(weight: dict[str, Any]) -> str:
    """Return one checkpoint for people."""
    states = {True: "as it should be", False: "NOT the bytes it should have", None: "random"}
    if weight["sha256"] is None:
        return f"{weight['file']}: missing or unreadable"
    return f"{weight['file']}: {states[weight['matches']]}, sha256 {weight['sha256']}"
