"""What goes to the terminal: data on stdout, talk on stderr, errors without tracebacks."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = [
    "BAD_USAGE",
    "FAILED",
    "OK",
    "TMP",
    "Stop",
    "data_stream",
    "need_temporary_folder",
    "talk",
    "write_error",
    "write_json",
]

OK, FAILED, BAD_USAGE = 0, 1, 2

TMP = Path("/tmp")  # noqa: S108 - the one folder that the image needs to write


class Stop(Exception):
    """Ends the command with a message that a user can act on."""

    def __init__(self, message: str, *, code: int = FAILED) -> None:
        self.code = code
        super().__init__(message)


def talk(message: str) -> None:
    """Say something to the person in front of the terminal."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def data_stream() -> Iterator[TextIO]:
    """Yield the real stdout, and send everything else that prints there to stderr.

    ultralytics logs to stdout and TensorRT prints from C++: only the file descriptor itself can be
    kept clean for all of them.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as stream:
            yield stream
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def write_json(stream: TextIO, document: object) -> None:
    """Write one JSON document, with a newline after it."""
    json.dump(document, stream, indent=2)
    stream.write("\n")


def write_error(folder: Path) -> str:
    """Return why nothing can be written to `folder`; empty when it can."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def need_temporary_folder() -> None:
    """Stop when nothing can be written to /tmp: torch would end in a traceback that hides why."""
    if error := write_error(TMP):
        raise Stop(f"{TMP} can't be written ({error}). With --read-only, add --tmpfs {TMP}.")
