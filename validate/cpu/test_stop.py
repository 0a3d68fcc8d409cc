"""SIGTERM, and whose the outputs are."""

from __future__ import annotations

import os

from validate.checks import Measurements, check, failed
from validate.facts import CommandRun, Stop

LONGEST_STOP = 3.0
# 0: ended by itself; 143: died of SIGTERM; 130: as after Ctrl-C. 137 would be SIGKILL.
CODES = frozenset({0, 130, 143})


@check(
    "C09",
    why="Orchestrators kill what does not stop, and files of root can't be removed by their owner.",
    fix="Exec-form ENTRYPOINT with an init, and a program that doesn't catch SIGTERM for long.",
)
def test_stops(stops: tuple[Stop, ...], detect: CommandRun, measurements: Measurements) -> str:
    """Stops within 3 s of SIGTERM, sleeping or detecting; its outputs belong to the caller."""
    wrong = [
        f"while in {stop.doing} it took {stop.seconds:.1f} s and ended with code {stop.exit_code}"
        for stop in stops
        if stop.seconds > LONGEST_STOP or stop.exit_code not in CODES
    ]
    if not detect.outputs:
        wrong.append("`detect --save /out` saved nothing")
    caller = os.getuid() or 12345
    wrong += [
        f"{item.path} belongs to {item.uid}, the caller is {caller}"
        for item in detect.outputs
        if item.uid != caller
    ]
    if wrong:
        failed("; ".join(wrong))
    slowest = max(stop.seconds for stop in stops)
    measurements.add("stop.slowest", slowest, "s", n=len(stops))
    return f"slowest of {len(stops)} stops {slowest:.1f} s; outputs belong to {caller}"
