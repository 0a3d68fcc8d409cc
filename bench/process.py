"""Run a program, time it, and leave nothing behind when we are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.apt import redact
from builder.errors import BuildFailed, Finding

__all__ = ["Finished", "end_group", "run"]

_GRACE_SECONDS = 20.0
_TAIL = 15


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A program that exited with 0: wall-clock seconds, and what it wrote to stdout."""

    seconds: float
    stdout: str


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run `argv` to its end; its stderr is added to `log`. BuildFailed shows the end of that.

    The program gets a process group of its own: a Ctrl-C reaches it once, through us, so that it
    can end its own children first.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        begin = errors.tell()
        start = time.perf_counter()
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            stdout, _ = process.communicate()
        except BaseException:
            end_group(process)
            raise
        seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise _failure(argv, process.returncode, log, begin)
    return Finished(seconds=seconds, stdout=stdout.decode("utf-8", errors="replace"))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the process group of `process`; kill what is left of it after 20 s."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _failure(argv: Sequence[str], code: int, log: Path, begin: int) -> BuildFailed:
    with log.open("rb") as file:
        file.seek(begin)
        text = file.read().decode("utf-8", errors="replace")
    tail = redact(text).strip().splitlines()[-_TAIL:]
    return BuildFailed(
        Finding(
            place=" ".join(Path(word).name if word.startswith("/") else word for word in argv[:4]),
            what=f"ended with exit code {code}",
            why="\n    ".join(tail),
            todo=f"The whole output is in {log}.",
        )
    )
