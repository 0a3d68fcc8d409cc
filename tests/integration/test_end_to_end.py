"""One small row all the way: matrix -> check -> lock -> plan -> build -> records, and again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from docker import DockerClient

from builder.build import Builder, BuildOptions
from builder.commands.building import compatible_rows
from builder.engine.client import inspect_image
from builder.errors import BuildFailed, InvalidInput
from builder.folders import Folders
from builder.lock import make_lock
from builder.records import BuildRecord, Outcome, read_record
from builder.sources import Sources
from validate.reference import reference_folder, validate_reference
from validate.report.render import load_rows, write_reports
from validate.run import validate_image


def lock_all(folders: Folders, sources: Sources) -> None:
    for row in compatible_rows(folders.root, None):
        make_lock(folders.locks, row, sources=sources, talk=lambda _: None)


def build(builder: Builder) -> BuildRecord:
    (record,) = builder.build(builder.plan(compatible_rows(builder.folders.root, None)))
    return record


def test_a_row_is_built_whole_and_the_second_time_not_at_all(
    fixture_builder: Builder, fixture_sources: Sources, client: DockerClient
) -> None:
    folders = fixture_builder.folders
    with pytest.raises(InvalidInput, match=r"yolov8-fixture: has no lock"):
        build(fixture_builder)
    lock_all(folders, fixture_sources)

    first = build(fixture_builder)
    assert first.status == "built"
    assert first.reference == "yolo-images/yolov8-fixture:local"
    assert first.missing == ()
    facts = inspect_image(client, first.reference)
    assert facts.digest == first.digest
    assert facts.size == first.size_bytes
    assert facts.labels["org.yolo-images.row"] == "yolov8-fixture"
    assert facts.labels["org.yolo-images.minimum-driver"]
    assert facts.user == "10001:0"

    second = build(fixture_builder)
    assert second.status == "unchanged"
    assert second.digest == first.digest
    assert read_record(folders.row("yolov8-fixture") / "build.json", BuildRecord) == second
    assert not list(folders.cache.glob("secrets-*"))


def test_the_same_lock_gives_the_same_digest_without_any_cache(
    fixture_builder: Builder, fixture_sources: Sources
) -> None:
    lock_all(fixture_builder.folders, fixture_sources)
    first = build(fixture_builder)
    again = replace(fixture_builder, options=BuildOptions(no_cache=True))
    assert build(again).digest == first.digest


def test_the_image_answers_and_says_what_it_is(
    fixture_builder: Builder, fixture_sources: Sources, client: DockerClient
) -> None:
    lock_all(fixture_builder.folders, fixture_sources)
    record = build(fixture_builder)
    said = client.containers.run(
        record.reference,
        ["cat", "/opt/yolo/image.json"],
        remove=True,
        network_mode="none",
        read_only=True,
        user="12345:0",
    )
    image = json.loads(said)
    assert (image["id"], image["torch"], image["missing"]) == ("yolov8-fixture", "2.8.0", [])
    assert image["weights"][0]["official"] is True


def test_a_failing_step_is_named_recorded_and_leaves_no_secret(
    fixture_builder: Builder, fixture_sources: Sources
) -> None:
    folders = fixture_builder.folders
    lock_all(folders, fixture_sources)
    dockerfile = folders.images / "yolov8" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "RUN echo about to break && exit 3\n")
    with pytest.raises(BuildFailed, match=r"exit 3(.|\n)*about to break(.|\n)*build\.log"):
        build(fixture_builder)
    record = read_record(folders.row("yolov8-fixture") / "build.json", BuildRecord)
    assert record is not None
    assert record.status == "failed"
    assert record.digest is None
    assert not list(folders.cache.glob("secrets-*"))


def test_the_row_is_validated_and_reported(
    fixture_builder: Builder, fixture_sources: Sources
) -> None:
    """The checks that need no real torch; the records of both stages end in one summary."""
    folders = fixture_builder.folders
    lock_all(folders, fixture_sources)
    (plan,) = fixture_builder.plan(compatible_rows(folders.root, None))
    (record,) = fixture_builder.build([plan])
    validated = validate_image(plan.record, record, folders.out, tiers=("static",))
    assert validated.verdict is Outcome.PASSED, validated.checks
    assert {check.id for check in validated.checks} >= {"S13", "S16", "C11", "C15"}
    assert validated.digest == record.digest
    rows = load_rows(folders.out)
    write_reports(folders.out, rows)
    assert f"`{record.digest}`" in (folders.out / "summary.md").read_text()
    assert 'name="yolov8-fixture" tests="4" failures="0"' in (folders.out / "junit.xml").read_text()


def test_an_image_by_reference_leaves_the_rows_records_alone(
    fixture_builder: Builder, fixture_sources: Sources
) -> None:
    """The image says itself which row it is; nobody has to believe it."""
    folders = fixture_builder.folders
    lock_all(folders, fixture_sources)
    record = build(fixture_builder)
    validated = validate_reference(record.reference, folders.out, tiers=("static",))
    assert validated.verdict is Outcome.PASSED, validated.checks
    assert not (folders.row("yolov8-fixture") / "validation.json").exists()
    (row,) = load_rows(reference_folder(folders.out, validated.digest))
    assert row.verdict == "PASSED"
