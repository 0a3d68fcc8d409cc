#!/usr/bin/env python3
"""The command line: parses arguments, calls one function, turns errors into text and exit codes.

stdout is data, stderr is talk. Exit codes: 0 ok, 2 bad usage or matrix, 3 nothing selected,
4 incompatible, 5 no usable engine, 6 build failed, 7 validation failed, 10 source unreachable,
130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from builder.errors import ToolkitError

# argparse has no public name for what add_subparsers returns.
_Commands: TypeAlias = "_SubParsersAction[ArgumentParser]"

ROOT = Path(__file__).resolve().parent
INTERRUPTED = 130


def parser() -> ArgumentParser:
    """Return the parser; each command names its function, which is imported when it is used."""
    top = ArgumentParser(
        prog="build.py",
        description="Build and prove the images that matrix.yaml describes.",
        epilog="PATTERN is a shell pattern on row ids, as `build.py list` prints them.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _row_commands(commands)
    _build_commands(commands)
    _sweep_command(commands)
    _image_commands(commands)
    _machine_commands(commands)
    return top


def _command(commands: _Commands, name: str, function: str, help_text: str) -> ArgumentParser:
    sub = commands.add_parser(name, help=help_text, description=help_text)
    sub.set_defaults(function=function)
    return sub


def _pattern(sub: ArgumentParser) -> None:
    sub.add_argument("pattern", nargs="?", metavar="PATTERN", help="row ids (default: all)")


def _json(sub: ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="one JSON document")


def _row_commands(commands: _Commands) -> None:
    """What a row is, and whether it can work: nothing is built."""
    sub = _command(commands, "list", "builder.commands.rows:list_rows", "print the rows")
    _pattern(sub)
    _json(sub)

    sub = _command(
        commands,
        "check",
        "builder.commands.checking:check_rows",
        "judge whether rows can work at all",
    )
    _pattern(sub)
    _json(sub)
    sub.add_argument("--why", metavar="ID", help="the whole reasoning for one row")
    sub.add_argument("--online", action="store_true", help="also ask the hosts for every file")
    sub.add_argument(
        "--jsonl",
        action="store_const",
        dest="function",
        const="builder.commands.combinations:check_combinations",
        help="judge combinations from stdin, one JSON object a line",
    )

    sub = _command(
        commands, "lock", "builder.commands.locking:lock_rows", "resolve rows into hash locks"
    )
    _pattern(sub)
    sub.add_argument(
        "--upgrade",
        metavar="PKG",
        action="append",
        default=[],
        help="let PKG move; `base` takes the Debian packages that the mirror has now",
    )

    _command(commands, "schema", "builder.commands.rows:schema", "write docs/matrix.schema.json")


def _build_commands(commands: _Commands) -> None:
    """What would be built, why, and building it."""
    sub = _command(
        commands, "plan", "builder.commands.building:print_plan", "print what would be built"
    )
    _pattern(sub)
    sub.add_argument("--format", choices=["json", "bake"], default="json")
    _build_options(sub)

    sub = _command(
        commands, "build", "builder.commands.building:build_rows", "build the rows that changed"
    )
    _pattern(sub)
    sub.add_argument("--no-cache", action="store_true", help="run every step again")
    _build_options(sub)
    _disk_options(sub)

    sub = _command(
        commands, "why", "builder.commands.explain:why", "say what changed since a row was built"
    )
    sub.add_argument("row", metavar="ID")
    _json(sub)
    _build_options(sub)

    sub = _command(
        commands,
        "verify-repro",
        "builder.commands.repro:verify_repro",
        "build twice, compare every byte",
    )
    sub.add_argument("row", metavar="ID")
    _json(sub)
    _build_options(sub)

    sub = _command(
        commands,
        "doctor",
        "builder.commands.doctor:doctor",
        "what this machine reaches, has, and lacks",
    )
    _pattern(sub)
    _json(sub)
    _build_options(sub)


def _sweep_command(commands: _Commands) -> None:
    sub = _command(
        commands,
        "sweep",
        "validate.sweep:sweep",
        "build and prove rows stack by stack, making room on a small disk",
    )
    _pattern(sub)
    sub.add_argument(
        "--evict",
        choices=["auto", "always", "never"],
        default="auto",
        help="remove images that are done: when the next stack needs the room (auto), or always",
    )
    sub.add_argument("--export", metavar="DIR", help="put each proven image into one OCI layout")
    sub.add_argument("--no-validate", action="store_true", help="only build (and export)")
    _proof_options(sub)
    _build_options(sub)
    _disk_options(sub)


def _image_commands(commands: _Commands) -> None:
    """What is in a built image, and whether it is what its row says."""
    sub = _command(
        commands, "size", "builder.commands.size:size", "say where the bytes of an image are"
    )
    sub.add_argument("row", metavar="ID")
    _json(sub)
    sub.add_argument("--top", type=int, default=10, metavar="N", help="entries a layer (10)")

    sub = _command(
        commands, "validate", "validate.command:validate", "prove that images are what they say"
    )
    _pattern(sub)
    _validate_options(sub)

    sub = _command(
        commands, "report", "validate.command:report", "write out/summary.md and junit.xml again"
    )
    _pattern(sub)

    sub = _command(
        commands, "quickstart", "validate.command:quickstart", "engine, two images, both proven"
    )
    sub.add_argument("--fresh", action="store_true", help="don't reuse earlier results")


def _machine_commands(commands: _Commands) -> None:
    sub = _command(
        commands,
        "engine",
        "builder.commands.machine:engine",
        "start or stop a container engine of our own",
    )
    sub.add_argument("action", choices=["start", "stop"])

    _command(
        commands,
        "clean",
        "builder.commands.machine:clean",
        "remove what this toolkit made, and only that",
    )


def _build_options(sub: ArgumentParser) -> None:
    sub.add_argument(
        "--allow-missing",
        metavar="auto|PART,...",
        help="build partial images without what can't be reached: tensorrt, flash-attn, weights",
    )
    sub.add_argument(
        "--base",
        choices=["auto", "registry", "bootstrap"],
        default="auto",
        help="Debian by digest from a registry, or made from its packages (default: auto)",
    )


def _disk_options(sub: ArgumentParser) -> None:
    sub.add_argument(
        "--min-free", metavar="SIZE", help="end a build before less is free on its disk (2GB)"
    )
    sub.add_argument(
        "--row-space",
        metavar="SIZE",
        help="what a stack's first row takes on disk (default: estimated; 0: don't ask)",
    )
    sub.add_argument(
        "--cache-budget",
        metavar="SIZE",
        help="build cache to keep on an engine of our own (default: a fifth of its disk)",
    )
    sub.add_argument(
        "--no-wait", action="store_true", help="fail while another build runs, don't wait for it"
    )


def _validate_options(sub: ArgumentParser) -> None:
    sub.add_argument("--image", metavar="REF", help="any image, also one that we did not build")
    sub.add_argument("--only", metavar="ID,...", help="only these checks")
    _proof_options(sub)


def _proof_options(sub: ArgumentParser) -> None:
    sub.add_argument(
        "--tier", metavar="static,cpu,gpu", default="static,cpu,gpu", help="default: all three"
    )
    sub.add_argument("--require", metavar="TIER", help="not measured counts as failed in TIER")
    sub.add_argument("--fresh", action="store_true", help="don't reuse earlier results")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = parser().parse_args(argv)
    module_name, _, function_name = arguments.function.partition(":")
    try:
        module = __import__(module_name, fromlist=[function_name])
        code: int = getattr(module, function_name)(arguments, ROOT)
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    return code


def end_like_ctrl_c() -> None:
    """Have a polite request to end (SIGTERM, a closed terminal) tidy up as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # What a parent ignores (nohup) stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def use_own_environment() -> None:
    """Go on in .venv when this Python lacks the tools; `python3 build.py` then just works."""
    if find_spec("pydantic") is not None:
        return
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists() or Path(sys.prefix) == ROOT / ".venv":
        sys.exit("build.py: the tools are not installed\n    Run: make venv")
    os.execv(python, [str(python), *sys.argv])  # noqa: S606 - our own interpreter, as argv list


if __name__ == "__main__":
    use_own_environment()
    end_like_ctrl_c()
    sys.exit(main())
