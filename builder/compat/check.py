"""Judge a row of the matrix: every declared GPU and every checkpoint, as one verdict."""

from __future__ import annotations

import re
from collections.abc import Iterable

from builder.compat.facts import load
from builder.compat.judge import judge
from builder.compat.nearest import changes, nearest
from builder.compat.rules.gpu import major_floor
from builder.compat.values import CPU, Gpu, parse, parse_cuda, sm_name
from builder.compat.verdict import Conflict, Verdict
from builder.spec import ImageSpec, Weight

__all__ = [
    "SKIPPED",
    "Config",
    "check",
    "configs_of",
    "judged",
    "minimum_driver",
    "nearest_to",
    "sms_for",
]

SKIPPED = frozenset({"tensorrt-index", "flash-attn-index"})
"""In a matrix `index` is where torch comes from; these parts have sources of their own."""

_GLIBC = {"bookworm": "2.36", "trixie": "2.41"}

Config = dict[str, object]


def check(spec: ImageSpec) -> Verdict:
    """Judge one row: pure, no I/O."""
    return Verdict.of(tuple(conflict for conflict, _ in judged(spec)))


def judged(spec: ImageSpec) -> list[tuple[Conflict, Config]]:
    """Judge one row: what was found, failures first, each with the values that it is about."""
    found: dict[tuple[str, str, str], tuple[Conflict, Config]] = {}
    for config in configs_of(spec):
        for conflict in judge(config, without=SKIPPED).findings:
            named = _strict(_naming(conflict, config))
            found.setdefault((named.rule, named.severity, named.message), (named, config))
    if _has_fallback([conflict for conflict, _ in found.values()], spec):
        pairs = [(_with_fallback(conflict), config) for conflict, config in found.values()]
    else:
        pairs = list(found.values())
    return sorted(pairs, key=lambda pair: pair[0].severity)


def configs_of(spec: ImageSpec) -> list[Config]:
    """Return the row as configs: one per GPU and checkpoint, at least one."""
    base = _base(spec)
    gpus: list[Config] = [{"gpu": gpu} for gpu in spec.stack.gpus] or [{}]
    weights = [_weight(weight) for weight in spec.weights] or [{}]
    first = [{**base, **gpu, **weights[0]} for gpu in gpus]
    return first + [{**base, **gpus[0], **weight} for weight in weights[1:]]


def _base(spec: ImageSpec) -> Config:
    stack = spec.stack
    config: Config = {
        "torch": stack.torch,
        "torchvision": stack.torchvision,
        "cuda": stack.cuda or "cpu",
        "python": stack.python,
        "platform": spec.platform,
        "index": stack.index,
        "ultralytics": spec.ultralytics,
        "distribution": spec.distribution,
        "onnxruntime_gpu": stack.onnxruntime,
        "glibc": _GLIBC.get(stack.suite),
    }
    if stack.tensorrt is not None:
        config["tensorrt"] = f"{stack.tensorrt.package}=={stack.tensorrt.version}"
    if spec.flash_attn is not None:
        config["flash_attn"] = spec.flash_attn.version
        config["flash_attn_source"] = spec.flash_attn.source
    return {key: value for key, value in config.items() if value is not None}


def _weight(weight: Weight) -> Config:
    config: Config = {"weights": weight.name, "sha256": weight.sha256}
    if weight.lineage in {"turbo", "v1.0"}:
        config["weights_lineage"] = weight.lineage
    # A mirror may serve the file under any path; only a release's URL names its tag.
    if match := re.search(r"/releases/download/([^/]+)/", weight.url):
        config["asset_tag"] = match[1]
    return {key: value for key, value in config.items() if value}


def _naming(conflict: Conflict, config: Config) -> Conflict:
    """With several GPUs and checkpoints in a row, say which one a finding is about."""
    about = [str(config[key]) for key in ("gpu", "weights") if key in conflict.keys]
    missing = [name for name in about if name.lower() not in conflict.message.lower()]
    if not missing:
        return conflict
    return conflict._replace(message=f"{', '.join(missing)}: {conflict.message}")


def _strict(conflict: Conflict) -> Conflict:
    """A row promises to serve its GPUs: one that nobody knows is a mistake there."""
    return conflict._replace(severity="fail") if conflict.rule == "gpu-known" else conflict


def _has_fallback(findings: Iterable[Conflict], spec: ImageSpec) -> bool:
    """A GPU without FlashAttention falls back to plain attention; a row needs one that has it."""
    blocked = [finding for finding in findings if finding.rule == "flash-attn-gpu"]
    return 0 < len(blocked) < len(spec.stack.gpus)


def _with_fallback(finding: Conflict) -> Conflict:
    if finding.rule != "flash-attn-gpu":
        return finding
    return finding._replace(
        severity="warn",
        message=f"{finding.message}: it runs without flash-attn",
        fix="Expected on this GPU; nothing to do.",
    )


def nearest_to(spec: ImageSpec) -> dict[str, object] | None:
    """Return what to change in a failing row (key -> value); None when no change is known.

    A change that helps one GPU or checkpoint is carried over to the others, and judged there.
    """
    configs = configs_of(spec)
    found = dict.fromkeys(
        _naming(finding, config)
        for config in configs
        for finding in judge(config, without=SKIPPED).findings
    )
    without = SKIPPED | {"flash-attn-gpu"} if _has_fallback(found, spec) else SKIPPED
    edits: Config = {}
    for _ in range(len(configs)):
        failing = next((c for c in configs if judge(c, without=without).verdict == "fail"), None)
        if failing is None:
            break
        other = nearest(failing, without=without)
        if other is None:
            return None
        step = changes(failing, other)
        edits.update(step)
        configs = [_carried(config, failing, step) for config in configs]
    works = all(judge(config, without=without).verdict != "fail" for config in configs)
    return edits if edits and works else None


_OWN = frozenset({"gpu", "weights", "sha256", "asset_tag", "weights_lineage"})


def _carried(config: Config, failing: Config, step: Config) -> Config:
    """Return `config` with `step`; what belongs to one GPU or checkpoint changes only there."""
    own = {key for key in _OWN & step.keys() if config.get(key) != failing.get(key)}
    edited = {**config, **{key: value for key, value in step.items() if key not in own}}
    return {key: value for key, value in edited.items() if value is not None}


def sms_for(gpus: Iterable[str]) -> tuple[str, ...]:
    """Return the compute capabilities of `gpus`, ascending; ValueError for an unknown GPU."""
    return tuple(sm_name(sm) for sm in sorted({_gpu(name).sm for name in gpus}))


def _gpu(name: str) -> Gpu:
    found = parse("gpu", name)[1]
    if isinstance(found, Gpu):
        return found
    raise ValueError(f"{name!r} is not a GPU that is known; see docs/compatibility.md")


def minimum_driver(cuda: str | None, gpus: Iterable[str]) -> str | None:
    """Return the oldest driver that serves this CUDA on every one of `gpus`; None without CUDA.

    Minor-version compatibility sets the floor per CUDA major; a GPU newer than that sets its own.
    """
    if cuda is None or parse_cuda(cuda) == CPU:
        return None
    table: dict[str, str] = load("cuda")["gpu_drivers"]
    known = [_gpu(name) for name in gpus]
    floors = [table[str(gpu.sm)] for gpu in known if gpu.kind != "jetson" and str(gpu.sm) in table]
    floor = major_floor(parse_cuda(cuda))
    floors += [floor] if floor else []
    return max(floors, key=lambda text: [int(part) for part in text.split(".")], default=None)
