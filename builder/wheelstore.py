"""Wheels that were compiled here: `.cache/wheels/flash-attn/<key>/`, the wheel and meta.json.

An entry is whole or not there: it is made in a folder beside it and moved into place. Its wheel is
checked at each use (hash, name, tags, what lies inside), for an hour of compiling is cheaper than
an image with half a wheel. Processes that want the same wheel wait for each other.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion
from pydantic import Field, ValidationError

from builder.errors import BuildFailed, Finding, InvalidInput
from builder.flash_build import Compilation
from builder.records import Record, Sha256, read_record, write_record
from builder.talk import Talk
from builder.wheelhouse import sha256_of

__all__ = ["Report", "StoredWheel", "WheelMeta", "WheelStore", "fault_of"]

_EXTENSION = re.compile(r"flash_attn_2_cuda[^/]*\.so")


class Report(Record):
    """What the compilation says about itself: `report.json` beside the wheel.

    `sms` are the architectures of the machine code inside, as the fatbin headers name them.
    """

    torch: str
    cuda: str
    cxx11abi: bool
    nvcc: str
    gxx: str
    sms: tuple[str, ...]
    seconds: float = Field(ge=0)


class WheelMeta(Record):
    """`meta.json`. `size` is in bytes, `finished` ISO 8601 in UTC."""

    key: Sha256
    file: str
    sha256: Sha256
    size: int
    architectures: tuple[str, ...]
    report: Report
    finished: str


@dataclass(frozen=True, kw_only=True)
class StoredWheel:
    """A wheel of the store, verified when this was made."""

    path: Path
    meta: WheelMeta


@dataclass(frozen=True, kw_only=True)
class WheelStore:
    """The wheels below `folder`. `now` returns the time as ISO 8601 in UTC."""

    folder: Path
    talk: Talk
    now: Callable[[], str]

    def find(self, compilation: Compilation) -> StoredWheel | None:
        """Return the wheel of `compilation`, verified; None when it is absent or damaged."""
        wheel, fault = self._look(compilation)
        if fault:
            self.talk.line(f"flash-attn: the stored wheel is no use ({fault})")
        return wheel

    def find_or_make(self, compilation: Compilation, make: Callable[[Path], None]) -> StoredWheel:
        """Return the wheel of `compilation`; where there is none, `make` fills a folder with it.

        `make` leaves the wheel and report.json. A damaged entry is replaced. BuildFailed when what
        was made is not what was asked for; nothing is stored then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / f"{compilation.key}.lock"):
            found = self.find(compilation)
            if found is not None:
                return found
            prefix = f".new-{compilation.key}-"
            for dead in self.folder.glob(f"{prefix}*"):
                # Only who holds the lock has such a folder: its maker was killed.
                shutil.rmtree(dead)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=prefix) as name:
                make(Path(name))
                self._admit(compilation, Path(name))
            made, fault = self._look(compilation)
            if made is None:
                raise BuildFailed(Finding(place=str(self._entry(compilation)), what=fault))
            return made

    def _entry(self, compilation: Compilation) -> Path:
        return self.folder / compilation.key

    def _look(self, compilation: Compilation) -> tuple[StoredWheel | None, str]:
        """Return the entry, or what is wrong with it; "" when there is none."""
        entry = self._entry(compilation)
        if not entry.is_dir():
            return None, ""
        try:
            meta = read_record(entry / "meta.json", WheelMeta)
        except InvalidInput as error:
            return None, error.findings[0].what
        if meta is None:
            return None, "it has no meta.json"
        path = entry / compilation.file
        fault = next(filter(None, _entry_faults(path, compilation, meta)), "")
        return (None, fault) if fault else (StoredWheel(path=path, meta=meta), "")

    def _admit(self, compilation: Compilation, work: Path) -> None:
        """Check what was made, and move it into place."""
        report = _read_report(work / "report.json")
        wheels = sorted(work.glob("*.whl"))
        if [path.name for path in wheels] != [compilation.file]:
            raise _refused(
                compilation,
                f"it made {', '.join(path.name for path in wheels) or 'no wheel'} "
                f"instead of {compilation.file}",
            )
        if fault := fault_of(wheels[0], compilation, report):
            raise _refused(compilation, fault)
        fresh = Path(tempfile.mkdtemp(dir=work))
        path = fresh / compilation.file
        wheels[0].rename(path)
        meta = WheelMeta(
            key=compilation.key,
            file=path.name,
            sha256=sha256_of(path),
            size=path.stat().st_size,
            architectures=compilation.architectures,
            report=report,
            finished=self.now(),
        )
        write_record(fresh / "meta.json", meta)
        fresh.chmod(0o755)
        entry = self._entry(compilation)
        if entry.exists():
            shutil.rmtree(entry)
        fresh.rename(entry)


