"""Integration tests run on the real engine: `make engine` starts one where none answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from docker import DockerClient

from builder.build import Builder, BuildOptions, Origin
from builder.commands.building import compatible_rows, machine_sources, make_builder
from builder.engine.client import connect
from builder.folders import Folders
from builder.plan import EPOCH
from builder.records import BuildRecord, PlanRecord
from builder.rootfs import bootstrap
from builder.sources import Sources, load_sources
from builder.talk import Talk
from tests.integration.standins import MATRIX, WEIGHTS, make_wheels
from tests.integration.whole import ANY, WHOLE_ROWS, Whole, make_whole, played
from tests.servers.certificates import Certificate, make_certificate
from tests.servers.faults import Fault, Say

QUICKSTART = "yolo*-cu128"
ROWS = ("yolov8-cu128", "yolov12-cu128")


@pytest.fixture(scope="session")
def client() -> Iterator[DockerClient]:
    """The engine; without one these tests fail, they don't skip."""
    connection = connect()
    yield connection
    connection.close()


@pytest.fixture(scope="session", autouse=True)
def _base(root: Path) -> None:
    """Make the Debian base once, from this machine's mirrors: tests name others, or none."""
    bootstrap("bookworm", Folders(root).cache / "rootfs", machine_sources(root), EPOCH, Talk())


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
    rootfs = Folders(root).cache / "rootfs"
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


@pytest.fixture(scope="session")
def setuptools_wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real setuptools, as locked: TensorRT's metapackage and the fork are built with it."""
    lock = (root / "locks" / "yolov12-cu128.txt").read_text()
    (line,) = (line for line in lock.splitlines() if line.startswith("setuptools=="))
    folder = tmp_path_factory.mktemp("setuptools")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*argv, "-d", str(folder), line.split()[0]], check=True, timeout=120)
    (wheel,) = folder.iterdir()
    return wheel


@pytest.fixture(scope="session")
def bridge(client: DockerClient) -> str:
    """The address under which builds and this machine see each other."""
    (config,) = client.networks.get("bridge").attrs["IPAM"]["Config"]
    return str(config["Gateway"])


@pytest.fixture(scope="session")
def certificate(bridge: str, tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    names = (f"IP:{bridge}", "DNS:github.com", "DNS:pypi.nvidia.com", "DNS:download.pytorch.org")
    return make_certificate(tmp_path_factory.mktemp("certificate"), *names)


@pytest.fixture(scope="session")
def whole(
    root: Path,
    bridge: str,
    certificate: Certificate,
    setuptools_wheel: Path,
    client: DockerClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Whole]:
    """The three rows, locked before their hosts answer, and built when they do."""
    folder = tmp_path_factory.mktemp("whole")
    with played(bridge, certificate, setuptools_wheel) as server:
        made = make_whole(root, folder, server, certificate)
        for path in ("/nvidia/*", "/whl/*", "/Dao-AILab/*"):
            server.faults.append(Fault(path=path, what=Say(503), times=None, methods=ANY))
        done = made.run("lock")
        assert done.returncode == 0, done.stderr
        made.first_locks = {row: made.lock(row) for row in WHOLE_ROWS}
        server.faults.clear()
        server.seen.clear()
        done = made.run("build", "--base", "bootstrap")
        assert done.returncode == 0, done.stderr
        made.asked = list(server.seen)
        yield made
    assert not server.errors
    for row in WHOLE_ROWS:
        for image in client.images.list(filters={"label": f"org.yolo-images.row={row}"}):
            client.images.remove(str(image.id), force=True)


@pytest.fixture
def elsewhere(root: Path, tmp_path: Path, whole: Whole, certificate: Certificate) -> Whole:
    """The same rows and locks in another checkout, with an empty store."""
    made = make_whole(root, tmp_path, whole.play, certificate)
    shutil.copytree(whole.folders.locks, made.folders.locks)
    return made
