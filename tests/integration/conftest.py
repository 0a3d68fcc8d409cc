"""Integration tests run on the real engine: `make engine` starts one where none answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from docker import DockerClient

from builder.build import Builder, BuildOptions, Origin
from builder.commands.building import compatible_rows, make_builder
from builder.engine.client import connect
from builder.folders import Folders
from builder.records import BuildRecord, PlanRecord
from builder.sources import Sources, load_sources
from builder.talk import Talk
from tests.integration.standins import MATRIX, WEIGHTS, make_wheels

QUICKSTART = "yolo*-cu128"
ROWS = ("yolov8-cu128", "yolov12-cu128")


@pytest.fixture(scope="session")
def client() -> Iterator[DockerClient]:
    """The engine; without one these tests fail, they don't skip."""
    connection = connect()
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def quickstart(root: Path) -> dict[str, tuple[PlanRecord, BuildRecord]]:
    """The two quickstart rows, built as `make quickstart` builds them; nothing when unchanged."""
    builder = make_builder(root, Talk(), allow_missing="auto")
    rows = [row for row in compatible_rows(root, QUICKSTART) if row.id in ROWS]
    plans = builder.plan(rows)
    records = builder.build(plans)
    return {plan.row.id: (plan.record, record) for plan, record in zip(plans, records, strict=True)}


@pytest.fixture
def built_row(
    quickstart: dict[str, tuple[PlanRecord, BuildRecord]], tmp_path: Path
) -> tuple[PlanRecord, BuildRecord, Path]:
    """Records of row yolov8-cu128, and a folder for results."""
    return (*quickstart["yolov8-cu128"], tmp_path / "out")


@pytest.fixture
def fixture_project(tmp_path: Path, root: Path, client: DockerClient) -> Iterator[Folders]:
    """A project of one small row: the real Dockerfiles, stand-in wheels, its own matrix."""
    folders = Folders(tmp_path / "project")
    folders.root.mkdir()
    folders.matrix.write_text(MATRIX)
    shutil.copytree(root / "images", folders.images, ignore=shutil.ignore_patterns("__pycache__"))
    make_wheels(tmp_path / "wheels")
    # The base is the one that the quickstart rows made: bootstrapping it again takes 20 s.
    rootfs = root / ".cache" / "rootfs"
    if rootfs.is_dir():
        shutil.copytree(rootfs, folders.cache / "rootfs", copy_function=os.link)
    (row,) = compatible_rows(folders.root, None)
    weight = folders.weight(row.weights[0])
    weight.parent.mkdir(parents=True)
    weight.write_bytes(WEIGHTS)
    yield folders
    for image in client.images.list(filters={"label": f"org.yolo-images.row={row.id}"}):
        client.images.remove(str(image.id), force=True)


@pytest.fixture
def fixture_sources(tmp_path: Path) -> Sources:
    """This machine's sources, but every package comes from the folder of stand-ins."""
    wheels = str(tmp_path / "wheels")
    return replace(load_sources(os.environ), no_index=True, find_links=(wheels,))


@pytest.fixture
def fixture_builder(fixture_project: Folders, fixture_sources: Sources) -> Builder:
    """A builder of the small project."""
    return Builder(
        folders=fixture_project,
        sources=fixture_sources,
        origin=Origin(revision="0" * 40, source="https://example.org/fixture"),
        options=BuildOptions(),
        talk=Talk(),
    )
