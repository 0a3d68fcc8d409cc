"""GPU, compute capability, CUDA toolkit, compiler targets and driver."""

from __future__ import annotations

from collections.abc import Iterator

from builder.compat.facts import load
from builder.compat.rule import fail, rule, warn
from builder.compat.values import CPU, Base, Cuda, Gpu, compatible, parse_cuda, sm_name
from builder.compat.verdict import Conflict

_FIRST = {
    70: "V100",
    75: "T4",
    80: "A100",
    86: "A10",
    89: "L4",
    90: "H100",
    100: "B200",
    120: "RTX 5090",
}


@rule("gpu-known", "the GPU is a model with a known compute capability")
def gpu_known(gpu: Gpu | str, sm: int | None = None) -> Iterator[Conflict]:
    """An unknown name is a doubt unless its capability is named too."""
    if isinstance(gpu, str) and sm is None:
        yield warn(
            f"the GPU {gpu[:40]} is not in the data: nothing that depends on it was judged",
            "gpu",
            fix="Name its compute capability as sm.",
        )


@rule("gpu-sm", "the GPU has the compute capability that the row names")
def gpu_sm(gpu: Gpu | str, sm: int) -> Iterator[Conflict]:
    """Judge GPU x compute capability."""
    if isinstance(gpu, Gpu) and gpu.sm != sm:
        yield fail(
            f"{gpu.name} has compute capability {gpu.sm // 10}.{gpu.sm % 10}, not {sm_name(sm)}",
            "gpu sm",
            fix=f"Use {sm_name(gpu.sm)}.",
            source=load("gpus")["sources"]["gpus"],
            instead={"sm": [sm_name(gpu.sm)], "gpu": [_FIRST[sm]] if sm in _FIRST else []},
        )


@rule("sm-known", "the compute capability is one that some CUDA compiles for")
def sm_known(sm: int) -> Iterator[Conflict]:
    """A capability newer than all known is a doubt, a gap a mistake."""
    known = sorted({code for codes in load("cuda")["architectures"].values() for code in codes})
    older = {20, 21, 30, 32}
    if sm in known or sm in older:
        return
    if sm > known[-1]:
        yield warn(f"{sm_name(sm)} is newer than the data, which end at {sm_name(known[-1])}", "sm")
    else:
        yield fail(
            f"no GPU has compute capability {sm // 10}.{sm % 10}", "sm", instead={"sm": [None]}
        )


@rule("gpu-platform", "the GPU exists on this platform")
def gpu_platform(gpu: Gpu | str, platform: str) -> Iterator[Conflict]:
    """Jetson and GB10 are aarch64 systems."""
    if isinstance(gpu, Gpu) and gpu.kind in {"soc", "jetson"} and platform != "aarch64":
        yield fail(
            f"{gpu.name} is an aarch64 system, not {platform}",
            "gpu platform",
            fix="Use linux/arm64.",
            source=load("gpus")["sources"]["gpus"],
            instead={"platform": ["linux/arm64"]},
        )


@rule("cuda-gpu", "this CUDA can make code for this GPU", unless="torch")
def cuda_gpu(runtime: Cuda, arch: int) -> Iterator[Conflict]:
    """Judge CUDA x compute capability. With torch named, torch's own kernels decide."""
    if runtime == CPU:
        return
    table = load("cuda")["architectures"]
    covered = {name: codes for name, codes in table.items() if runtime.covers(parse_cuda(name))}
    if not covered or any(_makes(codes, arch) for codes in covered.values()):
        return
    able = [name for name, codes in table.items() if _makes(codes, arch)]
    dropped = bool(able) and parse_cuda(able[-1]) < runtime
    what = f"dropped {sm_name(arch)}" if dropped else f"does not know {sm_name(arch)}"
    near = able[::-1] if dropped else able
    span = f"{able[0]} to {able[-1]}" if able else "none that is known"
    yield fail(
        f"CUDA {runtime.name} {what}; CUDA versions that make code for it: {span}",
        "runtime arch",
        fix=f"Use CUDA {near[0]}." if near else "",
        source=load("cuda")["sources"]["architectures"],
        instead={"cuda": near[:4]},
    )


def _makes(codes: list[int], arch: int) -> bool:
    return any(compatible(arch, code) for code in codes)


@rule("nvcc-target", "this CUDA's compiler knows the target architecture")
def nvcc_target_known(
    nvcc_target: tuple[int, ...], runtime: Cuda | None = None, base: Base | None = None
) -> Iterator[Conflict]:
    """Judge compiler x target: the list is exact, there is no fallback when compiling."""
    toolkit = runtime or (base.cuda if base else None)
    if toolkit is None or toolkit == CPU:
        return
    table = load("cuda")["architectures"]
    covered = [codes for name, codes in table.items() if toolkit.covers(parse_cuda(name))]
    unknown = [sm for sm in nvcc_target if covered and not any(sm in codes for codes in covered)]
    if not unknown:
        return
    able = [name for name, codes in table.items() if set(nvcc_target) <= set(codes)]
    near = sorted(able, key=lambda name: _far(parse_cuda(name), toolkit))
    renamed = (
        " (it is called sm_110 from CUDA 13.0 on)" if 101 in unknown and toolkit.major >= 13 else ""
    )
    yield fail(
        f"nvcc of CUDA {toolkit.name} can't compile for "
        f"{', '.join(sm_name(sm) for sm in unknown)}{renamed}",
        "nvcc_target runtime" if runtime else "nvcc_target base",
        fix=f"Use CUDA {near[0]}." if near else "Drop the target.",
        source=load("cuda")["sources"]["architectures"],
        instead={"cuda": near[:4], "nvcc_target": [None]},
    )


