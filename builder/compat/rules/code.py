"""ultralytics and what it is installed beside: torch, Python, numpy, exporters, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from builder.compat.facts import load, named, ordered, releases
from builder.compat.rule import fail, rule, warn
from builder.compat.rules.torch import near_releases
from builder.compat.values import CPU, Cuda, Python
from builder.compat.verdict import Conflict

_THROUGH_ONNX = frozenset(
    {
        "onnx",
        "engine",
        "tensorrt",
        "trt",
        "openvino",
        "saved_model",
        "pb",
        "tflite",
        "edgetpu",
        "tfjs",
    }
)


_bound = lru_cache(maxsize=1024)(Version)


def _within(version: Version, row: dict[str, Any]) -> bool:
    return version >= _bound(row["from"]) and (row["to"] is None or version <= _bound(row["to"]))


@lru_cache(maxsize=1024)
def after(version: Version) -> tuple[Version, ...]:
    """Return ultralytics releases from `version` on that nothing is known against."""
    withdrawn = releases("index", "ultralytics")
    known = ordered("index", "ultralytics")
    return tuple(v for v in known if v >= version and not withdrawn[v][1])


@rule("weights-only", "this ultralytics can load checkpoints with this torch")
def weights_only(torch: Version, code: Version, weights: str | None = None) -> Iterator[Conflict]:
    """torch 2.6 made weights_only the default of torch.load; checkpoints are whole pickles."""
    if weights is not None and not weights.lower().endswith(".pt"):
        return
    if torch >= Version("2.6") and code < Version("8.2.64"):
        older = [v for v in near_releases(torch) if v < Version("2.6")]
        yield fail(
            f"torch {torch.public} loads with weights_only=True; ultralytics {code} can't load "
            "a .pt "
            "that way",
            "torch code",
            fix="Use ultralytics 8.2.64 or newer, or torch 2.5.1 or older.",
            source="ultralytics 8.2.64, 2024-07-23 (measured)",
            instead={"ultralytics": after(Version("8.2.64"))[:4], "torch": older[:4]},
        )


@rule("torch-windows", "ultralytics accepts this torch on Windows")
def torch_windows(torch: Version, code: Version, platform: str) -> Iterator[Conflict]:
    """torch 2.4.0 is excluded on Windows."""
    if (
        platform == "windows"
        and Version(torch.public) == Version("2.4.0")
        and code >= Version("8.2.88")
    ):
        yield fail(
            f"ultralytics {code} excludes torch 2.4.0 on Windows, whose CPU results are wrong",
            "torch code platform",
            fix="Use torch 2.4.1.",
            source="ultralytics issue 15049 (measured)",
            instead={"torch": ["2.4.1"]},
        )


@rule("ultralytics-python", "ultralytics installs on this Python")
def ultralytics_python(code: Version, python: Python) -> Iterator[Conflict]:
    """Judge Requires-Python."""
    for row in load("ultralytics")["python"]:
        if not _within(code, row):
            continue
        version = python.version
        spec = SpecifierSet(row["spec"])
        # "<=3.11" refuses 3.11.1, and nobody has 3.11.0.
        tight = "<=3.11" in row["spec"] and not python.exact and version == Version("3.11")
        if tight or not spec.contains(version):
            yield fail(
                f"ultralytics {code} needs Python {row['spec']}, not {python.minor}",
                "code python",
                source="package index, Requires-Python (measured)",
                instead={"python": ["3.10", "3.11", "3.8"], "ultralytics": ["8.4.190", "8.0.151"]},
            )


@rule("ultralytics-numpy", "ultralytics works with this numpy")
def ultralytics_numpy(
    code: Version, numpy: Version, torch: Version | None = None, distribution: str | None = None
) -> Iterator[Conflict]:
    """Judge declared bounds, then what breaks although it is not declared."""
    fork = distribution == "yolov12-fork"
    for row in load("ultralytics")["numpy"]:
        if _within(code, row) and not SpecifierSet(row["spec"]).contains(numpy, prereleases=True):
            yield fail(
                f"ultralytics {code} requires numpy{row['spec']}, not {numpy}",
                "code numpy",
                fix=f"Use numpy{row['spec']}.",
                source=f"package index, Requires-Dist ({row['confidence']})",
                instead={"numpy": _numpy_for(row["spec"]), "ultralytics": ["8.4.190"]},
            )
            return
    if numpy >= Version("2.4") and code <= Version("8.3.107"):
        yield fail(
            f"ultralytics {code} calls np.trapz, which numpy 2.4 removed",
            "code numpy",
            fix="Use numpy<2.4, or ultralytics 8.3.108 or newer.",
            source="wheels of numpy 2.3.5 and 2.4.0 (measured)",
            instead={"numpy": ["2.3.5", "1.26.4"], "ultralytics": after(Version("8.3.119"))[:2]},
        )
    elif numpy >= Version("2") and code < Version("8.2.33"):
        beside = torch is not None and torch >= Version("2.3")
        yield (warn if beside else fail)(
            f"ultralytics {code} predates numpy 2 and does not exclude it",
            "code numpy",
            fix="Use numpy<2.",
            source="8.2.33 was the first to declare numpy<2.0.0 (measured, inferred)",
            instead={"numpy": ["1.26.4"], "ultralytics": after(Version("8.3.119"))[:2]},
        )
    elif fork and numpy >= Version("2"):
        yield warn(
            f"the fork's requirements.txt pins numpy 1.26.4; {numpy} is not what it was tried with",
            "distribution numpy",
            fix="Use numpy 1.26.4.",
            source=load("ultralytics")["sources"]["fork"],
            instead={"numpy": ["1.26.4"]},
        )


def _numpy_for(spec: str) -> list[str]:
    return [v for v in ("2.1.1", "1.26.4", "2.2.6") if SpecifierSet(spec).contains(v)]


@rule("torch-numpy", "torch was built for this numpy")
def torch_numpy(torch: Version, numpy: Version) -> Iterator[Conflict]:
    """torch before 2.3 was compiled against numpy 1.x."""
    if torch < Version("2.3") and numpy >= Version("2"):
        yield fail(
            f"torch {torch.public} was built for numpy 1.x: with {numpy} `Numpy is not available`",
            "torch numpy",
            fix="Use numpy<2, or torch 2.3.0 or newer.",
            source="pytorch issue 107302; openfederatedlearning issue 999 (corroborated)",
            instead={
                "numpy": ["1.26.4"],
                "torch": [v for v in near_releases(torch) if v >= Version("2.3")][:3],
            },
        )


@rule("export-dynamo", "this ultralytics exports ONNX with this torch")
def export_dynamo(
    torch: Version, code: Version, export: str | None = None, distribution: str | None = None
) -> Iterator[Conflict]:
    """torch 2.9 exports through dynamo unless told not to; ultralytics says so from 8.3.215 on."""
    if torch < Version("2.9") or code >= Version("8.3.215"):
        return
    if export is not None and export not in _THROUGH_ONNX:
        return
    if export is None and distribution != "yolov12-fork":
        return
    older = [v for v in near_releases(torch) if v < Version("2.9")]
    yield (warn if export is None else fail)(
        f"torch {torch.public} exports ONNX through dynamo, which needs onnxscript; ultralytics "
        f"{code} "
        "does not pass dynamo=False",
        "torch code export" if export else "torch code",
        fix="Use torch 2.8.0 or older, or ultralytics 8.3.215 or newer.",
        source="ultralytics PR 22388; 8.3.214 and 8.3.215 compared (measured)",
        instead={
            "torch": older[:4],
            "ultralytics": [] if distribution == "yolov12-fork" else after(Version("8.3.215"))[:2],
        },
    )


@rule("export-gpu", "a TensorRT engine is built where there is a GPU")
def export_gpu(export: str, runtime: Cuda) -> Iterator[Conflict]:
    """The exporter asserts a CUDA device."""
    if export in {"engine", "tensorrt", "trt"} and runtime == CPU:
        yield fail(
            "a TensorRT engine can't be exported on a CPU",
            "export runtime",
            fix="Export onnx, or use a CUDA build.",
            source="ultralytics exporter (measured)",
            instead={"export": ["onnx"]},
        )


@rule("half-cpu", "half precision has a GPU to run on")
def half_cpu(half: bool, runtime: Cuda) -> Iterator[Conflict]:  # noqa: FBT001  # a value of the row
    """The exporter drops half on a CPU, with a warning."""
    if half and runtime == CPU:
        yield warn(
            "half precision works on a GPU only: on a CPU it is switched off with a warning",
            "half runtime",
            fix="Drop half.",
            source="ultralytics exporter (measured)",
            instead={"half": ["false"]},
        )


@rule("onnxruntime-cuda", "onnxruntime-gpu is built for the CUDA major of the row")
def onnxruntime_cuda(onnxruntime_gpu: Version | None, runtime: Cuda) -> Iterator[Conflict]:
    """Judge ONNX Runtime x CUDA major."""
    if onnxruntime_gpu is None or runtime == CPU:
        return
    data = load("onnxruntime")
    major = _ort_major(onnxruntime_gpu)
    if major is None or major == runtime.major:
        return
    fitting = [v for v in ordered("index", "onnxruntime_gpu") if _ort_major(v) == runtime.major]
    near = sorted(fitting, key=lambda v: abs(v.minor - onnxruntime_gpu.minor))
    yield fail(
        f"onnxruntime-gpu {onnxruntime_gpu} is built for CUDA {major}, the row has CUDA "
        f"{runtime.name}: "
        "it would fall back to the CPU",
        "onnxruntime_gpu runtime",
        fix=f"Use onnxruntime-gpu {near[0]}." if near else "",
        source=data["sources"]["cuda"],
        instead={"onnxruntime_gpu": near[:6]},
    )


def _ort_major(version: Version) -> int | None:
    if version > ordered("index", "onnxruntime_gpu")[-1] and version.major > 1:
        return None
    for row in load("onnxruntime")["cuda"]:
        if _within(version, row):
            major: int = row["major"]
            return major
    return None


@rule("onnxruntime-release", "onnxruntime-gpu is a release that exists")
def onnxruntime_release(onnxruntime_gpu: Version | None) -> Iterator[Conflict]:
    """Newer than the data is a doubt, a gap a mistake; before 1.17 nothing was read."""
    known = ordered("index", "onnxruntime_gpu")
    if onnxruntime_gpu is None or onnxruntime_gpu in known or onnxruntime_gpu < known[0]:
        return
    if onnxruntime_gpu > known[-1] and onnxruntime_gpu.major <= known[-1].major + 1:
        yield warn(
            f"onnxruntime-gpu {onnxruntime_gpu} is newer than the data, which end at {known[-1]}",
            "onnxruntime_gpu",
        )
        return
    near = sorted(
        known,
        key=lambda v: (abs(v.major - onnxruntime_gpu.major), abs(v.minor - onnxruntime_gpu.minor)),
    )
    yield fail(
        f"the package index has no onnxruntime-gpu {onnxruntime_gpu} for Linux",
        "onnxruntime_gpu",
        fix=f"Use {near[0]}.",
        source="package index (measured)",
        instead={"onnxruntime_gpu": near[:4]},
    )


@rule("onnxruntime-python", "onnxruntime-gpu has a wheel for this Python")
def onnxruntime_python(
    onnxruntime_gpu: Version | None, python: Python, machine: str | None = None
) -> Iterator[Conflict]:
    """Judge ONNX Runtime x CPython."""
    row = named("index", onnxruntime_gpu, "onnxruntime_gpu") if onnxruntime_gpu else None
    if row is None or machine in {"windows", "macos"}:
        return
    here = machine or "x86_64"
    offered = row.get(here, {}).get("python", [])
    if python.minor in offered:
        return
    fitting = [
        v
        for v, (_, entry) in releases("index", "onnxruntime_gpu").items()
        if python.minor in entry.get(here, {}).get("python", [])
    ]
    listed = f"there are {', '.join(offered)}" if offered else f"none at all for {here}"
    yield fail(
        f"onnxruntime-gpu {onnxruntime_gpu} has no wheel for Python {python.minor}: {listed}",
        "onnxruntime_gpu python machine" if here == "aarch64" else "onnxruntime_gpu python",
        fix=f"Use {fitting[-1]}." if fitting else "",
        source="package index, wheel tags (measured)",
        instead={"onnxruntime_gpu": fitting[::-1], "python": offered[::-1]},
    )


@rule(
    "onnxruntime-driver",
    "the driver is new enough for onnxruntime-gpu's CUDA",
    unless="runtime",
)
def onnxruntime_driver(
    onnxruntime_gpu: Version | None, driver: tuple[int, ...]
) -> Iterator[Conflict]:
    """With no CUDA named, that of onnxruntime-gpu sets the floor."""
    major = _ort_major(onnxruntime_gpu) if onnxruntime_gpu else None
    if major is None:
        return
    floor = load("cuda")["majors"][str(major)]
    if driver < tuple(int(part) for part in floor.split("."))[: len(driver)]:
        yield fail(
            f"onnxruntime-gpu {onnxruntime_gpu} brings CUDA {major}, which needs driver {floor} "
            "or newer",
            "onnxruntime_gpu driver",
            fix="Update the driver.",
            source=load("cuda")["sources"]["majors"],
            instead={"driver": [floor]},
        )


@rule("onnxruntime-tensorrt", "ONNX Runtime can use this TensorRT")
def onnxruntime_tensorrt(onnxruntime_gpu: Version | None, tensorrt: Any) -> Iterator[Conflict]:
    """Its TensorRT provider is linked against libnvinfer.so.10."""
    pins = [
        Version(s.version)
        for s in tensorrt.specifier
        if s.operator == "==" and "*" not in s.version
    ]
    if onnxruntime_gpu is not None and any(pin >= Version("11") for pin in pins):
        yield warn(
            "onnxruntime-gpu's TensorRT provider is linked against TensorRT 10: it can't use "
            f"{tensorrt}",
            "onnxruntime_gpu tensorrt",
            fix="Use its CUDA provider, or TensorRT 10.",
            source="public code (single)",
        )
