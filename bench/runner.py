"""Run scenarios, run after run, and write what they measured after each one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from bench.disk import free_bytes
from bench.figures import Verdict, judge
from bench.machine import read_machine
from bench.records import FigureRecord, Machine, ScenarioRecord, read_all
from bench.scenario import NotMeasured, Scenario
from bench.table import render
from bench.workbench import Workbench
from builder.errors import Finding, InvalidInput, NothingSelected, ToolkitError
from builder.records import write_atomic, write_record
from builder.talk import human_bytes

__all__ = ["Runner", "choose", "require_disk"]


def choose(
    scenarios: Sequence[Scenario[Workbench]], only: str | None
) -> tuple[Scenario[Workbench], ...]:
    """Return the scenarios named in `only` (comma separated), all by default, in their order."""
    names = [name.strip() for name in only.split(",")] if only else [s.name for s in scenarios]
    known = {scenario.name for scenario in scenarios}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise NothingSelected(
            *(
                Finding(
                    place="--only",
                    what=f"no scenario is called {name!r}",
                    todo=f"There are: {', '.join(sorted(known))}.",
                )
                for name in unknown
            )
        )
    return tuple(scenario for scenario in scenarios if scenario.name in names)


def require_disk(scenarios: Sequence[Scenario[Workbench]], scratch: Path, free: int) -> None:
    """Raise InvalidInput that names every scenario for which `free` bytes are too few."""
    findings = [
        Finding(
            place=scenario.name,
            what=f"needs {human_bytes(scenario.disk)} of free disk, there are {human_bytes(free)}",
            why=f"Its engine and its registry store below {scratch}.",
            todo="Free some, choose another disk by --scratch, or leave it out by --only.",
        )
        for scenario in scenarios
        if scenario.disk > free
    ]
    if findings:
        raise InvalidInput(*findings)


@dataclass
class Runner:
    """Runs scenarios on a workbench and keeps their records in `out`."""

    bench: Workbench
    out: Path
    runs: int
    errors: list[ToolkitError] = field(default_factory=list)

    def run(self, scenarios: Sequence[Scenario[Workbench]]) -> list[ScenarioRecord]:
        """Measure every scenario `runs` times, all of them once before any of them again.

        So the legs of a ratio lie close together, and an interrupted benchmark has a bit of
        everything. A scenario that failed is not tried again; `errors` has what was wrong.
        """
        require_disk(scenarios, self.bench.scratch, free_bytes(self.bench.scratch))
        machine = read_machine(self.bench.root, self.bench.scratch)
        records = {scenario.name: self._empty(scenario, machine) for scenario in scenarios}
        for number in range(self.runs):
            for scenario in scenarios:
                record = records[scenario.name]
                if record.reason or number >= record.runs:
                    continue
                self.bench.talk.line(f"run {number + 1} of {record.runs}: {scenario.name}")
                records[scenario.name] = self._measure(scenario, record, number)
                self._write(records[scenario.name])
        return list(records.values())

    def _empty(self, scenario: Scenario[Workbench], machine: Machine) -> ScenarioRecord:
        return ScenarioRecord(
            scenario=scenario.name,
            title=scenario.title,
            runs=1 if scenario.once else self.runs,
            started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            machine=machine,
            figures=tuple(
                FigureRecord(
                    name=figure.name,
                    title=figure.title,
                    unit=figure.unit,
                    at_most=figure.at_most,
                    values=(),
                )
                for figure in scenario.figures
            ),
        )

    def _measure(
        self, scenario: Scenario[Workbench], record: ScenarioRecord, number: int
    ) -> ScenarioRecord:
        try:
            values = scenario.measure(self.bench, number)
        except NotMeasured as error:
            self.bench.talk.line(f"{scenario.name}: not measured: {error}")
            return record.model_copy(update={"reason": str(error)})
        except ToolkitError as error:
            self.errors.append(error)
            self.bench.talk.line(f"{scenario.name}: failed: {error}")
            return record.model_copy(update={"reason": f"failed: {error.findings[0].what}"})
        figures = tuple(
            figure.model_copy(update={"values": (*figure.values, float(values[figure.name]))})
            for figure in record.figures
        )
        notes = tuple(self.bench.notes.get(scenario.name, ()))
        return record.model_copy(update={"figures": figures, "notes": notes})

    def _write(self, record: ScenarioRecord) -> None:
        write_record(self.out / f"{record.scenario}.json", record)
        write_atomic(self.out / "summary.md", render(read_all(self.out)))


def all_met(records: Sequence[ScenarioRecord]) -> bool:
    """Whether every target was measured and met: what was not measured is not a success."""
    verdicts = [
        judge(figure.values, figure.at_most)
        for record in records
        for figure in record.figures
        if figure.at_most is not None
    ]
    return all(verdict is Verdict.MET for verdict in verdicts)
