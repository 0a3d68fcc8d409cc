"""A row is built twice for real, and what a bad step does to it is found; nothing else changes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from builder import twice
from builder.archive import read_archive
from builder.build import Builder
from builder.commands import repro as command
from builder.commands.building import compatible_rows
from builder.commands.repro import verify_repro
from builder.engine.client import inspect_image
from builder.engine.export import export_image, read_image
from builder.engine.leftovers import tags_of
from builder.errors import BuildFailed
from builder.folders import Folders
from builder.layers import Look
from builder.lock import make_lock
from builder.records import BuildRecord, read_record
from builder.repro import ReproRecord
from builder.sources import Sources
from tests.integration.standins import MATRIX

ROW = "yolov8-repro"  # a name of its own: the tags of a row are counted here
REPOSITORY = f"yolo-images/{ROW}"

# One step of each kind that a careful Dockerfile avoids.
CARELESS = """\
RUN date +%s > /opt/yolo/stamp
RUN cp /opt/yolo/image.json /opt/yolo/copy.json
RUN cd /opt/yolo && echo 'x = 1' > m.py && python -c "import py_compile as p; \
p.compile('m.py', cfile='m.pyc', invalidation_mode=p.PycInvalidationMode.TIMESTAMP)" && rm m.py
"""


@pytest.fixture
def locked(
    fixture_builder: Builder, fixture_sources: Sources, client: DockerClient
) -> Iterator[Builder]:
    folders = fixture_builder.folders
    folders.matrix.write_text(MATRIX.replace("\n  fixture:\n", "\n  repro:\n"))
    for row in compatible_rows(folders.root, None):
        make_lock(folders.locks, row, sources=fixture_sources, talk=lambda _: None)
    yield fixture_builder
    for tag in tags_of(client, REPOSITORY):
        client.images.remove(tag)


@pytest.fixture
def verify(locked: Builder, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """`build.py verify-repro` on the small project and its stand-ins for packages."""
    monkeypatch.setattr(command, "builder_of", lambda *_: locked)
    arguments = argparse.Namespace(row=ROW, json=True)
    return lambda: verify_repro(arguments, locked.folders.root)


def build(builder: Builder) -> BuildRecord:
    (record,) = builder.build(builder.plan(compatible_rows(builder.folders.root, None)))
    return record


def state(folders: Folders) -> dict[str, bytes]:
    """The row's own records and log, byte for byte."""
    paths = [path for path in folders.row(ROW).iterdir() if path.is_file()]
    return {path.name: path.read_bytes() for path in paths if path.name != "repro.json"}


def plant(folders: Folders, steps: str) -> None:
    dockerfile: Path = folders.images / "yolov8" / "Dockerfile"
    text = dockerfile.read_text()
    assert text.count("\nUSER ") == 1
    dockerfile.write_text(text.replace("\nUSER ", f"\n{steps}USER "))


def test_two_builds_are_one_image_and_the_row_stays_as_it_was(
    locked: Builder,
    verify: Callable[[], int],
    client: DockerClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = build(locked)
    before = state(locked.folders)
    capsys.readouterr()
    assert verify() == 0
    record = ReproRecord.model_validate_json(capsys.readouterr().out)
    assert record.identical
    assert record.first == record.second == own.digest
    assert record.layers == ()
    assert record.config == ()
    assert read_record(locked.folders.row(ROW) / "repro.json", ReproRecord) == record
    assert state(locked.folders) == before
    assert tags_of(client, REPOSITORY) == [own.reference]
    assert inspect_image(client, own.reference).digest == own.digest


def test_careless_steps_are_named_with_their_files_and_causes(
    locked: Builder,
    verify: Callable[[], int],
    client: DockerClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(locked.folders, CARELESS)
    with pytest.raises(BuildFailed) as caught:
        verify()
    assert caught.value.exit_code == 6
    record = ReproRecord.model_validate(json.loads(capsys.readouterr().out))
    assert not record.identical
    assert record.config == ()
    stamp, copy, compiled = record.layers
    assert stamp.step == "RUN date +%s > /opt/yolo/stamp"
    assert [layer.number for layer in record.layers] == [
        stamp.number,
        stamp.number + 1,
        stamp.number + 2,
    ]
    files = {
        file.path: (file.changes, file.cause) for layer in record.layers for file in layer.files
    }
    assert files["opt/yolo/stamp"][0] == ("content", "mtime")
    assert "a date or time" in files["opt/yolo/stamp"][1]
    assert files["opt/yolo/copy.json"][0] == ("mtime",)
    assert "not clamped" in files["opt/yolo/copy.json"][1]
    assert "keeps the time of its source" in files["opt/yolo/m.pyc"][1]
    assert copy.cause == files["opt/yolo/copy.json"][1]
    assert compiled.cause == files["opt/yolo/m.pyc"][1]
    # Beside them only the folder's time: it changed because they were written.
    assert set(files) == {"opt/yolo", "opt/yolo/stamp", "opt/yolo/copy.json", "opt/yolo/m.pyc"}
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{ROW}: layer {stamp.number} differs (RUN date")
    assert tags_of(client, REPOSITORY) == []


def test_a_build_that_fails_leaves_records_tag_and_log(
    locked: Builder, verify: Callable[[], int], client: DockerClient
) -> None:
    own = build(locked)
    before = state(locked.folders)
    plant(locked.folders, "RUN exit 3\n")
    with pytest.raises(BuildFailed, match=r"exit 3(.|\n)*repro/first/yolov8-repro/build\.log"):
        verify()
    assert (locked.folders.row(ROW) / "repro" / "first" / ROW / "build.log").is_file()
    assert state(locked.folders) == before
    assert tags_of(client, REPOSITORY) == [own.reference]


def test_an_interrupted_or_killed_run_leaves_no_image(
    locked: Builder,
    verify: Callable[[], int],
    client: DockerClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = build(locked)
    before = state(locked.folders)
    gone = 4_194_305  # above the highest process id that Linux gives
    client.images.get(own.reference).tag(REPOSITORY, f"repro-first-{gone}")

    def interrupted(*_: object) -> None:
        assert len(tags_of(client, REPOSITORY)) == 3
        raise KeyboardInterrupt

    monkeypatch.setattr(twice, "_compare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verify()
    assert state(locked.folders) == before
    assert tags_of(client, REPOSITORY) == [own.reference]


def test_the_engine_exports_what_its_store_holds(locked: Builder, client: DockerClient) -> None:
    own = build(locked)
    look = Look(hashes=True, keep=lambda entry: entry.name == "image.json")
    with export_image(client, own.reference) as stream:
        exported = read_archive(stream, look=look)
    assert exported.digest == own.digest
    assert exported.size == own.size_bytes
    assert exported == read_image(client, own.reference, look=look)
    _, entry = exported.files()["opt/yolo/image.json"]
    assert entry.content is not None
    assert json.loads(entry.content)["id"] == ROW