def _entry_faults(path: Path, compilation: Compilation, meta: WheelMeta) -> Iterator[str]:
    if meta.key != compilation.key or meta.file != path.name:
        yield f"meta.json is about {meta.file}, not {path.name}"
    if not path.is_file():
        yield f"{path.name} is gone"
    if path.stat().st_size != meta.size or sha256_of(path) != meta.sha256:
        yield f"{path.name} has another hash than when it was made"
    yield fault_of(path, compilation, meta.report)


def fault_of(path: Path, compilation: Compilation, report: Report) -> str:
    """Say in what the wheel at `path` is not what `compilation` is about; "" when in nothing."""
    return next(filter(None, _faults(path, compilation, report)), "")


def _faults(path: Path, compilation: Compilation, report: Report) -> Iterator[str]:
    yield _name_fault(path.name, compilation)
    missing = sorted(set(compilation.architectures) - set(report.sms))
    if missing:
        yield f"it lacks machine code for sm_{', sm_'.join(missing)}"
    if report.cxx11abi != compilation.cxx11abi:
        yield f"its C++ ABI is {'new' if report.cxx11abi else 'old'}, torch's the other one"
    if report.torch.partition("+")[0] != compilation.torch:
        yield f"it was compiled against torch {report.torch}, not {compilation.torch}"
    yield _content_fault(path, compilation)


def _name_fault(name: str, compilation: Compilation) -> str:
    """The parts of a wheel's name: distribution, version, interpreter, ABI, platform."""
    try:
        distribution, version, _, tags = parse_wheel_filename(name)
    except (InvalidWheelFilename, InvalidVersion) as error:
        return str(error)
    expected = parse_wheel_filename(compilation.file)
    if (distribution, version) != expected[:2]:
        return f"{name} is {distribution} {version}, not flash-attn {compilation.full_version}"
    if tags != expected[3]:
        return f"{name} is for {', '.join(sorted(map(str, tags)))}"
    return ""


def _content_fault(path: Path, compilation: Compilation) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            metadata = f"flash_attn-{compilation.full_version}.dist-info/METADATA"
            if metadata not in names:
                return f"{path.name} has no {metadata}"
            lines = archive.read(metadata).decode("utf-8", "replace").splitlines()
    except (zipfile.BadZipFile, OSError) as error:
        return f"{path.name} can't be read: {error}"
    if not any(_EXTENSION.fullmatch(name) for name in names):
        return f"{path.name} has no flash_attn_2_cuda*.so: nothing was compiled"
    if f"Version: {compilation.full_version}" not in lines:
        return f"{path.name} says another version inside than in its name"
    return ""


def _read_report(path: Path) -> Report:
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise BuildFailed(
            Finding(place="flash-attn", what=f"the compilation left no usable report: {error}")
        ) from error


def _refused(compilation: Compilation, fault: str) -> BuildFailed:
    return BuildFailed(
        Finding(
            place=f"flash-attn {compilation.version} for stack {compilation.stack}",
            what=f"what was compiled is not stored: {fault}",
            todo="Report this: the recipe in images/flash-attn does not do what it should.",
        )
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; it stays, for removing it would let two holders in."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
