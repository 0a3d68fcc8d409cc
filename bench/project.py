"""A copy of the project to change and to build from, so that the checkout keeps its records."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import yaml

from bench.process import Finished, run
from bench.scenario import NotMeasured
from builder.plan import EPOCH

__all__ = ["BuiltImage", "Project", "only_rows", "with_version"]

_PARTS = ("build.py", "matrix.yaml", "builder", "images", "locks")
# Downloaded or bootstrapped before: no part of what is compared (docs/benchmarks.md).
_CACHES = ("rootfs", "weights", "files", "wheels")
_ALLOW = ("--allow-missing", "auto")


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image of a row: its compressed `size` is in bytes."""

    reference: str
    digest: str
    size: int


@dataclass(frozen=True)
class Project:
    """The project at `root`, used through its command line like a person would.

    What the commands say is added to `log`.
    """

    root: Path
    log: Path

    def copy(self, target: Path) -> Project:
        """Copy code, matrix, locks and downloads to `target`, which is replaced."""
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for part in _PARTS:
            source = self.root / part
            if source.is_dir():
                # With byte code: a checkout that was used before has it too.
                shutil.copytree(source, target / part)
            else:
                shutil.copy2(source, target / part)
        for cache in _CACHES:
            source = self.root / ".cache" / cache
            if source.is_dir():
                # Lock files stay behind: a link to one would wait for the checkout's own builds.
                shutil.copytree(
                    source,
                    target / ".cache" / cache,
                    copy_function=os.link,
                    ignore=shutil.ignore_patterns("*lock", ".*"),
                )
        return Project(target.resolve(), target.with_name(f"{target.name}.log"))

    def command(self, *words: str, environment: Mapping[str, str] | None = None) -> Finished:
        """Run `build.py WORDS`; BuildFailed when it ends with another code than 0."""
        return run(
            [sys.executable, str(self.root / "build.py"), *words],
            cwd=self.root,
            log=self.log,
            environment=environment,
        )

    def build(self, *words: str, environment: Mapping[str, str] | None = None) -> Finished:
        """Run `build.py build` as a partial build where parts can't be reached."""
        return self.command("build", *words, *_ALLOW, environment=environment)

    def plans(self, *words: str) -> list[dict[str, object]]:
        """Return the plan records of the selected rows; the base is made where it is missing."""
        plans: list[dict[str, object]] = json.loads(self.command("plan", *words, *_ALLOW).stdout)
        return plans

    def bake_file(self) -> dict[str, dict[str, dict[str, object]]]:
        """Return what the builder would get for all rows."""
        text = self.command("plan", "--format", "bake", *_ALLOW).stdout
        found: dict[str, dict[str, dict[str, object]]] = json.loads(text)
        return found

    def row_ids(self) -> list[str]:
        """Return the ids of all rows of the matrix."""
        return [row["id"] for row in json.loads(self.command("list", "--json").stdout)]

    def keep_only(self, rows: Iterable[str]) -> None:
        """Exclude all other rows in this copy's matrix."""
        matrix = self.root / "matrix.yaml"
        matrix.write_text(only_rows(matrix.read_text(), self.row_ids(), set(rows)))

    def built(self, row: str) -> BuiltImage:
        """Return the image of `row` as it was recorded; NotMeasured when there is none."""
        path = self.root / "out" / row / "build.json"
        record = json.loads(path.read_text()) if path.is_file() else {}
        if not record.get("digest") or not record.get("size_bytes"):
            raise NotMeasured(f"{row} is not built here; run: make quickstart")
        return BuiltImage(
            reference=record["reference"], digest=record["digest"], size=record["size_bytes"]
        )

    def change_runtime(self, mark: str) -> None:
        """Change a line of the code that goes into every image."""
        path = self.root / "images" / "runtime" / "yolo_image" / "__init__.py"
        with path.open("a") as file:
            file.write(f"# {mark}\n")

    def change_version(self, distribution: str, version: str) -> None:
        """Name another version of a distribution in the matrix."""
        matrix = self.root / "matrix.yaml"
        matrix.write_text(with_version(matrix.read_text(), distribution, version))

    def change_base(self, mark: str) -> None:
        """Add a small file to every bootstrapped base."""
        for tar in (self.root / ".cache" / "rootfs").glob("*/rootfs.tar"):
            # The tar is a link to the checkout's own: change a copy, then put it in its place.
            changed = tar.with_name("changed.tar")
            shutil.copyfile(tar, changed)
            with tarfile.open(changed, "a") as archive:
                member = tarfile.TarInfo("./etc/bench")
                member.size, member.mtime = len(mark), EPOCH
                archive.addfile(member, BytesIO(mark.encode()))
            changed.replace(tar)
            for note in tar.parent.glob("rootfs.tar.*"):
                note.unlink()


def only_rows(matrix: str, rows: Sequence[str], keep: set[str]) -> str:
    """Return the text of `matrix` with every row excluded that is not in `keep`."""
    data = yaml.safe_load(matrix)
    excluded = data.setdefault("exclude", [])
    excluded += [{"row": row, "because": "not measured"} for row in rows if row not in keep]
    return yaml.safe_dump(data, sort_keys=False)


def with_version(matrix: str, distribution: str, version: str) -> str:
    """Return the text of `matrix` with another version of a distribution."""
    data = yaml.safe_load(matrix)
    data["distributions"][distribution]["version"] = version
    return yaml.safe_dump(data, sort_keys=False)
