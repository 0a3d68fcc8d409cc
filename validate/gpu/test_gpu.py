"""What needs a GPU. Without one each check says so; it never passes."""

from __future__ import annotations

from builder.records import PlanRecord
from validate.checks import Measurements, check, failed, not_measured, unless_missing
from validate.exports import demand_export, demand_parity
from validate.facts import Cold, Gpu, Weights
from validate.speed import Budget, judge_cold
from validate.weights import demand_sound

# TF32 keeps 10 bits of the mantissa: relative to the largest value that is about one percent.
TOLERANCE = 1e-2


@check(
    "G02",
    why="is_available() is true on GPUs that no kernel was compiled for.",
    fix="Use the stack whose torch has kernels for this GPU and whose CUDA the driver supports.",
)
def test_kernels_run(gpu: Gpu, plan: PlanRecord) -> str:
    """A convolution and a matrix product really run on the GPU and agree with the CPU."""
    _demand_cuda(plan)
    if not gpu.available:
        failed("a GPU was given to the container, but torch can't use it")
    wrong = [
        f"{name}: {kernel.error or f'off by {kernel.difference:.4g} of {kernel.largest:.4g}'}"
        for name, kernel in gpu.kernels.items()
        if kernel.error or not kernel.finite or kernel.difference > TOLERANCE * kernel.largest
    ]
    if wrong or not gpu.kernels:
        failed("; ".join(wrong) or "no kernel ran")
    return f"{gpu.name} sm {gpu.capability}: {', '.join(gpu.kernels)} agree with the CPU"


@check(
    "G21",
    why="A checkpoint that was damaged on its way to this host finds nothing, or something else.",
    fix="Remove the image from this host and pull it again by digest.",
)
def test_checkpoints_on_host(plan: PlanRecord, gpu_weights: Weights) -> str:
    """The checkpoints on this GPU host are whole and those of the row."""
    unless_missing(plan, "weights")
    text = demand_sound(plan, gpu_weights, None)
    known = {item.file: item.sha256 for item in plan.weights if item.sha256}
    wrong = [
        f"{item.file} has sha256 {item.sha256}, expected {known[item.file]}"
        for item in gpu_weights.files
        if known.get(item.file, item.sha256) != item.sha256
    ]
    if wrong:
        failed("; ".join(wrong))
    return text


@check(
    "G07",
    why="A first result after minutes means downloads, kernels compiled at start, or the CPU.",
    fix="Look at the slowest phase; compare the GPU's sm with what torch was built for.",
)
def test_first_inference(
    plan: PlanRecord, gpu_cold: tuple[tuple[float, Cold], ...], measurements: Measurements
) -> str:
    """The first inference on the GPU, from a fresh container, is within its budget."""
    _demand_cuda(plan)
    return judge_cold(gpu_cold, Budget(), measurements, "gpu.cold")


@check(
    "G12",
    why="An image that ships TensorRT must be able to build an engine and load it.",
    fix="Compare TensorRT's version with what ultralytics and the driver support.",
)
def test_engine(gpu: Gpu, plan: PlanRecord, measurements: Measurements) -> str:
    """A TensorRT engine is built offline, loads and runs."""
    unless_missing(plan, "tensorrt")
    if gpu.engine is None:
        not_measured("TensorRT is not part of this row")
    return demand_export(gpu.engine, measurements)


@check(
    "G14",
    why="Engines that find other boxes are the complaint that TensorRT users make most.",
    fix="Build with half=False; compare .onnx as well to see which step differs.",
)
def test_engine_parity(gpu: Gpu, plan: PlanRecord, measurements: Measurements) -> str:
    """The TensorRT engine finds the boxes that its checkpoint finds."""
    unless_missing(plan, "tensorrt")
    if gpu.engine is None:
        not_measured("TensorRT is not part of this row")
    if gpu.memory:
        measurements.add("gpu.memory_used", gpu.memory.get("device_used", 0), "B")
    return demand_parity(gpu.engine, measurements)


def _demand_cuda(plan: PlanRecord) -> None:
    if plan.cuda is None:
        not_measured("this row has no CUDA")
