"""What a benchmark leaves behind: `out/bench/<scenario>.json`, with the machine it ran on."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bench.figures import Unit
from builder.records import Record, read_record

__all__ = ["FigureRecord", "Machine", "ScenarioRecord", "read_all"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Part):
    """Where and with what it was measured. A number means little without it."""

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    disk: str
    engine: str
    buildx: str
    revision: str


class FigureRecord(_Part):
    """One figure: a value per run in `unit`, and the target of its median (`at_most`)."""

    name: str
    title: str
    unit: Unit
    at_most: float | None
    values: tuple[float, ...]


class ScenarioRecord(Record):
    """One scenario. `reason` says why figures have fewer values than `runs`; "" when none has.

    `notes` are what a reader of the figures has to know: which rows, which were left out.
    """

    scenario: str
    title: str
    runs: int
    started: str
    machine: Machine
    figures: tuple[FigureRecord, ...]
    reason: str = ""
    notes: tuple[str, ...] = ()


def read_all(folder: Path) -> list[ScenarioRecord]:
    """Return all records of `folder`, by name; InvalidInput when one is damaged."""
    found = (read_record(path, ScenarioRecord) for path in sorted(folder.glob("*.json")))
    return [record for record in found if record is not None]
