"""What `docker run IMAGE` answers: ten lines, at once."""

from __future__ import annotations

from yolo_image.manifest import Manifest

__all__ = ["describe"]

RUN = "docker run --rm"


def describe(manifest: Manifest) -> str:
    """Return the ten lines: what the image is and how to use it."""
    lines = (
        f"{manifest.id}: {versions(manifest)}",
        f"Runs on {hardware(manifest)}",
        f"Weights: {weights(manifest)}",
        f"Missing: {missing(manifest)}",
        f"  {RUN} --gpus all IMAGE detect                      boxes in the bundled picture",
        f'  {RUN} -v "$PWD:/data" --user "$(id -u):0" IMAGE detect /data/a.jpg --save /data/out',
        f"  {RUN} IMAGE info --json                            versions, weights, device",
        f"  {RUN} --gpus all IMAGE export --format onnx        or engine, torchscript",
        f"  {RUN} --gpus all IMAGE doctor                      what is wrong, and what to do",
        f"  {RUN} -it --gpus all --shm-size 2g IMAGE python    or sh, yolo, your own program",
    )
    return "\n".join(lines)


def versions(manifest: Manifest) -> str:
    """Return the versions that people ask for first."""
    cuda = f"CUDA {manifest.cuda}" if manifest.cuda else "CPU only"
    parts = [f"{manifest.distribution} {manifest.ultralytics}", f"torch {manifest.torch}", cuda]
    if manifest.tensorrt:
        parts.append(f"TensorRT {manifest.tensorrt}")
    return ", ".join(parts)


def hardware(manifest: Manifest) -> str:
    """Return what the image needs of the machine."""
    if not manifest.cuda:
        return "any x86-64 CPU; no GPU is used."
    cards = ", ".join(manifest.gpus) or "NVIDIA GPUs"
    return f"{cards} with driver {manifest.minimum_driver} or newer, or on the CPU, slower."


def weights(manifest: Manifest) -> str:
    """Return the checkpoints, and say so when they know nothing."""
    names = ", ".join(weight.file for weight in manifest.weights) or "none"
    if all(weight.official for weight in manifest.weights):
        return f"{names} in /opt/yolo."
    return f"{names} in /opt/yolo. RANDOM weights find nothing; mount your own."


def missing(manifest: Manifest) -> str:
    """Return the parts that a partial image lacks."""
    return ", ".join(missing.part for missing in manifest.missing) or "nothing."
