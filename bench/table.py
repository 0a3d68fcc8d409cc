"""Records -> Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.figures import Verdict, judge, show, summarize
from bench.records import FigureRecord, Machine, ScenarioRecord
from builder.talk import human_bytes

__all__ = ["render"]

_HEAD = (
    "| Scenario | Figure | Median | Min - max | n | Target | Verdict |",
    "|---|---|---:|---:|---:|---:|---|",
)


def render(records: Sequence[ScenarioRecord]) -> str:
    """Return one table over all records, the notes, and the machines they were measured on."""
    lines = [*_HEAD]
    for record in records:
        lines += [_row(record, figure) for figure in record.figures]
    notes = [f"- {record.scenario}: {note}" for record in records for note in record.notes]
    sections = [lines, notes, _machines(records)]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _row(record: ScenarioRecord, figure: FigureRecord) -> str:
    summary = summarize(figure.values)
    verdict = judge(figure.values, figure.at_most)
    target = "" if figure.at_most is None else f"<= {show(figure.at_most, figure.unit)}"
    if summary is None:
        numbers = ["", "", "0"]
    else:
        spread = f"{show(summary.smallest, figure.unit)} - {show(summary.largest, figure.unit)}"
        numbers = [show(summary.median, figure.unit), spread, str(summary.n)]
    said = verdict.value
    if verdict is Verdict.NOT_MEASURED and record.reason:
        said += f": {_one_line(record.reason)}"
    return "| " + " | ".join([record.scenario, figure.title, *numbers, target, said]) + " |"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _machines(records: Iterable[ScenarioRecord]) -> list[str]:
    """Each machine and revision once, with the scenarios that it measured."""
    found: dict[Machine, list[ScenarioRecord]] = {}
    for record in records:
        found.setdefault(record.machine, []).append(record)
    lines = []
    for machine, measured in found.items():
        names = ", ".join(record.scenario for record in measured)
        day = max(record.started for record in measured)[:10]
        lines.append(
            f"Measured on {day} at {machine.revision[:12]}{_dirty(machine)}: {machine.cpu},"
            f" {machine.cores} cores, {human_bytes(machine.memory_bytes)} of memory,"
            f" {machine.disk}, Linux {machine.kernel}, engine {machine.engine},"
            f" buildx {machine.buildx} ({names})."
        )
    return lines


def _dirty(machine: Machine) -> str:
    return " with changes" if machine.revision.endswith("-dirty") else ""
