from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.buildkey import build_key, differences
from builder.commands.explain import reasons
from builder.plan import Plan
from builder.records import BuildRecord
from tests.unit.test_plan import MISSING, plan

ROW = "yolov8-cu128"


def record(one: Plan, **changes: object) -> BuildRecord:
    values: dict[str, object] = {
        "id": ROW,
        "status": "built",
        "digest": "sha256:" + "a" * 64,
        "build_key": one.record.build_key,
        "reference": one.record.reference,
        "seconds": 1.0,
        "size_bytes": 1,
        "missing": (),
        "finished": "2026-11-25T00:00:00+00:00",
        "inputs": dict(one.inputs),
        **changes,
    }
    return BuildRecord.model_validate(values)


def test_the_key_is_the_hash_of_the_named_inputs(root: Path) -> None:
    one = plan(root, ROW)
    assert one.record.build_key == build_key(one.inputs)
    assert build_key({**one.inputs, "python": "3.12"}) != one.record.build_key


def test_what_changed_is_named_and_what_follows_from_it_is_not() -> None:
    old = {"package numpy": "2.0", "image.json": "a" * 64, "label org.yolo-images.lock": "b"}
    new = {"package numpy": "2.1", "image.json": "c" * 64, "package new": "1"}
    assert list(differences(old, new)) == [
        "package new: (none) -> 1",
        "package numpy: 2.0 -> 2.1",
    ]


def test_a_derived_input_is_named_when_nothing_else_explains_the_key() -> None:
    old, new = {"image.json": "a" * 64}, {"image.json": "c" * 64}
    assert list(differences(old, new)) == [f"image.json: {'a' * 12} -> {'c' * 12}"]


def test_a_row_that_was_never_built(root: Path) -> None:
    assert reasons(plan(root, ROW), None) == ["it was never built here"]


def test_a_row_whose_build_failed(root: Path) -> None:
    one = plan(root, ROW)
    failed = record(one, status="failed", digest=None, error="step x: exit 3\nmore")
    assert reasons(one, failed) == ["the last build failed: step x: exit 3"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_digest": "sha256:" + "e" * 64}, "base: registry sha256:dddd"),
        ({"images": {"stack/install.py": "f" * 64}}, "images/stack/install.py: (none) -> ffff"),
    ],
)
def test_a_changed_input_is_named(root: Path, change: dict[str, Any], said: str) -> None:
    before, now = plan(root, ROW), plan(root, ROW, **change)
    assert any(line.startswith(said) for line in reasons(now, record(before)))


def test_a_part_that_can_be_had_now_changes_the_tag_and_names_its_packages(root: Path) -> None:
    before, now = plan(root, ROW, MISSING), plan(root, ROW)
    said = reasons(now, record(before))
    assert said[0] == "its tag: yolo-images/yolov8-cu128:local-partial -> " + now.record.reference
    assert any(line.startswith("package tensorrt-cu12-libs: (none) -> 10.9.0.34") for line in said)


def test_a_record_without_inputs_says_so(root: Path) -> None:
    one = plan(root, ROW)
    old = record(one, build_key="0" * 64, inputs={})
    assert reasons(one, old) == ["the record names no inputs: an older version wrote it"]
