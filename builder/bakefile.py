"""Plans -> standard docker-bake JSON, and the folders that its contexts name.

One chain per image: base -> stack -> row. Rows of a stack share the stack's target, so its layers
are made once. Pure, but for `write_contexts`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import Finding, InvalidInput
from builder.plan import EPOCH, Plan
from builder.records import write_atomic

__all__ = [
    "ROW_STEPS",
    "STACK_STEPS",
    "Layout",
    "bake_definition",
    "compile_context",
    "compile_definition",
    "write_contexts",
]

STACK_STEPS = ("cuda", "torch", "tensorrt")
ROW_STEPS = ("flash-attn", "deps", "ultralytics")
_SECRETS = ("uv", "ca", "apt-conf", "apt-sources")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Folders that the build reads; relative ones are relative to the project's folder."""

    images: Path
    contexts: Path
    rootfs: Path
    tools: Path
    files: Path
    weights: Path
    secrets: Path

    def under(self, root: Path) -> Layout:
        """The same folders as absolute paths."""
        return Layout(**{name: root / getattr(self, name) for name in self.__dataclass_fields__})

    def requirements(self, name: str) -> Path:
        """The folder with the requirement files of a stack or a row."""
        return self.contexts / name / "requirements"

    def wheelhouse(self, name: str) -> Path:
        """The folder with the local files of a stack or a row, one folder per step.

        A step sees its own alone: a file that another step needs must not run it again.
        """
        return self.contexts / name / "wheelhouse"


def bake_definition(plans: Sequence[Plan], layout: Layout) -> dict[str, object]:
    """Return the bake file of `plans` as JSON data."""
    targets: dict[str, object] = {}
    for plan in plans:
        stack = plan.row.stack
        targets[f"base-{stack.suite}"] = _base(plan, layout)
        targets[f"stack-{stack.name}"] = _stack(plan, layout)
        targets[plan.row.id] = _row(plan, layout)
    group = {"default": {"targets": [plan.row.id for plan in plans]}}
    return {"group": group, "target": targets}


def compile_context(layout: Layout, stack: str) -> Path:
    """The folder with what flash-attn is compiled from: requirements, wheelhouse, sources."""
    return layout.contexts / f"flash-build.{stack}"


def compile_definition(
    plan: Plan, layout: Layout, arguments: Mapping[str, str], destination: Path
) -> dict[str, object]:
    """Return the bake file that compiles flash-attn for the stack of `plan` into `destination`."""
    stack = plan.row.stack
    context = compile_context(layout, stack.name)
    targets = {
        f"base-{stack.suite}": _base(plan, layout),
        f"venv-{stack.name}": {
            **_stack(plan, layout),
            "contexts": {"base": f"target:base-{stack.suite}"},
            "target": "venv",
        },
        "flash-attn": {
            **_common(plan, layout, "flash-attn/Dockerfile"),
            "contexts": {
                **_install_contexts(layout, context.name, f"venv-{stack.name}"),
                "sources": str(context / "sources"),
            },
            "args": {"SOURCE_DATE_EPOCH": str(EPOCH), **arguments},
            "output": [f"type=local,dest={destination}"],
        },
    }
    return {"target": targets}


def write_contexts(plans: Sequence[Plan], layout: Layout) -> None:
    """Write requirement lists, image.json and the weights of every plan to its folders."""
    written: dict[Path, str] = {}
    for plan in plans:
        stack, row = plan.row.stack.name, plan.row.id
        for step in STACK_STEPS:
            path = layout.requirements(stack) / f"{step}.txt"
            _write_once(written, path, plan.requirements[step], row)
        for step in ROW_STEPS:
            path = layout.requirements(row) / f"{step}.txt"
            _write_once(written, path, plan.requirements[step], row)
        write_atomic(layout.contexts / row / "row" / "image.json", plan.image_json)
        _link_weights(plan, layout)


