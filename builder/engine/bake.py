"""Builds through `docker buildx bake`, the engine's own builder; docker-py can't drive BuildKit.

https://github.com/docker/docker-py/issues/2230, open on 2026-11-23.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from builder.disk import DiskWatch, is_full
from builder.errors import BuildFailed, EngineUnavailable, Finding
from builder.talk import Talk, human_bytes, human_seconds

__all__ = ["BakeProgress", "bake", "failure_of"]

_TAIL = 25
_END_SECONDS = 15.0


def bake(
    definition: Mapping[str, object],
    targets: Sequence[str],
    *,
    folder: Path,
    log: Path,
    talk: Talk,
    no_cache: bool = False,
    disk: DiskWatch | None = None,
) -> dict[str, str]:
    """Build `targets` and return the digest of each; the builder's whole output goes to `log`.

    Paths in `definition` are relative to `folder`. Raises BuildFailed with the failing step and the
    end of its output, or when `disk` says that it gets full; EngineUnavailable when buildx is
    missing or the engine goes away.
    """
    disk = disk or DiskWatch(places=())
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "bake.json").write_text(json.dumps(definition))
        metadata = work / "metadata.json"
        argv = [
            *_until_we_die(),
            "docker", "buildx", "bake", "--file", str(work / "bake.json"), "--progress", "rawjson",
            "--metadata-file", str(metadata), *(["--no-cache"] if no_cache else []),
            *_permissions(), *targets,
        ]  # fmt: skip
        # Line by line, so that the log can be followed, and is there when we are killed.
        with log.open("w", encoding="utf-8", buffering=1) as file, talk.working("building") as news:
            progress = BakeProgress()
            told = _Told(progress=progress, log=file, talk=talk, news=news)
            code = _run(argv, folder, told, disk)
            if code != 0 and progress.lost_snapshot():
                talk.line("the engine tidied away what it was unpacking on: once more")
                progress = BakeProgress()
                told = _Told(progress=progress, log=file, talk=talk, news=news)
                code = _run(argv, folder, told, disk)
        if code != 0:
            if (said := progress.full_disk()) is not None:
                raise disk.full(*said, str(log))
            raise failure_of(progress, log)
        return {
            target: data["containerimage.digest"]
            for target, data in json.loads(metadata.read_text()).items()
            if isinstance(data, dict) and "containerimage.digest" in data
        }


def _until_we_die() -> list[str]:
    """A prefix that has the kernel end buildx when we are killed and can't do it ourselves.

    setpriv is part of util-linux, which is everywhere on Debian and Ubuntu.
    """
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def _permissions() -> list[str]:
    """Since buildx 0.19 bake wants leave for host networking and for paths outside its folder."""
    try:
        shown = subprocess.run(
            ["docker", "buildx", "bake", "--help"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise EngineUnavailable(
            Finding(
                place="",
                what="`docker buildx bake` can't be run",
                why=str(error),
                todo="Run: make engine (it installs docker-cli and docker-buildx).",
            )
        ) from error
    return ["--allow", "network.host", "--allow", "fs.read=*"] if "--allow " in shown else []


@dataclass(frozen=True, kw_only=True)
class _Told:
    """Where the news of a build go."""

    progress: BakeProgress
    log: IO[str]
    talk: Talk
    news: Callable[[str], None]

    def take(self, chunk: str) -> None:
        for text in self.progress.feed(chunk):
            self.talk.line(text)
        self.log.writelines(self.progress.take_log())
        self.news(self.progress.status())


def _run(argv: Sequence[str], folder: Path, told: _Told, disk: DiskWatch) -> int:
    # Without the variable the stack, a context of the row, is exported as an image of its own, and
    # gzipped: buildx 0.13 adds a default export even where the output is `cacheonly`. The builder
    # is the engine's own: one in a container (`docker buildx use`) would keep the images.
    with subprocess.Popen(
        argv,
        cwd=folder,
        env={**os.environ, "BUILDX_NO_DEFAULT_LOAD": "1", "BUILDX_BUILDER": "default"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None
        chunks: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_pump, args=(process.stderr, chunks), daemon=True)
        reader.start()
        try:
            for chunk in _until_closed(chunks):
                told.take(chunk)
                disk.check()
            return process.wait()
        finally:
            _end(process)
            reader.join(_END_SECONDS)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask buildx to cancel its build, which it does within a second; insist when it hangs."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pump(stream: IO[str], chunks: queue.Queue[str | None]) -> None:
    while chunk := stream.readline():
        chunks.put(chunk)
    chunks.put(None)


def _until_closed(chunks: queue.Queue[str | None]) -> Iterator[str]:
    """Yield what arrives, and "" every second so that the status keeps moving."""
    while True:
        try:
            chunk = chunks.get(timeout=1.0)
        except queue.Empty:
            yield ""
            continue
        if chunk is None:
            return
        yield chunk


@dataclass
class _Step:
    name: str
    started: float
    detail: str = ""


@dataclass
class BakeProgress:
    """Reads BuildKit's rawjson stream: documents one after the other, over one line or many."""

    clock: Callable[[], float] = time.monotonic
    running: dict[str, _Step] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _outputs: dict[str, list[str]] = field(default_factory=dict)
    _log: list[str] = field(default_factory=list)
    _buffer: str = ""
    _decoder: json.JSONDecoder = field(default_factory=json.JSONDecoder)

    def feed(self, text: str) -> Iterator[str]:
        """Take a piece of the stream; yield a line for each step that ended."""
        self._buffer += text
        while self._buffer:
            self._buffer = self._buffer.lstrip()
            if self._buffer and self._buffer[0] != "{":
                line, newline, rest = self._buffer.partition("\n")
                if not newline:
                    return
                self.stray.append(line)
                self._log.append(line + "\n")
                self._buffer = rest
                continue
            try:
                document, end = self._decoder.raw_decode(self._buffer)
            except json.JSONDecodeError:
                return
            self._buffer = self._buffer[end:]
            yield from self._take(document)

    def status(self) -> str:
        """What runs now, how long already, and how far it is."""
        parts = []
        for step in self.running.values():
            seconds = human_seconds(self.clock() - step.started)
            parts.append(f"{step.name} {step.detail} {seconds}".replace("  ", " "))
        return "; ".join(parts) or "..."

    def take_log(self) -> list[str]:
        """Return and forget the log lines that came since the last call."""
        lines, self._log = self._log, []
        return lines

    def full_disk(self) -> tuple[str, str] | None:
        """Return (step, words) of what says that a disk is full, None when nothing does."""
        for name, error in self.failed.items():
            for text in (error, *reversed(self.output_of(name))):
                if is_full(text):
                    return name, text
        return next((("buildx", line) for line in self.stray if is_full(line)), None)

    def lost_snapshot(self) -> bool:
        """Whether the engine removed layers under the image that it was unpacking.

        After an export that failed half-way containerd collects its remains, sometimes just when
        the next one builds on them (seen 2026-11-25, Docker 26.1). The steps are cached by then.
        """
        return any(
            "parent snapshot" in text and "not found" in text for text in self.failed.values()
        )

    def output_of(self, name: str) -> list[str]:
        """The last lines that the step `name` wrote."""
        return self._outputs.get(name, [])[-_TAIL:]

    def _take(self, document: Any) -> Iterator[str]:
        for vertex in document.get("vertexes") or ():
            yield from self._vertex(vertex)
        for status in document.get("statuses") or ():
            self._status(status)
        for log in document.get("logs") or ():
            self._take_output(log)

    def _vertex(self, vertex: Mapping[str, Any]) -> Iterator[str]:
        key, name = vertex["digest"], _short(str(vertex.get("name", "")))
        self._names[key] = name
        if vertex.get("error"):
            self.failed[name] = str(vertex["error"])
        if vertex.get("completed"):
            step = self.running.pop(key, None)
            if key in self._done:
                return
            self._done.add(key)
            self._log.append(f"{name}: {'cached' if vertex.get('cached') else 'done'}\n")
            seconds = self.clock() - step.started if step else 0.0
            if seconds >= 0.5 and not name.startswith("[internal]"):
                yield f"{human_seconds(seconds):>10}  {name}"
        elif vertex.get("started") and key not in self.running:
            self.running[key] = _Step(name, self.clock())

    def _status(self, status: Mapping[str, Any]) -> None:
        step = self.running.get(str(status.get("vertex")))
        if step is None:
            return
        current, total = int(status.get("current") or 0), int(status.get("total") or 0)
        label = str(status.get("name") or status.get("id") or "")
        amount = human_bytes(current) + (f" of {human_bytes(total)}" if total else "")
        step.detail = f"({label}{', ' + amount if current else ''})"

    def _take_output(self, log: Mapping[str, Any]) -> None:
        name = self._names.get(str(log.get("vertex")), "")
        try:
            text = base64.b64decode(log.get("data") or "").decode("utf-8", errors="replace")
        except (binascii.Error, ValueError):
            return
        lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
        self._outputs.setdefault(name, []).extend(lines)
        self._log.extend(f"{name}: {line}\n" for line in lines)
        step = self.running.get(str(log.get("vertex")))
        if step is not None and lines:
            step.detail = f"({lines[-1].strip()[:60]})"


