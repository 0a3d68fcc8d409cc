"""The entrypoint: our commands by name, anything else as a program of the image."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable

from yolo_image import about, manifest
from yolo_image.console import BAD_USAGE, OK, Stop, need_temporary_folder, talk

COMMANDS = ("detect", "info", "export", "doctor")


def main(argv: list[str]) -> int:
    """Run what the command line asks for and return the exit code."""
    try:
        return dispatch(argv)
    except Stop as stop:
        talk(f"error: {stop}")
        return stop.code
    except KeyboardInterrupt:
        return 130


def dispatch(argv: list[str]) -> int:
    """Run a command of ours in this process, or become the program that was asked for."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(about.describe(manifest.load()))
        return OK
    name, *rest = argv
    if name in COMMANDS:
        if name != "doctor":  # which says it itself
            need_temporary_folder()
        # Only now: each command imports what it needs, and a slow import delays no other.
        run: Callable[[list[str]], int] = importlib.import_module(f"yolo_image.{name}").run
        return run(rest)
    become(argv)
    return OK


def become(argv: list[str]) -> None:
    """Replace this process with the program `argv[0]`; returns only when there is none."""
    if program := shutil.which(argv[0]):
        os.execv(program, argv)  # noqa: S606 - the user's own command line
    commands = ", ".join(COMMANDS)
    raise Stop(
        f"{argv[0]!r} is neither a command of this image ({commands}) nor a program in it.",
        code=BAD_USAGE,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
