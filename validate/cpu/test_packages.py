"""What is installed: imports, versions, what torch was built for, CUDA libraries, leftovers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from packaging.markers import InvalidMarker, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builder.records import PlanRecord
from validate.checks import check, failed, not_measured
from validate.facts import Packages

# The image's own runtime, and what a virtual environment may bring along.
OURS = frozenset({"yolo-image", "pip", "setuptools", "wheel"})
# opencv-python needs libGL; the headless build is the same module and takes its place.
REPLACED = {"opencv-python": "opencv-python-headless"}
OPTIONAL = {"tensorrt": "tensorrt", "flash-attn": "flash-attn"}


@check(
    "C01",
    why="The image can't be used at all when one of its libraries doesn't load.",
    fix="Rebuild without cache; when a system library is named, add it to images/base.",
)
def test_imports(packages: Packages) -> str:
    """Every library imports, and torch, torchvision, numpy and OpenCV work together."""
    wrong = [
        f"import {name}: {module.error}"
        for name, module in packages.imports.items()
        if module.error is not None
    ]
    wrong += [f"{name}: {error}" for name, error in packages.operations.items() if error]
    if wrong:
        failed("; ".join(wrong))
    return ", ".join(f"{name} {module.version}" for name, module in packages.imports.items())


@check(
    "C02",
    why="What runs is not what was reviewed: the lock is the only list of what may be installed.",
    fix="Rebuild without cache; find the step that installs outside the lock.",
)
def test_installed_is_locked(plan: PlanRecord, packages: Packages) -> str:
    """The installed packages are those of the lock, consistent, one OpenCV and one ONNX Runtime."""
    installed = {_name(item.name): item.version for item in packages.distributions}
    wrong = [*_doubles(installed), *_inconsistent(packages, installed, plan)]
    if plan.packages:
        wrong += _differences(plan, installed)
    if wrong:
        failed("; ".join(wrong))
    if not plan.packages:
        not_measured("no lock is known for this image; its packages fit each other")
    return f"{len(installed)} packages as locked"


def _name(text: str) -> str:
    """Return the one spelling of a distribution's name."""
    return str(canonicalize_name(text))


def _doubles(installed: Mapping[str, str]) -> Iterator[str]:
    for prefix in ("opencv-", "onnxruntime"):
        found = sorted(name for name in installed if name.startswith(prefix))
        if len(found) > 1:
            yield f"{' and '.join(found)} are both installed and overwrite each other's files"


def _differences(plan: PlanRecord, installed: Mapping[str, str]) -> Iterator[str]:
    locked = {_name(name): version for name, version in plan.packages.items()}
    for name, version in sorted(locked.items()):
        if name not in installed:
            if not _is_missing(name, plan):
                yield f"{name} {version} is locked but not installed"
        elif not _same(version, installed[name]):
            yield f"{name} {installed[name]} is installed, the lock says {version}"
    for name in sorted(set(installed) - set(locked) - OURS):
        yield f"{name} {installed[name]} is installed but not locked"


def _is_missing(name: str, plan: PlanRecord) -> bool:
    """Whether `name` belongs to a part that this image is built without."""
    return any(name.startswith(OPTIONAL.get(missing.part, "\0")) for missing in plan.missing)


def _same(locked: str, installed: str) -> bool:
    """Compare versions; the lock leaves out the local part (`+cu128`) where the index does."""
    try:
        one, other = Version(locked), Version(installed)
    except InvalidVersion:
        return locked == installed
    return one == other if one.local else one.public == other.public


def _inconsistent(
    packages: Packages, installed: Mapping[str, str], plan: PlanRecord
) -> Iterator[str]:
    """Yield what `pip check` would: requirements that nothing installed satisfies."""
    for item in packages.distributions:
        for text in item.requires:
            problem = _unmet(text, installed, packages.markers)
            if problem and not _is_missing(problem.partition(" ")[0], plan):
                yield f"{item.name} needs {problem}"


