"""A plan of the real matrix, and what its image could say about itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from builder.inventory import Inventory, parse_inventory
from builder.lock import Lock, load_lock
from builder.matrix import load_matrix, select
from builder.plan import BuildInputs, Plan, make_plan
from builder.records import BuildRecord, Missing
from builder.spec import ImageSpec

__all__ = ["DIGEST", "MISSING", "REVISION", "document", "inventory", "plan", "record"]

DIGEST = "sha256:" + "a" * 64
REVISION = "0123456789abcdef0123456789abcdef01234567"
MISSING = tuple(
    Missing.model_validate({"part": part, "source": f"https://host/{part}", "reason": "no route"})
    for part in ("tensorrt", "flash-attn", "weights")
)
_SITE = "/opt/venv/lib/python3.11/site-packages"


def plan(root: Path, row_id: str, missing: tuple[Missing, ...] = (), **changes: object) -> Plan:
    """Plan a row of the real matrix."""
    values: dict[str, object] = {
        "base_source": "registry",
        "base_digest": "sha256:" + "d" * 64,
        "images": {f"{name}/Dockerfile": "e" * 64 for name in ("base", "stack", "yolov8")},
        "revision": REVISION,
        "source": "https://example.org/yolo-images",
        **changes,
    }
    inputs = BuildInputs(**values)  # type: ignore[arg-type]  # a dict of fields in a test
    row, lock = _row(root, row_id)
    return make_plan(row, lock, inputs, missing)


@lru_cache
def _row(root: Path, row_id: str) -> tuple[ImageSpec, Lock]:
    (row,) = select(load_matrix(root / "matrix.yaml").rows, row_id)
    return row, load_lock(root / "locks", row)


def record(planned: Plan, **changes: object) -> BuildRecord:
    """Record a build of `planned` as the builder would."""
    values: dict[str, object] = {
        "id": planned.row.id,
        "status": "built",
        "digest": DIGEST,
        "build_key": planned.record.build_key,
        "reference": planned.record.reference,
        "seconds": 189.6,
        "size_bytes": 1,
        "missing": planned.record.missing,
        "finished": "2026-11-25T02:49:44+00:00",
        **changes,
    }
    return BuildRecord.model_validate(values)


def _distribution(name: str, version: str, **changes: object) -> dict[str, object]:
    return {
        "path": f"{_SITE}/{name}-{version}.dist-info",
        "name": name,
        "version": version,
        "license_expression": "",
        "license": "",
        "classifiers": [],
        "home_page": "",
        "requires": [],
        "record_sha256": "b" * 64,
        **changes,
    }


def document(planned: Plan, change: Callable[[Any], None] | None = None) -> bytes:
    """What an image of `planned` prints, small; `change` may spoil it."""
    suite = planned.row.stack.suite
    value: dict[str, Any] = {
        "format": 1,
        "python": f"{planned.row.stack.python}.2",
        "machine": "x86_64",
        "os": {
            "ID": "debian",
            "NAME": "Debian GNU/Linux",
            "VERSION_ID": "12",
            "VERSION_CODENAME": suite,
            "HOME_URL": "https://www.debian.org/",
        },
        "debian": [
            {"name": "apt", "version": "2.6.2", "architecture": "amd64", "source": ""},
            {
                "name": "libc6",
                "version": "2.36-9+deb12u10",
                "architecture": "amd64",
                "source": "glibc",
            },
            {"name": "zlib1g", "version": "1:1.2.13", "architecture": "amd64", "source": "zlib"},
        ],
        "distributions": [
            _distribution("Jinja2", "3.1.6", requires=["MarkupSafe>=2.0", "Babel; extra=='i18n'"]),
            _distribution("MarkupSafe", "3.0.4", license_expression="BSD-3-Clause"),
            _distribution(
                "torch", "2.8.0", requires=["jinja2", "pywin32; sys_platform == 'win32'"]
            ),
            _distribution(
                "packaging",
                "26.3",
                path=f"{_SITE}/setuptools/_vendor/packaging-26.3.dist-info",
                license_expression="Apache-2.0 OR BSD-2-Clause",
            ),
            _distribution("packaging", "26.3", license_expression="Apache-2.0 OR BSD-2-Clause"),
        ],
        "checkpoints": [
            {
                "path": f"/opt/yolo/{weight.file}",
                "size": weight.size or 6_496_556,
                "sha256": weight.sha256 or "c" * 64,
            }
            for weight in planned.record.weights
        ],
    }
    if change is not None:
        change(value)
    return json.dumps(value).encode()


def inventory(planned: Plan, change: Callable[[Any], None] | None = None) -> Inventory:
    """Parse `document`."""
    return parse_inventory(document(planned, change), planned.row.id)
