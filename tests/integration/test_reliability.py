"""What is done to a build from outside: engines that die, disks that fill, signals, rivals.

Everything runs on an engine of its own, through the real command line, with the small fixture row.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from builder.commands.building import compatible_rows, machine_sources
from builder.engine.daemon import answers
from builder.engine.layout import exported_digest
from builder.folders import Folders
from builder.lock import make_lock
from builder.records import BuildRecord, read_record
from tests.integration.own_engine import OwnEngine, own_engine
from tests.integration.standins import MATRIX, WEIGHTS, make_wheels

MB = 1_000_000
ROW = "yolov8-fixture"
REFERENCE = f"yolo-images/{ROW}:local"


@dataclass
class Run:
    """A running `build.py`; what it says is collected while it runs."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            with self._news:
                self.said.append(line)
                self._news.notify_all()

    def until(self, words: str, seconds: float = 60) -> None:
        """Wait until it has said `words`."""
        with self._news:
            found = self._news.wait_for(lambda: any(words in line for line in self.said), seconds)
        assert found, self.text

    @property
    def text(self) -> str:
        return "".join(self.said)

    def end(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for its end; return its exit code and its stdout."""
        assert self.process.stdout is not None
        with self.process:
            out = self.process.stdout.read()
            code = self.process.wait(seconds)
            self._reader.join(seconds)
        return code, out


@dataclass(frozen=True, kw_only=True)
class Project:
    """The fixture project with its own copy of the command line, on the tests' own engine."""

    folders: Folders
    engine: OwnEngine
    environment: dict[str, str]

    def start(self, *arguments: str) -> Run:
        argv = [
            *(sys.executable, str(self.folders.root / "build.py"), *arguments),
            *("--base", "bootstrap"),
        ]
        return Run(
            subprocess.Popen(
                argv,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def build(self, *arguments: str) -> Run:
        """Start a build; the estimate for a CUDA stack does not fit this disk."""
        return self.start("build", "--row-space", "0", "--min-free", "50MB", *arguments)

    def built(self, *arguments: str) -> BuildRecord:
        run = self.build(*arguments)
        code, out = run.end()
        assert code == 0, run.text
        return BuildRecord.model_validate(json.loads(out)[0])

    def change(self, step: str) -> None:
        """Have the next build run one more step, the last one of the image."""
        path = self.folders.images / "yolov8" / "Dockerfile"
        original = path.with_name("Dockerfile.original")
        if not original.exists():
            shutil.copy2(path, original)
        lines = f"USER 0\nRUN : {uuid.uuid4().hex} && {step}\nUSER 10001:0\n"
        path.write_text(original.read_text() + lines)
        self.record.with_name("build.log").unlink(missing_ok=True)

    def until_step_says(self, words: str) -> None:
        """Wait until the step of `change` has written `words`."""
        log = self.record.with_name("build.log")
        wait_until(lambda: log.exists() and f": {words}\n" in log.read_text(), 40)

    @property
    def record(self) -> Path:
        return self.folders.row(ROW) / "build.json"

    def leaves_nothing_half_done(self) -> None:
        """No secrets, every record whole, no builder of this project still at work."""
        assert not list(self.folders.cache.glob("secrets-*"))
        for path in self.folders.out.rglob("*.json"):
            json.loads(path.read_text())
        wait_until(lambda: not self.builders(), 10)

    def builders(self) -> list[str]:
        """Command lines of buildx processes that build this project."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes()
                here = (path / "cwd").resolve() == self.folders.root
            except OSError:
                continue
            if here and b"buildx" in words:
                found.append(words.replace(b"\0", b" ").decode())
        return found


def wait_until(true: object, seconds: float) -> None:
    assert callable(true)
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    work = tmp_path_factory.mktemp("reliability")
    folders = Folders(work / "project")
    folders.root.mkdir()
    folders.matrix.write_text(MATRIX)
    shutil.copy2(root / "build.py", folders.root)
    shutil.copytree(root / "images", folders.images, ignore=shutil.ignore_patterns("__pycache__"))
    make_wheels(work / "wheels")
    rootfs = root / ".cache" / "rootfs"
    if rootfs.is_dir():
        shutil.copytree(rootfs, folders.cache / "rootfs", copy_function=os.link)
    (row,) = compatible_rows(folders.root, None)
    weight = folders.weight(row.weights[0])
    weight.parent.mkdir(parents=True)
    weight.write_bytes(WEIGHTS)
    wheels = str(work / "wheels")
    sources = replace(machine_sources(folders.root), no_index=True, find_links=(wheels,))
    make_lock(folders.locks, row, sources=sources, talk=lambda _: None)
    with own_engine(work, folders.cache / "engine") as engine:
        made = Project(
            folders=folders,
            engine=engine,
            environment={
                **os.environ,
                "DOCKER_HOST": engine.host,
                "PYTHONPATH": str(root),
                "UV_NO_INDEX": "true",
                "UV_FIND_LINKS": wheels,
            },
        )
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_tidies_up_and_resumes(
    project: Project, number: signal.Signals
) -> None:
    """Spread over the whole run: imports, planning, preparing, steps, export, record."""
    project.change("sleep 1")
    started = time.monotonic()
    project.built()
    whole = time.monotonic() - started
    moments = 8 if number is signal.SIGINT else 2
    interrupted = 0
    for moment in range(moments):
        project.change("sleep 1")
        run = project.build()
        time.sleep(0.15 + (whole - 0.15) * moment / moments)
        run.process.send_signal(number)
        code, out = run.end(30)
        # Until the interpreter has begun with our code a signal just ends it.
        too_early = code == -number and moment == 0 and not run.text
        assert code in {130, 0} or too_early, (moment, code, run.text)
        interrupted += code == 130 or too_early
        if code == 130:
            assert "Traceback" not in run.text
            assert out == ""
        project.leaves_nothing_half_done()
    assert interrupted >= moments - 1
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

        for edit in ({"digest": "sha256:" + "0" * 64}, {"build_key": "0" * 64}, {"digest": None}):
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
