"""Row + lock -> Plan: what will be built, decided before anything is built.

Pure: the same arguments give the same bytes. Time, revision and whatever the machine can reach are
arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote

from builder.artifacts import ArtifactLock
from builder.buildkey import build_key, key_inputs
from builder.compat import minimum_driver, sms_for
from builder.errors import Finding, InvalidInput
from builder.flash_build import PlannedWheel
from builder.lock import Lock
from builder.mirrors import file_of
from builder.records import CompiledRecord, Missing, PlanRecord, WeightRecord
from builder.requirements import Locked, render, step_of
from builder.spec import ImageSpec, Weight

__all__ = ["EPOCH", "FAMILIES", "IMAGE_PREFIX", "BuildInputs", "Plan", "make_plan", "with_wheel"]

EPOCH = 1_767_225_600
"""SOURCE_DATE_EPOCH of every layer: 2026-01-01T00:00:00Z. A change rebuilds everything."""

IMAGE_PREFIX = "yolo-images"

WHEELHOUSE = "file:///run/wheelhouse"
"""Where a build step finds the files of its packages that are not on the package index: they are
downloaded before the build, for a builder can neither resume nor try a mirror."""

FAMILIES = ("yolov8", "yolov12")
_LICENSE = "AGPL-3.0-only"
_ABSENT = "it could not be had where this image was built"


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """What a plan depends on beside row and lock.

    `base_source` is `registry` (the locked digest) or `bootstrap` (made from Debian packages);
    `base_digest` identifies its content. `images` maps each file below images/ to the hash of its
    content. `revision` and `source` (the repository's URL) end in labels and don't force a rebuild.
    """

    base_source: Literal["registry", "bootstrap"]
    base_digest: str
    images: Mapping[str, str]
    revision: str
    source: str


@dataclass(frozen=True)
class Base:
    """What the image stands on: `source` and `digest` as in BuildInputs."""

    source: Literal["registry", "bootstrap"]
    digest: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One image to build: its record, and the files and arguments that the Dockerfiles take.

    `inputs` names everything that the build key is a hash of; `artifacts` come from outside the
    package index, `wheel` is compiled here.
    """

    row: ImageSpec
    record: PlanRecord
    base: Base
    base_repository: str
    inputs: Mapping[str, str]
    artifacts: tuple[ArtifactLock, ...]
    requirements: Mapping[str, str]
    image_json: str
    random_weights: tuple[str, ...]
    official_weights: tuple[Weight, ...]
    wheel: PlannedWheel | None = None


def make_plan(
    row: ImageSpec,
    lock: Lock,
    inputs: BuildInputs,
    missing: Sequence[Missing] = (),
    wheel: PlannedWheel | None = None,
) -> Plan:
    """Decide what the image of `row` contains when the parts in `missing` can't be had.

    `wheel` is the flash-attn of a row that says `source: build`. While it is not compiled, its line
    has no hash, and no installer takes it: see `with_wheel`.
    """
    parts: set[str] = {item.part for item in missing}
    entries = _entries(lock, parts, _compiled(wheel))
    requirements = render(entries)
    weights = tuple(_weight_record(weight, "weights" not in parts) for weight in row.weights)
    facts = _facts(row, lock, entries, weights, missing)
    image_json = json.dumps(facts, indent=1, sort_keys=True) + "\n"
    random = tuple(weight.architecture for weight in row.weights if "weights" in parts)
    official = () if "weights" in parts else row.weights
    labels = _labels(row, lock, inputs, facts, weights, missing)
    named = key_inputs(
        row,
        epoch=EPOCH,
        base=f"{inputs.base_source} {inputs.base_digest}",
        files=inputs.images,
        # What a wheel is compiled from decides the image, not which of two compilations made it.
        entries=_entries(lock, parts, _compiled(wheel, by_key=True)),
        image_json=image_json,
        labels=labels,
        random_weights=random,
    )
    record = PlanRecord.model_validate(
        {
            **{key: facts[key] for key in _RECORD_KEYS},
            "build_key": build_key(named),
            "reference": f"{IMAGE_PREFIX}/{row.id}:{'local-partial' if parts else 'local'}",
            "packages": {entry.name: _version(entry, lock) for entry in entries},
            "weights": weights,
            "labels": labels,
            "missing": tuple(missing),
            "compiled": _compiled_record(wheel),
        }
    )
    return Plan(
        row=row,
        record=record,
        base=Base(inputs.base_source, inputs.base_digest),
        inputs=named,
        artifacts=tuple(
            artifact
            for artifact in lock.record.artifacts
            if artifact.url is not None and artifact.part not in parts
        ),
        base_repository=lock.record.base.repository,
        requirements=requirements,
        image_json=image_json,
        random_weights=random,
        official_weights=official,
        wheel=wheel,
    )


def with_wheel(plan: Plan, sha256: str) -> Plan:
    """Return `plan` with the hash of the wheel that has been compiled for it."""
    assert plan.wheel is not None
    wheel = replace(plan.wheel, sha256=sha256)
    (before,), (after,) = _compiled(plan.wheel), _compiled(wheel)
    text = plan.requirements["flash-attn"].replace(str(before), str(after))
    record = plan.record.model_copy(update={"compiled": _compiled_record(wheel)})
    requirements = {**plan.requirements, "flash-attn": text}
    return replace(plan, wheel=wheel, requirements=requirements, record=record)


_RECORD_KEYS = (
    "id", "family", "distribution", "stack", "platform", "python", "cuda", "torch", "torchvision",
    "tensorrt", "flash_attn", "ultralytics", "onnxruntime", "gpus", "sms", "minimum_driver",
)  # fmt: skip


def _entries(lock: Lock, missing: set[str], compiled: Sequence[Locked]) -> tuple[Locked, ...]:
    """All distributions that will be installed: from the index, by URL, and compiled here."""
    dropped = {step for step in ("tensorrt", "flash-attn") if step in missing}
    indexed = [entry for entry in lock.entries() if step_of(entry.name) not in dropped]
    by_url = [
        _by_artifact(artifact, lock.record.row)
        for artifact in lock.record.artifacts
        if artifact.part not in missing
    ]
    return tuple(sorted([*indexed, *by_url, *compiled], key=lambda entry: entry.name))


def _compiled(wheel: PlannedWheel | None, *, by_key: bool = False) -> tuple[Locked, ...]:
    """The wheel that is compiled here, by its hash, or by the hash of what it is made from."""
    if wheel is None:
        return ()
    compilation = wheel.compilation
    known = (wheel.sha256,) if wheel.sha256 is not None else ()
    return (
        Locked(
            name="flash-attn",
            version=compilation.full_version,
            hashes=(compilation.key,) if by_key else known,
            url=f"{WHEELHOUSE}/{quote(compilation.file)}",
        ),
    )


def _compiled_record(wheel: PlannedWheel | None) -> CompiledRecord | None:
    if wheel is None:
        return None
    compilation = wheel.compilation
    return CompiledRecord(
        name="flash-attn",
        version=compilation.full_version,
        key=compilation.key,
        architectures=tuple(f"sm_{code}" for code in compilation.architectures),
        sha256=wheel.sha256,
    )


def _by_artifact(artifact: ArtifactLock, row: str) -> Locked:
    if artifact.sha256 is None:
        raise InvalidInput(
            Finding(
                place=f"locks/{row}.json",
                what=f"{artifact.name} {artifact.version} has no hash yet",
                why="It was locked on a machine that doesn't reach "
                + (f"{artifact.url}." if artifact.url else "the index page that promises it."),
                todo=f"Run: python3 build.py lock {row}, where that answers"
                + (
                    f"; or build a partial image: --allow-missing {artifact.part}"
                    if artifact.part in {"tensorrt", "flash-attn"}
                    else ""
                ),
            )
        )
    return Locked(
        name=artifact.name,
        version=artifact.version,
        hashes=(artifact.sha256,),
        url=f"{WHEELHOUSE}/{quote(file_of(artifact.url))}" if artifact.url else None,
    )


def _version(entry: Locked, lock: Lock) -> str:
    if entry.version:
        return entry.version
    return next(item.version for item in lock.record.artifacts if item.name == entry.name)


def _weight_record(weight: Weight, official: bool) -> WeightRecord:  # noqa: FBT001 - a plain fact
    stem = weight.name.removesuffix(".pt")
    return WeightRecord(
        file=weight.name if official else f"{stem}-random.pt",
        model=stem,
        sha256=weight.sha256 if official else None,
        size=weight.size if official else None,
        official=official,
    )


def _facts(
    row: ImageSpec,
    lock: Lock,
    entries: Sequence[Locked],
    weights: Sequence[WeightRecord],
    missing: Sequence[Missing],
) -> dict[str, object]:
    """`/opt/yolo/image.json`: what the image says about itself."""
    stack = row.stack
    versions = {entry.name: _version(entry, lock) for entry in entries}
    tensorrt = stack.tensorrt
    return {
        "schema_version": 1,
        "id": row.id,
        "family": row.family,
        "distribution": row.distribution,
        "stack": stack.name,
        "platform": row.platform,
        "python": stack.python,
        "cuda": stack.cuda,
        "torch": stack.torch,
        "torchvision": stack.torchvision,
        "tensorrt": versions.get(tensorrt.package) if tensorrt else None,
        "flash_attn": versions.get("flash-attn"),
        "ultralytics": row.ultralytics,
        "onnxruntime": stack.onnxruntime,
        "gpus": list(stack.gpus),
        "sms": list(sms_for(stack.gpus)),
        "minimum_driver": minimum_driver(stack.cuda, stack.gpus),
        "weights": [weight.model_dump() for weight in weights],
        # Why a source did not answer differs from machine to machine; what is missing does not.
        "missing": [
            {"part": item.part, "source": item.source, "reason": _ABSENT} for item in missing
        ],
    }


def _labels(
    row: ImageSpec,
    lock: Lock,
    inputs: BuildInputs,
    facts: Mapping[str, object],
    weights: Sequence[WeightRecord],
    missing: Sequence[Missing],
) -> dict[str, str]:
    bootstrap = inputs.base_source == "bootstrap"
    suite = row.stack.suite
    oci, own = "org.opencontainers.image", "org.yolo-images"
    base = f"debian:{suite}" if bootstrap else f"{lock.record.base.repository}:{suite}-slim"
    return {
        f"{oci}.title": f"{row.family} on {row.stack.name}",
        f"{oci}.version": f"{row.ultralytics}-{row.stack.name}",
        f"{oci}.revision": inputs.revision,
        f"{oci}.source": inputs.source,
        f"{oci}.licenses": _LICENSE,
        f"{oci}.base.name": base,
        f"{oci}.base.digest": inputs.base_digest,
        f"{own}.row": row.id,
        f"{own}.lock": lock.identity(),
        f"{own}.minimum-driver": str(facts["minimum_driver"] or ""),
        f"{own}.sms": ",".join(sms_for(row.stack.gpus)),
        f"{own}.missing": ",".join(item.part for item in missing),
        f"{own}.tensorrt": str(facts["tensorrt"] or ""),
        f"{own}.flash-attn": str(facts["flash_attn"] or ""),
        f"{own}.weights": ",".join(f"{item.file}={item.sha256 or 'random'}" for item in weights),
    }