def _short(name: str) -> str:
    """`[stack cuda 1/1] RUN python install.py`: a step without its mounts, on one short line."""
    return " ".join(re.sub(r"--(mount|network)=\S+", "", name).split())[:110]


def failure_of(progress: BakeProgress, log: Path) -> BuildFailed | EngineUnavailable:
    """Say what failed: the step and the end of its output, or that the engine went away."""
    stray = "\n".join(progress.stray[-_TAIL:])
    gone = ("Cannot connect to the Docker daemon", "error reading from server: EOF")
    # Who else refuses connections (a registry, a proxy) is the business of the step that asked.
    refused = "connection refused" in stray and not progress.failed
    if refused or any(sign in stray for sign in gone):
        return EngineUnavailable(
            Finding(
                place="",
                what="the engine went away during the build",
                why=stray,
                todo="Start it again (make engine) and repeat: finished steps are kept.",
            )
        )
    findings = []
    for name, error in progress.failed.items():
        if "context canceled" in error and len(progress.failed) > 1:
            continue
        output = "\n    ".join(progress.output_of(name))
        findings.append(
            Finding(place=name, what=error, why=output, todo=f"The whole output is in {log}.")
        )
    if not findings:
        findings = [
            Finding(place="buildx", what=stray or "failed without a word", todo=f"See {log}.")
        ]
    return BuildFailed(*findings)
