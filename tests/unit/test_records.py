from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from builder.errors import InvalidInput
from builder.records import BuildRecord, Missing, read_record, write_atomic, write_record


def record(**changes: object) -> BuildRecord:
    values: dict[str, object] = {
        "id": "yolov8-cu128",
        "status": "built",
        "digest": "sha256:" + "a" * 64,
        "build_key": "b" * 64,
        "reference": "yolo-images/yolov8-cu128:local",
        "seconds": 1.5,
        "size_bytes": 10,
        "missing": (Missing(part="weights", source="https://host/x", reason="no route"),),
        "finished": "2026-11-23T00:00:00+00:00",
        **changes,
    }
    return BuildRecord.model_validate(values)


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "build.json"
    write_record(path, record())
    assert read_record(path, BuildRecord) == record()
    assert [item.name for item in path.parent.iterdir()] == ["build.json"]


def test_no_record_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "build.json", BuildRecord) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 1}', '{"schema_version": 2}'])
def test_a_damaged_record_is_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "build.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"not a BuildRecord(.|\n)*Delete it and run the stage"):
        read_record(path, BuildRecord)


def test_unknown_keys_and_wrong_digests_are_refused() -> None:
    with pytest.raises(ValidationError):
        record(extra="x")
    with pytest.raises(ValidationError):
        record(digest="sha256:short")


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["x.json"]
