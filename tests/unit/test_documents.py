from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from docker import DockerClient

from builder import documents
from builder.documents import PROVENANCE_FILE, SBOM_FILE, have_documents, write_documents
from builder.engine.client import ImageFacts
from builder.errors import BuildFailed, Finding, InvalidInput
from builder.plan import Plan
from builder.talk import Talk
from tests.unit.documents_support import DIGEST, inventory, plan, record

NO_CLIENT = cast("DockerClient", None)


def facts(planned: Plan, digest: str = DIGEST) -> ImageFacts:
    return ImageFacts(
        reference=planned.record.reference,
        id=digest,
        digest=digest,
        platform="linux/amd64",
        size=1,
        labels=planned.record.labels,
        env={},
        user="",
        entrypoint=(),
        command=(),
        workdir="",
        healthcheck=(),
        layers=(),
    )


@pytest.fixture
def planned(root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan whose image is there and honest."""
    made = plan(root, "yolov8-cu128")
    monkeypatch.setattr(documents, "inspect_image", lambda *_: facts(made))
    monkeypatch.setattr(documents, "take_inventory", lambda *_: inventory(made))
    return made


def write(planned: Plan, folder: Path) -> None:
    write_documents(NO_CLIENT, planned, record(planned), folder, versions={"uv": "1"}, talk=Talk())


def test_what_was_written_is_found_for_its_digest_alone(planned: Plan, tmp_path: Path) -> None:
    assert not have_documents(tmp_path, DIGEST)
    write(planned, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PROVENANCE_FILE, SBOM_FILE]
    assert have_documents(tmp_path, DIGEST)
    assert not have_documents(tmp_path, "sha256:" + "9" * 64)


def test_written_twice_gives_the_same_bytes(planned: Plan, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(planned, tmp_path / name)
    for file in (SBOM_FILE, PROVENANCE_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def _edit(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / PROVENANCE_FILE
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / SBOM_FILE).unlink(),
        lambda folder: (folder / PROVENANCE_FILE).unlink(),
        lambda folder: (folder / SBOM_FILE).write_text("{}"),
        lambda folder: (folder / PROVENANCE_FILE).write_text("{"),
        lambda folder: (folder / PROVENANCE_FILE).write_bytes(b"\xff"),
        lambda folder: (folder / PROVENANCE_FILE).write_text("[]"),
        _edit(lambda value: value["subject"].clear()),
        _edit(lambda value: value["predicate"]["runDetails"].update(byproducts=None)),
        _edit(lambda value: value["predicate"]["buildDefinition"].update(buildType="older")),
        _edit(
            lambda value: value["predicate"]["runDetails"]["byproducts"][0]["annotations"].update(
                format="0"
            )
        ),
    ],
)
def test_a_damaged_or_older_document_counts_as_none(
    planned: Plan, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    write(planned, tmp_path)
    spoil(tmp_path)
    assert not have_documents(tmp_path, DIGEST)


def test_a_tag_that_moved_is_noticed_and_leaves_nothing_stale(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(planned, tmp_path)
    moved = facts(planned, "sha256:" + "9" * 64)
    monkeypatch.setattr(documents, "inspect_image", lambda *_: moved)
    with pytest.raises(BuildFailed, match=r"local is sha256:9+, built was sha256:a+"):
        write(planned, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_is_gone_fails_the_row(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> ImageFacts:
        raise InvalidInput(Finding(place=planned.record.reference, what="no such image"))

    monkeypatch.setattr(documents, "inspect_image", gone)
    with pytest.raises(BuildFailed, match="local: no such image"):
        write(planned, tmp_path)


def test_a_full_disk_fails_the_row(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(documents, "write_atomic", full)
    with pytest.raises(BuildFailed, match=r"can't be written: \[Errno 28\]"):
        write(planned, tmp_path)
