"""Does the named release exist? Newer than the data is a doubt, a gap in the data a mistake."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.version import Version

from builder.compat.facts import load, ordered, releases
from builder.compat.rule import fail, rule, warn
from builder.compat.values import Cuda, Python, parse_cuda
from builder.compat.verdict import Conflict

_MINORS_AHEAD = 12  # about two years of torch: a release that may come out while this data ages


def _plausible(version: Version, latest: Version) -> bool:
    if version.major == latest.major:
        return version.minor <= latest.minor + _MINORS_AHEAD or latest.major == 8
    return version.major == latest.major + 1 and version.minor <= _MINORS_AHEAD


def _existence(
    label: str, key: str, version: Version, known: tuple[Version, ...]
) -> Iterator[Conflict]:
    """Judge a version against the sorted releases that are known to exist."""
    public = Version(version.public)
    if public in known:
        return
    near = sorted(known, key=lambda other: _distance(other, public))[:6]
    options = {key: near}
    if public > known[-1]:
        if public.is_prerelease or _plausible(public, known[-1]):
            yield warn(
                f"{label} {public} is newer than the data, which end at {known[-1]}: not judged",
                key,
                fix="Run `make update-facts`, or build and validate it to find out.",
            )
            return
        yield fail(
            f"there is no {label} {public}: the newest known is {known[-1]}",
            key,
            fix=f"Use {known[-1]}.",
            instead=options,
        )
    elif public < known[0] or public.is_prerelease:
        yield warn(f"{label} {public} is older than the data, which start at {known[0]}", key)
    else:
        yield fail(
            f"{label} {public} was never released", key, fix=f"Use {near[0]}.", instead=options
        )


def _distance(one: Version, other: Version) -> tuple[int, int, int]:
    return (
        abs(one.major - other.major),
        abs(one.minor - other.minor),
        abs(one.micro - other.micro),
    )


@rule("torch-release", "torch is a release that exists")
def torch_release(torch: Version) -> Iterator[Conflict]:
    """Judge torch."""
    yield from _existence("torch", "torch", torch, ordered("torch"))


@rule("torchvision-release", "torchvision is a release that exists and was not withdrawn")
def torchvision_release(torchvision: Version) -> Iterator[Conflict]:
    """Judge torchvision."""
    known = ordered("index", "torchvision")
    yield from _existence("torchvision", "torchvision", torchvision, known)
    entry = releases("index", "torchvision").get(Version(torchvision.public))
    if entry and entry[1]["yanked"]:
        yield fail(
            f"torchvision {entry[0]} was withdrawn: {entry[1]['yanked']}",
            "torchvision",
            fix="Use the release after it.",
            source="package index, yank reason",
            instead={"torchvision": [v for v in known if v > torchvision][:2]},
        )


@rule("flash-attn-release", "flash-attn is a release that exists")
def flash_attn_release(flash_attn: Version) -> Iterator[Conflict]:
    """Judge flash-attn."""
    yield from _existence("flash-attn", "flash_attn", flash_attn, ordered("flash_attn"))


@rule("cuda-release", "CUDA is a toolkit that was released")
def cuda_release(cuda: Cuda) -> Iterator[Conflict]:
    """Judge the CUDA version."""
    yield from judge_cuda(cuda, "cuda")


def judge_cuda(cuda: Cuda, key: str) -> Iterator[Conflict]:
    """Judge a CUDA version that was named under `key`."""
    data = load("cuda")
    known = [parse_cuda(name) for name in (*data["older"], *data["architectures"])]
    if cuda.major == 0 or any(cuda.covers(other) for other in known):
        yield from _judge_patch(cuda, key)
        return
    reason = data["never_released"].get(cuda.name)
    near = [
        c.name
        for c in sorted(
            known,
            key=lambda c: (abs(c.major - cuda.major), abs((c.minor or 0) - (cuda.minor or 0))),
        )
    ]
    if reason:
        yield fail(
            f"CUDA {cuda.name} was never released as a toolkit or image. {reason}",
            key,
            fix=f"Use {near[0]}.",
            source=data["sources"]["toolkits"],
            instead={key: near[:4]},
        )
    elif _plausible(Version(cuda.name), Version(known[-1].name)) and known[-1] < cuda:
        yield warn(f"CUDA {cuda.name} is newer than the data, which end at {known[-1].name}", key)
    elif cuda.major < known[0].major:
        yield warn(f"CUDA {cuda.name} is older than the data", key)
    else:
        yield fail(
            f"there is no CUDA {cuda.name}", key, fix=f"Use {near[0]}.", instead={key: near[:4]}
        )


def _judge_patch(cuda: Cuda, key: str) -> Iterator[Conflict]:
    """A third number must be a patch release; only those since 11.7 are listed."""
    listed = [parse_cuda(name) for name in load("cuda")["toolkits"]]
    patches = [c.patch or 0 for c in listed if c[:2] == cuda[:2]]
    # Packages of the toolkit count differently (cudart 12.1.105): a large third number is theirs.
    if cuda.patch is None or not patches or cuda.patch in patches or cuda.patch > 20:
        return
    yield warn(
        f"CUDA {cuda.name}.{cuda.patch} is newer than the data: {cuda.name}.{max(patches)} is the "
        "last patch release known",
        key,
    )


@rule("python-release", "Python is a version that exists")
def python_release(python: Python) -> Iterator[Conflict]:
    """Judge the Python version: 3.15 is the newest that torch has wheels for."""
    if not Version("3") <= python.version < Version("3.16"):
        if Version("3.16") <= python.version < Version("3.18"):
            yield warn(
                f"Python {python.version} is newer than the data, which end at 3.15", "python"
            )
        elif python.version >= Version("3"):
            yield fail(
                f"there is no Python {python.version}", "python", instead={"python": ["3.12"]}
            )


@rule("ultralytics-release", "ultralytics is a release that exists, neither withdrawn nor poisoned")
def ultralytics_release(ultralytics: Version) -> Iterator[Conflict]:
    """Judge ultralytics: the deny list first, the index does not have those any more."""
    data = load("ultralytics")
    known = ordered("index", "ultralytics")
    public = Version(ultralytics.public)
    after = [v for v in known if v > public][:3]
    if str(public) in data["compromised"]:
        yield fail(
            f"ultralytics {public} was compromised: it ran a miner when a model was loaded",
            "ultralytics",
            fix="Use 8.3.47 or newer.",
            source=data["sources"]["compromised"],
            instead={"ultralytics": after},
        )
        return
    yield from _existence("ultralytics", "ultralytics", public, known)
    reason = releases("index", "ultralytics").get(public, ("", None))[1]
    if reason:
        yield fail(
            f"ultralytics {public} was withdrawn: {reason}",
            "ultralytics",
            fix=f"Use {after[0]}." if after else "",
            source="package index, yank reason",
            instead={"ultralytics": after},
        )


@rule("fork-version", "the YOLOv12 fork is ultralytics 8.3.63, nothing else")
def fork_version(distribution: str, ultralytics: Version) -> Iterator[Conflict]:
    """Judge the fork's version."""
    fork = load("ultralytics")["fork"]
    if distribution == fork["distribution"] and ultralytics != Version(fork["version"]):
        yield fail(
            f"{distribution} is a copy of ultralytics {fork['version']} under the same module "
            "name; "
            f"ultralytics {ultralytics} would overwrite it",
            "distribution ultralytics",
            fix=f"Use ultralytics {fork['version']}, or the distribution ultralytics.",
            source=load("ultralytics")["sources"]["fork"],
            instead={"ultralytics": [fork["version"]], "distribution": ["ultralytics"]},
        )
