"""A project of one small row on an engine of its own, built through the real command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from builder.commands.building import compatible_rows, machine_sources
from builder.folders import Folders
from builder.lock import make_lock
from builder.records import BuildRecord
from tests.integration.own_engine import OwnEngine, own_engine
from tests.integration.standins import MATRIX, WEIGHTS, make_wheels

__all__ = ["REFERENCE", "ROW", "Project", "Run", "own_project", "wait_until"]

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


def wait_until(true: Callable[[], object], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


@contextmanager
def own_project(root: Path, work: Path) -> Iterator[Project]:
    """Lay out the project below `work` with a copy of `root`'s command line; start its engine."""
    folders = Folders(work / "project")
    folders.root.mkdir()
    folders.matrix.write_text(MATRIX)
    shutil.copy2(root / "build.py", folders.root)
    shutil.copytree(root / "images", folders.images, ignore=shutil.ignore_patterns("__pycache__"))
    make_wheels(work / "wheels")
    rootfs = Folders(root).cache / "rootfs"
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
        yield made
