"""`python -m bench`: measure the toolkit against what one would do instead.

stdout is the table (or JSON), stderr is talk. Exit codes are those of build.py; with --strict, 1
when a target was missed or not measured.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.runner import Runner, all_met, choose
from bench.scenarios import SCENARIOS
from bench.table import render
from bench.workbench import Workbench
from builder.errors import ToolkitError
from builder.talk import Talk

ROOT = Path(__file__).resolve().parent.parent
ROWS = ("yolov8-cu128", "yolov12-cu128")
INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    top.add_argument("--only", metavar="NAME,...", help="only these scenarios")
    top.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each (3)")
    top.add_argument("--list", action="store_true", help="print the scenarios and their targets")
    top.add_argument("--json", action="store_true", help="one JSON document on stdout")
    top.add_argument(
        "--strict", action="store_true", help="exit 1 unless every target was measured and met"
    )
    top.add_argument(
        "--rows",
        default=",".join(ROWS),
        metavar="ID,ID",
        help=f"two rows of one stack ({','.join(ROWS)})",
    )
    top.add_argument(
        "--project", type=Path, default=ROOT, metavar="DIR", help="the project to measure"
    )
    top.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="disk for engine and registry: DIR/bench is emptied afterwards (.cache)",
    )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    arguments = parser().parse_args(argv)
    # As Ctrl-C: the second engine has to be stopped and its data deleted in any case.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _list(as_json=arguments.json) if arguments.list else _measure(arguments)
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was measured is kept", file=sys.stderr)
        return INTERRUPTED


def _list(*, as_json: bool) -> int:
    if as_json:
        shown = [
            {
                "scenario": scenario.name,
                "title": scenario.title,
                "figures": [vars(figure) for figure in scenario.figures],
            }
            for scenario in SCENARIOS
        ]
        print(json.dumps(shown, indent=2))
        return 0
    for scenario in SCENARIOS:
        print(f"{scenario.name:16}{scenario.title}")
    return 0


def _measure(arguments: argparse.Namespace) -> int:
    chosen = choose(SCENARIOS, arguments.only)
    root = arguments.project.resolve()
    bench = Workbench(
        root=root,
        rows=tuple(arguments.rows.split(",")),
        scratch=(arguments.scratch or root / ".cache").absolute() / "bench",
        talk=Talk(),
    )
    runner = Runner(bench=bench, out=root / "out" / "bench", runs=arguments.runs)
    bench.open()
    try:
        records = runner.run(chosen)
    finally:
        # A second Ctrl-C must not leave an engine and its data behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        bench.close()
    if arguments.json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
    else:
        print(render(records), end="")
    if runner.errors:
        return runner.errors[0].exit_code
    return 1 if arguments.strict and not all_met(records) else 0


if __name__ == "__main__":
    sys.exit(main())