def _unmet(text: str, installed: Mapping[str, str], markers: Mapping[str, str]) -> str | None:
    try:
        need = Requirement(text)
        if need.marker and not need.marker.evaluate({**markers, "extra": ""}):
            return None
    except (InvalidRequirement, InvalidMarker, UndefinedEnvironmentName) as error:
        return f"something unreadable: {error}"
    name = _name(need.name)
    name = name if name in installed else REPLACED.get(name, name)
    if name not in installed:
        return f"{need.name} ({text}), which is not installed"
    if not need.specifier.contains(installed[name], prereleases=True):
        return f"{need.name} ({text}), installed is {installed[name]}"
    return None


@check(
    "C03",
    why="A torch for another CUDA, or without kernels for a GPU, fails at the first convolution.",
    fix="Correct the stack's index, CUDA or gpus in matrix.yaml and lock again.",
)
def test_torch_build(plan: PlanRecord, packages: Packages) -> str:
    """Torch was built for the row's CUDA and has kernels for every target GPU."""
    torch = packages.torch
    if torch is None:
        failed(f"torch can't be imported: {packages.imports['torch'].error}")
    if torch.cuda != plan.cuda:
        failed(
            f"torch {torch.version} is built for CUDA {torch.cuda}, the row says {plan.cuda}"
            if torch.cuda
            else f"torch {torch.version} is the CPU build, the row says CUDA {plan.cuda}"
        )
    if not _same(plan.torch, torch.version):
        failed(f"torch is {torch.version}, the row says {plan.torch}")
    lacking = [sm for sm in plan.sms if not _covered(sm, torch.archs)]
    if lacking:
        failed(f"no kernels for sm {', '.join(lacking)}; torch has {' '.join(torch.archs)}")
    return f"torch {torch.version}: {' '.join(torch.archs) or 'CPU build'}"


def _covered(sm: str, archs: tuple[str, ...]) -> bool:
    """Kernels run on the same major and a minor at least theirs: sm_86 kernels serve sm_89."""
    wanted = sm.removeprefix("sm_").replace(".", "")
    compiled = [arch.removeprefix("sm_") for arch in archs if arch.startswith("sm_")]
    return any(
        arch[:-1] == wanted[:-1] and arch[-1:] <= wanted[-1:]
        for arch in (item.rstrip("af") for item in compiled)
    )


@check(
    "C12",
    why="With two copies the loader mixes them, and the first convolution crashes.",
    fix="Remove the second copy; a base image must not bring CUDA libraries.",
)
def test_library_origin(packages: Packages) -> str:
    """Each CUDA library has one origin, and no stub or compat folder is on the loader's path."""
    folders: dict[str, set[str]] = {}
    for path in (*packages.libraries, *packages.mapped, *packages.loader_cache):
        name = PurePosixPath(path).name.partition(".so")[0]
        folders.setdefault(name, set()).add(str(PurePosixPath(path).parent))
    wrong = [
        f"{name} lies in {' and '.join(sorted(places))}"
        for name, places in sorted(folders.items())
        if len(places) > 1
    ]
    wrong += [f"the loader would take {path}" for path in packages.loader_cache]
    wrong += [
        f"LD_LIBRARY_PATH contains {part}"
        for part in packages.library_path.split(":")
        if part.rstrip("/").endswith(("/stubs", "/compat"))
    ]
    if wrong:
        failed("; ".join(wrong))
    return ", ".join(sorted(folders)) or "no CUDA libraries"


@check(
    "C19",
    why="Caches and compilers are dead weight in every pull, and a compiler helps an intruder.",
    fix="Remove them in the layer that makes them.",
)
def test_nothing_left_behind(host: Any) -> str:
    """No package cache, no CUDA compiler and no file that anyone may write is left in the image."""
    find = (
        "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /probes "
        "-o -path /tmp -o -path /var/tmp \\) -prune "
        "-o \\( -name nvcc -o -path '/var/cache/apt/archives/*.deb' "
        "-o -path '/var/lib/apt/lists/*Packages*' -o -path '*/.cache/pip' -o -path '*/.cache/uv' "
        "-o -name uv_cache.json -o \\( -type f -perm -o+w \\) "
        "\\) -print 2>/dev/null | head -20"
    )
    left = host.run(f"timeout -k 5 60 sh -c {_quoted(find)}").stdout.split("\n")
    found = [line for line in left if line]
    if found:
        failed(f"left behind: {', '.join(found)}")
    return "nothing left behind"


def _quoted(text: str) -> str:
    """Quote for the one shell that testinfra starts in the container."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
