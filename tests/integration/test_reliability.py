"""What is done to a build from outside: engines that die, disks that fill, signals, rivals.

Everything runs on an engine of its own, through the real command line, with the small fixture row.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.engine.daemon import answers
from builder.engine.layout import exported_digest
from builder.records import BuildRecord, read_record
from tests.integration.own_project import REFERENCE, ROW, Project, own_project, wait_until

MB = 1_000_000


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with own_project(root, tmp_path_factory.mktemp("reliability")) as made:
        made.built()
        yield made


@pytest.fixture(autouse=True)
def _engine_runs(project: Project) -> None:
    project.engine.ensure()


@pytest.mark.parametrize(("moment", "delay"), [("start", 0.1), ("here", 0.5), ("and here", 0.1)])
def test_a_dying_engine_ends_the_build_and_nothing_else(
    project: Project, moment: str, delay: float
) -> None:
    project.change("echo here; sleep 2; head -c 20M /dev/urandom > /opt/noise; echo and here")
    before = project.record.read_bytes()
    run = project.build()
    if moment == "start":
        run.until("building yolo-images")
    else:
        project.until_step_says(moment)
    time.sleep(delay)
    project.engine.kill()
    code, out = run.end()
    assert (code, out) == (5, ""), run.text
    assert "make engine" in run.text
    assert project.record.read_bytes() == before
    project.leaves_nothing_half_done()
    project.engine.start()
    assert project.built().status == "built"


@pytest.mark.parametrize(("noise", "where"), [(200, "runtime 3/3"), (60, "exporting to image")])
def test_a_full_disk_is_named_and_the_next_build_goes_on(
    project: Project, noise: int, where: str
) -> None:
    """It fills up in a step, or when the layer of a step that fitted is written once more."""
    project.change(f"head -c {noise}M /dev/urandom > /opt/noise")
    with project.engine.filled(leave=100 * MB):
        run = project.build("--min-free", "0")
        code, out = run.end()
        assert (code, out) == (6, ""), run.text
        assert "the disk is full" in run.text
        assert where in run.text
        assert f"{project.engine.data}/docker: " in run.text
        assert "docker system df" in run.text
        project.leaves_nothing_half_done()
    project.engine.ensure()
    assert project.built().status == "built"


def test_a_build_is_ended_before_the_disk_is_full(project: Project) -> None:
    project.change(
        "for i in 1 2 3 4 5 6 7 8; do head -c 40M /dev/urandom >> /opt/noise; sync; sleep 0.4; done"
    )
    with project.engine.filled(leave=350 * MB):
        run = project.build("--min-free", "200MB")
        code, out = run.end()
        assert (code, out) == (6, ""), run.text
        assert "the disk is almost full" in run.text
        assert "to keep 200.0 MB free" in run.text
        assert project.engine.free() > 20 * MB
        assert answers(project.engine.host)
        project.leaves_nothing_half_done()


def seconds_of_a_build(project: Project) -> float:
    project.change("sleep 1")
    started = time.monotonic()
    project.built()
    return time.monotonic() - started


def test_an_interrupted_build_tidies_up_and_resumes(project: Project) -> None:
    """Spread over the whole run: imports, planning, preparing, steps, export, record."""
    seconds_of_a_build(project)  # it may have to make again what an earlier test's engine lost
    whole = seconds_of_a_build(project)
    moments = 10
    interrupted = 0
    for moment in range(moments):
        number = signal.SIGTERM if moment in {3, 6} else signal.SIGINT
        project.change("sleep 1")
        run = project.build()
        time.sleep(0.15 + (whole - 0.15) * moment / moments)
        run.process.send_signal(number)
        code, out = run.end(30)
        # Before our code begins, and after it has ended, a signal just ends the interpreter; a
        # shell tells both the same way.
        outside = code == -number and (not run.text or "provenance" in run.text)
        assert code in {130, 0} or outside, (moment, code, run.text)
        interrupted += code == 130 or outside
        assert "Traceback" not in run.text
        assert out == "" or json.loads(out)
        project.leaves_nothing_half_done()
    assert interrupted >= moments // 2, "a busier machine would have been caught more often"
    project.built()
    assert project.built().status == "unchanged"


@pytest.mark.parametrize("moment", ["planning", "preparing", "step"])
def test_a_killed_builder_leaves_nothing_that_the_next_one_does_not_remove(
    project: Project, moment: str
) -> None:
    project.change("echo here; sleep 1")
    run = project.build()
    if moment == "preparing":
        wait_until(lambda: list(project.folders.cache.glob("secrets-*")), 30)
    elif moment == "step":
        project.until_step_says("here")
    else:
        time.sleep(0.3)
    run.process.kill()
    run.end()
    wait_until(lambda: not project.builders(), 10)
    left = list(project.folders.cache.glob("secrets-*"))
    assert left or moment == "planning"
    next_run = project.build("--no-wait")
    code, _ = next_run.end()
    assert code == 0, next_run.text
    assert all(path.name in next_run.text for path in left)
    project.leaves_nothing_half_done()


def test_unfinished_record_files_are_removed(project: Project) -> None:
    left = project.record.with_name(".build.json.abcdefgh")
    left.write_text('{"id": "yol')
    project.built()
    assert not left.exists()


def test_of_two_builders_one_waits_and_finds_it_done(project: Project) -> None:
    project.change("sleep 2")
    first = project.build()
    first.until("building yolo-images")
    second = project.build()
    third = project.build("--no-wait")
    code, _ = third.end()
    assert code == 6
    assert f"another build is running: pid {first.process.pid}, since " in third.text
    results = [run.end() for run in (first, second)]
    assert [code for code, _ in results] == [0, 0], first.text + second.text
    assert [json.loads(out)[0]["status"] for _, out in results] == ["built", "unchanged"]
    assert f"waiting for another build: pid {first.process.pid}, since " in second.text


def test_nothing_is_unchanged_that_changed_behind_our_back(project: Project) -> None:
    project.built()
    assert project.built().status == "unchanged"
    whole = json.loads(project.record.read_text())
    client = project.engine.client()
    try:
        client.images.remove(REFERENCE)
        assert project.built().status == "built"

        build_other(project, "elsewhere:1")
        client.images.get("elsewhere:1").tag(REFERENCE)
        back = project.built()
        assert (back.status, back.digest) == ("built", whole["digest"])

        for edit in ({"digest": "sha256:" + "0" * 64}, {"build_key": "0" * 64}):
            project.record.write_text(json.dumps({**whole, "status": "built", **edit}))
            assert project.built().status == "built", edit
        project.record.write_text(json.dumps(whole)[:-40])
        assert project.built().status == "built"
        assert project.built().status == "unchanged"
    finally:
        client.images.remove("elsewhere:1", force=True)
        client.close()


def build_other(project: Project, tag: str) -> None:
    """Build an image that has nothing to do with ours."""
    context = project.folders.root.parent / "other"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    argv = ["docker", "buildx", "build", "--quiet", "--load", "--tag", tag, str(context)]
    subprocess.run(argv, check=True, env=project.environment, capture_output=True)


def test_a_sweep_evicts_what_is_done_and_does_it_only_once(
    project: Project, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    arguments = ("sweep", "--evict", "always", "--export", str(layout), "--tier", "static")
    disk = ("--row-space", "0", "--min-free", "50MB", "--allow-missing", "weights")
    first = project.start(*arguments, *disk)
    code, out = first.end()
    assert code == 0, first.text
    assert ROW in out
    assert "image evicted" in first.text
    record = read_record(project.record, BuildRecord)
    assert record is not None
    assert (record.status, record.evicted is None) == ("built", False)
    client = project.engine.client()
    try:
        assert not client.images.list(name=REFERENCE)
        assert not client.api.df()["BuildCache"]
    finally:
        client.close()
    assert exported_digest(layout, ROW) == record.digest
    assert_whole(layout, str(record.digest))

    second = project.start(*arguments, *disk)
    assert second.end()[0] == 0, second.text
    assert "nothing has changed; finished before, evicted" in second.text
    assert read_record(project.record, BuildRecord) == record

    rebuilt = project.built()
    assert (rebuilt.status, rebuilt.digest, rebuilt.evicted) == ("built", record.digest, None)


def assert_whole(layout: Path, digest: str) -> None:
    """Every blob that the manifest names is there and hashes to its name."""

    def blob(name: str) -> bytes:
        content = (layout / "blobs" / "sha256" / name.removeprefix("sha256:")).read_bytes()
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == name
        return content

    manifest = json.loads(blob(digest))
    for item in (manifest["config"], *manifest["layers"]):
        assert len(blob(item["digest"])) == item["size"]


def test_room_is_made_for_the_next_stack_as_far_as_it_can_be(project: Project) -> None:
    """A disk that holds one stack of two: the first one's cache goes, then its image."""
    folders = project.folders
    matrix = folders.matrix.read_text()
    stack = matrix[matrix.index("  fixture:") : matrix.index("distributions:")]
    second = stack.replace("fixture:", "second:")
    for suffix in (".json", ".txt"):
        text = (folders.locks / f"{ROW}{suffix}").read_text()
        (folders.locks / f"yolov8-second{suffix}").write_text(text.replace("fixture", "second"))
    project.built()
    with project.engine.filled(leave=400 * MB):
        folders.matrix.write_text(matrix.replace("distributions:", second + "distributions:"))
        arguments = ("sweep", "--no-validate", "--row-space", "750MB", "--min-free", "50MB")
        run = project.start(*arguments)
        code, out = run.end()
        assert code == 0, run.text
        assert [record["status"] for record in json.loads(out)] == ["unchanged", "built"]
        assert "build cache: " in run.text
        assert f"{ROW}: image evicted to make room" in run.text
        gone = read_record(project.record, BuildRecord)
        assert gone is not None
        assert (gone.status, gone.evicted is None) == ("built", False)

        folders.matrix.write_text(matrix)
        before = project.record.read_bytes()
        too_much = project.build("--row-space", "50GB")
        assert too_much.end()[0] == 6
        assert f"{ROW}: not enough disk" in too_much.text
        assert "It takes about 50.0 GB" in too_much.text
        assert project.record.read_bytes() == before