def _write_once(written: dict[Path, str], path: Path, text: str, row: str) -> None:
    if written.setdefault(path, text) != text:
        raise InvalidInput(
            Finding(
                place=row,
                what=f"its lock differs from another row of the same stack in {path.stem}",
                why="Rows of a stack share the layers of that step.",
                todo=f"Lock them again: python3 build.py lock '*-{path.parents[1].name}'",
            )
        )
    write_atomic(path, text)


def _link_weights(plan: Plan, layout: Layout) -> None:
    folder = layout.contexts / plan.row.id / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {weight.name: weight for weight in plan.official_weights}
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, weight in wanted.items():
        target = folder / name
        target.unlink(missing_ok=True)
        os.link(layout.weights / weight.sha256 / name, target)


def _common(plan: Plan, layout: Layout, dockerfile: str) -> dict[str, object]:
    return {
        "context": str(layout.images),
        "dockerfile": dockerfile,
        # Proxies and mirrors may live on the host's loopback. buildx before 0.14 ignores the key.
        "network": "host",
        "secret": [f"id={name},src={layout.secrets / name}" for name in _SECRETS],
        "attest": ["type=provenance,disabled=true", "type=sbom,disabled=true"],
        "platforms": [plan.row.platform],
    }


def _base(plan: Plan, layout: Layout) -> dict[str, object]:
    target = _common(plan, layout, "base/Dockerfile")
    contexts: dict[str, str] = {}
    if plan.base.source == "bootstrap":
        # Only ADD unpacks a tar with owners and modes, and it reads from the main context alone.
        rootfs = layout.rootfs / plan.row.stack.suite
        target["context"] = str(rootfs)
        target["dockerfile"] = os.path.relpath(layout.images / "base" / "Dockerfile", rootfs)
    else:
        contexts["rootfs"] = f"docker-image://{plan.base_repository}@{plan.base.digest}"
    return {
        **target,
        "contexts": contexts,
        "args": {"SOURCE_DATE_EPOCH": str(EPOCH), "BASE_SOURCE": plan.base.source},
        "output": ["type=cacheonly"],
    }


def _install_contexts(layout: Layout, name: str, parent: str) -> Mapping[str, str]:
    role, _, _ = parent.partition("-")
    return {
        role: f"target:{parent}",
        "tools": str(layout.tools),
        "requirements": str(layout.requirements(name)),
        "wheelhouse": str(layout.wheelhouse(name)),
    }


def _stack(plan: Plan, layout: Layout) -> dict[str, object]:
    stack = plan.row.stack
    return {
        **_common(plan, layout, "stack/Dockerfile"),
        "contexts": _install_contexts(layout, stack.name, f"base-{stack.suite}"),
        "args": {
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "PYTHON": stack.python,
            # The stage that the next one stands on: a step without packages is left out.
            "CUDA": "cuda" if plan.requirements["cuda"] else "venv",
            "TENSORRT": "tensorrt" if plan.requirements["tensorrt"] else "torch",
        },
        "output": ["type=cacheonly"],
    }


def _row(plan: Plan, layout: Layout) -> dict[str, object]:
    row = plan.row
    context = layout.contexts / row.id
    return {
        **_common(plan, layout, f"{row.image}/Dockerfile"),
        "contexts": {
            **_install_contexts(layout, row.id, f"stack-{row.stack.name}"),
            "weights": str(context / "weights"),
            "row": str(context / "row"),
        },
        "args": {
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "RANDOM_WEIGHTS": " ".join(plan.random_weights),
            **_flash_attention(plan),
        },
        "labels": dict(plan.record.labels),
        "tags": [plan.record.reference],
        # zstd layers need OCI media types: https://docs.docker.com/build/exporters/, 2026-11-23.
        "output": ["type=image,oci-mediatypes=true,compression=zstd,compression-level=3"],
    }


def _flash_attention(plan: Plan) -> dict[str, str]:
    """The stage under the dependencies, for the one Dockerfile that knows flash-attn."""
    if plan.row.image != "yolov12":
        return {}
    return {"FLASH_ATTN": "flash-attn" if plan.requirements["flash-attn"] else "stack"}