def _far(one: Cuda, other: Cuda) -> tuple[int, int]:
    return abs(one.major - other.major), abs((one.minor or 0) - (other.minor or 0))


def older(driver: tuple[int, ...], floor: str) -> bool:
    """Whether `driver` is older than `floor`, as far as it is written out: 570 is all of r570."""
    wanted = tuple(int(part) for part in floor.split("."))
    return driver < wanted[: len(driver)]


def toolkit_floor(cuda: Cuda) -> str | None:
    """Return the driver that came with this toolkit (its first release), None when unknown."""
    table: dict[str, dict[str, str | None]] = load("cuda")["toolkits"]
    exact = (
        table.get(f"{cuda.name}.{cuda.patch}", {}).get("driver") if cuda.patch is not None else None
    )
    return exact or table.get(f"{cuda.name}.0", {}).get("driver")


def major_floor(cuda: Cuda) -> str | None:
    """Return the least driver of a CUDA major, which minor-version compatibility allows."""
    floor: str | None = load("cuda")["majors"].get(str(cuda.major))
    return floor


@rule("driver-cuda", "the driver is new enough for this CUDA")
def driver_cuda(
    runtime: Cuda, driver: tuple[int, ...], gpu: Gpu | str | None = None
) -> Iterator[Conflict]:
    """Judge CUDA major x driver. Jetsons have their own drivers."""
    floor = major_floor(runtime)
    if floor is None or (isinstance(gpu, Gpu) and gpu.kind == "jetson"):
        return
    if older(driver, floor):
        lower = [
            c
            for c in load("cuda")["architectures"]
            if not older(driver, major_floor(parse_cuda(c)) or "0")
        ]
        yield fail(
            f"CUDA {runtime.major}.x needs driver {floor} or newer; {_dotted(driver)} is older",
            "runtime driver",
            fix=f"Update the driver{f', or use CUDA {lower[-1]}' if lower else ''}.",
            source=load("cuda")["sources"]["majors"],
            instead={"driver": [floor], "cuda": lower[::-1][:6]},
        )


@rule("driver-gpu", "the driver knows this GPU")
def driver_gpu(
    arch: int, driver: tuple[int, ...], gpu: Gpu | str | None = None
) -> Iterator[Conflict]:
    """Judge compute capability x driver: a GPU needs the branch that introduced it."""
    floor = load("cuda")["gpu_drivers"].get(str(arch))
    if floor is None or (isinstance(gpu, Gpu) and gpu.kind == "jetson"):
        return
    if older(driver, floor):
        yield fail(
            f"driver {_dotted(driver)} does not know {sm_name(arch)}: it needs {floor} or newer, "
            "minor-version compatibility does not help",
            "arch driver",
            fix=f"Update the driver to {floor} or newer.",
            source=load("cuda")["sources"]["gpu_drivers"],
            instead={"driver": [floor]},
        )


@rule("driver-ptx", "PTX that is compiled at run time is not newer than the driver")
def driver_ptx(
    needs_ptx_jit: bool,  # noqa: FBT001  # a value of the row
    runtime: Cuda,
    driver: tuple[int, ...],
) -> Iterator[Conflict]:
    """PTX JIT is outside minor-version compatibility."""
    floor_of_major = major_floor(runtime)
    if not needs_ptx_jit or floor_of_major is None or older(driver, floor_of_major):
        return
    floor = toolkit_floor(runtime)
    if floor is None:
        known = [c for c in load("cuda")["toolkits"] if toolkit_floor(parse_cuda(c))]
        newest = toolkit_floor(parse_cuda(known[-1])) or "0"
        if older(driver, newest):
            floor = newest
        else:
            yield warn(
                f"which driver compiles the PTX of CUDA {runtime.name} is not in the data",
                "needs_ptx_jit runtime driver",
                source=load("cuda")["sources"]["toolkits"],
            )
            return
    if older(driver, floor):
        yield fail(
            f"PTX of CUDA {runtime.name} needs driver {floor} or newer; {_dotted(driver)} answers "
            "cudaErrorUnsupportedPtxVersion (222)",
            "needs_ptx_jit runtime driver",
            fix=f"Update the driver to {floor}, or ship native code for the GPU.",
            source=load("cuda")["sources"]["majors"],
            instead={"driver": [floor], "needs_ptx_jit": ["false"]},
        )


def _dotted(driver: tuple[int, ...]) -> str:
    first, *rest = driver
    return ".".join([str(first), *(f"{part:02d}" for part in rest)])
