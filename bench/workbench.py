"""What scenarios share: rows, a copy of the project, the second engine, a registry."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from bench.baseline import Baseline
from bench.disk import occupied, watch
from bench.lab import Lab
from bench.process import run
from bench.project import Project
from bench.registry import Pushed, Registry, read_blobs, read_pushed
from builder.commands.building import machine_sources
from builder.errors import Finding, InvalidInput, NothingSelected
from builder.matrix import load_matrix
from builder.spec import ImageSpec
from builder.talk import Talk, human_bytes, human_seconds

__all__ = ["Change", "Leg", "Workbench"]

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One build from an empty engine: seconds, and bytes.

    `images` are the compressed sizes by name; `stored` what the engine stores compressed, each blob
    once; `peak` the most that its disk took.
    """

    seconds: float
    images: Mapping[str, int]
    stored: int
    peak: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """A rebuild after one change, in seconds, and what a registry had to be sent for it."""

    seconds: float
    pushed: Pushed


@dataclass
class Workbench:
    """The state of one benchmark; `scratch` is its own folder."""

    root: Path
    rows: tuple[str, ...]
    scratch: Path
    talk: Talk
    notes: dict[str, list[str]] = field(default_factory=dict)
    _memory: dict[tuple[str, int], object] = field(default_factory=dict)
    _closing: ExitStack = field(default_factory=ExitStack)

    def open(self) -> None:
        """Make the folder and claim it; InvalidInput while another benchmark uses it."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        lock = self._closing.enter_context((self.scratch / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInput(
                Finding(
                    place=str(self.scratch),
                    what="another benchmark runs there",
                    why="Both would build in the same engine, and slow each other down.",
                    todo="Wait for it.",
                )
            ) from error

    def close(self) -> None:
        """Stop what was started and delete what was stored; logs stay."""
        self._closing.close()
        folders = self.scratch.iterdir() if self.scratch.is_dir() else ()
        for path in [path for path in folders if path.is_dir()]:
            shutil.rmtree(path)

    def note(self, scenario: str, text: str) -> None:
        """Keep something that a reader of the figures has to know."""
        notes = self.notes.setdefault(scenario, [])
        if text not in notes:
            notes.append(text)

    def once_per_run(self, name: str, run_number: int, make: Callable[[], Value]) -> Value:
        """Return what `make` measured in this run, measuring only once: ratios are paired."""
        key = (name, run_number)
        if key not in self._memory:
            self._memory[key] = make()
        value: Value = self._memory[key]  # type: ignore[assignment]  # stored by the same caller
        return value

    @cached_property
    def checkout(self) -> Project:
        """The project itself; it is read, never built from."""
        return Project(self.root, self.scratch / "checkout.log")

    @cached_property
    def specs(self) -> Sequence[ImageSpec]:
        """The rows that are measured, in the order in which they were named."""
        found = {row.id: row for row in load_matrix(self.root / "matrix.yaml").rows}
        unknown = [row for row in self.rows if row not in found]
        if unknown:
            raise NothingSelected(
                *(Finding(place="--rows", what=f"no row is called {row!r}") for row in unknown)
            )
        return [found[row] for row in self.rows]

    @cached_property
    def plans(self) -> Mapping[str, Mapping[str, Any]]:
        """The plan records of the rows; the base is made where it is missing."""
        return {spec.id: self.checkout.plans(spec.id)[0] for spec in self.specs}

    def _prepare(self) -> None:
        """Have the base made, so that no measurement has to."""
        assert set(self.plans) == set(self.rows)

    @cached_property
    def lab(self) -> Lab:
        """The second engine, not started yet."""
        lab = Lab(self.scratch / "lab", self.talk)
        self._closing.callback(lab.close)
        return lab

    @cached_property
    def project(self) -> Project:
        """A copy with only our rows, for builds from an empty engine. Nobody changes it."""
        return self._copy("project")

    def changing(self, run_number: int) -> Project:
        """A copy that this run's scenarios may change, one after the other."""
        return self.once_per_run("changing", run_number, lambda: self._copy("changing"))

    def _copy(self, name: str) -> Project:
        self._prepare()
        copy = self.checkout.copy(self.scratch / name)
        copy.keep_only(self.rows)
        return copy

    @cached_property
    def baseline(self) -> Baseline:
        """What is built instead, in the second engine."""
        return Baseline(
            self.project,
            machine_sources(self.root),
            self.lab.environment,
            self.scratch / "baseline.log",
        )

    def registry(self, name: str) -> Registry:
        """Start a registry of its own storage, which ends with the benchmark."""
        registry = Registry(self.scratch / f"registry-{name}", self.root / ".cache" / "bench-tools")
        self._closing.callback(registry.close)
        registry.start()
        return registry

    @cached_property
    def lab_registry(self) -> Registry:
        """The registry that the second engine pushes to."""
        return self.registry("lab")

    def leg(self, name: str, build: Callable[[], tuple[float, Mapping[str, int]]]) -> Leg:
        """Measure `build`, which returns seconds and images, from an empty second engine."""
        self.lab.fresh()
        with self.talk.working(name), watch(self.scratch) as usage:
            seconds, images = build()
        self.talk.line(f"{name}: {human_seconds(seconds)}")
        # Somebody else who frees space would hide what we took, but not what lies there at the end.
        peak = max(usage.peak, occupied(self.lab.data))
        return Leg(seconds=seconds, images=images, stored=self.lab.stored_bytes(), peak=peak)

    def build_all(self, rows: Sequence[str]) -> tuple[float, Mapping[str, int]]:
        """Build `rows` (one, or all of them) in the second engine; return seconds and sizes."""
        words = rows if len(rows) == 1 else ()
        finished = self.project.build(*words, environment=self.lab.environment)
        return finished.seconds, {row: self.project.built(row).size for row in rows}

    def change(self, row: str, run_number: int, make: Callable[[Project], None]) -> Change:
        """Push `row`, change the project by `make`, build it again in the second engine, push it.

        The second engine holds the row from an earlier scenario, or gets it here, which takes
        minutes and is not measured.
        """
        project = self.changing(run_number)
        if not self.lab.running:
            self.lab.fresh()
        with self.talk.working(f"{row} as it was, not measured"):
            project.build(row, environment=self.lab.environment)
            self._push_from_lab(project, row)
        make(project)
        with self.talk.working(f"{row} after the change"):
            seconds = project.build(row, environment=self.lab.environment).seconds
            pushed = self._push_from_lab(project, row)
        self.talk.line(f"{row}: {human_seconds(seconds)}, {human_bytes(pushed.total)} pushed")
        return Change(seconds=seconds, pushed=pushed)

    def _push_from_lab(self, project: Project, row: str) -> Pushed:
        reference = project.built(row).reference
        return self.push(reference, self.lab_registry, self.lab.environment)

    def push(
        self, reference: str, registry: Registry, environment: Mapping[str, str] | None = None
    ) -> Pushed:
        """Push an image of an engine to `registry`; return what that added to its storage."""
        before = read_blobs(registry.storage)
        name, _, tag = reference.rpartition(":")
        with self._tagged(reference, f"{registry.address}/{name}:{tag}", environment) as target:
            self._docker(environment, "push", "--quiet", target)
        return read_pushed(registry.storage, name, tag, before)

    @contextmanager
    def _tagged(
        self, reference: str, target: str, environment: Mapping[str, str] | None
    ) -> Iterator[str]:
        self._docker(environment, "tag", reference, target)
        try:
            yield target
        finally:
            self._docker(environment, "image", "rm", target)

    def _docker(self, environment: Mapping[str, str] | None, *words: str) -> None:
        log = self.scratch / "docker.log"
        run(["docker", *words], cwd=self.root, log=log, environment=environment)
